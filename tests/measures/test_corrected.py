"""Figures of a few episodes, against what one counts by hand."""

from __future__ import annotations

import math

import pytest
from line import EAST, LINE, STAY, correct, play

from leap.core import PrivilegedState, Rejection, StopReason, Task
from leap.policies.base import FunctionPolicy
from leap.rollouts import Play, rollout
from leap.testing.corridor import Corridor, CorridorConfig, CorridorSession
from leap_lab.measures.corrected import Corrected, held_out, measure_corrections, privileged_states, quoted_commands
from leap_lab.measures.figures import Figure
from leap_lab.measures.records import CorrectionMeasures
from leap_lab.measures.recoverability import lengths_from_states


def value(figure: Figure | None) -> float:
    assert figure is not None
    return figure.value


def measured(episodes, corrections=None, environment=LINE) -> CorrectionMeasures:  # type: ignore[no-untyped-def]
    corrections = [c for e in episodes for c in correct(e)] if corrections is None else corrections
    found = measure_corrections(Corrected(episodes, corrections, environment), policy="pi_0")
    assert found is not None
    return found


def test_agreement_and_distance() -> None:
    one = measured([play("eee", number=0), play("swweee", number=1)])  # the second falls, then nothing can be corrected
    assert value(one.agreement) == 3 / 6 and one.agreement is not None and one.agreement.n == 6
    assert [None if f is None else (f.value, f.n) for f in one.agreement_by_step] == [(0.5, 2), (0.5, 2), (0.5, 2)]
    assert value(one.distance) == pytest.approx((0 + 2 * 3 / 6) / 2)
    assert value(one.kept) == 6 / 9 and value(one.rejected["hopeless"]) == 3 / 9


def test_a_teacher_that_says_nothing_is_no_agreement() -> None:
    episode = play("eee")
    silent = [c.model_copy(update={"action": "", "rejected": Rejection.TEACHER_ERROR}) for c in correct(episode)[:1]]
    one = measured([episode], [*silent, *correct(episode)[1:]])
    assert value(one.agreement) == 1.0 and one.agreement is not None and one.agreement.n == 2
    assert value(one.distance) == pytest.approx(2 / 6)


def test_no_distance_of_failures_alone() -> None:
    """What fails is where student and teacher differ most: its share says nothing of the student's states."""
    solved, failed = play("eee", number=0), play("ssssss", number=1)
    assert measured([solved, failed], correct(failed)).distance is None
    assert measured([failed], correct(failed)[:-1]).distance is None
    assert value(measured([failed]).distance) == 2.0


def test_leaks_are_told_from_inventions() -> None:
    episode = play("eee")
    reasons = ["the lamp 7 is there", "a mug 9 is there", f"I will {EAST.upper()} now"]
    leak = measured([episode], correct(episode, reasons)).leakage
    assert [value(f) for f in (leak.entities, leak.hidden, leak.invented)] == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    assert value(leak.commands) == 0.0, "the student has gone east itself before"
    leak = measured([episode], correct(episode, reasons[::-1])).leakage
    assert value(leak.commands) == pytest.approx(1 / 3), "at the first step it could not know"


def test_quoted_commands() -> None:
    history = play("ee").history(0)
    assert quoted_commands("so go  East, then", [EAST], history) == (EAST,)
    assert quoted_commands("so go eastwards", [EAST], history) == ()
    assert quoted_commands("I stay here", [STAY], history) == (), "admissible, hence seen"
    assert quoted_commands("look", ["look"], history) == (), "a command of one word is also a word"
    assert quoted_commands("go (east)", ["go (east)"], history) == ("go (east)",)


