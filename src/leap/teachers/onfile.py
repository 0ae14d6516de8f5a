"""What a model is asked once about a demonstration and what then stays on file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from leap.core.record import Record
from leap.envs.base import Environment
from leap.files import Journal
from leap.models.base import Model
from leap.teachers.asking import Asker, Asking, Question, UselessAnswers

R = TypeVar("R", bound=Record)
V = TypeVar("V")


class AskedOnce(Generic[R]):
    """Asks a model about demonstrations. What was usable is kept, so that it is never asked for again.

    Args:
        environment: Tells what a text names.
        model: The model to ask.
        journal: Where usable answers are kept.
        asking: How to ask; by default as the model itself says.
        templates: Folder with templates of the user's own.
    """

    def __init__(
        self,
        environment: Environment,
        model: Model,
        journal: Journal[R],
        *,
        asking: Asking | None = None,
        templates: Path | None = None,
    ) -> None:
        self.environment = environment
        self.model = model
        self.templates = templates
        self._journal = journal
        self._asker = Asker(asking or Asking.of(model))
        self._answers = UselessAnswers(model.name)

    async def once(self, request: str, question: Question[V], record: Callable[[dict[int, V]], R]) -> R | None:
        """The record of a request from the file, or else of the model's usable answers; None where there are none.

        Raises:
            LeapError: The budget is spent, or the model never gave anything that can be used.
        """
        known = self._journal.get(request)
        if known is not None:
            return known
        async with self.model.conversation() as conversation:
            answers = await self._asker.asked(conversation, question)
        self._answers.count(bool(answers))
        if not answers:  # nothing is kept, so that another start may try again
            return None
        made = record(answers)
        self._journal.append(made)
        return made
