"""`--json`: one document on standard output and nothing else there; shell completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_games import small_games
from typer.testing import CliRunner

from leap.cli.app import app
from leap.cli.document import document


def told(*command: str, exit_code: int = 0) -> Any:
    shown = CliRunner().invoke(app, [*command, "--json"])
    assert shown.exit_code == exit_code, shown.output
    return json.loads(shown.stdout)


def sets(options: dict[str, Any]) -> list[str]:
    return [word for key, value in options.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def test_validate_and_data() -> None:
    options = sets(small_games(2, 1, 1))
    found = told("validate", "alfworld", "--split", "train", "--limit", "2", *options)
    assert found["ok"] and found["environment"] == "alfworld"
    assert found["splits"] == [{"split": "train", "tasks": 2, "planned": 2, "failures": []}]
    assert {"ok", "text"} == set(found["checks"][0]) and "alfworld" in found["versions"]
    shown = CliRunner().invoke(app, ["data", "mixture", "--json"])
    assert shown.exit_code and shown.stdout == "", "what fails prints no document"


def test_doctor() -> None:
    found = told("doctor")
    assert set(found) == {"leap", "python", "platform", "cores", "accelerator", "cache", "findings"}
    assert any(one["what"] == "extra train" for one in found["findings"])
    assert {type(one["ok"]) for one in found["findings"]} == {bool}


def test_games_list(tmp_path: Path) -> None:
    settings = ["games={train: 2, valid: 1, unseen: 1}", "receptacles=[6, 7]"]
    made = CliRunner().invoke(app, ["games", "generate", str(tmp_path / "data"), "--set", settings[0], "--set", settings[1]])
    assert made.exit_code == 0, made.output
    found = told("games", "list", str(tmp_path / "data"))
    assert found["folder"] == str(tmp_path / "data") and sum(map(len, found["games"].values())) == 4


def test_study_list_and_plan(tmp_path: Path) -> None:
    names = [one["study"] for one in told("study", "list")["studies"]]
    assert "privilege" in names
    plan = told("study", "privilege", "--dry-run", "--seeds", "0", "--runs", str(tmp_path))["stages"]
    assert {"seed", "arm", "stage", "from"} == set(plan[0]) and any(one["from"] for one in plan)


def test_what_is_printed_meanwhile_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with document(True) as values:
        print("for people")
        values["text"] = "\u2028 \ud800"
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"text": "\u2028 \ud800"} and shown.out.isascii() and shown.err == "for people\n"
    with pytest.raises(ValueError), document(True):
        raise ValueError
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("leap vali", "validate"),
        ("leap stu", "study"),
        ("leap run smoll", "smollm2-quickstart"),
        ("leap play alfw", "alfworld"),
        ("leap study better-th", "better-than-teacher"),
    ],
)
def test_shells_complete(words: str, completed: str) -> None:
    environment = os.environ | {"_LEAP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    program = Path(sys.executable).with_name("leap")
    shown = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=120)
    assert shown.stdout.split() == [completed], shown.stderr
