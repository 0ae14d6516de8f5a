"""From corrections to training rows, in TRL's conversational formats: prompt/completion, preference, unpaired preference."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from leap.core import Correction, Decision, Episode, History, PrivilegedState, Step, content_key
from leap.core.message import Message, ToolSpec
from leap.core.record import Record
from leap.envs.grammar import GrammarOf, free_text
from leap.envs.thought import split_thought
from leap.envs.tools import in_words
from leap.errors import ContextTooLong, RunError
from leap.policies.rendering import Renderer, written

log = logging.getLogger(__name__)


class _Example(Record):
    """A training example. A file has nothing of `tools`, which the prompt offers, where there are none, nor of `thinking`, which
    says whether the prompt asks the model to think (`leap.models.base.Request`), where nothing is said of it."""

    tools: list[ToolSpec] = Field(default_factory=list)
    thinking: bool | None = None

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        absent = {"tools": [], "thinking": None}
        return {key: value for key, value in handler(self).items() if key not in absent or value != absent[key]}


class Row(_Example):
    """One training example: TRL reads `prompt` and `completion`; the rest says where it came from.

    Attributes:
        prompt: The messages that the student was shown at that step, from the logged observations and original actions.
        completion: One assistant message: the reason and action to learn.
        episode, t: Key of the episode, and the step in it.
        source: `demonstration` or `correction`.
        iteration: i of D_i.
    """

    prompt: list[Message]
    completion: list[Message]
    episode: str
    t: int
    source: str
    iteration: int

    def texts(self) -> list[str]:
        """All that is said in the row, calls of tools in words."""
        return [message["content"] for message in in_words([*self.prompt, *self.completion], self.tools)]

    @cached_property
    def key(self) -> str:
        """Content key."""
        return content_key("row", self.source, self.episode, self.t, *_told(self.completion[0]))


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a file of JSON lines; none where there is no file. Equal messages are one object: the rows of an episode repeat its
    turns again and again, and tens of thousands of episodes would not fit into memory otherwise.

    Raises:
        RunError: A line is damaged.
    """
    known: dict[tuple[str | None, ...], Message] = {}
    offered: dict[str, list[ToolSpec]] = {}
    lines = path.read_bytes().splitlines() if path.exists() else ()  # of bytes: a text may hold U+2028
    for number, line in enumerate(lines, start=1):
        try:
            row = Row.model_validate_json(line)
        except ValidationError as error:
            raise RunError(f"{path} line {number} is damaged; delete that file to have it made again.") from error
        shared = [known.setdefault((m["role"], m.get("tool_call_id"), *_told(m)), m) for m in row.prompt]
        tools = offered.setdefault(json.dumps(row.tools), row.tools)
        yield row.model_copy(update={"prompt": shared, "tools": tools})


def _told(message: Message) -> tuple[str, ...]:
    """What tells a message from others of its role: its words, and its calls and thoughts if it has any."""
    more = {key: told for key in ("tool_calls", "reasoning_content") if (told := message.get(key))}
    calls = more["tool_calls"] if more.keys() == {"tool_calls"} else more
    return (message["content"], json.dumps(calls, sort_keys=True)) if more else (message["content"],)


class PreferenceRow(_Example):
    """One pair: TRL reads `prompt`, `chosen` and `rejected`; the rest is as in a row.

    Attributes:
        chosen: One assistant message: the corrected reason and action (paper: r~_t, a~_t).
        rejected: One assistant message: what the student answered there itself (r_t, a_t).
    """

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    episode: str
    t: int
    iteration: int

    @cached_property
    def key(self) -> str:
        """Content key."""
        return content_key("preference", self.episode, self.t, *_told(self.chosen[0]))


@dataclass(frozen=True, slots=True)
class Lesson:
    """A step of the student's in iteration i that may be taught.

    Attributes:
        episode, t: Its episode's key, and its number there.
        prompt, privileged: What the student was shown, and the same with the privileged state.
        tools, thinking: As of a `Row`, at the rollout.
        tokens: The student's own answer as sampled; empty where it is not taught.
        corrected: Whether its correction is taught.
        wrong: Whether its action has brought the goal no nearer, by the environment's plan; None where that is not known.
        action, names: The student's own action, and the things that its answer names.
        contrast: The prompt with the privileged state of another task of that type; None where it is not asked for.
    """

    episode: str
    t: int
    prompt: list[Message]
    privileged: list[Message]
    tools: list[ToolSpec]
    thinking: bool | None
    tokens: tuple[int, ...]
    corrected: bool
    wrong: bool | None
    action: str = ""
    names: tuple[str, ...] = ()
    contrast: list[Message] | None = None


