"""`leap run --dry-run`: whether names and options are right, what paid models would be asked and may cost, and how long a run may
take, before anything is spent.

The recipe's own actors and teacher work on a few tasks, with a script in the place of every model and their calls in a ledger of
their own. What that books is multiplied: by how many tasks there are, and up to the horizon, for the stand-ins end sooner. The
time is that of the recipe itself with few tasks, one iteration and a few steps of training, multiplied alike.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from leap.cli.table import print_table
from leap.core import Actor, Episode, StopReason, Task
from leap.demonstrations.sources import PlayedConfig
from leap.envs.base import Environment, listed
from leap.errors import LeapError
from leap.files import Journal, read_json
from leap.loop import leap
from leap.models.base import Completion, Model, Request
from leap.models.ledger import Budget, MeteredModel, check_price
from leap.models.mock import Calls, MockModel, first_choice, least_value
from leap.models.prices import Prices
from leap.models.providers import ModelConfig
from leap.policies.base import ExpertPolicy, Policy
from leap.policies.model import ModelPolicy
from leap.progress import Bar, Progress
from leap.recipe import Recipe
from leap.rollouts import Play, rollout
from leap.runs.actors import Actors
from leap.runs.directory import RunDirectory
from leap.runs.policies import PolicySpec, baselines_of
from leap.runs.preflight import prepared_environment, unmet
from leap.runs.stages import Stages
from leap.sync import run_sync
from leap.teachers.config import ModelTeacherConfig
from leap.teachers.onfile import HEADINGS
from leap.training.config import PreferenceConfig
from leap.training.method import method_of

SAMPLE = 8
"""So many tasks are played for each stage."""
ACTIONS, STEPS = 2, 4
"""To estimate the time a batch of tasks of each split is played for so many actions, and where a recipe states a number of steps
of training, so many are taken."""
_SAID = "I have not found what the task needs yet, so I look where it is often found."


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one stage asks of one model, at most.

    Attributes:
        stage: The stage, by its name in the ledger.
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


def print_estimate(recipe: Recipe) -> None:
    """Prints what is missing here, calls, tokens and USD of each stage, at most (answers that must be asked for again come on
    top), and about how long the run takes.

    Raises:
        LeapError: See `estimate_recipe`.
    """
    console = Console(width=None if Console().is_terminal else 120)
    with closing(prepared_environment(recipe, Progress())) as environment:
        _print_calls(recipe, estimate_recipe(recipe, environment), console)
        missing = list(unmet(recipe))
        for problem in missing:
            console.print(f"The run cannot start here yet: {problem}", markup=False, soft_wrap=True)
        if not missing:
            console.print(_told_time(recipe, environment), soft_wrap=True)


def _told_time(recipe: Recipe, environment: Environment) -> str:
    from torch import cuda

    if not (recipe.student.from_scratch or cuda.is_available()):
        return "No time is estimated: without a GPU the student is not loaded for that."
    try:
        minutes = estimate_seconds(recipe, environment) / 60
    except LeapError as error:
        return f"No time is estimated: {error}"
    about = f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
    waiting = ", and the time that paid models take to answer" if any(model.paid for model in recipe.models) else ""
    about = "a minute or less" if minutes < 1 else about
    return (
        f"Time: about {about} on this machine, as busy as it is now{waiting}. A rehearsal gave that, in which the student is "
        "hardly trained and answers at length: a run is mostly faster."
    )


def _print_calls(recipe: Recipe, stages: Sequence[Estimate], console: Console) -> None:
    if not stages:
        console.print("This recipe asks no paid model: every model of it runs on this machine.")
        return
    known = [stage.usd for stage in stages if stage.usd is not None]
    usd = sum(known) if len(known) == len(stages) else None
    numbers = [(stage.calls, stage.tokens_in, stage.tokens_out) for stage in stages]
    rows = []
    for stage in (*stages, Estimate("total", "", *map(sum, zip(*numbers, strict=True)), usd=usd)):
        cost = "price unknown" if stage.usd is None else f"{stage.usd:.2f}"
        rows.append(
            (stage.stage, stage.model, f"{stage.calls:,}", f"{stage.tokens_in:,}", f"{stage.tokens_out:,}", cost)
        )
    figures = ("calls", "tokens in", "tokens out", "USD")
    print_table(("stage", "model", *figures), rows, right=figures)
    console.print(
        "At most: every episode is taken to last to its horizon and to be corrected. Lengths are those of scripted play of "
        f"{SAMPLE} tasks, at four characters a token."
    )
    cap = recipe.budget.usd
    if cap is not None and usd is not None and usd > cap:
        console.print(f"That is more than budget.usd {cap:g}: the run would stop there and go on when it is raised.")


def estimate_seconds(recipe: Recipe, environment: Environment) -> float:
    """Seconds that a run may take here, without what paid models take to answer.

    Raises:
        LeapError: The rehearsal cannot be done.
    """
    section, demonstrations, rounds = recipe.environment, recipe.demonstrations, min(recipe.iterations, 1)

    def counts(of: Recipe) -> dict[str, int]:
        own, played = of.environment, getattr(of.demonstrations, "episodes", None)
        limits = [("demonstrated", own.train, played), ("trained", own.train, own.train_tasks)]
        limits += [(split, split, own.test_tasks) for split in own.test] + [("validated", own.validation, own.validation_tasks)]
        return {use: len(listed(environment, split, limit=limit)) for use, split, limit in limits}

    batch = recipe.student.batch
    fewer = {key: min(getattr(section, key) or batch, batch) for key in ("train_tasks", "validation_tasks", "test_tasks")}
    update: dict[str, Any] = {"iterations": rounds, "environment": section.model_copy(update=fewer)}
    if isinstance(demonstrations, PlayedConfig):
        anything = {"successes_only": False, "min_score": 0.0}  # so few actions solve nothing
        kept = {key: value for key, value in anything.items() if key in type(demonstrations).model_fields}
        few = min(demonstrations.episodes or batch, batch)
        update["demonstrations"] = demonstrations.model_copy(update={"episodes": few, **kept})
    training, steps = recipe.training, {"steps": STEPS, "first_steps": STEPS, "save_steps": 0, "logging": "none"}
    planned = [method_of(training).planned_steps(i) for i in range(rounds + 1)]
    known = all(number is not None for plan in planned for number in plan.values())
    if known:
        sft = {"sft": training.sft.model_copy(update=steps)} if isinstance(training, PreferenceConfig) else {}
        steps = {key: value for key, value in steps.items() if key in type(training).model_fields}
        update["training"] = training.model_copy(update=steps | sft)
    short = {"horizon": min(recipe.horizon, ACTIONS), "evaluation_horizon": min(recipe.test_horizon, ACTIONS)}
    small = recipe.model_copy(update={**update, **short, "budget": Budget()})
    every, some = counts(recipe), counts(small)
    times = {use: every[use] / some[use] for use in every}
    tested = sum(every[use] for use in every if use not in ("demonstrated", "trained"))
    times["tested"] = tested / sum(some[use] for use in some if use not in ("demonstrated", "trained"))

    def whole(record: dict[str, Any]) -> float:
        """Seconds in the run of what took a stage so long in the rehearsal."""
        stage, i, seconds = record["stage"], record["iteration"], record["seconds"]
        more = recipe.iterations if i == 1 else 1
        if stage == "train" and known:
            steps, at = sum(number or 0 for number in planned[i].values()), watch.at.get(record["what"], [])
            each = (at[-1] - at[0]) / (len(at) - 1) if len(at) > 1 else seconds / STEPS
            return more * (seconds + each * (steps - STEPS * len(planned[i])))
        if stage in ("rollout", "correct", "train"):
            return seconds * more * times["trained" if i else "demonstrated"] * recipe.horizon / small.horizon
        return seconds * more * times["tested"] * recipe.test_horizon / small.test_horizon

    began, watch = time.monotonic(), _Watch()
    with TemporaryDirectory() as folder:
        stages = Stages(small, RunDirectory(Path(folder)), watch, environment)
        stages.actors = rehearsal = _Rehearsal(small, stages.run, environment)
        try:
            stages.base()  # a scratch student is made once, however long the run is
            once = time.monotonic() - began
            leap(stages)
            records = read_json(stages.run.stages)
        finally:
            rehearsal.close()
    return once + sum(map(whole, records))


class _Watch(Progress):
    """Shows nothing, and notes when each stage told how far it was.

    Attributes:
        at: Seconds on the machine's clock, by what the stage does.
    """

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self.at: dict[str, list[float]] = {}

    @contextmanager
    def stage(self, what: str, *, notes: bool = False) -> Iterator[Bar]:
        noted = self.at.setdefault(what, [])
        yield Bar(lambda done, total, rate, note: noted.append(time.monotonic()))


def estimate_recipe(recipe: Recipe, environment: Environment | None = None) -> list[Estimate]:
    """The estimate of each stage that asks a paid model. The environment is the recipe's, where it has been made ready already.

    Raises:
        LeapError: The run itself would refuse to start: a cap in USD is set and a price is not known, a split is misused, data
            is missing.
    """
    paid = [section.model for section in recipe.models if section.paid]
    if not paid:
        return []
    prices = Prices(recipe.prices)
    for name in paid:
        check_price(name, prices, recipe.budget)
    own = environment is None
    environment = environment or prepared_environment(recipe, Progress())
    with TemporaryDirectory() as folder:
        rehearsal = _Rehearsal(recipe.model_copy(update={"budget": Budget()}), RunDirectory(Path(folder)), environment)
        try:
            return list(rehearsal.estimates())
        finally:
            rehearsal.close()
            if own:
                environment.close()


@dataclass(frozen=True, slots=True)
class _Sample:
    """Episodes of some tasks, how many times as many tasks there are in all, and how many times as many steps to the horizon."""

    episodes: list[Episode]
    tasks: float
    steps: float


class _Rehearsal(Actors):
    """A recipe's actors with a script in the place of every model."""

    def open_model(self, section: ModelConfig) -> Model:
        """A script under a model's name; what it is asked is booked if the model's calls are paid for."""
        sampling = section.sampling.sampling()
        model = MockModel(_answer, sampling=sampling)
        model.name = section.model
        return MeteredModel(model, sampling, self.ledger) if section.paid else model

    def estimates(self) -> Iterator[Estimate]:
        """Each stage that asks a paid model, in the order of the run."""
        recipe, section = self.recipe, self.recipe.environment
        validated = self._tasks(section.validation, section.validation_tasks)
        tested = [task for split in section.test for task in self._tasks(split, section.test_tasks)]
        if isinstance(recipe.demonstrations, PlayedConfig):
            yield from self._demonstrated(recipe.demonstrations)
        for spec in baselines_of(recipe, self.environment):
            if self.pays(spec):
                stage = f"baseline {spec.actor}"
                sample = self._played(stage, self.acting(spec).policy(), [*validated, *tested], recipe.test_horizon)
                yield from self._booked(stage, sample, by_step=True)
        training = self._tasks(section.train, section.train_tasks)
        corrected = list(self._corrected("", training, recipe.horizon))
        measured = list(self._corrected("held-out ", validated[: recipe.measures.held_out or 0], recipe.test_horizon))
        for i in range(recipe.iterations + 1):  # the stand-ins do not change
            yield from (replace(one, stage=f"{one.stage}{i}") for one in [*(corrected if i else []), *measured])

    def _demonstrated(self, section: PlayedConfig) -> Iterator[Estimate]:
        """D_0, which prompted baselines are shown examples of."""
        tasks = self.demonstrations.tasks(self._tasks(self.recipe.environment.train, section.episodes))
        sample = self._played("rollout 0", self.acting(PolicySpec("demonstrator")).policy(), tasks, self.recipe.horizon)
        yield from self._booked("rollout 0", sample, by_step=True)
        journal = Journal(self.run.episodes(0), Episode)
        for episode in sample.episodes:
            journal.append(episode)
        if section.annotate is not None:
            with self.ledger.stage("annotate"):
                run_sync(self.annotator(section.annotate).annotate_all(sample.episodes, lambda episode: None))
            yield from self._booked("annotate", replace(sample, steps=1))

    def _corrected(self, which: str, tasks: Sequence[Task], horizon: int) -> Iterator[Estimate]:
        teacher = self.recipe.teacher
        if not any(section.paid for section in teacher.models):
            return
        stage, extraction, tutor = f"correct {which}", f"extract {which}", self.environment.tutor
        student = ModelPolicy(MockModel(first_choice), self.whole_renderer, Actor(name="student"))
        acting = ExpertPolicy(self.environment) if tutor is not None and tutor.plays else student
        sample, by_step = self._played(stage, acting, tasks, horizon), True
        if isinstance(teacher, ModelTeacherConfig):
            by_step = teacher.by == "step"
            if teacher.state == "extracted":
                with self.ledger.stage(extraction):
                    run_sync(self.extractor(0, teacher).extract_all(sample.episodes))
                yield from self._booked(extraction, replace(sample, steps=1))
        with self.ledger.stage(stage):
            run_sync(self.teacher(0).correct_all(sample.episodes, lambda episode, corrections: None))
        yield from self._booked(stage, sample, by_step=by_step)

    def _tasks(self, split: str, limit: int | None) -> list[Task]:
        return listed(self.environment, split, limit=limit, seed=self.recipe.seed)

    def _played(self, stage: str, policy: Policy, tasks: Sequence[Task], horizon: int) -> _Sample:
        """Some of the tasks, spread over all of them."""
        some, episodes = tasks[:: -(-len(tasks) // SAMPLE) or 1], []
        # A stream for each stage, as in the run: what two stages ask alike is asked, and paid, for both.
        play = Play(some, horizon, self.recipe.seed, stage)
        with self.ledger.stage(stage):
            rollout(self.environment, policy, play, episodes.append, error_share=0.5)
        episodes = [episode for episode in episodes if episode.stop is not StopReason.ENVIRONMENT_ERROR]
        steps = sum(len(episode.steps) for episode in episodes)
        return _Sample(episodes, len(tasks) / max(len(episodes), 1), horizon * len(episodes) / max(steps, 1))

    def _booked(self, stage: str, sample: _Sample, *, by_step: bool = False) -> Iterator[Estimate]:
        """What was booked under a stage, for all its tasks and up to the horizon: longer prompts and answers, or more of them."""
        for booked in self.ledger.totals():
            if booked.stage == stage:
                more_calls = sample.tasks * (sample.steps if by_step else 1)
                tokens_in = ceil(booked.tokens_in * more_calls * sample.steps)
                tokens_out = ceil(booked.tokens_out * sample.tasks * sample.steps)
                price = self.ledger.prices.get(booked.model)
                usd = price.of(Completion("", tokens_in, tokens_out)) if price else None
                yield Estimate(stage, booked.model, ceil(booked.calls * more_calls), tokens_in, tokens_out, usd)


def _answer(request: Request) -> str | Calls:
    """An answer of the usual length in the form asked for, on every step asked about; a privileged state names nothing."""
    if all(f"\n{heading}: <" in request.messages[-1]["content"] for heading in HEADINGS):
        return "\n".join(f"{heading}: {_SAID}" for heading in HEADINGS)
    if request.schema is None:
        chosen = first_choice(request)
        return chosen if isinstance(chosen, Calls) else f"REASON: {_SAID}\n{chosen.splitlines()[-1]}"
    return json.dumps(least_value(request.schema)).replace('"mock"', json.dumps(_SAID))
