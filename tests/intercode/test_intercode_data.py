"""InterCode's data: counts and splits as published, and clear words about files that are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from leap.envs.base import sampled
from leap.errors import PrerequisiteError
from leap_worlds.intercode.base import leading_splits
from leap_worlds.intercode.bash import images
from leap_worlds.intercode.bash.source import load_tasks, split_tasks
from leap_worlds.intercode.bash.tasks import NOT_REPEATABLE
from leap_worlds.intercode.data import FILE_SYSTEMS, IntercodeData
from leap_worlds.intercode.fetch import fetch
from leap_worlds.sandbox import Image, Recipe


def test_counts_and_splits_are_those_published(intercode_data: Path) -> None:
    data = IntercodeData(intercode_data)
    tasks = load_tasks(data)
    assert {n: len(data.bash(n)) for n in FILE_SYSTEMS} == {1: 60, 2: 53, 3: 60, 4: 27}
    assert (len(data.sql()), len(data.python())) == (1034, 974)
    sizes = {split: len(split_tasks(tasks, split)) for split in ("train", "test", "code-0.7-train", "code-0.7-test", "all")}
    assert sizes == {"train": 113, "test": 87, "code-0.7-train": 140, "code-0.7-test": 60, "all": 200}
    assert {t.id for t in split_tasks(tasks, "train_rest")}.isdisjoint(t.id for t in split_tasks(tasks, "train_valid"))
    assert NOT_REPEATABLE.keys() <= {task.id for task in tasks}
    with pytest.raises(PrerequisiteError, match="no split 'paper'"):
        split_tasks(tasks, "paper")


def test_what_making_an_image_waits_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Provider:
        name = "namespace"

        def build(self, recipe: Recipe, *, report: Callable[[str], None]) -> Image:
            report("a few minutes, once")
            return Image(key="k")

        def close(self) -> None:
            pass

    told: list[tuple[int, int, str]] = []
    monkeypatch.setattr(images, "open_provider", lambda name: Provider())
    images.open_boxes("auto", lambda name: Recipe(), (1, 2), lambda *said: told.append(said))
    assert told == [(0, 2, "file system 1: a few minutes, once"), (1, 2, "file system 2: a few minutes, once")]


def test_leading_split_leaves_nothing_out() -> None:
    numbers = list(range(1034))
    splits = leading_splits(numbers)
    assert [*splits["train"], *splits["test"]] == splits["all"] == numbers
    assert len(splits["train"]) == 723
    assert sorted([*splits["train_rest"], *splits["train_valid"]]) == splits["train"]
    assert sampled(numbers, "train", 5, 1) == sampled(numbers, "train", 5, 1) == sorted(sampled(numbers, "train", 5, 1))


def test_data_is_fetched_from_a_folder_and_checked(intercode_data: Path, tmp_path: Path) -> None:
    made = fetch(tmp_path / "a", source=intercode_data)
    assert len(load_tasks(IntercodeData(made))) == 200
    (made / "data/nl2bash/nl2bash_fs_1.json").write_text("[]", encoding="utf-8")
    with pytest.raises(PrerequisiteError, match="not the file expected"):
        fetch(tmp_path / "b", source=made)
    fetch(made, source=intercode_data)  # mends what is wrong
    assert len(load_tasks(IntercodeData(made))) == 200


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("{}", "not a list"),
        ("[]", "not a list"),
        (json.dumps([{"query": "q", "gold": "ls"}, {"query": "q"}]), "row 1"),
        (json.dumps([{"query": "q", "gold": "ls", "more": 1}]), "row 0"),
        (json.dumps([{"query": "q", "gold": 7}]), "gold"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, content: str, words: str) -> None:
    folder = tmp_path / "nl2bash"
    folder.mkdir()
    (folder / "nl2bash_fs_1.json").write_text(content, encoding="utf-8")
    with pytest.raises(PrerequisiteError, match=words):
        IntercodeData(tmp_path).bash(1)


def test_missing_data_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTERCODE_DATA", raising=False)
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "none"))
    with pytest.raises(PrerequisiteError, match="leap data intercode"):
        IntercodeData()
    with pytest.raises(PrerequisiteError, match=r"ic_mbpp\.json is missing"):
        IntercodeData(tmp_path).python()
