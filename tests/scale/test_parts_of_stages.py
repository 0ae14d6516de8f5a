"""`--shard k/n`: parts of a stage by processes of their own, whatever n is, whoever crashes; together what one process makes."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_local_workers import made, on_file, recipe
from typer.testing import CliRunner

from leap.cli.app import app
from leap.core import Correction, Episode
from leap.errors import LeapError, RecipeError, RunError
from leap.files import Journal, append_line
from leap.recipe import Recipe, dump_recipe
from leap.runs.directory import RunDirectory
from leap.runs.open import open_run
from leap.runs.parts import Part, open_part
from leap.runs.stages import Stages


def work(stages: Stages, stage: str) -> None:
    if stage == "correct":
        stages.correct(1)
    else:
        stages.rollout(int(stage[-1]))


STAGES = ("rollout 0", "rollout 1", "correct")


class Crash(BaseException):
    """The end of a process, as far as this one can have it."""


@contextmanager
def crashing(after: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So many records are written, the next one half."""
    left = [after]

    def append(path: Path, line: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(line[: len(line) // 2])
            raise Crash
        append_line(path, line)

    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr("leap.files.append_line", append)
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return made(tmp_path_factory.mktemp("alone"))


def test_three_parts_a_crash_two_parts_and_the_rest_make_what_one_process_makes(
    alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(tmp_path)
    root = tmp_path / "run"
    for stage in STAGES:
        with open_part(root, Part(1, 3), asked) as stages:
            work(stages, stage)
        with crashing(5, monkeypatch), open_part(root, Part(2, 3), asked) as stages:
            work(stages, stage)
        kept = len(parts_on_file(root, stage))
        assert 0 < kept < whole(alone, stage)
        with open_part(root, Part(2, 2)) as stages:  # part 1 of 2 never comes
            work(stages, stage)
        assert kept < len(parts_on_file(root, stage)) < whole(alone, stage)
        with open_run(root, asked) as stages:
            work(stages, stage)
        assert not list(root.rglob("*.parts"))
    assert without_provenance(root) == alone
    with open_run(root):  # the manifest knows all of it
        pass


def whole(alone: dict[str, Any], stage: str) -> int:
    return len(alone[f"iter-{stage[-1]}/episodes.jsonl" if stage != "correct" else "iter-1/corrections.jsonl"])


def parts_on_file(root: Path, stage: str) -> set[str]:
    run, kind = RunDirectory(root), Correction if stage == "correct" else Episode
    journal = run.corrections(1) if stage == "correct" else run.episodes(int(stage[-1]))
    return {one.key for part in run.parts(journal) for one in Journal(part, kind)}


def without_provenance(root: Path) -> dict[str, Any]:
    return {name: lines for name, lines in on_file(root).items() if name != "provenance.jsonl"}


@given(st.integers(0, 10**6))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_parts_in_any_order_make_the_same(
    alone: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    folder, draw = tmp_path_factory.mktemp("parts"), random.Random(seed)
    asked, root = recipe(folder), folder / "run"
    for stage in STAGES:
        for _ in range(draw.randrange(5)):
            n = draw.randint(1, 5)
            with open_part(root, Part(draw.randint(1, n), n), asked) as stages:
                work(stages, stage)
        with open_run(root, asked) as stages:
            work(stages, stage)
    assert without_provenance(root) == alone


def test_parts_side_by_side_begin_a_run_together(alone: dict[str, Any], tmp_path: Path) -> None:
    asked, root, errors = recipe(tmp_path), tmp_path / "run", list[BaseException]()

    def part(k: int) -> None:
        try:
            with open_part(root, Part(k, 4), asked) as stages:
                stages.rollout(0)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=part, args=(k,)) for k in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(parts_on_file(root, "rollout 0")) == 40
    with open_run(root, asked) as stages:
        stages.rollout(0)
    assert without_provenance(root)["iter-0/episodes.jsonl"] == alone["iter-0/episodes.jsonl"]


def test_who_may_work_beside_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, root = recipe(tmp_path), tmp_path / "run"
    with open_part(root, Part(1, 2), asked), open_part(root, Part(2, 2), asked), open_part(root, Part(1, 3), asked):
        with pytest.raises(RunError, match="working on part 2 of 2"), open_part(root, Part(2, 2)):
            pass
        with pytest.raises(RunError, match="another process is working on"), open_run(root):
            pass
    monkeypatch.setattr("leap.runs.parts._PATIENCE", 0.2)
    with open_run(root), pytest.raises(RunError, match="working on the whole of"), open_part(root, Part(1, 2)):
        pass
    with open_run(root), pytest.raises(RunError, match="another process is working on"), open_run(root):
        pass
    assert not list(root.glob(".part-*"))
    with (
        pytest.raises(RunError, match="belongs to another recipe"),
        open_part(root, Part(1, 2), recipe(tmp_path, tasks=9)),
    ):
        pass


def test_a_part_of_a_damaged_run_is_refused(tmp_path: Path) -> None:
    with open_run(root := tmp_path / "run", recipe(tmp_path)) as stages:
        journal = stages.rollout(0).path
    journal.write_bytes(journal.read_bytes().replace(b"dark", b"DARK", 1))
    with pytest.raises(RunError, match=r"episodes\.jsonl is damaged"), open_part(root, Part(1, 2)):
        pass


def test_what_asks_endpoints_is_not_shared_out(tmp_path: Path) -> None:
    made(tmp_path)
    teacher = {"kind": "model", "model": "mock/first", "episodes": "all"}
    asked, root = recipe(tmp_path, teacher=teacher), tmp_path / "other"
    with open_run(root, asked) as stages:
        stages.rollout(0)
        stages.rollout(1)
    booked = (root / "calls.sqlite").read_bytes()
    for changed in ({}, {"state": "extracted"}):
        section = asked.teacher.model_copy(update=changed)
        part = open_part(root, Part(1, 2))
        with part as stages, pytest.raises(RunError, match="not shared out by --shard"):
            stages.recipe = asked.model_copy(update={"teacher": section})
            stages.correct(1)
    assert (root / "calls.sqlite").read_bytes() == booked


@pytest.mark.parametrize(
    "text", ["", "1", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "a/b", "1 / 3", "1/3\n", "1.0/2", "9999999/9999999"]
)
def test_a_part_that_is_none_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="give k/n with k from 1 to n") as refused:
        Part.parse(text)
    assert "\n" not in str(refused.value)


def command(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(done.exception, LeapError):
        return f"error: {done.exception}"
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_the_verbs(alone: dict[str, Any], tmp_path: Path) -> None:
    root, file = tmp_path / "run", tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(Recipe.model_validate(recipe(tmp_path).model_dump())))
    for i in ("0", "1"):
        for part in ("2/2", "1/2"):
            told = command("rollout", root, "-i", i, "--recipe", file, "--shard", part)
        assert "40 episodes on file, 40 solved" in told
    for part in ("1/3", "3/3"):
        assert "corrections on file" in (told := command("correct", root, "-i", "1", "--shard", part))
    assert "training rows" not in told
    assert "give k/n" in command("correct", root, "-i", "1", "--shard", "3/2")
    with open_run(root) as stages, closing(stages):
        stages.rollout(0)
        stages.rollout(1)
        stages.correct(1)
    assert without_provenance(root) == alone
