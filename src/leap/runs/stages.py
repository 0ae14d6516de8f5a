"""The stages of the loop, each a function from files to a file. What is on file is not made again.

tasks --rollout--> episodes --correct--> corrections --dataset--> rows --train--> checkpoint --evaluate--> evaluation
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TypeVar

from leap import datasets, registry
from leap.core import Correction, Episode, StopReason, Task, content_key, seed_of
from leap.core.message import sendable
from leap.core.record import Record
from leap.datasets import PreferenceRow, Row
from leap.envs.base import Environment, listed
from leap.envs.live import states_along
from leap.envs.replay import plans_after
from leap.errors import RunError
from leap.evaluation import Evaluation, evaluate_episodes
from leap.files import Journal, as_json, atomic_directory, read_json, write_json, write_text
from leap.models.breaker import check_lost
from leap.policies.rendering import Renderer
from leap.progress import Bar, Progress
from leap.recipe import Recipe
from leap.rollouts import Play
from leap.runs.actors import Actors
from leap.runs.correcting import correct_all, corrected, up_to_labels, who_corrects
from leap.runs.demonstrating import by_task, demonstrated_tasks, demonstrations, privileged_rows
from leap.runs.directory import RunDirectory, marker
from leap.runs.executors import Executor
from leap.runs.playing import play_tasks
from leap.runs.policies import PolicySpec, baselines_of, scripted
from leap.runs.preflight import prepared_environment
from leap.runs.table import stage_table
from leap.runs.usage import Usage
from leap.runs.valuing import value_pairs
from leap.sync import run_sync
from leap.teachers.config import ModelTeacherConfig
from leap.teachers.hindsight import siblings
from leap.teachers.prompts import PrivilegedRenderer
from leap.training.losses import loss_curves, note_loss
from leap.training.method import Collected, Job, method_of

R = TypeVar("R", bound=Record)

log = logging.getLogger(__name__)


class Stages:
    """The stages of one recipe in one run directory. The environment is the recipe's, where it has been made ready already."""

    def __init__(
        self, recipe: Recipe, run: RunDirectory, progress: Progress, environment: Environment | None = None
    ) -> None:
        self.recipe = recipe
        self.run = run
        self.progress = progress
        self._ready = environment
        self.tasks = cache(self._listed)
        self._opened = ExitStack()
        if environment is not None:
            self._opened.callback(environment.close)

    @property
    def environment(self) -> Environment:
        """The environment, its data made ready. What is finished is on file and needs none.

        Raises:
            RecipeError: A split that may only be tested on is used for training or for choosing models.
            PrerequisiteError: Its data is missing.
        """
        if self._ready is None:
            self._ready = prepared_environment(self.recipe, self.progress)
            self._opened.callback(self._ready.close)
        return self._ready

    @cached_property
    def actors(self) -> Actors:
        """Who acts: students, teacher, baselines."""
        actors = Actors(self.recipe, self.run, self.environment)
        actors.served = lambda: self.executor.served(actors)
        self._opened.callback(actors.close)
        return actors

    @cached_property
    def executor(self) -> Executor:
        """Who works on shards, and trains."""
        executor = registry.executor.get(self.recipe.executor.kind)(self.recipe.executor)
        self._opened.callback(executor.close)
        return executor

    @property
    def renderer(self) -> Renderer:
        """What makes every prompt of the student, at rollout and in training."""
        self.base()  # a scratch student's tokens, in which prompts are measured, come from the demonstrations
        return self.actors.renderer

    # ---- rollout -------------------------------------------------------------------------------------------------

    def rollout(self, i: int) -> Journal[Episode]:
        """Episodes of iteration i: the expert's demonstrations (i = 0), or pi_{i-1} on the training tasks, alone or mixed
        with the environment's teacher."""
        recipe, (spec, play), journal = self.recipe, self._rolled_out(i), self.episodes(i)
        if i == 0:
            what = f"demonstrations by {recipe.demonstrations.who}"
        else:
            self.actors.check_base()
            beta, who = recipe.rollouts.beta_at(i), f"pi_{i - 1}"
            if beta:
                who += f" mixed with the teacher ({beta:.0%} of steps)"
            what = f"rollouts of {who if beta < 1 else f'the teacher at privilege {recipe.teacher.privilege}'}"
        with self.booked(f"rollout {i}"):
            self.play(i, spec, play, journal, what)
        return journal

    def _rolled_out(self, i: int) -> tuple[PolicySpec, Play]:
        """Who plays what in iteration i."""
        section, stream = self.recipe.environment, f"rollout-{i}"
        spec = PolicySpec("rollout", iteration=i) if i else PolicySpec("demonstrator")
        tasks = self.tasks(section.train, section.train_tasks, stream) if i else demonstrated_tasks(self)
        return spec, Play(tasks, self.recipe.horizon, self.recipe.seed, stream, self.recipe.keeps_tokens)

    def episodes(self, i: int) -> Journal[Episode]:
        """Episodes of iteration i that are on file."""
        return self.journal(self.run.episodes(i), Episode)

    def in_order(self, i: int) -> list[Episode]:
        """Episodes of iteration i by task: a journal's own order is that in which they happened to finish.

        Raises:
            RunError: They are not all on file, as after an interruption.
        """
        (spec, play), journal = self._rolled_out(i), self.episodes(i)
        actor = self.actors.acting(spec).actor
        episodes = [one for task in play.tasks if (one := journal.get(play.key_of(task, actor))) is not None]
        if len(episodes) < len(play.tasks):
            raise RunError(
                f"{journal.path} holds {len(episodes)} of {len(play.tasks)} episodes; roll out iteration {i} first."
            )
        return sorted(episodes, key=by_task)

    def _listed(self, split: str, limit: int | None, stream: str) -> list[Task]:
        """Tasks of a split; with a limit, a sample of its own for each stream of the recipe's seed."""
        return listed(self.environment, split, limit=limit, seed=seed_of(self.recipe.seed, stream))

    def play(self, i: int, spec: PolicySpec, play: Play, journal: Journal[Episode], what: str) -> Sequence[Episode]:
        """Plays for the rollouts of iteration i what is not on file; returns the tasks' episodes."""
        shown = partial(self.timed, "rollout", i, what, journal.path)
        played = play_tasks(spec, play, self.actors, journal, shown, self.executor)
        self.adopt(journal.path)
        return played

    # ---- correct -------------------------------------------------------------------------------------------------

    def correct(self, i: int) -> Journal[Correction]:
        """Corrections of every step of the episodes of iteration i that the recipe has corrected."""
        journal, chosen = self.corrections(i), self._to_correct(i)
        if not chosen:
            told = "iteration %d: no episode scores as low as a failure (teacher.failure_score: %g), so none is corrected; "
            log.warning(f"{told}teacher.episodes: all has every one corrected", i, self.recipe.teacher.failure_score)
        self.correct_episodes(i - 1, chosen, journal, i)
        return journal

    def _to_correct(self, i: int) -> list[Episode]:
        """Those of iteration i's episodes that the recipe has corrected, by task."""
        section = self.recipe.teacher
        chosen = [
            episode
            for episode in self.in_order(i)
            if episode.stop is not StopReason.ENVIRONMENT_ERROR
            and (section.episodes == "all" or episode.score <= section.failure_score)
        ]
        return up_to_labels(section.labels, chosen, self.recipe.seed, f"labels-{i}")

    def correct_episodes(
        self, student: int, episodes: Sequence[Episode], journal: Journal[Correction], iteration: int
    ) -> None:
        """Has those episodes of a student corrected that are not in the journal with all their steps. Times and costs are noted
        under an iteration."""
        finished = corrected(episodes, journal)
        if len(finished) == len(episodes):
            self.adopt(journal.path)
            return
        section, states = self.recipe.teacher, None
        if isinstance(section, ModelTeacherConfig) and section.state == "extracted":
            states = self._extracted(episodes, iteration, section)
        elif getattr(section, "state", "") == "hindsight":
            played = (one for j in range(iteration + 1) for one in self.episodes(j))
            states = siblings(played, {episode.task.key for episode in episodes})
        who = "the expert" if section.kind == "expert" else who_corrects(section)
        what = f"corrections by {who} at privilege {section.privilege}"
        under_way, name = self.timed("correct", iteration, what, journal.path), f"corrections for pi_{iteration}"
        with under_way as (bar, note), self.booked(f"correct {iteration}"):
            correct_all(student, episodes, finished, states, self.actors, journal, name, bar, note, self.executor)

    def _extracted(self, episodes: Sequence[Episode], iteration: int, section: ModelTeacherConfig) -> dict[str, str]:
        """The privileged states of these episodes' tasks, read by the teacher's model from the expert's play of them."""
        tasks = {episode.task.key: episode.task for episode in episodes}
        play = Play([*tasks.values()], self.recipe.horizon, self.recipe.seed, f"rollout-expert-{iteration}")
        journal = self.journal(self.run.expert_play(iteration), Episode)
        played = self.play(iteration, scripted(), play, journal, "expert's play of the tasks to correct")
        extractor = self.actors.extractor(iteration, section)
        under_way = self.timed("correct", iteration, "privileged states", self.run.states(iteration))
        with under_way, self.booked(f"extract {iteration}"):
            states = run_sync(extractor.extract_all(played))
            check_lost(extractor.model.name, extractor.lost, len(played), self.recipe.lost_share)
            return states

    def corrections(self, i: int) -> Journal[Correction]:
        """Corrections of iteration i that are on file."""
        return self.journal(self.run.corrections(i), Correction)

    # ---- dataset -------------------------------------------------------------------------------------------------

    def dataset(self, i: int) -> Path:
        """D_i as rows on file: demonstrations (i = 0) or kept corrections."""
        path = self.run.rows(i)
        if path.exists():
            self.adopt(path)
            return path
        if i == 0:
            rows = [*datasets.demonstration_rows(demonstrations(self), self.renderer), *privileged_rows(self)]
        else:
            by_key, made = {episode.key: episode for episode in self._to_correct(i)}, list(self.corrections(i))
            if left := len(by_key) - len(corrected(by_key.values(), made)):
                raise RunError(f"{left} of {len(by_key)} episodes of iteration {i} are not corrected; give `leap correct` first.")
            position = {key: index for index, key in enumerate(by_key)}
            corrections = sorted((c for c in made if c.episode in position), key=lambda c: (position[c.episode], c.t))
            rows = datasets.correction_rows(by_key, corrections, self.renderer, iteration=i)
        lines = [row.model_dump_json() for row in rows]
        if not lines and i == 0:
            raise RunError("no step of the demonstrations fits into the student's context: there is nothing to clone.")
        text = "\n".join(lines) + "\n" if lines else ""
        if marker(self.run.checkpoint(i)).exists() and not self.run.manifest.expects(path, text):
            raise RunError(
                f"{path}, made again, is not what pi_{i} was trained on: what it is made from came out otherwise. Put the former "
                f"files of {path.parent} back, or delete it and the iterations after it to have them made again."
            )
        self.run.manifest.write(path, text)
        return path

    def _data(self, up_to: int) -> range:
        """Every j of D_0..D_i; where there is no D_0, from 1."""
        return range(self.recipe.demonstrations.none, up_to + 1)

    def rows_of(self, i: int) -> list[Row]:
        """D_i."""
        return list(datasets.read_rows(self.dataset(i)))

    def preferences(self, i: int) -> list[PreferenceRow]:
        """The pairs of D_i."""
        if self.recipe.training.by_value:
            return value_pairs(self, i)
        by_key = {episode.key: episode for episode in self.episodes(i)}
        return list(datasets.preference_rows(self.rows_of(i), by_key, self.environment.grammar_of))

    # ---- train ---------------------------------------------------------------------------------------------------

    def train(self, i: int) -> Path:
        """pi_i: the student trained by the recipe's method on what has been collected."""
        out, work = self.run.checkpoint(i), self.run.training(i)
        if marker(out).exists():
            shutil.rmtree(work, ignore_errors=True)  # where a kill came between
            self.adopt(out)
            return out
        recipe, training = self.recipe, self.recipe.training.settled(self.actors.bf16_pays)
        method = method_of(training)
        data = [hashlib.sha256(self.dataset(j).read_bytes()).hexdigest() for j in self._data(i)]
        if i == self._data(i).start or method.starts_from(i) == "base":
            start, lineage = self.base(), "base"
        else:
            start, lineage = self.actors.checkpoint(i - 1), self.actors.checkpoint_key(i - 1)
        rows = method.rows(self._collected(i))
        data += method.fingerprint(rows)
        base = self.actors.base_identity
        key = content_key("checkpoint", base, lineage, data, training.deciding(), recipe.seed)
        whose = work / "key"  # the states of a training on other rows are none to go on from
        if work.exists() and (not whose.exists() or whose.read_bytes() != key.encode()):
            shutil.rmtree(work)
        write_text(whose, key)
        self.actors.free_student()
        self.executor.rest()
        with self.timed("train", i, f"train pi_{i}") as (bar, note), atomic_directory(out) as temporary:
            losses = self.run.losses(i)

            def on_step(done: int, total: int, loss: float) -> None:
                bar.update(done, total, f"loss {loss:.3f}")
                note_loss(losses, done, total, loss)

            result = self.executor.train(method, rows, Job(i, start, temporary, work, seed_of(recipe.seed, "train", i), on_step))
            told = {"key": key, "iteration": i, "base": base, "result": result.as_dict()}
            write_json(marker(temporary), told | {"losses": result.curves or loss_curves(losses, len(method.planned_steps(i)))})
            note(rows=result.rows, tokens=result.tokens, loss=result.loss)
        self.run.manifest.record(out)
        shutil.rmtree(work, ignore_errors=True)
        return out

    def _collected(self, i: int) -> Collected:
        """What pi_i may be trained on."""
        return Collected(
            i,
            rows=self.rows_of,
            pairs=self.preferences,
            episodes=self.episodes,
            corrections=self.corrections,
            states=lambda episode: run_sync(states_along(self.environment, episode)),
            renderer=self.renderer,
            privileged=PrivilegedRenderer(self.renderer, self.recipe.teacher.privilege),
            with_privilege=self._with_privilege,
            plans_after=lambda episode, t: run_sync(plans_after(self.environment, episode, t)),
            names_in=lambda task, text: self.environment.of(task).entities(text),
            first=self._data(i).start,
        )

    def _with_privilege(self, i: int, limit: int) -> tuple[float, float, int]:
        """Shares of so many validation tasks that pi_i solves, without and with the privileged state in its prompt, and n."""
        split, levels = self.recipe.environment.validation, (None, self.recipe.teacher.privilege)
        tasks = self.evaluation_tasks()[split][:limit]
        specs = [PolicySpec("student", f"pi_{i}", iteration=i, privilege=level) for level in levels]
        alone, told = (sum(one.success for one in self._evaluated(spec, split, tasks)) / len(tasks) for spec in specs)
        return alone, told, len(tasks)

    def base(self) -> str:
        """The model before any training: the recipe's, or a scratch student: random weights and a tokenizer of the words of
        the demonstrations."""
        student, base = self.recipe.student, self.run.base
        if not student.from_scratch:
            self.actors.check_base()
            return self.actors.base
        if marker(base).exists():
            self.adopt(base)  # where a kill came between
            return self.actors.base
        from leap.models.scratch import build_scratch

        self.rollout(0)
        rows = [*datasets.demonstration_rows(demonstrations(self), self.actors.whole_renderer), *privileged_rows(self)]
        texts = [text for row in rows for text in row.texts()] + [*self.environment.vocabulary()]
        with atomic_directory(base) as temporary:
            names = self.environment.names()
            build_scratch(student.scratch, sendable(texts), temporary, seed=self.recipe.seed, names=names)
            write_json(marker(temporary), {"key": "base", "iteration": -1})
        self.run.manifest.record(base)
        return self.actors.base

    # ---- evaluate ------------------------------------------------------------------------------------------------

    def evaluate(self, i: int) -> list[Evaluation]:
        """pi_i without privilege on the validation and test splits."""
        return self._evaluate(PolicySpec("student", f"pi_{i}", iteration=i))

    def baselines(self) -> list[Evaluation]:
        """Whoever else the recipe compares with, on the same tasks."""
        return [one for spec in baselines_of(self.recipe, self.environment) for one in self.baseline(spec)]

    def baseline(self, spec: PolicySpec) -> list[Evaluation]:
        """One of the baselines on the validation and test splits."""
        if spec.react and not self.recipe.demonstrations.none:
            self.rollout(0)  # its worked examples are demonstrations
        with self.booked(f"baseline {spec.actor}"):
            return self._evaluate(spec)

    def evaluation_tasks(self) -> dict[str, list[Task]]:
        """Tasks of the validation split and of each test split."""
        section = self.recipe.environment
        tasks = {section.validation: self.tasks(section.validation, section.validation_tasks, "evaluation")}
        return tasks | {split: self.tasks(split, section.test_tasks, "evaluation") for split in section.test}

    def _evaluate(self, spec: PolicySpec) -> list[Evaluation]:
        played = {split: self._evaluated(spec, split, tasks) for split, tasks in self.evaluation_tasks().items()}
        evaluations = [evaluate_episodes(episodes, policy=spec.name) for episodes in played.values()]
        scores = [evaluation.model_dump(mode="json") for evaluation in evaluations]
        self.run.manifest.write(self.run.evaluation(spec.name), as_json(scores))
        return evaluations

    def _evaluated(self, spec: PolicySpec, split: str, tasks: Sequence[Task]) -> Sequence[Episode]:
        """Episodes of a policy on the tasks of a split."""
        play = Play(tasks, self.recipe.test_horizon, self.recipe.seed, f"evaluate-{spec.name}")
        privileged = spec.kind == "student" and spec.privilege is not None
        file = self.run.privileged(spec.iteration) if privileged else self.run.played(spec.name, split)
        what = f"evaluate {spec.name} on {split}{f' at privilege {spec.privilege}' if privileged else ''}"
        journal = self.journal(file, Episode)
        shown = partial(self.timed, "evaluate", spec.iteration, what, journal.path)
        episodes = play_tasks(spec, play, self.actors, journal, shown, self.executor)
        self.adopt(journal.path)
        return episodes

    # ---- what other packages add -----------------------------------------------------------------------------------

    def extend(self, i: int) -> None:
        """Makes the stages that other packages add to iteration i, such as the measures of leap_lab."""
        for stage in stage_table(self.recipe, self.environment):
            if stage.iteration == i and stage.added:
                stage.make(self)
                self.run.manifest.record(*(self.run.root / file for file in stage.files))

    # ---- what the stages share -----------------------------------------------------------------------------------

    def journal(self, path: Path, record: type[R]) -> Journal[R]:
        """A journal of the run. What parts of its stage have written beside it (`leap.runs.parts`) is taken in first."""
        journal = Journal(path, record)
        if parts := self.run.parts(path):
            with self.run.manifest.growing(path):
                journal.take_in(*parts)
            shutil.rmtree(parts[0].parent)
        return journal

    def adopt(self, path: Path) -> None:
        """Notes a finished file or folder of which nothing is noted yet."""
        self.run.manifest.adopt(path)

    @contextmanager
    def booked(self, stage: str) -> Iterator[None]:
        """Calls made within are booked under this stage."""
        if not self.recipe.models and not self.recipe.teacher.uses_student:
            yield
            return
        try:
            with self.actors.ledger.stage(stage):
                yield
        finally:
            self.run.manifest.record(self.run.calls)

    def close(self) -> None:
        """Frees what the actors hold."""
        self._opened.close()

    @contextmanager
    def timed(
        self, stage: str, iteration: int, what: str, *journals: Path
    ) -> Iterator[tuple[Bar, Callable[..., None]]]:
        """A stage under way, which may add to journals: its bar, and what notes figures for the report when it ends well."""
        figures: dict[str, float] = {}
        usage = Usage(self._ready)
        with self.progress.stage(what) as bar, self.run.manifest.growing(*journals):
            yield bar, figures.update
            figures |= usage.told(self._ready, bar)
        records = read_json(self.run.stages) if self.run.stages.exists() else []
        records.append({"stage": stage, "iteration": iteration, "what": what, **figures})
        self.run.manifest.write(self.run.stages, as_json(records))
