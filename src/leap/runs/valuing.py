"""Value models of a run's students, and evaluations in which the best of N answers is taken by one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from leap.core import Episode, Task, content_key, seed_of
from leap.core.record import Record
from leap.datasets import PreferenceRow
from leap.envs.base import listed
from leap.errors import RunError
from leap.evaluation import Evaluation, evaluate_episodes
from leap.files import Journal, as_json, atomic_directory, read_json, write_json, write_text
from leap.progress import Bar
from leap.recipe import Recipe
from leap.rollouts import Play
from leap.runs.actors import Actors
from leap.runs.best_of import BestOfConfig
from leap.runs.directory import RunDirectory, best_of_name, marker
from leap.runs.executors import work_on
from leap.runs.playing import play_tasks
from leap.runs.policies import PolicySpec
from leap.runs.shards import Shard, in_shards
from leap.runs.table import Stage
from leap.training.config import PreferenceConfig
from leap.training.losses import loss_curves, note_loss
from leap.training.method import Job
from leap.value.config import ValueConfig
from leap.value.labels import Labeller, Labels, labels_key
from leap.value.measured import Measured, Scored, measured, pass_at
from leap.value.pairs import Compared, compare, compared_key, value_rows

if TYPE_CHECKING:
    from leap.runs.stages import Stages

R = TypeVar("R", bound=Record)

Number = int | Literal["all"]
"""The N of best-of-N; all listed actions."""


@dataclass(frozen=True, slots=True)
class Labelling:
    """Whose episodes are labelled, and how; a shard's items are episodes."""

    student: int
    config: ValueConfig


async def label_shards(shards: Sequence[Shard], actors: Actors, hand_on: Callable[[Labels], None]) -> None:
    """Labels the episodes of shards, anywhere; those of a shard are labelled together."""
    spec: Labelling = shards[0].spec
    temperature = actors.recipe.student.temperature_at_evaluation
    student, hot = (actors.student_policy(spec.student, temperature, hot) for hot in (0.0, spec.config.temperature))
    labeller = Labeller(actors.environment, spec.config, actors.recipe.seed, student, hot)
    for shard in shards:
        for made in await labeller.label(shard.items):
            if made.key not in shard.done:
                hand_on(made)


def make_value(stages: Stages, i: int) -> Measured:
    """The value model of pi_i by the recipe's section `value`, and how good it is on validation tasks. What is on file by the
    same settings is not made again."""
    run, config = stages.run, stages.recipe.value
    section = stages.recipe.environment
    episodes = episodes_of(stages, i, section.train, config.tasks, "episodes")
    labels = labels_of(stages, i, episodes, config, config.labels)
    trained = _train(stages, i, episodes, labels, config)
    file = run.value(i, f"{config.labels}.json")
    held = episodes_of(stages, i, section.validation, config.held_out, "held-out")
    held_labels = labels_of(stages, i, held, config.held_out_labels, "held-out-replay")
    key = content_key("measured", trained, [(episode, one.told) for episode, one in sorted(held_labels.items())])
    if file.exists() and (told := read_json(file))["key"] == key:
        return Measured.model_validate(told["measured"])
    with stages.timed("value", i, f"measure the value model of pi_{i}"):
        scored = scores_of(stages, i, held, held_labels)
        if not scored:
            raise RunError(f"none of the {len(held)} validation episodes of pi_{i} has a labelled action.")
        about = {
            "policy": f"pi_{i}",
            "labels": config.labels,
            "split": section.validation,
            "trained": sum(len(one.valued) for one in labels.values()),
            "trained_episodes": sum(bool(one.valued) for one in labels.values()),
            "executed": sum(one.executed for one in labels.values()),
        }
        found = measured(scored, **about)
    run.manifest.write(file, as_json({"key": key, "measured": found.model_dump(mode="json")}))
    return found


def episodes_of(stages: Stages, i: int, split: str, limit: int, name: str) -> Sequence[Episode]:
    """Episodes of pi_i, as it is evaluated, on a sample of a split of its own."""
    recipe, stream = stages.recipe, f"value-{name}-{i}"
    tasks = listed(stages.environment, split, limit=limit, seed=seed_of(recipe.seed, stream))
    play = Play(tasks, recipe.test_horizon, recipe.seed, stream)
    journal = stages.journal(stages.run.value(i, f"{name}.jsonl"), Episode)
    what = f"play of pi_{i} on {split}, to be labelled"
    shown = partial(stages.timed, "value", i, what, journal.path)
    return play_tasks(
        PolicySpec("student", f"pi_{i}", iteration=i), play, stages.actors, journal, shown, stages.executor
    )


