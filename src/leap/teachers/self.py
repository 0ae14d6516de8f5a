"""The `self` teacher: the student's own weights, with the privileged state in the prompt (paper, self-improvement).

It acts at each of the student's states as if it were the student and knew the privileged state; what the student itself
thought and did there it is not shown. Step by step: one answer per step, in the student's own form.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from leap.core import Correction, Decision, Episode, History, PrivilegedState, Rejection
from leap.errors import RecipeError
from leap.models.base import Completion, Conversation
from leap.policies.fitting import Fit, without_oldest
from leap.teachers.asking import Question
from leap.teachers.base import Teacher, TeacherContext
from leap.teachers.config import SelfTeacherConfig
from leap.teachers.hindsight import known
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
        self._student = context.student.renderer
        self._renderer = PrivilegedRenderer(self._student, config.privilege)
        self._constrained = context.student.constrained and self._model.constrains
        self._asker = self._asking(self._model)

    async def correct(self, episode: Episode) -> list[Correction]:
        corrections, sibling = [], (self.context.states or {}).get(episode.task.key)
        if self.config.state == "hindsight" and sibling is None:
            return [self.verdict.declined(episode, t) for t in range(len(episode.steps))]
        async with self._model.conversation() as conversation:
            states = await self.states(episode) if sibling is None else [known(sibling)] * len(episode.steps)
            decisions = await self._along(conversation, episode, states, (episode.task.key,))
            for t, (state, decision) in enumerate(zip(states, decisions, strict=True)):
                rejected = Rejection.TEACHER_ERROR
                corrections.append(await self.verdict.correction(episode, t, decision, state, otherwise=rejected))
        return corrections

    async def answers(
        self, episode: Episode, states: Sequence[PrivilegedState], draw: int, hot: float
    ) -> list[Decision | None]:
        """What it would think and do at each step of an episode; None where its answers could not be read.

        Args:
            episode: The student's episode.
            states: The privileged state before each step.
            draw: Which of several answers, each of its own seed.
            hot: At which temperature they are drawn, if it is higher than usual.
        """
        async with self._model.conversation() as conversation:
            return await self._along(conversation, episode, states, (episode.task.key, str(draw)), hot)

    async def _along(
        self,
        conversation: Conversation,
        episode: Episode,
        states: Sequence[PrivilegedState],
        salt: Sequence[str],
        hot: float = 0.0,
    ) -> list[Decision | None]:
        fit = self._asker.fit(self._renderer.grammar_of(episode.task).tools)
        asked = enumerate(states)
        return [await self._decided(conversation, fit, episode.history(t), state, salt, hot) for t, state in asked]

    async def _decided(
        self,
        conversation: Conversation,
        fit: Fit,
        history: History,
        state: PrivilegedState,
        salt: Sequence[str],
        hot: float,
    ) -> Decision | None:
        grammar, t = self._renderer.grammar_of(history.task), len(history.actions)

        def read(completion: Completion, _: list[int]) -> tuple[dict[int, Decision], str]:
            decision = grammar.read(completion.text, history.now, truncated=completion.truncated)
            decision = self._student.decision(decision, completion.thought)
            return ({t: decision}, "") if decision else ({}, "no action can be read from the answer")

        question = Question(
            history.task.id,
            lambda _, dropped: self._renderer.render(without_oldest(history, dropped or 0), state),
            read,
            otherwise="its correction is rejected",
            level=logging.INFO,
            keeps_first=True,
            longest="student.sampling.max_tokens",
            salt=salt,
            hot=hot,
            choices=grammar.choices(history.now) if self._constrained else None,
            tools=grammar.tools,
            step=t,
            thinking=self._student.thinking,
        )
        return (await self._asker.ask(conversation, question, (t,), fit)).get(t)