def test_recoverability_by_hand() -> None:
    # Horizon 6, goal 3 away: two wasted actions are two lost ones, the next one costs the success.
    one = measured([play("seee", number=0), play("wwssss", number=1), play("ssssee", number=2)]).recoverability
    assert one is not None and value(one.solvable) == 1.0
    # Steps told: 4; 1, then dead; 6.
    assert one.losses == [1 + 2 + 0 + 2, 1 + 4, 1] and one.loss_max == 2
    assert value(one.loss) == pytest.approx((5 * 1 + 2) / 11) and one.loss is not None and one.loss.n == 11
    assert value(one.dead_ends) == 1 / 12
    assert value(one.lost) == 2 / 16, "over the cliff; the fourth wait"
    assert (value(one.lost_differing), value(one.lost_agreeing)) == (2 / (1 + 2 + 4), 0.0)
    assert (one.largest, one.negative) == (1.0, 0)


def test_what_was_lost_is_what_was_not_solved() -> None:
    """The losses in units of success add up, over an episode, to what the optimal player has over the student."""
    for moves in ("eee", "seee", "wwssss", "ssssee", "wsesss", "swseee"):
        episode = play(moves)
        one = measured([episode]).recoverability
        assert one is not None and one.lost is not None
        assert round(one.lost.value * one.lost.n) == 1 - episode.success


def test_replayed_states_tell_the_last_step_too() -> None:
    episode = play("sssses")
    states = privileged_states(LINE, episode)
    assert lengths_from_states(episode, states) == [3, 3, 3, 3, 3, 2, 2]
    fallen = play("ww" + "s" * 4)
    assert lengths_from_states(fallen, privileged_states(LINE, fallen)) == [3, 4] + [math.inf] * 5
    solved = play("eee")
    assert lengths_from_states(solved, privileged_states(LINE, solved)) == [3, 2, 1, 0]
    one = measured([episode]).recoverability
    assert one is not None and one.loss is not None and one.loss.n == 6


def test_a_model_error_is_no_action_of_the_student() -> None:
    one = measured([play("e", stop=StopReason.MODEL_ERROR)]).recoverability
    assert one is not None and one.lost is not None
    assert (one.lost.value, one.lost.n) == (0.0, 1), "what the one step came to is replayed; the episode's end tells nothing"


def test_without_a_planner_there_is_no_recoverability() -> None:
    class Unplanned(CorridorSession):
        def privileged(self) -> PrivilegedState:
            return super().privileged().model_copy(update={"plan": None})

    class Blind(Corridor):
        def start(self, task: Task) -> Unplanned:
            return Unplanned(self.config)

    assert measured([play("eee")], environment=Blind(LINE.config)).recoverability is None


def test_episodes_of_two_splits_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="one split"):
        measured([play("eee", split="valid"), play("eee", split="train")])


def test_the_same_tasks_are_held_out_for_every_student() -> None:
    students = [[play("eee", number=n, iteration=i) for n in range(20)] for i in (0, 1)]
    chosen = [[e.task.id for e in held_out(episodes, 7)] for episodes in (students[0], students[1][::-1])]
    assert chosen[0] == chosen[1] and len(chosen[0]) == 7
    assert len(held_out(students[0], None)) == 20


def test_a_task_whose_environment_raises_is_not_held_out() -> None:
    """Its replay would raise again, and end the run each time it is given."""

    class Broken(Corridor):
        def start(self, task: Task) -> CorridorSession:
            if task.id == "valid/1":
                raise RuntimeError("the world's own fault")
            return super().start(task)

    world, episodes = Broken(CorridorConfig()), []
    policy = FunctionPolicy(lambda history: EAST)
    rollout(world, policy, Play(world.tasks("valid"), 6, 0, "x"), error_share=0.5, on_episode=episodes.append)
    assert sorted(e.task.id for e in episodes if e.stop is StopReason.ENVIRONMENT_ERROR) == ["valid/1"]
    chosen = held_out(episodes, None)
    assert [e.task.id for e in chosen] == ["valid/0", "valid/2", "valid/3"]
    assert value(measured(chosen, environment=world).agreement) == 1.0
