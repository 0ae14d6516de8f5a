"""Invariant 6: kill -9 at any moment, then the same command: nothing finished is lost or made again, same tables.

One run directory is killed for real again and again, in every stage, until a start gets through; beside it one run is
left alone. Both have caches of their own, so the games are generated twice, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from small_games import small_games

pytest.importorskip("torch")

pytestmark = pytest.mark.slow

RECIPE = {
    "name": "tiny",
    "seed": 3,
    "iterations": 1,
    "horizon": 6,
    "environment": {
        "name": "alfworld",
        "options": small_games(8, 4, 5),
    },
    "student": {
        "scratch": {"width": 16, "layers": 1, "heads": 2, "mlp": 16, "max_tokens": 1024},
        "prompt": {"renderer": "dialogue", "instructions": False, "candidates": False},
        "sampling": {"temperature": 0.5, "max_tokens": 24, "max_reason_tokens": 4},
        "decoding": "constrained",
        "batch": 3,
    },
    "demonstrations": {"episodes": 6, "successes_only": False},
    "teacher": {"episodes": "all"},
    "training": {"branches": True, "optimizer": "muon", "batch_tokens": 1000, "steps": 4, "save_steps": 1},
}


def start(recipe: Path, run: Path, cache: Path) -> subprocess.Popen[str]:
    """`leap run` as a user starts it."""
    environment = os.environ | {"LEAP_CACHE": str(cache), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", "from leap.cli import main; main()", "run", str(recipe), "--run-dir", str(run)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def lines(path: Path) -> int:
    """Whole lines of a file."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def moments(run: Path, cache: Path) -> list[tuple[str, Callable[[], bool]]]:
    """Where to kill: a name, and whether that moment has come."""

    def grown(name: str, count: int) -> Callable[[], bool]:
        return lambda: lines(run / name) >= count

    def there(pattern: str) -> Callable[[], bool]:
        return lambda: any(run.glob(pattern))

    return [
        ("games half generated", lambda: len(list(cache.glob("alfworld/**/game.tw-pddl"))) >= 6),
        ("expert's evaluation", grown("baselines/expert/valid.jsonl", 1)),
        ("teacher's evaluation", grown("baselines/teacher-0/unseen.jsonl", 2)),
        ("demonstrations", grown("iter-0/episodes.jsonl", 2)),
        ("the scratch student is made", there("base/leap.json")),
        ("first training state", there("iter-0/training/checkpoint-*")),
        ("third training state", there("iter-0/training/checkpoint-3*")),
        ("checkpoint half written", there("iter-0/.checkpoint*.tmp/*.json")),
        ("evaluation of pi_0", grown("iter-0/evaluation/valid.jsonl", 2)),
        ("evaluation of pi_0, second split", grown("iter-0/evaluation/unseen.jsonl", 1)),
        ("rollout, inside its first wave", grown("iter-1/episodes.jsonl", 1)),
        ("rollout, inside its second wave", grown("iter-1/episodes.jsonl", 5)),
        ("corrections", grown("iter-1/corrections.jsonl", 3)),
        ("training pi_1", there("iter-1/training/checkpoint-*")),
        ("checkpoint of pi_1", there("iter-1/checkpoint/leap.json")),
        ("evaluation of pi_1", grown("iter-1/evaluation/unseen.jsonl", 2)),
    ]


def journals(run: Path) -> Iterator[Path]:
    """Append-only files."""
    for path in sorted(run.glob("**/*.jsonl")):
        if path.name not in ("rows.jsonl", "provenance.jsonl"):
            yield path


def work_on_file(run: Path) -> dict[str, bytes]:
    """Whole lines of every journal."""
    return {str(p.relative_to(run)): (data := p.read_bytes())[: data.rfind(b"\n") + 1] for p in journals(run)}


