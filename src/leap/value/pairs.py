"""Pairs for preference tuning without a teacher: of several answers at one history, the best by a value model over the worst."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

from leap.core import Decision, Episode, History, content_key
from leap.core.record import Record
from leap.datasets import PreferenceRow
from leap.errors import ContextTooLong
from leap.policies.base import Policy
from leap.policies.rendering import Renderer
from leap.value.labels import draw


class Preferred(Record):
    """The best and the worst answer drawn at a step, and by how much the one has more value."""

    t: int
    chosen: Decision
    rejected: Decision
    gain: float


class Compared(Record):
    """What was drawn for an episode; steps at which all answers take one action are left out."""

    episode: str
    settings: str
    steps: tuple[Preferred, ...]

    @cached_property
    def key(self) -> str:
        """Content key of the piece of work."""
        return compared_key(self.episode, self.settings)


def compared_key(episode: str, settings: str) -> str:
    """The key that an episode's answers will have."""
    return content_key("compared", episode, settings)


async def compare(
    episodes: Sequence[Episode],
    policy: Policy,
    score: Callable[[History, Sequence[Decision]], Sequence[float]],
    *,
    answers: int,
    seed: int,
    settings: str,
) -> list[Compared]:
    """Draws answers at every step of some episodes and compares them.

    Args:
        episodes: The episodes.
        policy: Who answers.
        score: The values of the actions of decisions at a history.
        answers: How many are drawn at each step.
        seed: The recipe's.
        settings: Key of all that this depends on beside the episode.
    """
    usable = [one for one in episodes if not one.stop.untold]
    asked = [(one, t, number) for one in usable for t in range(len(one.steps)) for number in range(answers)]
    drawn = await draw(policy, asked, seed)
    made = []
    for episode in episodes:
        steps = []
        for t in range(len(episode.steps)):
            found: dict[str, Decision] = {}
            for number in range(answers):
                if decision := drawn.get((episode.key, t, number)):
                    found.setdefault(decision.action, decision)
            if len(found) > 1 and (one := _preferred(episode.history(t), [*found.values()], score)):
                steps.append(one)
        made.append(Compared(episode=episode.key, settings=settings, steps=tuple(steps)))
    return made


def _preferred(
    history: History, decisions: Sequence[Decision], score: Callable[[History, Sequence[Decision]], Sequence[float]]
) -> Preferred | None:
    try:
        scores = score(history, decisions)
    except ContextTooLong:
        return None
    best, worst = (pick(range(len(scores)), key=scores.__getitem__) for pick in (max, min))
    gain = scores[best] - scores[worst]
    return Preferred(t=len(history.actions), chosen=decisions[best], rejected=decisions[worst], gain=gain)


def value_rows(
    compared: Sequence[Compared], episodes: Mapping[str, Episode], renderer: Renderer, *, iteration: int, margin: float
) -> Iterator[PreferenceRow]:
    """The pairs of D_i: complete answers whose values differ by a margin at least, at histories that fit."""
    for made in compared:
        episode = episodes[made.episode]
        for one in made.steps:
            if one.gain < margin:
                continue
            try:
                prompt = renderer.render(episode.history(one.t))
            except ContextTooLong:
                continue
            yield PreferenceRow.model_construct(
                prompt=prompt,
                chosen=[renderer.answer(one.chosen, episode.task)],
                rejected=[renderer.answer(one.rejected, episode.task)],
                tools=list(renderer.grammar_of(episode.task).tools),
                thinking=renderer.learns_thoughts,
                episode=episode.key,
                t=one.t,
                iteration=iteration,
            )
