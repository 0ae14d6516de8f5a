"""A mixture: the tasks of several environments in one, so that one student learns them together.

    environment:
      name: mixture
      options:
        parts:
          alfworld: {options: {...}, splits: {test: unseen}}
          webshop: {options: {...}, splits: {valid: eval}}
        each: {valid: 60, test: 100}

A task is one of a part: `webshop/human/17` of kind `webshop`, so that every table is by part (docs/mixture.md). What is done
with a task, its part does; a student's prompt is the one that the part itself would make.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from leap.config import Options
from leap.core import Decision, Episode, History, Observation, PrivilegedState, Task
from leap.envs.base import Environment, EnvironmentConfig, Progress, Session, load_environment, sampled
from leap.envs.grammar import Grammar
from leap.envs.tutor import Expert, Taught, Tutor, roll_in, scripts
from leap.errors import PrerequisiteError

PartName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class PartConfig(EnvironmentConfig):
    """One environment of a mixture."""

    environment: str | None = Field(default=None, description="Registered environment; the part's own name if null.")
    options: Options = Field(default_factory=dict, description="That environment's own options.")
    splits: dict[str, str] = Field(
        default_factory=dict, description="What the mixture's splits are called there, where that differs."
    )


class MixtureConfig(EnvironmentConfig):
    """A mixture's options in a recipe."""

    parts: dict[PartName, PartConfig] = Field(
        min_length=1, description="The environments, by the names of their parts."
    )
    only: list[str] | None = Field(
        default=None,
        min_length=1,
        description="These parts alone: for a specialist on the very tasks of a mixture; all if null.",
    )
    each: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="By split, the most tasks of each part, the same under every seed; all by default.",
    )

    @model_validator(mode="after")
    def _only_what_there_is(self) -> MixtureConfig:
        for name in self.only or ():
            if name not in self.parts:
                raise ValueError(f"only: there is no part {name!r}; there are {', '.join(self.parts)}")
        return self


class MixtureEnvironment(Environment[MixtureConfig]):
    """Several environments as one. Tasks, sessions, experts, teachers and prompts are those of the parts."""

    name: ClassVar[str] = "mixture"
    Config: ClassVar[type[EnvironmentConfig]] = MixtureConfig

    def __init__(self, config: MixtureConfig) -> None:
        super().__init__(config)
        self.parts: dict[str, Environment] = {
            name: load_environment(part.environment or name, part.options)
            for name, part in config.parts.items()
            if config.only is None or name in config.only
        }
        self._listed: dict[tuple[str, str], dict[str, Task]] = {}

    @property
    def test_splits(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whatever means a test split in any part."""
        names = {name for part in self.config.parts.values() for name in part.splits}
        names |= {name for part in self.parts.values() for name in part.test_splits}
        return frozenset(
            name
            for name in names
            if any(self._split(part, name) in own.test_splits for part, own in self.parts.items())
        )

    def prepare(self, progress: Progress | None = None) -> None:
        for part in self.parts.values():
            part.prepare(progress)

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        """The split's tasks, part by part; with a limit, as many of each part, drawn as from the part alone (where `each`
        caps the split, from what it leaves). Where the limit does not divide, the first parts have one more; a part that
        has fewer tasks gives all of them."""
        found: list[Task] = []
        for place, (name, part) in enumerate(self.parts.items()):
            own, most = self._split(name, split), self.config.each.get(split)
            share = None if limit is None else (limit + len(self.parts) - 1 - place) // len(self.parts)
            drawn = part.tasks(own, limit=share, seed=seed) if most is None else part.tasks(own, limit=most)
            found += [
                Task(env=self.name, split=split, id=f"{name}/{t.id}", instruction=t.instruction, kind=name, seed=t.seed)
                for t in sampled(drawn, split, share, seed)
            ]
        return found

    def inner(self, task: Task) -> tuple[Environment, Task]:
        """A task's part, and the part's own task.

        Raises:
            PrerequisiteError: There is no such task; a recipe's other options or data made it.
        """
        name, _, own_id = task.id.partition("/")
        if name not in self.parts:
            raise PrerequisiteError(
                f"task {task.id!r} is of no part of this mixture, which has {', '.join(self.parts)}."
            )
        if (name, task.split) not in self._listed:
            listed = self.parts[name].tasks(self._split(name, task.split))
            self._listed[name, task.split] = {own.id: own for own in listed}
        own = self._listed[name, task.split].get(own_id)
        if own is None or own.instruction != task.instruction:
            raise PrerequisiteError(f"task {task.id!r} ({task.instruction[:60]!r}) is not in the data at hand.")
        return self.parts[name], own

    def _split(self, part: str, split: str) -> str:
        """What a split is called in a part."""
        return self.config.parts[part].splits.get(split, split)

    def seen_by_part(self, history: History) -> tuple[Environment, History]:
        """A task's part, and the history as the part itself would have it."""
        part, own = self.inner(history.task)
        return part, history.model_copy(update={"task": own})

    def of(self, task: Task) -> Environment:
        return self.inner(task)[0]

    def grammar_of(self, task: Task) -> Grammar:
        """The grammar of a task's part; its data is not needed to tell."""
        return self.parts.get(task.id.partition("/")[0], self).grammar

    def start(self, task: Task) -> Session | Awaitable[Session]:
        part, own = self.inner(task)
        return part.start(own)

    def prove(self, task: Task) -> str | None:
        part, own = self.inner(task)
        return part.prove(own)

    @property
    def tutor(self) -> MixtureTutor | None:
        """The parts' own, where any has one."""
        return MixtureTutor(self) if any(part.tutor for part in self.parts.values()) else None

    def valid(self, action: str, observation: Observation) -> bool:
        """Whether it is valid in some part; a task's own grammar is that of `of(task)`."""
        return any(part.valid(action, observation) for part in self.parts.values())

    def entities(self, text: str) -> set[str]:
        """What is a name in some part; for a task's own, ask `of(task)`."""
        return set().union(*(part.entities(text) for part in self.parts.values()))

    def why_unsolvable(self, task: Task) -> str:
        part, own = self.inner(task)
        return part.why_unsolvable(own)

    def vocabulary(self) -> list[str]:
        return [text for part in self.parts.values() for text in part.vocabulary()]

    def names(self) -> list[str]:
        return [name for part in self.parts.values() for name in part.names()]

    def used(self) -> dict[str, float]:
        every = [part.used() for part in self.parts.values()]
        return {name: sum(used.get(name, 0.0) for used in every) for name in {name for used in every for name in used}}

    def versions(self) -> dict[str, str]:
        return {f"{name}: {what}": told for name, part in self.parts.items() for what, told in part.versions().items()}

    def close(self) -> None:
        for part in self.parts.values():
            part.close()


