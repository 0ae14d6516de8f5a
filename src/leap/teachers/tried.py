"""What the search teacher finds out about one episode: what was tried at its steps, and what each action is worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from leap.core import Correction, Decision, Episode
from leap.envs.replay import Replay
from leap.teachers.config import SearchConfig

EQUAL = 1e-9
"""Values that differ by no more are the same."""


class Reached(NamedTuple):
    """What a trial came to: the score, and after how many actions."""

    score: float
    actions: int


class Worth(NamedTuple):
    """What an action is worth: the mean over its trials of the score less what time costs, and of the score."""

    value: float
    score: float


class Trial(NamedTuple):
    """An action to be tried at a step of an episode, and which of its trials it is."""

    search: Search
    t: int
    action: str
    roll: int

    @property
    def most(self) -> int:
        """Most actions that it goes on for."""
        left, depth = self.search.episode.horizon - self.t, self.search.config.depth
        return left if depth is None else min(left, depth)


@dataclass(eq=False)
class Search:
    """What is found out about one episode.

    Attributes:
        episode: The episode.
        config: The teacher's options.
        replay: Gives sessions at its states.
        own: At each step, the action with which the student goes on in each trial that comes there; empty where a call failed.
        others: At each step, the corrections that may be made, by their action.
        reached: What trials came to, by step, action and number.
        executed: Actions executed so far for each step.
        ways: What solved the task.
        known: At each step, by action, after how many actions it solves the task with what is known to follow.
        error: Of a call that failed for good, though it may well work another time.
        dropped: Steps left out of prompts.
    """

    episode: Episode
    config: SearchConfig
    replay: Replay
    own: list[list[str]] = field(init=False)
    others: list[dict[str, Correction]] = field(init=False)
    reached: dict[tuple[int, str, int], Reached] = field(default_factory=dict)
    executed: list[int] = field(init=False)
    ways: list[list[Decision]] = field(default_factory=list)
    known: list[dict[str, int]] = field(init=False)
    error: str = ""
    dropped: int = 0

    def __post_init__(self) -> None:
        self.known = [{} for _ in self.episode.steps]
        steps = len(self.episode.steps)
        self.own = [[""] * self.config.rolls for _ in range(steps)]
        self.others = [{} for _ in range(steps)]
        self.executed = [1] * steps  # the replay

    def joins(self, t: int) -> bool:
        """Whether what follows upon the student's own action at a step is known from the next."""
        depth = self.config.depth
        return self.config.roll_in == "student" and (depth is None or t + depth >= self.episode.horizon)

    def wanted(self, t: int) -> list[str]:
        """The actions to be tried at a step, the most wanted first."""
        done, known = self.episode.steps[t].action, self.joins(t)
        wanted = [*self.own[t]] if self.config.roll_in == "student" else []
        wanted += [*([] if known else [done]), *self.others[t]]
        return [action for action in dict.fromkeys(wanted) if action and not (known and action == done)]

    def trials(self, number: int, cap: int) -> Iterator[Trial]:
        """Those of one more action of each step, as far as a cap on what is executed allows, were each as long as it may be."""
        spent = sum(self.executed)
        for t in range(len(self.own)):
            for action in self.wanted(t)[number : number + 1]:
                trials = [Trial(self, t, action, roll) for roll in range(self.config.rolls)]
                cost = sum(self.replay.cost(t) + trial.most for trial in trials)
                if spent + cost <= cap:
                    spent += cost
                    yield from trials

    def join(self) -> None:
        """Works out, from the last step to the first, what the student's own actions came to."""
        steps = self.episode.steps
        for t, roll in product(reversed(range(len(steps))), range(self.config.rolls)):
            if self.joins(t):
                after: Reached | None = Reached(self.episode.score, 0)
                if t + 1 < len(steps):
                    after = self.reached.get((t + 1, self.own[t + 1][roll], roll))
                if after is not None:
                    self.reached[t, steps[t].action, roll] = Reached(after.score, after.actions + 1)

    def worth(self, t: int, action: str) -> Worth | None:
        """What an action is worth at a step; None where not all of its trials were made."""
        ended = [one for roll in range(self.config.rolls) if (one := self.reached.get((t, action, roll))) is not None]
        found: Worth | None = None
        if len(ended) == self.config.rolls:
            values = [one.score * self.config.discount ** (one.actions - 1) for one in ended]
            found = Worth(sum(values) / len(values), sum(one.score for one in ended) / len(ended))
        if (actions := self.known[t].get(action)) is None:
            return found
        known = Worth(self.config.discount ** (actions - 1), 1.0)
        return known if found is None or known.value > found.value else found

    def better(self, t: int) -> str | None:
        """The best action that is not the student's own, where it is better than that."""
        own = self.worth(t, self.episode.steps[t].action)
        others = {action: worth.value for action in self.others[t] if (worth := self.worth(t, action)) is not None}
        best = max(others, key=others.__getitem__, default=None)
        return best if own is not None and best is not None and others[best] > own.value + EQUAL else None
