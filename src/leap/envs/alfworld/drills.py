"""Reading drills: what a scratch student practises before it learns to act.

A pretrained model can read: told to find a mug, it sees the mug in "you see a apple 1, and a mug 2". A model from random
weights cannot, and learning to read from a few demonstrations of acting is slow. So a scratch student first practises on
questions about random walks through training games: is such a thing here, where was one seen, which place is not searched
yet. The answers follow from the text shown; nothing of an expert, of a task's solution or of a hidden state is in them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from leap.core import History, Task
from leap.envs.alfworld.expert import a, on
from leap.envs.alfworld.memory import Memory, entity_number, entity_type
from leap.envs.base import Environment, opened

STEPS = 8
_WALKS = ("go to", "open", "take", "put", "move")


def reading_drills(
    environment: Environment, tasks: Iterable[Task], rng: random.Random
) -> Iterator[tuple[History, str, str]]:
    """Questions and answers on a random walk through each task.

    Yields:
        (the history so far, a question, its answer); the drills of one walk come one after another.
    """
    for task in tasks:
        with opened(environment, task) as session:
            history = History(task=task, observations=(session.observe(),))
            memory = Memory()
            kinds = sorted({entity_type(thing) for thing in rng.sample(_THINGS, 3)})
            for _ in range(STEPS):
                memory.update(history)
                for question, answer in _questions(memory, kinds, rng):
                    yield history, question, answer
                action = _wander(history, memory, rng)
                history = history.extend(action, session.act(action).observation)


def _wander(history: History, memory: Memory, rng: random.Random) -> str:
    actions = [action for action in history.now.admissible or () if action.startswith(_WALKS)]
    opening = [action for action in actions if action.startswith("open")]
    if opening and rng.random() < 0.7:
        return rng.choice(opening)
    new = [action for action in actions if action.startswith("go to") and not memory.searched(action[6:])]
    if new and rng.random() < 0.6:
        return rng.choice(new)
    return rng.choice(actions or ["look"])


def _questions(memory: Memory, absent: list[str], rng: random.Random) -> Iterator[tuple[str, str]]:
    here = [r for r in memory.receptacles if memory.at(r)]
    seen_here = [(o, r) for r in here for o in memory.contents.get(r, ())]
    seen_before = [(o, r) for r in memory.receptacles if r not in here for o in memory.contents.get(r, ())]
    asked: set[str] = set()
    for pool in (seen_here, seen_here, seen_before):
        if pool:
            asked.add(entity_type(rng.choice(pool)[0]))
    for kind in [*sorted(asked), rng.choice(absent)]:
        yield f"Task: find some {kind}.", _where(memory, kind)
    place = entity_type(rng.choice(memory.receptacles)) if memory.receptacles else "shelf"
    left = sorted(
        (r for r in memory.receptacles if entity_type(r) == place and not memory.searched(r)), key=entity_number
    )
    yield f"Task: search some {place}.", f"{left[0]} is not searched yet." if left else f"No {place} is left to search."


def _where(memory: Memory, kind: str) -> str:
    found = memory.where(kind)
    for thing, place in found:
        if memory.at(place):
            return f"{a(kind)} is here: {thing}."
    if found:
        thing, place = found[0]
        return f"{a(kind)} was seen: {thing} {on(place)} {place}."
    return f"{a(kind)} was not seen."


_THINGS = [
    f"{kind} 1"
    for kind in [
        "apple",
        "bread",
        "cup",
        "mug",
        "plate",
        "spoon",
        "fork",
        "knife",
        "egg",
        "tomato",
        "potato",
        "lettuce",
        "pan",
        "pot",
        "kettle",
        "bowl",
        "spatula",
        "ladle",
        "book",
        "pen",
        "pencil",
        "cd",
        "cellphone",
        "laptop",
        "keychain",
        "creditcard",
        "watch",
        "pillow",
        "vase",
        "statue",
        "box",
        "newspaper",
        "remotecontrol",
        "alarmclock",
        "cloth",
        "soapbar",
        "soapbottle",
        "spraybottle",
        "toiletpaper",
        "candle",
        "tissuebox",
        "handtowel",
        "towel",
        "dishsponge",
        "peppershaker",
        "saltshaker",
    ]
]
