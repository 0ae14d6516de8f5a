"""Run directories made by leap 0.1: their recipes, as that version wrote them, are read as today's or refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from leap.envs.base import load_environment
from leap.errors import RecipeError, RunError
from leap.recipe import Recipe, dump_recipe, load_recipe
from leap.recipes import find_recipe
from leap.runs.open import recipe_of
from leap.training.config import DPOConfig

DATA = Path(__file__).parent / "data"


def run_of(folder: Path, recipe: str, **changes: Any) -> Path:
    """A run directory with a recipe of 0.1, some keys changed by their dotted names."""
    values = yaml.safe_load((DATA / recipe).read_text(encoding="utf-8"))
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values[section][name] = value
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return folder


def test_the_quickstart_of_0_1_is_the_quickstart(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "quickstart-0.1.yaml")
    assert recipe_of(run) == load_recipe(find_recipe("quickstart"))
    assert recipe_of(run, ["iterations=4"]).iterations == 4
    shutil.copy(run / "recipe.yaml", tmp_path / "again.yaml")
    assert Recipe.model_validate(yaml.safe_load(dump_recipe(recipe_of(run)))) == recipe_of(run)


def test_a_model_teacher_a_prompted_baseline_and_another_method(tmp_path: Path) -> None:
    recipe = recipe_of(run_of(tmp_path / "run", "model-teacher-0.1.yaml"))
    (teacher,) = recipe.teacher.models
    assert (teacher.model, teacher.sampling.max_tokens, recipe.teacher.label) == ("openai/gpt-4o", 4096, "model openai/gpt-4o")
    assert recipe.baselines.react[0].model == "hf/x" and isinstance(recipe.training, DPOConfig)


def test_reasons_written_by_the_teachers_model(tmp_path: Path) -> None:
    recipe = recipe_of(run_of(tmp_path / "run", "model-teacher-0.1.yaml", demonstrations__annotate=True))
    assert recipe.demonstrations.models[0].model == "openai/gpt-4o"


@pytest.mark.parametrize(
    ("recipe", "changes", "gone"),
    [
        ("model-teacher-0.1.yaml", {"teacher__attempts": 5}, "teacher.attempts"),
        ("quickstart-0.1.yaml", {"teacher__kind": "self", "teacher__limit": 900}, "teacher.limit"),
        ("model-teacher-0.1.yaml", {"teacher__kind": "expert", "baselines__teacher_model": True}, "baselines.teacher_model"),
    ],
)
def test_what_had_an_effect_and_is_gone_is_refused_in_one_line(
    tmp_path: Path, recipe: str, changes: dict[str, Any], gone: str
) -> None:
    with pytest.raises(RunError) as refused:
        recipe_of(run_of(tmp_path / "run", recipe, **changes))
    assert gone in str(refused.value) and "pip install leap-agents==0.1.0" in str(refused.value)
    assert "\n" not in str(refused.value)


GONE = {"environment__train_kinds": ["x"], "student__prompt": {"repeat_task": False}, "rollouts__privilege": 25}


@pytest.mark.parametrize("key", GONE)
def test_a_run_that_sets_a_key_that_has_gone_since_is_refused_in_one_line(tmp_path: Path, key: str) -> None:
    with pytest.raises(RunError, match=r"It is gone: its default, (null|true), always holds") as refused:
        recipe_of(run_of(tmp_path / "run", "quickstart-0.1.yaml", **{key: GONE[key]}))
    assert "\n" not in str(refused.value) and "Go on with" in str(refused.value)


def test_a_key_that_has_gone_may_say_what_holds_always() -> None:
    values = {"name": "x", "environment": {"name": "alfworld", "train_kinds": None}, "rollouts": {"privilege": None}}
    assert Recipe.model_validate(values) == Recipe.model_validate({"name": "x", "environment": {"name": "alfworld"}})
    shop = load_environment("webshop", {"prices": "seeded"})
    assert shop.config == load_environment("webshop").config
    with pytest.raises(RecipeError, match=r'prices: unknown key\. It is gone: its default, "seeded"'):
        load_environment("webshop", {"prices": "compat"})


@pytest.mark.parametrize("recipe", ["quickstart-0.1.yaml", "model-teacher-0.1.yaml"])
def test_a_checkpoint_is_named_by_the_same_settings_as_ever(tmp_path: Path, recipe: str) -> None:
    written = yaml.safe_load((DATA / recipe).read_text(encoding="utf-8"))["training"]
    for section in (written, *(value for value in written.values() if isinstance(value, dict) and "logging" in value)):
        del section["logging"]
    assert recipe_of(run_of(tmp_path / "run", recipe)).training.deciding() == written
