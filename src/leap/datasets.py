"""From corrections to training rows, in TRL's conversational prompt/completion format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from leap.core import Correction, Decision, Episode, content_key
from leap.core.record import Record
from leap.policies.answer import format_answer
from leap.policies.rendering import Message, Renderer


class Row(Record):
    """One training example: TRL reads `prompt` and `completion`; the rest says where it came from.

    Attributes:
        prompt: The messages that the student was shown at that step, from the logged observations and original actions.
        completion: One assistant message: the reason and action to learn.
        episode: Key of the episode.
        t: Step in it.
        source: `demonstration` or `correction`.
        iteration: i of D_i.
    """

    prompt: list[Message]
    completion: list[Message]
    episode: str
    t: int
    source: str
    iteration: int

    @cached_property
    def key(self) -> str:
        """Content key."""
        return content_key("row", self.source, self.episode, self.t, self.completion[0]["content"])


def demonstration_rows(episodes: Iterable[Episode], renderer: Renderer) -> Iterator[Row]:
    """D_0: every step of the expert's episodes."""
    for episode in episodes:
        for t, step in enumerate(episode.steps):
            decision = Decision(reason=step.reason, action=step.action)
            yield _row(episode, t, decision, renderer, source="demonstration", iteration=0)


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
            decision = Decision(reason=correction.reason, action=correction.action)
            episode = episodes[correction.episode]
            yield _row(episode, correction.t, decision, renderer, source="correction", iteration=iteration)


def _row(
    episode: Episode, t: int, decision: Decision, renderer: Renderer, *, source: str, iteration: int
) -> Row:
    return Row.model_construct(
        prompt=renderer.render(episode.history(t)),
        completion=[{"role": "assistant", "content": format_answer(decision)}],
        episode=episode.key,
        t=t,
        source=source,
        iteration=iteration,
    )
