"""The paper's recipes from nothing to the last evaluation, every line of them: a small Llama in the student's place, a script
at a real socket in GPT-4o's, small worlds. All of that is said by `--set`, as the recipes' heads tell people to."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from leap.core import Correction, Episode
from leap.datasets import read_rows
from leap.files import Journal
from leap.loop import leap
from leap.models.base import Request
from leap.models.mock import first_choice, read_plan, steps_asked
from leap.recipe import load_recipe
from leap.recipes import find_recipe
from leap.runs.open import open_run
from leap.runs.preflight import Ready
from leap.teachers.onfile import HEADINGS
from leap.testing.server import MockServer

pytestmark = pytest.mark.slow

REASON = "This is where it is often found."
ASKED: Counter[str] = Counter()
SMALL = ["iterations=1", "calls.self_test=false", "student.sampling.max_tokens=6", "training.batch_rows=8"]
SMALL += ["training.device_rows=4", "training.lora.rank=4"]
GAMES = "{source: generated, generator: {games: {train: 2, valid: 1, unseen: 1}, receptacles: [6, 7]}}"
HOUSE = ["environment.train=train", "environment.validation=valid", "environment.test=[unseen]"]
SHOP = [
    "environment.options={source: generated, tagger: lexical, patience: 6, generator: {products: 1520, goals: 1510}}",
    "environment.test=[test]",
    "environment.train_tasks=2",
    "environment.validation_tasks=1",
    "environment.test_tasks=1",
    "demonstrations.episodes=2",
    "horizon=7",
    "evaluation_horizon=3",
]


def gpt(request: Request) -> str:
    """Does what the paper's recipes ask of GPT-4o: reads states from logs, gives reasons, corrects by the state, plays."""
    prompt = str(request.messages[-1]["content"])
    if all(f"\n{heading}: <" in prompt for heading in HEADINGS):
        ASKED["extract"] += 1
        actions = "; ".join(re.findall(r"(?m)^Action: (.+)$", prompt))
        return f"Task: as told\nEssential objects: those of the task\nCritical locations: as seen\nOptimal actions: {actions}"
    if request.schema is None:
        ASKED["play"] += 1
        return str(first_choice(request))
    if "corrected_action" not in json.dumps(request.schema):
        ASKED["annotate"] += 1
        return json.dumps({"trajectory": [{"timestep": t, "reason": REASON} for t in steps_asked(request)]})
    ASKED["correct"] += 1
    return read_plan(request)


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MockServer]:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    ASKED.clear()
    with MockServer(gpt, models=["gpt-4o"]) as server:
        yield server


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from leap.testing.checkpoints import tiny_checkpoint

    return tiny_checkpoint(tmp_path_factory.mktemp("llama"), "llama3", context=32768)


def run(name: str, folder: Path, student: Path, server: MockServer, overrides: Sequence[str], ready: Ready | None = None) -> Any:
    """Runs a recipe as `leap run NAME --set ...` does; the endpoints are those of its models."""
    overrides = [f"student.model=hf/{student}", *SMALL, *overrides]
    at = {"model": "demonstrations", "tutor": "demonstrations.annotate"}
    shipped = load_recipe(find_recipe(name), overrides)
    for section in ["teacher", at[shipped.demonstrations.source]][: len(shipped.models)]:
        overrides.append(f"{section}.endpoint.base_url={server.base_url}")
    recipe = load_recipe(find_recipe(name), overrides)
    assert {model.model for model in recipe.models} <= {"openai/gpt-4o"}
    with open_run(folder, recipe, ready) as stages:
        result = leap(stages)
    assert len(result.students) == recipe.iterations + 1
    for i in range(recipe.iterations + 1):
        checkpoint = folder / f"iter-{i}" / "checkpoint"
        assert (checkpoint / "adapter_model.safetensors").exists()
        assert json.loads((checkpoint / "leap.json").read_text())["result"]["answer_tokens"] > 0
    return recipe


def corrections(folder: Path) -> list[Correction]:
    return list(Journal(folder / "iter-1" / "corrections.jsonl", Correction))


def cloned(folder: Path) -> list[str]:
    """What the first student was trained to answer."""
    return [str(row.completion[0]["content"]) for row in read_rows(folder / "iter-0" / "rows.jsonl")]


def test_alfworld(endpoint: MockServer, student: Path, tmp_path: Path) -> None:
    """A model gives the reasons, reads the states and corrects; all three are on file."""
    options = [*HOUSE, f"environment.options={GAMES}", "horizon=16"]
    recipe = run("alfworld-llama3-8b", tmp_path / "run", student, endpoint, options)
    assert (recipe.teacher.kind, recipe.teacher.state, recipe.teacher.by) == ("model", "extracted", "trajectory")
    failed = [one for one in Journal(tmp_path / "run" / "iter-1" / "episodes.jsonl", Episode) if not one.score]
    solved = [one for one in Journal(tmp_path / "run" / "iter-0" / "episodes.jsonl", Episode) if one.success]
    assert failed and solved and ASKED["extract"] and ASKED["annotate"] == len(solved)
    assert ASKED["correct"] == len({one.episode for one in corrections(tmp_path / "run")})
    assert any(one.kept for one in corrections(tmp_path / "run"))
    answers = cloned(tmp_path / "run")
    assert answers and all(REASON in answer for answer in answers), "the expert's own reasons are replaced"
    assert (tmp_path / "run" / "iter-1" / "states.jsonl").read_text().count("Optimal actions") == ASKED["extract"]


def test_alfworld_with_the_scripted_teacher_asks_nobody(endpoint: MockServer, student: Path, tmp_path: Path) -> None:
    options = [*HOUSE, f"environment.options={GAMES}", "horizon=16"]
    recipe = run("alfworld-llama3-8b-expert", tmp_path / "run", student, endpoint, options)
    assert recipe.teacher.kind == "expert" and not endpoint.counts.requests and not ASKED
    assert any(one.kept for one in corrections(tmp_path / "run"))


def test_webshop(endpoint: MockServer, student: Path, tmp_path: Path) -> None:
    recipe = run("webshop-llama3-8b", tmp_path / "run", student, endpoint, SHOP)
    assert recipe.teacher.state == "environment" and recipe.teacher.failure_score == 0
    assert ASKED["annotate"] and ASKED["correct"] and not ASKED["extract"]
    assert all(REASON in answer for answer in cloned(tmp_path / "run"))
    assert corrections(tmp_path / "run")


def test_webshop_with_the_scripted_teacher(endpoint: MockServer, student: Path, tmp_path: Path) -> None:
    scripted = ["demonstrations.annotate=null", "teacher={kind: expert, failure_score: 0.99}"]
    run("webshop-llama3-8b", tmp_path / "run", student, endpoint, [*SHOP, *scripted])
    assert not ASKED and any(one.kept for one in corrections(tmp_path / "run"))


def test_bash(endpoint: MockServer, student: Path, tmp_path: Path, intercode_data: Path) -> None:
    """On boxes that run nothing: what the model plays is cloned here whatever it earns."""
    from small_intercode import make_intercode

    sizes = [f"environment.{key}_tasks=2" for key in ("train", "validation", "test")]
    options = [*sizes, "demonstrations.episodes=2", "demonstrations.min_score=0", "horizon=3"]
    ready = Ready(make_intercode("bash", intercode_data))
    recipe = run("intercode-bash-llama3.1", tmp_path / "run", student, endpoint, options, ready)
    assert recipe.demonstrations.source == "model" and ASKED["play"] and ASKED["correct"]
    assert corrections(tmp_path / "run")
