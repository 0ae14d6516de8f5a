"""A support desk: tickets with a cause that only the files of the desk tell, worked on by calls of tools alone."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from leap.core import Observation, PrivilegedState, Task
from leap.envs.base import Environment, Outcome, Session, sampled, unknown_split
from leap.envs.grammar import ToolCalls
from leap.envs.tools import Tool

CAUSES = ("lost", "damaged", "late")


def _tool(name: str, description: str, **properties: Any) -> Tool:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return Tool(name=name, description=description, parameters=schema)


TOOLS = ToolCalls(
    [
        _tool("look_up", "Shows an order.", order={"type": "string"}),
        _tool("refund", "Pays back and ends the ticket.", order={"type": "string"}, cents={"type": "integer", "minimum": 1}),
    ]
)


class Desk(Environment):
    """Find out what went wrong with an order, then pay back what the rules say."""

    name: ClassVar[str] = "desk"
    blocking: ClassVar[bool] = False
    grammar = TOOLS

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        if split not in ("train", "test"):
            raise unknown_split(self.name, split, ("train", "test"))
        said = "Order A-{} has not come as it should. Pay back what is due."
        tasks = [Task(env=self.name, split=split, id=f"{split}/{n}", instruction=said.format(n)) for n in range(6)]
        return sampled(tasks, split, limit, seed)

    def start(self, task: Task) -> Session:
        return _Ticket(int(task.id.rpartition("/")[2]))


class _Ticket(Session):
    blocking = False

    def __init__(self, number: int) -> None:
        self._order, self._cause = f"A-{number}", CAUSES[number % 3]
        self._due = 1000 if self._cause == "lost" else 500

    def observe(self) -> Observation:
        return Observation(text="A new ticket.")

    async def act(self, action: str) -> Outcome:
        call = TOOLS.call(action)
        if call is None:
            return Outcome(Observation(text=TOOLS.problem(action)))
        if call["arguments"]["order"] != self._order:
            return Outcome(Observation(text="There is no such order."))
        if call["name"] == "look_up":
            return Outcome(Observation(text=json.dumps({"order": self._order, "cause": self._cause, "price": 1000})))
        paid = call["arguments"]["cents"] == self._due
        return Outcome(Observation(text="Paid."), done=True, success=paid, score=float(paid))

    def privileged(self) -> PrivilegedState:
        return PrivilegedState(text=f"The parcel is {self._cause}, so {self._due} cents are due.")
