"""What `leap value` and `leap evaluate --best-of` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from leap.cli.table import print_table
from leap.errors import RecipeError
from leap.value.measured import Measured

if TYPE_CHECKING:
    from leap.runs.valuing import BestOfScore, Number


def print_measured(found: Measured) -> None:
    """Prints how good a value model is, chance beside it."""
    typer.echo(
        f"value model of {found.policy} by {found.labels}: learnt from {found.trained} labelled actions of "
        f"{found.trained_episodes} training episodes ({found.executed} actions executed), measured on {found.actions} actions "
        f"at {found.steps} steps of {found.episodes} episodes of {found.split}, labelled by replay"
    )
    rows = [
        (
            f"{one.low:.1f} to {one.low + 0.1:.1f}",
            str(one.n),
            f"{one.score:.2f}",
            f"{one.label:.2f} ± {one.label_ci:.2f}",
        )
        for one in found.bins
    ]
    columns = ("value", "actions", "mean value", "came to (95 %)")
    print_table(columns, rows, right=columns)
    rank = "none: one side is constant" if found.rank is None else f"{found.rank:+.2f}"
    order = found.ordered
    right = f"{order.share:.1%} [{order.low:.1%}, {order.high:.1%}] of {order.n} pairs" if order else "no pair differs"
    figures = [
        ("expected calibration error", f"{found.ece:.3f}", ""),
        ("squared error (Brier)", f"{found.brier:.3f}", f"{found.brier_base:.3f} by the mean label, {found.base:.2f}"),
        ("rank correlation with labels", rank, f"within ± {found.rank_chance:.2f}"),
        ("better of two at one step", right, "50 %"),
    ]
    if found.own and found.own_by_value:
        by = f"{found.own_by_value.share:.1%} [{found.own_by_value.low:.1%}, {found.own_by_value.high:.1%}]"
        alone = f"{found.own.share:.1%} [{found.own.low:.1%}, {found.own.high:.1%}] by the student, who took it"
        figures.append(("its own action or another", f"{by} of {found.own.n} pairs", alone))
    if chosen := found.chosen:
        others = (
            f"{chosen['random']:.2f} at random, {chosen['own']:.2f} its own, {chosen['hindsight']:.2f} in hindsight"
        )
        figures.append(("mean label of the action chosen", f"{chosen['value']:.2f}", others))
    print_table(("figure", "value model", "by chance, or otherwise"), figures)


def print_best_of(scores: Sequence[BestOfScore]) -> None:
    """Prints success by N."""
    rows = []
    for one in scores:
        score = one.evaluation.overall
        interval = f"{score.low:.1%} to {score.high:.1%}"
        passed = "" if one.passed is None else f"{one.passed:.1%}"
        cells = (str(one.n), one.evaluation.split, str(score.n), f"{score.success:.1%}", interval)
        rows.append((*cells, f"{score.actions:.1f}", f"{one.generated:,.0f}", passed))
    columns = (
        "best of",
        "split",
        "n",
        "success",
        "95 % interval",
        "actions",
        "tokens a game",
        "pass@N, N whole attempts",
    )
    print_table(columns, rows, right=[one for one in columns if one != "split"])


def numbers(texts: Sequence[str]) -> list[Number]:
    """The N of `--best-of`.

    Raises:
        RecipeError: One is neither a number from 1 nor `all`.
    """
    for text in texts:
        if text != "all" and not (text.isdecimal() and int(text)):
            raise RecipeError(f"--best-of {text!r}: give a number from 1, or all.")
    return ["all" if text == "all" else int(text) for text in texts]
