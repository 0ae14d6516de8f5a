"""The scripted teacher of InterCode Bash: proposes by rule, and keeps what a roll-in shows to help.

At a state of the student's own episode it rebuilds that state in a fresh box (the student's actions so far), tries a
proposal and what should follow it, submits, and reads the reward. Rules, in this order:

1. what was printed last and what changed are right: submit;
2. the working directory does not exist (the `cd X && ...` trap): go back to /;
3. the last command lost its double quotes on the way, or could not be read: the same with single quotes;
4. the files are right but the last output is not, and none is asked for: a command that prints nothing;
5. the next stage of the gold pipeline: the longest one whose output the student has seen, plus one;
6. as 5, behind undoing what the student's earlier commands left or changed.

The first proposal whose roll-in scores 1.0 is taken; where none does, the state is lost, and the best is taken if it
scores more than the student did. The step that lost the state is thereby corrected too: at its state 1.0 was still in
reach. A student's action that brings it on, by the same measure, is left as it is.

The privilege level p in 0..100 says how far the gold command is used:

    0          not at all: the unprivileged expert decides
    1..49      stage by stage, after a look around; and a look at every path that has not been seen or told
    50..99     stage by stage; a look at every path that has not been seen or told
    100        all stages at once; a look at every path that has not been seen or told

so a command that rests on a path which the student cannot know is never proposed before it has been looked for.
Generated tasks have a teacher of their own: `leap_worlds.intercode.bash.generated.teacher`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from leap.core import Decision, Episode, History, Observation
from leap_worlds.intercode.bash import reasons
from leap_worlds.intercode.bash.pipeline import prefixes, single_quoted
from leap_worlds.intercode.bash.quoting import is_submit
from leap_worlds.intercode.bash.reward import PART, Parts
from leap_worlds.intercode.bash.sight import first_look, is_look, look_for
from leap_worlds.intercode.bash.tasks import NOT_REPEATABLE
from leap_worlds.intercode.bash.world import MALFORMED
from leap_worlds.intercode.text import SUBMIT

if TYPE_CHECKING:
    from leap_worlds.intercode.bash.tasks import BashTask
    from leap_worlds.intercode.bash.world import World
    from leap_worlds.intercode.bash.worlds import Worlds

T = TypeVar("T")
_UNKNOWN = object()


class Memory:
    """What all coaches of an environment have found out once and need not again: stages of golds, values of roll-ins,
    advice. The oldest goes where it becomes too much. For any number of threads: two that ask for the same at once both
    find it out.
    """

    def __init__(self, most: int = 16_384) -> None:
        self._known: OrderedDict[tuple[object, ...], Any] = OrderedDict()
        self._most = most

    def get(self, key: tuple[object, ...], find_out: Callable[[], T]) -> T:
        """Returns what is known by a key; finds it out where nothing is."""
        known = self._known.get(key, _UNKNOWN)
        if known is not _UNKNOWN:
            return known
        value = self._known[key] = find_out()
        if len(self._known) > self._most:
            with suppress(KeyError):
                self._known.popitem(last=False)
        return value


@dataclass(frozen=True, slots=True)
class Stage:
    """A beginning of the gold pipeline, and what it prints."""

    command: str
    output: str


@dataclass(frozen=True, slots=True)
class Moment:
    """A state of the student's episode."""

    history: History  # what the student knows
    outputs: tuple[str, ...]  # whole outputs of the actions so far
    parts: Parts  # the reward if it submitted now
    stage: int  # stages of the gold pipeline whose output it has seen
    lost_folder: bool  # whether its working directory does not exist
    cwd: str
    untouched: bool  # whether git sees no change


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice for a state."""

    rule: str  # which rule it comes from
    reason: str
    action: str
    rest: tuple[str, ...] = ()  # what should follow, without submitting
    value: float = 0.0  # the reward that its roll-in got

    @property
    def plan(self) -> tuple[str, ...]:
        """All actions from here to the end."""
        return (self.action,) if self.action == SUBMIT else (self.action, *self.rest, SUBMIT)


class Told(NamedTuple):
    """What is told at a step: its history, the decision (None where nothing helps), the plan (None where none reaches 1.0)."""

    history: History
    decision: Decision | None
    plan: tuple[str, ...] | None


class Coach:
    """Advises on states of an environment's tasks, for one thread at a time. Results are remembered by task and
    actions: a state that is asked for again costs nothing.

    What depends on the kind of tasks is in methods of their own, for a subclass to say otherwise: the stages, how far
    the student has come, what is proposed next and in which words.

    Args:
        worlds: Where it tries things. Closed with the coach.
        memory: What it and other coaches of the same tasks have found out.
    """

    timeless: ClassVar[bool] = False  # whether what is right to do next does not hang on how much time is left

    def __init__(self, worlds: Worlds, memory: Memory) -> None:
        self.worlds = worlds
        self._memory = memory
        self._standing: tuple[str, tuple[str, ...], World, list[str]] | None = None

    # ---- what is asked -------------------------------------------------------------------------------------------------

    def advise(self, history: History, privilege: int, *, left: int | None = None, grounded: bool = True) -> Advice | None:
        """The advice at the present state of a student's history, for someone who would else score 0.

        Args:
            history: The student's own.
            privilege: 1..100.
            left: Actions left; no limit if not given.
            grounded: Look for what was not seen yet before naming it.
        """
        key = ("advice", history.task.key, history.actions, privilege, left, grounded)
        return self._memory.get(key, lambda: self._best(self._walk(history, every=False)[-1], privilege, left, grounded))

    def along(self, episode: Episode, privilege: int) -> list[Told]:
        """What is told at each step of an episode."""
        moments = self._walk(episode.history(len(episode.steps)))
        lefts = [None if self.timeless else episode.horizon - t for t in range(len(moments))]
        best = [self._best(m, privilege, left, True) for m, left in zip(moments, lefts, strict=True)]
        told: list[Told] = []
        for t, step in enumerate(episode.steps):
            history, advice = episode.history(t), best[t]
            if self._brings_on(moments, best, t, step.action, privilege):
                if is_submit(step.action):
                    reason, after = reasons.SUBMIT, None
                else:
                    reason, after = reasons.own(step.action), best[t + 1]
                plan = (step.action, *(after.plan if after else ()))
                told.append(Told(history, Decision(reason=step.reason or reason, action=step.action), plan))
            elif advice is None or (advice.value < 1.0 and advice.value <= episode.score):
                told.append(Told(history, None, None))
            else:
                plan = advice.plan if advice.value == 1.0 else None
                told.append(Told(history, Decision(reason=advice.reason, action=advice.action), plan))
        return told

    def close(self) -> None:
        """Closes its worlds."""
        self._standing = None
        self.worlds.close()

    def worth(self, history: History, action: str, left: int) -> float:
        """The best reward in reach once an action is taken at a history's end with so many left, that one included, by
        the rules at full privilege."""
        if action == "skip":
            return 0.0
        if is_submit(action):
            return self._walk(history, every=False)[-1].parts.total
        shown = self._walk(history, (action,), every=False)[-1].outputs[-1]
        after = history.extend(action, Observation(text=shown))
        advice = self.advise(after, 100, left=left - 1, grounded=False)
        return 0.0 if advice is None else advice.value

    def _brings_on(
        self, moments: Sequence[Moment], best: Sequence[Advice | None], t: int, action: str, privilege: int
    ) -> bool:
        """Whether the student's action is good as it is: 1.0 stays in reach, and it gets nearer or sees more."""
        now = moments[t]
        if is_submit(action):
            return now.parts.solved
        then, after = moments[t + 1], best[t + 1]
        if after is None or after.value < 1.0 or now.parts.solved:
            return False
        new = action not in now.history.actions and not then.lost_folder
        free = self._may_look_around(privilege) and now.stage == 0 and t < 2
        looks = free and is_look(action) and new and not now.lost_folder
        undoes = now.lost_folder and not then.lost_folder
        return then.parts.solved or then.stage > now.stage or looks or undoes

    def _may_look_around(self, privilege: int) -> bool:
        """Whether a look of the student's own is good as it is, though the teacher would not have looked there."""
        return True

    # ---- what the rules propose ----------------------------------------------------------------------------------------

    def _best(self, moment: Moment, privilege: int, left: int | None, grounded: bool) -> Advice | None:
        """The first proposal that reaches 1.0 within the actions left, or the best there is."""
        best: Advice | None = None
        for proposal in self._proposals(moment, privilege, left, grounded):
            if left is not None and len(proposal.plan) > left:
                continue
            value = self._value(moment, proposal)
            if best is None or value > best.value:
                best = replace(proposal, reason=self._reason(moment, proposal), value=value)
            if value == 1.0:
                break
        return best

    def _proposals(self, moment: Moment, privilege: int, left: int | None, grounded: bool) -> Iterator[Advice]:
        if moment.parts.solved:
            yield Advice("submit", reasons.SUBMIT, SUBMIT)
            return
        stages = self.stages(self.worlds.record(moment.history.task))
        again = self._next(stages, moment, privilege, left)
        if moment.lost_folder:
            yield Advice("cd", reasons.LEAVE_LOST_FOLDER, "cd /", tuple(again))
        mended = _mended(moment)
        if mended is not None and self._helps(moment, mended):
            reason = reasons.MEND_MALFORMED if moment.outputs[-1] == MALFORMED else reasons.MEND_QUOTES
            rest = () if self._value(moment, Advice("", "", mended)) == 1.0 else tuple(again)
            yield Advice("quotes", reason, mended, rest)
        if self._only_output_differs(moment) and not stages[-1].output:
            yield Advice("silent", reasons.STAY_SILENT, "true")
        yield from self._onwards(moment, stages, again, privilege, grounded)
        yield Advice("give up", reasons.SUBMIT_AT_LAST if left == 1 else reasons.SUBMIT_LOST, SUBMIT)

    def _onwards(
        self, moment: Moment, stages: Sequence[Stage], again: Sequence[str], privilege: int, grounded: bool
    ) -> Iterator[Advice]:
        """What brings the gold on, where nothing is in the way: the commands `again`, and what may have to come before them."""
        yield from self._staged(moment, stages, again, privilege, grounded)
        if again[0] != stages[-1].command:
            yield from self._staged(moment, stages, [stages[-1].command], privilege, grounded)
        for undo, reason in _undo(moment.parts):
            yield Advice("undo", reason, undo, tuple(again))

    def _reason(self, moment: Moment, proposal: Advice) -> str:
        """Returns the reason that is given for a proposal."""
        return proposal.reason

    def _staged(
        self, moment: Moment, stages: Sequence[Stage], commands: Sequence[str], privilege: int, grounded: bool
    ) -> Iterator[Advice]:
        """The next stage, behind a look where one is due."""
        command, rest = commands[0], tuple(commands[1:])
        history = moment.history
        if grounded:
            look = first_look(history) if privilege < 50 else None
            if look is not None:
                yield Advice("look", reasons.look(first=True), look, tuple(commands))
            look = look_for(command, history)
            if look is not None:
                yield Advice("look", reasons.look(first=False), look, tuple(commands))
                return  # never the command itself before the look
        number = next(i for i, stage in enumerate(stages) if stage.command == command)
        last = number == len(stages) - 1
        if moment.stage == len(stages):
            reason = reasons.AGAIN
        elif last and number > moment.stage:
            reason = reasons.whole(command)
        else:
            reason = reasons.stage(command, number, last)
        yield Advice("stage", reason, command, rest)

    def _next(self, stages: Sequence[Stage], moment: Moment, privilege: int, left: int | None) -> list[str]:
        """Commands of the stages from the next one on; the whole at once at full privilege or where time is short."""
        first = min(moment.stage, len(stages) - 1)
        commands = [stage.command for stage in stages[first:]]
        room = len(commands) if left is None else max(1, left - 1 - moment.lost_folder)
        if privilege >= 100:
            return commands[-1:]
        return commands[-room:]

    def _helps(self, moment: Moment, command: str) -> bool:
        """Whether a mended command shows or does anything of what is wanted."""
        walked = self._walk(moment.history, (command,), every=False)[-1]
        return walked.parts.solved or walked.stage > moment.stage

    def _only_output_differs(self, moment: Moment) -> bool:
        """Whether files had to change, and have. (Where none had to, saying nothing would be no answer.)"""
        if moment.parts.diff != PART or moment.parts.content != PART:
            return False
        record = self.worlds.record(moment.history.task)
        status = self._memory.get(("changes", record.id), lambda: self.worlds.gold_run(record)[0].short_status())
        return bool(status.strip())

    # ---- roll-ins ------------------------------------------------------------------------------------------------------

    def stages(self, record: BashTask) -> list[Stage]:
        """The gold pipeline's beginnings that print something of their own accord, the whole last."""
        return self._memory.get(("stages", record.id), lambda: self._run_stages(record))

    def _run_stages(self, record: BashTask) -> list[Stage]:
        commands, known = prefixes(record.gold), []
        for number, command in enumerate(commands):
            whole = number == len(commands) - 1
            shown = self.worlds.fresh(record, "gold").run_gold(command, as_student=not whole)
            if whole or (shown.readable and shown.text.strip()):  # what shows nothing could never be seen to be done
                known.append(Stage(command, shown.text if shown.readable else ""))
        return known

    def _reached(self, record: BashTask, actions: Sequence[str], outputs: Sequence[str]) -> int:
        """How many of the gold's stages have shown their output: up to the last that did."""
        shown = {output.strip() for output in outputs if output.strip()}
        stages = self.stages(record)
        return max((number + 1 for number, stage in enumerate(stages) if stage.output.strip() in shown), default=0)

    def _walk(self, history: History, more: Iterable[str] = (), *, every: bool = True) -> list[Moment]:
        """The states along a history's actions, from the first (or, if not `every`, only the last) to that behind the last."""
        worlds, record = self.worlds, self.worlds.record(history.task)
        self.stages(record)  # which may need the world that is walked in
        actions = (*history.actions, *more)
        world, outputs, start = self._stand(record, actions, every=every)
        moments = []
        for t in range(start, len(actions) + 1):
            if t > start and not is_submit(actions[t - 1]):
                outputs.append(world.act(actions[t - 1]).text)
            if not every and t < len(actions):
                continue
            known = min(t, len(history.actions))
            here = History.model_construct(
                task=history.task, observations=history.observations[: known + 1], actions=history.actions[:known]
            )
            moments.append(
                Moment(
                    history=here,
                    outputs=tuple(outputs),
                    parts=worlds.judge(world, record),
                    stage=self._reached(record, actions, outputs),
                    lost_folder=world.in_lost_folder(),
                    cwd=world.cwd,
                    untouched=not world.short_status().strip(),
                )
            )
        self._standing = (record.id, actions, world, outputs)
        return moments

    def _stand(self, record: BashTask, actions: tuple[str, ...], *, every: bool) -> tuple[World, list[str], int]:
        """A world along these actions, the outputs so far, and how many were taken: all those that the last walk took,
        if it went the same way and no state on it is asked for."""
        if self._standing is not None and not every:
            task, taken, world, outputs = self._standing
            if task == record.id and actions[: len(taken)] == taken and record.id not in NOT_REPEATABLE:
                return world, outputs, len(taken)
        self._standing = None
        return self.worlds.fresh(record, "walk"), [], 0

    def _value(self, moment: Moment, proposal: Advice) -> float:
        """The reward of the student's actions, the proposal and what should follow it, submitted."""
        if proposal.action == SUBMIT:
            return moment.parts.total
        task = moment.history.task
        folder, actions = self._trial(moment, (proposal.action, *proposal.rest))

        def play() -> float:
            record = self.worlds.record(task)
            world = self.worlds.fresh(record, "roll-in")
            world.cwd = folder
            for action in actions:
                world.act(action)
            return self.worlds.judge(world, record).total

        return self._memory.get(("value", task.key, folder, *actions), play)

    def _trial(self, moment: Moment, actions: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """In which folder of a fresh box a roll-in of actions begins, and all that is done there."""
        return "/", (*moment.history.actions, *actions)


def _mended(moment: Moment) -> str | None:
    """The last command with its quotes mended, if they went wrong."""
    if not moment.history.actions:
        return None
    last = moment.history.actions[-1]
    if moment.outputs and moment.outputs[-1] == MALFORMED and last.count('"') % 2 and last.count("'") % 2 == 0:
        last = last.replace('"', "'") if "'" not in last else last.replace('"', "")
        return last
    mended = single_quoted(last)
    return mended if mended is not None and mended != last else None


def _undo(parts: Parts) -> Iterator[tuple[str, str]]:
    """Commands that take back what the gold does not do, one for what is new and one for what was changed."""
    new = [change.path for change in parts.extra if change.status == "??"] + [change.path for change in parts.unlike]
    changed = [change.path for change in parts.extra if change.status in ("M", "D", "T")]
    remove = f"rm -rf {' '.join(f'/{path}' for path in new)}"
    restore = f"git -C / checkout -- {' '.join(f'/{path}' for path in changed)}"
    if new:
        yield remove, reasons.UNDO_NEW
    if changed:
        yield restore, reasons.UNDO_CHANGE
    if new and changed:
        yield f"{remove}; {restore}", reasons.UNDO_CHANGE
