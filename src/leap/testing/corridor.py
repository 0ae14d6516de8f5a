"""A world small enough to count by hand: stand at 0, the goal lies to the east; to the west one may fall off a cliff."""

from __future__ import annotations

import re
from copy import copy
from typing import ClassVar

from pydantic import Field

from leap.core import Decision, History, Observation, PrivilegedState, Task
from leap.envs.base import Environment, EnvironmentConfig, Outcome, Session, sampled
from leap.envs.tutor import Tutor

EAST, WEST, STAY = "go east", "go west", "stay here"


class CorridorConfig(EnvironmentConfig):
    """Options in a recipe."""

    goal: int = Field(default=3, ge=1, description="Place of the goal: so many steps to the east.")
    cliff: int | None = Field(default=-2, lt=0, description="Place from which nobody comes back; none if null.")
    offers: tuple[str, ...] | None = Field(
        default=(EAST, WEST, STAY), description="Admissible actions; not listed if null."
    )
    note: str = Field(
        default="", description="A text at the end of every instruction, observation and privileged state."
    )
    kinds: tuple[str, ...] = Field(default=("",), description="Kinds of the tasks, in turn.")
    size: int = Field(default=4, ge=1, description="Tasks of every split.")
    copies: bool = Field(default=False, description="Whether sessions can be copied.")


class Corridor(Environment[CorridorConfig]):
    """Reach the goal. The privileged state is the way to it, and a lamp that nothing else names."""

    name: ClassVar[str] = "corridor"
    Config: ClassVar[type[EnvironmentConfig]] = CorridorConfig
    blocking: ClassVar[bool] = False
    test_splits: ClassVar[frozenset[str]] = frozenset({"seen", "unseen"})

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        return sampled([self.task(split, number) for number in range(self.config.size)], split, limit, seed)

    def task(self, split: str = "valid", number: int = 0) -> Task:
        """The task of a number; splits and numbers are whatever a test likes."""
        kind = self.config.kinds[number % len(self.config.kinds)]
        told = f"walk {number}: reach the goal {self.config.note}".strip()
        return Task(env=self.name, split=split, id=f"{split}/{number}", instruction=told, kind=kind)

    def start(self, task: Task) -> CorridorSession:
        return CorridorSession(self.config)

    @property
    def tutor(self) -> CorridorTutor:
        return CorridorTutor(self)

    def entities(self, text: str) -> set[str]:
        return set(re.findall(r"[a-z]+ \d+", text))


class CorridorSession(Session):
    """One walk."""

    blocking: ClassVar[bool] = False

    def __init__(self, config: CorridorConfig) -> None:
        self.place = 0
        self._config = config

    def observe(self) -> Observation:
        return Observation(text=self._noted(f"You are at place {self.place}."), admissible=self._config.offers)

    def act(self, action: str) -> Outcome:
        if self.place != self._config.cliff:
            self.place += {EAST: 1, WEST: -1}.get(action, 0)
        done = self.place == self._config.goal
        return Outcome(self.observe(), reward=float(done), success=done, done=done, score=float(done))

    def privileged(self) -> PrivilegedState:
        left = self._config.goal - self.place
        text = self._noted(f"{left} steps to the goal, where the lamp 7 is.")
        if self.place == self._config.cliff:
            return PrivilegedState(text=text, hopeless=True)
        return PrivilegedState(text=text, plan=(EAST,) * left, facts={"left": left})

    def copy(self) -> CorridorSession | None:
        return copy(self) if self._config.copies else None

    def _noted(self, text: str) -> str:
        return f"{text} {self._config.note}".strip()


class CorridorTutor(Tutor[Corridor]):
    """The expert stays once before it goes east; the teacher goes east."""

    def expert(self, task: Task) -> Hesitant:
        return Hesitant()

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        return None if privileged.hopeless else Decision(reason="that way", action=EAST)


class Hesitant:
    """The unprivileged expert."""

    def decide(self, history: History) -> Decision:
        if not history.actions:
            return Decision(reason="which way?", action=STAY)
        return Decision(reason="east, perhaps", action=EAST)
