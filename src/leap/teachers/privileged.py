"""Privileged states read by a model from an expert's logs, for worlds that cannot tell their own (paper, appendix:
task, essential objects, critical locations, optimal actions)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from leap.core import Episode, content_key
from leap.core.message import Message
from leap.core.record import Record
from leap.models.base import Completion
from leap.policies.templating import call_macro, load_template
from leap.sync import side_by_side
from leap.teachers.asking import Question
from leap.teachers.onfile import AskedOnce

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


class StateExtractor(AskedOnce[ExtractedState]):
    """Reads privileged states from solved demonstrations, by the template `extract.j2`. A state that names what its log does not
    is not taken."""

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

        await side_by_side((d for d in demonstrations if d.success), one, self.model.concurrency)
        return found

    async def extract(self, demonstration: Episode) -> str | None:
        """The state of one demonstration's task, from the file if it was read before."""
        task, name = demonstration.task, self.model.name
        messages = self._messages(demonstration)
        request = content_key("extraction", self.model.identity, messages)

        def read(completion: Completion, _: list[int]) -> tuple[dict[int, str], str]:
            found = _four_headings(completion.text)
            if completion.truncated or found is None:
                return {}, f"the answer of {name} has not the four headings, or was cut off"
            named_in = self.environment.of(task).entities
            if invented := named_in(found) - named_in(messages[0]["content"]):
                return {}, f"the answer of {name} names what is not in the log: {', '.join(sorted(invented))}"
            return {0: found}, ""

        question = Question(
            what=f"task {task.id}",
            steps=(0,),
            prompt=lambda asked, dropped: messages,
            read=read,
            otherwise="it has no privileged state",
        )
        known = await self.once(
            request, question, lambda texts: ExtractedState(request=request, task=task.key, text=texts[0])
        )
        return known.text if known else None

    def _messages(self, demonstration: Episode) -> list[Message]:
        steps = [{"observation": step.observation.text.strip(), "action": step.action} for step in demonstration.steps]
        task = demonstration.task
        template = load_template("extract.j2", self.templates, self.environment.prompts_of(task), _SHIPPED)
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
