"""The tables of the commands on run directories."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from leap.evaluation import Evaluation
from leap.loop import Result
from leap.recipe import Recipe


def print_evaluations(evaluations: Iterable[Evaluation], *, best: str | None = None) -> None:
    """Prints a table: every number with its split, n and interval. The mean score stands in it where it says more than
    success; where scores have parts, these and what they are by as well."""
    evaluations = list(evaluations)
    graded = any(abs(evaluation.overall.score - evaluation.overall.success) > 1e-9 for evaluation in evaluations)
    in_parts = any(evaluation.overall.parts for evaluation in evaluations)
    table = Table(box=None, header_style="bold", pad_edge=False)
    scores = [*(["score"] if graded or in_parts else []), *(["made of"] if in_parts else [])]
    for column in ("policy", "split", "n", *scores, "success", "95 % interval", "actions (failure = horizon)"):
        table.add_column(column, justify="left" if column in ("policy", "split", "made of") else "right")
    for evaluation in evaluations:
        score = evaluation.overall
        made_of = "\n".join(f"{name} {100 * value:.1f}" for name, value in score.parts.items())
        name = f"{evaluation.policy} (best on validation)" if evaluation.policy == best else evaluation.policy
        table.add_row(
            name,
            evaluation.split,
            str(score.n),
            *([f"{100 * score.score:.1f} ± {100 * score.score_ci:.1f}"] if graded or in_parts else []),
            *([made_of] if in_parts else []),
            f"{score.success:.1%}",
            f"{score.low:.1%} to {score.high:.1%}",
            f"{score.actions:.1f} ± {score.actions_ci:.1f} of {evaluation.horizon}",
            style="bold" if evaluation.policy == best else "",
        )
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    if in_parts:
        for line in sorted({f"{name}: {said}" for e in evaluations for name, said in e.versions.items() if name != "leap"}):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_result(recipe: Recipe, result: Result) -> None:
    """Prints the table of a finished run: every policy on every split."""
    everything = [*result.baselines, *(evaluation for student in result.students for evaluation in student)]
    splits = [*recipe.environment.test, recipe.environment.validation]
    ordered = [evaluation for split in splits for evaluation in everything if evaluation.split == split]
    print_evaluations(ordered, best=f"pi_{result.best}")
