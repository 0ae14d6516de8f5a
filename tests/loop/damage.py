"""Runs to damage: where a run of a tiny recipe can stand still, what can happen to its files, and what must come of it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from leap import registry
from leap.cli import main
from leap.models import mock
from leap.runs.stages import Stages
from leap.teachers.onfile import HEADINGS
from leap.testing.corridor import EAST, Corridor

registry.environment("damage-corridor")(type("DamageCorridor", (Corridor,), {"name": "damage-corridor"}))

CALLS: list[str] = []
"""A line for each call that was paid."""


def goes_east(request: mock.Request) -> str:
    """A teacher that always says to go east, and reads anything out of an expert's play."""
    CALLS.append(request.messages[-1]["content"])
    if request.schema is None:
        return "\n".join(f"{heading}: go east" for heading in HEADINGS)
    return json.dumps({"leave_as_it_is": False, "corrected_reason": "The goal is east.", "corrected_action": EAST})


RECIPE: dict[str, Any] = {
    "name": "tiny",
    "iterations": 2,
    "horizon": 4,
    "environment": {"name": "damage-corridor", "train": "train", "validation": "valid", "test": ["unseen"]},
    "student": {"scratch": {"width": 16, "layers": 1, "heads": 2, "mlp": 16, "max_tokens": 256},
                "prompt": {"renderer": "dialogue", "instructions": False},
                "sampling": {"temperature": 0.5, "max_tokens": 8}},
    "teacher": {"episodes": "all"},
    "training": {"steps": 3, "batch_rows": 4, "device_rows": 2, "lr": 1e-3, "save_steps": 1},
    "measures": {"held_out": 2},
}  # fmt: skip
PAID: dict[str, Any] = RECIPE | {
    "iterations": 1,
    "teacher": {"kind": "model", "model": "mock/east", "by": "step", "episodes": "all", "state": "extracted"},
    "measures": {"held_out": None},
}


class Stopped(BaseException):
    """A run is stopped here, as by a kill that a test can survive."""


def leap(*arguments: object) -> tuple[int, str]:
    """The command line in this process: its exit status and all that it says."""
    said, before = io.StringIO(), sys.argv
    sys.argv, status = ["leap", *map(str, arguments)], 0
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        sys.argv = before
    return status, said.getvalue()


def stop_at(patch: pytest.MonkeyPatch, where: str) -> None:
    """Has runs stop: `finished` never, `training` with a state of pi_1's on file, else before that of the stages' functions
    for iteration 1."""
    if where == "training":
        from leap.training.trainer import Watch

        saved = Watch.on_save

        def on_save(self: Watch, args: Any, state: Any, control: Any, **more: Any) -> None:
            saved(self, args, state, control, **more)
            if "iter-1" in str(args.output_dir) and state.global_step == 2:
                raise Stopped

        patch.setattr(Watch, "on_save", on_save)
    elif where != "finished":
        made = getattr(Stages, where)

        def stopped(self: Stages, i: int) -> Any:
            if i == 1:
                raise Stopped
            return made(self, i)

        patch.setattr(Stages, where, stopped)


def made(recipe: Path, root: Path, where: str) -> None:
    """A run of a recipe up to where it is to stop."""
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, where)
        status, said = leap("run", recipe, "--run-dir", root)
        assert status == 0 if where == "finished" else "unforeseen: Stopped" in said, said


# ---- damage --------------------------------------------------------------------------------------------------------


