"""The constrained privileged expert: the best it can do while it stays near to what it would do without privilege."""

from __future__ import annotations

import numpy as np

from leap_lab.theory.exact import best_actions, on_states
from leap_lab.theory.world import Array, TabularWorld


def privileged_expert(world: TabularWorld, unprivileged: Array, privilege: float) -> Array:
    """pi^E(a | x): maximises the expected value of its action under optimal play on, among all distributions whose total
    variation to the unprivileged expert's is at most `privilege`.

    At 0 it is the unprivileged expert, at 1 it acts as who sees everything. The maximiser takes that much probability
    from the worst actions and puts it on the best one.

    Args:
        world: The world.
        unprivileged: [T, Z, A].
        privilege: 0..1.

    Returns:
        [T, X, A]
    """
    expert = on_states(world, unprivileged).copy()
    values = best_actions(world)
    usual = expert.argmax(axis=2)
    as_good = np.take_along_axis(values, usual[..., None], axis=2)[..., 0] >= values.max(axis=2) - 1e-12
    best = np.where(as_good, usual, values.argmax(axis=2))  # among equally good ones what it does anyway
    left = np.full(best.shape, float(privilege))
    for rank in range(world.actions):
        worst = np.argsort(values, axis=2, kind="stable")[:, :, rank]
        share = np.take_along_axis(expert, worst[..., None], axis=2)[..., 0]
        taken = np.where(worst == best, 0.0, np.minimum(share, left))
        np.put_along_axis(expert, worst[..., None], (share - taken)[..., None], axis=2)
        share = np.take_along_axis(expert, best[..., None], axis=2)[..., 0]
        np.put_along_axis(expert, best[..., None], (share + taken)[..., None], axis=2)
        left = left - taken
    return expert
