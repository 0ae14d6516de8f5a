"""Value models in a whole run of the tiny world: made once, made again where settings change, and used to choose answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_recipe import RECIPE

pytest.importorskip("trl")

import leap
from leap.core import Episode
from leap.errors import RecipeError
from leap.files import Journal
from leap.recipe import Recipe, resolved
from leap.runs.directory import RunDirectory, marker
from leap.runs.open import open_run, recipe_of
from leap.runs.valuing import evaluate_best_of, make_value
from leap.value.labels import Labels
from leap.value.measured import Measured
from tiny_world import TinyWorld, TinyWorldConfig

pytestmark = pytest.mark.slow
WORLD = TinyWorld(TinyWorldConfig(tasks=12))
SMALL = {"tasks": 8, "held_out": 6, "answers": 2, "listed": 1, "training": {"epochs": 2.0}}


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    leap.environment("tiny-world")(TinyWorld)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one iteration."""
    values = yaml.safe_load(RECIPE) | {"value": SMALL}
    return leap.run(values, environment=WORLD, run_dir=tmp_path_factory.mktemp("run") / "run").path


@pytest.fixture(scope="module")
def valued(finished: Path) -> Measured:
    """The value model of pi_1 by replay."""
    return made(finished)


def made(run: Path, *settings: str) -> Measured:
    """What a run sets stays set, so each call says all."""
    usual = ["labels=replay", "start=student", "training.epochs=2.0"]
    with open_run(run, recipe_of(run, [f"value.{one}" for one in (*usual, *settings)])) as stages:
        return make_value(stages, 1)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_value_model_is_made_once_and_its_checkpoint_holds_no_pickle(finished: Path, valued: Measured) -> None:
    run = RunDirectory(finished)
    assert valued.policy == "pi_1" and valued.split == "valid" and valued.trained > 20 and valued.executed > 20
    folder = contents(run.iteration(1, "value"))
    assert {path.name for path in folder} >= {
        "model.safetensors",
        "leap.json",
        "replay.jsonl",
        "held-out.jsonl",
        "replay.json",
    }
    assert not [path for path in folder if path.suffix in (".bin", ".pt", ".pkl", ".tmp") or "training" in path.parts]
    assert (
        not any(run.manifest.damage())
        and f"{run.value(1, 'replay').relative_to(finished)}" in run.manifest.path.read_text()
    )
    assert made(finished) == valued and contents(run.iteration(1, "value")) == folder
    splits = {
        name: {one.task.split for one in Journal(run.value(1, f"{name}.jsonl"), Episode)}
        for name in ("episodes", "held-out")
    }
    assert splits == {"episodes": {"train"}, "held-out": {"valid"}}


def test_what_settings_change_is_made_again_and_nothing_else(finished: Path, valued: Measured) -> None:
    run = RunDirectory(finished)
    labels, weights = run.value(1, "replay.jsonl").read_bytes(), marker(run.value(1, "replay")).read_text()
    made(finished, "training.epochs=1")
    assert run.value(1, "replay.jsonl").read_bytes() == labels and marker(run.value(1, "replay")).read_text() != weights
    assert made(finished) == valued
    other = made(finished, "labels=returns")
    assert other.labels == "returns" and other.executed == 0 and marker(run.value(1, "replay")).exists()
    warm = made(finished, "start=returns")
    assert warm.trained == valued.trained and warm.bins != valued.bins


