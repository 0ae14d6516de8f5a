"""What is missing is told before anything is done or written: one line each, all at once."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from leap.errors import LeapError, RecipeError
from leap.files import write_json
from leap.models.mock import least_json
from leap.progress import Progress
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory
from leap.runs.open import check_run, open_run
from leap.runs.preflight import check_prerequisites
from leap.runs.table import stage_table
from leap.testing.server import MockServer

pytest.importorskip("openai")
pytest.importorskip("transformers")

GAMES = {"generator": {"games": {"train": 2, "valid": 1, "unseen": 1}, "receptacles": [6, 7]}}


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path_factory.getbasetemp() / "prerequisites"))  # the games are made once
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def recipe(teacher: dict[str, Any] | None = None, **more: Any) -> Recipe:
    values: dict[str, Any] = {"name": "x", "environment": {"name": "alfworld", "options": GAMES}}
    if teacher is not None:
        values["teacher"] = {"kind": "model"} | teacher
    return Recipe.model_validate(values | more)


def told(made: Recipe) -> str:
    with pytest.raises(LeapError) as caught:
        check_prerequisites(made, Progress())
    return str(caught.value)


def test_a_recipe_that_has_all_it_needs_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    check_prerequisites(recipe(), Progress())
    check_prerequisites(recipe({"model": "mock/json"}), Progress())
    monkeypatch.setenv("OPENAI_API_KEY", "right")
    with MockServer(least_json, key="right") as server:
        check_prerequisites(recipe({"model": "openai/mock", "endpoint": {"base_url": server.base_url}}), Progress())
        assert server.counts.requests == 0  # the list of models is free, and enough


def test_a_missing_key_is_told_without_asking_anyone() -> None:
    assert told(recipe({"model": "openai/gpt-4o"})) == "openai/gpt-4o needs a key: set the environment variable OPENAI_API_KEY."


def test_a_wrong_key_and_an_unknown_model_and_an_address_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    with MockServer(least_json, key="right") as server:
        endpoint = {"base_url": server.base_url}
        assert "refuses the key" in told(recipe({"model": "openai/mock", "endpoint": endpoint}))
        monkeypatch.setenv("OPENAI_API_KEY", "right")
        assert "has no model 'gpt-9'; it has: mock" in told(recipe({"model": "openai/gpt-9", "endpoint": endpoint}))
        assert server.counts.answered == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = {"base_url": f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "retries": 0}
        assert "is the server running" in told(recipe({"model": "openai/mock", "endpoint": nobody}))


def test_an_answer_that_had_to_be_paid_to_find_out_is_booked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateways with aliases list no such name; one token tells whether they know it, and it costs what it costs."""
    monkeypatch.setenv("OPENAI_API_KEY", "right")
    with MockServer(least_json, key="right", aliases=["alias"]) as server:
        react = {"model": "openai/mock", "endpoint": {"base_url": server.base_url}}
        teacher = {"model": "openai/alias", "endpoint": {"base_url": server.base_url}}
        made = recipe(teacher, baselines={"react": [react]})
        for starts in (1, 2):
            with open_run(tmp_path / "run", made, check_run(tmp_path / "run", made)) as stages:
                (booked,) = [total.as_dict() for total in stages.actors.ledger.totals()]
            assert (booked["stage"], booked["model"], booked["calls"]) == ("check", "openai/alias", starts)
            assert server.counts.answered == starts
            assert (booked["tokens_in"], booked["tokens_out"]) == (server.counts.prompt_tokens, server.counts.completion_tokens)
    assert booked["tokens_in"] > 0 < booked["tokens_out"]


def test_a_teacher_that_asks_no_model_cannot_be_given_one() -> None:
    with pytest.raises(ValidationError, match="kind: expert does not have it; kind: model does"):
        recipe({"kind": "expert", "model": "openai/gpt-4o"})
    check_prerequisites(recipe({"kind": "expert"}), Progress())


def test_all_that_is_missing_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("runs.preflight", "training.config"):
        missing = lambda name: None if name in ("trl", "wandb") else object()  # noqa: E731
        monkeypatch.setattr(f"leap.{module}.find_spec", missing)
    made = recipe(
        {"model": "openai/gpt-4o"},
        student={"model": f"hf/{tmp_path / 'nothing'}"},
        environment={"name": "alfworld", "options": GAMES, "test": ["seen"]},
        baselines={"react": [{"model": "vllm/some/model"}, {"model": "openai/gpt-4o"}]},
        training={"logging": "wandb"},
    )
    first, *lines = told(made).splitlines()
    assert first == "this recipe cannot run yet:" and all(line.startswith("  - ") for line in lines)
    expected = ("'seen'", "trl", "wandb", "there is no folder", "OPENAI_API_KEY", "no `vllm`")
    assert len(lines) == len(expected)  # the same key, missing twice, is told once
    for words, line in zip(expected, lines, strict=True):
        assert words in line, line


def test_a_prompt_needs_room_and_a_cap_a_price() -> None:
    student = {"scratch": {"max_tokens": 256}, "sampling": {"max_tokens": 256}}
    assert "leaves no room for a prompt" in told(recipe(student=student))
    with pytest.raises(RecipeError, match="the price of openai/strange is not known"):
        check_prerequisites(recipe({"model": "openai/strange"}, budget={"usd": 1}), Progress())


def test_nothing_is_written_and_a_finished_run_needs_nothing(tmp_path: Path) -> None:
    made = recipe({"model": "openai/gpt-4o"}, iterations=1)
    with pytest.raises(LeapError, match="needs a key"):
        check_run(tmp_path / "run", made)
    assert not (tmp_path / "run").exists()
    run = RunDirectory(tmp_path / "run")
    for stage in stage_table(made):
        write_json(run.root / stage.marker, [])
    check_run(tmp_path / "run", made)
    assert not RunDirectory(tmp_path / "run").recipe.exists()
