"""The stage that the measures add to each iteration of a run: `iter-<i>/measures.json` (docs/measures.md)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leap.core import Correction, Episode
from leap.datasets import Row, correction_rows
from leap.errors import RunError
from leap.evaluation import read_evaluations
from leap.files import Journal
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory
from leap.runs.policies import teacher_acting
from leap.runs.stages import Stages
from leap.runs.table import Stage
from leap_lab.measures.corrected import Corrected, held_out
from leap_lab.measures.likelihood import Losses
from leap_lab.measures.measure import Given, measure_iteration, read_measures, write_measures
from leap_lab.measures.records import IterationMeasures
from leap_lab.measures.scoring import scored

KIND = "measure"


def measures_file(run: RunDirectory, i: int) -> Path:
    """Returns where the measures of iteration i are kept."""
    return run.iteration(i) / "measures.json"


def held_out_file(run: RunDirectory, i: int) -> Path:
    """Journal of the corrections of pi_i's evaluation episodes, on which nothing ever trains."""
    return run.iteration(i) / "held-out-corrections.jsonl"


def losses_file(run: RunDirectory, i: int) -> Path:
    """Journal of how likely pi_{i-1} and pi_i find held-out corrections."""
    return run.iteration(i) / "held-out-losses.jsonl"


def measure_stage(recipe: Recipe, i: int, stages: Sequence[Stage]) -> Stage | None:
    """Returns the stage that measures iteration i, where the recipe asks for it."""
    if recipe.measures.held_out is None:
        return None
    at = RunDirectory(Path())
    read = [stage for stage in stages if (stage.kind, stage.iteration) in ((KIND, i - 1), ("evaluate", i))]
    read += [stage for stage in stages if stage.kind == "correct" or (stage.kind, stage.iteration) == ("rollout", 0)]
    return Stage(
        f"measures of pi_{i}",
        KIND,
        i,
        files=[held_out_file(at, i), losses_file(at, i), measures_file(at, i)],
        marker=measures_file(at, i),
        make=lambda made: measure(made, i),
        inputs=read,
        settings=[recipe.teacher.model_dump(mode="json"), recipe.measures.model_dump(include={"held_out"})],
    )


def measure(stages: Stages, i: int) -> IterationMeasures | None:
    """Measures leakage and realizability of iteration i, unless they are on file; None where the recipe asks for none, and where
    only a part of the work is done here."""
    recipe, run, limit = stages.recipe, stages.run, stages.recipe.measures.held_out
    path = measures_file(run, i)
    if limit is None:
        return None
    if (known := read_measures(path)) is not None:
        return known
    if not stages.executor.whole and (left := [j for j in range(i) if not measures_file(run, j).exists()]):
        raise RunError(f"iteration {left[0]} is to be measured first, all of it.")
    validation = recipe.environment.validation
    files = [run.evaluation(name) for name in (f"pi_{i}", teacher_acting(recipe))]
    evaluations = {one.policy: one for file in files for one in read_evaluations(file) if one.split == validation}
    own, corrections = _held_out(stages, i, limit)
    rounds = [_rows(stages, j - 1, limit) for j in range(1, i + 1)]
    losses = _losses(stages, i, rounds) if rounds and rounds[-1] else {}
    if not stages.executor.whole:
        return None
    with stages.timed(KIND, i, f"measures of iteration {i}"):
        given = Given(
            i,
            teacher=recipe.teacher.label,
            privilege=recipe.teacher.privilege,
            training=Corrected(stages.episodes(i), stages.corrections(i), stages.environment) if i else None,
            held_out=Corrected(own, corrections, stages.environment),
            rounds=rounds,
            checkpoints=(stages.actors.checkpoint(i - 1), stages.actors.checkpoint(i)) if i else None,
            success=evaluations.get(f"pi_{i}"),
            teacher_value=evaluations.get(teacher_acting(recipe)),
            earlier=[one for j in range(i) if (one := read_measures(measures_file(run, j)))],
        )
        measures = measure_iteration(given, lambda checkpoint, _: losses[str(checkpoint)])
        write_measures(path, measures)
    return measures


def _losses(stages: Stages, i: int, rounds: Sequence[Sequence[Row]]) -> dict[str, Losses]:
    """How likely pi_i finds the rows of all rounds, and pi_{i-1} those of the last, by checkpoint."""
    asked = {i: [row for rows in rounds for row in rows], i - 1: rounds[-1]}
    file = losses_file(stages.run, i)
    return {str(stages.actors.checkpoint(j)): scored(stages, j, rows, i, file) for j, rows in asked.items()}


def _held_out(stages: Stages, i: int, limit: int) -> tuple[list[Episode], Journal[Correction]]:
    """Evaluation episodes of pi_i on validation tasks, and the teacher's corrections of them. Nothing trains on these."""
    played = stages.journal(stages.run.played(f"pi_{i}", stages.recipe.environment.validation), Episode)
    episodes = held_out(played, limit)
    if not episodes:
        raise RunError(f"{played.path} holds no episodes; evaluate iteration {i} first.")
    journal = stages.journal(held_out_file(stages.run, i), Correction)
    stages.correct_episodes(i, episodes, journal, i)
    return episodes, journal


def _rows(stages: Stages, i: int, limit: int) -> list[Row]:
    """Returns the rows of the held-out corrections of pi_i."""
    episodes, corrections = _held_out(stages, i, limit)
    by_key = {episode.key: episode for episode in episodes}
    chosen = sorted((c for c in corrections if c.episode in by_key), key=lambda c: (c.episode, c.t))
    return list(correction_rows(by_key, chosen, stages.renderer, iteration=i + 1))
