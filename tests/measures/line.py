"""A world small enough to count by hand: stand at 0, the goal is at 3, at -2 one falls off and nothing helps any more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from leap.core import (
    Actor,
    Correction,
    Episode,
    Observation,
    PrivilegedState,
    Rejection,
    Step,
    StopReason,
    Task,
)
from leap.envs.base import Environment, EnvironmentConfig, Outcome, Session

EAST, WEST, STAY = "go east", "go west", "stay here"
GOAL, CLIFF = 3, -2


class Line(Environment):
    """The privileged state is the way to the goal, and a lamp that only it names."""

    name: ClassVar[str] = "line"
    Config: ClassVar[type[EnvironmentConfig]] = EnvironmentConfig

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        return [a_task(split, number) for number in range(limit or 4)]

    def start(self, task: Task) -> Session:
        return LineSession()

    def entities(self, text: str) -> set[str]:
        return set(re.findall(r"[a-z]+ \d+", text))


class LineSession(Session):
    blocking: ClassVar[bool] = False

    def __init__(self) -> None:
        self.place = 0

    def observe(self) -> Observation:
        return Observation(text=f"You are at place {self.place}.", admissible=(WEST, STAY))

    def act(self, action: str) -> Outcome:
        if self.place != CLIFF:
            self.place += {EAST: 1, WEST: -1}.get(action, 0)
        done = self.place == GOAL
        return Outcome(self.observe(), success=done, done=done, score=float(done))

    def privileged(self) -> PrivilegedState:
        plan = None if self.place == CLIFF else (EAST,) * (GOAL - self.place)
        return PrivilegedState(text="The lamp 7 is at the goal.", plan=plan, hopeless=plan is None)


def a_task(split: str = "valid", number: int = 0) -> Task:
    return Task(env="line", split=split, id=f"{split}/{number}", instruction="reach the goal")


def play(
    moves: str,
    *,
    number: int = 0,
    split: str = "valid",
    horizon: int = 6,
    iteration: int = 0,
    stop: StopReason | None = None,
) -> Episode:
    """What comes of moves: e, w, s."""
    session, steps = LineSession(), []
    outcome = Outcome(session.observe())
    for move in moves:
        action = {"e": EAST, "w": WEST, "s": STAY}[move]
        steps.append(Step(observation=outcome.observation, reason="so", action=action))
        outcome = session.act(action)
    return Episode(
        task=a_task(split, number),
        actor=Actor(name="student", iteration=iteration),
        horizon=horizon,
        steps=tuple(steps),
        final=outcome.observation,
        score=outcome.score,
        success=outcome.success,
        stop=stop or (StopReason.SUCCESS if outcome.success else StopReason.HORIZON),
    )


def correct(episode: Episode, reasons: Sequence[str] = ()) -> list[Correction]:
    """Go east, always; hopeless at the foot of the cliff."""
    session, found = LineSession(), []
    for t, step in enumerate(episode.steps):
        plan = session.privileged().plan
        reason = reasons[t] if t < len(reasons) else "that way"
        found.append(
            Correction(
                episode=episode.key,
                t=t,
                reason=reason if plan is not None else "",
                action=EAST if plan is not None else "",
                teacher="expert",
                privilege=50,
                rejected=None if plan is not None else Rejection.HOPELESS,
                leaked=tuple(name for name in ("lamp 7", "mug 9") if name in reason),
                plan_length=None if plan is None else len(plan),
            )
        )
        session.act(step.action)
    return found