def labels_of(stages: Stages, i: int, episodes: Sequence[Episode], config: ValueConfig, name: str) -> dict[str, Labels]:
    """Labels of episodes, by the episode's key."""
    path = stages.run.value(i, f"{name}.jsonl")
    journal = stages.journal(path, Labels)
    items = {labels_key(one.key, config.labels_key): one for one in episodes}
    if any(key not in journal for key in items):
        with stages.timed("value", i, f"labels of pi_{i} by {config.labels}", path) as (bar, note):
            how = {"spec": Labelling(i, config), "size": stages.recipe.student.batch}
            files = stages.actors.files(PolicySpec("student", iteration=i))
            shards = in_shards(
                f"value-{name}-{i}", label_shards, Labels, stages.actors, items, journal, files=files, **how
            )
            work_on(shards, stages.actors, _keep(journal, items, bar, stages), stages.executor)
            made = [one for key in items if (one := journal.get(key)) is not None]
            actions = sum(len(one.valued) for one in made)
            note(labels=actions, executed=sum(one.executed for one in made))
            bar.update(len(made), len(items), f"{actions} actions labelled")
    return {one.episode: one for key in items if (one := journal.get(key)) is not None}


def _keep(journal: Journal[R], items: Collection[str], bar: Bar, stages: Stages) -> Callable[[R], None]:
    """What puts each record of a stage on file and shows how many of the items' there are; those on file are shown now."""
    done = sum(key in journal for key in items)
    bar.update(done, len(items), "")

    def keep(made: R) -> None:
        nonlocal done
        journal.append(made)
        done += 1
        bar.update(done, len(items), stages.executor.status)

    return keep


def _train(stages: Stages, i: int, episodes: Sequence[Episode], labels: dict[str, Labels], config: ValueConfig) -> str:
    """The key of the value model, which is trained unless it is on file."""
    from leap.models.checkpoints import identity
    from leap.value.network import ValueTraining, rows_of

    run, actors, recipe = stages.run, stages.actors, stages.recipe
    out, work = run.value(i, config.labels), run.value(i, f"{config.labels}.training")
    settings = config.settings(recipe.training).settled(actors.bf16_pays)
    start = actors.checkpoint(i) if config.start == "student" else str(run.value(i, config.start))
    if config.start != "student" and (config.start == config.labels or not marker(run.value(i, config.start)).exists()):
        raise RunError(
            f"value.start: {config.start}: give `leap value -i {i} --labels {config.start}` first, then other labels."
        )
    learnt = [(key, one.told) for key, one in sorted(labels.items())]
    renderer = stages.renderer
    shown = {"prompt": renderer.config.model_dump(mode="json"), "limit": renderer.limit}
    if config.reads != "action":
        shown["reads"] = config.reads
    key = content_key("value", identity(start), learnt, settings.deciding(), shown, recipe.seed)
    if marker(out).exists() and read_json(marker(out))["key"] == key:
        shutil.rmtree(work, ignore_errors=True)
        stages.adopt(out)
        return key
    whose = work / "key"
    if work.exists() and (not whose.exists() or whose.read_text(encoding="utf-8") != key):
        shutil.rmtree(work)
    write_text(whose, key)
    rows = rows_of(episodes, labels, renderer, reasons=config.reads == "answer")
    actors.free_student()
    stages.executor.rest()
    with (
        stages.timed("value", i, f"train the value model of pi_{i}") as (bar, note),
        atomic_directory(out) as temporary,
    ):
        losses = work / "losses.log"

        def on_step(done: int, total: int, loss: float) -> None:
            bar.update(done, total, f"loss {loss:.3f}")
            note_loss(losses, done, total, loss)

        job = Job(i, start, temporary, work, seed_of(recipe.seed, "value", i), on_step)
        result = stages.executor.train(ValueTraining(settings), rows, job)
        told: dict[str, Any] = {"key": key, "iteration": i, "value": shown, "result": result.as_dict()}
        write_json(marker(temporary), told | {"losses": result.curves or loss_curves(losses, 1)})
        note(rows=result.rows, tokens=result.tokens, loss=result.loss)
    run.manifest.record(out)
    shutil.rmtree(work, ignore_errors=True)
    return key


def scores_of(stages: Stages, i: int, episodes: Sequence[Episode], labels: dict[str, Labels]) -> list[Scored]:
    """Held-out actions with what the value model says of them."""
    from leap.value.network import ValueModel, judged_steps

    model = ValueModel(str(stages.run.value(i, stages.recipe.value.labels)))
    reasons, found = stages.recipe.value.reads == "answer", list[Scored]()
    for episode in episodes:
        for step in judged_steps(episode, labels[episode.key], stages.renderer, reasons=reasons):
            scores = model.scores(step)
            found += [Scored(episode.key, step.t, *pair) for pair in zip(step.values, scores, strict=True)]
    return found


