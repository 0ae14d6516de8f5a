"""A taskset of verifiers with one turn: sums, the result in the task's data."""

from __future__ import annotations

from collections.abc import Iterator

import verifiers.v1 as vf


class Config(vf.TasksetConfig):
    """How many sums there are."""

    count: int = 12


class Data(vf.TaskData):
    """A sum."""

    result: int


class Sum(vf.Task[Data, vf.State, vf.TaskConfig]):
    """Whether the last number said is the result."""

    @vf.reward(weight=1.0)
    async def right(self, trace: vf.Trace) -> float:
        """1 for the right result."""
        said = trace.root_reply or trace.nodes[-1].message.content
        return float(said.split()[-1] == str(self.data.result))


class Sums(vf.Taskset[Sum, Config]):
    """Sums of two numbers."""

    def load(self) -> Iterator[Sum]:
        for n in range(self.config.count):
            asked = {"prompt": f"What is {n} + 7?", "system_prompt": "Say a number.", "name": f"sum-{n}"}
            yield Sum(Data(**asked, result=n + 7), self.config.task)


__all__ = ["Sums"]
