"""Recipes: what ships loads, and whatever is wrong is named by its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leap.envs.base import load_environment
from leap.errors import RecipeError
from leap.recipe import Recipe, dump_recipe, load_recipe, read_mapping, resolved
from leap.recipes import shipped_recipes

SHIPPED = list(shipped_recipes().values())


def write(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def minimal(**more: Any) -> dict[str, Any]:
    return {"name": "x", "environment": {"name": "alfworld"}} | more


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_recipes_load_and_their_environments_know_their_options(path: Path) -> None:
    recipe = load_recipe(path)
    environment = load_environment(recipe.environment.name, recipe.environment.options)
    assert not {recipe.environment.train, recipe.environment.validation} & environment.test_splits


def test_a_resolved_recipe_reads_as_the_same_recipe(tmp_path: Path) -> None:
    for path in SHIPPED:
        recipe = load_recipe(path)
        resolved = tmp_path / "resolved.yaml"
        resolved.write_text(dump_recipe(recipe), encoding="utf-8")
        assert load_recipe(resolved) == recipe
        assert set(yaml.safe_load(resolved.read_text())) == set(Recipe.model_fields)  # every default written out


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "nan", "1e999"])
@pytest.mark.parametrize(
    "key",
    [
        "training.epochs",
        "training.lr",
        "training.max_grad_norm",
        "student.sampling.temperature",
        "environment.error_share",
        "budget.usd",
        "environment.options.anything",
        "environment.options.deep.list",
        "training.steps",
        "horizon",
    ],
)
def test_numbers_that_are_none_are_refused_by_their_key(key: str, value: str) -> None:
    values = minimal()
    value = f"[1, {value}]" if key.endswith("list") else value
    if key.startswith("environment.options") and value in ("nan", "[1, nan]", "1e999", "[1, 1e999]"):
        return  # in YAML a text, and what it is to be the environment knows
    with pytest.raises(RecipeError, match=r"finite|integer") as told:
        resolved(values, "recipe", [f"{key}={value}"])
    assert all(part in str(told.value) for part in key.split("."))


@pytest.mark.parametrize("key", ["horizon", "iterations", "training.lr", "training.steps", "environment.test_tasks"])
def test_true_is_no_number(key: str) -> None:
    with pytest.raises(RecipeError, match=rf"{key}: must be a number \(given: True\)"):
        resolved(minimal(), "recipe", [f"{key}=true"])


@pytest.mark.parametrize("key", ["lr", "muon_lr"])
def test_a_learning_rate_fits_the_numbers_of_the_weights(key: str) -> None:
    with pytest.raises(RecipeError, match=f"training.{key}"):
        resolved(minimal(), "recipe", [f"training.{key}=1e39"])


def test_every_key_is_documented() -> None:
    def undocumented(model: Any, prefix: str = "") -> list[str]:
        missing = []
        for name, field in model.model_fields.items():
            inner = [t for t in (field.annotation, *getattr(field.annotation, "__args__", ())) if hasattr(t, "model_fields")]
            if inner:
                missing += undocumented(inner[0], f"{prefix}{name}.")
            elif not field.description:
                missing.append(prefix + name)
        return missing

    assert undocumented(Recipe) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"iteratons": 3}, "iteratons: unknown key"),
        ({"student": {"sampling": {"temprature": 1}}}, "student.sampling.temprature: unknown key"),
        ({"training": {"lora": {"rnak": 4}}, "student": {"model": "hf/x"}}, "training.lora.rnak: unknown key"),
        ({"horizon": "many"}, "horizon"),
        ({"horizon": 0}, "horizon"),
        ({"seed": -1}, "seed"),
        ({"teacher": {"privilege": 101}}, "teacher.privilege"),
        ({"teacher": {"kind": "oracle"}}, "teacher.kind"),
        ({"teacher": {"verify": True}}, "teacher.verify"),
        ({"student": {"decoding": "greedy"}}, "student.decoding"),
        ({"student": None}, "student"),
        ({"name": "../escape"}, "name"),
        ({"name": ""}, "name"),
        ({"training": {"steps": 0}}, "training.steps"),
        ({"training": {"lr": float("nan")}}, "training.lr"),
        ({"environment": {"name": "alfworld", "validation": "unseen"}}, "validation split 'unseen' is also a test split"),
        ({"environment": {"name": "alfworld", "train": "unseen"}}, "training split 'unseen' is also a test split"),
        ({"environment": {"name": "alfworld", "validation": "train"}}, "training and validation"),
        ({"training": {"lora": {}}}, "training.lora"),
        (
            {"training": {"branches": True}, "student": {"prompt": {"renderer": "paper"}}},
            "training.branches needs student.prompt.renderer: dialogue",
        ),
        ({"student": {"model": "gpt-4"}}, "student.model 'gpt-4'"),
        ({"environment": {}}, "environment.name"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_is_wrong_is_named_by_its_key(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, minimal(**change)))
    assert named in str(caught.value)
    assert caught.value.exit_code == 2


def test_what_stands_twice_is_not_counted_twice() -> None:
    from leap_lab.studies.schema import LoopStudy

    world = {"name": "alfworld", "test": ["unseen", "unseen"]}
    react = [{"model": "mock/first"}, {"model": "mock/first", "examples": 1}]
    for change, key in (({"environment": world}, "environment.test"), ({"baselines": {"react": react}}, "baselines.react")):
        with pytest.raises(RecipeError, match=f"{key}: one of .* stands there twice"):
            resolved(minimal() | change, "recipe")
    with pytest.raises(RecipeError, match="seeds: a seed stands there twice"):
        LoopStudy.from_values({"seeds": [0, 1, 0]}, "study")


def test_two_findings_are_both_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, minimal(horizon=0, teecher={})))
    assert "horizon" in str(caught.value) and "teecher" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# only a comment\n",
        b"just words",
        b"- a\n- list\n",
        b"42",
        b"name: x\n  bad indent: [",
        b"name: {a: }}",
        b"!!python/object/apply:os.getcwd []",
        b"\x00\x01\x02",
        bytes(range(128, 256)),
        b"\x89PNG\r\n\x1a\n",
        b"? [1, 2]\n: 3\n",
        b"1: 2\n",
        b"name: 2024-01-01\nenvironment: {name: alfworld}\n",
        b"name: 2024-99-99\n",
        b"seed: " + b"9" * 5000,
        b"name: " + b"[" * 3000 + b"]" * 3000,
        b"name: " + b"{a: " * 3000 + b"}" * 3000,
        b"name: &a [*a]\n",
        b"baselines: &a {react: *a}\n",
        b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 60)),
    ],
    ids=lambda content: repr(content)[:30],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        load_recipe(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))))
def test_no_bytes_at_all_give_anything_but_a_recipe_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError):
        load_recipe(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(RecipeError, match="cannot read the recipe"):
            load_recipe(path)


def test_overrides_replace_values_and_make_sections(tmp_path: Path) -> None:
    path = write(tmp_path, minimal(horizon=7))
    recipe = load_recipe(path, ["horizon=9", "student.sampling.temperature=0", "environment.test=[a, b]", "name='7'"])
    assert (recipe.horizon, recipe.student.sampling.temperature, recipe.environment.test) == (9, 0, ["a", "b"])
    assert recipe.name == "7"
    assert load_recipe(path).horizon == 7


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("horizon", "dotted.key=value"),
        ("=3", "dotted.key=value"),
        ("horizon.x=3", "'horizon' is not a mapping"),
        ("horizon=[", "not valid YAML"),
        ("name=2024-99-99", "not valid YAML: month must be"),
        ("environment.test=&a [*a]", "not valid YAML: it is nested too deeply"),
        (f"seed={10**30}", "seed: Input should be less than"),
        ("horizn=3", "horizn: unknown key"),
        ("a..b=3", "a"),
        (".=3", "unknown key"),
        ("student.sampling.max_tokens=lots", "student.sampling.max_tokens"),
    ],
)
def test_a_bad_override_is_named(tmp_path: Path, override: str, named: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, minimal(horizon=7)), [override])
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"sauce": 1}, "sauce"), ({"generator": {"games": {"trian": 3}}}, "trian"), ({"engine": "unreal"}, "engine")],
)
def test_an_environment_names_options_it_does_not_know(options: dict[str, Any], named: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_environment("alfworld", options)
    assert named in str(caught.value)


def test_an_unknown_environment_is_told_with_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"no environment 'alfword'.*alfworld"):
        load_environment("alfword")


def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nenvironment: {name: alfworld}\nhorizon: 2\nseed: 1\nhorizon: 3\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="key 'horizon' stands in line 3 and again in line 5"):
        load_recipe(path)


@pytest.mark.parametrize(
    "text",
    [
        "environment: {name: alfworld, name: webshop}",
        "environment:\n  options: {games: [{train: 1, train: 2}]}",
        'environment: {"name": alfworld, name: webshop}',
        "x: &x {a: 1}\ny: {<<: *x, b: 1, b: 2}",
    ],
)
def test_a_key_that_stands_twice_is_refused_wherever_it_stands(tmp_path: Path, text: str) -> None:
    """On one line, in a list, in other quotes, beside a merged mapping; in a recipe, a study and an override alike."""
    from leap_lab.studies.schema import load_study

    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: x\n{text}\n", encoding="utf-8")
    for read in (load_recipe, load_study):
        with pytest.raises(RecipeError, match=r"key '\w+' stands in line \d and again in line \d"):
            read(path)
    with pytest.raises(RecipeError, match="key 'b' stands in line 1 and again in line 1"):
        load_recipe(write(tmp_path, minimal()), ["environment.options={a: {b: 1, b: 2}}"])


def test_a_merged_mapping_may_be_overruled(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("x: &x {seed: 1, steps: 1}\ny: &y {<<: *x, steps: 2}\nz: [{<<: *y, seed: 3}, *y]\n", encoding="utf-8")
    assert read_mapping(path, "recipe")["z"] == [{"seed": 3, "steps": 2}, {"seed": 1, "steps": 2}]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"horizn": 3}, "horizn: unknown key. Did you mean 'horizon'?"),
        ({"teacher": {"privlege": 3}}, "teacher.privlege: unknown key. Did you mean 'privilege'?"),
        ({"teacher": {"model": "mock/x"}}, "teacher.model: unknown key. kind: expert does not have it; kind: model does."),
        ({"teacher": {"kind": "modle"}}, "there is no teacher 'modle'. Did you mean 'model'?"),
        ({"training": {"beta": 0.1}}, "training.beta: unknown key. method: sft does not have it; method: dpo or kto"),
        ({"student": {"model": "Qwen/Qwen3-4B"}}, "Did you mean 'hf/Qwen/Qwen3-4B'?"),
        ({"teacher": {"kind": "model", "model": "mock/x", "endpoint": {"tiemout": 3}}}, "teacher.endpoint.tiemout: unknown key."),
        ({"teacher": {"kind": "model", "model": "hf/x", "endpoint": {"timeout": 3}}}, "teacher.endpoint.timeout: unknown key"),
    ],
)
def test_what_was_meant_is_said(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, minimal(**change)))
    assert said in str(caught.value)


def test_a_model_in_a_folder_is_named_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another folder the same name may mean another model."""
    (tmp_path / "models" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    values = minimal(
        student={"model": "hf/models/base"},
        teacher={"kind": "model", "model": "hf/./models/base"},
        baselines={"react": [{"model": "hf/models/other"}, {"model": "mock/models/base"}]},
    )
    recipe = resolved(values, "recipe")
    whole = f"hf/{tmp_path / 'models' / 'base'}"
    assert [recipe.student.model, recipe.teacher.models[0].model] == [whole, whole]
    assert [one.model for one in recipe.baselines.react] == ["hf/models/other", "mock/models/base"], "names, not folders"
    monkeypatch.chdir("/")
    assert resolved(recipe.model_dump(mode="json"), "the same from another folder") == recipe