def files(root: Path) -> list[str]:
    """Every file of a run."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != ".lock")


def own(where: str, name: str) -> bool:
    """Whether a file is worth damage where a run stands: of one that is not finished, those that the finished one has not, and
    those that what comes next is made from."""
    folder = Path(name).parts[0]
    return where == "finished" or not (folder in ("base", "baselines", "report") or "/checkpoint/" in name) or name.endswith(
        ("safetensors", "leap.json")
    )


def brother(root: Path, name: str) -> Path | None:
    """The same file of another iteration or baseline, with other content."""
    folder, *rest = Path(name).parts
    for other in sorted(root.iterdir()):
        found = other.joinpath(*rest)
        both = rest and folder.startswith("iter-") and other.name.startswith("iter-") and found.is_file()
        if both and found.read_bytes() != (root / name).read_bytes():
            return found
    if folder == "baselines":
        return next((one for one in sorted(root.glob(f"baselines/*/{rest[-1]}")) if one != root / name), None)
    return None


def _swapped(root: Path, name: str) -> bool:
    if (other := brother(root, name)) is None:
        return False
    mine, theirs = (root / name).read_bytes(), other.read_bytes()
    (root / name).write_bytes(theirs)
    other.write_bytes(mine)
    return mine != theirs


def _rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path, str], bool]:
    def damage(root: Path, name: str) -> bool:
        before = (root / name).read_bytes()
        (root / name).write_bytes(change(before))
        return (root / name).read_bytes() != before

    return damage


def _flipped(content: bytes) -> bytes:
    """One bit of a letter or digit in the middle, so that JSON stays JSON where it can."""
    at = next((i for i in range(len(content) // 2, len(content)) if chr(content[i]).isalnum()), len(content) // 2)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _gone(root: Path, name: str) -> bool:
    (root / name).unlink()
    return True


def _folder_gone(root: Path, name: str) -> bool:
    if (root / name).parent == root:
        return False
    shutil.rmtree((root / name).parent)
    return True


KINDS: dict[str, Callable[[Path, str], bool]] = {
    "cut": _rewritten(lambda content: content[: len(content) // 2]),
    "emptied": _rewritten(lambda content: b""),
    "zeros": _rewritten(lambda content: bytes(len(content))),
    "missing": _gone,
    "swapped": _swapped,
    "flipped": _rewritten(_flipped),
    "last line": _rewritten(lambda content: b"".join(content.splitlines(keepends=True)[:-1])),
    "line twice": _rewritten(lambda content: content + content.splitlines(keepends=True)[-1] if content else content),
    "folder": _folder_gone,
}
"""By name, what does damage to a file of a run; false where it does none."""


# ---- what is read of a run -----------------------------------------------------------------------------------------


def _report(root: Path, out: Path) -> tuple[int, str, Any]:
    status, said = leap("report", root, "--out", out / "report")
    return status, said, None if status else json.loads(next((out / "report").glob("*.json")).read_text())


def _export(root: Path, out: Path) -> tuple[int, str, Any]:
    status, said = leap("export", root, "--out", out / "export")
    if status:
        return status, said, None
    import pyarrow.parquet as pq

    tables = (out / "export").rglob("*.parquet")
    return status, said, {str(one.relative_to(out)): pq.read_table(one).to_pylist() for one in tables}


def _python(root: Path, out: Path) -> tuple[int, str, Any]:
    import leap
    from leap.errors import LeapError

    try:
        run = leap.open(root)
        return 0, "", [
            *(one.model_dump() for i in range(3) for one in (*run.episodes(i), *run.corrections(i), *run.rows(i))),
            *(one.model_dump() for one in (*run.evaluations(), *run.played("pi_0", "valid"), *run.played("expert", "unseen"))),
        ]
    except LeapError as error:
        return error.exit_code, f"error: {error}", None


READERS: dict[str, Callable[[Path, Path], tuple[int, str, Any]]] = {"report": _report, "export": _export, "python": _python}


def work(root: Path) -> dict[str, Any]:
    """What a finished run is: tables, rows and weights byte by byte, of episodes and corrections what does not depend on time."""
    found: dict[str, Any] = {}
    for name in files(root):
        path = root / name
        if path.name in ("evaluation.json", "rows.jsonl", "measures.json") or path.suffix == ".safetensors":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.suffix == ".jsonl" and path.name not in ("provenance.jsonl",):
            records = [json.loads(line) for line in path.read_bytes().splitlines()]
            found[name] = sorted(json.dumps({k: v for k, v in one.items() if k != "seconds"}) for one in records)
    return found


UNNEEDED = ("states.jsonl", "expert.jsonl", "held-out-corrections.jsonl", "base/model.safetensors")
"""What nothing needs any more once that is there which was made from it: where it is gone, it stays so."""


# ---- one case ------------------------------------------------------------------------------------------------------


class State(NamedTuple):
    """A run that stands still, what its readers say of it, what it is when it is finished, and what that costs from there."""

    recipe: Path
    root: Path
    read: dict[str, Any]
    finished: dict[str, Any]
    paid: int


def state(folder: Path, values: dict[str, Any], where: str) -> State:
    """Makes a state and looks at a sound copy of it."""
    recipe, root = folder / "recipe.yaml", folder / "made"
    folder.mkdir(parents=True)
    recipe.write_text(json.dumps(values))
    made(recipe, root, where)
    sound = folder / "sound"
    shutil.copytree(root, sound)
    read = {name: reader(sound, folder) for name, reader in READERS.items()}
    assert not any(status for status, _, _ in read.values()), read
    CALLS.clear()
    status, said = leap("run", recipe, "--run-dir", sound)
    assert status == 0, said
    return State(recipe, root, {name: found for name, (_, _, found) in read.items()}, work(sound), len(CALLS))


def outcome(state: State, name: str, kind: str, folder: Path) -> Iterator[str]:
    """Does damage to a copy of a state; yields what came of it, a word for each command.

    Raises:
        AssertionError: Something was used as it was, silently, or was not explained.
    """
    root = folder / "run"
    shutil.copytree(state.root, root)
    other = brother(root, name) if kind == "swapped" else None
    if not KINDS[kind](root, name):
        return
    named = [root / name, *([other] if other else [])]
    named += [path.parent for path in named if path.parent.name in ("checkpoint", "base")]

    def explained(status: int, said: str) -> str:
        errors = [line for line in said.splitlines() if "error:" in line]
        assert status in (1, 2) and len(errors) == 1 and "Traceback" not in said, (status, said)
        if kind != "folder":
            assert any(str(path) in errors[0] for path in named), said
        return errors[0]

    for reader, look in READERS.items():
        status, said, found = look(root, folder)
        if status:
            explained(status, said)
            yield f"{reader} names it"
        else:
            told = reader == "report" and str(Path(name).parent) in str(found["notes"])
            assert found == state.read[reader] or told, f"{reader} silently tells something else"
            yield reader
    status, said = leap("evaluate", root, "-i", 0)
    if status:
        explained(status, said)
    yield "evaluate names it" if status else "evaluate"
    CALLS.clear()
    status, said = leap("run", state.recipe, "--run-dir", root)
    if status:
        advice = explained(status, said)
        yield "run names it"
        follow(advice, root)
        status, said = leap("run", state.recipe, "--run-dir", root)
        assert status == 0, f"what the message says does not help: {advice}\n{said}"
    else:
        yield "run goes on"
    unneeded = {one for one in state.finished if one.endswith(UNNEEDED)}
    found = work(root)
    assert found | {one: state.finished[one] for one in unneeded - set(found)} == state.finished, "another outcome"
    assert len(CALLS) <= state.paid or name.startswith("calls.sqlite"), "something was paid twice"


def follow(advice: str, root: Path) -> None:
    """Does what a message says: deletes what it says to."""
    places = [advice.partition("elete ")[2].split()[0], *advice.partition("The same holds for ")[2].split()]
    if places[0] == "it":
        places[0] = advice.partition("error: ")[2].split()[0]
    if "it and files.json" in advice:
        places.append("files.json")
    for path in (root / place.strip(",.") for place in places):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
