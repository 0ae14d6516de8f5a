"""The `self` teacher: the student's own weights, with the privileged state in the prompt (paper, self-improvement).

It acts at each of the student's states as if it were the student and knew the privileged state; what the student itself
thought and did there it is not shown. Step by step: one answer per step, in the student's own form.
"""

from __future__ import annotations

from leap.core import Correction, Decision, Episode, History, PrivilegedState
from leap.core.message import Message
from leap.errors import RecipeError
from leap.models.base import Completion
from leap.policies.fitting import without_oldest
from leap.teachers.asking import Asker, Asking, Question
from leap.teachers.base import Teacher, TeacherContext
from leap.teachers.config import SelfTeacherConfig
from leap.teachers.prompts import PrivilegedRenderer


class SelfTeacher(Teacher[SelfTeacherConfig]):
    """Corrects with the student's own current weights, pi_{i-1}. All episodes at hand go step by step together, so a model in
    this process answers them in batches.

    Raises:
        RecipeError: There is no student.
    """

    Config = SelfTeacherConfig
    name = "self"

    def __init__(self, config: SelfTeacherConfig, context: TeacherContext) -> None:
        super().__init__(config, context)
        if context.student is None:
            raise RecipeError("the self teacher is the student itself, but no student is given")
        self._model = context.student.open()
        self.concurrency, self.waves = self._model.concurrency, self._model.in_process
        self._renderer = PrivilegedRenderer(context.student.renderer, config.privilege)
        self._constrained = context.student.constrained and self._model.constrains
        self._asker = Asker(Asking.of(self._model, attempts=context.attempts, seed=context.seed))

    @property
    def dropped(self) -> int:
        return self._asker.dropped

    async def correct(self, episode: Episode) -> list[Correction]:
        """A correction for every step of the episode, kept or rejected, each rejection with its reason."""
        corrections = []
        async with self._model.conversation() as conversation:
            fit = self._asker.fit(self._renderer.grammar_of(episode.task).tools)
            for t, state in enumerate(await self.states(episode)):
                question = self._question(episode.history(t), t, state)
                decision = (await self._asker.asked(conversation, question, fit)).get(t)
                if decision is None:
                    corrections.append(self.verdict.unanswered(episode, t, state))
                else:
                    corrections.append(await self.verdict.correction(episode, t, decision, state))
        return corrections

    def _question(self, history: History, t: int, state: PrivilegedState) -> Question[Decision]:
        grammar = self._renderer.grammar_of(history.task)

        def prompt(_: list[int], dropped: int | None) -> list[Message]:
            return self._renderer.render(without_oldest(history, dropped or 0), state)

        def read(completion: Completion, _: list[int]) -> tuple[dict[int, Decision], str]:
            decision = grammar.read(completion.text, history.now, truncated=completion.truncated)
            return ({t: decision}, "") if decision else ({}, "no action can be read from the answer")

        return Question(
            what=f"task {history.task.id}, step {t}",
            steps=(t,),
            prompt=prompt,
            read=read,
            droppable=lambda t: max(t - 1, 0),
            choices=grammar.choices(history.now) if self._constrained else None,
            tools=grammar.tools,
            salt=(history.task.key,),
        )
