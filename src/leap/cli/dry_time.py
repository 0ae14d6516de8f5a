"""How long a run may take: the tokens of each stage (`dry_work`) at the speeds of GPUs, and at those that the recipe's own
student shows on this machine in some seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from rich.console import Console
from torch import cuda

from leap.cli.dry_work import CARDS, PEAK, READING, TYPICAL, Work, card_hours, lengths_of, rough, weights_of, works
from leap.cli.rehearsal import SAMPLE, Rehearsal
from leap.cli.table import print_table
from leap.core.message import Message
from leap.datasets import Row, demonstration_rows
from leap.demonstrations.sources import PlayedConfig
from leap.envs.base import Environment
from leap.errors import LeapError, PrerequisiteError
from leap.models.base import Model, Request
from leap.models.ledger import Budget
from leap.models.providers import open_model
from leap.progress import Bar, Progress
from leap.recipe import Recipe
from leap.runs.actors import Actors
from leap.runs.directory import RunDirectory
from leap.runs.stages import Stages
from leap.sync import run_sync
from leap.training.config import SFTConfig
from leap.training.method import Job, method_of

_TRIED, _STEPS, _ANSWER = 16, 3, 24
"""To measure the speed here, so many prompts are answered twice by at most so many tokens, and so many steps are trained."""
LARGEST = 2e9
"""Weights up to which a student is loaded on a CPU to be measured."""



def print_time(recipe: Recipe, environment: Environment, problems: Sequence[LeapError], console: Console) -> None:
    """Prints about how long the run takes. `problems` are what it lacks here."""
    student, why = recipe.student, "the run cannot start here yet" if problems else ""
    few = _few(recipe)
    with TemporaryDirectory() as folder, closing(Stages(few, RunDirectory(Path(folder)), _Silent(), environment)) as stages:
        stages.actors = rehearsal = Rehearsal(few, stages.run, environment)
        began, base = time.monotonic(), student.base
        try:
            if student.from_scratch:
                base = stages.base()  # made once, however long the run is
            once = time.monotonic() - began
            renderer = rehearsal.whole_renderer if problems else rehearsal.renderer
            began, episodes = time.monotonic(), rehearsal.some_play()
            action = (time.monotonic() - began) / max(sum(len(episode.steps) for episode in episodes), 1)
            lengths = lengths_of(episodes, renderer, rough if problems else renderer.length)
            most, likely = (works(recipe, environment, lengths, share) for share in (1, TYPICAL))
            if not student.from_scratch:
                weights = _print_hours(recipe, most, likely, console, here=not problems)
                if not why and weights > LARGEST and not cuda.is_available():
                    why = "without a GPU so large a student is not loaded for that"
            if why:
                raise PrerequisiteError(why)
            speeds = measured(recipe, rehearsal, base, list(demonstration_rows(episodes, renderer)))
            times = [_about(once + seconds_here(one, speeds, action)) for one in (likely, most)]
            waiting = ", and the time that paid models take to answer" if any(model.paid for model in recipe.models) else ""
            told = (
                f"Time: about {' to '.join(dict.fromkeys(times))} on this machine, as busy as it is now{waiting}. A rehearsal "
                f"gave that, in which the student read {speeds.read:,.0f}, wrote {speeds.written:,.0f} and was trained on "
                f"{speeds.trained:,.0f} tokens a second: episodes last to their horizon, a quarter to all are corrected."
            )
        except LeapError as error:
            told = f"No time is estimated for this machine: {error}"
        finally:
            rehearsal.close()
    console.print(told, markup=False, soft_wrap=True)


def _about(seconds: float) -> str:
    minutes = seconds / 60
    return "a minute or less" if minutes < 1.5 else f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


def _print_hours(recipe: Recipe, most: Sequence[Work], likely: Sequence[Work], console: Console, *, here: bool) -> float:
    """Prints the student's part in hours of GPUs; returns its number of weights."""
    weights, source = weights_of(recipe.student.base, here=here)
    batch = recipe.student.batch

    def row(name: str, stages: Sequence[Work]) -> list[str]:
        tokens = [sum(getattr(work, kind) for work in stages) for kind in ("read", "written", "trained")]
        hours = [sum(card_hours(work, weights, card, batch) for work in stages) for card in CARDS.values()]
        return [name, *(f"{number / 1e6:,.1f}" if number else "" for number in tokens), *(f"{one:,.1f}" for one in hours)]

    rows = [*(row(work.stage, [work]) for work in most), row("total", most), row(f"total, {TYPICAL:.0%} corrected", likely)]
    figures = ("M read", "M written", "M trained", *(f"hours {name}" for name in CARDS))
    print_table(("student", *figures), rows, right=figures, bold=[len(most)])
    tokens = "by its tokenizer" if here else "of four characters"
    console.print(
        f"Millions of tokens ({tokens}) and GPU hours of {weights / 1e9:.2f} billion weights (by {source}). A token trained is "
        "6 operations for each weight (LoRA 4; gradient_checkpointing 2 more), one read or written 2, prefixes kept, at "
        f"{PEAK:.0%} of the card's peak; answers are written {batch} at once at {READING:.0%} of its memory's speed. At most, "
        "all episodes last to their horizon and are corrected. N GPUs share the hours of training.",
        soft_wrap=True,
    )
    return weights


