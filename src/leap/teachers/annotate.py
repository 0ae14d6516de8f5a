"""Reasons for demonstrations that have none, written by a model (paper, line 1 of the algorithm).

One call per demonstration; what parses is kept step by step and only the missing steps are asked for again. A reason may
rest on the past alone: one that names what had not been seen yet is not taken. A demonstration too long for the model is
asked for in parts, each with what came before it, the oldest steps left out as far as needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from leap.core import Episode, Step, content_key
from leap.core.message import Message
from leap.core.record import Record
from leap.models.base import Completion
from leap.policies.templating import call_macro, load_template
from leap.sync import side_by_side
from leap.teachers.answers import REASONS_SCHEMA, parse_reasons
from leap.teachers.asking import Question
from leap.teachers.leakage import leaked_entities
from leap.teachers.onfile import AskedOnce

_SHIPPED = Path(__file__).parent / "templates"


class Annotation(Record):
    """Reasons for a demonstration.

    Attributes:
        request: Content key of what was asked: model and first prompt.
        episode: Key of the demonstration.
        reasons: One per step; empty where none could be had, or where the demonstration has its own.
    """

    request: str
    episode: str
    reasons: tuple[str, ...]

    @cached_property
    def key(self) -> str:
        """Content key."""
        return self.request


class ReasonAnnotator(AskedOnce[Annotation]):
    """Writes reasons into demonstrations, by the template `annotate.j2`."""

    async def annotate_all(self, demonstrations: Iterable[Episode], on_episode: Callable[[Episode], None]) -> None:
        """Annotates many at once, bounded by the model's concurrency; hands each on as soon as it is done.

        Raises:
            LeapError: The budget is spent, or the model never gave a reason that can be used.
        """

        async def one(demonstration: Episode) -> None:
            on_episode(await self.annotate(demonstration))

        await side_by_side(demonstrations, one, self.model.concurrency)

    async def annotate(self, demonstration: Episode) -> Episode:
        """The demonstration with a reason at each step that had none; still without one where none could be had."""
        length = len(demonstration.steps)
        bare = [t for t, step in enumerate(demonstration.steps) if not step.reason]
        if not bare:
            return demonstration
        request = content_key("annotation", self.model.identity, self._messages(demonstration, bare, None))

        def read(completion: Completion, asked: list[int]) -> tuple[dict[int, str], str]:
            parsed = parse_reasons(completion.text, asked, length)
            reasons = {t: " ".join(reason.split()) for t, reason in parsed.steps.items()}
            usable = {
                t: reason
                for t, reason in reasons.items()
                if reason and not leaked_entities(self.environment, reason, demonstration.history(t))
            }
            left = len(asked) - len(usable)
            why = parsed.problem or "they are empty or name what was not seen yet"
            return usable, f"{left} reasons are missing: {why}" if left else ""

        def record(reasons: dict[int, str]) -> Annotation:
            texts = tuple(reasons.get(t, "") for t in range(length))
            return Annotation(request=request, episode=demonstration.key, reasons=texts)

        question = Question(
            what=f"task {demonstration.task.id}",
            steps=bare,
            prompt=lambda asked, dropped: self._messages(demonstration, asked, dropped),
            read=read,
            otherwise="these stay without a reason",
            droppable=lambda t: max(t - 1, 0),
            schema=REASONS_SCHEMA,
        )
        known = await self.once(request, question, record)
        if known is None:
            return demonstration
        steps = tuple(_with_reason(step, new) for step, new in zip(demonstration.steps, known.reasons, strict=True))
        return demonstration.model_copy(update={"steps": steps})

    def _messages(self, demonstration: Episode, asked: list[int], dropped: int | None) -> list[Message]:
        """The prompt for the reasons asked for. Of a part, what follows it is left out, and the oldest steps, but the first
        observation stays, for it describes the world."""
        last = None if dropped is None else asked[-1]
        steps: list[dict[str, Any]] = [
            {"t": t, "observation": step.observation.text.strip(), "action": step.action}
            for t, step in enumerate(demonstration.steps[: None if last is None else last + 1])
            if t == 0 or t > (dropped or 0)
        ]
        task, everything = demonstration.task, len(asked) == len(demonstration.steps)
        text = call_macro(
            load_template("annotate.j2", self.templates, self.environment.prompts_of(task), _SHIPPED),
            "annotate",
            task=task,
            steps=steps,
            length=len(demonstration.steps),
            asked=None if everything else asked,
        )
        return [{"role": "user", "content": text}]


def _with_reason(step: Step, reason: str) -> Step:
    return step if step.reason or not reason else step.model_copy(update={"reason": reason})
