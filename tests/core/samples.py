"""Small records for the tests of the vocabulary, the store and the scores."""

from __future__ import annotations

from leap.core import Actor, Episode, Observation, Step, StopReason, Task


def a_task(number: int = 0, *, split: str = "train", kind: str = "") -> Task:
    """A task of no real environment."""
    return Task(env="none", split=split, id=f"task-{number}", instruction=f"do thing {number}", kind=kind)


def an_episode(
    number: int = 0,
    *,
    steps: int = 2,
    success: bool = False,
    horizon: int = 5,
    split: str = "train",
    kind: str = "",
    text: str = "You see nothing.",
) -> Episode:
    """An episode with so many steps."""
    return Episode(
        task=a_task(number, split=split, kind=kind),
        actor=Actor(name="student", checkpoint="abc", iteration=0),
        seed=number,
        horizon=horizon,
        steps=tuple(
            Step(observation=Observation(text=f"{text} {t}", admissible=("look", f"go {t}")), action=f"go {t}")
            for t in range(steps)
        ),
        final=Observation(text="the end"),
        score=float(success),
        success=success,
        stop=StopReason.SUCCESS if success else StopReason.HORIZON,
    )
