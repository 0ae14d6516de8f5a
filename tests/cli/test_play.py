"""A person plays: by number, by text, several lines, calls of tools; what costs a step and what does not."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import pytest
from rich.console import Console

from leap.cli.play import Played, find_task, play
from leap.core import Observation, PrivilegedState, Task
from leap.envs.base import Environment, Outcome, Session
from leap.envs.grammar import FreeText, Grammar, ToolCalls
from leap.envs.tools import Tool
from leap.errors import PrerequisiteError
from leap.sync import run_sync
from leap.testing.corridor import EAST, STAY, WEST, Corridor, CorridorConfig


def session(environment: Environment, answers: Sequence[str], task: Task | None = None) -> tuple[Played, str]:
    """A person's answers, after which there are no more, and what the console shows."""
    screen, replies = io.StringIO(), iter(answers)

    def ask(_: str) -> str:
        try:
            return next(replies)
        except StopIteration:
            raise EOFError from None

    console = Console(file=screen, width=200)
    played = run_sync(play(environment, task or environment.tasks("train")[0], console, ask))
    return played, screen.getvalue()


class Echo(Environment):
    """Free text; "done" solves it. What was done is kept."""

    name = "echo"
    tools: tuple[Tool, ...] = ()

    @property
    def grammar(self) -> Grammar:
        return ToolCalls(self.tools) if self.tools else FreeText()

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        return [Task(env=self.name, split=split, id=f"{split}/{n}", instruction="say it") for n in range(3)]

    def start(self, task: Task) -> Session:
        return EchoSession(self)


class EchoSession(Session):
    def __init__(self, world: Echo) -> None:
        world.said = self.said = []  # type: ignore[attr-defined]

    async def observe(self) -> Observation:
        return Observation(text="[bold]say[/] \x1b[2J it")

    async def act(self, action: str) -> Outcome:
        self.said.append(action)
        done = action == "done"
        return Outcome(Observation(text=f"heard {action}"), done=done, success=done, score=0.5, parts={"in_time": 0.25})

    def privileged(self) -> PrivilegedState | None:
        return None

    def explain(self) -> list[tuple[str, str, str]]:
        return [("words", str(len(self.said)), "so many")] if "explain" in self.said else []


def test_actions_by_number_by_text_and_whatever_comes_of_them() -> None:
    played, screen = session(Corridor(), ["1", "GO EAST", " go east "])
    assert played.outcome is not None and played.outcome.success and played.steps == 3
    assert "1 go east" in screen and "> go east" in screen and "solved: 3 steps" in screen and "score 1.00" in screen


@pytest.mark.parametrize("word", ["help", ":help", ":h", "?", ":hint", ":score", "fly", "99", "9" * 5000, "", "  ", ":nonsense"])
def test_what_is_no_action_costs_no_step_and_says_so(word: str) -> None:
    played, screen = session(Corridor(), [word, "q"])
    assert played.steps == 0 and played.outcome is None
    assert word.strip() == "" or len(screen) > len(session(Corridor(), ["q"])[1]), "nothing is ignored in silence"


def test_what_is_not_on_offer_is_taken_when_asked_for() -> None:
    played, screen = session(Corridor(), ["fly", "!fly", "!help"])
    assert played.steps == 2 and "fly is not on offer here" in screen and "> fly" in screen and "given up" in screen


def test_the_privileged_state_on_request() -> None:
    played, screen = session(Corridor(), ["?", WEST, ":hint", "go west", "?", STAY])
    assert (played.hints, played.steps) == (3, 3)
    assert "hint: go east (3 steps to go)" in screen and "4 steps to the goal" in screen
    assert "3 hints" in screen and "the plan at the start took 3" in screen and "lamp 7" in screen


def test_free_text_of_several_lines_is_one_action_and_bare_words_are_no_commands() -> None:
    world = Echo()
    text = ["<<END", "def f():", "", "    return 1", "END", "q", "?", "99", ":wq", "!help", "explain", ":score", "done"]
    played, screen = session(world, text)
    assert world.said == ["def f():\n\n    return 1", "q", "?", "99", ":wq", "help", "explain", "done"]
    assert played.outcome is not None and played.outcome.success and played.steps == 8
    assert "so many" in screen and "[bold]say[/] \N{REPLACEMENT CHARACTER}[2J it" in screen and "\x1b" not in screen
    _, screen = session(world, ["a", ":q"])
    assert "in time" in screen and "0.25" in screen and "score 0.50" in screen


def test_an_unfinished_action_of_several_lines_is_given_up() -> None:
    world = Echo()
    played, _ = session(world, ["<<END", "half"])
    assert played.steps == 0 and world.said == []


def test_tools_are_called_by_name_or_by_json() -> None:
    world = Echo()
    order = {"type": "object", "properties": {"number": {"type": "string"}, "days": {"type": "integer"}}}
    world.tools = (Tool(name="look_up", description="Finds an order.", parameters=order), Tool(name="close"))
    calls = ["look_up days=3 number=17", 'look_up "number=a b"', '{"name": "close", "arguments": {}}', "close", "look_up 17"]
    played, screen = session(world, [*calls, "look_up 'a"])
    assert [json.loads(said) for said in world.said] == [
        {"name": "look_up", "arguments": {"number": "17", "days": 3}},
        {"name": "look_up", "arguments": {"number": "a b"}},
        {"name": "close", "arguments": {}},
        {"name": "close", "arguments": {}},
    ]
    assert all(world.grammar.valid(said, Observation(text="")) for said in world.said)
    assert "look_up number=... days=...  Finds an order." in screen
    assert "17 is not of the form KEY=VALUE" in screen and "cannot be read" in screen and played.steps == 4


def test_an_alphabetical_list_counts_as_people_do() -> None:
    world = Corridor(CorridorConfig(offers=("go to bed 1", "go to bed 10", "go to bed 2")))
    _, screen = session(world, ["2"])
    assert "2 go to bed 2" in screen and "> go to bed 2" in screen
    _, screen = session(Corridor(CorridorConfig(offers=(STAY, EAST))), ["1"])
    assert "> stay here" in screen, "another order is the world's own"


def test_a_task_by_id_or_number() -> None:
    world = Corridor()
    assert find_task(world, "train/2").id == "train/2" and find_task(world, "1").id == "train/1"
    assert find_task(world, "seen/1", "seen").split == "seen"
    for wanted in ("4", "9" * 5000, "nothing"):
        with pytest.raises(PrerequisiteError, match="4, numbered from 0, for example train/0"):
            find_task(world, wanted)
