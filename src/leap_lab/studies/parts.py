"""What a run consists of, each part named by a key of all that it depends on: equal keys, equal files.

The keys come from recipes alone, so that what two arms have in common is known before either is run. Whatever a section
of a recipe holds counts, unless it is named here as something that changes nothing: a key that a recipe gets in future
makes parts differ rather than be shared wrongly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from leap import __version__
from leap.core import content_key
from leap.recipe import Recipe
from leap.runs.actors import folder_name
from leap.training.config import PreferenceConfig

_EVALUATION = {"validation", "validation_tasks", "test", "test_tasks"}
_TRAINING = {"train", "train_tasks", "train_kinds"}
_WEIGHTS = {"model", "scratch"}


class Part(NamedTuple):
    """A part of a run.

    Attributes:
        name: What it is, for people: "rollouts of pi_0".
        stage: rollout, correct, train, evaluate, measure.
        iteration: i; -1 outside the loop.
        key: Names it by all that it depends on.
        files: Its files and folders in the run directory; some may be missing.
        marker: The file that is there once the part is finished.
    """

    name: str
    stage: str
    iteration: int
    key: str
    files: tuple[str, ...]
    marker: str


def parts_of(recipe: Recipe) -> list[Part]:
    """All parts of a recipe's run, in the order in which they are made."""
    return [*_baselines(recipe), *_loop(recipe)]


def _loop(recipe: Recipe) -> list[Part]:
    parts: list[Part] = []

    def add(name: str, stage: str, i: int, depends: Any, files: tuple[str, ...], marker: str) -> str:
        folder = f"iter-{i}/" if i >= 0 else ""
        key = content_key(__version__, stage, depends)
        parts.append(Part(name, stage, i, key, tuple(folder + file for file in files), folder + marker))
        return key

    student = recipe.student.model_dump(mode="json", exclude=_WEIGHTS)
    acting = {key: value for key, value in student.items() if key != "evaluation_temperature"}
    rolled_out = [recipe.environment.model_dump(mode="json", exclude=_EVALUATION), recipe.horizon, recipe.seed]
    demonstrated = [
        recipe.environment.model_dump(mode="json", exclude=_EVALUATION | {"train_tasks"}), recipe.horizon, recipe.seed
    ]
    teacher = recipe.teacher.model_dump(mode="json")
    data = [
        add(
            "demonstrations",
            "rollout",
            0,
            [
                demonstrated,
                recipe.demonstrations.model_dump(mode="json"),
                student["prompt"],
                teacher if recipe.demonstrations.annotate else None,
            ],
            ("episodes.jsonl", "with-state.jsonl", "annotations.jsonl", "rows.jsonl"),
            "rows.jsonl",
        )
    ]
    base = content_key(__version__, "base", recipe.student.model)
    if recipe.student.model == "scratch":
        scratch = recipe.student.scratch.model_dump(mode="json")
        base = add("random weights", "base", -1, [data[0], scratch, recipe.seed], ("base",), "base/leap.json")
    weights, measured = base, None
    for i in range(recipe.iterations + 1):
        if i:
            alone = recipe.rollouts.beta_at(i) >= 1  # then the student takes no part, and its weights do not matter
            who = "the teacher" if alone else f"pi_{i - 1}"
            section = [recipe.rollouts.beta_at(i), recipe.rollout_privilege if recipe.rollouts.beta_at(i) else None]
            rollouts = add(
                f"rollouts of {who}",
                "rollout",
                i,
                [i, rolled_out, section, None if alone else [weights, acting]],
                ("episodes.jsonl",),
                "rows.jsonl",
            )
            judge = [weights, acting] if recipe.teacher.kind == "self" else None
            data.append(
                add(
                    f"corrections for pi_{i}",
                    "correct",
                    i,
                    [i, rollouts, teacher, judge, student["prompt"], recipe.horizon, recipe.seed],
                    ("expert.jsonl", "states.jsonl", "corrections.jsonl", "rows.jsonl"),
                    "rows.jsonl",
                )
            )
        start = base if i == 0 or recipe.training.start_from == "base" else weights
        rows = data if i == 0 or not _on_the_last_alone(recipe) else data[-1:]
        settings = [i, start, rows, _settings(recipe, i), recipe.seed]
        weights = add(f"pi_{i}", "train", i, settings, ("checkpoint",), "checkpoint/leap.json")
        evaluated = [weights, student, _evaluation(recipe)]
        evaluation = add(
            f"evaluation of pi_{i}", "evaluate", i, evaluated, ("evaluation", "evaluation.json"), "evaluation.json"
        )
        if recipe.measures.held_out is not None:
            settings = [measured, evaluation, data, teacher, recipe.measures.model_dump(mode="json")]
            measured = add(
                f"measures of pi_{i}",
                "measure",
                i,
                settings,
                ("held-out-corrections.jsonl", "measures.json"),
                "measures.json",
            )
    return parts


def _on_the_last_alone(recipe: Recipe) -> bool:
    """Whether pi_i is trained on D_i and not on the union."""
    return isinstance(recipe.training, PreferenceConfig) and not recipe.training.sft_first


def _settings(recipe: Recipe, i: int) -> dict[str, Any]:
    """What of the settings pi_i's training depends on: pi_0 is cloned by SFT in every method."""
    config = recipe.training
    if i == 0 and isinstance(config, PreferenceConfig):
        config = config.sft
    dumped = config.model_dump(mode="json", exclude={"logging": True, "sft": {"logging"}})
    # Which of both counts are that of behaviour cloning and which that of the other trainings.
    return dumped | {"first_steps": None, "steps": (config.first_steps if i == 0 else None) or dumped["steps"]}


def _evaluation(recipe: Recipe) -> list[Any]:
    section = recipe.environment
    played = section.model_dump(mode="json", exclude=_TRAINING)
    return [played, recipe.test_horizon, recipe.seed]


def _baselines(recipe: Recipe) -> list[Part]:
    levels = dict.fromkeys((0, recipe.teacher.privilege, 100))
    found: dict[str, Any] = {"expert": None} | {f"teacher-{level}": level for level in levels}
    if recipe.baselines.teacher_model:
        teacher = recipe.teacher.model_dump(mode="json", exclude={"privilege"})
        for level in dict.fromkeys((0, recipe.teacher.privilege)):
            found[folder_name(f"{recipe.teacher.model}-{level}")] = [teacher, level]
    for react in recipe.baselines.react:
        shown = [recipe.demonstrations.model_dump(mode="json"), recipe.environment.train, recipe.horizon]
        found[folder_name(f"react-{react.model}")] = [react.model_dump(mode="json"), shown]
    return [
        Part(
            name=f"evaluation of {name}",
            stage="evaluate",
            iteration=-1,
            key=content_key(__version__, "baseline", name, settings, _evaluation(recipe)),
            files=(f"baselines/{name}",),
            marker=f"baselines/{name}/evaluation.json",
        )
        for name, settings in found.items()
    ]
