"""The trajectories that the page carries: small enough to open at once, with equal texts stored once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from leap.core import Correction, Episode, Step
from leap.envs.base import Environment
from leap.envs.live import states_along
from leap.errors import LeapError
from leap.report.collect import Group
from leap.sync import run_sync

MAX_TEXT = 20_000
"""Characters of one text; what is longer is cut, and says so."""

_log = logging.getLogger(__name__)


class _Texts:
    """Each text once; observations and privileged states repeat themselves from step to step."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self.size = 0
        self._index: dict[str, int] = {}

    def add(self, text: str) -> int:
        if len(text) > MAX_TEXT:
            text = f"{text[:MAX_TEXT]}\n… cut here; {len(text) - MAX_TEXT} characters more are on file."
        if text not in self._index:
            self._index[text] = len(self.all)
            self.all.append(text)
            self.size += len(json.dumps(text, ensure_ascii=False).encode()) + 1
        return self._index[text]


def embed(
    groups: list[Group], environment: Callable[[], Environment], *, budget: int
) -> tuple[dict[str, Any], list[list[str]], list[str]]:
    """Packs episodes for the page, in turn from every group, until they fill the budget.

    Args:
        groups: Episodes in order of preference.
        environment: Makes the environment in which training episodes are replayed for their privileged states; called
            once, and only if there are any. Where it cannot be made ready the states are left out, with a note.
        budget: Bytes, roughly.

    Returns:
        The page's data; for each group the keys of those that got in; notes for people.
    """
    texts, notes = _Texts(), []
    packed: list[list[dict[str, Any]]] = [[] for _ in groups]
    size, full = 0, False
    world: Environment | None = None
    if any(group.episodes and group.shown.role != "test" for group in groups):
        try:
            world = environment()
        except LeapError as error:
            notes.append(f"Privileged states are not shown: {error}")
    for index, group, episode in _in_turn(groups):
        states: list[str] = []
        if world is not None and group.shown.role != "test":
            try:
                states = _privileged(world, episode)
            except Exception as error:  # whatever an environment raises, the page is worth having without the states
                _log.warning("no privileged states of task %s: %s", episode.task.id, error)
                notes.append(f"The privileged states of {episode.task.id} could not be replayed: {error}")
        before = texts.size
        one = _pack(episode, group.corrections.get(episode.key, {}), states, texts)
        size += len(json.dumps(one, ensure_ascii=False)) + texts.size - before
        packed[index].append(one)
        if size > budget:
            full = True
            break
    if full:
        notes.append("Fewer trajectories are shown than usual, to keep the page small.")
    if len(notes) > 5:
        notes = [*notes[:5], f"… and {len(notes) - 5} notes more of the same kind."]
    for episodes in packed:
        episodes.sort(key=lambda one: (one["kind"], one["id"], one["key"]))
    data = {
        "texts": texts.all,
        "groups": [group.shown.model_dump(mode="json", exclude={"keys"}) for group in groups],
        "episodes": [one | {"group": index} for index, episodes in enumerate(packed) for one in episodes],
    }
    return data, [[one["key"] for one in episodes] for episodes in packed], notes


def _in_turn(groups: list[Group]) -> Iterator[tuple[int, Group, Episode]]:
    for rank in range(max((len(group.episodes) for group in groups), default=0)):
        for index, group in enumerate(groups):
            if rank < len(group.episodes):
                yield index, group, group.episodes[rank]


def _privileged(environment: Environment, episode: Episode) -> list[str]:
    return [state.text for state in run_sync(states_along(environment, episode))]


def _pack(episode: Episode, corrections: dict[int, Correction], states: list[str], texts: _Texts) -> dict[str, Any]:
    task = episode.task
    return {
        "key": episode.key,
        "id": task.id,
        "kind": task.kind,
        "split": task.split,
        "task": texts.add(task.instruction),
        "actor": episode.actor.name,
        "i": episode.actor.iteration,
        "seed": episode.seed,
        "horizon": episode.horizon,
        "success": episode.success,
        "score": episode.score,
        "stop": episode.stop.value,
        "error": texts.add(episode.error) if episode.error else None,
        "steps": [
            _step(step, corrections.get(t), states[t] if t < len(states) else None, texts)
            for t, step in enumerate(episode.steps)
        ],
        "final": texts.add(episode.final.text),
    }


def _step(step: Step, correction: Correction | None, state: str | None, texts: _Texts) -> dict[str, Any]:
    packed: dict[str, Any] = {"seen": texts.add(step.observation.text), "action": texts.add(step.action)}
    if step.reason:
        packed["reason"] = texts.add(step.reason)
    if not step.parsed:
        packed["raw"] = texts.add(step.completion)
    if step.observation.admissible is not None and step.action not in step.observation.admissible:
        packed["inadmissible"] = True
    if correction is not None:
        packed["teacher"] = {
            "action": texts.add(correction.action),
            "reason": texts.add(correction.reason),
            "rejected": correction.rejected.value if correction.rejected else None,
            "leaked": list(correction.leaked),
            "left": correction.plan_length,
        }
    if state is not None:
        packed["state"] = [texts.add(line) for line in state.split("\n")]
    return packed
