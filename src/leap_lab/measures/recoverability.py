"""What one action costs if an optimal player took over: the one-step advantage of the planner at the student's steps.

With L_t the actions left on an optimal plan before step t and T the horizon, a step loses L_{t+1} - (L_t - 1) actions.
In units of success, V_t = 1 if L_t <= T - t, else 0: whether the task can still be done in time; a step loses V_t - V_{t+1}.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import NamedTuple

from leap.core import Episode, PrivilegedState
from leap_lab.measures.figures import Figure, mean, share
from leap_lab.measures.records import Recoverability

Lengths = list[float | None]
"""For t = 0..len(steps): actions left on an optimal plan; inf in a dead end; None where nobody tells."""


def lengths_from_states(episode: Episode, states: Sequence[PrivilegedState]) -> Lengths:
    """Plan lengths from replayed privileged states, the last of which may be missing."""
    found: Lengths = [math.inf if one.hopeless else None if one.plan is None else len(one.plan) for one in states]
    found += [None] * (len(episode.steps) + 1 - len(found))
    return [*found[:-1], 0] if episode.success else found


class Planned(NamedTuple):
    """An episode, its plan lengths, and for each step whether the student's action is the teacher's, if that has
    one."""

    episode: Episode
    lengths: Lengths
    agrees: list[bool | None]


def recoverability(planned: Sequence[Planned]) -> Recoverability | None:
    """Returns what the steps of some episodes cost; None where no planner told anything."""
    if not any(length is not None and length < math.inf for one in planned for length in one.lengths[:-1]):
        return None
    told = [[pair for pair in pairwise(one.lengths) if None not in pair and pair[0] != math.inf] for one in planned]
    changes = [[int(after - before + 1) for before, after in one if after != math.inf] for one in told]  # type: ignore[operator]
    losses = [[max(0, change) for change in own] for own in changes]
    count = Counter(chain.from_iterable(losses))
    values = [_values(one.episode, one.lengths) for one in planned]
    solved = [[*zip(pairwise(own), one.agrees, strict=True)] for own, one in zip(values, planned, strict=True)]

    def lost(*agreement: bool | None) -> Figure | None:
        hits = [
            [v and not then for (v, then), agrees in own if None not in (v, then) and agrees in agreement]
            for own in solved
        ]
        return share((sum(map(bool, own)), len(own)) for own in hits)

    anyhow = lost(None, True, False)
    return Recoverability(
        solvable=share((int(own[0]), 1) for own in values if own[0] is not None),
        loss=mean([(sum(own), len(own)) for own in losses], least=0.0),
        loss_max=max(count, default=None),
        losses=[count[k] for k in range(max(count, default=-1) + 1)],
        dead_ends=share((sum(after == math.inf for _, after in steps), len(steps)) for steps in told),
        lost=anyhow,
        lost_differing=lost(False),
        lost_agreeing=lost(True),
        largest=float(anyhow.value > 0) if anyhow else None,
        negative=sum(change < 0 for own in changes for change in own),
    )


def _values(episode: Episode, lengths: Lengths) -> list[bool | None]:
    """V_t for t = 0..len(steps). At the end the outcome tells, except where a model's failure, not an action, ended it."""
    values = [None if length is None else length <= episode.horizon - t for t, length in enumerate(lengths)]
    if episode.success:
        values[-1] = True
    elif not episode.stop.untold:
        values[-1] = False
    return values
