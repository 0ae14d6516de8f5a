"""A sequence of students measured: every number of the bound recomputed, files read back, gaps named."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from line import LINE, correct, play

from leap.core import Correction, Episode
from leap.datasets import Row, correction_rows
from leap.errors import RunError
from leap.evaluation import Evaluation, evaluate_episodes
from leap.policies.rendering import PromptConfig, Renderer
from leap_lab.measures import Corrected, Given, IterationMeasures, measure_iteration, read_measures, write_measures
from leap_lab.measures.likelihood import AnswerLoss, Losses

MOVES = {
    0: ["eee", "ssssee", "wwssss", "ssssss"],
    1: ["eee", "seee", "ssee" + "ss", "ssssss"],
    2: ["eee", "eee", "seee", "wwssss"],
}
NATS = {"pi_0": 3.0, "pi_1": 1.0, "pi_2": 0.25}


def played(i: int, split: str = "valid") -> list[Episode]:
    return [play(moves, number=n, split=split, iteration=i) for n, moves in enumerate(MOVES[i])]


def corrected(i: int, split: str = "valid") -> Corrected:
    episodes = played(i, split)
    return Corrected(episodes, [c for e in episodes for c in correct(e)], LINE)


def rows_of(i: int) -> list[Row]:
    """Held-out corrections of pi_{i-1}."""
    episodes = played(i - 1)
    corrections: list[Correction] = [c for e in episodes for c in correct(e)]
    return list(correction_rows({e.key: e for e in episodes}, corrections, Renderer(PromptConfig()), iteration=i))


def score(checkpoint: Path | str, rows: Sequence[Row]) -> Losses:
    """As if every answer had the same likelihood under a student."""
    nats = NATS[str(checkpoint)]
    return Losses(
        answers=tuple(
            AnswerLoss(episode=r.episode, t=r.t, nats=nats, tokens=5, action_nats=nats / 2, action_tokens=2)
            for r in rows
        )
    )


def evaluation(i: int) -> Evaluation:
    return evaluate_episodes(played(i), policy=f"pi_{i}")


TEACHER = evaluate_episodes([play("eee", number=n) for n in range(4)], policy="teacher-50")


@pytest.fixture(scope="module")
def sequence() -> list[IterationMeasures]:
    found: list[IterationMeasures] = []
    for i in MOVES:
        found.append(
            measure_iteration(
                Given(
                    i,
                    teacher="expert",
                    privilege=50,
                    training=corrected(i - 1, "train") if i else None,
                    held_out=corrected(i),
                    rounds=[rows_of(j) for j in range(1, i + 1)],
                    checkpoints=(f"pi_{i - 1}", f"pi_{i}") if i else None,
                    success=evaluation(i),
                    teacher_value=TEACHER,
                    earlier=found,
                ),
                score,
            )
        )
    return found


def test_who_acted_where(sequence: list[IterationMeasures]) -> None:
    last = sequence[2]
    assert last.training is not None and (last.training.policy, last.training.split) == ("pi_1", "train")
    assert last.held_out is not None and (last.held_out.policy, last.held_out.split) == ("pi_2", "valid")
    assert sequence[0].training is None and sequence[0].likelihood is None and sequence[0].notes == []
    assert all(one.notes == [] for one in sequence)


def test_the_gap_before_and_after(sequence: list[IterationMeasures]) -> None:
    gap = sequence[2].likelihood
    assert gap is not None and (gap.before.policy, gap.after.policy) == ("pi_1", "pi_2")
    assert (gap.before.per_answer.value, gap.after.per_answer.value, gap.change.value) == (1.0, 0.25, -0.75)
    assert gap.after.per_answer.n == len(rows_of(2)) and gap.after.per_answer.episodes == 4


def test_the_bound_from_actions(sequence: list[IterationMeasures]) -> None:
    bound = sequence[2].bound
    assert bound is not None and bound.actions is not None and bound.horizon == 6
    # Steps at which the student does not go east, hopeless ones left out, per episode.
    apart = {0: [0, 4, 2, 6], 1: [0, 1, 4, 6], 2: [0, 0, 1, 2]}
    distance = {i: 2 * sum(steps) / 4 / 6 for i, steps in apart.items()}
    assert bound.actions.epsilon.value == pytest.approx(distance[2])
    assert bound.actions.total.value == pytest.approx(sum(distance.values()) / 3)
    assert bound.actions.gamma.value == pytest.approx(bound.actions.total.value - distance[2])
    assert (bound.h, bound.h_observed, bound.teacher.value) == (1.0, True, 1.0)
    assert bound.actions.floor == pytest.approx(1.0 - 6 * bound.actions.total.value)
    assert bound.actions.floor_low is not None and bound.actions.floor_low < bound.actions.floor
    assert (bound.best_policy, bound.best.value, bound.success.value) == ("pi_2", 0.75, 0.75)
    assert bound.best.value >= bound.actions.floor
    # Means in place of the largest: pi_2 differs 3 times in 4 episodes, and one of these lost a success.
    assert bound.mean_loss is not None and bound.mean_loss.value == pytest.approx(1 / 3)
    assert bound.expected == pytest.approx(1.0 - 3 / 4 * 1 / 3) and bound.expected == bound.success.value


def test_the_bound_from_log_losses(sequence: list[IterationMeasures]) -> None:
    bound = sequence[2].bound
    assert bound is not None and bound.log_loss is not None
    answers = {j: len(rows_of(j)) / 4 / 6 for j in (1, 2)}  # of an episode, per step of the horizon
    assert [r.played.value for r in bound.rounds] == pytest.approx([3.0 * answers[1], 1.0 * answers[2]])
    assert [r.hindsight.value for r in bound.rounds] == pytest.approx([0.25 * answers[1], 0.25 * answers[2]])
    hindsight = sum(r.hindsight.value for r in bound.rounds) / 2
    regret = sum(r.played.value - r.hindsight.value for r in bound.rounds) / 2
    assert bound.log_loss.epsilon.value == pytest.approx(math.sqrt(2 * hindsight))
    assert bound.log_loss.gamma.value == pytest.approx(min(2, math.sqrt(2 * regret)))
    assert bound.log_loss.floor == pytest.approx(
        1 - 6 * min(2, bound.log_loss.epsilon.value + bound.log_loss.gamma.value)
    )


def test_nothing_given_is_said_to_be_missing() -> None:
    one = measure_iteration(Given(2, teacher="model", privilege=50))
    assert one.bound is None and one.likelihood is None and one.held_out is None
    assert len(one.notes) == 4 and all(note.endswith(".") for note in one.notes)
    known = Given(1, teacher="model", privilege=50, held_out=corrected(1), success=evaluation(1), teacher_value=TEACHER)
    only = measure_iteration(known)
    assert only.bound is not None and only.bound.actions is None and only.bound.log_loss is None
    assert any("not every student" in note for note in only.notes)


def test_failures_alone_give_no_epsilon() -> None:
    whole = corrected(0)
    failures = Corrected(whole.episodes, [c for e in played(0) if not e.success for c in correct(e)], LINE)
    known = Given(0, teacher="t", privilege=50, held_out=failures, success=evaluation(0), teacher_value=TEACHER)
    one = measure_iteration(known)
    assert one.bound is not None and one.bound.actions is None


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match="horizons"):
        longer = evaluate_episodes([play("eee", horizon=9)], policy="pi_0")
        measure_iteration(Given(0, "t", 0, held_out=corrected(0), success=longer, teacher_value=longer))
    with pytest.raises(ValueError, match="rounds at most"):
        measure_iteration(Given(0, "t", 0, rounds=[rows_of(1)]))
    other = evaluate_episodes([play("eee", split="unseen")], policy="teacher-50")
    with pytest.raises(ValueError, match="one split"):
        measure_iteration(Given(0, "t", 0, success=evaluation(0), teacher_value=other))


def test_files(tmp_path: Path, sequence: list[IterationMeasures]) -> None:
    path = tmp_path / "iter-2" / "measures.json"
    assert read_measures(path) is None
    write_measures(path, sequence[2])
    assert read_measures(path) == sequence[2]
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match="Delete it"):
        read_measures(path)


def test_reading_measures_imports_no_model_library() -> None:
    code = "import sys, leap_lab.measures; print({'torch', 'transformers', 'trl'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
