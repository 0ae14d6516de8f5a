"""`leap run --dry-run`: whether names and options are right, what paid models would be asked and may cost, and how long a run may
take, before anything is spent. Calls and tokens are those of a `rehearsal`; times are in `dry_time`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from leap.cli.dry_time import print_time
from leap.cli.rehearsal import SAMPLE, Estimate, Rehearsal
from leap.cli.table import print_table
from leap.envs.base import Environment
from leap.models.ledger import Budget
from leap.models.metered import check_price
from leap.models.prices import Prices, dollars
from leap.progress import Progress
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory
from leap.runs.preflight import prepared_environment, unmet


def print_estimate(recipe: Recipe) -> bool:
    """Prints what is missing here, calls, tokens and USD of each stage, at most (answers that must be asked for again come on
    top), and about how long the run takes, here and on GPUs.

    Returns:
        Whether the run could start here.

    Raises:
        LeapError: See `estimate_recipe`.
    """
    console = Console(width=None if Console().is_terminal else 120)
    with closing(prepared_environment(recipe, Progress())) as environment:
        _print_calls(recipe, estimate_recipe(recipe, environment), console)
        missing = list(unmet(recipe))
        for problem in missing:
            console.print(f"The run cannot start here yet: {problem}", markup=False, soft_wrap=True)
        print_time(recipe, environment, missing, console)
        return not missing


def _print_calls(recipe: Recipe, stages: Sequence[Estimate], console: Console) -> None:
    if not stages:
        console.print("This recipe asks no paid model: every model of it runs on this machine.")
        return
    known = [stage.usd for stage in stages if stage.usd is not None]
    usd = sum(known) if len(known) == len(stages) else None
    numbers = [(stage.calls, stage.tokens_in, stage.tokens_out) for stage in stages]
    rows = []
    for stage in (*stages, Estimate("total", "", *map(sum, zip(*numbers, strict=True)), usd=usd)):
        cost = "price unknown" if stage.usd is None else dollars(stage.usd)
        rows.append(
            (stage.stage, stage.model, f"{stage.calls:,}", f"{stage.tokens_in:,}", f"{stage.tokens_out:,}", cost)
        )
    figures = ("calls", "tokens in", "tokens out", "cost")
    print_table(("stage", "model", *figures), rows, right=figures)
    console.print(
        "At most: every episode is taken to last to its horizon and to be corrected. Lengths are those of scripted play of "
        f"{SAMPLE} tasks, at four characters a token."
    )
    cap = recipe.budget.usd
    if cap is not None and usd is not None and usd > cap:
        console.print(f"That is more than budget.usd {cap:g}: the run would stop there and go on when it is raised.")


def estimate_recipe(recipe: Recipe, environment: Environment | None = None) -> list[Estimate]:
    """The estimate of each stage that asks a paid model. The environment is the recipe's, where it has been made ready already.

    Raises:
        LeapError: The run itself would refuse to start: a cap in USD is set and a price is not known, a split is misused, data
            is missing.
    """
    paid = [section.model for section in recipe.models if section.paid]
    if not paid:
        return []
    prices = Prices(recipe.prices)
    for name in paid:
        check_price(name, prices, recipe.budget)
    own = environment is None
    environment = environment or prepared_environment(recipe, Progress())
    with TemporaryDirectory() as folder:
        rehearsal = Rehearsal(recipe.model_copy(update={"budget": Budget()}), RunDirectory(Path(folder)), environment)
        try:
            return list(rehearsal.estimates())
        finally:
            rehearsal.close()
            if own:
                environment.close()
