"""The `model` teacher: a language model that sees the student's trajectory and the privileged state (paper, section 3).

Corrections come by trajectory, as in the paper: one call says for every step what to think and do there. What parses is
kept step by step, and only the missing steps are asked for again. Or by step: one call each, which sees nothing later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from leap.core import Correction, Decision, Episode, PrivilegedState
from leap.core.message import Length, Message, characters
from leap.envs.base import Environment
from leap.envs.live import states_along
from leap.errors import ContextTooLong, ModelError
from leap.models.base import Completion, Conversation, Model
from leap.policies.shorten import drop_more
from leap.teachers.answers import STEP_SCHEMA, TRAJECTORY_SCHEMA, StepAnswer, parse_step, parse_trajectory
from leap.teachers.asking import ask, request_seed
from leap.teachers.base import OnEpisode, Verdict, correct_all, plan_length
from leap.teachers.prompts import TeacherPrompts

log = logging.getLogger(__name__)


class ModelTeacher:
    """Corrects by asking a model.

    Args:
        environment: Where the episodes were played.
        model: Answers; its sampling must leave room for a whole trajectory's corrections.
        privilege: 0, 25, 50, 75 or 100.
        mode: Ask for whole trajectories, or step by step.
        drop_leaks: Reject corrections whose reason names what the student has not seen.
        verify: Reject corrections after which, by a roll-in, less is in reach than after the student's own action.
        attempts: How often a step is asked for before it is rejected.
        states: Texts of privileged states by task key, as extracted from logs; by default each episode is replayed and
            the environment tells. By trajectory the model sees the state at the beginning, by step the present one.
        templates: Folder with prompt templates of the user's own (`correct.j2`, `teacher.j2`).
        most_candidates: Admissible actions are listed at steps that have at most so many.
        limit: Longest prompt, in the unit of `length`. A longer trajectory is asked for in parts, the steps before a part
            left out, oldest first, as far as needed.
        length: Measures a prompt.
        seed: The recipe's.

    Attributes:
        dropped: Steps left out of prompts so far, over all answered calls.

    Raises:
        RecipeError: There is no prompt for that privilege level.
    """

    def __init__(
        self,
        environment: Environment,
        model: Model,
        privilege: int = 50,
        *,
        mode: Literal["trajectory", "step"] = "trajectory",
        drop_leaks: bool = False,
        verify: bool = False,
        attempts: int = 3,
        states: Mapping[str, str] | None = None,
        templates: Path | None = None,
        most_candidates: int = 100,
        limit: int | None = None,
        length: Length = characters,
        seed: int = 0,
    ) -> None:
        self.name = model.name
        self.privilege = privilege
        self.dropped = 0
        self._environment = environment
        self._model = model
        self._mode = mode
        self._attempts = attempts
        self._states = states
        self._prompts = TeacherPrompts(privilege, templates, environment.prompts_of, most_candidates=most_candidates)
        self._verdict = Verdict(environment, self.name, privilege, drop_leaks=drop_leaks, verify=verify)
        self._limit = limit
        self._length = length
        self._seed = seed

    async def correct(self, episode: Episode) -> list[Correction]:
        """A correction for every step of the episode, kept or rejected, each rejection with its reason.

        A step left as it is gets the student's own reason and action.

        Raises:
            LeapError: The episode cannot be replayed, or the budget is spent.
        """
        if not episode.steps:
            return []
        async with self._model.conversation() as conversation:
            states = await self._privileged(episode)
            if states is None:
                log.warning("task %s: no privileged state was extracted, so its episode is not corrected", episode.task.id)
                return [self._verdict.unanswered(episode, t) for t in range(len(episode.steps))]
            ask = self._by_trajectory if self._mode == "trajectory" else self._by_step
            answers = await ask(conversation, episode, [state.text for state in states])
        corrections = []
        for t, state in enumerate(states):
            left = plan_length(state)
            if (answer := answers.get(t)) is None:
                corrections.append(self._verdict.unanswered(episode, t, left))
            else:
                corrections.append(self._verdict.correction(episode, t, _decision(answer, episode, t), left))
        return corrections

    async def correct_all(
        self, episodes: Iterable[Episode], on_episode: OnEpisode, *, done: Container[str] = frozenset()
    ) -> None:
        """Corrects many episodes at once, bounded by the model's concurrency; see `leap.teachers.base.correct_all`."""
        await correct_all(self, self._model, episodes, on_episode, done=done)

    async def _privileged(self, episode: Episode) -> list[PrivilegedState] | None:
        if self._states is None or self.privilege == 0:
            return await states_along(self._environment, episode)
        text = self._states.get(episode.task.key)
        return None if text is None else [PrivilegedState(text=text)] * len(episode.steps)

    async def _by_trajectory(
        self, conversation: Conversation, episode: Episode, states: Sequence[str]
    ) -> dict[int, StepAnswer]:
        answers: dict[int, StepAnswer] = {}
        asked_so_often = [0] * len(episode.steps)
        call, limit = 0, self._limit
        while True:
            wanted = [t for t in range(len(states)) if t not in answers and asked_so_often[t] < self._attempts]
            if not wanted:
                return answers
            call += 1
            asked, messages = wanted, None
            try:
                messages, asked, dropped = self._fitting(episode, states[0], wanted, limit)
                seed = request_seed(self._seed, messages, call)
                completion = await conversation.complete(messages, seed=seed, schema=TRAJECTORY_SCHEMA)
            except ContextTooLong as error:
                problem = str(error)
                if messages is not None:  # the endpoint's word, whose limit nobody told: less at once
                    limit = self._length(messages) * 9 // 10
                    continue
            except ModelError as error:
                problem = str(error)
            else:
                self.dropped += dropped
                parsed = parse_trajectory(completion.text, asked, len(episode.steps))
                answers |= parsed.steps
                problem = parsed.problem and f"the answer of {self.name} is not complete: {parsed.problem}"
            for t in asked:
                asked_so_often[t] += 1
            self._report(episode, problem, final=any(asked_so_often[t] >= self._attempts for t in asked if t not in answers))

    def _fitting(
        self, episode: Episode, state: str, wanted: list[int], limit: int | None
    ) -> tuple[list[Message], list[int], int]:
        """The prompt for as many of the wanted steps as fit, which these are, and how many before them it leaves out."""
        length = len(episode.steps)
        whole = self._prompts.trajectory(episode, state, None if len(wanted) == length else wanted)
        if self._fits(whole, limit):
            return whole, wanted, 0
        while wanted:

            def prompt(first: int, wanted: list[int] = wanted) -> list[Message]:
                last = wanted[-1] if wanted[-1] < length - 1 else None
                return self._prompts.trajectory(episode, state, wanted, first=first, last=last)

            first = _least(wanted[0], lambda first, prompt=prompt: self._fits(prompt(first), limit))
            if first is not None:
                return prompt(first), wanted, first
            wanted = wanted[: len(wanted) // 2]
        raise ContextTooLong(f"the prompt of task {episode.task.id} does not fit into {limit} even with a single step")

    async def _by_step(
        self, conversation: Conversation, episode: Episode, states: Sequence[str]
    ) -> dict[int, StepAnswer]:
        answers: dict[int, StepAnswer] = {}
        for t, state in enumerate(states):
            answer = await self._step(conversation, episode, t, state)
            if answer is not None:
                answers[t] = answer
        return answers

    async def _step(self, conversation: Conversation, episode: Episode, t: int, state: str) -> StepAnswer | None:
        def prompt(first: int) -> list[Message]:
            return self._prompts.step(episode, t, state, first=first)

        answer, first = None, _least(t, lambda first: self._fits(prompt(first), self._limit))
        if first is None:
            self._report(episode, f"the prompt of step {t} is too long", final=True)
            return None
        left_out = first

        def take(completion: Completion) -> str:
            nonlocal answer
            self.dropped += left_out
            answer = parse_step(completion.text)
            return "" if answer else f"the answer of {self.name} for step {t} cannot be read"

        def shorten() -> bool:
            nonlocal left_out
            more = drop_more(left_out, t)
            left_out = left_out if more is None else more
            return more is not None

        problem = await ask(
            conversation,
            lambda: prompt(left_out),
            take,
            what=f"task {episode.task.id}",
            attempts=self._attempts,
            seed=self._seed,
            schema=STEP_SCHEMA,
            shorten=shorten,
        )
        self._report(episode, problem, final=True)
        return answer

    def _fits(self, messages: Sequence[Message], limit: int | None) -> bool:
        return limit is None or self._length(messages) <= limit

    def _report(self, episode: Episode, problem: str, *, final: bool) -> None:
        if problem:
            level = logging.WARNING if final else logging.INFO
            log.log(level, "task %s: %s%s", episode.task.id, problem, "; these are rejected" if final else "; asking again")


def _decision(answer: StepAnswer, episode: Episode, t: int) -> Decision:
    step = episode.steps[t]
    if answer.leave:
        return Decision(reason=step.reason, action=step.action)
    return Decision(reason=answer.reason, action=answer.action)


def _least(most: int, fits: Callable[[int], bool]) -> int | None:
    """The least number of steps to leave out, up to `most`, with which it fits; None if it never does."""
    if fits(0):
        return 0
    if most == 0 or not fits(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
