"""`leap data webshop`: fetched whole or not at all, and checked against what was published."""

from __future__ import annotations

import json
import lzma
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_shop import a_product, said, write_files
from typer.testing import CliRunner

from leap.cli.app import app
from leap.errors import PrerequisiteError
from leap_worlds import reach
from leap_worlds.webshop import official


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WEBSHOP_DATA", raising=False)


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Puts a stand-in for Google Drive in gdown's place, with the files of a small catalogue in it."""
    source = tmp_path / "drive"
    source.mkdir()
    people = {f"B{i:09}": [said(f"i want mug {i}.")] for i in range(3)}
    files = write_files(source, [a_product(i) for i in range(3)], people=people)

    def give(answer: Callable[[str, Path], Any] | None = None) -> list[str]:
        asked: list[str] = []

        def download(*, id: str, output: str, timeout: Any, **more: Any) -> str | None:
            assert more["resume"] and more["retries"] > 0, "a broken download of 5 GB goes on"
            assert all(0 < seconds < 100 for seconds in timeout), "nothing is waited for without end"
            file = next(file for file in (*official.FULL, *official.SMALL) if file.drive == id)
            asked.append(file.name)
            if answer is not None:
                return answer(file.name, Path(output))
            known = next(path for path in files.paths if path.name == file.name.replace("_1000", ""))
            Path(output).write_bytes(known.read_bytes())
            more["progress"](2_000_000, 3_000_000)
            return output

        monkeypatch.setitem(sys.modules, "gdown", SimpleNamespace(download=download))
        monkeypatch.setattr(official, "reach", lambda address: None)
        return asked

    return give


def no_answer(*args: Any, **more: Any) -> Any:
    time.sleep(20)


def no_such_host(*args: Any, **more: Any) -> Any:
    raise OSError("Temporary failure in name resolution")


@pytest.mark.parametrize(
    ("connect", "why"), [(no_answer, "no answer within 0.1 s"), (no_such_host, "Temporary failure in name resolution")]
)
def test_without_a_network_it_says_at_once_what_it_tries_and_soon_what_to_do(
    connect: Any, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "getproxies", dict)
    monkeypatch.setattr(reach.socket, "create_connection", connect)
    monkeypatch.setattr(reach, "TO_CONNECT", 0.1)
    began = time.monotonic()
    refused = CliRunner().invoke(app, ["data", "webshop", "--set", f"path={tmp_path / 'data'}"])
    assert time.monotonic() - began < 10
    first = f"fetching items_shuffle.json (5 GB) from drive.google.com into {tmp_path / 'data'}"
    assert refused.stderr.splitlines()[0] == first
    told = str(refused.exception)
    assert (
        isinstance(refused.exception, PrerequisiteError)
        and "drive.google.com cannot be reached" in told
        and why in told
    )
    assert f"Put these files into {tmp_path / 'data'}" in told
    assert all(f"{file.name} ({file.size}): {file.url}" in told for file in official.FULL)
    assert not list((tmp_path / "data").iterdir())


def test_through_a_proxy_the_name_is_not_looked_up_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "getproxies", lambda: {"https": "http://proxy.invalid"})
    monkeypatch.setattr(reach.socket, "create_connection", no_such_host)
    reach.reach("https://drive.google.com")


def test_missing_files_are_fetched_once(drive: Callable[..., list[str]], tmp_path: Path) -> None:
    asked = drive()
    assert official.fetch(official.FULL, tmp_path / "data") == [file.name for file in official.FULL] == asked
    assert official.fetch(official.FULL, tmp_path / "data") == [] and len(asked) == 3
    assert official.find_files(tmp_path / "data", None).products.is_file()
    assert official.official_files(1000) == official.SMALL and official.official_files(1001) == official.FULL


def page(name: str, output: Path) -> str:
    output.write_text("<html>Too many users have viewed or downloaded this file recently.</html>")
    return str(output)


def cut_off(name: str, output: Path) -> str:
    output.write_text(json.dumps([a_product()])[:-20])
    return str(output)


