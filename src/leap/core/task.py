"""Tasks and what only a teacher may know about them."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from leap.core.record import JsonObject, Record, content_key


class Task(Record):
    """One problem instance. All that is in it may be shown to a student.

    Attributes:
        env: Name of the environment, as registered.
        split: Split the task belongs to, as the environment names it (never a mixture).
        id: Stable name within the environment; says which game, goal or query it is.
        instruction: The goal in words.
        kind: Task type, the unit of the tables by type.
        seed: Seed of whatever is random in the task; 0 where nothing is.
    """

    env: str
    split: str
    id: str
    instruction: str
    kind: str = ""
    seed: int = 0

    @cached_property
    def key(self) -> str:
        """Content key: equal tasks have equal keys, on every machine."""
        return content_key(self.env, self.split, self.id, self.instruction, self.seed)


class PrivilegedState(Record):
    """What is hidden from the student at a state of a task (paper, section 3: s_t). Only teachers receive this type.

    Attributes:
        text: For a model teacher: the paper's free text (task, essential objects, critical locations, optimal actions).
        facts: For a programmatic teacher and for measurements: JSON-able, the environment defines its keys.
        plan: Optimal remaining actions from this state; None where none is known.
        hopeless: Whether it is known that no sequence of actions can succeed any more.
    """

    text: str
    facts: JsonObject = Field(default_factory=dict)
    plan: tuple[str, ...] | None = None
    hopeless: bool = False
