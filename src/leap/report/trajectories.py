"""The trajectories that the page carries: small enough to open at once, with equal texts stored once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from itertools import islice

from leap.core import Correction, Episode, Step
from leap.envs.base import Environment
from leap.envs.live import states_along
from leap.errors import LeapError
from leap.report.collect import Group
from leap.report.index import COLUMNS, Taught, in_brief, inadmissible, row
from leap.sync import run_sync

MAX_TEXT = 20_000
"""Characters of one text; what is longer is cut, and says so."""

_log = logging.getLogger(__name__)


Texts = dict[str, int]
"""Each text once, with its place: observations and privileged states repeat themselves from step to step."""


def cut(text: str) -> str:
    """A text of bearable length, which says so where it is cut."""
    more = len(text) - MAX_TEXT
    return f"{text[:MAX_TEXT]}\n… cut here; {more} characters more are on file." if more > 0 else text


def _add(texts: Texts, text: str) -> int:
    return texts.setdefault(cut(text), len(texts))


def _size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def embed(
    groups: list[Group], environment: Callable[[], Environment], *, budget: int
) -> tuple[dict[str, object], list[list[str]], list[str]]:
    """Packs episodes for the page, in turn from every group, until they fill the budget.

    Args:
        groups: Episodes in order of preference.
        environment: Makes the environment in which training episodes are replayed for their privileged states; called
            once, and only if there are any. Where it cannot be made ready the states are left out, with a note.
        budget: Bytes, roughly.

    Returns:
        The page's data; for each group the keys of those that got in; notes for people.
    """
    texts: Texts = {}
    notes, size = [], 0
    packed: list[list[tuple[Episode, dict[str, object]]]] = [[] for _ in groups]
    world: Environment | None = None
    if any(group.episodes and group.shown.role != "test" for group in groups):
        try:
            world = environment()
        except LeapError as error:
            notes.append(f"Privileged states are not shown: {error}")
    turns = sorted((rank, index) for index, group in enumerate(groups) for rank in range(len(group.episodes)))
    for rank, index in turns:
        group, episode = groups[index], groups[index].episodes[rank]
        states: list[str] = []
        if world is not None and group.shown.role != "test":
            try:
                states = [state.text for state in run_sync(states_along(world, episode))]
            except Exception as error:  # whatever an environment raises, the page is worth having without the states
                _log.warning("no privileged states of task %s: %s", episode.task.id, error)
                notes.append(f"The privileged states of {episode.task.id} could not be replayed: {error}")
        known = len(texts)
        packed[index].append((episode, pack(episode, group.corrections.get(episode.key, {}), states, texts)))
        size += _size([packed[index][-1][1], *islice(texts, known, None)])
        if size > budget:
            notes.append("Fewer trajectories are shown than usual, to keep the page small.")
            break
    notes = list(dict.fromkeys(notes))  # the same task may be demonstrated and rolled out
    if len(notes) > 5:
        notes = [*notes[:5], f"… and {len(notes) - 5} notes more of the same kind."]
    for episodes in packed:
        episodes.sort(key=lambda one: (one[0].task.kind, one[0].task.id, one[0].key))
    data = {
        "texts": list(texts),
        "groups": [group.shown.model_dump(mode="json", exclude={"keys"}) for group in groups],
        "episodes": [{**one, "group": index} for index, own in enumerate(packed) for _, one in own],
        "columns": ["group", *COLUMNS],
        "rows": [
            [index, *_row(episode, groups[index].corrections.get(episode.key, {}))]
            for index, own in enumerate(packed)
            for episode, _ in own
        ],
    }
    return data, [[episode.key for episode, _ in own] for own in packed], notes


def _row(episode: Episode, corrections: dict[int, Correction]) -> list[object]:
    one, taught = in_brief(episode), Taught()
    for correction in corrections.values():
        taught.add(correction, one)
    return row(one, taught if corrections else None)


def pack(episode: Episode, corrections: dict[int, Correction], states: Sequence[str], texts: Texts) -> dict[str, object]:
    """An episode for a page, with numbers of texts in place of them."""
    return {
        **episode.task.model_dump(include={"id", "kind", "split"}),
        **episode.model_dump(mode="json", include={"seed", "horizon", "success", "score", "stop"}),
        "key": episode.key,
        "task": _add(texts, episode.task.instruction),
        "actor": episode.actor.name,
        "i": episode.actor.iteration,
        "error": _add(texts, episode.error) if episode.error else None,
        "steps": [
            _step(step, inadmissible(episode, t), corrections.get(t), states[t] if t < len(states) else None, texts)
            for t, step in enumerate(episode.steps)
        ],
        "final": _add(texts, episode.final.text),
    }


def _step(step: Step, odd: bool, correction: Correction | None, state: str | None, texts: Texts) -> dict[str, object]:
    packed: dict[str, object] = {"seen": _add(texts, step.observation.text), "action": _add(texts, step.action)}
    if step.reason:
        packed["reason"] = _add(texts, step.reason)
    if not step.parsed:
        packed["raw"] = _add(texts, step.completion)
    if odd:
        packed["inadmissible"] = True
    if correction is not None:
        gain = {} if correction.measured is None else {"gain": correction.measured.gain}
        packed["teacher"] = {
            **gain,
            "action": _add(texts, correction.action),
            "reason": _add(texts, correction.reason),
            "rejected": correction.rejected,
            "leaked": list(correction.leaked),
            "left": correction.plan_length,
        }
    if state is not None:
        packed["state"] = [_add(texts, line) for line in state.split("\n")]
    return packed
