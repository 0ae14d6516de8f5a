"""Keys of a run's parts: what differs is never shared, what is the same always is."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from leap import registry
from leap.recipe import Recipe, load_recipe
from leap.recipes import FOLDER as RECIPES
from leap.runs.executors import LocalExecutor
from leap.runs.table import stage_table
from leap.value.config import ValueConfig

BASE = load_recipe(RECIPES / "quickstart.yaml", ["measures.held_out=20", "measures.attempts=2"]).model_dump(mode="json")
MIXED = load_recipe(RECIPES / "quickstart.yaml", ["rollouts.beta=0.5"]).model_dump(mode="json")
PAPER = RECIPES / "alfworld-llama3-8b-expert.yaml"
LARGE = load_recipe(PAPER, ["teacher.kind=model", "teacher.model=mock/y"]).model_dump(mode="json")
CHANGES_NO_FILE = {"name", "budget.usd", "budget.tokens", "training.logging", "prices", "executor.kind", "executor.workers"}
CHANGES_NO_FILE |= {"lost_share"}  # says when a stage ends with an error, as a budget does
CHANGES_NO_FILE |= {"training.processes", "training.accelerate"}  # a step of two processes is a step of one
# No study takes a value model from another run.
CHANGES_NO_FILE |= {f"value.{key}" for key in ValueConfig.model_fields if key != "best_of"}
CHANGES_NO_FILE |= {"calls.keep", "calls.most_mb", "calls.self_test"}  # what people may read of calls, and a few calls beforehand


def changed(*changes: tuple[str, Any], base: dict[str, Any] = BASE) -> Recipe:
    recipe = Recipe.model_validate(base)
    values = recipe.model_dump(mode="json")
    for key, value in changes:
        section = values
        *path, last = key.split(".")
        for part in path:
            section = section[part]
        section[last] = value
    return Recipe.model_validate(values)


def keys(recipe: Recipe) -> dict[str, str]:
    return {f"{part.name} {part.iteration}": part.key for part in stage_table(recipe)}


def differing(*changes: tuple[str, Any]) -> set[str]:
    before, after = keys(Recipe.model_validate(BASE)), keys(changed(*changes))
    return {name for name in before if before[name] != after.get(name)}


def leaves(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict) or not values:
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= leaves(value, f"{prefix}.{key}" if prefix else key)
    return found


@registry.executor("x")
class Elsewhere(LocalExecutor):
    """Another executor than the one that ships."""


def other_values(value: Any) -> list[Any]:
    """Values that may be allowed in place of one."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value / 2, value + 25]
    if isinstance(value, list):
        return [[*value, "x"], ["x"], [{"model": "mock/x"}], [4]]
    if isinstance(value, dict):
        return [{"epochs": 2}, {"mock/x": {"input": 1, "output": 1}}]
    words = ["paper", "none", "free", "step", "extracted", "failures", "float32", "previous", "base", "linear", "adamw"]
    words += ["trackio", "returns", "answer", "self", "dialogue", "hf/x", "4bit", "mock/x", "x"]
    return [*words, True, {"rank": 2}, {"model": "mock/x"}, 50, 100, 3, 0.5, ["x"]]


def cases() -> list[str]:
    # With a kind go other keys: see below.
    engine = {key for key in leaves(BASE) if key.startswith("student.engine.")}
    return sorted(leaves(BASE).keys() - {"training.method", "policy.kind", "demonstrations.from"} - engine)


@pytest.mark.parametrize("key", cases())
def test_every_key_of_a_recipe_tells_parts_apart(key: str) -> None:
    """A key that a recipe gets in future is caught here if it does not."""
    tried = []
    for base in (BASE, MIXED, LARGE):
        before, value = keys(Recipe.model_validate(base)), leaves(base).get(key)
        for other in other_values(value):
            try:
                recipe = changed((key, other), base=base)
            except (ValidationError, TypeError, KeyError):
                continue  # not a value of it, or this recipe has no such key
            if recipe.model_dump(mode="json") != base:
                tried.append(keys(recipe) != before)
    assert tried, f"no other value of {key} was found"
    assert any(tried) == (key not in CHANGES_NO_FILE)


def test_privilege_changes_corrections_and_what_follows_but_not_pi_0_or_its_rollouts() -> None:
    found = differing(("teacher.privilege", 75))
    assert "corrections for pi_1 1" in found and "pi_1 1" in found and "rollouts of pi_1 2" in found
    assert not found & {"demonstrations 0", "pi_0 0", "evaluation of pi_0 0", "rollouts of pi_0 1", "evaluation of expert -1"}
    assert "measures of pi_0 0" in found


def test_demonstrations_from_elsewhere_change_everything_but_the_baselines() -> None:
    found = differing(("demonstrations", {"from": "model", "model": "mock/x"}))
    assert {"demonstrations 0", "pi_0 0", "rollouts of pi_0 1", "pi_1 1"} <= found
    assert "evaluation of expert -1" not in found


def test_a_preference_method_shares_pi_0_its_rollouts_and_their_corrections() -> None:
    sft = BASE["training"]
    found = differing(("training", {"method": "dpo", "beta": 0.1, "lr": 1e-4, "steps": 4, "sft": sft}))
    assert not found & {"pi_0 0", "rollouts of pi_0 1", "corrections for pi_1 1", "measures of pi_0 0"}
    assert {"pi_1 1", "evaluation of pi_1 1"} <= found


def test_evaluation_settings_change_evaluations_alone() -> None:
    for change in (("evaluation_horizon", 9), ("environment.test_tasks", 50), ("student.evaluation_temperature", 0.0)):
        found = differing(change)
        assert found and all(name.startswith(("evaluation", "measures", "whole attempts")) for name in found)


def test_what_the_teacher_does_alone_does_not_depend_on_the_student() -> None:
    one = keys(changed(("rollouts", {"beta": 1.0, "decay": 1.0})))
    other = keys(changed(("rollouts", {"beta": 1.0, "decay": 1.0}), ("training.first_steps", 7)))
    assert one["pi_0 0"] != other["pi_0 0"]
    assert one["rollouts of the teacher 2"] == other["rollouts of the teacher 2"]
    half = keys(changed(("rollouts", {"beta": 1.0, "decay": 0.5})))
    assert half["rollouts of the teacher 1"] == one["rollouts of the teacher 1"]
    assert half["rollouts of pi_1 2"] not in keys(Recipe.model_validate(BASE)).values()


def test_what_a_student_plays_on_an_engine_is_told_apart_wherever_that_runs() -> None:
    found = differing(("student.engine", "vllm"))
    assert {"rollouts of pi_0 1", "evaluation of pi_0 0", "pi_1 1"} <= found and not found & {"demonstrations 0", "pi_0 0"}
    one = keys(changed(("student.engine", {"kind": "vllm", "options": {"max_num_seqs": 8}})))
    assert one == keys(changed(("student.engine", {"kind": "vllm", "base_url": "http://127.0.0.1:9/v1", "timeout": 9})))
    assert one != keys(changed(("student.engine", {"kind": "sglang", "base_url": "http://127.0.0.1:9/v1"})))


def test_more_iterations_change_nothing_of_the_first_ones() -> None:
    assert differing(("iterations", 4)) == set()
