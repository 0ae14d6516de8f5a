"""What one action costs if an optimal player took over: the one-step advantage of the planner at the student's steps.

With L_t the actions left on an optimal plan before step t and T the horizon, a step loses L_{t+1} - (L_t - 1) actions.
In units of success, V_t = 1 if L_t <= T - t, else 0: whether the task can still be done in time; a step loses V_t - V_{t+1}.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from leap.core import Correction, Episode, PrivilegedState, Rejection
from leap_lab.measures.figures import mean, share
from leap_lab.measures.records import Recoverability

Lengths = list[float | None]
"""For t = 0..len(steps): actions left on an optimal plan; inf in a dead end; None where nobody tells."""


def lengths_from_states(episode: Episode, states: Sequence[PrivilegedState]) -> Lengths:
    """Plan lengths from replayed privileged states, the last of which may be missing."""
    found: Lengths = [math.inf if one.hopeless else None if one.plan is None else len(one.plan) for one in states]
    return _ended(episode, [*found, *[None] * (len(episode.steps) + 1 - len(found))])


def lengths_from_corrections(episode: Episode, corrections: dict[int, Correction]) -> Lengths:
    """Plan lengths as corrections note them; nothing is known of the state after the last step, unless it is solved."""
    found: Lengths = []
    for t in range(len(episode.steps)):
        one = corrections.get(t)
        hopeless = one is not None and one.rejected is Rejection.HOPELESS
        found.append(math.inf if hopeless else None if one is None else one.plan_length)
    return _ended(episode, [*found, None])


def _ended(episode: Episode, lengths: Lengths) -> Lengths:
    if episode.success:
        lengths[-1] = 0
    return lengths


class Tally:
    """Adds up episodes."""

    def __init__(self) -> None:
        self._solvable: list[tuple[int, int]] = []
        self._loss: list[tuple[float, int]] = []
        self._dead: list[tuple[int, int]] = []
        self._lost: dict[bool | None, list[tuple[int, int]]] = {None: [], True: [], False: []}
        self._losses: Counter[int] = Counter()
        self._negative = 0
        self._told = False

    def add(self, episode: Episode, lengths: Lengths, differs: Sequence[bool | None]) -> None:
        """Adds an episode.

        Args:
            episode: The episode.
            lengths: Its plan lengths.
            differs: For each step, whether the student's action is not the teacher's; None where the teacher has none.
        """
        self._told = self._told or any(length is not None and length < math.inf for length in lengths)
        values = _values(episode, lengths)
        if values and values[0] is not None:
            self._solvable.append((int(values[0]), 1))
        total, told, dead = 0, 0, 0
        lost = {None: [0, 0], True: [0, 0], False: [0, 0]}
        for t in range(len(episode.steps)):
            before, after = lengths[t], lengths[t + 1]
            if before is not None and after is not None and before < math.inf:
                told += 1
                if after == math.inf:
                    dead += 1
                else:
                    loss = int(after - (before - 1))
                    self._negative += loss < 0
                    self._losses[max(0, loss)] += 1
                    total += max(0, loss)
            now, then = values[t], values[t + 1]
            if now is not None and then is not None:
                for group in (None, differs[t]) if differs[t] is not None else (None,):
                    lost[group][0] += now and not then
                    lost[group][1] += 1
        self._loss.append((total, told - dead))
        self._dead.append((dead, told))
        for group, (hits, steps) in lost.items():
            self._lost[group].append((hits, steps))

    def result(self) -> Recoverability | None:
        """Returns the figures; None where no planner told anything."""
        if not self._told:
            return None
        lost = share(self._lost[None])
        return Recoverability(
            solvable=share(self._solvable),
            loss=mean(self._loss, least=0.0),
            loss_max=max(self._losses, default=None),
            losses=[self._losses[k] for k in range(max(self._losses, default=-1) + 1)],
            dead_ends=share(self._dead),
            lost=lost,
            lost_differing=share(self._lost[True]),
            lost_agreeing=share(self._lost[False]),
            largest=float(lost.value > 0) if lost else None,
            negative=self._negative,
        )


def _values(episode: Episode, lengths: Lengths) -> list[bool | None]:
    """V_t for t = 0..len(steps). At the end the outcome tells, except where a model's failure, not an action, ended it."""
    values = [None if length is None else length <= episode.horizon - t for t, length in enumerate(lengths)]
    if episode.success:
        values[-1] = True
    elif not episode.stop.untold:
        values[-1] = False
    return values
