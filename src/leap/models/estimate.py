"""What a recipe will ask of its models, before anything is spent: calls, tokens and USD of each stage.

Sums alone, from numbers that the recipe states and from lengths that are guessed or measured. Episodes are taken to last to
their horizon and nothing is taken to fail, to be cached or to be asked twice, so it is what a run costs at most, but for
answers that have to be asked for again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from leap.core.message import Message, characters
from leap.models.base import Completion
from leap.models.prices import Prices


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean tokens of one call.

    Attributes:
        prompt: Of the prompt.
        answer: Of the answer.
    """

    prompt: float
    answer: float


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """What one stage asks of one model.

    Attributes:
        stage: Name of the stage.
        model: `provider/model`.
        calls: Number of calls.
        tokens_in: Tokens of their prompts.
        tokens_out: Tokens of their answers.
        usd: What they cost; None where the price is unknown.
    """

    stage: str
    model: str
    calls: int
    tokens_in: int
    tokens_out: int
    usd: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def stage_estimate(stage: str, model: str, calls: int, lengths: Lengths, prices: Prices) -> StageEstimate:
    """So many calls of such lengths."""
    tokens_in, tokens_out = math.ceil(calls * lengths.prompt), math.ceil(calls * lengths.answer)
    price = prices.get(model)
    return StageEstimate(
        stage, model, calls, tokens_in, tokens_out, price.of(Completion("", tokens_in, tokens_out)) if price else None
    )


def estimate(
    *,
    prices: Prices,
    iterations: int,
    horizon: int,
    rollout_tasks: int,
    evaluation_tasks: int,
    corrected_episodes: int,
    teacher: str | None,
    correction: Lengths,
    by: Literal["trajectory", "step"] = "trajectory",
    student: str | None = None,
    turn: Lengths | None = None,
    evaluation_horizon: int | None = None,
    baselines: Sequence[str] = (),
    extracted_tasks: int = 0,
    extraction: Lengths | None = None,
    annotated_episodes: int = 0,
    annotator: str | None = None,
    annotation: Lengths | None = None,
    held_out_episodes: int = 0,
) -> list[StageEstimate]:
    """Calls, tokens and USD of each stage of a run, in the order of Algorithm 1.

    Args:
        prices: The price table.
        iterations: N of Algorithm 1.
        horizon: Most actions per episode.
        rollout_tasks: Training tasks rolled out per iteration.
        evaluation_tasks: Tasks of all evaluated splits together, per evaluated policy.
        corrected_episodes: Episodes corrected per iteration; at most `rollout_tasks`.
        teacher: `provider/model` of the teacher; None for a programmatic one, which costs nothing.
        correction: Mean lengths of one correcting call.
        by: One call per trajectory (the paper's way) or one per step.
        student: `provider/model` of the student; None for one in this process.
        turn: Mean lengths of one turn of the student or of a baseline.
        evaluation_horizon: Most actions per evaluated episode; `horizon` by default.
        baselines: `provider/model` of each further policy that is evaluated (ReAct, the teacher without privilege).
        extracted_tasks: Tasks whose privileged state a model reads from an expert's log, one call each.
        extraction: Mean lengths of such a call.
        annotated_episodes: Demonstrations whose reasons a model writes, one call each.
        annotator: `provider/model` of that model; the teacher by default.
        annotation: Mean lengths of such a call.
        held_out_episodes: Validation episodes of each student that are corrected only to measure on.

    Returns:
        One entry per stage and model that calls for something; empty where nothing is asked of any endpoint.
    """
    horizon_then = evaluation_horizon or horizon
    turn = turn or Lengths(0, 0)
    found: list[StageEstimate] = []

    def add(stage: str, model: str | None, calls: int, lengths: Lengths | None) -> None:
        if model is not None and calls and lengths is not None:
            found.append(stage_estimate(stage, model, calls, lengths, prices))

    add("extract privileged states", teacher, extracted_tasks, extraction)
    add("annotate demonstrations", annotator or teacher, annotated_episodes, annotation)
    for baseline in baselines:
        add("evaluate baseline", baseline, evaluation_tasks * horizon_then, turn)
    held_out = held_out_episodes * (horizon_then if by == "step" else 1)
    add("evaluate pi_0", student, evaluation_tasks * horizon_then, turn)
    add("correct held-out 0", teacher, held_out, correction)
    for i in range(1, iterations + 1):
        add(f"rollout {i}", student, rollout_tasks * horizon, turn)
        corrected = min(corrected_episodes, rollout_tasks)
        add(f"correct {i}", teacher, corrected * (horizon if by == "step" else 1), correction)
        add(f"evaluate pi_{i}", student, evaluation_tasks * horizon_then, turn)
        add(f"correct held-out {i}", teacher, held_out, correction)
    return found


def total_estimate(stages: Iterable[StageEstimate]) -> StageEstimate:
    """The sum; its price is unknown as soon as one stage's is."""
    stages = list(stages)
    known = [stage.usd for stage in stages if stage.usd is not None]
    return StageEstimate(
        "total",
        "",
        sum(stage.calls for stage in stages),
        sum(stage.tokens_in for stage in stages),
        sum(stage.tokens_out for stage in stages),
        sum(known) if len(known) == len(stages) else None,
    )


def trajectory_lengths(fixed: float, per_step: float, answer_per_step: float, horizon: int) -> Lengths:
    """Lengths of a call that corrects a whole trajectory: instructions and privileged state once, then so much per step."""
    return Lengths(fixed + per_step * horizon, answer_per_step * horizon)


def rough_tokens(text: str | Sequence[Message]) -> int:
    """A guess at the tokens of a text or of a prompt, at four characters each; English runs a little longer."""
    return -(-(len(text) if isinstance(text, str) else characters(text)) // 4)
