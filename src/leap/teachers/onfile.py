"""What a model is asked once about a demonstration and what then stays on file: reasons (paper, line 1 of the algorithm) and
privileged states (paper, appendix: task, essential objects, critical locations, optimal actions)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from leap.core import Episode, Task, content_key
from leap.core.message import Message
from leap.core.record import Record
from leap.envs.base import Environment
from leap.envs.thought import split_thought
from leap.files import Journal
from leap.models.base import Completion, Model
from leap.models.breaker import CircuitBreaker
from leap.policies.templating import call_macro, load_template
from leap.sync import side_by_side
from leap.teachers.answers import parse_reasons, reasons_schema
from leap.teachers.asking import Asker, Question, failed_calls
from leap.teachers.verdict import leaked_entities

HEADINGS = ("Task", "Essential objects", "Critical locations", "Optimal actions")
_SHIPPED = Path(__file__).parent / "templates"


class Kept(Record):
    """What a model said of a demonstration; `request` is the content key of what was asked: model and first prompt."""

    request: str

    @cached_property
    def key(self) -> str:
        """Content key."""
        return self.request


class Annotation(Kept):
    """Reasons for the demonstration of a key, one per step; empty where none could be had, or where it has its own."""

    episode: str
    reasons: tuple[str, ...]


class ExtractedState(Kept):
    """The privileged state of the task of a key, as a model read it from a log: four headings, each with its contents."""

    task: str
    text: str


K = TypeVar("K", bound=Kept)
V = TypeVar("V")


class AskedOnce(Generic[K]):
    """Asks a model about demonstrations. What was usable is kept, so that it is never asked for again.

    Its methods raise a `LeapError` where the budget is spent, or where the model never gives anything that can be used.

    Args:
        environment: Tells what a text names.
        model: The model to ask.
        journal: Where usable answers are kept.
        limit, seed: As of `Asker`.

    Attributes:
        lost: What failed calls said, of each demonstration that has no whole answer for them. Nothing of it is kept.
    """

    def __init__(
        self, environment: Environment, model: Model, journal: Journal[K], *, limit: int | None = None, seed: int = 0
    ) -> None:
        self.environment = environment
        self.model = model
        self._journal = journal
        self._asker = Asker(model, limit=limit, seed=seed)
        self._breaker = CircuitBreaker(model.name)
        self.lost: list[str] = []

    async def _once(
        self, request: str, question: Question[V], steps: Sequence[int], record: Callable[[dict[int, V]], K]
    ) -> K | None:
        """The record of a request from the file, or else of the model's usable answers; None where there are none."""
        known = self._journal.get(request)
        if known is not None:
            return known
        async with self.model.conversation() as conversation:
            with failed_calls() as failed:
                answers = await self._asker.ask(conversation, question, steps)
        self.lost += failed[-1:]
        self._breaker.count(failed[-1] if failed else "", useful=bool(answers))
        made = record(answers) if answers else None
        if made is not None and not failed:  # else nothing is kept, so that another start may try again
            self._journal.append(made)
        return made

    def _rendered(self, macro: str, task: Task, **values: object) -> list[Message]:
        """A prompt from the template of the macro's name."""
        template = load_template(f"{macro}.j2", self.environment.prompts_of(task), _SHIPPED)
        return [{"role": "user", "content": call_macro(template, macro, task=task, **values)}]


