"""The sums: what a policy is worth, where it gets to, what one action gains or loses, and the teacher made of them."""

from __future__ import annotations

import numpy as np

from leap_lab.theory.world import Array, TabularWorld


def on_states(world: TabularWorld, policy: Array) -> Array:
    """Returns a student's policy [T, Z, A] as one on states [T, X, A]."""
    return policy[:, world.seen, :]


def occupancy(world: TabularWorld, policy: Array) -> Array:
    """d_t: probability of each state at each step [T, X] under a policy on states [T, X, A]."""
    reached = [world.start]
    for t in range(world.horizon - 1):
        reached.append(np.einsum("x,xa,xay->y", reached[-1], policy[t], world.moves, optimize=True))
    return np.stack(reached)


def action_values(world: TabularWorld, policy: Array | None) -> Array:
    """Q of a policy on states, or of optimal play by who sees the state if None [T, X, A]."""
    found = np.zeros((world.horizon, *world.rewards.shape))
    value = np.zeros(len(world.start))
    for t in reversed(range(world.horizon)):
        found[t] = world.rewards + world.moves @ value
        value = found[t].max(axis=1) if policy is None else (policy[t] * found[t]).sum(axis=1)
    return found


def advantages(world: TabularWorld, policy: Array) -> tuple[float, Array]:
    """J(pi) and A(x, a) = Q(x, a) - V(x) [T, X, A] of a policy on states [T, X, A]."""
    q = action_values(world, policy)
    values = (policy * q).sum(axis=2)
    return float(world.start @ values[0]), q - values[..., None]


def reachable(world: TabularWorld) -> Array:
    """Returns which states can be reached at each step, whoever acts [T, X]."""
    anything = np.full((world.horizon, *world.rewards.shape), 1 / world.actions)
    return occupancy(world, anything) > 0


def privileged_expert(world: TabularWorld, unprivileged: Array, privilege: float) -> Array:
    """The constrained privileged expert pi^E(a | x) [T, X, A]: the best it can do while it stays near to what it would
    do without privilege.

    It maximises the expected value of its action under optimal play on, among all distributions whose total variation
    to those of the unprivileged expert [T, Z, A] is at most `privilege`. At 0 it is the unprivileged expert, at 1 it
    acts as who sees everything. The maximiser takes that much probability from the worst actions and puts it on the
    best one.
    """
    expert = on_states(world, unprivileged).copy()
    values = action_values(world, None)
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
