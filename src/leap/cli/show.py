"""The tables of the commands on run directories."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from leap.cli.table import print_table
from leap.evaluation import Evaluation
from leap.loop import Result
from leap.recipe import Recipe


def print_evaluations(evaluations: Iterable[Evaluation], *, best: str | None = None) -> None:
    """Prints a table: every number with its split, n and interval. The mean score stands in it where it says more than
    success; where scores have parts, these and what they are by as well."""
    evaluations = list(evaluations)
    graded = any(abs(evaluation.overall.score - evaluation.overall.success) > 1e-9 for evaluation in evaluations)
    in_parts = any(evaluation.overall.parts for evaluation in evaluations)
    scores = [*(["score"] if graded or in_parts else []), *(["made of"] if in_parts else [])]
    columns = ["policy", "split", "n", *scores, "success", "95 % interval", "actions (failure = horizon)"]
    rows = []
    for evaluation in evaluations:
        score = evaluation.overall
        made_of = "\n".join(f"{name} {100 * value:.1f}" for name, value in score.parts.items())
        name = f"{evaluation.policy} (best on validation)" if evaluation.policy == best else evaluation.policy
        scored = [f"{100 * score.score:.1f} ± {100 * score.score_ci:.1f}", made_of][: len(scores)]
        interval = f"{score.low:.1%} to {score.high:.1%}"
        actions = f"{score.actions:.1f} ± {score.actions_ci:.1f} of {evaluation.horizon}"
        n = f"{score.n} ({score.broken_off} broken off)" if score.broken_off else str(score.n)
        rows.append([name, evaluation.split, n, *scored, f"{score.success:.1%}", interval, actions])
    chosen = [number for number, evaluation in enumerate(evaluations) if evaluation.policy == best]
    print_table(columns, rows, right=[one for one in columns if one not in ("policy", "split", "made of")], bold=chosen)
    if in_parts:
        console = Console(width=None if Console().is_terminal else 120)
        made_by = {said for evaluation in evaluations for said in evaluation.versions.items()}
        for line in sorted(f"{name}: {version}" for name, version in made_by if name != "leap"):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_result(recipe: Recipe, result: Result) -> None:
    """Prints the table of a finished run: every policy on every split."""
    everything = [*result.baselines, *(evaluation for student in result.students for evaluation in student)]
    splits = [*recipe.environment.test, recipe.environment.validation]
    ordered = [evaluation for split in splits for evaluation in everything if evaluation.split == split]
    print_evaluations(ordered, best=f"pi_{result.best}")
