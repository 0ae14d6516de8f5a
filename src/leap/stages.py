"""The arrows of the loop, each a function from files to a file. What is on file is not made again.

tasks --rollout--> episodes --correct--> corrections --dataset--> rows --train--> checkpoint --evaluate--> evaluation
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap.core import Actor, Correction, Episode, Task, content_key
from leap.core.episode import episode_key
from leap.datasets import Row, correction_rows, demonstration_rows
from leap.envs.base import Environment, load_environment
from leap.errors import RecipeError, RunError
from leap.evaluation import Evaluation, evaluate_episodes
from leap.policies.base import ExpertPolicy, Policy, TeacherPolicy
from leap.policies.rendering import Renderer
from leap.policies.student import ModelPolicy
from leap.progress import Progress
from leap.recipe import Recipe
from leap.rollout import episode_seed, rollout
from leap.store import Journal, RunDirectory, atomic_directory, read_json, write_json, write_text
from leap.teachers.expert import ExpertTeacher

if TYPE_CHECKING:
    from leap.models.hf import HFModel


class Stages:
    """The stages of one recipe in one run directory.

    Args:
        recipe: What to do.
        run: Where everything is kept.
        progress: Shows what is under way.
    """

    def __init__(self, recipe: Recipe, run: RunDirectory, progress: Progress) -> None:
        self.recipe = recipe
        self.run = run
        self.progress = progress
        self._model: tuple[Path, float, HFModel] | None = None
        self._task_lists: dict[tuple[str, int | None, str], list[Task]] = {}

    @cached_property
    def environment(self) -> Environment:
        """The environment, its data prepared.

        Raises:
            RecipeError: A split that may only be tested on is used for training or for choosing models.
        """
        section = self.recipe.environment
        environment = load_environment(section.name, section.options)
        for use, split in (("training", section.train), ("validation", section.validation)):
            if split in environment.test_splits:
                raise RecipeError(f"{use} on split {split!r}: that is a test split of {section.name}; choose another.")
        with self.progress.stage("prepare tasks") as bar:
            environment.prepare(lambda done, total, what: bar.update(done, total, what))
        trained_on = {task.id for task in environment.tasks(section.train)}
        for split in (section.validation, *section.test):
            both = trained_on & {task.id for task in environment.tasks(split)}
            if both:
                raise RecipeError(
                    f"{len(both)} tasks of split {split!r} are also in the training split {section.train!r} (for example "
                    f"{min(both)}); nothing may be measured on tasks that were trained on."
                )
        return environment

    @cached_property
    def renderer(self) -> Renderer:
        """What makes every prompt of this run, at rollout and in training."""
        return Renderer(self.recipe.student.prompt, self.environment.prompt_directory())

    # ---- rollout -------------------------------------------------------------------------------------------------

    def rollout(self, i: int) -> Journal[Episode]:
        """Episodes of iteration i: the expert's demonstrations (i = 0), or pi_{i-1} on the training tasks."""
        recipe, section = self.recipe, self.recipe.environment
        journal = Journal(self._episodes_file(i), Episode)
        stream = f"rollout-{i}"
        if i == 0:
            tasks = self._tasks(section.train, recipe.demonstrations.episodes, stream="demonstrations")
            expert = ExpertPolicy(self.environment)
            self._play(expert.actor, lambda: expert, tasks, journal, recipe.horizon, stream, "expert demonstrations", i)
        else:
            tasks = self._tasks(section.train, section.train_tasks, stream=stream)
            self._play(
                self._student_actor(i - 1),
                lambda: self._student(i - 1, recipe.student.sampling.temperature),
                tasks,
                journal,
                recipe.horizon,
                stream,
                f"rollouts of pi_{i - 1}",
                i,
            )
        return journal

    def episodes(self, i: int) -> Journal[Episode]:
        """Episodes of iteration i that are on file."""
        return Journal(self._episodes_file(i), Episode)

    def _episodes_file(self, i: int) -> Path:
        return self.run.iteration(i) / "episodes.jsonl"

    def _tasks(self, split: str, limit: int | None, *, stream: str) -> list[Task]:
        """Tasks of a split; with a limit, a sample of its own for each stream of the recipe's seed."""
        key = (split, limit, stream)
        if key not in self._task_lists:
            seed = int(content_key(self.recipe.seed, stream), 16) % 2**31
            self._task_lists[key] = self.environment.tasks(split, limit=limit, seed=seed)
        return self._task_lists[key]

    def _play(
        self,
        actor: Actor,
        policy: Callable[[], Policy],
        tasks: Sequence[Task],
        journal: Journal[Episode],
        horizon: int,
        stream: str,
        what: str,
        iteration: int,
    ) -> list[Episode]:
        """Plays what is not on file; returns the tasks' episodes. The policy is made only if something is to be played."""
        seed = self.recipe.seed
        keys = [
            episode_key(task, actor, seed=episode_seed(seed, stream, task), horizon=horizon)
            for task in sorted(tasks, key=lambda task: (task.split, task.id))
        ]
        if any(key not in journal for key in keys):
            self._play_missing(policy(), tasks, journal, keys, horizon, stream, what, iteration)
        return [episode for key in keys if (episode := journal.get(key)) is not None]

    def _play_missing(
        self,
        policy: Policy,
        tasks: Sequence[Task],
        journal: Journal[Episode],
        keys: Sequence[str],
        horizon: int,
        stream: str,
        what: str,
        iteration: int,
    ) -> None:
        stage = "rollout" if stream.startswith("rollout") else "evaluate"
        on_file = [episode for key in keys if (episode := journal.get(key)) is not None]
        done, solved, tokens = len(on_file), sum(episode.success for episode in on_file), 0
        with self._timed(stage, iteration, what) as (bar, note):
            bar.update(done, len(tasks), "")

            def keep(episode: Episode) -> None:
                nonlocal done, solved, tokens
                journal.append(episode)
                done += 1
                solved += episode.success
                tokens += sum(step.prompt_tokens + step.completion_tokens for step in episode.steps)
                bar.update(done, len(tasks), f"{solved / done:.0%} solved")

            rollout(
                self.environment,
                policy,
                tasks,
                horizon=horizon,
                seed=self.recipe.seed,
                stream=stream,
                done=journal,
                on_episode=keep,
            )
            note(episodes=len(tasks), tokens=tokens)

    # ---- correct -------------------------------------------------------------------------------------------------

    def correct(self, i: int) -> Journal[Correction]:
        """Corrections of every step of the episodes of iteration i that the recipe has corrected."""
        teacher_section = self.recipe.teacher
        journal = Journal(self._corrections_file(i), Correction)
        episodes = _in_order(self.episodes(i))
        if not episodes:
            raise RunError(f"{self._episodes_file(i)} holds no episodes; roll out iteration {i} first.")
        chosen = [
            episode
            for episode in episodes
            if teacher_section.episodes == "all" or episode.score <= teacher_section.failure_score
        ]
        teacher = ExpertTeacher(self.environment, teacher_section.privilege, drop_leaks=teacher_section.drop_leaks)
        corrected: dict[str, int] = {}
        for correction in journal:
            corrected[correction.episode] = corrected.get(correction.episode, 0) + 1
        left = [episode for episode in chosen if corrected.get(episode.key, 0) < len(episode.steps)]
        if left:
            with self._timed("correct", i, f"corrections by the {teacher.name} at privilege {teacher.privilege}") as (
                bar,
                note,
            ):
                for done, episode in enumerate(left, start=1):
                    for correction in teacher.correct(episode):
                        journal.append(correction)
                    bar.update(done, len(left), "")
                note(corrections=len(journal))
        return journal

    def corrections(self, i: int) -> Journal[Correction]:
        """Corrections of iteration i that are on file."""
        return Journal(self._corrections_file(i), Correction)

    def _corrections_file(self, i: int) -> Path:
        return self.run.iteration(i) / "corrections.jsonl"

    # ---- dataset -------------------------------------------------------------------------------------------------

    def dataset(self, i: int) -> Path:
        """D_i as rows on file: demonstrations (i = 0) or kept corrections."""
        path = self.run.iteration(i) / "rows.jsonl"
        if path.exists():
            return path
        episodes = _in_order(self.episodes(i))
        if i == 0:
            wanted = [e for e in episodes if e.success or not self.recipe.demonstrations.successes_only]
            rows = demonstration_rows(wanted, self.renderer)
        else:
            by_key = {episode.key: episode for episode in episodes}
            position = {episode.key: index for index, episode in enumerate(episodes)}
            corrections = sorted(self.corrections(i), key=lambda c: (position[c.episode], c.t))
            rows = correction_rows(by_key, corrections, self.renderer, iteration=i)
        lines = [row.model_dump_json() for row in rows]
        if not lines and i == 0:
            raise RunError(
                "the expert solved no training task, so there is nothing to clone. Give it a longer horizon, or set "
                "demonstrations.successes_only: false."
            )
        write_text(path, "\n".join(lines) + "\n" if lines else "")
        return path

    def rows(self, up_to: int) -> list[Row]:
        """The union of D_0..D_i."""
        return [
            Row.model_validate_json(line)
            for j in range(up_to + 1)
            for line in self.dataset(j).read_bytes().splitlines()  # of bytes: a text may hold U+2028
        ]

    # ---- train ---------------------------------------------------------------------------------------------------

    def train(self, i: int) -> Path:
        """pi_i: the student trained on the union of D_0..D_i."""
        out = self.run.checkpoint(i)
        if (out / "leap.json").exists():
            return out
        from leap.training.sft import train_sft

        recipe, config = self.recipe, self.recipe.training
        data = [hashlib.sha256(self.dataset(j).read_bytes()).hexdigest() for j in range(i + 1)]
        if i == 0 or config.start_from == "base":
            start, lineage = self._base_model(), "base"
        else:
            start, lineage = str(self.run.checkpoint(i - 1)), self.checkpoint_key(i - 1)
        key = content_key(
            "checkpoint", recipe.student.model, lineage, data, config.model_dump(mode="json"), recipe.seed
        )
        rows = self.rows(i)
        work = self.run.iteration(i) / "training"
        with self._timed("train", i, f"train pi_{i}") as (bar, note), atomic_directory(out) as temporary:
            result = train_sft(
                config,
                rows,
                start=start,
                out=temporary,
                work=work,
                seed=int(content_key(recipe.seed, "train", i), 16) % 2**31,
                steps=config.first_steps if i == 0 else None,
                on_step=lambda done, total, loss: bar.update(done, total, f"loss {loss:.3f}"),
            )
            write_json(temporary / "leap.json", {"key": key, "iteration": i, "result": result.as_dict()})
            note(rows=result.rows, tokens=result.tokens, loss=result.loss)
        shutil.rmtree(work, ignore_errors=True)
        return out

    def checkpoint_key(self, i: int) -> str:
        """Names pi_i by what it was trained on and how."""
        return read_json(self.run.checkpoint(i) / "leap.json")["key"]

    def _base_model(self) -> str:
        """The model before any training: the recipe's, or a scratch student made from the demonstrations' words."""
        student = self.recipe.student
        if student.model != "scratch":
            return student.model.removeprefix("hf/")
        base = self.run.root / "base"
        if not (base / "leap.json").exists():
            self._make_base(base)
        return str(base)

    def _make_base(self, base: Path) -> None:
        """The scratch student before any training: random weights and a tokenizer of the training tasks' words."""
        from leap.models.scratch import build_scratch

        texts = [message["content"] for row in self.rows(0) for message in (*row.prompt, *row.completion)]
        texts += self.environment.vocabulary()
        with atomic_directory(base) as temporary:
            build_scratch(self.recipe.student.scratch, texts, temporary, seed=self.recipe.seed)
            write_json(temporary / "leap.json", {"key": "base", "iteration": -1})

    # ---- evaluate ------------------------------------------------------------------------------------------------

    def evaluate(self, i: int) -> list[Evaluation]:
        """pi_i without privilege on the validation and test splits."""
        folder = self.run.iteration(i) / "evaluation"
        return self._evaluate(
            lambda: self.student(i),
            self._student_actor(i),
            folder,
            name=f"pi_{i}",
            iteration=i,
        )

    def student(self, i: int) -> ModelPolicy:
        """pi_i as it is evaluated."""
        student = self.recipe.student
        temperature = student.evaluation_temperature
        return self._student(i, student.sampling.temperature if temperature is None else temperature)

    def baselines(self) -> list[Evaluation]:
        """The unprivileged expert, the teacher without privilege, and the teacher with it, on the same tasks."""
        privilege = self.recipe.teacher.privilege
        policies: dict[str, Policy] = {"expert": ExpertPolicy(self.environment)}
        for level in dict.fromkeys((0, privilege, 100)):
            policies[f"teacher-{level}"] = TeacherPolicy(self.environment, level)
        evaluations = []
        for name, policy in policies.items():
            evaluations += self._evaluate(
                lambda policy=policy: policy, policy.actor, self.run.baselines / name, name=name, iteration=-1
            )
        return evaluations

    def evaluation_tasks(self) -> dict[str, list[Task]]:
        """Tasks of the validation split and of each test split."""
        section = self.recipe.environment
        tasks = {section.validation: self._tasks(section.validation, section.validation_tasks, stream="evaluation")}
        return tasks | {split: self._tasks(split, section.test_tasks, stream="evaluation") for split in section.test}

    def _evaluate(
        self, policy: Callable[[], Policy], actor: Actor, folder: Path, *, name: str, iteration: int
    ) -> list[Evaluation]:
        evaluations = []
        for split, tasks in self.evaluation_tasks().items():
            journal = Journal(folder / f"{split}.jsonl", Episode)
            played = self._play(
                actor,
                policy,
                tasks,
                journal,
                self.recipe.test_horizon,
                f"evaluate-{name}",
                f"evaluate {name} on {split}",
                iteration,
            )
            evaluations.append(evaluate_episodes(played, policy=name))
        file = folder.parent / "evaluation.json" if iteration >= 0 else folder / "evaluation.json"
        write_json(file, [evaluation.model_dump(mode="json") for evaluation in evaluations])
        return evaluations

    # ---- what the stages share -----------------------------------------------------------------------------------

    def _student_actor(self, i: int) -> Actor:
        return Actor(name="student", checkpoint=self.checkpoint_key(i), iteration=i)

    def _student(self, i: int, temperature: float) -> ModelPolicy:
        """pi_i as a policy; its weights stay loaded until another checkpoint is asked for."""
        from leap.models.hf import HFModel

        student = self.recipe.student
        path = self.run.checkpoint(i)
        if not (path / "leap.json").exists():
            raise RunError(f"{path} is missing; train iteration {i} first.")
        if self._model is None or self._model[:2] != (path, temperature):
            if self._model is not None:
                self._model[2].close()
            sampling = student.sampling.model_copy(update={"temperature": temperature})
            model = HFModel(str(path), sampling, batch=student.batch, dtype=student.dtype)
            self._model = (path, temperature, model)
        actor = self._student_actor(i)
        return ModelPolicy(self._model[2], self.renderer, actor, constrained=student.decoding == "constrained")

    @contextmanager
    def _timed(self, stage: str, iteration: int, what: str) -> Iterator[tuple[Any, Any]]:
        """A stage under way: its bar, and a function that notes figures for the report when it ends well."""
        figures: dict[str, Any] = {}
        began = time.monotonic()
        with self.progress.stage(what) as bar:
            yield bar, figures.update
        seconds = round(time.monotonic() - began, 2)
        records = read_json(self.run.stages) if self.run.stages.exists() else []
        records.append({"stage": stage, "iteration": iteration, "what": what, "seconds": seconds, **figures})
        write_json(self.run.stages, records)


def _in_order(episodes: Iterable[Episode]) -> list[Episode]:
    """Episodes by task: a journal's own order is that in which they happened to finish."""
    return sorted(episodes, key=lambda episode: (episode.task.split, episode.task.id))
