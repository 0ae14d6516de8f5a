"""The terms of the paper's bound, J(pi) >= J(pi^E) - T H(pi^E) (epsilon(pi^E) + gamma(N)), for the best pi of the sequence.

Two readings of epsilon and gamma, both as L1 distances of action distributions per step of the horizon, on states of the
students themselves (steps after an episode's end count as agreement, for nothing is left to do):

* from actions: the distance of pi_j is twice the share of steps at which its action is not the teacher's. The mean over
  the sequence is epsilon + gamma; the least is taken for epsilon, the rest is gamma.
* from log losses: KL(teacher || pi_j) per step is at most the negative log-likelihood of the corrected answer; its value
  for the leader pi_i is epsilon's, what pi_{j-1} lost beyond it is gamma's, and Pinsker's inequality (L1 <= sqrt(2 KL))
  turns each into L1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from leap_lab.measures.figures import Figure
from leap_lab.measures.records import Bound, IterationMeasures, Round, Terms


def bound(
    *,
    sequence: Sequence[IterationMeasures],
    split: str,
    horizon: int,
    teacher: Figure,
    rounds: Sequence[Round] = (),
) -> Bound:
    """Returns the bound after the last iteration of a sequence.

    Args:
        sequence: Measures of pi_0..pi_i, those without a success left out; the last is pi_i's.
        split: The validation split.
        horizon: T.
        teacher: J(pi^E).
        rounds: Log losses of the rounds 1..i.

    Raises:
        ValueError: pi_i has no success.
    """
    known = [(one.success, one.iteration) for one in sequence if one.success is not None]
    if not known or sequence[-1].success is None:
        raise ValueError("the bound needs the success of the last student")
    best, where = max(known, key=lambda one: (one[0].value, -one[1]))
    planned = [one.held_out.recoverability for one in sequence if one.held_out and one.held_out.recoverability]
    observed = [one.largest for one in planned if one.largest is not None]
    # A sample that lost nothing does not show that nothing can be lost.
    h = max(observed, default=0.0) or 1.0
    distances = [one.held_out.distance for one in sequence if one.held_out and one.held_out.distance]
    whole = [one.iteration for one in sequence] == list(range(len(sequence))) and len(distances) == len(sequence)
    own = sequence[-1].held_out
    loss = own.recoverability.lost_differing if own and own.recoverability else None
    apart = own.distance.value / 2 * horizon if own and own.distance else None
    return Bound(
        split=split,
        horizon=horizon,
        teacher=teacher,
        success=sequence[-1].success,
        best=best,
        best_policy=f"pi_{where}",
        h=h,
        h_observed=bool(max(observed, default=0.0)),
        actions=_from_actions(distances, teacher, horizon * h) if whole else None,
        log_loss=_from_log_losses(rounds, teacher, horizon * h) if rounds else None,
        rounds=list(rounds),
        mean_loss=loss,
        expected=teacher.value - apart * loss.value if loss and apart is not None else None,
    )


def _from_actions(distances: Sequence[Figure], teacher: Figure, slope: float) -> Terms:
    total = _average(distances)
    epsilon = min(distances, key=lambda one: one.value)
    return _terms(epsilon, total, teacher, slope)


def _from_log_losses(rounds: Sequence[Round], teacher: Figure, slope: float) -> Terms:
    hindsight = _average([one.hindsight for one in rounds])
    played = _average([one.played for one in rounds])
    epsilon = _pinsker(hindsight)
    regret = max(0.0, played.value - hindsight.value)
    gamma = _pinsker(Figure(value=regret, n=played.n, episodes=played.episodes))
    # The root of a sum is at most the sum of the roots, so this total is the looser, and the one in the bound's form.
    return _terms(epsilon, _sum(epsilon, gamma), teacher, slope, gamma)


def _terms(epsilon: Figure, total: Figure, teacher: Figure, slope: float, gamma: Figure | None = None) -> Terms:
    rest = Figure(value=max(0.0, total.value - epsilon.value), n=total.n, episodes=total.episodes)
    pessimistic = teacher.low is not None and total.high is not None
    return Terms(
        epsilon=epsilon,
        gamma=gamma or rest,
        total=total,
        floor=teacher.value - slope * total.value,
        floor_low=teacher.low - slope * total.high if pessimistic else None,  # type: ignore[operator]
    )


def _pinsker(kl: Figure) -> Figure:
    """L1 <= sqrt(2 KL), and no distance is more than 2."""

    def root(value: float) -> float:
        return min(2.0, math.sqrt(2 * max(0.0, value)))

    return Figure(
        value=root(kl.value),
        low=None if kl.low is None else root(kl.low),
        high=None if kl.high is None else root(kl.high),
        n=kl.n,
        episodes=kl.episodes,
    )


def _sum(first: Figure, second: Figure) -> Figure:
    return Figure(
        value=min(2.0, first.value + second.value),
        n=first.n + second.n,
        episodes=max(first.episodes, second.episodes),
    )


def _average(figures: Sequence[Figure]) -> Figure:
    """The mean of several figures. They come from the same tasks, so errors are taken to go together: the ends are
    averaged too, which is, if anything, too wide."""

    def ends(values: Sequence[float | None]) -> float | None:
        found = [value for value in values if value is not None]
        return sum(found) / len(found) if len(found) == len(figures) else None

    return Figure(
        value=sum(one.value for one in figures) / len(figures),
        low=ends([one.low for one in figures]),
        high=ends([one.high for one in figures]),
        n=sum(one.n for one in figures),
        episodes=sum(one.episodes for one in figures),
    )
