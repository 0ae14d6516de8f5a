"""`check_env`: whether an environment keeps the contract of `leap.envs.base`, found by playing a few of its tasks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from leap.core import Decision, History, Observation, PrivilegedState, Task
from leap.core.history import open_action
from leap.envs.base import Environment, Finding, Outcome, listed
from leap.envs.grammar import Grammar
from leap.envs.live import Live, called, faults_of
from leap.errors import ContextTooLong, ContractError, LeapError
from leap.policies.rendering import PromptConfig, Renderer
from leap.sync import run_sync

NONSENSE = "there is no such action"
"""Any string may be an action; this one makes no sense in any world."""
NO_SPLIT = "no-such-split"
SHORTEST_LINE = 20
"""Shorter lines of a privileged state may well stand in a prompt by chance."""


def check_env(
    environment: Environment, splits: Sequence[str] = (), *, tasks: int = 3, steps: int = 8, strict: bool = False
) -> list[Finding]:
    """Checks an environment: tasks and samples of them, sessions that repeat and do not disturb each other, privileged states
    that no student's prompt shows, actions that read back, scores, closing, and the tutor where there is one.

    Args:
        environment: The environment.
        splits: Splits to look at; `gold_splits` by default.
        tasks: So many tasks of each split are played.
        steps: Most actions in each.
        strict: Whether to raise where something is not as it should be.

    Returns:
        What was found, good and bad.

    Raises:
        ContractError: With `strict`: all that is not as it should be, a line each.
    """
    check = _Check(environment, steps)
    with check.that("its data can be prepared"):
        environment.prepare()
    with check.that(f"tasks({NO_SPLIT!r}) fails with a LeapError that says which splits there are"):
        _unknown_split(environment)
    for split in splits or environment.gold_splits:
        found: list[Task] = []
        with check.that(f"split {split!r}: tasks are the same each time, each of its own id"):
            found = listed(environment, split)
            if [*found] != listed(environment, split):
                raise ContractError("two calls of tasks() give different tasks")
            if not found:
                raise ContractError("there are no tasks, and no PrerequisiteError says so")
        with check.that(f"split {split!r}: with a limit tasks are a sample, in order"):
            _samples(environment, split, found)
        for task in found[:: max(1, len(found) // tasks)][:tasks]:
            run_sync(check.play(task))
    bad = [finding.text for finding in check.findings if not finding.ok]
    if strict and bad:
        raise ContractError("\n".join([f"environment {environment.name} does not keep its contract:", *bad]))
    return check.findings


def _unknown_split(environment: Environment) -> None:
    try:
        found = environment.tasks(NO_SPLIT)
    except LeapError:
        return
    raise ContractError(f"it gives {len(found)} tasks")


def _samples(environment: Environment, split: str, everything: Sequence[Task]) -> None:
    place = {task.id: number for number, task in enumerate(everything)}
    for limit, seed in ((1, 0), (max(1, len(everything) // 2), 0), (max(1, len(everything) // 2), 1), (len(everything) + 1, 0)):
        sample = listed(environment, split, limit=limit, seed=seed)
        what = f"tasks(limit={limit}, seed={seed})"
        if any(task.id not in place or everything[place[task.id]] != task for task in sample):
            raise ContractError(f"{what} gives a task that is not among all of them")
        if not 1 <= len(sample) <= limit:  # a mixture has as many of each part, and so may have fewer
            raise ContractError(f"{what} gives {len(sample)} tasks")
        if [place[task.id] for task in sample] != sorted(place[task.id] for task in sample):
            raise ContractError(f"{what} gives them in another order")
        if sample != listed(environment, split, limit=limit, seed=seed):
            raise ContractError(f"{what} gives other tasks each time")


@dataclass
class _Walk:
    """One way through a task, as it is seen.

    Attributes:
        history: What a student would know.
        outcomes: What came of each action.
        states: The privileged state before each action and after the last; empty where none were read.
    """

    history: History
    outcomes: list[Outcome] = field(default_factory=list)
    states: list[PrivilegedState] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return bool(self.outcomes) and self.outcomes[-1].done


class _Check:
    """Gathers findings.

    Args:
        environment: What is checked.
        steps: Most actions in a task.
    """

    def __init__(self, environment: Environment, steps: int) -> None:
        self.environment = environment
        self.steps = steps
        self.findings: list[Finding] = []

    @contextmanager
    def that(self, text: str) -> Iterator[None]:
        """Finds that `text` is so, unless the block raises."""
        try:
            yield
        except LeapError as error:
            self.findings.append(Finding(False, f"{text}: no, {error}"))
        except Exception as error:
            self.findings.append(Finding(False, f"{text}: no, {type(error).__name__}: {error}"))
        else:
            self.findings.append(Finding(True, text))

    async def play(self, task: Task) -> None:
        """Plays a task several times over."""
        where = f"task {task.id}"
        walk = _Walk(History(task=task, observations=(Observation(text=""),)))
        with self.that(f"{where}: it can be played, and tells its privileged state at every step"):
            walk = await self._explore(task)
        if not walk.outcomes:
            return
        actions = walk.history.actions
        with self.that(f"{where}: an action that makes no sense is answered, and ends nothing well"):
            await self._nonsense(task)
        with self.that(f"{where}: sessions at the same time do not disturb each other, and repeat"):
            others = await asyncio.gather(*(self._follow(task, actions) for _ in range(2)))
            _compare(walk, others, repeats=await self._repeats(task))
        with self.that(f"{where}: what is privileged stands in no student's prompt"):
            self._secrets(walk)
        with self.that(f"{where}: actions that are written read back, and those that may be taken are valid"):
            self._grammar(walk)
        with self.that(f"{where}: names of things are a set of texts"):
            self._entities(walk)
        with self.that(f"{where}: a session can be closed twice, and is not used after"):
            await self._close_twice(task)
        if self.environment.tutor is not None:
            with self.that(f"{where}: what the tutor says can be done"):
                await self._tutor(walk)

    async def _explore(self, task: Task) -> _Walk:
        """Takes the plan's actions, the expert's or any that are admissible, and reads the privileged state on the way."""
        tutor = self.environment.tutor
        expert = tutor.expert(task) if tutor is not None and tutor.plays else None
        async with Live(self.environment, task) as session:
            walk = _Walk(History(task=task, observations=(await session.observe(),)))
            for number in range(self.steps):
                state = await session.privileged()
                state.model_dump_json()  # facts go on file
                if state.hopeless and state.plan:
                    raise ContractError("a privileged state is hopeless and has a plan")
                walk.states.append(state)
                if walk.done:
                    break
                now = walk.history.now
                action = _listed(now, number)
                if state.plan:
                    action = state.plan[0]
                elif expert is not None:
                    action = (await called(expert.decide, walk.history, blocking=tutor is not None and tutor.blocking)).action
                outcome = await session.act(action)
                walk.outcomes.append(outcome)
                walk.history = walk.history.extend(action, outcome.observation)
        return walk

    async def _follow(self, task: Task, actions: Sequence[str]) -> _Walk:
        """The same actions in another session, whose privileged state nobody reads."""
        async with Live(self.environment, task) as session:
            walk = _Walk(History(task=task, observations=(await session.observe(),)))
            for action in actions:
                outcome = await session.act(action)
                await asyncio.sleep(0)  # so that sessions which answer at once take turns, too
                walk.outcomes.append(outcome)
                walk.history = walk.history.extend(action, outcome.observation)
        return walk

    async def _repeats(self, task: Task) -> bool:
        async with Live(self.environment, task) as session:
            return session.repeats

    async def _nonsense(self, task: Task) -> None:
        async with Live(self.environment, task) as session:
            await session.observe()
            outcome = await session.act(NONSENSE)
            if outcome.success:
                raise ContractError(f"act({NONSENSE!r}) solves the task")

    async def _close_twice(self, task: Task) -> None:
        environment = self.environment
        session = await called(environment.start, task, blocking=environment.of(task).blocking)
        for _ in range(2):
            await called(session.close, blocking=session.blocking)

    def _secrets(self, walk: _Walk) -> None:
        environment, task = self.environment, walk.history.task
        for style in ("paper", "dialogue"):
            config = PromptConfig(renderer=style)  # pyright: ignore[reportArgumentType]
            renderer = Renderer(config, environment.prompts_of, grammar_of=environment.grammar_of)
            for t, state in enumerate(walk.states[: len(walk.outcomes)]):
                history = _until(walk.history, t)
                try:
                    prompt = "\n".join(str(message["content"]) for message in renderer.render(history))
                except ContextTooLong:
                    continue
                if state.text.strip() and state.text.strip() in prompt:
                    raise ContractError(f"the prompt of step {t} holds the whole privileged state")
                for line in state.text.splitlines() if t == 0 else ():
                    told = line.strip() in task.instruction or task.instruction in line
                    if len(line.strip()) >= SHORTEST_LINE and not told and line.strip() in prompt:
                        raise ContractError(f"the first prompt says what is privileged: {line.strip()!r}")

    def _grammar(self, walk: _Walk) -> None:
        environment = self.environment.of(walk.history.task)
        for t in range(len(walk.outcomes)):
            now = walk.history.observations[t]
            plan = walk.states[t].plan or ()
            mentioned = {*plan[:1], *(a for a in now.admissible or () if not open_action(a))}
            for action in mentioned:
                if not environment.valid(action, now):
                    raise ContractError(f"step {t}: valid() refuses {action!r}, which is admissible or planned")
            for action in mentioned if now.admissible is not None else {*mentioned, *_samples_of(environment.grammar)}:
                if not environment.grammar.reads_back(Decision(reason="So it is.", action=action), now):
                    raise ContractError(f"step {t}: a student that answers {action!r} would not be understood")

    def _entities(self, walk: _Walk) -> None:
        entities = self.environment.of(walk.history.task).entities
        for observation in walk.history.observations:
            found = entities(observation.text)
            if not isinstance(found, set) or not all(isinstance(name, str) for name in found):
                raise ContractError(f"entities() gives {found!r:.200}")

    async def _tutor(self, walk: _Walk) -> None:
        environment, task = self.environment.of(walk.history.task), walk.history.task
        tutor = self.environment.tutor
        assert tutor is not None
        expert = tutor.expert(task) if tutor.plays else None
        for t, state in enumerate(walk.states[: len(walk.outcomes)]):
            history = _until(walk.history, t)
            says: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = []
            if expert is not None:
                says.append(("the expert", expert.decide, (history,)))
            if tutor.corrects:
                says += [(f"correct() at {level}", tutor.correct, (history, state, level)) for level in (0, 50, 100)]
            for who, method, arguments in says:
                with faults_of(self.environment, task, who):
                    decision = await called(method, *arguments, blocking=tutor.blocking)
                if decision is None and "correct" in who:
                    continue
                if not isinstance(decision, Decision):
                    raise ContractError(f"step {t}: {who} gives {decision!r:.200}")
                if not environment.valid(decision.action, history.now):
                    raise ContractError(f"step {t}: {who} says {decision.action!r}, which is not valid")


def _compare(walk: _Walk, others: Sequence[_Walk], *, repeats: bool) -> None:
    for other in others:
        if repeats and other.history.observations[0] != walk.history.observations[0]:
            raise ContractError("the first observation differs; a session that does not repeat says repeats = False")
        for t, (one, same) in enumerate(zip(walk.outcomes, other.outcomes, strict=True)):
            if repeats and one != same:
                raise ContractError(
                    f"step {t}: the same action gives another outcome, which a session that does not repeat says (repeats = "
                    f"False): {one.observation.text[:80]!r} and {same.observation.text[:80]!r}"
                )


def _until(history: History, t: int) -> History:
    return History(task=history.task, observations=history.observations[: t + 1], actions=history.actions[:t])


def _samples_of(grammar: Grammar) -> list[str]:
    """Actions that a grammar without a list has to be able to write: texts of several lines, or a call of each tool."""
    if grammar.form == "text":
        return ["one line", "two\n\nlines", "Run\n```python\nprint(1)\n```\nthen."]
    calls = []
    for tool in grammar.tools:
        schema = tool["function"]["parameters"]
        given = {name: _sample_of(schema.get("properties", {}).get(name, {})) for name in schema.get("required", ())}
        calls.append(grammar.canonical(json.dumps({"name": tool["function"]["name"], "arguments": given})))
        grammar.valid(calls[-1], Observation(text=""))  # raises where the tool's parameters are no JSON schema
    return calls


def _sample_of(schema: dict[str, Any]) -> Any:
    samples = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None}
    kind = schema.get("type", "string")
    return next(iter(schema.get("enum", ())), samples.get(kind, "so\nit is") if isinstance(kind, str) else "so it is")


def _listed(now: Observation, number: int) -> str:
    choices = [action for action in now.admissible or () if not open_action(action)]
    return choices[number % len(choices)] if choices else NONSENSE
