"""`check_env` and `leap validate`: each break of the contract is found and said, and what keeps it passes."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any, ClassVar

import pytest

from leap.check import check_env
from leap.cli.validate import validate_environment
from leap.core import Decision, Observation, PrivilegedState, Task
from leap.envs.base import Environment, EnvironmentConfig, Outcome, Session, sampled, unknown_split
from leap.envs.grammar import FreeText, ToolCalls
from leap.envs.tools import Tool
from leap.errors import ContractError
from leap.registry import environment as registered
from tiny_world import House, TinyTutor, TinyWorld, TinyWorldConfig


def bad(world: Environment, **more: Any) -> list[str]:
    return [finding.text for finding in check_env(world, **more) if not finding.ok]


def tiny(**methods: Any) -> TinyWorld:
    """The tiny world with other methods."""
    return type("Changed", (TinyWorld,), methods)(TinyWorldConfig(tasks=5))


def housed(world: Any = None, **methods: Any) -> TinyWorld:
    """The tiny world with sessions of other methods."""
    house = type("Changed", (House,), methods)
    return tiny(start=lambda self, task: house(random.Random(task.id)), **(world or {}))


def a_tool(name: str, **properties: Any) -> Tool:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return Tool(name=name, description="What it does.", parameters=parameters)


class Desk(Environment[EnvironmentConfig]):
    """A support desk: tool calls, no list, no script, no plan, sessions of coroutines."""

    name: ClassVar[str] = "desk"
    grammar = ToolCalls([a_tool("look_up", order={"type": "string"}), a_tool("close")])

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        if split not in ("train", "test"):
            raise unknown_split(self.name, split, ("train", "test"))
        every = [Task(env="desk", split=split, id=f"{i}", instruction=f"Where is order {i}?") for i in range(4)]
        return sampled(every, split, limit, seed)

    async def start(self, task: Task) -> Session:
        await asyncio.sleep(0)
        return Ticket()


class Ticket(Session):
    async def observe(self) -> Observation:
        return Observation(text="A customer writes.")

    async def act(self, action: str) -> Outcome:
        await asyncio.sleep(0)
        done = action == Desk.grammar.canonical('{"name": "close", "arguments": {}}')
        return Outcome(Observation(text="Noted."), done=done)

    async def privileged(self) -> PrivilegedState:
        return PrivilegedState(text="The parcel was sent to the old address.")


def test_worlds_that_keep_the_contract_pass() -> None:
    for world in (tiny(), Desk(), tiny(tutor=None), tiny(blocking=True), housed(blocking=True)):
        assert bad(world) == []
        assert len(check_env(world, tasks=1)) >= 10
    assert check_env(tiny(), strict=True)


def nth(method: Any, change: Any) -> Any:
    """A method whose results from its second call on are changed, over all sessions."""
    calls = itertools.count()

    def changed(self: Any, *arguments: Any) -> Any:
        result = method(self, *arguments)
        return change(result) if next(calls) else result

    return changed


def leaky(self: House, action: str) -> Outcome:
    outcome = House.act(self, action)
    return outcome._replace(observation=outcome.observation.model_copy(update={"text": self.privileged().text}))


def telling(self: House) -> PrivilegedState:
    """Reading it moves the world on."""
    self._held = True
    return House.privileged(self)


class Shared(House):
    """All sessions hold one key."""

    keys: ClassVar[list[str]] = []

    def observe(self) -> Observation:
        Shared.keys.clear()
        return super().observe()

    def act(self, action: str) -> Outcome:
        Shared.keys.append(action)
        self._held = "take key" in Shared.keys and len(Shared.keys) == 2
        return super().act(action)


def closes_once(self: House) -> None:
    if getattr(self, "_closed", False):
        raise RuntimeError("no such box")
    self._closed = True


def in_odd_order(self: TinyWorld, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
    return sorted(TinyWorld.tasks(self, split, limit=limit, seed=seed), key=lambda task: (limit is not None) * -int(task.id[-1]))


ACT = House.act
BREAKS: dict[str, tuple[Any, str]] = {
    "unknown split": (
        lambda: tiny(tasks=lambda self, split, limit=None, seed=0: [
            task.model_copy(update={"split": split}) for task in TinyWorld.tasks(self, "train", limit=limit, seed=seed)
        ]),
        "'no-such-split'.*it gives 5 tasks",
    ),
    "unkind": (
        lambda: tiny(tasks=lambda self, split, limit=None, seed=0: {"train": TinyWorld.tasks(self, "train", limit=limit)}[split]),
        "'no-such-split'.*KeyError",
    ),
    "first n by chance": (
        lambda: tiny(
            tasks=lambda self, split, limit=None, seed=0: random.sample(
                TinyWorld.tasks(self, split), min(limit or 5, 5)
            )
        ),
        "two calls of tasks.. give different tasks",
    ),
    "order": (lambda: tiny(tasks=in_odd_order), "another order"),
    "too few": (
        lambda: tiny(tasks=lambda self, split, limit=None, seed=0: TinyWorld.tasks(self, split)[: limit and limit - 1]),
        r"tasks\(limit=1, seed=0\) gives 0 tasks",
    ),
    "first observation": (
        lambda: housed(observe=nth(House.observe, lambda o: o.model_copy(update={"text": "Light."}))),
        "the first observation differs",
    ),
    "outcome": (
        lambda: housed(act=nth(ACT, lambda o: o._replace(reward=0.5))), "the same action gives another outcome"
    ),
    "shared": (lambda: tiny(start=lambda self, task: Shared(random.Random(task.id))), "do not disturb.*another outcome"),
    "reading moves": (lambda: housed(privileged=telling), "another outcome"),
    "leak": (lambda: housed(act=leaky), "the prompt of step 1 holds the whole privileged state"),
    "leak at once": (
        lambda: housed(
            {"tutor": None},
            observe=lambda self: Observation(text=f"Psst! {House.privileged(self).text}"),
            privileged=lambda self: PrivilegedState(text=f"{House.privileged(self).text}\nAnd so on."),
        ),
        "the first prompt says what is privileged: 'The key is in the",
    ),
    "score": (lambda: housed(act=lambda self, action: ACT(self, action)._replace(score=2.0)), "the score 2.0 is not in"),
    "raises": (lambda: housed(privileged=lambda self: {}["key"]), "it can be played.*KeyError"),
    "nonsense": (
        lambda: housed(act=lambda self, action: ACT(self, {}["x"] if "no such" in action else action)),
        "makes no sense is answered.*KeyError",
    ),
    "hopeful": (
        lambda: housed(privileged=lambda self: PrivilegedState(text="", plan=("open door",), hopeless=True)),
        "hopeless and has a plan",
    ),
    "facts": (
        lambda: housed(privileged=lambda self: PrivilegedState(text="", facts={"lock": object()})),
        "it can be played.*serialize",
    ),
    "closing": (lambda: housed(close=closes_once), "closed twice.*no such box"),
    "entities": (lambda: tiny(entities=lambda self, text: text.split()), "names of things are a set.*entities.. gives"),
    "valid": (lambda: tiny(valid=lambda self, action, now: action != "look in hat"), "valid.. refuses 'look in hat'"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_each_break_of_the_contract_is_found(what: str) -> None:
    make, problem = BREAKS[what]
    found = bad(make())
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError("\n".join(found))
    with pytest.raises(ContractError, match="does not keep its contract"):
        check_env(make(), strict=True)


def test_a_tutor_that_says_what_cannot_be_done_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TinyTutor, "correct", lambda *_: Decision(reason="Up.", action="fly"))
    assert any("correct() at 0 says 'fly', which is not valid" in text for text in bad(tiny()))


def test_actions_that_a_grammar_cannot_write_are_found() -> None:
    class FirstLines(FreeText):
        def read(self, completion: str, observation: Observation, *, truncated: bool = False) -> Decision | None:
            read = super().read(completion, observation, truncated=truncated)
            return read and read.model_copy(update={"action": read.action.split("\n")[0]})

    class Wordy(Desk):
        grammar = FirstLines()  # type: ignore[assignment]

    assert any("a student that answers 'one line" not in text and "a student that answers" in text for text in bad(Wordy()))


def test_a_tool_without_a_schema_is_found() -> None:
    class Odd(Desk):
        grammar = ToolCalls([Tool(name="look_up", description="Looks up.", parameters={"type": "nothing"})])

    assert any("its parameters are no JSON schema" in text for text in bad(Odd()))


def test_validate_checks_an_environment_without_plans_and_lists_tasks_that_raise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registered("check-desk")(Desk)
    assert validate_environment("check-desk", [], [], None)["ok"]
    told = capsys.readouterr().out
    assert "4 of 4 tasks have no plan to play" in told
    assert "checks of the environment found what they should" in told
    monkeypatch.setattr(Ticket, "observe", lambda self: {}["mail"])
    assert not validate_environment("check-desk", [], [], 2)["ok"]
    told = capsys.readouterr().out
    assert "KeyError: 'mail'" in told and "environment" in told and told.count("observe") >= 2


def test_a_task_that_is_solved_for_nothing_is_found() -> None:
    world = housed(act=lambda self, action: ACT(self, action)._replace(score=0.0))
    assert any("solved with a score of 0" in text for text in bad(world))


def test_calls_of_every_tool_are_tried_where_nobody_knows_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the least arguments that the schema allows, nested ones too."""
    line = {"type": "object", "properties": {"article": {"type": "string"}, "n": {"type": "integer"}}, "required": ["n"]}
    lines = {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1}
    parameters = {"type": "object", "$defs": {"line": line}, "properties": {"lines": lines}, "required": ["lines"]}
    tools = ToolCalls([Tool(name="order", description="Orders.", parameters=parameters), a_tool("close")])
    taken: list[Any] = []

    async def act(self: Ticket, action: str) -> Outcome:
        taken.append(tools.call(action))
        return Outcome(Observation(text="Noted."))

    monkeypatch.setattr(Ticket, "act", act)
    assert bad(type("Orders", (Desk,), {"grammar": tools})(), tasks=1) == []
    assert taken[:3] == [
        {"name": "order", "arguments": {"lines": [{"n": 0}]}}, {"name": "close", "arguments": {}}, None
    ]


def test_validate_plays_the_plan_where_there_is_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    registered("check-tiny")(TinyWorld)
    assert validate_environment("check-tiny", ["train"], ["tasks=6"], None)["ok"]
    told = capsys.readouterr().out
    assert "the privileged plan solves 6 of 6 tasks" in told and "checks of the environment found what they should" in told
    with monkeypatch.context() as patched:  # its plans are fine, its sessions are not
        calls = itertools.count()
        patched.setattr(House, "act", lambda self, action: ACT(self, action)._replace(reward=next(calls)))
        assert not validate_environment("check-tiny", ["train"], ["tasks=6"], None)["ok"]
        told = capsys.readouterr().out
        assert "solves 6 of 6" in told and "the same action gives another outcome" in told
    monkeypatch.setattr(House, "act", lambda self, action: ACT(self, action)._replace(success=False, score=0.5))
    assert not validate_environment("check-tiny", ["train"], ["tasks=6"], None)["ok"]
    assert "solves 0 of 6" in (told := capsys.readouterr().out) and "does not succeed (score 0.50)" in told
