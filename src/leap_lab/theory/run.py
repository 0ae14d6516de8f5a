"""Algorithm 1 with exact minimisers: DAgger with follow-the-leader on the aggregate, and the bound's every term.

Loss of a student on the states of pi_j: E ||pi(. | h) - pi^E(. | s, h)||_1, averaged over the T steps. Rounds are
j = 0..N, in each of which pi_j plays and is scored on its own states; pi_0 is behaviour cloning of the unprivileged
expert, pi_{j+1} the minimiser on D_0 and all rounds so far.

    epsilon = min over students of the mean loss over the rounds,    gamma = mean of the losses as played - epsilon
    max_j J(pi_j) >= mean_j J(pi_j) >= J(pi^E) - T H (epsilon + gamma),    H = sup |A^E|

by the performance difference lemma and Hoelder's inequality, whichever minimiser makes the students.

Distillation from a teacher that knows the hidden state s, averaged over the s that are possible at a history h:

    argmin_q E_s KL(p_s || q) = E_s p_s                  forward: the mixture, which is what cloning estimates
    argmin_q E_s KL(q || p_s) ~ exp(E_s log p_s)         reverse: the geometric mean, without what any one p_s never does

A language model never gives an action nothing, so that for these two a teacher is uniform with the probability `floor`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from leap.core.record import Record
from leap_lab.theory.exact import advantages, occupancy, on_states, privileged_expert, reachable
from leap_lab.theory.world import Array, TabularWorld

Loss = Literal["l1", "log", "forward", "reverse"]


class Terms(Record):
    """The bound for one privilege level. Everything is exact but for rounding.

    Attributes:
        privilege: 0..1.
        loss: What the students minimise.
        expert, unprivileged: J(pi^E), the privileged expert's, and J of the unprivileged one.
        recoverability: H.
        epsilon, gamma, bound: As above.
        students, losses: J(pi_0)..J(pi_N), and the loss of each on its own states.
        student: The best of the students.
        identity: Largest error of the performance difference lemma over the students; rounding alone.
    """

    privilege: float
    loss: Loss
    expert: float
    unprivileged: float
    recoverability: float
    epsilon: float
    gamma: float
    bound: float
    students: list[float]
    losses: list[float]
    student: float
    identity: float

    @property
    def last(self) -> float:
        """J(pi_N)."""
        return self.students[-1]


def run_leap(
    world: TabularWorld, unprivileged: Array, *, privilege: float, iterations: int, loss: Loss = "l1", floor: float = 0.01
) -> Terms:
    """Runs LEAP and computes the bound.

    Args:
        world: The world.
        unprivileged: The unprivileged expert [T, Z, A].
        privilege: Of the teacher, 0..1.
        iterations: N.
        loss: l1, the bound's own; log, which is what SFT minimises; forward or reverse KL to the teacher.
        floor: Of forward and reverse, as above.
    """
    teacher = privileged_expert(world, unprivileged, privilege)
    demonstrator = on_states(world, unprivileged)
    value, advantage = advantages(world, teacher)

    def distance(visited: Array, student: Array) -> Array:
        return (visited * np.abs(student - teacher).sum(axis=2)).sum()

    # What the aggregate holds: for each round the weight of each state [T, X] and the label there [T, X, A].
    weights, labels = [occupancy(world, demonstrator)], [demonstrator]
    students, losses, identity = [], [], 0.0
    for _ in range(iterations + 1):
        student = on_states(world, leader(world, weights, labels, loss, floor))
        visited = occupancy(world, student)
        students.append(advantages(world, student)[0])
        losses.append(float(distance(visited, student)) / world.horizon)
        gained = float((visited[..., None] * advantage * (student - teacher)).sum())
        identity = max(identity, abs(students[-1] - value - gained))
        weights.append(visited)
        labels.append(teacher)
    best = on_states(world, leader(world, weights[1:], labels[1:], "l1"))
    epsilon = float(sum(distance(visited, best) for visited in weights[1:])) / (world.horizon * len(students))
    gamma = float(np.mean(losses)) - epsilon
    h = float(np.abs(advantage)[reachable(world)].max())
    return Terms(
        privilege=privilege,
        loss=loss,
        expert=value,
        unprivileged=advantages(world, demonstrator)[0],
        recoverability=h,
        epsilon=epsilon,
        gamma=gamma,
        bound=value - world.horizon * h * (epsilon + gamma),
        students=students,
        losses=losses,
        student=max(students),
        identity=identity,
    )


def leader(world: TabularWorld, weights: list[Array], labels: list[Array], loss: Loss, floor: float = 0.01) -> Array:
    """Returns the student [T, Z, A] with the least total loss on an aggregate: for each round the weight of each state
    [T, X] and the distribution to imitate there [T, X, A]. It is uniform where nothing was ever seen."""
    policy = np.full((world.horizon, world.sights, world.actions), 1 / world.actions)
    weight, label = np.concatenate(weights, axis=1), np.concatenate(labels, axis=1)
    seen = np.tile(world.seen, len(weights))
    for t in range(world.horizon):
        for sight in np.unique(seen[weight[t] > 0]):
            of = (seen == sight) & (weight[t] > 0)
            found, counts = np.unique(label[t][of], axis=0, return_inverse=True)
            total = np.bincount(counts.reshape(-1), weights=weight[t][of])
            policy[t, sight] = nearest(found, total) if loss == "l1" else mean(found, total, loss, floor)
    return policy


def mean(points: Array, weights: Array, loss: Loss, floor: float) -> Array:
    """Returns the distribution with the least mean log loss or divergence to distributions [K, A] of weights [K] > 0."""
    share = weights / weights.sum()
    if loss == "log":
        return share @ points
    soft = (1 - floor) * points + floor / points.shape[1]
    if loss == "forward":
        return share @ soft
    found = np.exp(share @ np.log(soft))
    return found / found.sum()


def nearest(points: Array, weights: Array) -> Array:
    """Returns the distribution p that minimises sum_k w_k ||p - points_k||_1, of distributions [K, A] and weights [K] >
    0.

    Each coordinate's cost is convex and linear between the points', so that probability is filled in where a step costs
    least, from 0 on, until all is spent.
    """
    segments = []  # (cost per unit, action, place in its order, length)
    for action in range(points.shape[1]):
        order = np.argsort(points[:, action], kind="stable")
        ends = [0.0, *points[order, action], 1.0]
        below = 0.0
        for place in range(len(ends) - 1):
            segments.append((2 * below - weights.sum(), action, place, ends[place + 1] - ends[place]))
            below += weights[order[place]] if place < len(order) else 0.0
    filled, left = np.zeros(points.shape[1]), 1.0
    for _, action, _, length in sorted(segments):
        taken = min(length, left)
        filled[action] += taken
        left -= taken
    return filled
