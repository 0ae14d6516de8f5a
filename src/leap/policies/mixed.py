"""DAgger's mixture of expert and learner, pi_i = beta_i pi* + (1 - beta_i) pi^_i (Ross, Gordon & Bagnell 2011, section 3)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from leap.core import Actor, History, content_key
from leap.policies.base import Act, Deciding, Peek, Player, Policy


class MixedPolicy:
    """A student in whose place a teacher acts at some steps, each drawn by itself: the paper's analysis needs that, too.

    Steps of the teacher's have no completion on record. The student's prompts hold actions alone, so that it goes on from
    the teacher's as if they were its own.

    Args:
        student: Acts otherwise.
        teacher: Acts with probability beta; may read the privileged state.
        beta: The probability, 0..1.
        actor: Who both are together, for the record.
    """

    privileged = True  # the teacher is; the student is never handed the privileged state

    def __init__(self, student: Policy, teacher: Policy, beta: float, actor: Actor) -> None:
        if student.privileged:
            raise ValueError("a student may not see the privileged state")
        self.actor = actor
        self.concurrency = student.concurrency
        self.waves = student.waves
        self._student, self._teacher, self._beta = student, teacher, beta

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        async with self._student.playing(seed, None) as student, self._teacher.playing(seed, peek) as teacher:

            async def decide(history: History) -> Act:
                # Of the step, not of a stream: a step that is tried again is drawn alike.
                draw = random.Random(content_key(seed, "who acts", len(history.actions))).random()
                return await (teacher if draw < self._beta else student).decide(history)

            yield Deciding(decide)
