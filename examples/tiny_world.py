"""A whole environment in one file: a dark house, a key hidden in one of its places, a door to open with it.

To use it from recipes, put the file in a package of yours and register the class:

    [project.entry-points."leap.environments"]
    tiny-world = "tiny_world:TinyWorld"

What is hidden (the privileged state) is where the key is. Keys are more often in some kinds of places than in others;
the unprivileged expert does not know that and searches from left to right. A student that learns from a teacher who
knows where the key is finds it sooner.
"""

from __future__ import annotations

import random
from typing import ClassVar

from pydantic import Field

from leap import (
    Decision,
    Environment,
    EnvironmentConfig,
    History,
    Observation,
    Outcome,
    PrivilegedState,
    Session,
    Task,
    Tutor,
    sampled,
    unknown_split,
)

PLACES = ("box", "jar", "shoe", "hat", "bag", "tin")
SPLITS = ("train", "valid", "test")
HABIT = (1, 2, 1, 12, 2, 1)  # how often the key is in each: nearly always in the hat


class TinyWorldConfig(EnvironmentConfig):
    """Options in a recipe."""

    tasks: int = Field(default=100, ge=1, description="Tasks per split.")


class TinyWorld(Environment[TinyWorldConfig]):
    """Find the key and open the door."""

    name: ClassVar[str] = "tiny-world"
    Config: ClassVar[type[EnvironmentConfig]] = TinyWorldConfig
    blocking: ClassVar[bool] = False
    test_splits: ClassVar[frozenset[str]] = frozenset({"test"})

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        if split not in SPLITS:
            raise unknown_split(self.name, split, SPLITS)
        tasks = [
            Task(env=self.name, split=split, id=f"{split}/{i}", instruction="open the door", kind="key")
            for i in range(self.config.tasks)
        ]
        return sampled(tasks, split, limit, seed)

    def start(self, task: Task) -> Session:
        return House(random.Random(task.id))

    @property
    def tutor(self) -> TinyTutor:
        return TinyTutor(self)

    def entities(self, text: str) -> set[str]:
        return {word for word in text.replace(".", " ").split() if word in PLACES}


class TinyTutor(Tutor[TinyWorld]):
    """Optional: what can be scripted about the world. Without it a model teaches."""

    def expert(self, task: Task) -> LeftToRight:
        return LeftToRight()

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        """The teacher: the expert's decision, but from privilege 50 on it searches where the key truly is."""
        decision = LeftToRight().decide(history)
        if privilege >= 50 and decision.action.startswith("look in"):
            place = privileged.facts["place"]
            return Decision(reason=f"A key is often in a {place}.", action=f"look in {place}")
        return decision


class House(Session):
    """One playthrough."""

    blocking: ClassVar[bool] = False  # it answers at once, so that no thread is needed

    def __init__(self, rng: random.Random) -> None:
        self._order = rng.sample(PLACES, len(PLACES))
        self._place = rng.choices(PLACES, HABIT)[0]
        self._found = self._held = False

    def observe(self) -> Observation:
        return self._show(f"It is dark. You feel a {', a '.join(self._order)} and a locked door.")

    def act(self, action: str) -> Outcome:
        if action not in self._admissible():
            return Outcome(self._show("Nothing happens."))
        if action == "open door":
            return Outcome(self._show("The door opens."), reward=1.0, done=True, success=True, score=1.0)
        if action == "take key":
            self._held = True
            return Outcome(self._show("You have the key."))
        self._found = action == f"look in {self._place}"
        return Outcome(self._show("There is a key." if self._found else "There is nothing."))

    def privileged(self) -> PrivilegedState:
        plan = [f"look in {self._place}", "take key", "open door"][2 if self._held else 1 if self._found else 0 :]
        return PrivilegedState(text=f"The key is in the {self._place}.", facts={"place": self._place}, plan=tuple(plan))

    def _show(self, text: str) -> Observation:
        return Observation(text=text, admissible=self._admissible())

    def _admissible(self) -> tuple[str, ...]:
        if self._held:
            return ("open door",)
        looks = tuple(sorted(f"look in {place}" for place in PLACES))
        return (*looks, "take key") if self._found else looks


class LeftToRight:
    """The unprivileged expert: looks into one place after another, in the order in which they are felt."""

    def decide(self, history: History) -> Decision:
        seen = history.now.text
        if seen == "There is a key.":
            return Decision(reason="The key is here.", action="take key")
        if seen == "You have the key.":
            return Decision(reason="The key opens the door.", action="open door")
        words = history.observations[0].text.replace(",", "").split()
        order = [word for word in words if word in PLACES]
        unsearched = [place for place in order if f"look in {place}" not in history.actions] or order
        return Decision(reason=f"A {unsearched[0]} is not searched yet.", action=f"look in {unsearched[0]}")