PROBED = ("the plan's action", "another optimal one", "a worse one", "one of another state")
"""What a probe asks about, in order."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A step at which it is measured what the privileged state makes likelier.

    Attributes:
        prompt, privileged, tools, thinking: As of a `Lesson`.
        answers: Actions without a reason, as `PROBED` lists them.
    """

    prompt: list[Message]
    privileged: list[Message]
    tools: list[ToolSpec]
    thinking: bool | None
    answers: list[Message]


@dataclass(frozen=True, slots=True)
class Taught:
    """What pi_i is trained on.

    Attributes:
        rows: D_0 u .. u D_i, for their own likelihood.
        lessons: Steps of iteration i; none where the teacher is retired.
        told: What was found out before, for the report.
        probes: Some steps of iteration i.
    """

    rows: Sequence[Row]
    lessons: Sequence[Lesson]
    told: dict[str, object] = field(default_factory=dict)
    probes: Sequence[Probe] = ()


def demonstration_rows(episodes: Iterable[Episode], renderer: Renderer) -> Iterator[Row]:
    """D_0: every step of the expert's episodes that the student could be asked about."""
    too_long = 0
    for episode in episodes:
        for t, step in enumerate(episode.steps):
            try:
                prompt = renderer.render(episode.history(t))
            except ContextTooLong:
                too_long += 1
                continue
            yield _row(episode, t, step, prompt, renderer)
    if too_long:
        log.warning("%d steps of demonstrations are left out: even alone they do not fit into the student's context", too_long)


def correction_rows(
    episodes: Mapping[str, Episode], corrections: Iterable[Correction], renderer: Renderer, *, iteration: int
) -> Iterator[Row]:
    """D_i: every kept correction, its prompt rendered from the student's own states (invariants 2 and 3).

    Args:
        episodes: The corrected episodes by key.
        corrections: Corrections of their steps; rejected ones give no row.
        renderer: The renderer that made the prompts of the rollout.
        iteration: i.
    """
    for correction in corrections:
        if correction.kept:
            episode = episodes[correction.episode]
            prompt = renderer.render(episode.history(correction.t))
            yield _row(episode, correction.t, correction, prompt, renderer, source="correction", iteration=iteration)


def privileged_rows(
    episode: Episode,
    states: Iterable[PrivilegedState],
    render: Callable[[History, PrivilegedState], list[Message]],
    student: Renderer,
) -> Iterator[Row]:
    """The steps of a privileged teacher's episode, the privileged state before each in its prompt. For a student that is to be
    its own teacher; at rollout and evaluation no prompt has a privileged state."""
    for (t, step), state in zip(enumerate(episode.steps), states, strict=True):
        yield _row(episode, t, step, render(episode.history(t), state), student)


def _row(
    episode: Episode,
    t: int,
    said: Step | Correction,
    prompt: list[Message],
    renderer: Renderer,
    *,
    source: str = "demonstration",
    iteration: int = 0,
) -> Row:
    return Row.model_construct(
        prompt=prompt,
        completion=[renderer.answer(Decision(reason=said.reason, action=said.action), episode.task)],
        tools=list(renderer.grammar_of(episode.task).tools),
        thinking=renderer.learns_thoughts,
        episode=episode.key,
        t=t,
        source=source,
        iteration=iteration,
    )


def preference_rows(
    rows: Iterable[Row], episodes: Mapping[str, Episode], grammar_of: GrammarOf = free_text
) -> Iterator[PreferenceRow]:
    """The pairs of D_i: each correction over the student's own answer at that step, word for word where no reason and action
    could be read from it. Where both say the same there is nothing to prefer, and no pair; nor is there for demonstrations.

    Args:
        rows: Rows of D_i.
        episodes: The student's episodes by key.
        grammar_of: Tells the grammar of a task's actions.
    """
    for row in rows:
        if row.source == "correction":
            episode = episodes[row.episode]
            step = episode.steps[row.t]
            rejected: Message = {"role": "assistant", "content": step.completion}
            if step.parsed:
                decision = Decision(reason=step.reason, action=step.action)
                rejected = written(decision, grammar_of(episode.task), thinks=bool(row.thinking))
            elif row.thinking:
                said = split_thought(step.completion)
                rejected = {"role": "assistant", "content": said.answer, "reasoning_content": said.thought}
            if rejected != row.completion[0]:
                yield PreferenceRow.model_construct(
                    prompt=row.prompt,
                    chosen=row.completion,
                    rejected=[rejected],
                    tools=row.tools,
                    thinking=row.thinking,
                    episode=row.episode,
                    t=row.t,
                    iteration=row.iteration,
                )


def unpaired_rows(pairs: Iterable[PreferenceRow]) -> Iterator[dict[str, object]]:
    """The two halves of each pair, as TRL reads them (KTO): `prompt`, `completion` and `label`, whether it is the correction."""
    for pair in pairs:
        shared = pair.model_dump(include={"tools", "prompt"})
        for label, completion in ((True, pair.chosen), (False, pair.rejected)):
            yield shared | {"completion": completion, "label": label}
