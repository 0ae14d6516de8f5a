"""The `model` teacher: a language model that sees the student's trajectory and the privileged state (paper, section 3).

Corrections come by trajectory, as in the paper: one call says for every step what to think and do there. What parses is
kept step by step, and only the missing steps are asked for again. Or by step: one call each, which sees nothing later.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from leap.core import Correction, Decision, Episode, PrivilegedState, Rejection
from leap.core.message import Message
from leap.models.base import Completion, Conversation
from leap.teachers.answers import STEP_SCHEMA, StepAnswer, parse_step, parse_trajectory, trajectory_schema
from leap.teachers.asking import Question
from leap.teachers.base import Teacher, TeacherContext
from leap.teachers.config import ModelTeacherConfig
from leap.teachers.hindsight import hindsight
from leap.teachers.prompts import TeacherPrompts

log = logging.getLogger(__name__)


class ModelTeacher(Teacher[ModelTeacherConfig]):
    """Corrects by asking a model. Its sampling must leave room for a whole trajectory's corrections.

    A trajectory longer than the model's limit is asked for in parts, the steps before a part left out, oldest first, as far as
    needed. Where privileged states were extracted from logs, the model is shown those; in hindsight, how the episode ended; and
    the environment's otherwise: by trajectory the state at the beginning, by step the present one.
    """

    Config = ModelTeacherConfig

    def __init__(self, config: ModelTeacherConfig, context: TeacherContext) -> None:
        environment = context.environment
        self._prompts = TeacherPrompts(
            config.privilege, environment.prompts_of, grammar_of=environment.grammar_of, hindsight=config.state == "hindsight"
        )
        self._model = context.open_model(config)
        self.name = self._model.name
        super().__init__(config, context)
        self._asker = self._asking(self._model, config.limit)

    async def correct(self, episode: Episode) -> list[Correction]:
        """A correction for every step of the episode, kept or rejected, each rejection with its reason. A step left as it is gets
        the student's own reason and action."""
        if not episode.steps:
            return []
        async with self._model.conversation() as conversation:
            states = await self._shown(episode)
            if states is None:
                log.warning("task %s: no privileged state was extracted, so its episode is not corrected", episode.task.id)
                states, answers = [None] * len(episode.steps), {}
            else:
                ask = self._by_trajectory if self.config.by == "trajectory" else self._by_step
                answers = await ask(conversation, episode, [state.text for state in states])
        corrections = []
        for t, state in enumerate(states):
            said = answers.get(t)
            said = episode.steps[t] if said and said.leave else said
            decision = Decision(reason=said.reason, action=said.action) if said else None
            rejected = Rejection.TEACHER_ERROR
            corrections.append(await self.verdict.correction(episode, t, decision, state, otherwise=rejected))
        return corrections

    async def _shown(self, episode: Episode) -> list[PrivilegedState] | None:
        extracted = self.context.states
        if self.config.state == "hindsight":
            sibling = (extracted or {}).get(episode.task.key, "")
            text = hindsight(episode, sibling, course=self.config.by == "step")
            return [PrivilegedState(text=text)] * len(episode.steps)
        if extracted is None or self.privilege == 0:
            return await self.states(episode)
        text = extracted.get(episode.task.key)
        return None if text is None else [PrivilegedState(text=text)] * len(episode.steps)

    async def _by_trajectory(
        self, conversation: Conversation, episode: Episode, states: Sequence[str]
    ) -> dict[int, StepAnswer]:
        length = len(episode.steps)

        def prompt(asked: list[int], dropped: int | None) -> list[Message]:
            if dropped is None:
                return self._prompts.trajectory(episode, states[0], None if len(asked) == length else asked)
            return self._prompts.trajectory(episode, states[0], asked, first=dropped, last=asked[-1])

        def read(completion: Completion, asked: list[int]) -> tuple[dict[int, StepAnswer], str]:
            parsed = parse_trajectory(completion.text, asked, length, [step.action for step in episode.steps])
            return parsed.steps, parsed.problem and f"the answer of {self.name} is not complete: {parsed.problem}"

        otherwise = "steps without a correction are rejected"
        question = Question(
            episode.task.id,
            prompt,
            read,
            otherwise,
            schema=trajectory_schema,
            longest="teacher.sampling.max_tokens",
        )
        return await self._asker.ask(conversation, question, range(length))

    async def _by_step(
        self, conversation: Conversation, episode: Episode, states: Sequence[str]
    ) -> dict[int, StepAnswer]:
        def prompt(asked: list[int], dropped: int | None) -> list[Message]:
            return self._prompts.step(episode, asked[0], states[asked[0]], first=dropped or 0)

        def read(completion: Completion, asked: list[int]) -> tuple[dict[int, StepAnswer], str]:
            answer = parse_step(completion.text)
            return ({asked[0]: answer}, "") if answer else ({}, f"the answer of {self.name} cannot be read")

        answers: dict[int, StepAnswer] = {}
        fit, otherwise = self._asker.fit(), "its correction is rejected"
        for t in range(len(states)):
            question = Question(
                episode.task.id,
                prompt,
                read,
                otherwise,
                step=t,
                schema=lambda _: STEP_SCHEMA,
                longest="teacher.sampling.max_tokens",
            )
            answers |= await self._asker.ask(conversation, question, (t,), fit)
        return answers