# ---- pairs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparing:
    """Whose answers are drawn and compared by its value model, how many, and the key of all that this depends on."""

    student: int
    answers: int
    settings: str


async def compare_shards(shards: Sequence[Shard], actors: Actors, hand_on: Callable[[Compared], None]) -> None:
    """Compares answers at the steps of the episodes of shards, anywhere."""
    from leap.value.network import ValueModel, judged

    spec: Comparing = shards[0].spec
    recipe, renderer = actors.recipe, actors.renderer
    model, reasons = ValueModel(str(actors.run.value(spec.student, recipe.value.labels))), recipe.value.reads == "answer"
    policy = actors.student_policy(spec.student, recipe.student.sampling.temperature, recipe.value.temperature)
    how: dict[str, Any] = {"answers": spec.answers, "seed": recipe.seed, "settings": spec.settings}
    for shard in shards:
        made = await compare(
            shard.items, policy, lambda h, some: model.scores(judged(h, some, renderer, reasons=reasons)), **how
        )
        for one in made:
            if one.key not in shard.done:
                hand_on(one)


def value_pairs(stages: Stages, i: int) -> list[PreferenceRow]:
    """The pairs of D_i by value: at each step of iteration i's episodes the best of several answers of pi_{i-1} over the worst.
    The value model of pi_{i-1} is made first."""
    make_value(stages, i - 1)
    run, recipe, config = stages.run, stages.recipe, stages.recipe.training
    assert isinstance(config, PreferenceConfig)
    answers, margin = config.pair_answers, config.pair_margin
    model = run.value(i - 1, recipe.value.labels)
    settings = content_key("answers", read_json(marker(model))["key"], answers, recipe.value.temperature)
    episodes = {one.key: one for one in sorted(stages.episodes(i), key=lambda one: one.key)}
    items = {compared_key(key, settings): one for key, one in episodes.items()}
    journal = stages.journal(run.compared(i), Compared)
    if any(key not in journal for key in items):
        with stages.timed("value", i, f"answers of pi_{i - 1}, compared", journal.path) as (bar, note):
            files = [*stages.actors.files(PolicySpec("student", iteration=i - 1)), model]
            how = {"spec": Comparing(i - 1, answers, settings), "size": recipe.student.batch}
            shards = in_shards(
                f"compare-{i}", compare_shards, Compared, stages.actors, items, journal, files=files, **how
            )
            work_on(shards, stages.actors, _keep(journal, items, bar, stages), stages.executor)
            note(answers=answers * sum(len(one.steps) for one in episodes.values()))
    compared = [one for key in items if (one := journal.get(key)) is not None]
    return list(value_rows(compared, episodes, stages.renderer, iteration=i, margin=margin))


# ---- the best of N ---------------------------------------------------------------------------------------------------


class BestOfScore(Record):
    """pi_i on a split, the best of N taken at each step.

    Attributes:
        n: N, or `all`.
        evaluation: Its scores.
        generated: Tokens generated a game.
        passed: pass@N: the share of games that at least one of N whole attempts of pi_i by itself solves, for comparison. None of
            `all`.
    """

    n: Number
    evaluation: Evaluation
    generated: float
    passed: float | None


def attempted(stages: Stages, i: int, split: str, tasks: Sequence[Task], n: int) -> list[list[bool]]:
    """Which of n whole attempts of pi_i by itself at each task solve it."""
    spec, file = PolicySpec("student", f"pi_{i}", iteration=i), stages.run.best_of(i, f"{split}-attempts.jsonl")
    tries: list[Sequence[Episode]] = []
    for k in range(n):
        play = Play(tasks, stages.recipe.test_horizon, stages.recipe.seed, f"attempt-{k}-{spec.name}")
        shown = partial(stages.timed, "evaluate", i, f"attempt {k + 1} of pi_{i} on {split}", file)
        tries.append(play_tasks(spec, play, stages.actors, Journal(file, Episode), shown, stages.executor))
    return [[one.success for one in each] for each in zip(*tries, strict=True)]


