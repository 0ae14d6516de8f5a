"""Measures an iteration: `iter-<i>/measures.json`, from what the other stages left and no more than a likelihood pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from leap_lab.measures.records import CorrectionMeasures, IterationMeasures, Likelihood, Round

Score = Callable[[Path | str, Sequence[Row]], Losses]
"""Scores rows under a checkpoint: `nll`, or a `partial` of it with other settings."""


def measure_iteration(
    i: int,
    *,
    teacher: str,
    privilege: int,
    training: Corrected | None = None,
    held_out: Corrected | None = None,
    rounds: Sequence[Sequence[Row]] = (),
    checkpoints: tuple[Path | str, Path | str] | None = None,
    success: Evaluation | None = None,
    teacher_value: Evaluation | None = None,
    earlier: Sequence[IterationMeasures] = (),
    score: Score = nll,
) -> IterationMeasures:
    """Measures what iteration i did. Everything but i may be missing; what then cannot be told is null, with a note.

    Args:
        i: The iteration; 0 is behaviour cloning.
        teacher: Name of the teacher.
        privilege: Its privilege level.
        training: Rollouts of pi_{i-1} on training tasks and their corrections, D_i.
        held_out: Episodes of pi_i on validation tasks (see `held_out`), every step of each corrected by the same teacher,
            failures or not. Nothing may ever be trained on them.
        rounds: For j = 1..i, the rows of corrections of held-out episodes of pi_{j-1}; only the last is needed for the
            realizability gap, all for the regret.
        checkpoints: pi_{i-1} and pi_i.
        success: pi_i on the validation split.
        teacher_value: The teacher's own actions executed, with its privilege, on the same tasks.
        earlier: Measures of the iterations 0..i-1 that are on file.
        score: Scores rows under a checkpoint.

    Returns:
        The measures, for `write_measures`.

    Raises:
        ValueError: Inputs that do not belong together: several splits or horizons, more rounds than iterations.
        PrerequisiteError: A checkpoint cannot be loaded.
        LeapError: A replay shows another world than was logged.
    """
    if len(rounds) > i:
        raise ValueError(f"iteration {i} has {i} rounds at most, got {len(rounds)}")
    trained = measure_corrections(training, policy=f"pi_{i - 1}") if training is not None and i else None
    own = measure_corrections(held_out, policy=f"pi_{i}") if held_out is not None else None
    measures = IterationMeasures(
        iteration=i,
        teacher=teacher,
        privilege=privilege,
        training=trained,
        held_out=own,
        success=_success(success),
        teacher_value=_success(teacher_value),
    )
    horizon = _horizon(own, success)
    likelihood, losses = None, []
    if rounds and rounds[-1] and checkpoints is not None and horizon:
        likelihood, losses = _likelihood(i, rounds, checkpoints, score, horizon)
    measures = measures.model_copy(update={"likelihood": likelihood})
    sequence = [*sorted((one for one in earlier if one.iteration < i), key=lambda one: one.iteration), measures]
    found = None
    if measures.success is not None and measures.teacher_value is not None and success is not None:
        assert teacher_value is not None
        if (success.split, success.horizon) != (teacher_value.split, teacher_value.horizon):
            raise ValueError("the student and the teacher must be evaluated on one split and horizon")
        found = bound(
            sequence=sequence,
            split=success.split,
            horizon=success.horizon,
            teacher=measures.teacher_value,
            rounds=_rounds(i, sequence, losses),
        )
    measures = measures.model_copy(update={"bound": found})
    return measures.model_copy(update={"notes": _missing(measures)})


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


def _likelihood(
    i: int, rounds: Sequence[Sequence[Row]], checkpoints: tuple[Path | str, Path | str], score: Score, horizon: int
) -> tuple[Likelihood | None, list[tuple[int, Figure]]]:
    """Returns the gap on the last round, and pi_i's loss per step on every round, by j."""
    before, after = checkpoints
    rows = [row for group in rounds for row in group]
    later = score(after, rows)
    of_round = {row.episode: j for j, group in enumerate(rounds, start=i - len(rounds) + 1) for row in group}
    losses = []
    for j in sorted(set(of_round.values())):
        mine = tuple(answer for answer in later.answers if of_round[answer.episode] == j)
        if mine:
            figure = summarise(Losses(answers=mine), policy=f"pi_{i}", horizon=horizon).per_step
            losses.append((j, figure))
    answers = tuple(answer for answer in later.answers if of_round[answer.episode] == i)
    last = Losses(answers=answers, left_out=len(rounds[-1]) - len(answers))
    earlier = score(before, rounds[-1])
    if not last.answers or not earlier.answers:
        return None, losses
    return compare(earlier, last, policies=(f"pi_{i - 1}", f"pi_{i}"), horizon=horizon), losses


def _rounds(i: int, sequence: Sequence[IterationMeasures], losses: Sequence[tuple[int, Figure]]) -> list[Round]:
    """Rounds 1..i, each with what pi_{j-1} lost when it played; empty unless all are known."""
    played = {one.iteration: one.likelihood.before.per_step for one in sequence if one.likelihood is not None}
    hindsight = dict(losses)
    if not i or any(j not in played or j not in hindsight for j in range(1, i + 1)):
        return []
    return [Round(iteration=j, played=played[j], hindsight=hindsight[j]) for j in range(1, i + 1)]


def _horizon(own: CorrectionMeasures | None, success: Evaluation | None) -> int | None:
    found = {*([own.horizon] if own else []), *([success.horizon] if success else [])}
    if len(found) > 1:
        raise ValueError(f"held-out episodes and evaluation have different horizons: {sorted(found)}")
    return next(iter(found), None)


def _success(evaluation: Evaluation | None) -> Figure | None:
    if evaluation is None:
        return None
    score = evaluation.overall
    return Figure(value=score.success, low=score.low, high=score.high, n=score.n, episodes=score.n)


def _missing(measures: IterationMeasures) -> list[str]:
    """Returns what is null and why."""
    i, own, found = measures.iteration, measures.held_out, measures.bound
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
        notes.append("No bound: the student's or the teacher's success on the validation split is not known.")
    elif found.actions is None:
        notes.append("No epsilon and gamma from actions: not every student's held-out episodes were corrected whole.")
    if found is not None and i and found.log_loss is None:
        notes.append("No epsilon and gamma from log losses: not every round was scored.")
    return notes
