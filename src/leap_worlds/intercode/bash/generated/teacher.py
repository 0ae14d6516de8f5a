"""The scripted teacher of generated tasks, verified by roll-in as that of InterCode's own.

Its stages are a command that tells what the request does not, and the gold. What the student changed and should not
have is undone before (by `git stash`), and its own slow looks are corrected. What it says is short.

A student that has changed nothing is where it began but for its folder: every program here works on the files that git
sees, so that a proposal's roll-in is made once for all such states of a task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from leap_worlds.intercode.bash import reasons
from leap_worlds.intercode.bash.generated import voice
from leap_worlds.intercode.bash.generated.config import Select
from leap_worlds.intercode.bash.generated.requests import GeneratedTask
from leap_worlds.intercode.bash.quoting import is_submit
from leap_worlds.intercode.bash.sight import is_look
from leap_worlds.intercode.bash.teacher import Advice, Coach, Moment, Stage
from leap_worlds.intercode.bash.world import MALFORMED

if TYPE_CHECKING:
    from leap_worlds.intercode.bash.tasks import BashTask

UNDO_ALL = "git stash -uq"


class GeneratedCoach(Coach):
    """Advises on states of generated tasks. At privilege 1 to 49 it looks around first and lets the student do so."""

    timeless: ClassVar[bool] = True

    def _may_look_around(self, privilege: int) -> bool:
        return privilege < 50

    def _onwards(
        self, moment: Moment, stages: Sequence[Stage], again: Sequence[str], privilege: int, grounded: bool
    ) -> Iterator[Advice]:
        record = self._task(moment)
        undo = Advice("undo", "", UNDO_ALL, tuple(again))
        if moment.parts.extra:
            yield undo
        if privilege < 50 and not any(is_look(action) for action in moment.history.actions):
            yield Advice("around", "", f"ls {record.request.root}", tuple(again))
        command = again[0]
        rule = "again" if moment.stage > 0 and command in moment.history.actions else "plan"
        yield Advice(rule, "", command, tuple(again[1:]))
        if not moment.untouched and not moment.parts.extra:
            yield undo

    def _reason(self, moment: Moment, proposal: Advice) -> str:
        record = self._task(moment)
        match proposal.rule:
            case "around":
                return reasons.look(first=True)
            case "plan" if proposal.action == record.look:
                return voice.look_reason(record.request)
            case "plan":
                return voice.act_reason(record.request)
            case "quotes" if moment.outputs[-1] == MALFORMED:
                return voice.SAYS["malformed"]
        return voice.SAYS[proposal.rule]

    def _run_stages(self, record: BashTask) -> list[Stage]:
        assert isinstance(record, GeneratedTask)
        _, shown = self.worlds.gold_run(record)
        stages = [Stage(record.gold, shown.text)]
        if record.look is not None:
            self._standing = None  # its world is used here
            look = self.worlds.fresh(record, "walk").run_gold(record.look, as_student=True)
            stages.insert(0, Stage(record.look, look.text))
        return stages

    def _reached(self, record: BashTask, actions: Sequence[str], outputs: Sequence[str]) -> int:
        """Also 1 where the file was searched for by its name in another way than the teacher's, and found."""
        assert isinstance(record, GeneratedTask)
        reached = super()._reached(record, actions, outputs)
        if reached or record.request.select is not Select.NAMED:
            return reached
        folder, _, name = record.path.rpartition("/")
        shown = zip((action for action in actions if not is_submit(action)), outputs, strict=False)
        return int(
            any(record.path in output or (folder in action and name in output.split()) for action, output in shown)
        )

    def _trial(self, moment: Moment, actions: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        if not moment.untouched:
            return super()._trial(moment, actions)
        # The look only reads, so that what follows it is worth the same without it.
        looks = len(actions) > 1 and actions[0] == self._task(moment).look
        return moment.cwd, actions[1:] if looks else actions

    def _task(self, moment: Moment) -> GeneratedTask:
        record = self.worlds.record(moment.history.task)
        assert isinstance(record, GeneratedTask)
        return record
