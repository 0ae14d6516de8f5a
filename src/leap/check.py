"""`check_env`: whether an environment keeps the contract of `leap.envs.base`, found by playing a few of its tasks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from leap.core import Decision, History, Observation, PrivilegedState, Task
from leap.core.history import open_action
from leap.envs.base import Environment, Finding, Outcome, listed
from leap.envs.grammar import Grammar
from leap.envs.live import Live, called, faults_of
from leap.errors import ContextTooLong, ContractError, LeapError
from leap.models.mock import least_value
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
        ContractError: It is no environment. With `strict`: all that is not as it should be, a line each.
    """
    if not isinstance(environment, Environment):
        raise ContractError(f"check_env takes an environment, such as MyEnvironment(), not {environment!r}.")
    findings = _Findings()
    with findings.that("its data can be prepared"):
        environment.prepare()
    with findings.that(f"tasks({NO_SPLIT!r}) fails with a LeapError that says which splits there are"):
        _unknown_split(environment)
    for split in splits or environment.gold_splits:
        found: list[Task] = []
        with findings.that(f"split {split!r}: tasks are the same each time, each of its own id"):
            found = listed(environment, split)
            _must([*found] == listed(environment, split), "two calls of tasks() give different tasks")
        with findings.that(f"split {split!r}: with a limit tasks are a sample, in order"):
            _samples(environment, split, found)
        for task in found[:: max(1, len(found) // tasks)][:tasks]:
            run_sync(_check_task(environment, task, steps, findings))
    bad = [finding.text for finding in findings if not finding.ok]
    if strict and bad:
        raise ContractError("\n".join([f"environment {environment.name} does not keep its contract:", *bad]))
    return findings


class _Findings(list[Finding]):
    @contextmanager
    def that(self, text: str) -> Iterator[None]:
        """Finds that `text` is so, unless the block raises."""
        try:
            yield
        except LeapError as error:
            self.append(Finding(False, f"{text}: no, {error}"))
        except Exception as error:
            self.append(Finding(False, f"{text}: no, {type(error).__name__}: {error}"))
        else:
            self.append(Finding(True, text))


def _must(be: bool, otherwise: str) -> None:
    if not be:
        raise ContractError(otherwise)


def _unknown_split(environment: Environment) -> None:
    try:
        found = environment.tasks(NO_SPLIT)
    except LeapError:
        return
    raise ContractError(f"it gives {len(found)} tasks")


def _samples(environment: Environment, split: str, everything: Sequence[Task]) -> None:
    place, half = {task.id: number for number, task in enumerate(everything)}, max(1, len(everything) // 2)
    for limit, seed in ((1, 0), (half, 0), (half, 1), (len(everything) + 1, 0)):
        sample = environment.tasks(split, limit=limit, seed=seed)
        what = f"tasks(limit={limit}, seed={seed})"
        places = [place.get(task.id, -1) for task in sample]
        known = all(at >= 0 and everything[at] == task for at, task in zip(places, sample, strict=True))
        _must(known, f"{what} gives a task that is not among all of them")
        _must(1 <= len(sample) <= limit, f"{what} gives {len(sample)} tasks")  # a mixture may give fewer than the limit
        _must(places == sorted(set(places)), f"{what} gives them in another order, or one of them twice")
        _must(sample == environment.tasks(split, limit=limit, seed=seed), f"{what} gives other tasks each time")


# ---- playing a task --------------------------------------------------------------------------------------------------


@dataclass
class _Walk:
    """One way through a task, as it is seen: what a student would know, what came of each action, and the privileged state
    before each of them where it was read."""

    repeats: bool
    history: History
    outcomes: list[Outcome] = field(default_factory=list)
    states: list[PrivilegedState] = field(default_factory=list)

    def steps(self) -> Iterator[tuple[int, History, PrivilegedState]]:
        """Number, history and privileged state of each action taken."""
        for t, state in enumerate(self.states[: len(self.outcomes)]):
            seen = {"observations": self.history.observations[: t + 1], "actions": self.history.actions[:t]}
            yield t, self.history.model_copy(update=seen), state


async def _walk(
    environment: Environment, task: Task, steps: int, choose: Callable[[_Walk], Awaitable[str]], *, reads: bool
) -> _Walk:
    """Takes up to so many actions in a fresh session, and reads the privileged state before each of them if it is to."""
    async with Live(environment, task) as session:
        walk = _Walk(session.repeats, History(task=task, observations=(await session.observe(),)))
        while len(walk.outcomes) < steps:
            if reads:
                state = await session.privileged()
                state.model_dump_json()  # facts go on file
                _must(not (state.hopeless and state.plan), "a privileged state is hopeless and has a plan")
                walk.states.append(state)
            if reads and walk.outcomes and walk.outcomes[-1].done:
                break
            action = await choose(walk)
            outcome = await session.act(action)
            _must(outcome.score > 0 or not outcome.success, "the task is solved with a score of 0, so it counts as failed, too")
            await asyncio.sleep(0)  # so that sessions which answer at once take turns, too
            walk.outcomes.append(outcome)
            walk.history = walk.history.extend(action, outcome.observation)
    return walk


async def _check_task(environment: Environment, task: Task, steps: int, findings: _Findings) -> None:
    """Plays a task several times over: by the plan, the expert or any action that is admissible, then the same again."""
    where, tutor = f"task {task.id}", environment.tutor
    walk = None

    async def explore(walk: _Walk) -> str:
        if walk.states[-1].plan:
            return walk.states[-1].plan[0]
        if tutor is None or expert is None:
            listed = [action for action in walk.history.now.admissible or () if not open_action(action)]
            choices = listed or [*_samples_of(environment.grammar_of(task)), NONSENSE]
            return choices[len(walk.outcomes) % len(choices)]
        return (await called(expert.decide, walk.history, blocking=tutor.blocking)).action

    async def again(walk: _Walk) -> str:
        return actions[len(walk.outcomes)]

    with findings.that(f"{where}: it can be played, and tells its privileged state at every step"):
        expert = tutor.expert(task) if tutor is not None and tutor.plays else None
        walk = await _walk(environment, task, steps, explore, reads=True)
    if walk is None or not walk.outcomes:
        return
    actions = walk.history.actions
    with findings.that(f"{where}: an action that makes no sense is answered, and ends nothing well"):
        async with Live(environment, task) as live:
            await live.observe()
            _must(not (await live.act(NONSENSE)).success, f"act({NONSENSE!r}) solves the task")
    with findings.that(f"{where}: sessions at the same time do not disturb each other, and repeat"):
        others = (_walk(environment, task, len(actions), again, reads=False) for _ in range(2))
        for other in await asyncio.gather(*others):
            _compare(walk, other)
        await _copies(environment, walk)
    with findings.that(f"{where}: what is privileged stands in no student's prompt"):
        _secrets(environment, walk)
    with findings.that(f"{where}: actions that are written read back, and those that may be taken are valid"):
        _grammar(environment.of(task), walk)
    with findings.that(f"{where}: names of things are a set of texts"):
        for observation in walk.history.observations:
            names = environment.of(task).entities(observation.text)
            texts = isinstance(names, set) and all(isinstance(name, str) for name in names)
            _must(texts, f"entities() gives {names!r:.200}")
    with findings.that(f"{where}: a session can be closed twice, and is not used after"):
        session = await called(environment.start, task, blocking=environment.of(task).blocking)
        for _ in range(2):
            await called(session.close, blocking=session.blocking)
    if tutor is not None:
        with findings.that(f"{where}: what the tutor says can be done"):
            await _tutor(environment, walk)


def _compare(walk: _Walk, other: _Walk) -> None:
    """Whether the same actions showed the same, where the session says that it repeats."""
    if not walk.repeats:
        return
    first = other.history.observations[0] == walk.history.observations[0]
    _must(first, "the first observation differs; a session that does not repeat says repeats = False")
    for t, (one, same) in enumerate(zip(walk.outcomes, other.outcomes, strict=True)):
        shown = f"{one.observation.text[:80]!r} and {same.observation.text[:80]!r}"
        says = "which a session that does not repeat says (repeats = False)"
        _must(one == same, f"step {t}: the same action gives another outcome, {says}: {shown}")


async def _copies(environment: Environment, walk: _Walk) -> None:
    """Whether a copy made before each action, and used only when its session has gone on, shows what the session showed."""
    async with Live(environment, walk.history.task) as session:
        await session.observe()
        for t, (action, outcome) in enumerate(zip(walk.history.actions, walk.outcomes, strict=True)):
            copied = await session.copy()
            await session.act(action)
            if copied is None:
                return
            async with copied as other:
                same = await other.act(action)
            says = f"{same.observation.text[:80]!r} and {outcome.observation.text[:80]!r}"
            _must(same == outcome or not walk.repeats, f"step {t}: in a copy the same action gives another outcome: {says}")


def _secrets(environment: Environment, walk: _Walk) -> None:
    task = walk.history.task
    for config in (PromptConfig(renderer="paper"), PromptConfig(renderer="dialogue")):
        renderer = Renderer(config, environment.prompts_of, grammar_of=environment.grammar_of)
        for t, history, state in walk.steps():
            try:
                prompt = "\n".join(str(message["content"]) for message in renderer.render(history))
            except ContextTooLong:
                continue
            whole = state.text.strip()
            _must(not whole or whole not in prompt, f"the prompt of step {t} holds the whole privileged state")
            for line in map(str.strip, state.text.splitlines() if t == 0 else ()):
                told = line in task.instruction or task.instruction in line
                fine = len(line) < SHORTEST_LINE or told or line not in prompt
                _must(fine, f"the first prompt says what is privileged: {line!r}")


def _grammar(environment: Environment, walk: _Walk) -> None:
    grammar = environment.grammar
    for t, history, state in walk.steps():
        now = history.now
        mentioned = {*(state.plan or ())[:1], *(a for a in now.admissible or () if not open_action(a))}
        for action in mentioned:
            valid = environment.valid(action, now)
            _must(valid, f"step {t}: valid() refuses {action!r}, which is admissible or planned")
        for action in mentioned if now.admissible is not None else {*mentioned, *_samples_of(grammar)}:
            understood = grammar.reads_back(Decision(reason="So it is.", action=action), now)
            _must(understood, f"step {t}: a student that answers {action!r} would not be understood")


async def _tutor(environment: Environment, walk: _Walk) -> None:
    task, tutor = walk.history.task, environment.tutor
    assert tutor is not None
    expert = tutor.expert(task) if tutor.plays else None
    for t, history, state in walk.steps():
        says: dict[str, Callable[[], Decision | None]] = {}
        if expert is not None:
            says["the expert"] = partial(expert.decide, history)
        for level in (0, 50, 100) if tutor.corrects else ():
            says[f"correct() at {level}"] = partial(tutor.correct, history, state, level)
        for who, method in says.items():
            with faults_of(environment, task, who):
                decision = await called(method, blocking=tutor.blocking)
            if decision is None and who != "the expert":
                continue
            if not isinstance(decision, Decision):
                raise ContractError(f"step {t}: {who} gives {decision!r:.200}")
            valid = environment.of(task).valid(decision.action, history.now)
            _must(valid, f"step {t}: {who} says {decision.action!r}, which is not valid")


def _samples_of(grammar: Grammar) -> list[str]:
    """Actions that a grammar without a list has to be able to write: texts of several lines, or a call of each tool."""
    if grammar.form == "text":
        return ["one line", "two\n\nlines", "Run\n```python\nprint(1)\n```\nthen."]
    calls = []
    for tool in (each["function"] for each in grammar.tools):
        given = least_value(tool["parameters"], text="so\nit is") or {}  # of a damaged schema
        calls.append(grammar.canonical(json.dumps({"name": tool["name"], "arguments": given})))
        grammar.valid(calls[-1], Observation(text=""))  # raises where the tool's parameters are no JSON schema
    return calls
