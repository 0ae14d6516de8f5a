"""A run directory made by hand. Its world and its models write hostile text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leap.core import Actor, Correction, Episode, Rejection, Task
from leap.datasets import Row, correction_rows
from leap.evaluation import Evaluation, evaluate_episodes, read_evaluations
from leap.files import Journal, read_json, write_json
from leap.models.base import Completion, Request
from leap.models.ledger import Ledger
from leap.models.prices import Price
from leap.policies.rendering import PromptConfig, Renderer
from leap.recipe import Recipe, dump_recipe
from leap.runs.directory import RunDirectory
from leap.testing.corridor import EAST, STAY, WEST, Corridor, CorridorConfig
from leap.testing.play import walked
from leap_lab.measures import AnswerLoss, Corrected, Given, IterationMeasures, Losses, measure_iteration, write_measures

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!-- \u2028 & ' \u202e"
WORLD = Corridor(CorridorConfig(cliff=None, note=HOSTILE, kinds=("find_it", "carry_it")))
SCRIPTED = {"expert": 5, "teacher-0": 5, "teacher-50": 8}
SOLVE, FAIL = [EAST] * 3, [STAY, WEST, STAY, "fly", STAY, EAST]


def task(split: str, number: int) -> Task:
    return WORLD.task(split, number)


def play(task: Task, actor: Actor, actions: list[str]) -> Episode:
    """What comes of these actions."""
    return walked(WORLD, task, actions, actor=actor, reason=f"because {HOSTILE}")


def make_recipe(iterations: int = 2, **more: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "seed": 5,
            "iterations": iterations,
            "horizon": 6,
            "environment": {"name": "corridor", "validation": "valid", "test": ["seen", "unseen"]},
            **more,
        }
    )


def make_run(
    root: Path,
    *,
    iterations: int = 2,
    finished: int | None = None,
    tasks: int = 8,
    baselines: Mapping[str, int] = SCRIPTED,
    recipe: Recipe | None = None,
) -> RunDirectory:
    """A run whose pi_i solves the first 2 + 3i tasks of every split.

    Args:
        root: Where to.
        iterations: As the recipe asks.
        finished: The last iteration that is on file; all by default.
        tasks: Tasks of every split.
        baselines: By folder, how many tasks of each split a baseline solves.
        recipe: What the run's recipe is, if another than `make_recipe`'s.
    """
    run = RunDirectory(root)
    root.mkdir(parents=True, exist_ok=True)
    run.recipe.write_text(dump_recipe(recipe or make_recipe(iterations)), encoding="utf-8")
    provenance = {"leap": "0.1.0", "machine": {"name": HOSTILE}}
    root.joinpath("provenance.jsonl").write_text(json.dumps(provenance) + '\n{"torn', encoding="utf-8")
    for name, solved in baselines.items():
        evaluate(run.baselines / name, Actor(name=name), solved, tasks, run.baselines / name / "evaluation.json")
    stages = []
    for i in range((iterations if finished is None else finished) + 1):
        actor = Actor(name="student", checkpoint=f"key-{i}", iteration=i)
        write_json(run.checkpoint(i) / "leap.json", {"key": f"key-{i}", "iteration": i, "result": {"loss": 0.51}})
        evaluate(run.iteration(i) / "evaluation", actor, 2 + 3 * i, tasks, run.iteration(i) / "evaluation.json")
        episodes = Journal(run.iteration(i) / "episodes.jsonl", Episode)
        corrections = Journal(run.iteration(i) / "corrections.jsonl", Correction)
        behind = Actor(name="student", checkpoint=f"key-{i - 1}", iteration=i - 1) if i else Actor(name="expert")
        for number in range(tasks):
            solved = number < (2 + 3 * (i - 1) if i else tasks)
            episode = play(task("train", number), behind, SOLVE if solved else FAIL)
            episodes.append(episode)
            if not solved:
                for one in correct(episode):
                    corrections.append(one)
        stages.append({"stage": "train", "iteration": i, "what": f"train pi_{i}", "seconds": 61.2, "tokens": 12345})
    stages[-1] |= {"box_seconds": 7261.0, "box_usd": 0.25}
    write_json(run.stages, stages)
    measure(run, len(stages))
    pay(run)
    return run


def measure(run: RunDirectory, students: int) -> None:
    """Measures of every student, as if each correction were twice as likely after training."""
    earlier: list[IterationMeasures] = []
    rounds: list[list[Row]] = []
    renderer = Renderer(PromptConfig())
    for i in range(students):
        evaluation = Evaluation.model_validate(read_json(run.iteration(i) / "evaluation.json")[0])
        teacher = next(iter(read_evaluations(run.evaluation("teacher-50"))), None)
        episodes = list(Journal(run.iteration(i) / "evaluation" / "valid.jsonl", Episode))
        found = [one for episode in episodes for one in correct(episode)]
        earlier.append(
            measure_iteration(
                Given(
                    i,
                    teacher=HOSTILE,
                    privilege=50,
                    training=Corrected(
                        Journal(run.iteration(i) / "episodes.jsonl", Episode),
                        Journal(run.iteration(i) / "corrections.jsonl", Correction),
                        WORLD,
                    )
                    if i
                    else None,
                    held_out=Corrected(episodes, found, WORLD),
                    rounds=rounds,
                    checkpoints=(str(i - 1), str(i)) if i else None,
                    success=evaluation,
                    teacher_value=teacher,
                    earlier=earlier,
                ),
                score,
            ).model_copy(update={"notes": [f"a note {HOSTILE}"]})
        )
        write_measures(run.iteration(i) / "measures.json", earlier[-1])
        rounds.append(list(correction_rows({e.key: e for e in episodes}, found, renderer, iteration=i + 1)))


def score(checkpoint: Path | str, rows: Sequence[Row]) -> Losses:
    """pi_i finds every answer as likely as any other, 0.7 nats less dear at each i."""
    nats = 4.0 - 0.7 * int(str(checkpoint))
    return Losses(
        answers=tuple(
            AnswerLoss(episode=row.episode, t=row.t, nats=nats, tokens=9, action_nats=nats / 3, action_tokens=3)
            for row in rows
        )
    )


def pay(run: RunDirectory) -> None:
    """Books calls of two models, two of which failed."""
    big, small = f"openai/{HOSTILE}", "openai/small"
    ledger = Ledger(run.calls, prices={big: Price(input=0, output=15_625), small: Price(input=0, output=52.5)})
    for stage, model, repeats in (("correct", big, 2), ("measure", small, 0)):
        with ledger.stage(stage):
            asked = Request([{"role": "user", "content": f"asked {HOSTILE}"}], task=f"a task {HOSTILE}", step=2)
            ledger.book(stage, model, Completion(f"said {HOSTILE}", 1200, 80, 300), 1.0, request=asked)
            for number in range(repeats):
                ledger.book(f"{stage} {number}", model, Completion("", 0, 0), 1.0)
    with ledger.stage("measure"):
        for number in range(2):
            ledger.book(f"failed {number}", small, Completion("", 0, 0), 1.0, "no answer")
    ledger.close()


def correct(episode: Episode) -> list[Correction]:
    """Go east, always; the third reason leaks, the last correction is rejected."""
    last = len(episode.steps) - 1
    return [
        Correction(
            episode=episode.key,
            t=t,
            reason=f"the lamp 1 is east, not lamp 12 {HOSTILE}" if t == 2 else "east it is",
            action=EAST,
            teacher="expert",
            privilege=50,
            leaked=("lamp 1",) if t == 2 else (),
            rejected=Rejection.NOT_ADMISSIBLE if t == last - 1 else None,
            plan_length=3,
        )
        for t in range(last + 1)
    ]


def evaluate(folder: Path, actor: Actor, solved: int, tasks: int, out: Path) -> None:
    found = []
    for split in ("valid", "seen", "unseen"):
        journal = Journal(folder / f"{split}.jsonl", Episode)
        for number in range(tasks):
            journal.append(play(task(split, number), actor, SOLVE if number < solved else FAIL))
        found.append(evaluate_episodes(journal, policy=actor.name).model_dump(mode="json"))
    write_json(out, found)
