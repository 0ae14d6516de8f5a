"""The rule by which one of N answers is taken."""

from __future__ import annotations

import pytest

pytest.importorskip("trl")

from leap.core import Decision
from leap.policies.base import Act, FunctionPolicy
from leap.policies.rendering import PromptConfig, Renderer
from leap.runs.best_of import BestOf, BestOfConfig, best
from leap.testing.corridor import EAST, STAY, WEST, Corridor, CorridorConfig
from leap.testing.play import walked
from leap.value.network import Judged

WORLD = Corridor(CorridorConfig(goal=3))

VALUES, TAKEN = [0.3, 0.5, 0.2], [6, 1, 1]


def test_without_votes_it_is_the_maximum_and_the_first_on_a_tie() -> None:
    assert best(VALUES, TAKEN, 0.0) == 1 and best([0.5, 0.5], [1, 7], 0.0) == 0


def test_with_votes_an_action_of_many_answers_wins_unless_it_is_worth_much_less() -> None:
    assert best(VALUES, TAKEN, 1.0) == 0 and best([0.05, 0.5, 0.2], TAKEN, 1.0) == 1
    assert best(VALUES, TAKEN, 0.2) == 1  # 0.3 * 6**0.2 = 0.43


class Scores:
    """A value model that goes by a word of the answer."""

    def __init__(self, **worth: float) -> None:
        self.worth, self.read = worth, 0

    def scores(self, step: Judged) -> list[float]:
        self.read = len(step.answers)
        return [next(worth for word, worth in self.worth.items() if word in one["content"]) for one in step.answers]


def chosen(scores: Scores, answers: list[tuple[str, str]], *, reasons: bool, votes: float) -> Decision:
    policy = BestOf(BestOfConfig(n=1, value="nowhere", votes=votes), FunctionPolicy(lambda _: STAY))
    policy._value, policy._reasons = scores, reasons  # type: ignore[assignment]
    policy._renderer = Renderer(PromptConfig(), grammar_of=WORLD.grammar_of)
    acts = [Act(Decision(reason=reason, action=action), "") for reason, action in answers]
    history = walked(WORLD, WORLD.task("train"), [STAY]).history(0)
    return policy.choose(history, acts).decision


def test_answers_of_one_action_share_its_value_and_are_read_once_where_reasons_are_not() -> None:
    answers = [("good", EAST), ("bad", EAST), ("fair", WEST)]
    reasons = Scores(good=0.9, bad=0.1, fair=0.6)  # east: 0.5 on average
    assert chosen(reasons, answers, reasons=True, votes=0).action == WEST and reasons.read == 3
    assert chosen(reasons, answers, reasons=True, votes=1).action == EAST
    actions = Scores(east=0.2, west=0.3)
    assert chosen(actions, answers, reasons=False, votes=0).action == WEST and actions.read == 2
    assert chosen(actions, answers, reasons=False, votes=1).action == EAST
