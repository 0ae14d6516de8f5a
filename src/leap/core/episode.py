"""What happened: a student's (or an expert's) way through one task."""

from __future__ import annotations

import operator
from enum import StrEnum
from functools import cached_property

from pydantic import Field

from leap.core.history import History, Observation
from leap.core.record import Record, content_key
from leap.core.task import Task


class StopReason(StrEnum):
    """Why an episode ended."""

    SUCCESS = "success"
    """The task was solved."""
    ENDED = "ended"
    """The environment ended it short of success (a purchase with partial credit, a wrong submission)."""
    HORIZON = "horizon"
    """The allowed number of actions was used up."""
    MODEL_ERROR = "model_error"
    """The policy's model failed after all retries; the episode scores what it had reached."""
    ENVIRONMENT_ERROR = "environment_error"
    """The environment's own code raised; nothing is trained on the episode, which scores what it had reached."""

    @property
    def untold(self) -> bool:
        """Whether the episode was broken off, so that its end tells nothing of the student."""
        return self in (StopReason.MODEL_ERROR, StopReason.ENVIRONMENT_ERROR)


class Actor(Record):
    """Who acted in an episode.

    Attributes:
        name: "student", "expert", "teacher", or a model's name.
        checkpoint: Content key of the student's weights; empty for programmatic actors.
        iteration: i of pi_i; -1 for actors outside the loop.
    """

    name: str
    checkpoint: str = ""
    iteration: int = -1


class Step(Record):
    """One turn: what was seen, what was thought and done, what it cost.

    Attributes:
        observation: o_t, shown before the action, with its admissible actions.
        reason: r_t; empty where none was given or none could be read.
        action: a_t as sent to the environment.
        completion: The model's text as generated, before parsing; empty for programmatic actors.
        parsed: Whether an action could be read from the completion.
        reward: The environment's reward for the action.
        prompt_tokens: Tokens of the prompt, cached prefix included.
        completion_tokens: Tokens generated.
        dropped: How many of the oldest steps were left out of the prompt, which would have been too long.
        tokens: The completion's tokens as they were sampled, the one that ends the turn among them. Kept where the recipe asks
            for it (`rollouts.tokens`); else empty, and not in a file at all.
        logprobs: The natural logarithm of the probability that each of them was drawn with, to four decimals: at the sampling's
            temperature, under its constraint, 0 for a token that was forced. Empty likewise, and where none were told.
    """

    observation: Observation
    reason: str = ""
    action: str
    completion: str = ""
    parsed: bool = True
    reward: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dropped: int = 0
    tokens: tuple[int, ...] = Field(default=(), exclude_if=operator.not_)
    logprobs: tuple[float, ...] = Field(default=(), exclude_if=operator.not_)


class Episode(Record):
    """A task's steps and how it ended (the paper's trajectory).

    Attributes:
        task: The task.
        actor: Who acted.
        seed: Seed of the actor's sampling in this episode.
        horizon: Largest number of actions allowed.
        steps: In order; may be shorter than the horizon.
        final: What the environment showed after the last action.
        score: The environment's own score, in [0, 1] for the environments that ship.
        parts: What the score is made of, by name (a shop's type, attributes, options and price); empty where it has no parts.
        success: Whether the task was solved.
        stop: Why it ended.
        seconds: Wall-clock time the episode was under way, in seconds (batched episodes overlap).
        error: The model's error where `stop` is MODEL_ERROR; the environment's, with its traceback, where it is
            ENVIRONMENT_ERROR.
        lost: Whether calls of the model failed that may well work another time; such an episode is on file only where the
            recipe allows for it.
        versions: What produced it: leap's version and the environment's engine and dialect.
    """

    task: Task
    actor: Actor
    seed: int = 0
    horizon: int
    steps: tuple[Step, ...]
    final: Observation
    score: float
    parts: dict[str, float] = Field(default_factory=dict)
    success: bool
    stop: StopReason
    seconds: float = 0.0
    error: str = ""
    lost: bool = False
    versions: dict[str, str] = Field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """Content key of the piece of work: which task, who acts, with which seed, up to which horizon."""
        return episode_key(self.task, self.actor, seed=self.seed, horizon=self.horizon)

    @property
    def actions(self) -> int:
        """Number of actions as the field counts them: a failure counts as the whole horizon."""
        return len(self.steps) if self.success else self.horizon

    def history(self, t: int) -> History:
        """h_t, from the logged observations and the original actions (0 <= t <= len(steps))."""
        seen = [step.observation for step in self.steps[: t + 1]]
        if t == len(self.steps):
            seen.append(self.final)
        return History(task=self.task, observations=tuple(seen), actions=tuple(step.action for step in self.steps[:t]))


def episode_key(task: Task, actor: Actor, *, seed: int, horizon: int) -> str:
    """The key an episode will have once it is played; lets a rollout see what is already on file."""
    return content_key("episode", task.key, actor.name, actor.checkpoint, actor.iteration, seed, horizon)
