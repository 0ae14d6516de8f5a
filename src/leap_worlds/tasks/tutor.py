"""The scripted teacher of task folders: the reference solution, command by command, where it is a list of commands.

What it proposes at a student's own state is tried there (a roll-in): the student's actions in a fresh box, the rest of the
solution, the tests. Where the student left the solution's way, it is not known how much of it is done: handing in is tried first,
then the solution from the next command on, from the one after it, from the last one, from the first. The first of these that
passes is taken; where none does, the best, if more tests pass by it than by what the student did itself. The states behind such
a one are taken for as lost. Commands that only read are left out of what is tried, so that most states of a task are tried once.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from leap.core import Decision, Episode, History, PrivilegedState
from leap.envs.live import called
from leap.envs.tools import call_of
from leap.envs.tutor import Taught, Tutor
from leap_worlds.intercode.text import paths_in
from leap_worlds.tasks.folder import Phase, TaskFolder
from leap_worlds.tasks.format import SOLUTION
from leap_worlds.tasks.state import in_words, step

if TYPE_CHECKING:
    from leap_worlds.tasks.env import TasksEnvironment  # noqa: F401 - the tutor's environment
    from leap_worlds.tasks.session import States

SUBMIT = "submit"
_READS = re.compile(r"\s*(?:ls|cat|head|tail|wc|grep|pwd|stat|du|find)\b[^;&<>$`(){}\\\n|]*")
_FINDS_AND_DOES = re.compile(r"\s-(?:delete|exec|ok|f?print0?f|fls|fprint)")
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


def is_submission(action: str, actions: str) -> bool:
    """Whether an action hands the work in."""
    if actions == "text":
        return action.strip() == SUBMIT
    call = call_of(action)
    return call is not None and call["name"] == SUBMIT


def only_reads(action: str, actions: str) -> bool:
    """Whether an action plainly changes nothing: a pipeline of programs that read, without anything else in it."""
    command = action
    if actions != "text":
        call = call_of(action)
        if call is None or call["name"] != "bash":
            return call is not None and call["name"] == "read_file"
        command = str(call["arguments"].get("command", ""))
    return all(_READS.fullmatch(part) and not _FINDS_AND_DOES.search(part) for part in command.split("|"))


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
    files = phase.solution_files
    if phase.script is None or not phase.script.strip():
        return None
    if phase.commands:
        return [action_of(command.text, actions) for command in phase.commands]
    if sum(path.stat().st_size for path in files) > _MOST:
        return None
    lines = [f"mkdir -p {SOLUTION}"]
    for path in files:
        assert phase.solution is not None
        place = f"{SOLUTION}/{path.relative_to(phase.solution).as_posix()}"
        lines.append(
            f"mkdir -p \"$(dirname '{place}')\" && base64 -d > '{place}' <<'END'\n{_coded(path.read_bytes())}\nEND"
        )
    return [action_of("\n".join(lines), actions), action_of(f"bash {SOLUTION}/solve.sh", actions)]


def _coded(content: bytes) -> str:
    return base64.encodebytes(content).decode().strip()


class Way(NamedTuple):
    """The best way from a state: what it comes to (`TasksEnvironment.reached`), and its actions."""

    worth: tuple[float, int]
    plan: tuple[str, ...]

    @property
    def passes(self) -> bool:
        """Whether it solves the task."""
        return self.worth[0] == 1.0


class TaskTutor(Tutor["TasksEnvironment"]):
    """Says what is best next by the reference solution, at any privilege above 0. It has no expert: without the solution nothing
    is known."""

    blocking: ClassVar[bool] = True

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        """The first action of the best way; None where the solution is no list of commands or no way passes, and at 0."""
        folder = self.environment.folder(history.task)
        if privilege == 0 or not self._at(folder, history.actions)[0].commands:
            return None
        with closing(self.environment.states(folder)) as states:
            way = self._best(folder, history.actions, states)
        return self._said(folder, history, way) if way.passes else None

    async def correct_along(self, episode: Episode, privilege: int) -> list[Taught]:
        """As `correct`, but an action of the student's that leaves less to do, and names nothing that it has not seen, stays; and
        where no way passes any more the best is said, if it is better than how the episode ended."""
        return await called(self._along, episode, privilege, blocking=True)

    def _along(self, episode: Episode, privilege: int) -> list[Taught]:
        folder, steps = self.environment.folder(episode.task), episode.steps
        histories = [episode.history(t) for t in range(len(steps))]
        ways: list[Way | None] = [None] * len(steps)
        with closing(self.environment.states(folder)) as states:
            for t, history in enumerate(histories):
                if privilege and self._at(folder, history.actions)[0].commands:
                    way = ways[t] = self._best(folder, history.actions, states)
                    if not way.passes:
                        break
        lost = False
        told = []
        for history, own, way, after in zip(histories, steps, ways, [*ways[1:], None], strict=True):
            passes, decision = way is not None and way.passes, None
            lost = lost or (way is not None and not passes)
            if way and (passes or way.worth > self._reached(folder, tuple(step.action for step in steps))):
                decision = self._said(folder, history, way)
                nearer = passes and after and after.passes and len(after.plan) < len(way.plan)
                if nearer and own.action != decision.action and _names_what_was_seen(own.action, history):
                    decision = Decision(reason=own.reason or decision.reason, action=own.action)
            told.append(
                Taught(
                    history,
                    PrivilegedState(
                        text=in_words(self._at(folder, history.actions)[0], None, self.environment.config.tells),
                        plan=way.plan if way and passes else None,
                        hopeless=lost,
                    ),
                    decision,
                )
            )
        return told

    async def roll_in(self, history: History, action: str, left: int) -> float:
        """What is in reach once an action is taken: by the best way of the reference solution that there is time for."""
        return await called(self._worth, history, action, left, blocking=True)

    def _worth(self, history: History, action: str, left: int) -> float:
        options, folder, taken = self.environment.config, self.environment.folder(history.task), (*history.actions, action)
        if left > 1:
            with closing(self.environment.states(folder)) as states:
                return self._best(folder, taken, states, left - 1).worth[0]
        handed_in = is_submission(action, options.actions) or options.turns is not None
        return self._reached(folder, taken)[0] if handed_in else 0.0

    def _reached(
        self, folder: TaskFolder, taken: Sequence[str], then: Sequence[str] = (), states: States | None = None
    ) -> tuple[float, int]:
        options = self.environment.config

        def acts(actions: Sequence[str]) -> tuple[str, ...]:
            every = options.turns is not None  # then one that reads ends the episode as well
            return tuple(action for action in actions if every or not only_reads(action, options.actions))

        return self.environment.reached(folder.id, acts(taken), acts(then), states)

    def _at(self, folder: TaskFolder, taken: Sequence[str]) -> tuple[Phase, Sequence[Phase], list[str]]:
        """The phase at hand after some actions, those behind it, and which of the actions were taken in it."""
        number, mine = 0, list[str]()
        for action in taken:
            ends = is_submission(action, self.environment.config.actions) and number + 1 < len(folder.phases)
            number, mine = (number + 1, []) if ends else (number, [*mine, action])
        return folder.phases[number], folder.phases[number + 1 :], mine

    def _best(self, folder: TaskFolder, taken: tuple[str, ...], states: States, most: int | None = None) -> Way:
        """The first way of at most so many actions that passes, or the best there is."""
        actions = self.environment.config.actions
        phase, later, mine = self._at(folder, taken)
        whole, own = plan_of(phase, later, (), actions), _actions_of(phase, actions) or []
        if whole is None:
            whole = (submission(actions),)
        at, end = _taken(own, mine), len(own)
        order = [end, at, at + 1, at - 1, 0] if mine != own[:at] else [at, end, at + 1, at - 1, 0]
        best: Way | None = None
        for start in dict.fromkeys(number for number in order if 0 <= number <= end):
            plan = whole[start:]
            if most is not None and len(plan) > most:
                continue
            way = Way(self._reached(folder, taken, plan, states), plan)
            if best is None or way.worth > best.worth:
                best = way
            if way.passes:
                break
        return best or Way((0.0, 0), (submission(actions),))

    def _said(self, folder: TaskFolder, history: History, way: Way) -> Decision:
        """The first action of a way, and why: the comment above the command."""
        actions, action = self.environment.config.actions, way.plan[0]
        commands = self._at(folder, history.actions)[0].commands
        command = next((each for each in commands if action_of(each.text, actions) == action), None)
        if command is not None:
            words = step(command)
            return Decision(reason=f"Next I {words[:1].lower()}{words[1:].rstrip('.')}.", action=action)
        reason = "All that the task asks for is done" if way.passes else "More would only do harm"
        return Decision(reason=f"{reason}, so I hand it in.", action=action)


def _names_what_was_seen(action: str, history: History) -> bool:
    """Whether each path in an action, or its folder and its name, was told or shown before."""
    texts = (history.task.instruction, *history.actions, *(observation.text for observation in history.observations))
    seen = set().union(*map(paths_in, texts))
    return all(path in seen or {*path.rpartition("/")[::2]} <= seen for path in paths_in(action))