def evaluate_best_of(
    stages: Stages, i: int, numbers: Sequence[Number], splits: Sequence[str] | None = None
) -> list[BestOfScore]:
    """Evaluates pi_i with the best of each N taken by its own value model, and pass@N beside it.

    Raises:
        RecipeError: It has no value model.
        RunError: There is no such split in the run's evaluation.
    """
    run, recipe = stages.run, stages.recipe
    known = stages.evaluation_tasks()
    if unknown := [split for split in splits or () if split not in known]:
        raise RunError(f"{unknown[0]!r} is none of the splits that the run is evaluated on: {', '.join(known)}.")
    found: list[BestOfScore] = []
    spec = PolicySpec("student", f"pi_{i}", iteration=i)
    for split in splits or [*known]:
        tasks = known[split]
        most = max((n for n in numbers if isinstance(n, int)), default=0)
        solved = attempted(stages, i, split, tasks, most)
        stages.actors.free_student()  # best-of-N loads it again, with a value model beside it
        for n in numbers:
            made: dict[str, Any] = {"value": str(run.root), "iteration": i, "labels": recipe.value.labels}
            policy = BestOfConfig(n=n, votes=recipe.value.votes, **made)
            play = Play(tasks, recipe.test_horizon, recipe.seed, f"evaluate-{spec.name}")
            name = best_of_name(i, n)
            file = run.played(name, split)
            shown = partial(stages.timed, "evaluate", i, f"evaluate the best of {n} of pi_{i} on {split}", file)
            with closing(Actors(recipe.model_copy(update={"policy": policy}), run, stages.environment)) as actors:
                journal = Journal(file, Episode)
                if any(one.actor != actors.acting(spec).actor for one in journal):  # by a value model that is no more
                    file.unlink()
                    run.manifest.forget_missing()
                    journal = Journal(file, Episode)
                episodes = play_tasks(spec, play, actors, journal, shown, stages.executor)
            generated = fmean(sum(step.completion_tokens for step in one.steps) for one in episodes)
            passed = fmean(pass_at(n, each) for each in solved) if isinstance(n, int) else None
            evaluation = evaluate_episodes(episodes, policy=name)
            found.append(BestOfScore(n=n, evaluation=evaluation, generated=round(generated, 1), passed=passed))
    if not splits:
        for n in numbers:
            name = best_of_name(i, n)
            scores = [one.evaluation.model_dump(mode="json") for one in found if one.evaluation.policy == name]
            run.manifest.write(run.evaluation(name), as_json(scores))
        run.manifest.write(run.best_of(i, "scores.json"), as_json([one.model_dump(mode="json") for one in found]))
    return found


def best_of_stage(recipe: Recipe, i: int, stages: Sequence[Stage]) -> Stage | None:
    """The stage that makes pi_i's value model and evaluates pi_i with the best of N answers, where the recipe asks for it."""
    numbers = recipe.value.best_of
    if not numbers:
        return None

    def make(made: Stages) -> None:
        make_value(made, i)
        evaluate_best_of(made, i, numbers)

    at, done = RunDirectory(Path()), RunDirectory(Path()).best_of(i, "scores.json")
    files = [at.value(i, ""), done.parent, *(at.evaluation(best_of_name(i, n)).parent for n in numbers)]
    read = [stage for stage in stages if (stage.kind, stage.iteration) in (("train", i), ("evaluate", i))]
    settings = [recipe.value.model_dump(mode="json"), recipe.training.deciding(), recipe.test_horizon, recipe.seed]
    return Stage(f"best of N of pi_{i}", "value", i, files, done, make, read, settings)


# ---- whole attempts --------------------------------------------------------------------------------------------------


class Passes(Record):
    """How much more of some validation tasks pi_i solves if it may try again.

    Attributes:
        iteration: i.
        tasks: How many.
        passed: pass@1, pass@2, ...: shares of them that at least one of so many whole attempts solves.
    """

    iteration: int
    tasks: int
    passed: list[float]


def measure_passes(stages: Stages, i: int) -> Passes:
    """Counts whole attempts of pi_i at validation tasks, unless that is on file."""
    run, measures, split = stages.run, stages.recipe.measures, stages.recipe.environment.validation
    file = run.best_of(i, "passes.json")
    if not file.exists():
        solved = attempted(stages, i, split, stages.evaluation_tasks()[split][: measures.attempted], measures.attempts)
        passed = [round(fmean(pass_at(n, each) for each in solved), 4) for n in range(1, measures.attempts + 1)]
        run.manifest.write(file, as_json(Passes(iteration=i, tasks=len(solved), passed=passed).model_dump(mode="json")))
    return Passes.model_validate(read_json(file))


def passes_stage(recipe: Recipe, i: int, stages: Sequence[Stage]) -> Stage | None:
    """The stage that counts whole attempts of pi_i, where the recipe asks for it."""
    at, measures = RunDirectory(Path()), recipe.measures
    if not measures.attempts:
        return None
    files = [at.best_of(i, f"{recipe.environment.validation}-attempts.jsonl"), at.best_of(i, "passes.json")]
    read = [stage for stage in stages if (stage.kind, stage.iteration) == ("evaluate", i)]
    make, settings = partial(measure_passes, i=i), [measures.attempts, measures.attempted]
    return Stage(f"whole attempts of pi_{i}", "passes", i, files, files[-1], make, read, settings)
