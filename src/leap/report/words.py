"""Numbers and comparisons in words that claim no more than the numbers do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from leap.core import Rejection, StopReason
from leap.evaluation import Score
from leap.models.prices import dollars
from leap.report.model import Comparison, PolicyScores, Relation, Setup
from leap.stats import sign_test

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
THIN = "\u202f"  # narrow no-break space: a number and its unit stay together

SCRIPT = "the scripted teacher"  # the environment's

CAUSES = {
    Rejection.NOT_ADMISSIBLE: "action not admissible there",
    Rejection.EMPTY: "no action or no reason",
    Rejection.LEAK: "names what the student has not seen",
    Rejection.HOPELESS: "nothing can succeed any more",
    Rejection.WORSE: "worse than the student's own by a roll-in",
    Rejection.DECLINED: "the teacher said nothing",
    Rejection.TEACHER_ERROR: "no usable answer",
}
"""Why corrections do not train."""

STOPS = {
    StopReason.SUCCESS: "solved",
    StopReason.ENDED: "ended by the environment",
    StopReason.HORIZON: "horizon reached",
    StopReason.MODEL_ERROR: "model error",
    StopReason.ENVIRONMENT_ERROR: "environment error",
}
"""How episodes end."""


def pi(i: int) -> str:
    """π with its index."""
    return f"π{str(i).translate(_SUBSCRIPTS)}"


def acting(beta: float, student: str) -> str:
    """Returns who acts in rollouts in which the environment's teacher takes the student's place with probability beta."""
    if beta >= 1:
        return SCRIPT
    return f"{student}, {SCRIPT} in its place with probability {beta:g}" if beta else student


def listed(names: Iterable[str]) -> str:
    """Returns names as people list them: `a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def cut(text: str, most: int) -> str:
    """Returns a text of at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def counted(score: Score) -> str:
    """Returns how many episodes a score is of, and how many of them were broken off."""
    return f"n = {score.n}" + (f", {score.broken_off} broken off" if score.broken_off else "")


def kind(name: str) -> str:
    """Returns a task type as words."""
    return name.replace("_", " ") or "(no type)"


def percent(share: float, n: int, *, unit: bool = True) -> str:
    """Returns a share with no more digits than n episodes carry."""
    written = f"{100 * share:.{1 if n >= 100 else 0}f}".replace("-", "−")
    return f"{written}{THIN}%" if unit else written


def success(score: Score) -> str:
    """Returns the success rate."""
    return percent(score.success, score.n)


def interval(score: Score) -> str:
    """Returns the 95 % interval of the success rate."""
    return f"{percent(score.low, score.n, unit=False)}–{percent(score.high, score.n)}"


def actions(score: Score) -> str:
    """Returns the mean number of actions, with the half-width of its 95 % interval."""
    return f"{score.actions:.1f}" + (f" ± {score.actions_ci:.1f}" if score.n > 1 else "")


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 59.95:
        return f"{seconds:.{1 if seconds < 9.95 else 0}f}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{THIN}h {minutes:02d}{THIN}min" if hours else f"{minutes}{THIN}min {rest:02d}{THIN}s"


def count(number: float) -> str:
    """Returns a large number for people."""
    for least, size, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if number >= least:
            return f"{number / size:.3g}{THIN}{unit}"
    return f"{number:,.0f}".replace(",", THIN)


def usd(value: float) -> str:
    """US dollars: cents, or as many places as a small sum needs."""
    return dollars(value).replace(",", THIN)


def plain(value: object) -> str:
    """Returns a figure of unknown kind."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}".replace(",", THIN)
    return str(value)


def relation(first: Score, second: Score) -> Relation:
    """Returns how two success rates stand to each other; "clearly" only where their intervals do not overlap."""
    if first.success == second.success:
        return "level"
    if first.success > second.success:
        return "clearly above" if first.low > second.high else "above"
    return "clearly below" if first.high < second.low else "below"


def compare(
    split: str, policy: PolicyScores, against: PolicyScores, mine: Mapping[str, bool], theirs: Mapping[str, bool]
) -> Comparison:
    """Compares two policies on a split that both were evaluated on; `mine` and `theirs` tell whether each solved the task of
    each key, and are empty if that is not known."""
    first, second = policy.evaluations[split].overall, against.evaluations[split].overall
    tasks = mine.keys() & theirs.keys()
    only_first = sum(mine[key] and not theirs[key] for key in tasks)
    only_second = sum(theirs[key] and not mine[key] for key in tasks)
    p = sign_test(only_first, only_second) if tasks else None
    how, difference = relation(first, second), first.success - second.success
    points = f"{abs(100 * difference):.0f} points"
    if how == "level":
        words = "The same share solved."
    elif how.startswith("clearly"):
        words = f"{points} {how.removeprefix('clearly ')}; the intervals do not overlap."
    else:
        words = f"{points} {how}, but the intervals overlap: they alone do not settle it."
    if p is not None:
        words += (
            f" Of the same {len(tasks)} tasks, {policy.short} alone solved {only_first}, "
            f"{against.short} alone {only_second} ({_p(p)})."
        )
    return Comparison(
        split=split,
        policy=policy.name,
        against=against.name,
        difference=difference,
        relation=how,
        tasks=len(tasks),
        only_policy=only_first,
        only_against=only_second,
        p=p,
        words=words,
    )


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def headline(best: PolicyScores, comparisons: list[Comparison], setup: Setup, teacher: str) -> list[str]:
    """Returns the result in two or three sentences.

    Args:
        best: The student chosen on validation.
        comparisons: It against the others.
        setup: The run's conditions.
        teacher: The baseline in which the teacher that corrects plays without privilege; it may not have been evaluated.
    """
    scores = {split: best.evaluations[split].overall for split in setup.test if split in best.evaluations}
    solved = [f"{success(score)} of {split} ({counted(score)}, {interval(score)})" for split, score in scores.items()]
    lines = []
    if solved:
        lines.append(f"{best.label} solves {listed(solved)}.")
    who = "its teacher" if setup.teacher == SCRIPT else f"its teacher, {setup.teacher},"
    for against, name in (("pi_0", f"{pi(0)}, {setup.first}"), (teacher, f"{who} without privilege")):
        if found := [f"{_standing(c)} on {c.split}" for c in comparisons if c.against == against]:
            lines.append(f"Against {name}: {'; '.join(found)}.")
    if best.name == "pi_0":
        lines.append(f"It is the student before any correction: no iteration did better on {setup.validation}.")
    return lines


def _standing(comparison: Comparison) -> str:
    if comparison.relation == "level":
        return "level"
    words = f"{comparison.relation} by {abs(100 * comparison.difference):.0f} points"
    if comparison.relation in ("above", "below"):
        words += " (intervals overlap" + (f", paired {_p(comparison.p)})" if comparison.p is not None else ")")
    return words