def finished_files(run: Path) -> dict[str, tuple[int, int, str]]:
    """Files that are complete and may never be made again: identity, time and content."""
    finished = [*run.glob("iter-*/rows.jsonl"), *run.glob("iter-*/checkpoint/*"), *run.glob("base/*")]
    return {
        str(path.relative_to(run)): (
            (stat := path.stat()).st_ino,
            stat.st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in finished
    }


def keys(path: Path) -> list[str]:
    """What each line of a journal is about."""
    found = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        row = json.loads(line)
        if "teacher" in row:
            found.append(f"{row['episode']} {row['t']} {row['teacher']} {row['privilege']}")
        else:
            found.append(f"{row['task']['id']} {row['actor']} {row['seed']} {row['horizon']}")
    return found


def outcome(path: Path) -> list[object]:
    """A journal's records without what a clock says, in the order of their keys."""
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    return sorted(({k: v for k, v in row.items() if k != "seconds"} for row in rows), key=lambda row: json.dumps(row))


@pytest.mark.timeout(3000)
def test_a_run_killed_in_every_stage_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    killed: set[str] = set()
    interrupted = False
    for attempt in range(4):  # on a busy machine a kill may come stages later than it aimed, and so meet fewer moments
        folder = tmp_path / str(attempt)
        folder.mkdir()
        names, heard = kill_in_every_stage(folder)
        killed, interrupted = killed | set(names), interrupted or heard
        if len(killed) >= 10 and interrupted:
            return
    raise AssertionError(f"only {len(killed)} moments were met: {sorted(killed)}")


def kill_in_every_stage(tmp_path: Path) -> tuple[list[str], bool]:
    """Kills one run again and again and compares it with an undisturbed one.

    Returns:
        The moments at which it was killed, and whether one of them was Ctrl-C.
    """
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    run, cache = tmp_path / "killed", tmp_path / "killed-cache"
    killed: list[str] = []
    files: dict[str, tuple[int, int, str]] = {}
    on_file: dict[str, bytes] = {}
    interrupted = False
    undisturbed, other_cache = tmp_path / "undisturbed", tmp_path / "undisturbed-cache"
    beside = start(recipe, undisturbed, other_cache)  # on the other core meanwhile
    for name, reached in moments(run, cache):
        if reached():
            continue  # an earlier kill came later than it aimed
        process = start(recipe, run, cache)
        while process.poll() is None and not reached():
            time.sleep(0.004)
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()[0]
            break
        if name == "rollout, inside its second wave":  # Ctrl-C, as a person stops a run
            process.send_signal(signal.SIGINT)
            output = process.communicate()[0]
            assert process.returncode == 130, output
            assert "interrupted" in output and "Traceback" not in output
            interrupted = True
        else:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        killed.append(name)

        now = work_on_file(run)
        for journal, before in on_file.items():
            assert now[journal].startswith(before), f"{journal} lost work after the kill in {name}"
        for path, identity in files.items():
            assert finished_files(run)[path] == identity, f"{path} was made again after the kill in {name}"
        on_file, files = now, finished_files(run)
        if len(killed) % 2 and now:  # a kill in the middle of a write leaves half a line
            newest = max(journals(run), key=lambda path: path.stat().st_mtime_ns)
            with newest.open("ab") as file:
                file.write(b'{"task": {"env": "alfw')

    last = start(recipe, run, cache)
    output = last.communicate()[0]
    assert last.returncode == 0, output
    output = beside.communicate()[0]
    assert beside.returncode == 0, output

    for journal, before in on_file.items():
        assert (run / journal).read_bytes().startswith(before)
    for path, identity in files.items():
        assert finished_files(run)[path] == identity
    names = [path.relative_to(undisturbed) for path in journals(undisturbed)]
    assert names == [path.relative_to(run) for path in journals(run)]
    for name_ in names:
        assert len(keys(run / name_)) == len(set(keys(run / name_))), f"{name_} holds work twice"
        assert outcome(run / name_) == outcome(undisturbed / name_), f"{name_} differs"
    tables = sorted(path.relative_to(undisturbed) for path in undisturbed.glob("**/evaluation.json"))
    assert len(tables) == 6  # expert, three teachers, two students
    for table in tables:
        assert (run / table).read_bytes() == (undisturbed / table).read_bytes(), f"{table} differs"
    for i in (0, 1):
        assert (run / f"iter-{i}/rows.jsonl").read_bytes() == (undisturbed / f"iter-{i}/rows.jsonl").read_bytes()
        trained = [root / f"iter-{i}/checkpoint/leap.json" for root in (run, undisturbed)]
        assert len({json.loads(path.read_text())["key"] for path in trained}) == 1
        weights = [root / f"iter-{i}/checkpoint/model.safetensors" for root in (run, undisturbed)]
        assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in weights}) == 1

    # Once more: everything is on file, so nothing is made and nothing changes.
    before = work_on_file(run), finished_files(run)
    again = start(recipe, run, cache)
    output = again.communicate()[0]
    assert again.returncode == 0, output
    assert "train pi_" not in output and "rollouts of" not in output
    assert (work_on_file(run), finished_files(run)) == before
    return killed, interrupted