class ReasonAnnotator(AskedOnce[Annotation]):
    """Writes reasons into demonstrations, by the template `annotate.j2`.

    One call per demonstration; what parses is kept step by step and only the missing steps are asked for again. A reason may
    rest on the past alone: one that names what had not been seen yet is not taken. A demonstration too long for the model is
    asked for in parts, each with what came before it, the oldest steps left out as far as needed.

    Args:
        replace: Whether the reasons that a demonstration has are left out and written anew.
        *args, **more: As of `AskedOnce`.
    """

    def __init__(self, *args: Any, replace: bool = False, **more: Any) -> None:
        super().__init__(*args, **more)
        self.replace = replace

    async def annotate_all(self, demonstrations: Iterable[Episode], on_episode: Callable[[Episode], None]) -> None:
        """Annotates many at once, bounded by the model's concurrency; hands each on as soon as it is done."""

        async def one(demonstration: Episode) -> None:
            on_episode(await self.annotate(demonstration))

        await side_by_side(demonstrations, one, self.model.concurrency)

    async def annotate(self, demonstration: Episode) -> Episode:
        """The demonstration with a reason at each step that had none; still without one where none could be had."""
        if self.replace:
            bare_steps = tuple(step.model_copy(update={"reason": ""}) for step in demonstration.steps)
            demonstration = demonstration.model_copy(update={"steps": bare_steps})
        steps = demonstration.steps
        bare = [t for t, step in enumerate(steps) if not step.reason]
        if not bare:
            return demonstration
        request = content_key("annotation", self.model.identity, self._messages(demonstration, bare, None))

        def read(completion: Completion, asked: list[int]) -> tuple[dict[int, str], str]:
            parsed = parse_reasons(completion.text, asked, len(steps))
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
            texts = tuple(reasons.get(t, "") for t in range(len(steps)))
            return Annotation(request=request, episode=demonstration.key, reasons=texts)

        question = Question(
            demonstration.task.id,
            lambda asked, dropped: self._messages(demonstration, asked, dropped),
            read,
            "these stay without a reason",
            keeps_first=True,
            schema=reasons_schema,
            longest="demonstrations.annotate.sampling.max_tokens",
        )
        known = await self._once(request, question, bare, record)
        if known is None:
            return demonstration
        told = [
            step if step.reason or not new else step.model_copy(update={"reason": new})
            for step, new in zip(steps, known.reasons, strict=True)
        ]
        return demonstration.model_copy(update={"steps": tuple(told)})

    def _messages(self, demonstration: Episode, asked: list[int], dropped: int | None) -> list[Message]:
        """The prompt for the reasons asked for. Of a part, what follows it is left out, and the oldest steps, but the first
        observation stays, for it describes the world."""
        length = len(demonstration.steps)
        last = length - 1 if dropped is None else asked[-1]
        steps = [
            {"t": t, "observation": step.observation.text.strip(), "action": step.action}
            for t, step in enumerate(demonstration.steps[: last + 1])
            if t == 0 or t > (dropped or 0)
        ]
        some = None if len(asked) == length else asked
        return self._rendered("annotate", demonstration.task, steps=steps, length=length, asked=some)


class StateExtractor(AskedOnce[ExtractedState]):
    """Reads privileged states from solved demonstrations, by the template `extract.j2`, for worlds that cannot tell their own. A
    state that names what its log does not is not taken."""

    async def extract_all(self, demonstrations: Iterable[Episode]) -> dict[str, str]:
        """The states' texts by task key. Tasks without a solved demonstration, or of which the model gave no usable state,
        are not in it."""
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
        steps = [{"observation": step.observation.text.strip(), "action": step.action} for step in demonstration.steps]
        messages = self._rendered("extract", task, steps=steps, final=demonstration.final.text.strip())
        request = content_key("extraction", self.model.identity, messages)

        def read(completion: Completion, _: list[int]) -> tuple[dict[int, str], str]:
            found = _four_headings(completion.text)
            if completion.truncated or found is None:
                return {}, f"the answer of {name} has not the four headings, or was cut off"
            named_in = self.environment.of(task).entities
            if invented := named_in(found) - named_in(messages[0]["content"]):
                return {}, f"the answer of {name} names what is not in the log: {', '.join(sorted(invented))}"
            return {0: found}, ""

        def record(texts: dict[int, str]) -> ExtractedState:
            return ExtractedState(request=request, task=task.key, text=texts[0])

        question = Question(
            task.id,
            lambda *_: messages,
            read,
            "it has no privileged state",
            longest="teacher.sampling.max_tokens",
        )
        known = await self._once(request, question, (0,), record)
        return known.text if known else None


_HEADING = "|".join(HEADINGS)
_PART = re.compile(
    rf"(?ims)^[ \t*#_-]*({_HEADING})[ \t*_]*:[ \t*_]*(.*?)"
    rf"(?=^[ \t*#_-]*(?:{_HEADING})[ \t*_]*:|^[^\S\n]*+```|\n[^\S\n]*+\n|\Z)"
)


def _four_headings(text: str) -> str | None:
    """The four parts in order, without what stands around them; None where one is missing, empty or there twice."""
    found = _PART.findall(split_thought(text).answer)
    parts = [(heading.capitalize(), " ".join(contents.split())) for heading, contents in found]
    if tuple(heading for heading, _ in parts) != HEADINGS or not all(contents for _, contents in parts):
        return None
    return "\n".join(f"{heading}: {contents}" for heading, contents in parts)
