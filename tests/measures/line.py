"""Walks in a corridor whose goal is three steps to the east, with a cliff two steps to the west; corrections that say "east"."""

from __future__ import annotations

from collections.abc import Sequence

from leap.core import Actor, Correction, Episode, Rejection, StopReason
from leap.envs.base import opened
from leap.testing.corridor import EAST, STAY, WEST, Corridor, CorridorConfig
from leap.testing.play import walked

LINE = Corridor(CorridorConfig(offers=(WEST, STAY)))
"""The action that helps is not on offer at once, so that a reason which names it tells something."""


def play(
    moves: str,
    *,
    number: int = 0,
    split: str = "valid",
    horizon: int = 6,
    iteration: int = 0,
    stop: StopReason | None = None,
) -> Episode:
    """What comes of moves: e, w, s."""
    actions = [{"e": EAST, "w": WEST, "s": STAY}[move] for move in moves]
    actor = Actor(name="student", iteration=iteration)
    return walked(LINE, LINE.task(split, number), actions, actor=actor, horizon=horizon, stop=stop)


def correct(episode: Episode, reasons: Sequence[str] = ()) -> list[Correction]:
    """Go east, always; hopeless at the foot of the cliff."""
    found = []
    with opened(LINE, episode.task) as session:
        states = [(session.privileged(), session.act(step.action))[0] for step in episode.steps]
    for t, state in enumerate(states):
        plan = state.plan
        reason = reasons[t] if t < len(reasons) else "that way"
        found.append(
            Correction(
                episode=episode.key,
                t=t,
                reason=reason if plan is not None else "",
                action=EAST if plan is not None else "",
                teacher="expert",
                privilege=50,
                rejected=None if plan is not None else Rejection.HOPELESS,
                leaked=tuple(name for name in ("lamp 7", "mug 9") if name in reason),
                plan_length=None if plan is None else len(plan),
            )
        )
    return found
