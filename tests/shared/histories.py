"""Histories of any length, for tests of what is made of them."""

from __future__ import annotations

from leap.core import History, Observation, Task

CHOICES = ("look", "go to cabinet 1", "go to cabinet 12", "take mug 1 from desk 1", "open drawer 3")


def a_history(name: str = "a", steps: int = 0) -> History:
    """A history of so many steps; histories of one name grow from each other."""
    task = Task(env="none", split="train", id=name, instruction=f"put a mug {name} in the drawer 3.")
    history = History(task=task, observations=(Observation(text="You see a desk 1. " * (1 + len(name))),))
    for t in range(steps):
        seen = Observation(
            text=f"On the desk {t}, you see a mug {t}, {name}." * (1 + t % 2), admissible=CHOICES[: 2 + t]
        )
        history = history.extend(CHOICES[t % len(CHOICES)], seen)
    return history
