"""The sums: what a policy is worth, where it gets to, and what one action gains or loses."""

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


def advantages(world: TabularWorld, policy: Array) -> tuple[float, Array]:
    """J(pi) and A(x, a) = Q(x, a) - V(x) [T, X, A] of a policy on states [T, X, A]."""
    value = np.zeros(len(world.start))
    found = np.zeros_like(policy)
    for t in reversed(range(world.horizon)):
        q = world.rewards + world.moves @ value
        value = (policy[t] * q).sum(axis=1)
        found[t] = q - value[:, None]
    return float(world.start @ value), found


def best_actions(world: TabularWorld) -> Array:
    """Q of optimal play by who sees the state [T, X, A]."""
    value = np.zeros(len(world.start))
    found = np.zeros((world.horizon, *world.rewards.shape))
    for t in reversed(range(world.horizon)):
        found[t] = world.rewards + world.moves @ value
        value = found[t].max(axis=1)
    return found


def reachable(world: TabularWorld) -> Array:
    """Returns which states can be reached at each step, whoever acts [T, X]."""
    anything = np.full((world.horizon, *world.rewards.shape), 1 / world.actions)
    return occupancy(world, anything) > 0


def worth(world: TabularWorld, policy: Array) -> float:
    """J(pi) of a policy on states."""
    return advantages(world, policy)[0]
