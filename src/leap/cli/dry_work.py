"""What a run has its student compute, in tokens, and how many hours of a GPU that need not be here that is.

Tokens are those of a rehearsal: scripted play of some training tasks, rendered and measured as the student is asked. Every
episode is taken to last to its horizon and, at most, to be corrected. A GPU's speed follows from its data sheet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from leap.core import Episode
from leap.core.message import Length, Message, ToolSpec, characters, with_tools
from leap.datasets import demonstration_rows
from leap.envs.base import Environment, listed
from leap.errors import PrerequisiteError
from leap.policies.rendering import Renderer
from leap.recipe import Recipe
from leap.training.config import PreferenceConfig, SFTConfig
from leap.training.method import method_of

TYPICAL = 0.25
"""Beside all of them, so many of the episodes are taken to be corrected."""
class Card(NamedTuple):
    """A GPU by its data sheet: dense bfloat16 operations and bytes of memory, both per second."""

    flops: float
    bandwidth: float


CARDS = {"A6000": Card(155e12, 0.77e12), "A100": Card(312e12, 2.0e12), "H100": Card(989e12, 3.35e12)}
PEAK, READING = 0.4, 0.5
"""Shares of a card's peak, and of its memory's, that are taken to be reached."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a stage has the student compute, in tokens.

    Attributes:
        stage: Its name.
        read: Of prompts, those computed already in the same episode left out.
        written: Of answers.
        trained: Of training rows, prompts included, once for each time that they are trained on.
        passes: What a trained token costs, in passes forward through the weights.
        actions: Actions played in the environment.
    """

    stage: str
    read: float = 0
    written: float = 0
    trained: float = 0
    passes: float = 0
    actions: float = 0


class Lengths(NamedTuple):
    """Means over a rehearsal: tokens of a first prompt, by how many prompts grow with each step, how many of a later one are new,
    tokens of an answer, and steps of an episode."""

    first: float
    growth: float
    fresh: float
    answer: float
    steps: float


def lengths_of(episodes: Sequence[Episode], renderer: Renderer, length: Length) -> Lengths:
    """What the student would be asked in these episodes, and would answer."""
    first, growth, fresh, answers = [], [], [], []
    for episode in episodes:
        measure = with_tools(length, renderer.grammar_of(episode.task).tools)
        rows = list(demonstration_rows([episode], renderer))
        texts = ["\n".join(str(message["content"]) for message in row.prompt) for row in rows]
        tokens = [measure(row.prompt) for row in rows]
        first += tokens[:1]
        growth += [(tokens[-1] - tokens[0]) / (len(tokens) - 1)] if len(tokens) > 1 else []
        for before, text, count in zip(texts, texts[1:], tokens[1:], strict=False):
            shared = next((i for i, (a, b) in enumerate(zip(before, text, strict=False)) if a != b), len(before))
            fresh.append(count * (1 - shared / max(len(text), 1)))
        bare = measure([{"role": "user", "content": ""}])
        answers += [max(measure([{"role": "user", "content": "\n".join(row.texts()[-1:])}]) - bare, 1) for row in rows]

    def mean(values: Sequence[float], none: float) -> float:
        return sum(values) / len(values) if values else none

    start = mean(first, 0)
    steps = mean([len(episode.steps) for episode in episodes], 1)
    return Lengths(start, mean(growth, 0), mean(fresh, start), mean(answers, 1), steps)


def works(recipe: Recipe, environment: Environment, lengths: Lengths, corrected: float = 1) -> list[Work]:
    """The work of each stage, where so large a share of the episodes is corrected."""
    section, training = recipe.environment, recipe.training

    def count(split: str, limit: int | None) -> int:
        return len(listed(environment, split, limit=limit))

    def played(stage: str, episodes: int, horizon: int) -> Work:
        read = episodes * (lengths.first + (horizon - 1) * lengths.fresh)
        return Work(stage, read, episodes * horizon * lengths.answer, actions=episodes * horizon)

    trained = count(section.train, section.train_tasks)
    evaluated = count(section.validation, section.validation_tasks)
    evaluated += sum(count(split, section.test_tasks) for split in section.test)
    demonstrations, method, cap = recipe.demonstrations, method_of(training), training.max_tokens
    sft: SFTConfig = training.sft if isinstance(training, PreferenceConfig) else training  # type: ignore[assignment]
    once = bool(getattr(sft, "branches", False))  # all steps of an episode in one pass

    def rows(steps: float) -> tuple[float, float]:
        """Rows of an episode of so many steps, and their tokens."""
        whole = min(lengths.first + steps * max(lengths.growth, lengths.answer), cap)
        each = min(lengths.first + (steps - 1) / 2 * lengths.growth, cap) + lengths.answer
        return steps, whole if once else steps * each

    data: list[tuple[float, float]] = []  # rows and tokens of D_0, D_1, ..
    stages: list[Work] = []
    for i in range(recipe.iterations + 1):
        if i == 0 and demonstrations.none:
            data.append((0, 0))
        else:
            number, tokens = rows(recipe.horizon if i else lengths.steps)
            episodes = trained * corrected if i else count(section.train, getattr(demonstrations, "episodes", None))
            data.append((episodes * number, episodes * tokens))
            if i:
                stages.append(played(f"rollout {i}", trained, recipe.horizon))
                if (part := recipe.teacher.students_part(recipe.horizon)) is not None:
                    begun = lengths.first + recipe.horizon / 2 * lengths.growth
                    read = part.conversations * begun + part.answers * lengths.fresh
                    figures = [trained * corrected * each for each in (read, part.answers * lengths.answer, part.actions)]
                    stages.append(Work(f"correct {i}", figures[0], figures[1], actions=figures[2]))
            mine = [data[j] for j in method.reads(i)]
            kinds = {"train": (sft, mine), "preference": (training, [data[i], data[i]])}
            for kind, planned in method.planned_steps(i).items():
                config, collected = kinds.get(kind, kinds["train"])
                number, tokens = (sum(figures) for figures in zip(*collected, strict=True))
                if planned is not None and once and kind == "train":
                    tokens = planned * config.batch_tokens  # type: ignore[attr-defined]
                elif planned is not None:
                    tokens = planned * config.batch_rows * tokens / max(number, 1) * (2 if kind == "preference" else 1)
                else:
                    tokens *= config.epochs
                passes = (2 if config.lora else 3) + config.gradient_checkpointing + (kind == "preference")
                stages.append(Work(f"{kind} {i}", trained=tokens, passes=passes))
        stages.append(played(f"evaluate {i}", evaluated, recipe.test_horizon))
    return stages


def card_hours(work: Work, weights: float, card: Card, batch: int) -> float:
    """Hours of a card: an operation is a multiplication and an addition for each weight and token; where answers are written, the
    weights are read once for a token of every episode of a batch."""
    compute = 2 * weights * (work.read + work.written + work.passes * work.trained) / (PEAK * card.flops)
    reading = 2 * weights * work.written / batch / (READING * card.bandwidth)
    return (compute + reading) / 3600


def weights_of(base: str, *, here: bool = True) -> tuple[float, str]:
    """How many weights a token passes through in a model, and where that is known from: its configuration, or else its name.
    Nothing is fetched of a model that is not here.

    Raises:
        PrerequisiteError: From neither.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from leap.models.checkpoints import config_of

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config_of(base, local_files_only=not here))
        own = model.get_input_embeddings().weight.numel()
        tied = model.get_output_embeddings() is not None and model.config.get_text_config().tie_word_embeddings
        return float(sum(weights.numel() for weights in model.parameters()) - (0 if tied else own)), "its configuration"
    except Exception as error:  # libraries raise many things for what is not there
        named = re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)([BbMm])(?![A-Za-z])", base.replace("_", "-"))
        if not named:
            raise PrerequisiteError(f"neither {base!r} itself nor its name says how many weights it has.") from error
        number, unit = named[-1]
        return float(number) * (1e9 if unit in "Bb" else 1e6), "its name"


def rough(messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
    """Tokens of a prompt whose tokenizer is not here: four characters each."""
    return -(-characters(messages, tools) // 4)