class Speeds(NamedTuple):
    """Tokens per second, as of `Work`."""

    read: float
    written: float
    trained: float


def seconds_here(stages: Sequence[Work], speeds: Speeds, action: float) -> float:
    """Seconds on this machine, where an action of the environment takes so long."""
    sft = min((work.passes for work in stages if work.trained), default=1)  # what the speed was measured on
    return sum(
        work.read / speeds.read + work.written / speeds.written + work.trained / speeds.trained * work.passes / sft
        + work.actions * action
        for work in stages
    )  # fmt: skip


def measured(recipe: Recipe, actors: Actors, base: str, rows: Sequence[Row]) -> Speeds:
    """The student's speeds on this machine: some prompts answered twice, the second time from what is computed already, and some
    steps of its training."""
    student = recipe.student
    prompts = [row.prompt for row in rows[:: max(1, len(rows) // _TRIED)]][: min(_TRIED, student.batch)]
    sampling = student.sampling.model_copy(update={"max_tokens": _ANSWER, "temperature": 1.0})
    model = open_model(student.opened_as(base), sampling, batch=len(prompts), dtype=student.dtype)
    try:
        first, again = run_sync(_answered(model, prompts))
    finally:
        model.close()
    written = again.tokens / again.seconds
    read = first.prompt / max(first.seconds - first.tokens / written, 0.05 * first.seconds)
    training = recipe.training.model_dump(mode="json")
    few = {"steps": _STEPS, "first_steps": None, "save_steps": 0, "logging": "none", "processes": 1, "method": "sft"}
    sft = SFTConfig.model_validate(SFTConfig.in_place_of(training) | few).settled(actors.bf16_pays)
    method, ends = method_of(sft), list[float]()
    with TemporaryDirectory() as folder:
        job = Job(0, base, Path(folder, "out"), Path(folder, "work"), 0, lambda *_: ends.append(time.monotonic()))
        job.out.mkdir()
        result = method.train(list(rows), job)
    return Speeds(read, written, result.tokens / result.steps * (len(ends) - 1) / (ends[-1] - ends[0]))


class _Turn(NamedTuple):
    seconds: float
    prompt: int
    tokens: int


async def _answered(model: Model, prompts: Sequence[list[Message]]) -> list[_Turn]:
    turns = []
    async with AsyncExitStack() as stack:
        conversations = [await stack.enter_async_context(model.conversation()) for _ in prompts]
        for seed in range(2):
            began, asked = time.monotonic(), zip(conversations, prompts, strict=True)
            answers = await asyncio.gather(*(one.complete(Request(prompt, seed)) for one, prompt in asked))
            tokens = sum(max(answer.completion_tokens, 1) for answer in answers)
            turns.append(_Turn(time.monotonic() - began, sum(answer.prompt_tokens for answer in answers), tokens))
    return turns


class _Silent(Progress):
    """Shows nothing."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))

    @contextmanager
    def stage(self, what: str, *, notes: bool = False) -> Iterator[Bar]:
        yield Bar(lambda done, total, rate, note: None)


def _few(recipe: Recipe) -> Recipe:
    """The same with so few demonstrations as a rehearsal needs, and no money to spend."""
    section: Any = recipe.demonstrations
    if isinstance(section, PlayedConfig):
        section = section.model_copy(update={"episodes": min(section.episodes or SAMPLE, SAMPLE), "annotate": None})
    return recipe.model_copy(update={"demonstrations": section, "budget": Budget()})