def test_killed_while_labelling_or_training_it_goes_on_to_the_same(
    finished: Path, valued: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from leap.value import network

    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    shutil.rmtree(RunDirectory(copy).iteration(1, "value"))
    RunDirectory(copy).manifest.path.unlink()

    class Killed(BaseException):
        pass

    def dies(*_: Any, **__: Any) -> None:
        raise Killed

    append, kept = Journal.append, list[Labels]()

    def append_some(self: Journal[Any], record: Any) -> None:
        if isinstance(record, Labels):
            kept.append(record)
            if len(kept) == 4:
                raise Killed
        append(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", append_some)
        with pytest.raises(Killed):
            made(copy)
        patch.setattr(network, "load_student", dies)
        with pytest.raises(Killed):
            made(copy)
    assert len(Journal(RunDirectory(copy).value(1, "replay.jsonl"), Labels)) == 8
    assert made(copy) == valued


def test_labels_of_replay_are_outcomes_of_actions_that_could_be_taken(finished: Path, valued: Measured) -> None:
    run = RunDirectory(finished)
    episodes = {one.key: one for one in Journal(run.value(1, "episodes.jsonl"), Episode)}
    alternatives = 0
    for labels in Journal(run.value(1, "replay.jsonl"), Labels):
        steps: dict[int, list[str]] = {}
        for one in labels.valued:
            steps.setdefault(one.t, []).append(one.action)
            assert set(one.returns) <= {0.0, 1.0} and len(one.returns) == 1
        assert 1 <= len(steps) <= 3
        for t, actions in steps.items():
            step = episodes[labels.episode].steps[t]
            assert actions[0] == step.action and len({*actions}) == len(actions)
            assert {*actions} <= {*(step.observation.admissible or ())}
            alternatives += len(actions) - 1
        own = {
            one.t: one.returns for one in labels.valued if one.action == episodes[labels.episode].steps[one.t].action
        }
        assert {value for each in own.values() for value in each} == {episodes[labels.episode].score}
    assert alternatives > 8


def test_nothing_that_is_hidden_is_in_what_a_value_model_reads(
    finished: Path, valued: Measured, monkeypatch: Any
) -> None:
    """The same histories with another privileged state, and none at all, give the same tokens."""
    from leap.models.chat import ChatTokens
    from leap.models.checkpoints import load_chat
    from leap.value.network import encode, judged_steps

    run, secret = RunDirectory(finished), "The key is in the"
    chat, _ = load_chat(str(run.value(1, "replay")))
    assert isinstance(chat, ChatTokens)
    episodes = {one.key: one for one in Journal(run.value(1, "episodes.jsonl"), Episode)}
    with open_run(finished) as stages:
        renderer = stages.renderer
    for labels in Journal(run.value(1, "replay.jsonl"), Labels):
        episode = episodes[labels.episode]
        for step in judged_steps(episode, labels, renderer):
            assert step.prompt == renderer.render(episode.history(step.t))  # a History has no field for it
            for row in encode(step, chat):
                assert secret not in chat.decode(row.prompt + row.answer)


def test_the_best_of_one_is_the_student_itself_token_for_token(finished: Path, valued: Measured) -> None:
    run = RunDirectory(finished)
    with open_run(finished) as stages:
        alone, three, everything = evaluate_best_of(stages, 1, [1, 3, "all"], ["valid"])
    assert (alone.n, three.n, everything.n) == (1, 3, "all")
    plain = {one.task.id: one for one in Journal(run.played("pi_1", "valid"), Episode)}
    best = {one.task.id: one for one in Journal(run.played("pi_1-best-1", "valid"), Episode)}
    assert {key: one.steps for key, one in plain.items()} == {key: one.steps for key, one in best.items()}
    assert {key: one.key for key, one in plain.items()} == {key: one.key for key, one in best.items()}
    chosen = list(Journal(run.played("pi_1-best-3", "valid"), Episode))
    assert all(one.actor.name.startswith("student, best of 3 by ") for one in chosen)
    assert three.generated > 1.5 * alone.generated > 0 and everything.generated <= 1.5 * alone.generated
    assert alone.passed is not None and three.passed is not None and three.passed >= alone.passed
    assert len(list(Journal(run.best_of(1, "valid-attempts.jsonl"), Episode))) == 3 * len(plain)
    before = contents(run.best_of(1, "."))
    with open_run(finished) as stages:
        assert evaluate_best_of(stages, 1, [1, 3, "all"], ["valid"]) == [alone, three, everything]
    assert contents(run.best_of(1, ".")) == before


def test_a_recipe_with_the_best_of_n_as_its_policy(finished: Path, valued: Measured, tmp_path: Path) -> None:
    values = yaml.safe_load(RECIPE) | {"policy": {"best_of": 2, "value": str(finished)}, "iterations": 0}
    recipe = resolved(values, "test")
    assert recipe.policy.model_dump() == recipe.policy.model_dump() | {"kind": "best-of", "n": 2, "temperature": 1.0}
    done = leap.run(values, environment=WORLD, run_dir=tmp_path / "run")
    actors = {one.actor.name for one in done.episodes(0)} | {
        one.actor.name for one in Journal(RunDirectory(done.path).played("pi_0", "valid"), Episode)
    }
    assert any(name.startswith("student, best of 2 by ") for name in actors)


def test_without_a_value_model_the_command_says_how_to_make_one(tmp_path: Path) -> None:
    values = yaml.safe_load(RECIPE) | {"policy": {"best_of": 2, "value": str(tmp_path)}}
    recipe = Recipe.model_validate(values)
    with pytest.raises(
        RecipeError, match=r"has no value model by labels: replay; `leap value .* -i 0 --labels replay` makes one"
    ):
        _ = recipe.policy.checkpoint  # type: ignore[attr-defined]


def test_the_commands_print_documents(finished: Path, valued: Measured) -> None:
    from typer.testing import CliRunner

    from leap.cli.app import app

    made(finished)
    told = CliRunner().invoke(app, ["value", str(finished), "-i", "1", "--labels", "replay", "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["value"] == valued.model_dump(mode="json")
    scored = CliRunner().invoke(
        app, ["evaluate", str(finished), "-i", "1", "--best-of", "2", "--split", "valid", "--json"]
    )
    assert scored.exit_code == 0, scored.output
    assert [one["n"] for one in json.loads(scored.stdout)["best_of"]] == [2]
    for wrong in ("0", "two"):
        refused = CliRunner().invoke(app, ["evaluate", str(finished), "-i", "1", "--best-of", wrong])
        assert refused.exit_code == 1 and "give a number from 1, or all" in str(refused.exception)


def test_a_recipe_may_ask_for_it_in_each_iteration(tmp_path: Path) -> None:
    """As studies do: the best of N stands with the policies of the run, and is a stage like any other."""
    from leap.runs.table import missing_stages

    small = {**SMALL, "tasks": 4, "held_out": 3, "best_of": [1, 2]}
    values = yaml.safe_load(RECIPE) | {"iterations": 0, "value": small}
    done = leap.run(values, environment=WORLD, run_dir=tmp_path / "run")
    run, recipe = RunDirectory(done.path), recipe_of(done.path)
    assert not missing_stages(recipe, run, WORLD)
    assert {"pi_0-best-1", "pi_0-best-2"} <= {*run.evaluated_baselines()}
    for name in ("pi_0-best-1", "pi_0-best-2"):
        assert len(done.played(name, "test")) == 12
    page = done.report().read_text()
    assert "pi_0-best-2" in page
    run.best_of(0, "scores.json").unlink()
    assert [stage.name for stage in missing_stages(recipe, run, WORLD)] == ["best of N of pi_0"]
