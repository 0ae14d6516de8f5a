"""A rehearsal: a recipe's own actors and teacher work on a few tasks, with a script in the place of every model and their calls
in a ledger of their own. What that books is multiplied: by how many tasks there are, and up to the horizon, for the stand-ins
end sooner.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

from leap.core import Actor, Episode, StopReason, Task, content_key
from leap.demonstrations.sources import PlayedConfig
from leap.envs.base import listed
from leap.files import Journal
from leap.models.base import Completion, Model, Request
from leap.models.metered import MeteredModel
from leap.models.mock import Calls, MockModel, first_choice, least_value
from leap.models.providers import ModelConfig
from leap.policies.base import ExpertPolicy, Policy
from leap.policies.model import ModelPolicy
from leap.rollouts import Play, rollout
from leap.runs.actors import Actors
from leap.runs.policies import PolicySpec, baselines_of
from leap.sync import run_sync
from leap.teachers.config import ModelTeacherConfig
from leap.teachers.onfile import HEADINGS

SAMPLE = 8
"""So many tasks are played for each stage."""
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


@dataclass(frozen=True, slots=True)
class _Sample:
    """Episodes of some tasks, how many times as many tasks there are in all, and how many times as many steps to the horizon."""

    episodes: list[Episode]
    tasks: float
    steps: float


class Rehearsal(Actors):
    """A recipe's actors with a script in the place of every model."""

    def open_model(self, section: ModelConfig) -> Model:
        """A script under a model's name; what it is asked is booked if the model's calls are paid for."""
        sampling = section.sampling.sampling()
        model = MockModel(_answer, sampling=sampling)
        model.name = section.model
        return _Asked(model, sampling, self.ledger) if section.paid else model

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

    def some_play(self) -> list[Episode]:
        """Scripted play of some training tasks."""
        section = self.recipe.environment
        return self._played("time", self._acting(), self._tasks(section.train, section.train_tasks), self.recipe.horizon).episodes

    def _acting(self) -> Policy:
        """Who plays in the student's place: the expert, where there is one."""
        tutor = self.environment.tutor
        student = ModelPolicy(MockModel(first_choice), self.whole_renderer, Actor(name="student"))
        return ExpertPolicy(self.environment) if tutor is not None and tutor.plays else student

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
        stage, extraction = f"correct {which}", f"extract {which}"
        sample, by_step = self._played(stage, self._acting(), tasks, horizon), True
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


class _Asked(MeteredModel):
    """Books the same question each time: students do not play two tasks word for word alike, as a script does."""

    asked = 0

    def request_key(self, asked: Request) -> str:
        self.asked += 1
        return content_key(super().request_key(asked), self.asked)


def _answer(request: Request) -> str | Calls:
    """An answer of the usual length in the form asked for, on every step asked about; a privileged state names nothing."""
    if all(f"\n{heading}: <" in request.messages[-1]["content"] for heading in HEADINGS):
        return "\n".join(f"{heading}: {_SAID}" for heading in HEADINGS)
    if request.schema is None:
        chosen = first_choice(request)
        return chosen if isinstance(chosen, Calls) else f"REASON: {_SAID}\n{chosen.splitlines()[-1]}"
    return json.dumps(least_value(request.schema)).replace('"mock"', json.dumps(_SAID))
