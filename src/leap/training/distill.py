"""`distill`: pi_i learns, token by token, the distribution of a teacher that has the privileged state in its prompt.

The teacher is the student's own weights (OPSD, arXiv 2601.18734; SDFT, 2601.19897) or a bigger model with the same tokenizer.
Other than there, the privileged state is that of each of the student's own steps, and corrections are taught too: with a teacher
that is sure of each token of a correction this is SFT. The loss is in `leap.training.distilling`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from leap.core import Correction, Episode, PrivilegedState, StopReason, content_key
from leap.core.message import Message, ToolSpec
from leap.datasets import Row
from leap.errors import ContextTooLong, RecipeError, RunError
from leap.policies.fitting import without_oldest
from leap.training.config import SFTConfig, TrainingSettings
from leap.training.method import Collected, Job, TrainingResult
from leap.training.methods import SFT

if TYPE_CHECKING:
    from leap.recipe import Recipe

log = logging.getLogger(__name__)

OWN_WEIGHTS = ("frozen", "ema", "live")


class DistillConfig(SFTConfig):
    """Privileged distillation; pi_0 is cloned by SFT. The keys of SFT hold for the whole of it."""

    method: Literal["distill"] = Field(default="distill", description="distill.")  # type: ignore[assignment]
    start_from: Literal["previous"] = Field(  # type: ignore[assignment]
        default="previous", description="Trains on from pi_{i-1}."
    )
    branches: Literal[True] = Field(  # type: ignore[assignment]
        default=True, description="Always: all answers of an episode, the student's and the teacher's, on one trunk."
    )
    teacher: str = Field(
        default="frozen",
        description="Whose distribution is learnt, the privileged state in its prompt. frozen: pi_{i-1}; ema: a moving average "
        "of the student; live: the student as it is; or hf/PATH-or-name of a bigger model with the same tokenizer.",
    )
    ema: float = Field(default=0.05, gt=0, le=1, description="Share of the student in the moving average, per step.")
    divergence: Literal["forward", "reverse", "jsd"] = Field(
        default="forward", description="KL(teacher || student), KL(student || teacher), or between both."
    )
    alpha: float = Field(default=0.5, gt=0, lt=1, description="Of jsd: the teacher's share in the mixture and in the loss.")
    on: Literal["both", "corrections", "own"] = Field(
        default="both", description="Which answers are taught: valid corrections, the student's own as sampled, or both."
    )
    top_k: int | None = Field(
        default=100,
        ge=1,
        description="Likeliest tokens that are told apart, the rest in one; all if null, or where there are 4,096 at most.",
    )
    clip: float | None = Field(default=None, gt=0, description="Most nats that a token counts with; any if null.")
    balance: Literal["turns", "tokens"] = Field(
        default="turns", description="turns: each answer counts alike, however long it is; tokens: each token does."
    )
    weight: float = Field(default=1.0, ge=0, description="Weight of the divergence, a mean over what is taught.")
    ce_weight: float = Field(
        default=1.0, ge=0, description="Weight of the rows' own likelihood as in SFT, a mean over their tokens."
    )
    disagree: bool = Field(default=False, description="Teach only where the correction's action is not the student's.")
    gated: bool = Field(
        default=False, description="Weigh each token by sigmoid(5 (log p - log q)): what the teacher likes better (SDAR)."
    )
    gate: Literal["warn", "refuse", "off"] = Field(
        default="warn",
        description="Before pi_1 is trained, what to do where the privileged state in its prompt helps pi_0 too little.",
    )
    gate_tasks: int = Field(default=50, ge=1, description="Validation tasks that are played with and without it.")
    margin: float = Field(default=0.1, ge=0, le=1, description="By how much it must raise the share of tasks solved.")
    retire: float | None = Field(
        default=0.95,
        gt=0,
        description="Without divergence from where on the student solves this share of what it solves with privilege, and the "
        "difference has not shrunk in two iterations; never if null.",
    )

    @field_validator("teacher")
    @classmethod
    def _is_a_teacher(cls, teacher: str) -> str:
        if teacher not in OWN_WEIGHTS and not (teacher.startswith("hf/") and teacher.removeprefix("hf/").strip()):
            raise ValueError(f"must be one of {', '.join(OWN_WEIGHTS)}, or hf/PATH-or-name of a model")
        return teacher

    @model_validator(mode="after")
    def _teaches_something(self) -> DistillConfig:
        if not self.weight:
            raise ValueError("weight: 0 teaches nothing; use method: sft")
        return self

    @property
    def needs_tokens(self) -> bool:
        return self.on != "corrections"

    @property
    def own_weights(self) -> bool:
        """Whether the teacher is the student itself."""
        return self.teacher in OWN_WEIGHTS

    @classmethod
    def in_place_of(cls, other: Mapping[str, object]) -> dict[str, object]:
        fixed = ("method", "branches", "start_from")
        return {key: value for key, value in super().in_place_of(other).items() if key not in fixed}

    def check(self, recipe: Recipe) -> None:
        TrainingSettings.check(self, recipe)  # rows of any renderer can be branches; those of `paper` only share little
        if self.own_weights and not recipe.teacher.privilege:
            raise ValueError("training.method: distill at teacher.privilege: 0: the student would learn what it does already")
        if not self.own_weights and recipe.student.from_scratch:
            raise ValueError("training.teacher: no other model has a scratch student's tokenizer; use frozen, ema or live")
        if self.needs_tokens and recipe.rollouts.tokens is False:
            raise ValueError(f"training.on: {self.on} needs the tokens of answers; leave rollouts.tokens at auto")


@dataclass(frozen=True, slots=True)
class Lesson:
    """A step of the student's in iteration i that may be taught.

    Attributes:
        episode, t: Its episode's key, and its number there.
        prompt, privileged: What the student was shown, and the same with the privileged state.
        tools, thinking: As of a `Row`, at the rollout.
        tokens: The student's own answer as sampled; empty where it is not taught.
        corrected: Whether its correction is taught.
        wrong: Whether its action has brought the goal no nearer, by the environment's plan; None where that is not known.
    """

    episode: str
    t: int
    prompt: list[Message]
    privileged: list[Message]
    tools: list[ToolSpec]
    thinking: bool | None
    tokens: tuple[int, ...]
    corrected: bool
    wrong: bool | None


@dataclass(frozen=True, slots=True)
class Taught:
    """What pi_i is trained on.

    Attributes:
        rows: D_0 u .. u D_i, for their own likelihood.
        lessons: Steps of iteration i; none where the teacher is retired.
        told: What was found out before, for the report.
    """

    rows: Sequence[Row]
    lessons: Sequence[Lesson]
    told: dict[str, object] = field(default_factory=dict)


class Distill(SFT):
    """pi_i <- argmin of a divergence from the teacher's distribution, and of the negative log-likelihood of D_0 u .. u D_i."""

    Config = DistillConfig
    config: DistillConfig  # type: ignore[assignment]
    packages = ("trl", "datasets")

    def check(self, recipe: Recipe) -> None:
        if not self.config.own_weights:
            _check_same_tokens(recipe.student.base, self.config.teacher.removeprefix("hf/"))

    def settings(self, i: int) -> dict[str, object]:
        return super().settings(i) if i else self._cloning.settings(0)

    @property
    def _cloning(self) -> SFT:
        values = self.config.model_dump(include=set(SFTConfig.model_fields) - {"method"})
        return SFT(SFTConfig.model_validate(values))

    def rows(self, collected: Collected) -> Sequence[Row] | Taught:
        if not collected.iteration:
            return collected.union()
        told = self._gap(collected)
        lessons = () if told.get("retired") else tuple(self._lessons(collected))
        return Taught(collected.union(), lessons, told)

    def fingerprint(self, rows: Sequence[Row] | Taught) -> list[str]:
        if not isinstance(rows, Taught):
            return []
        return [content_key([(one.episode, one.t, one.privileged, one.tokens, one.corrected) for one in rows.lessons])]

    def train(self, rows: Sequence[Row] | Taught, job: Job) -> TrainingResult:
        if not isinstance(rows, Taught):
            return self._cloning.train(rows, job)
        from leap.training.distilling import train_distill

        return train_distill(self.config.model_copy(update={"steps": self._steps(job.iteration)}), rows, job)

    def _lessons(self, collected: Collected) -> Iterator[Lesson]:
        i, on = collected.iteration, self.config.on
        corrections: dict[str, dict[int, Correction]] = {}
        for one in collected.corrections(i):
            if one.kept:
                corrections.setdefault(one.episode, {})[one.t] = one
        for episode in sorted(collected.episodes(i), key=lambda one: one.key):
            if episode.stop is StopReason.ENVIRONMENT_ERROR:
                continue
            states, renderer = collected.states(episode), collected.renderer
            wrong = _wrong(episode, states)
            for t, (step, state) in enumerate(zip(episode.steps, states, strict=True)):
                correction = corrections.get(episode.key, {}).get(t)
                own = step.tokens if on != "corrections" else ()
                if self.config.disagree and (correction is None or correction.action == step.action):
                    continue
                if not own and (correction is None or on == "own"):
                    continue
                try:
                    fitted = renderer.fit(episode.history(t))
                except ContextTooLong:
                    continue
                history = without_oldest(episode.history(t), fitted.dropped)
                yield Lesson(
                    episode.key,
                    t,
                    fitted.messages,
                    collected.privileged.render(history, state),
                    list(renderer.grammar_of(episode.task).tools),
                    renderer.thinking,
                    own,
                    corrected=correction is not None and on != "own",
                    wrong=wrong[t],
                )

    def _gap(self, collected: Collected) -> dict[str, object]:
        """How much more pi_{i-1} solves with the privileged state in its prompt, and what follows from it.

        Raises:
            RunError: It is too little, and the recipe refuses to go on then.
        """
        config, i = self.config, collected.iteration
        if config.gate == "off" or not config.own_weights:
            return {}
        gaps = [collected.with_privilege(j, config.gate_tasks) for j in range(i)]
        alone, told, n = gaps[-1]
        found: dict[str, object] = {"success": alone, "privileged": told, "tasks": n}
        if i == 1 and told - alone < config.margin:
            problem = (
                f"pi_0 solves {told:.0%} of {n} validation tasks with the privileged state in its prompt, {alone:.0%} without: "
                f"as a teacher it has less than {config.margin:.0%} to give (training.margin). demonstrations.with_state has it "
                "learn to use such states."
            )
            if config.gate == "refuse":
                raise RunError(problem)
            log.warning("%s", problem)
        last = [told - alone for alone, told, _ in gaps[-3:]]
        passed = config.retire is not None and alone >= config.retire * told
        if passed and len(last) == 3 and last[0] <= last[1] <= last[2]:
            log.warning("pi_%d: the teacher is retired: the student does as well without the privileged state", i)
            found["retired"] = True
        return found


def _wrong(episode: Episode, states: Sequence[PrivilegedState]) -> list[bool | None]:
    """For each step, whether the plan was no shorter behind it; what cannot succeed any more is endlessly far. Of steps without
    a plan before or behind them nothing is known, but that the last of a success was right."""
    left = [math.inf if one.hopeless else None if one.plan is None else len(one.plan) for one in states]
    found: list[bool | None] = [
        None if before in (None, math.inf) or after is None else after >= before for before, after in pairwise(left)
    ]
    return [*found, False if episode.success else None]


def _check_same_tokens(student: str, teacher: str) -> None:
    """Looks whether two models have the same tokens.

    Raises:
        RecipeError: They have not.
        PrerequisiteError: There is no such teacher.
    """
    from leap.models.checking import check_checkpoint
    from leap.models.checkpoints import load_chat

    check_checkpoint(teacher)
    one, other = (load_chat(path)[0].tokenizer.get_vocab() for path in (student, teacher))
    if one != other:
        apart = len(dict(one.items() ^ other.items()))
        raise RecipeError(
            f"training.teacher: hf/{teacher} has another tokenizer than the student {student} ({apart:,} tokens differ). Its "
            "distribution says nothing of the student's tokens; let it correct instead (teacher.kind: model)."
        )
