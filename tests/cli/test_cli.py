"""The command line: quick to help, one message for each thing that can be wrong, no traceback, nothing lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import typer
import yaml

from leap import registry
from leap.cli.doctor import print_doctor
from leap.errors import PrerequisiteError
from leap.extras import extras, with_remedy
from leap.files import write_json
from leap.runs.directory import RunDirectory, marker
from leap.runs.provenance import this_leap
from tiny_world import TinyWorld

LEAP = [sys.executable, "-c", "from leap.cli import main; main()"]


def leap(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [*LEAP, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        timeout=250,
    )


def inside(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The same command in this process, where the start of Python need not be paid again."""
    from leap.cli import main

    monkeypatch.setattr(sys, "argv", ["leap", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "recipe.yaml"
    generator = {"games": {"train": 3, "valid": 2, "unseen": 2}, "receptacles": [6, 7]}
    options = {"generator": generator}
    values = {"name": "x", "iterations": 0, "horizon": 8, "environment": {"name": "alfworld", "options": options}}
    path.write_text(yaml.safe_dump(values))
    return path


def test_an_error_of_a_users_own_package_shows_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the place where it was called, whatever of it was called; an error in leap itself is still unforeseen."""

    class Unready(TinyWorld):
        name = "unready"

        def prepare(self, progress: object = None) -> None:
            json.loads("{")

    registry.environment("unready")(Unready)
    assert inside(monkeypatch, "validate", "unready") == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback") and 'json.loads("{")' in told
    assert "in prepare" in told and "leap/cli" not in told and "error: JSONDecodeError in code that is not leap's" in told
    monkeypatch.setattr("leap.cli.validate.listed", len)  # called wrongly, by leap
    monkeypatch.setattr(Unready, "prepare", lambda self, progress=None: None)
    assert inside(monkeypatch, "validate", "unready") == 70
    assert "something unforeseen: TypeError" in capsys.readouterr().err


def test_an_output_that_cannot_show_a_character_loses_that_one_alone() -> None:
    said = "import sys, leap.cli, leap.cli.app as a; a.app = lambda **_: print('4.0 \\xb1 0.1, half \\ud83d'); leap.cli.main()"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, b"4.0 ? 0.1, half ?\n"), done.stderr


def test_the_report_is_written_before_anything_is_printed(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("leap.loop.leap", lambda stages: None)
    monkeypatch.setattr("leap.cli.show.print_result", closed)
    assert inside(monkeypatch, "run", recipe, "--run-dir", tmp_path / "run") == 1
    assert (tmp_path / "run" / "report" / "index.html").exists()


def test_without_a_home_it_is_said_what_to_set(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    for name in ("LEAP_CACHE", "XDG_CACHE_HOME", "ALFWORLD_DATA", "WEBSHOP_DATA"):
        monkeypatch.delenv(name, raising=False)
    assert inside(monkeypatch, "doctor") == 0
    assert "there is no home directory" in capsys.readouterr().out
    assert inside(monkeypatch, "validate", "alfworld") == 1
    told = capsys.readouterr().err
    assert told.startswith("error: there is no home directory") and "LEAP_CACHE" in told and told.count("\n") == 1


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    used = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = leap("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0 and "rollout" in done.stdout
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert statistics.median(used) < 0.5, used
    code = "import sys, leap.cli.app; print([m for m in ('torch', 'transformers', 'trl', 'textworld') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_each_command_has_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "rollout", "correct", "train", "evaluate", "report", "play", "validate", "doctor", "games"):
        assert inside(monkeypatch, command, "--help") == 0
        assert "bool" not in capsys.readouterr().out, "a flag takes no value"
    assert inside(monkeypatch, "--version") == 0


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("name: x\nenvironment: {name: alfworld}\niteratons: 3\n", "iteratons: unknown key"),
        ("name: x\nenvironment: {name: alfworld, train: unseen}\n", "training split 'unseen'"),
        ("name: x\nenvironment: {name: mars}\n", "no environment 'mars'"),
        ("name: x\nenvironment: {name: alfworld, train: valid_seen, test: [unseen]}\n", "test split of alfworld"),
        ("", "must be a mapping"),
        ("\0", "not valid YAML"),
    ],
)
def test_a_bad_recipe_ends_in_one_message(
    tmp_path: Path, content: str, named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    assert inside(monkeypatch, "run", path, "--run-dir", tmp_path / "run") == 2
    captured = capsys.readouterr()
    assert named in captured.err and captured.err.startswith("error: ") and "Traceback" not in captured.err


def test_a_bad_recipe_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\x89PNG\xff")
    done = leap("run", path)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1 and "UTF-8" in done.stderr
    assert "Traceback" in leap("run", path, "--debug").stderr


def rollout(monkeypatch: pytest.MonkeyPatch, recipe: Path, run: Path, *more: str) -> int:
    return inside(monkeypatch, "rollout", run, "-i", "0", "--recipe", recipe, *more)


def test_a_run_directory_of_another_recipe_is_left_alone(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert rollout(monkeypatch, recipe, run) == 0
    before = {path: path.read_bytes() for path in run.rglob("*.jsonl") if path.name != "provenance.jsonl"}
    assert before
    assert rollout(monkeypatch, recipe, run, "--set", "horizon=9") == 1
    error = capsys.readouterr().err
    assert "belongs to another recipe (horizon: 8 there, 9 here)" in error
    assert {path: path.read_bytes() for path in before} == before
    assert rollout(monkeypatch, recipe, run, "--set", "iterations=2") == 0  # more of the same
    assert rollout(monkeypatch, recipe, run, "--set", "iterations=1") == 1  # but not less


def test_what_changes_no_result_may_change_while_a_run_goes_on(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reached cap is raised by the same command with --set; so is a slow server's time-out, and logging turned on."""
    run, react = tmp_path / "run", "baselines.react=[{model: openai/some, endpoint: {timeout: 7}}]"
    teacher = "teacher={kind: model, model: openai/some, endpoint: {base_url: 'http://localhost:1/v1'}}"
    first = ("--set", "budget.tokens=5", "--set", react, "--set", teacher)
    assert rollout(monkeypatch, recipe, run, *first) == 0
    raised = ["budget.tokens=500000", "budget.usd=2", "prices={openai/some: {input: 1, output: 2}}", "training.logging=wandb"]
    raised += [react.replace("7", "70"), teacher.replace("localhost:1", "localhost:2")]
    assert rollout(monkeypatch, recipe, run, *(part for one in raised for part in ("--set", one))) == 0
    kept = yaml.safe_load((run / "recipe.yaml").read_text())
    assert kept["budget"] == {"usd": 2, "tokens": 500000} and kept["baselines"]["react"][0]["endpoint"]["timeout"] == 70
    capsys.readouterr()
    other = react.replace("openai/some", "openai/other")
    assert rollout(monkeypatch, recipe, run, "--set", other) == 1
    assert "belongs to another recipe (baselines.react.0.model: 'openai/some' there" in capsys.readouterr().err


def test_what_is_no_run_directory_is_refused(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "photos"
    other.mkdir()
    (other / "holiday.jpg").write_text("")
    file = tmp_path / "file"
    file.write_text("")
    for place, named in ((other, "not a run directory"), (file, "is a file"), (file / "below", "file")):
        assert rollout(monkeypatch, recipe, place) == 1
        error = capsys.readouterr().err
        assert named in error and "Traceback" not in error and error.startswith("error: ")
    assert [path.name for path in other.iterdir()] == ["holiday.jpg"]
    for command in ("rollout", "correct", "train", "evaluate"):
        assert inside(monkeypatch, command, tmp_path / "none", "-i", "0") == 1
        assert "not a run directory" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_run_in_use_is_refused(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunDirectory(tmp_path / "run").locked():
        assert rollout(monkeypatch, recipe, tmp_path / "run") == 1
    assert "another process is working on" in capsys.readouterr().err


def test_a_run_under_way_can_be_looked_at_and_is_not_touched(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert rollout(monkeypatch, recipe, run) == 0
    with (run / "iter-0/episodes.jsonl").open("ab") as file:
        file.write(b'{"task": {"env": "alfw')  # a line that is being written
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with RunDirectory(run).locked():
        assert inside(monkeypatch, "report", run, "--out", tmp_path / "page") == 0
        assert inside(monkeypatch, "export", run, "--out", tmp_path / "data", "--format", "trl") == 0
    assert "report: " in capsys.readouterr().out and (tmp_path / "page" / "index.html").exists()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_report_of_nothing_names_no_option_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inside(monkeypatch, "report", tmp_path / "nosuch") == 1
    error = capsys.readouterr().err
    assert "nosuch is not a run directory" in error and "--recipe" not in error
    assert not (tmp_path / "nosuch").exists()


def test_a_run_of_another_version_is_refused_in_one_line(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert rollout(monkeypatch, recipe, run) == 0
    values = yaml.safe_load((run / "recipe.yaml").read_text())
    values["teacher"] |= {"attempts": 3, "by": "trajectory"}  # as leap 0.1 wrote it
    (run / "recipe.yaml").write_text(yaml.safe_dump(values))
    (run / "provenance.jsonl").write_text('{"leap": "0.1.0", "commit": "61459c4"}\n')
    capsys.readouterr()
    for command in (("report", run), ("train", run, "-i", "0"), ("rollout", run, "-i", "0", "--recipe", recipe)):
        assert inside(monkeypatch, *command) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "unknown key" in error and "leap 0.1.0 61459c4, which made it" in error
        assert f"this version of leap ({this_leap()}) cannot read" in error


def test_an_earlier_stage_is_asked_for(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert rollout(monkeypatch, recipe, run) == 0
    for arguments in (("correct", run, "-i", "1"), ("rollout", run, "-i", "1"), ("evaluate", run, "-i", "0")):
        assert inside(monkeypatch, *arguments) == 1
        assert "Traceback" not in (error := capsys.readouterr().err) and "first" in error


def test_what_is_finished_needs_no_data(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    assert rollout(monkeypatch, recipe, run) == 0
    write_json(marker(RunDirectory(run).checkpoint(0)), {"key": "k", "iteration": 0})
    monkeypatch.setattr("leap.runs.stages.prepared_environment", lambda *_: pytest.fail("its data was made ready"))
    assert inside(monkeypatch, "train", run, "-i", "0") == 0


def test_a_full_disk_is_one_message_and_nothing_is_lost(tmp_path: Path, recipe: Path) -> None:
    """A real disk of a hundred kilobytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=100k", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        command = ("rollout", disk / "run", "-i", "0", "--recipe", recipe)
        assert leap(*command, "--set", "horizon=1").returncode == 0
        shutil.rmtree(disk / "run")
        (disk / "filler").write_bytes(b"x" * 80_000)
        done = leap(*command)
        assert done.returncode == 1, done.stderr
        assert "disk is full" in done.stderr and "Traceback" not in done.stderr
        kept = (disk / "run/iter-0/episodes.jsonl").read_bytes() if (disk / "run/iter-0/episodes.jsonl").exists() else b""
        assert not kept or kept.endswith(b"\n")
        (disk / "filler").unlink()
        done = leap(*command)
        assert done.returncode == 0, done.stderr
        finished = (disk / "run/iter-0/episodes.jsonl").read_bytes()
        assert finished.startswith(kept) and finished.count(b"\n") == 3
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_games_are_generated_listed_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "games"
    settings = ("--set", "games={train: 2, unseen: 1}", "--set", "receptacles=[6, 7]")
    assert inside(monkeypatch, "games", "generate", out, *settings) == 0
    assert inside(monkeypatch, "games", "list", out) == 0
    listed = capsys.readouterr().out
    assert "train: 2 playable games" in listed and "unseen: 1 playable games" in listed
    game = next(out.rglob("game.tw-pddl"))
    assert inside(monkeypatch, "games", "show", game.parent) == 0
    assert "Optimal actions:" in capsys.readouterr().out
    assert inside(monkeypatch, "games", "show", tmp_path) == 1
    (name,) = [line for line in listed.splitlines() if line.startswith("unseen/") or "/trial" in line][-1:]
    assert inside(monkeypatch, "games", "show", name, "--data", out) == 0, "show takes what list names"
    assert inside(monkeypatch, "games", "show", name[:-1], "--data", out) == 1
    assert f"Did you mean {name!r}" in capsys.readouterr().err
    monkeypatch.setattr("builtins.input", lambda *_: "q")
    official = ("--set", "source=official", "--set", f"path={out}")
    assert inside(monkeypatch, "play", "alfworld", name, "--split", name.split("/")[0], *official) == 0, "and so does play"
    assert inside(monkeypatch, "games", "generate", out, "--set", "gaems=3") == 2
    assert inside(monkeypatch, "games", "generate", out, "--set", "games=3", "--set", "games.train=3") == 2
    assert "games" in capsys.readouterr().err


class Broken:
    """An entry point of a package whose import fails, one that is a function, and one that is a group of commands."""

    @staticmethod
    def names() -> list[str]:
        return ["broken", "greet", "many"]

    @staticmethod
    def get(name: str) -> object:
        if name == "broken":
            raise PrerequisiteError("command 'broken' cannot be imported: no module named spam")
        if name == "many":
            many = typer.Typer(help="Many things.")
            many.command("one")(Broken.greet)
            many.command("two")(Broken.greet)
            return many
        return Broken.greet

    @staticmethod
    def greet(who: str, loud: bool = False) -> None:
        """Greets."""
        typer.echo(f"hello {who}")


def test_other_packages_add_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("leap.registry.command", Broken)
    assert inside(monkeypatch, "greet", "you") == 0 and inside(monkeypatch, "many", "two", "me") == 0
    assert capsys.readouterr().out == "hello you\nhello me\n"
    assert inside(monkeypatch, "--help") == 0
    told = capsys.readouterr().out
    assert "Greets." in told and "Many things." in told and "not usable" in told, "one broken package hides no other"
    assert inside(monkeypatch, "broken") == 1
    assert "no module named spam" in capsys.readouterr().err
    assert inside(monkeypatch, "gret") == 2
    assert "greet" in capsys.readouterr().err


def test_the_run_directory_is_looked_for_before_what_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    nothing = tmp_path / "nosuch"
    for command in (("export", nothing, "--out", tmp_path / "out"), ("push", nothing, "me/it", "-i", "0"), ("report", nothing)):
        assert inside(monkeypatch, *command) == 1
        assert capsys.readouterr().err.startswith(f"error: {nothing} is not a run directory")


def test_a_missing_package_is_one_line_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module, extra in (("sklearn", "intercode"), ("msgspec", "webshop"), ("pymysql", "intercode"), ("torch", "train")):
        error = ModuleNotFoundError(f"No module named '{module}'", name=module)
        assert with_remedy(error) == f"No module named '{module}'. Give `pip install 'leap-agents[{extra}]'`."
    assert with_remedy(ModuleNotFoundError("No module named 'spam'", name="spam")) == "No module named 'spam'"
    monkeypatch.setattr("leap.cli.doctor.print_doctor", partial(import_module, "numpy.nothing"))
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert inside(monkeypatch, "doctor") == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and "pip install 'leap-agents[" in told and told.count("\n") == 1


def test_the_extras_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("leap.cli.doctor.version_of", lambda package: "" if package == "torch" else "1.0")
    assert {"torch", "transformers", "trl"} <= set(extras()["train"]) and "numpy" in extras()["studies"]
    print_doctor()
    told = capsys.readouterr().out
    assert "no  extra train: torch missing: pip install 'leap-agents[train]'" in told, "brackets are no markup"
    assert "ok  extra studies: " in told


def test_the_doctor_speaks_of_a_package_that_raises_and_of_all_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raises_at_import.py").write_text("raise RuntimeError('not today')")
    info = tmp_path / "raises-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: raises\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[leap.environments]\naaa = raises_at_import:World\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert inside(monkeypatch, "doctor") == 0
    told = capsys.readouterr().out
    assert "no  environment aaa: raises_at_import:World raises RuntimeError: not today\n" in told and "alfworld" in told


def test_the_doctor_speaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert inside(monkeypatch, "doctor") == 0
    told = capsys.readouterr().out
    assert "alfworld" in told and "no ALFWorld data" in told
    assert inside(monkeypatch, "games", "generate", tmp_path, "--set", "games={train: 1}") == 0
    assert inside(monkeypatch, "doctor") == 0
    assert "train 1" in capsys.readouterr().out.replace("\n", " ")
