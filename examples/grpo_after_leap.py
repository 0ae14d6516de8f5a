"""LEAP, then RL: what LEAP taught a student it goes on from by TRL's GRPO, in the same games, which it plays by calls of a tool.

    python examples/grpo_after_leap.py FOLDER --model Qwen/Qwen2.5-0.5B-Instruct --steps 200

TRL's students act by calls of tools. So ALFWorld's actions are calls of one tool here, for LEAP too: `act(command="look")`. The
first prompts of both are the same, token by token. Later ones differ in that LEAP's histories hold what was done alone, and TRL's
also what was said before it. It has been run at tiny size, as a test: that GRPO adds anything is not shown.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import leap
from leap.core import Decision, History, Observation, PrivilegedState, Task
from leap.envs.base import Outcome, Session
from leap.envs.grammar import ToolCalls
from leap.envs.tools import Tool, call_of, canonical_call
from leap.envs.tutor import Expert, Tutor
from leap.interop import trl as games
from leap_worlds.alfworld.env import AlfworldEnvironment, AlfworldSession

NAME = "alfworld-calls"
ACT = Tool(
    name="act",
    description="Takes an action and tells what comes of it.",
    parameters={
        "type": "object",
        "properties": {"command": {"type": "string", "description": "The action."}},
        "required": ["command"],
    },
)


def as_call(command: str) -> str:
    """An action of ALFWorld's as a call."""
    return canonical_call({"name": ACT.name, "arguments": {"command": command}}, ACT) or ""


def as_command(action: str) -> str:
    """What a call takes; what is none is left as it is, and nothing happens then."""
    call = call_of(action)
    return str(call["arguments"].get("command", "")) if call else action


def seen(observation: Observation) -> Observation:
    """An observation with its possible actions as calls."""
    return observation.model_copy(update={"admissible": tuple(map(as_call, observation.admissible or ()))})


class Calls(Session):
    """A game of ALFWorld's by calls."""

    blocking = False

    def __init__(self, game: AlfworldSession) -> None:
        self._game = game

    def observe(self) -> Observation:
        return seen(self._game.observe())

    def act(self, action: str) -> Outcome:
        outcome = self._game.act(as_command(action))
        return outcome._replace(observation=seen(outcome.observation))

    def privileged(self) -> PrivilegedState:
        state = self._game.privileged()
        return state if state.plan is None else state.model_copy(update={"plan": tuple(map(as_call, state.plan))})


class CallsTutor(Tutor["AlfworldCalls"]):
    """ALFWorld's expert and teacher, by calls."""

    def __init__(self, environment: AlfworldCalls) -> None:
        super().__init__(environment)
        self._scripts = AlfworldEnvironment(environment.config).tutor

    def expert(self, task: Task) -> Expert:
        return ByCalls(self._scripts.expert(task))

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        plan = None if privileged.plan is None else tuple(map(as_command, privileged.plan))
        return said(self._scripts.correct(in_commands(history), privileged.model_copy(update={"plan": plan}), privilege))


class ByCalls:
    """An expert whose actions are calls."""

    def __init__(self, expert: Expert) -> None:
        self._expert = expert

    def decide(self, history: History) -> Decision:
        """The expert's decision."""
        decision = said(self._expert.decide(in_commands(history)))
        assert decision is not None
        return decision


def said(decision: Decision | None) -> Decision | None:
    return None if decision is None else Decision(reason=decision.reason, action=as_call(decision.action))


def in_commands(history: History) -> History:
    """A history as ALFWorld's scripts know it."""
    shown = (
        one.model_copy(update={"admissible": tuple(map(as_command, one.admissible or ()))}) for one in history.observations
    )
    return History(task=history.task, observations=tuple(shown), actions=tuple(map(as_command, history.actions)))


@leap.environment(NAME)
class AlfworldCalls(AlfworldEnvironment):
    """ALFWorld by calls of one tool."""

    name = NAME
    grammar = ToolCalls([ACT])

    def start(self, task: Task) -> Calls:  # type: ignore[override]
        return Calls(super().start(task))

    def prompt_directory(self) -> None:  # type: ignore[override]
        """None of ALFWorld's own: they ask for answers in words, and what they say of the rules differs between students."""

    @property
    def tutor(self) -> CallsTutor:  # type: ignore[override]
        return CallsTutor(self)


def taught(model: str, folder: Path, options: dict[str, Any], settings: dict[str, Any]) -> Path:
    """LEAP: an iteration on the teacher's corrections; returns the best student's checkpoint."""
    recipe = {
        "name": "leap-then-grpo",
        "iterations": 1,
        "environment": {"name": NAME, "options": options, "validation": "valid", "test": []},
        "student": {"model": f"hf/{model}", "prompt": {"renderer": "dialogue", "instructions": False, "candidates": False}},
        "teacher": {"kind": "expert", "privilege": 50, "episodes": "all"},
        "training": {"branches": True},
    }
    return leap.run(recipe, run_dir=folder / "leap", set=settings).checkpoint()


def trainer(checkpoint: Path, folder: Path, options: dict[str, Any], **settings: Any) -> Any:
    """GRPO from a checkpoint of LEAP's; `settings` are those of TRL's `GRPOConfig`."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    return GRPOTrainer(
        model=str(checkpoint),
        args=GRPOConfig(output_dir=str(folder / "grpo"), report_to=[], **settings),
        train_dataset=Dataset.from_list(games.rows(NAME, options=options)),
        environment_factory=games.environment(NAME, options=options, candidates=False),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="Qwen/Qwen2.5-0.5B-Instruct", help="Its chat template must know tools.")
    parser.add_argument("--steps", type=int, default=200, help="Of GRPO.")
    given = parser.parse_args()
    options = {"source": "generated", "generator": {"games": {"train": 1000, "valid": 100, "unseen": 100}}}
    checkpoint = taught(given.model, given.folder, options, {})
    grpo = trainer(checkpoint, given.folder, options, max_steps=given.steps, num_generations=8, max_completion_length=4000)
    grpo.train()
    grpo.save_model()


if __name__ == "__main__":
    main()