class MixtureTutor(Tutor[MixtureEnvironment]):
    """The tutors of the parts: it plays or corrects where every part has someone who does."""

    def __init__(self, environment: MixtureEnvironment) -> None:
        super().__init__(environment)
        self._tutors = {name: part.tutor for name, part in environment.parts.items()}

    @property
    def plays(self) -> bool:
        return all(tutor is not None and tutor.plays for tutor in self._tutors.values())

    @property
    def corrects(self) -> bool:
        return all(tutor is not None and tutor.corrects for tutor in self._tutors.values())

    @property
    def blocking(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return any(tutor is not None and tutor.blocking for tutor in self._tutors.values())

    @property
    def idle(self) -> Mapping[str, Sequence[str]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the parts; each is tried on every task."""
        return {
            f"{name}-{idle}": actions
            for name, tutor in self._tutors.items()
            if tutor is not None
            for idle, actions in tutor.idle.items()
        }

    def expert(self, task: Task) -> Expert:
        part, own = self.environment.inner(task)
        return _PartsExpert(self.environment, scripts(part).expert(own))

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        part, own = self.environment.seen_by_part(history)
        return scripts(part).correct(own, privileged, privilege)

    async def correct_along(self, episode: Episode, privilege: int) -> list[Taught]:
        part, own = self.environment.inner(episode.task)
        taught = await scripts(part).correct_along(episode.model_copy(update={"task": own}), privilege)
        return [one._replace(history=episode.history(t)) for t, one in enumerate(taught)]

    async def roll_in(self, history: History, action: str, left: int) -> float:
        part, own = self.environment.seen_by_part(history)
        return await roll_in(part, own, action, left)


@dataclass(frozen=True, slots=True)
class _PartsExpert:
    """The expert of a task's part, which knows the task as the part does."""

    mixture: MixtureEnvironment
    expert: Expert

    def decide(self, history: History) -> Decision:
        return self.expert.decide(self.mixture.seen_by_part(history)[1])
