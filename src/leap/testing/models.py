"""A model that says what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from leap.models.base import Completion, Model, Request, Schema

Answer = str | Exception | Completion


class Scripted(Model):
    """Answers each prompt by a function of its text and of how many calls there were before.

    Args:
        answer: Makes an answer (a text, a `Completion`, or an exception to raise) of a prompt's text and the call's number.
        concurrency: As of any model: calls that may be under way at once.
        pause: Seconds that each call takes.

    Attributes:
        answer: As given; a test may replace it.
        prompts, seeds, schemas: What each call was given; `requests`: the whole of it.
        most_at_once: Most calls that were under way at once.
    """

    def __init__(self, answer: Callable[[str, int], Answer], *, concurrency: int = 4, pause: float = 0.0) -> None:
        self.name = "scripted/one"
        self.concurrency = concurrency
        self.requests: list[Request] = []
        self.prompts: list[str] = []
        self.seeds: list[int] = []
        self.schemas: list[Schema | None] = []
        self.most_at_once = 0
        self.answer = answer
        self._pause = pause
        self._at_once = 0

    async def complete(self, request: Request) -> Completion:
        text = "\n".join(message["content"] for message in request.messages)
        call = len(self.prompts)
        self.requests.append(request)
        self.prompts.append(text)
        self.seeds.append(request.seed)
        self.schemas.append(request.schema)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(self._pause)
        self._at_once -= 1
        answer = self.answer(text, call)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Completion) else Completion(answer, len(text), len(answer))
