"""Tabular worlds: a hidden state, what of it a student sees, and a search for a thing that a student can also ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress, product
from typing import NamedTuple

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class TabularWorld:
    """A POMDP of T steps whose histories are summed up in the state: x holds what is hidden and what has been seen.

    Attributes:
        start: [X] probabilities of the first state.
        moves: [X, A, X] probabilities of the next state.
        rewards: [X, A] expected reward of an action.
        seen: [X] number of what a student sees in a state, 0..Z-1; with the step, all that a student may act upon.
        horizon: T.
    """

    start: Array
    moves: Array
    rewards: Array
    seen: Array
    horizon: int

    @property
    def sights(self) -> int:
        """Z."""
        return int(self.seen.max()) + 1

    @property
    def actions(self) -> int:
        """A."""
        return self.moves.shape[1]


class Room(NamedTuple):
    """A state of the search: where the thing is, which places are open, whether the student asked and was told."""

    place: int
    opened: frozenset[int]
    asked: bool
    told: bool


def search_world(prior: Sequence[float], *, horizon: int, answer: float, slip: float) -> tuple[TabularWorld, Array]:
    """A thing is in one of several places. To open its place within T steps is success; one can also ask where it is.

    Args:
        prior: Probability of each place. Nobody who acts is told it.
        horizon: T.
        answer: Probability that asking is answered.
        slip: Probability that an action has no effect.

    Returns:
        The world, and its unprivileged expert [T, Z, A]: asks once, goes where it is told, else opens one place after
        the other from the left. Like a good script it does the sensible thing and knows nothing of the prior.
    """
    places = range(len(prior))
    subsets = [frozenset(compress(places, chosen)) for chosen in product((False, True), repeat=len(prior))]
    rooms = [
        Room(place, opened, asked, told)
        for place in places
        for opened in subsets
        if place not in opened
        for asked, told in ((False, False), (True, False), (True, True))
    ]
    number = {room: index for index, room in enumerate(rooms)}
    over, ask = len(rooms), len(prior)
    moves = np.zeros((over + 1, ask + 1, over + 1))
    rewards = np.zeros((over + 1, ask + 1))
    moves[over, :, over] = 1.0
    for room, x in number.items():
        for action in range(ask + 1):
            moves[x, action, x] += slip
            if action == room.place:
                moves[x, action, over] += 1 - slip
                rewards[x, action] = 1 - slip
            elif action == ask:
                told = answer if not room.told else 1.0
                moves[x, action, number[room._replace(asked=True, told=True)]] += (1 - slip) * told
                moves[x, action, number[room._replace(asked=True)]] += (1 - slip) * (1 - told)
            else:
                moves[x, action, number[room._replace(opened=room.opened | {action})]] += 1 - slip
    start = np.zeros(over + 1)
    for place, probability in enumerate(prior):
        start[number[Room(place, frozenset(), False, False)]] = probability
    sights: dict[object, int] = {}
    seen = [sights.setdefault((r.opened, r.asked, r.place if r.told else None), len(sights)) for r in rooms]
    world = TabularWorld(start, moves, rewards, np.array([*seen, len(sights)]), horizon)
    expert = np.zeros((horizon, world.sights, ask + 1))
    expert[:, len(sights), ask] = 1.0
    for room, sight in zip(rooms, seen, strict=True):
        unopened = next(place for place in places if place not in room.opened)
        expert[:, sight, :] = 0.0
        expert[:, sight, room.place if room.told else unopened if room.asked else ask] = 1.0
    return world, expert
