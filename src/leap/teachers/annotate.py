"""Reasons for demonstrations that have none, written by a model (paper, line 1 of the algorithm).

One call per demonstration; what parses is kept step by step and only the missing steps are asked for again. A reason may
rest on the past alone: one that names what had not been seen yet is not taken. A demonstration too long for the model is
asked for in parts, each with what came before it, the oldest steps left out as far as needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from leap.core import Episode, Step, content_key
from leap.core.message import Message
from leap.core.record import Record
from leap.envs.base import Environment
from leap.files import Journal
from leap.models.base import Completion, Conversation, Model
from leap.policies.shorten import drop_more
from leap.policies.templating import call_macro, load_template
from leap.sync import side_by_side
from leap.teachers.answers import REASONS_SCHEMA, parse_reasons
from leap.teachers.asking import Patience, ask
from leap.teachers.leakage import leaked_entities

log = logging.getLogger(__name__)

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


class ReasonAnnotator:
    """Writes reasons into demonstrations; each is asked for once and kept on file.

    Args:
        environment: Tells what a reason names.
        model: Writes.
        path: JSONL file of the annotations.
        templates: Folder with a template of the user's own (`annotate.j2`).
        attempts: How often a step is asked for.
        seed: The recipe's.
    """

    def __init__(
        self,
        environment: Environment,
        model: Model,
        path: Path,
        *,
        templates: Path | None = None,
        attempts: int = 3,
        seed: int = 0,
    ) -> None:
        self._environment = environment
        self._model = model
        self._journal = Journal(path, Annotation)
        self._templates = templates
        self._attempts = attempts
        self._seed = seed
        self._patience = Patience(model.name)

    async def annotate_all(self, demonstrations: Iterable[Episode], on_episode: Callable[[Episode], None]) -> None:
        """Annotates many at once, bounded by the model's concurrency; hands each on as soon as it is done.

        Raises:
            LeapError: The budget is spent, or the model never gave a reason that can be used.
        """

        async def one(demonstration: Episode) -> None:
            on_episode(await self.annotate(demonstration))

        await side_by_side(demonstrations, one, self._model.concurrency)

    async def annotate(self, demonstration: Episode) -> Episode:
        """The demonstration with a reason at each step that had none; still without one where none could be had."""
        asked = [t for t, step in enumerate(demonstration.steps) if not step.reason]
        if not asked:
            return demonstration
        request = content_key("annotation", self._model.identity, self._messages(demonstration, asked))
        known = self._journal.get(request)
        if known is None:
            reasons = await self._ask(demonstration, asked)
            self._patience.count(bool(reasons))
            if not reasons:  # nothing to keep, so that another start may try again
                return demonstration
            texts = tuple(reasons.get(t, "") for t in range(len(demonstration.steps)))
            known = Annotation(request=request, episode=demonstration.key, reasons=texts)
            self._journal.append(known)
        steps = tuple(_with_reason(step, new) for step, new in zip(demonstration.steps, known.reasons, strict=True))
        return demonstration.model_copy(update={"steps": steps})

    async def _ask(self, demonstration: Episode, asked: list[int]) -> dict[int, str]:
        reasons: dict[int, str] = {}
        most, rest = len(asked), asked
        async with self._model.conversation() as conversation:
            while rest:
                most, problem = await self._ask_for(conversation, demonstration, rest[:most], reasons)
                rest = rest[most:]
                if problem:
                    log.warning("task %s: %s; these stay without a reason", demonstration.task.id, problem)
        return reasons

    async def _ask_for(
        self, conversation: Conversation, demonstration: Episode, part: list[int], reasons: dict[int, str]
    ) -> tuple[int, str]:
        """Asks for a part of the steps, or for its beginning where it does not fit; of how many, and what is missing."""
        first, whole = 0, len(part)

        def missing() -> list[int]:
            return [t for t in part if t not in reasons]

        def take(completion: Completion) -> str:
            parsed = parse_reasons(completion.text, missing(), len(demonstration.steps))
            for t, reason in parsed.steps.items():
                reason = " ".join(reason.split())
                if reason and not leaked_entities(self._environment, reason, demonstration.history(t)):
                    reasons[t] = reason
            left = len(missing())
            why = parsed.problem or "they are empty or name what was not seen yet"
            return f"{left} reasons are missing: {why}" if left else ""

        def shorten() -> bool:
            nonlocal first, part
            if len(part) > 1:
                part = part[: len(part) // 2]
                return True
            further = drop_more(first, part[0])
            first = further or first
            return further is not None

        problem = await ask(
            conversation,
            lambda: self._messages(demonstration, missing(), first, None if len(part) == whole else part[-1]),
            take,
            what=f"task {demonstration.task.id}",
            attempts=self._attempts,
            seed=self._seed,
            schema=REASONS_SCHEMA,
            shorten=shorten,
        )
        return len(part), problem

    def _messages(
        self, demonstration: Episode, asked: list[int], first: int = 0, last: int | None = None
    ) -> list[Message]:
        """A prompt; the first observation stays, for it describes the world, and steps 1 to `first` are left out."""
        steps: list[dict[str, Any]] = [
            {"t": t, "observation": step.observation.text.strip(), "action": step.action}
            for t, step in enumerate(demonstration.steps[: None if last is None else last + 1])
            if t == 0 or t > first
        ]
        task, everything = demonstration.task, len(asked) == len(demonstration.steps)
        text = call_macro(
            load_template("annotate.j2", self._templates, self._environment.prompts_of(task), _SHIPPED),
            "annotate",
            task=task,
            steps=steps,
            length=len(demonstration.steps),
            asked=None if everything else asked,
        )
        return [{"role": "user", "content": text}]


def _with_reason(step: Step, reason: str) -> Step:
    return step if step.reason or not reason else step.model_copy(update={"reason": reason})
