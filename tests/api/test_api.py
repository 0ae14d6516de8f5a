"""leap from Python: a run, its records as tables, play and scores, in a script and inside a running event loop."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import leap
from leap.api import _recipe
from leap.core import History
from leap.errors import RecipeError
from tiny_world import TinyWorld, TinyWorldConfig

RECIPE: dict[str, Any] = {
    "name": "api",
    "iterations": 1,
    "horizon": 8,
    "environment": {"train": "train", "validation": "valid", "test": ["test"]},
    "student": {
        "scratch": {"layers": 1, "width": 32, "heads": 2, "mlp": 64},
        "prompt": {"renderer": "dialogue", "instructions": False, "candidates": False},
        "sampling": {"max_tokens": 40, "max_reason_tokens": 20},
        "decoding": "constrained",
    },
    "demonstrations": {"successes_only": False},
    "teacher": {"episodes": "all"},
    "training": {"branches": True, "batch_tokens": 2000, "first_steps": 2, "steps": 2},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> leap.Run:
    """A finished run, made inside a running event loop, as in a notebook."""
    folder = tmp_path_factory.mktemp("api") / "run"

    async def cell() -> leap.Run:
        return leap.run(RECIPE, environment=TinyWorld(TinyWorldConfig(tasks=6)), set={"seed": 1}, run_dir=folder)

    return asyncio.run(cell())


def test_a_run_is_read_through_tables(run: leap.Run) -> None:
    assert run.recipe.seed == 1
    assert (run.path / "report" / "index.html").is_file()
    episodes, corrections = run.episodes(1), run.corrections(1)
    assert len(episodes) == 6 and sum(len(one.steps) for one in episodes) == len(corrections)
    table = episodes.df()
    assert list(table["task.id"]) == [one.task.id for one in episodes]
    assert list(table["steps"]) == [len(one.steps) for one in episodes]
    assert set(corrections.df()["kept"]) <= {True, False}
    scores = run.evaluations().df()
    assert {"policy", "split", "n", "success", "low", "high"} <= set(scores.columns)
    assert {"expert", "pi_0", "pi_1"} <= set(scores["policy"]) and set(scores["split"]) == {"valid", "test"}
    assert run.best in (0, 1)
    assert (run.checkpoint() / "model.safetensors").is_file()
    assert run.rows(1) and len(run.played("pi_1", "test")) == 6


def test_the_same_call_goes_on_and_a_run_can_be_opened(run: leap.Run) -> None:
    before = (run.path / "iter-1" / "episodes.jsonl").stat().st_mtime_ns
    again = leap.run(RECIPE, environment=TinyWorld(TinyWorldConfig(tasks=6)), set={"seed": 1}, run_dir=run.path)
    assert (run.path / "iter-1" / "episodes.jsonl").stat().st_mtime_ns == before
    assert leap.open(run.path).evaluations() == again.evaluations()


def test_another_recipe_in_the_same_directory_is_refused(run: leap.Run) -> None:
    with pytest.raises(leap.errors.RunError, match="another recipe"):
        leap.run(RECIPE, environment=TinyWorld(TinyWorldConfig(tasks=6)), set={"seed": 2}, run_dir=run.path)


def test_functions_play_and_are_scored() -> None:
    world = TinyWorld(TinyWorldConfig(tasks=5))
    asked: list[int] = []

    async def hat(history: History) -> str:
        asked.append(len(history.actions))
        shown = history.now.text
        return "open door" if shown.startswith("You have") else "take key" if "a key." in shown else "look in hat"

    episodes = leap.rollout(world, hat, world.tasks("test"), horizon=4)
    assert [one.task.id for one in episodes] == [task.id for task in world.tasks("test")]
    assert episodes[0].actor.name == "hat" and asked
    score = leap.evaluate(world, hat, "test", horizon=4).overall
    assert score.n == 5 and 0 < score.success < 1


class Slotted:
    """A callable without a `__dict__`, a name or anything else that functions have."""

    __slots__ = ()

    def __call__(self, ask: leap.Ask) -> leap.Decision:
        return leap.Decision(reason="So.", action="look in hat")


def test_whatever_can_be_called_teaches() -> None:
    def told(ask: leap.Ask, action: str = "look in hat") -> leap.Decision:
        return leap.Decision(reason="So.", action=action)

    teachers: dict[str, Any] = {
        "lambda": lambda ask: told(ask),
        "partial": partial(told, action="open door"),
        "Slotted": Slotted(),
        "__call__": Slotted().__call__,
        "told": told,
        "expert": "expert",
    }
    for name, teacher in teachers.items():
        if name == "__call__":
            with pytest.raises(RecipeError, match="'__call__' cannot name a teacher"):
                _recipe(RECIPE, TinyWorld(), teacher, {})
        else:
            assert _recipe(RECIPE, TinyWorld(), teacher, {}).teacher.kind == name
    for none in (Slotted, 3):
        with pytest.raises(RecipeError, match=r"is no teacher: give a subclass of leap.Teacher or a function"):
            _recipe(RECIPE, TinyWorld(), none, {})  # type: ignore[arg-type]


def test_what_a_policy_or_a_world_may_not_give_is_said() -> None:
    world = TinyWorld(TinyWorldConfig(tasks=2))
    for wrong in (5, None, ("r", "a")):
        with pytest.raises(leap.errors.LeapError, match="policy <lambda> must return an action or a Decision, not"):
            leap.evaluate(world, lambda history, wrong=wrong: wrong, "test")  # type: ignore[arg-type, misc]
    empty = type("Empty", (TinyWorld,), {"tasks": lambda self, split, limit=None, seed=0: []})()
    with pytest.raises(leap.errors.PrerequisiteError, match="environment tiny-world: split 'test' holds no task"):
        leap.evaluate(empty, lambda history: "open door", "test")
    with pytest.raises(leap.errors.ContractError, match="a task is to be played twice"):
        leap.rollout(world, lambda history: "open door", world.tasks("test") * 2)


def test_a_wrong_setting_is_one_line() -> None:
    with pytest.raises(leap.errors.RecipeError, match="iteratons"):
        leap.run(RECIPE, environment=TinyWorld(TinyWorldConfig(tasks=2)), set={"iteratons": 2})
    with pytest.raises(leap.errors.RecipeError, match="quickstart"):
        leap.run("quickstrat")


def test_importing_leap_imports_no_other_part_of_it() -> None:
    code = "import sys, leap; print([m for m in sys.modules if m.startswith('leap.') or m in ('pydantic', 'torch')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_type_checkers_are_told_every_public_name() -> None:
    tree = ast.parse(Path(leap.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told == set(leap.__all__) - {"__version__"}
    assert all(getattr(leap, name) is not None for name in leap.__all__)
