"""The scripted teacher of task folders: the reference solution, command by command, where it is a list of commands."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from leap.core import Decision, History, PrivilegedState
from leap.envs.tutor import Tutor
from leap_worlds.tasks.folder import Phase
from leap_worlds.tasks.format import SOLUTION
from leap_worlds.tasks.script import Command, unrolled
from leap_worlds.tasks.state import solve_script, step

if TYPE_CHECKING:
    from leap_worlds.tasks.env import TasksEnvironment  # noqa: F401 - the tutor's environment

SUBMIT = "submit"
_MOST = 200_000
"""Bytes of a solution that a plan may hold."""


def action_of(command: str, actions: str) -> str:
    """A command as an action: a call of the tool, or the text itself."""
    if actions == "text":
        return command
    return json.dumps({"name": "bash", "arguments": {"command": command}}, ensure_ascii=False)


def submission(actions: str) -> str:
    """The action that hands the work in."""
    return SUBMIT if actions == "text" else json.dumps({"name": SUBMIT, "arguments": {}})


def plan_of(phase: Phase, later: Sequence[Phase], done: Sequence[str], actions: str) -> tuple[str, ...] | None:
    """The actions that are left of the reference solutions: of the phase at hand without those that were taken already, in order,
    and of the later ones. None where one has no solution that can be told."""
    plan: list[str] = []
    for number, each in enumerate((phase, *later)):
        whole = _actions_of(each, actions)
        if whole is None:
            return None
        taken = _taken(whole, done) if number == 0 else 0
        plan += [*whole[taken:], submission(actions)]
    return tuple(plan)


def _taken(whole: Sequence[str], done: Sequence[str]) -> int:
    """How many of the first actions of a list were taken in that order, with others between them or not."""
    number = 0
    for action in done:
        if number < len(whole) and action == whole[number]:
            number += 1
    return number


def _actions_of(phase: Phase, actions: str) -> list[str] | None:
    script = solve_script(phase)
    if script is None or phase.solution is None or not script.strip():
        return None
    commands = unrolled(script)
    files = [path for path in sorted(phase.solution.rglob("*")) if path.is_file()]
    if commands is not None and len(files) == 1:
        return [action_of(command.text, actions) for command in commands]
    if sum(path.stat().st_size for path in files) > _MOST:
        return None
    lines = [f"mkdir -p {SOLUTION}"]
    for path in files:
        place = f"{SOLUTION}/{path.relative_to(phase.solution).as_posix()}"
        lines.append(
            f"mkdir -p \"$(dirname '{place}')\" && base64 -d > '{place}' <<'END'\n{_coded(path.read_bytes())}\nEND"
        )
    return [action_of("\n".join(lines), actions), action_of(f"bash {SOLUTION}/solve.sh", actions)]


def _coded(content: bytes) -> str:
    return base64.encodebytes(content).decode().strip()


class TaskTutor(Tutor["TasksEnvironment"]):
    """Says the next command of the reference solution. It has no expert: nothing is known without the solution."""

    blocking: ClassVar[bool] = True

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        """The first command of the solution that was not run yet; None where the solution is no list of commands, and at 0."""
        script = privileged.facts.get("script")
        if (
            privilege == 0
            or not privileged.plan
            or not isinstance(script, str)
            or (commands := unrolled(script)) is None
        ):
            return None
        action = privileged.plan[0]
        options = self.environment.config
        found = next((command for command in commands if action_of(command.text, options.actions) == action), None)
        if found is None and action != submission(options.actions):
            return None
        return Decision(reason=_reason(found), action=action)


def _reason(command: Command | None) -> str:
    if command is None:
        return "All that the task asks for is done, so I hand it in."
    words = step(command)
    return f"Next I {words[:1].lower()}{words[1:].rstrip('.')}."
