"""Study files: what ships is whole, and whatever is wrong is named by its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from leap.errors import RecipeError
from leap.recipe import Recipe, load_recipe
from leap.recipes import FOLDER as RECIPES
from leap.runs.table import stage_table
from leap.training.config import PreferenceConfig, SFTConfig
from leap_lab.studies.runner import Choice, arms_of
from leap_lab.studies.schema import FOLDER as STUDIES
from leap_lab.studies.schema import (
    LoopStudy,
    TheoryStudy,
    available_studies,
    base_recipe,
    find_study,
    load_study,
    run_name,
)

SHIPPED = sorted(STUDIES.glob("*.yaml"))
CLAIMS = {
    "bc-react", "better-than-teacher", "self-improvement", "privilege", "on-policy", "methods", "one-model", "theory", "distill",
    "verifier",
}


def minimal(**more: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "claim": "c",
        "hypothesis": "h",
        "recipe": "quickstart.yaml",
        "arms": {"a": {}, "b": {"teacher.privilege": 75}},
        "plots": [{"kind": "policies"}],
    } | more


def write(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_every_claim_has_its_study() -> None:
    assert {path.stem for path in SHIPPED} == CLAIMS
    assert available_studies().keys() >= CLAIMS
    assert all(load_study(path).name == path.stem for path in SHIPPED)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_study_is_whole(path: Path, tmp_path: Path) -> None:
    study = load_study(path)
    assert len(study.seeds) >= 3
    if isinstance(study, TheoryStudy):
        return
    base = base_recipe(study, path)
    arms = arms_of(study, base, tmp_path)
    assert len(arms) == len(study.changes()) * len(study.seeds)
    assert len({arm.run for arm in arms}) == len(arms)
    for arm in arms:
        options = arm.recipe.environment.options
        tasks = options["each"] if "each" in options else options["generator"]["games"]
        assert tasks[study.split] >= 100, "of each part, where there are several"
        assert arm.recipe.environment.test_tasks is None, "every test task, so the same for each seed"
    assert study.contrasts() and study.shown()
    first = {seed: {part.key for arm in arms if arm.seed == seed for part in stage_table(arm.recipe)} for seed in study.seeds}
    assert not first[0] & first[1], "seeds share nothing"


def test_the_arms_of_methods_have_one_pi_0_and_sfts_settings(tmp_path: Path) -> None:
    path = find_study("methods")
    study = load_study(path)
    assert isinstance(study, LoopStudy)
    arms = arms_of(study, base_recipe(study, path), tmp_path, Choice(seeds=[0]))
    assert len({part.key for arm in arms for part in stage_table(arm.recipe) if part.name == "pi_0"}) == 1


def test_one_model_has_the_data_and_the_compute_of_its_specialists_together(tmp_path: Path) -> None:
    path = find_study("one-model")
    study = load_study(path)
    assert isinstance(study, LoopStudy)
    together, *specialists = (arm.recipe for arm in arms_of(study, base_recipe(study, path), tmp_path, Choice(seeds=[0])))
    options = together.environment.options
    assert [one.environment.options["only"] for one in specialists] == [[part] for part in options["parts"]]

    def spent(recipe: Recipe) -> tuple[int | None, ...]:
        training = recipe.training
        return recipe.demonstrations.episodes, recipe.environment.train_tasks, training.first_steps, training.steps

    assert spent(together) == tuple(sum(each) for each in zip(*map(spent, specialists), strict=True))  # type: ignore[arg-type]
    cost = {"name": True, "environment": {"train_tasks", "options"}, "demonstrations": {"episodes"}}
    cost |= {"training": {"first_steps", "steps"}}
    for one in specialists:
        assert one.model_dump(exclude=cost) == together.model_dump(exclude=cost), "they differ in nothing else"
        assert one.environment.options | {"only": None} == options | {"only": None}


LARGE = RECIPES / "alfworld-llama3-8b-expert.yaml"


@pytest.mark.parametrize("name", sorted(CLAIMS - {"theory", "one-model"}))
def test_a_study_runs_unchanged_on_a_large_model(name: str, tmp_path: Path) -> None:
    path = find_study(name)
    own = load_study(path)
    assert isinstance(own, LoopStudy)
    study = own.on(LARGE)
    assert (study.name, study.split) == (f"{name}-alfworld-llama3-8b-expert", "valid_unseen")
    assert own.on(LARGE, "valid_seen").split == "valid_seen"
    large = load_recipe(LARGE)
    arms = arms_of(study, base_recipe(study, path), tmp_path, Choice(seeds=[0]))
    assert {arm.name for arm in arms} == own.changes().keys()
    for arm in arms:
        training = arm.recipe.training
        assert training.lora == large.training.lora and training.gradient_checkpointing and training.steps is None
        assert arm.recipe.demonstrations.with_state == 0, "a pretrained model can read"
        assert arm.recipe.student == large.student
        if isinstance(training, PreferenceConfig):
            assert training.sft == large.training and training.lr == 5e-7
            assert "branches" not in type(training).model_fields, "a pass of a whole episode is SFT's alone"


SMOLLM2 = RECIPES / "smollm2-quickstart.yaml"


@pytest.mark.parametrize("name", sorted(CLAIMS - {"theory", "one-model"}))
def test_a_study_runs_on_the_pretrained_quickstart(name: str, tmp_path: Path) -> None:
    path = find_study(name)
    own = load_study(path)
    assert isinstance(own, LoopStudy)
    study = own.on(SMOLLM2)
    base = load_recipe(SMOLLM2)
    for arm in arms_of(study, base_recipe(study, path), tmp_path, Choice(seeds=[0])):
        assert arm.recipe.student == base.student and arm.recipe.training.lora == base.training.lora


def test_bc_react_is_equal_in_optimizer_steps_on_the_pretrained_quickstart(tmp_path: Path) -> None:
    path = find_study("bc-react")
    own = load_study(path)
    assert isinstance(own, LoopStudy)
    study = own.on(SMOLLM2)
    arms = arms_of(study, base_recipe(study, path), tmp_path, Choice(seeds=[0]))
    leap, *clones = (arm.recipe for arm in arms)
    assert isinstance(leap.training, SFTConfig)
    spent = (leap.training.first_steps or 0) + leap.iterations * (leap.training.steps or 0)
    assert len(clones) == 2
    for clone in clones:
        assert isinstance(clone.training, SFTConfig) and (clone.iterations, clone.training.first_steps) == (0, spent)


def test_another_base_recipe_has_a_budget_of_its_own() -> None:
    budgets = {"smollm2-quickstart": {"*": {"seed": 5}, "b": {"horizon": 7}}}
    own = LoopStudy.model_validate(minimal(budget={"b": {"horizon": 3}}, budgets=budgets))
    alone = {"teacher.privilege": 75}
    assert own.changes() == {"a": {}, "b": alone | {"horizon": 3}}
    assert own.on(SMOLLM2).changes() == {"a": {"seed": 5}, "b": alone | {"seed": 5, "horizon": 7}}
    assert own.on(LARGE).changes() == {"a": {}, "b": alone}


def test_one_model_runs_unchanged_on_another_mixture(tmp_path: Path) -> None:
    path = find_study("one-model")
    own = load_study(path)
    assert isinstance(own, LoopStudy)
    study = own.on(RECIPES / "mixture-quickstart.yaml")
    arms = arms_of(study, base_recipe(study, path), tmp_path, Choice(arms=["together", "alfworld"], seeds=[0]))
    together, alone = (arm.recipe for arm in arms)
    assert alone.environment.options["only"] == ["alfworld"] and alone.training == together.training


def test_a_method_changes_and_what_was_said_of_sft_stays(tmp_path: Path) -> None:
    study = LoopStudy.model_validate(minimal(arms={"a": {}, "b": {"training.method": "kto"}, "c": {"training.method": "sft"}}))
    base = load_recipe(RECIPES / "quickstart.yaml")
    sft, kto, same = (arm.recipe.training for arm in arms_of(study, base, tmp_path, Choice(seeds=[0])))
    assert isinstance(kto, PreferenceConfig)
    assert kto.sft == sft == same == base.training and kto.steps is None
    back = arms_of(study, base.model_copy(update={"training": kto}), tmp_path, Choice(arms=["c"], seeds=[0]))
    assert back[0].recipe.training == sft


def test_another_base_recipe_must_have_the_split(tmp_path: Path) -> None:
    study = load_study(find_study("methods"))
    assert isinstance(study, LoopStudy)
    with pytest.raises(RecipeError, match=r"'unseen' is not among environment.test \(valid_seen, valid_unseen\)"):
        study.on(LARGE, "unseen")
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        study.on(tmp_path / "none.yaml")


def test_axes_and_arms_combine() -> None:
    axis = {"key": "teacher.privilege", "values": [0, 50]}
    budget = {"*": {"seed": 1, "horizon": 3}, "b": {"horizon": 4, "teacher.privilege": 1}}
    study = LoopStudy.model_validate(minimal(axes=[axis], settings={"iterations": 1}, budget=budget))
    assert study.changes()["a 0"] == {"iterations": 1, "seed": 1, "horizon": 3, "teacher.privilege": 0}
    assert study.changes()["b 50"] == {"iterations": 1, "seed": 1, "horizon": 4, "teacher.privilege": 50}
    assert list(study.changes()) == ["a 0", "a 50", "b 0", "b 50"]
    assert run_name("sft+dpo 50", 2) == "sft-dpo-50-2"
    alone = LoopStudy.model_validate(minimal(arms={}, axes=[axis], plots=[{"kind": "axis", "policies": ["best"]}]))
    assert list(alone.changes()) == ["0", "50"]


def test_stars_stand_for_each_arm() -> None:
    compare = [{"policy": "*/best", "against": "a/best"}, {"policy": "*/best", "against": "*/pi_0"}]
    study = LoopStudy.model_validate(minimal(compare=compare))
    assert [(str(one), str(other)) for one, other in study.contrasts()] == [
        ("b/best", "a/best"),
        ("a/best", "a/pi_0"),
        ("b/best", "b/pi_0"),
    ]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sedes": [0]}, "sedes: unknown key"),
        ({"plots": [{"kind": "pie"}]}, "plots"),
        ({"plots": []}, "plots"),
        ({"arms": {}}, "nothing that varies"),
        ({"arms": {"../up": {}}}, "arms"),
        ({"table": ["c/best"]}, "there is no arm 'c'"),
        ({"budget": {"c": {}}}, "there is no arm 'c'"),
        ({"budgets": {"quickstart": {"d": {}}}}, "budget: there is no arm 'd'"),
        ({"table": ["best"]}, "ARM/POLICY"),
        ({"compare": [{"policy": "a/best", "against": "d/best"}]}, "there is no arm 'd'"),
        ({"plots": [{"kind": "axis", "policies": ["best"]}]}, "exactly one axis"),
        ({"plots": [{"kind": "iterations", "arms": ["z"]}]}, "there is no arm 'z'"),
        ({"seeds": []}, "seeds"),
        ({"name": "list"}, "name"),
        ({"kind": "theory"}, "worlds"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_study(write(tmp_path, minimal(**change)))
    assert named in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"- a", b"\xff\xfe", b"a: [", b"!!python/object/apply:os.getcwd []"])
def test_a_file_that_is_no_study_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"study\.yaml"):
        load_study(path)


def test_an_arm_that_is_no_recipe_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, minimal(arms={"bad": {"teacher.privilige": 3}}))
    study = load_study(path)
    assert isinstance(study, LoopStudy)
    base = base_recipe(study, SHIPPED[0].parents[1] / "x.yaml")
    with pytest.raises(RecipeError, match=r"arm 'bad'[\s\S]*teacher.privilige: unknown key"):
        arms_of(study, base, tmp_path)
    with pytest.raises(RecipeError, match="no arm 'other'"):
        arms_of(study, base, tmp_path, Choice(arms=["other"]))


def test_an_unknown_study_is_told_with_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"no study 'methds'.*methods"):
        find_study("methds")
