"""Measures an iteration: `iter-<i>/measures.json`, from what the other stages left and no more than a likelihood pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from leap.datasets import Row
from leap.errors import RunError
from leap.evaluation import Evaluation
from leap.files import write_text
from leap_lab.measures.bound import bound
from leap_lab.measures.corrected import Corrected, measure_corrections
from leap_lab.measures.figures import Figure
from leap_lab.measures.likelihood import Losses, compare, nll, summarise
from leap_lab.measures.records import Bound, IterationMeasures, Likelihood, Round

Score = Callable[[Path | str, Sequence[Row]], Losses]
"""Scores rows under a checkpoint: `nll`, or a `partial` of it with other settings."""


@dataclass(frozen=True)
class Given:
    """What is known of iteration i. Everything but the first three may be missing; what then cannot be told is null.

    Attributes:
        i: The iteration; 0 is behaviour cloning.
        teacher, privilege: Name of the teacher that corrects, and its privilege level.
        training: Rollouts of pi_{i-1} on training tasks and their corrections, D_i.
        held_out: Episodes of pi_i on validation tasks (see `held_out`), every step of each corrected by the same
            teacher, failures or not. Nothing may ever be trained on them.
        rounds: For j = 1..i, the rows of corrections of held-out episodes of pi_{j-1}; only the last is needed for the
            realizability gap, all for the regret.
        checkpoints: pi_{i-1} and pi_i.
        success: pi_i on the validation split.
        teacher_value: The teacher's own actions executed, with its privilege, on the same tasks.
        earlier: Measures of the iterations 0..i-1 that are on file.
    """

    i: int
    teacher: str
    privilege: int
    training: Corrected | None = None
    held_out: Corrected | None = None
    rounds: Sequence[Sequence[Row]] = ()
    checkpoints: tuple[Path | str, Path | str] | None = None
    success: Evaluation | None = None
    teacher_value: Evaluation | None = None
    earlier: Sequence[IterationMeasures] = ()


def measure_iteration(given: Given, score: Score = nll) -> IterationMeasures:
    """Measures what iteration i did; notes say what is missing.

    Args:
        given: What is known of it.
        score: Scores rows under a checkpoint.

    Raises:
        ValueError: Inputs that do not belong together: several splits or horizons, more rounds than iterations.
        PrerequisiteError: A checkpoint cannot be loaded.
        LeapError: A replay shows another world than was logged.
    """
    i, success, teacher = given.i, given.success, given.teacher_value
    if len(given.rounds) > i:
        raise ValueError(f"iteration {i} has {i} rounds at most, got {len(given.rounds)}")
    trained = measure_corrections(given.training, policy=f"pi_{i - 1}") if given.training is not None and i else None
    own = measure_corrections(given.held_out, policy=f"pi_{i}") if given.held_out is not None else None
    horizons = {one.horizon for one in (own, success) if one is not None}
    if len(horizons) > 1:
        raise ValueError(f"held-out episodes and evaluation have different horizons: {sorted(horizons)}")
    likelihood, hindsight = _likelihood(given, score, *horizons) if horizons else (None, {})
    measures = IterationMeasures(
        iteration=i,
        teacher=given.teacher,
        privilege=given.privilege,
        training=trained,
        held_out=own,
        likelihood=likelihood,
        success=success and Figure.of(success.overall),
        teacher_value=teacher and Figure.of(teacher.overall),
    )
    found = None
    if success is not None and teacher is not None:
        if (success.split, success.horizon) != (teacher.split, teacher.horizon):
            raise ValueError("the student and the teacher must be evaluated on one split and horizon")
        sequence = [
            *sorted((one for one in given.earlier if one.iteration < i), key=lambda one: one.iteration),
            measures,
        ]
        found = bound(sequence, teacher, _rounds(i, sequence, hindsight))
    return measures.model_copy(update={"bound": found, "notes": _missing(measures, found)})


def write_measures(path: Path, measures: IterationMeasures) -> None:
    """Writes `iter-<i>/measures.json`, atomically."""
    write_text(path, measures.model_dump_json(indent=2) + "\n")


def read_measures(path: Path) -> IterationMeasures | None:
    """Measures on file; None if there are none.

    Raises:
        RunError: The file is damaged or of another version.
    """
    try:
        return IterationMeasures.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise RunError(
            f"{path} is not a file of measures that this version can read ({error.errors()[0]['msg']}). Delete it to have "
            "the iteration measured again."
        ) from error


def _likelihood(given: Given, score: Score, horizon: int) -> tuple[Likelihood | None, dict[int, Figure]]:
    """Returns the gap on the last round, and pi_i's loss per step on every round, by j."""
    i, rounds = given.i, given.rounds
    if not rounds or not rounds[-1] or given.checkpoints is None:
        return None, {}
    before, after = given.checkpoints
    later = score(after, [row for group in rounds for row in group])
    earlier = score(before, rounds[-1])
    hindsight, last = {}, Losses(answers=())
    for j, group in enumerate(rounds, start=i - len(rounds) + 1):
        episodes = {row.episode for row in group}
        answers = tuple(answer for answer in later.answers if answer.episode in episodes)
        last = Losses(answers=answers, left_out=len(group) - len(answers))
        if answers:
            hindsight[j] = summarise(last, policy=f"pi_{i}", horizon=horizon).per_step
    if not last.answers or not earlier.answers:
        return None, hindsight
    return compare(earlier, last, policies=(f"pi_{i - 1}", f"pi_{i}"), horizon=horizon), hindsight


def _rounds(i: int, sequence: Sequence[IterationMeasures], hindsight: Mapping[int, Figure]) -> list[Round]:
    """Rounds 1..i, each with what pi_{j-1} lost when it played; empty unless all are known."""
    played = {one.iteration: one.likelihood.before.per_step for one in sequence if one.likelihood is not None}
    known = [j for j in range(1, i + 1) if j in played and j in hindsight]
    return [Round(iteration=j, played=played[j], hindsight=hindsight[j]) for j in known] if len(known) == i else []


def _missing(measures: IterationMeasures, found: Bound | None) -> list[str]:
    """Returns what is null and why."""
    i, own = measures.iteration, measures.held_out
    notes = []
    if i and measures.training is None:
        notes.append("No training rollouts were given, so nothing is said of D_i.")
    if own is None:
        notes.append("No held-out episodes were corrected.")
    elif own.recoverability is None:
        notes.append("No planner tells what an action costs, so H is not observed; 1 is always valid.")
    if i and measures.likelihood is None:
        notes.append("No likelihood: held-out corrections of the student before, or the checkpoints, are missing.")
    if found is None:
        return [*notes, "No bound: the student's or the teacher's success on the validation split is not known."]
    if found.actions is None:
        notes.append("No epsilon and gamma from actions: not every student's held-out episodes were corrected whole.")
    if i and found.log_loss is None:
        notes.append("No epsilon and gamma from log losses: not every round was scored.")
    return notes
