"""The `self` teacher: the student's own weights, with the privileged state in the prompt (paper, self-improvement).

It acts at each of the student's states as if it were the student and knew the privileged state; what the student itself
thought and did there it is not shown. Step by step: one answer per step, in the student's own form.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable
from functools import partial

from leap.core import Correction, Decision, Episode, History, PrivilegedState
from leap.core.message import Length, Message, characters, with_tools
from leap.envs.base import Environment
from leap.envs.live import states_along
from leap.errors import ModelError
from leap.models.base import Completion, Conversation, Model
from leap.policies.shorten import ask_fitting
from leap.teachers.asking import request_seed
from leap.teachers.base import OnEpisode, Verdict, correct_all, plan_length
from leap.teachers.prompts import PrivilegedRenderer

log = logging.getLogger(__name__)


class SelfTeacher:
    """Corrects with the student's own current weights.

    Args:
        environment: Where the episodes were played.
        model: pi_{i-1}. All episodes at hand go step by step together, so an in-process model answers them in batches.
        renderer: The student's prompt with the privileged state behind it.
        drop_leaks: Reject corrections whose reason names what the student has not seen.
        verify: Reject corrections after which, by a roll-in, less is in reach than after the student's own action.
        attempts: How often a step is asked for before it is rejected.
        constrained: Only admissible actions can be generated, where the environment lists them and the model can.
        limit: Longest prompt, in the unit of `length`; the oldest steps are left out of longer ones.
        length: Measures a prompt.
        seed: The recipe's.

    Attributes:
        dropped: Steps left out of prompts so far, over all answered calls.
    """

    name = "self"

    def __init__(
        self,
        environment: Environment,
        model: Model,
        renderer: PrivilegedRenderer,
        *,
        drop_leaks: bool = False,
        verify: bool = False,
        attempts: int = 3,
        constrained: bool = False,
        limit: int | None = None,
        length: Length = characters,
        seed: int = 0,
    ) -> None:
        self.privilege = renderer.privilege
        self.dropped = 0
        self._environment = environment
        self._model = model
        self._renderer = renderer
        self._verdict = Verdict(environment, self.name, self.privilege, drop_leaks=drop_leaks, verify=verify)
        self._attempts = attempts
        self._constrained = constrained and model.constrains
        self._limit = limit
        self._length = length
        self._seed = seed

    async def correct(self, episode: Episode) -> list[Correction]:
        """A correction for every step of the episode, kept or rejected, each rejection with its reason.

        Raises:
            LeapError: The episode cannot be replayed.
        """
        corrections = []
        async with self._model.conversation() as conversation:
            for t, state in enumerate(await states_along(self._environment, episode)):
                decision, left = await self._decide(conversation, episode.history(t), state), plan_length(state)
                if decision is None:
                    corrections.append(self._verdict.unanswered(episode, t, left))
                else:
                    corrections.append(self._verdict.correction(episode, t, decision, left))
        return corrections

    async def correct_all(
        self, episodes: Iterable[Episode], on_episode: OnEpisode, *, done: Container[str] = frozenset()
    ) -> None:
        """Corrects many episodes at once, bounded by the model's concurrency; see `leap.teachers.base.correct_all`."""
        await correct_all(self, self._model, episodes, on_episode, done=done)

    async def _decide(
        self, conversation: Conversation, history: History, state: PrivilegedState
    ) -> Decision | None:
        problem, grammar = "", self._environment.grammar_of(history.task)
        length = with_tools(self._length, grammar.tools)

        def render(shown: History) -> list[Message]:
            return self._renderer.render(shown, state)

        async def ask(messages: list[Message], attempt: int) -> Completion:
            return await conversation.complete(
                messages,
                seed=request_seed(self._seed, history.task.key, messages, attempt),
                choices=grammar.choices(history.now) if self._constrained else None,
                tools=grammar.tools,
            )

        for attempt in range(1, self._attempts + 1):
            try:
                asking = partial(ask, attempt=attempt)
                completion, dropped = await ask_fitting(asking, render, history, self._limit, length)
                self.dropped += dropped
            except ModelError as error:
                problem = str(error)
                continue
            decision = grammar.read(completion.text, history.now, truncated=completion.truncated)
            if decision is not None:
                return decision
            problem = "no action can be read from the answer"
        log.info("task %s, step %d: %s", history.task.id, len(history.actions), problem)
        return None
