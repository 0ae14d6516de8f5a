"""Privileged states read by a model from an expert's logs, for worlds that cannot tell their own (paper, appendix:
task, essential objects, critical locations, optimal actions)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from leap.core import Episode, content_key
from leap.core.message import Message
from leap.core.record import Record
from leap.envs.base import Environment
from leap.files import Journal
from leap.models.base import Completion, Model
from leap.policies.templating import call_macro, load_template
from leap.sync import side_by_side
from leap.teachers.asking import Patience, ask

log = logging.getLogger(__name__)

HEADINGS = ("Task", "Essential objects", "Critical locations", "Optimal actions")
_SHIPPED = Path(__file__).parent / "templates"


class ExtractedState(Record):
    """The privileged state of a task, as a model read it from a log.

    Attributes:
        request: Content key of what was asked: model and prompt.
        task: Key of the task.
        text: The four headings, each with its contents.
    """

    request: str
    task: str
    text: str

    @cached_property
    def key(self) -> str:
        """Content key."""
        return self.request


class StateExtractor:
    """Reads privileged states from solved demonstrations; each is asked for once and kept on file.

    Args:
        environment: Tells which names occur in a log: a state that names others is not taken.
        model: Reads.
        path: JSONL file of the states.
        templates: Folder with a template of the user's own (`extract.j2`).
        attempts: How often a state is asked for.
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
        self._journal = Journal(path, ExtractedState)
        self._templates = templates
        self._attempts = attempts
        self._seed = seed
        self._patience = Patience(model.name)

    async def extract_all(self, demonstrations: Iterable[Episode]) -> dict[str, str]:
        """The states' texts by task key. Tasks without a solved demonstration, or of which the model gave no usable state,
        are not in it.

        Raises:
            LeapError: The budget is spent, or the model never gave a state that can be used.
        """
        found: dict[str, str] = {}

        async def one(demonstration: Episode) -> None:
            text = await self.extract(demonstration)
            if text is not None:
                found[demonstration.task.key] = text

        await side_by_side((d for d in demonstrations if d.success), one, self._model.concurrency)
        return found

    async def extract(self, demonstration: Episode) -> str | None:
        """The state of one demonstration's task, from the file if it was read before."""
        messages = self._messages(demonstration)
        request = content_key("extraction", self._model.identity, messages)
        if (known := self._journal.get(request)) is not None:
            return known.text
        text: str | None = None

        def take(completion: Completion) -> str:
            nonlocal text
            found = _four_headings(completion.text)
            if completion.truncated or found is None:
                return f"the answer of {self._model.name} has not the four headings, or was cut off"
            named_in = self._environment.of(demonstration.task).entities
            if invented := named_in(found) - named_in(messages[0]["content"]):
                return f"the answer of {self._model.name} names what is not in the log: {', '.join(sorted(invented))}"
            text = found
            return ""

        what = f"task {demonstration.task.id}"
        async with self._model.conversation() as conversation:
            problem = await ask(
                conversation, lambda: messages, take, what=what, attempts=self._attempts, seed=self._seed
            )
        self._patience.count(text is not None)
        if text is None:
            log.warning("%s: no privileged state: %s", what, problem)
            return None
        self._journal.append(ExtractedState(request=request, task=demonstration.task.key, text=text))
        return text

    def _messages(self, demonstration: Episode) -> list[Message]:
        steps = [{"observation": step.observation.text.strip(), "action": step.action} for step in demonstration.steps]
        task = demonstration.task
        template = load_template("extract.j2", self._templates, self._environment.prompts_of(task), _SHIPPED)
        text = call_macro(template, "extract", task=task, steps=steps, final=demonstration.final.text.strip())
        return [{"role": "user", "content": text}]


def _four_headings(text: str) -> str | None:
    """The four parts in order, without what stands around them; None where one is missing or empty."""
    text = re.sub(r"(?is)^\s*<think>.*?</think>", "", text)
    either = "|".join(HEADINGS)
    found: dict[str, str] = {}
    pattern = rf"(?ims)^[ \t*#_-]*({either})[ \t*_]*:[ \t*_]*(.*?)(?=^[ \t*#_-]*(?:{either})[ \t*_]*:|^\s*```|\n\s*\n|\Z)"
    for part in re.finditer(pattern, text):
        heading = part.group(1).capitalize()
        if heading in found:
            return None
        found[heading] = " ".join(part.group(2).split())
    if tuple(found) != HEADINGS or not all(found.values()):
        return None
    return "\n".join(f"{heading}: {contents}" for heading, contents in found.items())
