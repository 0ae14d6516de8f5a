"""The terms of the paper's bound, J(pi) >= J(pi^E) - T H(pi^E) (epsilon(pi^E) + gamma(N)), for the best pi of the sequence.

Two readings of epsilon and gamma, both as L1 distances of action distributions per step of the horizon, on states of
the students themselves (steps after an episode's end count as agreement, for nothing is left to do):

* from actions: the distance of pi_j is twice the share of steps at which its action is not the teacher's. The mean over
  the sequence is epsilon + gamma; the least is taken for epsilon, the rest is gamma.
* from log losses: KL(teacher || pi_j) per step is at most the negative log-likelihood of the corrected answer; its
  value for the leader pi_i is epsilon's, what pi_{j-1} lost beyond it is gamma's, and Pinsker's inequality (L1 <=
  sqrt(2 KL)) turns each into L1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from leap.evaluation import Evaluation
from leap_lab.measures.figures import Figure
from leap_lab.measures.records import Bound, IterationMeasures, Round, Terms


def bound(sequence: Sequence[IterationMeasures], teacher_value: Evaluation, rounds: Sequence[Round]) -> Bound:
    """Returns the bound after the last iteration of a sequence.

    Args:
        sequence: Measures of pi_0..pi_i; the last has a success.
        teacher_value: J(pi^E), the validation split and T.
        rounds: Log losses of the rounds 1..i; none where they are not all known.
    """
    known = [(one.success, one.iteration) for one in sequence if one.success is not None]
    success, _ = known[-1]
    teacher, horizon = Figure.of(teacher_value.overall), teacher_value.horizon
    best, where = max(known, key=lambda one: (one[0].value, -one[1]))
    own = [one.held_out for one in sequence if one.held_out is not None]
    costs = [one.recoverability for one in own if one.recoverability is not None]
    observed = max((one.largest for one in costs if one.largest is not None), default=0.0)
    h = observed or 1.0  # a sample that lost nothing does not show that nothing can be lost
    distances = [one.distance for one in own if one.distance]
    whole = [one.iteration for one in sequence] == list(range(len(distances)))
    last = sequence[-1].held_out
    loss = last.recoverability.lost_differing if last and last.recoverability else None
    apart = last.distance.value / 2 * horizon if last and last.distance else None
    return Bound(
        split=teacher_value.split,
        horizon=horizon,
        teacher=teacher,
        success=success,
        best=best,
        best_policy=f"pi_{where}",
        h=h,
        h_observed=bool(observed),
        actions=_from_actions(distances, teacher, horizon * h) if whole else None,
        log_loss=_from_log_losses(rounds, teacher, horizon * h) if rounds else None,
        rounds=list(rounds),
        mean_loss=loss,
        expected=teacher.value - apart * loss.value if loss and apart is not None else None,
    )


def _from_actions(distances: Sequence[Figure], teacher: Figure, slope: float) -> Terms:
    total, epsilon = _average(distances), min(distances, key=lambda one: one.value)
    gamma = Figure(value=max(0.0, total.value - epsilon.value), n=total.n, episodes=total.episodes)
    return _terms(epsilon, gamma, total, teacher, slope)


def _from_log_losses(rounds: Sequence[Round], teacher: Figure, slope: float) -> Terms:
    hindsight, played = _average([one.hindsight for one in rounds]), _average([one.played for one in rounds])
    regret = Figure(value=max(0.0, played.value - hindsight.value), n=played.n, episodes=played.episodes)
    epsilon, gamma = _pinsker(hindsight), _pinsker(regret)
    # The root of a sum is at most the sum of the roots, so this total is the looser, and the one in the bound's form.
    total = Figure(
        value=min(2.0, epsilon.value + gamma.value),
        n=epsilon.n + gamma.n,
        episodes=max(epsilon.episodes, gamma.episodes),
    )
    return _terms(epsilon, gamma, total, teacher, slope)


def _terms(epsilon: Figure, gamma: Figure, total: Figure, teacher: Figure, slope: float) -> Terms:
    low = None if teacher.low is None or total.high is None else teacher.low - slope * total.high
    return Terms(epsilon=epsilon, gamma=gamma, total=total, floor=teacher.value - slope * total.value, floor_low=low)


def _pinsker(kl: Figure) -> Figure:
    """L1 <= sqrt(2 KL), and no distance is more than 2."""
    roots = {
        end: None if value is None else min(2.0, math.sqrt(2 * max(0.0, value)))
        for end, value in (("value", kl.value), ("low", kl.low), ("high", kl.high))
    }
    return kl.model_copy(update=roots)


def _average(figures: Sequence[Figure]) -> Figure:
    """The mean of several figures. They come from the same tasks, so errors are taken to go together: the ends are
    averaged too, which is, if anything, too wide."""
    lows = [one.low for one in figures if one.low is not None]
    highs = [one.high for one in figures if one.high is not None]
    return Figure(
        value=sum(one.value for one in figures) / len(figures),
        low=sum(lows) / len(lows) if len(lows) == len(figures) else None,
        high=sum(highs) / len(highs) if len(highs) == len(figures) else None,
        n=sum(one.n for one in figures),
        episodes=sum(one.episodes for one in figures),
    )