def offline(name: str, output: Path) -> str:
    raise OSError("no route to host")


@pytest.mark.parametrize("answer", [page, cut_off, offline, lambda name, output: None])
def test_what_cannot_be_fetched_is_named_with_its_place_and_nothing_stays(
    drive: Callable[..., list[str]], tmp_path: Path, answer: Any
) -> None:
    drive(answer)
    with pytest.raises(PrerequisiteError) as refused:
        official.fetch(official.FULL, tmp_path / "data")
    for file in official.FULL:
        assert f"{file.name} ({file.size}): {file.url}" in str(refused.value)
    assert str(tmp_path / "data") in str(refused.value)
    assert not list((tmp_path / "data").iterdir())


def test_the_command_fetches_checks_and_tells(
    drive: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive()
    command = ["data", "webshop", "--set", f"path={tmp_path / 'data'}"]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 1  # these are not the official products
    for file in official.FULL:
        assert f"fetching {file.name} ({file.size}) from drive.google.com into {tmp_path / 'data'}" in first.stderr
    assert "fetched" in first.stdout and "3 products, where 1,181,436 were expected" in first.stdout
    assert "a product's title finds it at place 1" in first.stdout
    assert "goal 0 is the first that is not" in first.stdout
    monkeypatch.setattr(official, "OFFICIAL_PRODUCTS", 3)
    for order in ((0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 0, 1), (1, 2, 0), (2, 1, 0)):
        monkeypatch.setattr(
            official, "canonical_goals", lambda order=order: [official.goal_digits(f"I want mug {i}") for i in order]
        )
        again = CliRunner().invoke(app, command)
        if again.exit_code == 0:
            break
    assert again.exit_code == 0, "one order is the shuffled one"
    assert "every file is there" in again.stdout and "3 goals, in the published order" in again.stdout


def test_files_put_aside_by_hand_are_taken_from_there(tmp_path: Path) -> None:
    source, data = tmp_path / "drive", tmp_path / "data"
    command = ["data", "webshop", "--from", str(source), "--set", f"path={data}"]
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, PrerequisiteError)
    assert f"{source / 'items_shuffle.json'}" in str(refused.exception) and f"into {data}" in str(refused.exception)
    source.mkdir()
    write_files(source, [a_product(i) for i in range(3)], people={"B000000000": [said("i want a mug.")]})
    whole = (source / "items_human_ins.json").read_bytes()
    (source / "items_human_ins.json").write_bytes(whole[:-9])
    refused = CliRunner().invoke(app, command)
    assert "items_human_ins.json could not be fetched" in str(refused.exception)
    assert sorted(path.name for path in data.iterdir()) == ["items_ins_v2.json", "items_shuffle.json"]
    (source / "items_human_ins.json").write_bytes(whole)
    told = CliRunner().invoke(app, command)
    assert "items_human_ins.json fetched" in told.stdout and "3 products, where 1,181,436 were expected" in told.stdout
    assert (data / "items_human_ins.json").read_bytes() == whole


def test_an_environment_without_data_says_so() -> None:
    refused = CliRunner().invoke(app, ["data", "mixture", "--set", "parts={alfworld: {}, webshop: {}}"])
    assert isinstance(refused.exception, PrerequisiteError) and "no data that leap can fetch" in str(refused.exception)


def test_the_published_goals_are_the_ones_shipped_as_digits(shared_data: Path) -> None:
    path = shared_data / "webshop" / "human_goals.json.xz"
    if not path.is_file():
        pytest.skip(f"no published goals: {path} is missing")
    with lzma.open(path, "rt", encoding="utf-8") as file:
        goals = json.load(file)
    assert official.canonical_goals() == [official.goal_digits(goal) for goal in goals]


def test_a_goal_is_known_by_its_letters_whatever_its_price_limit() -> None:
    bare, priced = "I want a Mug", "i want a mug, and price lower than 30.00 dollars"
    assert official.goal_digits(bare) == official.goal_digits(priced) != official.goal_digits("i want a cup")
