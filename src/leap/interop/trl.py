"""leap's environments for TRL's GRPO: `environment("alfworld")` is an `environment_factory`, `rows("alfworld")` the data for it.

An action is a call of a tool: of the environment's own tools where it has some, else of `act`. The reward is the episode's score.
What is hidden from the student is not among the tools; a reward function finds it by `environments[i]._privileged()`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from leap.core import PrivilegedState, Task
from leap.envs.base import Environment, listed, load_environment
from leap.envs.tools import Tool
from leap.errors import PrerequisiteError
from leap.interop.games import Dialogue, Game, wait
from leap.policies.templating import call_macro, load_template

OVER = "The episode is over."
_TYPES = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict}
_ACT = Tool(
    name="act",
    description="Takes an action and tells what comes of it.",
    parameters={"type": "object", "properties": {"command": {"type": "string", "description": "The action."}}},
)
"""The tool of an environment that has none."""
_EMPTY = [{"role": "user", "content": ""}]
"""A prompt to which TRL appends what `reset` returns."""


def rows(
    name: str, split: str = "train", *, options: Mapping[str, object] | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """The tasks of a split as rows for `datasets.Dataset.from_list`. All generations of a row play its task."""
    tasks = listed(load_environment(name, options), split, limit=limit)
    return [{"prompt": _EMPTY, "task": task.id} for task in tasks]


def environment(
    name: str,
    split: str = "train",
    *,
    options: Mapping[str, object] | None = None,
    horizon: int = 30,
    candidates: bool = True,
) -> type:
    """A class for `environment_factory`.

    Args:
        name: Registered name of the environment.
        split: The split that the rows are of.
        options: The environment's options, as in a recipe.
        horizon: Most actions of an episode.
        candidates: Whether the possible actions are shown, where they can be listed.
    """
    played = load_environment(name, options)
    tasks = {task.id: task for task in listed(played, split)}

    class LeapGame:
        """An episode at a time."""

        _dialogue: Dialogue | None = None

        def reset(self, task: str, **_: Any) -> str:
            if task not in tasks:
                raise PrerequisiteError(f"a row names the task {task!r}, which split {split!r} of {name} has not.")
            self._close()
            self._dialogue = Dialogue(wait(Game(played, tasks[task]).start()), candidates=candidates, calls=True)
            return f"{_rules(played, tasks[task])}{self._dialogue.message()}"

        def get_reward(self) -> float:
            score = self._dialogue.game.outcome.score if self._dialogue else 0.0
            self._close()
            return score

        def _act(self, action: str) -> str:
            dialogue = self._dialogue
            if dialogue is None or dialogue.game.outcome.done or dialogue.game.steps >= horizon:
                return OVER
            outcome = wait(dialogue.act(action))
            return f"{outcome.observation.text}\n{OVER}".strip() if outcome.done else dialogue.message()

        def _privileged(self) -> PrivilegedState | None:
            return wait(self._dialogue.game.privileged()) if self._dialogue else None

        def _close(self) -> None:
            if self._dialogue:
                wait(self._dialogue.game.close())

    for tool in played.grammar.tools or (_ACT.spec,):
        setattr(LeapGame, tool["function"]["name"], _method(played, Tool.model_validate(dict(tool["function"]))))
    return LeapGame


def _rules(played: Environment, task: Task) -> str:
    folder = played.prompts_of(task)
    if folder is None or not (folder / "rules.j2").is_file():
        return ""
    return call_macro(load_template("rules.j2", folder), "rules", task=task) + "\n\n"


def _method(played: Environment, tool: Tool) -> Callable[..., str]:
    """A method that calls a tool, with the signature and the docstring that transformers makes the tool's schema from."""
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    alone = not played.grammar.tools

    kinds = {name: _TYPES.get(schema.get("type"), str) for name, schema in properties.items()}
    place = inspect.Parameter.POSITIONAL_OR_KEYWORD
    asked = [inspect.Parameter(name, place, annotation=kind) for name, kind in kinds.items()]
    signature = inspect.Signature([inspect.Parameter("self", place), *asked])

    def call(self: Any, *given: Any, **named: Any) -> str:
        arguments = dict(signature.bind(self, *given, **named).arguments)
        del arguments["self"]
        if alone:
            return self._act(str(arguments["command"]))
        return self._act(played.grammar.canonical(json.dumps({"name": tool.name, "arguments": arguments})))

    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__annotations__ = kinds  # without what it returns: schemas, as leap's students are shown them, do not say it
    call.__name__ = call.__qualname__ = tool.name
    told = "\n".join(f"    {name}: {schema.get('description', name)}" for name, schema in properties.items())
    call.__doc__ = f"{tool.description or tool.name}\n\nArgs:\n{told}"
    return call
