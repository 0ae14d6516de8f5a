"""Task folders and data sets: what is where, which are refused and why, and how they are divided."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap.errors import RecipeError
from leap_worlds.tasks.folder import read_all, read_folder, without_canary
from leap_worlds.tasks.format import TaskError
from leap_worlds.tasks.splits import ALL, SplitConfig, divided

NAMES = st.lists(st.text("abcdef-/0123456789", min_size=1, max_size=8), unique=True, min_size=1, max_size=40)
Write = Callable[..., Path]


def test_our_own_folders_are_read_without_loss(folders: Path) -> None:
    tasks, refused = read_all(folders)
    assert len(tasks) == 12 and refused == []
    notes = [note for task in tasks.values() for note in task.notes]
    assert notes == ["plain-old/task.toml: unknown key environment.colour"]
    assert tasks["plain-old"].settings.environment.memory_mb == 512 and tasks["plain-old"].kind == "files"
    assert "canary" not in tasks["plain-old"].phases[0].instruction


def test_phases_have_their_own_times_tests_and_thresholds(folders: Path) -> None:
    first, second, third = read_folder(folders / "three-phases").phases
    assert [phase.name for phase in (first, second, third)] == ["first", "second", "third"]
    assert (first.verifier.timeout_sec, second.verifier.timeout_sec) == (20, 600) and second.seconds == 30
    assert first.least == {"reward": 0.5} and second.least == {"reward": 1.0} and third.least is None
    assert [folder.parent.name for folder in first.tests] == ["three-phases", "first"]
    assert first.workdir is None and second.workdir is not None


def test_a_step_without_a_solution_has_the_task_s(folders: Path) -> None:
    phases = read_folder(folders / "last-phase-counts").phases
    assert [phase.solution for phase in phases] == [folders / "last-phase-counts" / "solution"] * 2


def test_where_a_separate_verifier_runs(folders: Path) -> None:
    own, copy = (read_folder(folders / name).phases[0].judge for name in ("judged-elsewhere", "judged-in-a-copy"))
    assert own and own.has_tests and own.folder.name == "tests" and own.machine.memory_mb == 256
    assert copy and not copy.has_tests and copy.folder.name == "environment"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"instruction.md": "  \n"}, "task/instruction.md: is empty"),
        ({"task.toml": '[environment]\nos = "Windows"\n'}, "task/task.toml: environment.os: boxes are Linux"),
        ({"task.toml": "[environment]\ngpus = 1\n"}, "task/task.toml: environment.gpus: boxes have no accelerator"),
        ({"task.toml": '[[steps]]\nname = "a"\n'}, "task/steps/a/instruction.md: is missing"),
        (
            {"environment/docker-compose.yaml": "services: {}\n"},
            "task/environment/docker-compose.yaml: tasks of several",
        ),
        (
            {"task.toml": 'artifacts = ["/logs"]\n[verifier]\nenvironment_mode = "separate"\n'},
            "task/task.toml: artifacts: /logs: holds /logs/verifier",
        ),
        (
            {"task.toml": 'artifacts = ["/tests/x"]\n[verifier]\nenvironment_mode = "separate"\n'},
            "task/task.toml: artifacts: /tests/x: holds /tests",
        ),
        (
            {"task.toml": 'artifacts = [{source = "/a", service = "db"}]\n[verifier]\nenvironment_mode = "separate"\n'},
            "task/task.toml: artifacts: /a: of service db",
        ),
    ],
)
def test_a_bad_folder_is_one_line_that_names_file_and_key(one_task: Write, change: dict[str, str], said: str) -> None:
    folder = one_task("true", **change)
    with pytest.raises(TaskError) as told:
        read_folder(folder)
    assert str(told.value).startswith(said) and "\n" not in str(told.value)


@pytest.mark.parametrize("missing", ["task.toml", "instruction.md", "tests/test.sh", "environment/Dockerfile"])
def test_what_is_missing_is_named(one_task: Write, missing: str) -> None:
    folder = one_task("true")
    (folder / missing).unlink()
    with pytest.raises(TaskError, match=rf"^task/{missing}: is missing"):
        read_folder(folder)


def test_an_image_s_name_does_without_a_dockerfile(one_task: Write) -> None:
    folder = one_task("true", '[environment]\ndocker_image = "some/image:1"\n')
    (folder / "environment" / "Dockerfile").unlink()
    assert read_folder(folder).settings.environment.docker_image == "some/image:1"


@pytest.mark.parametrize("place", ["tests/link", "solution/link", "environment/link", "instruction.md"])
def test_links_out_of_the_folder_are_refused(one_task: Write, tmp_path: Path, place: str) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = one_task("true")
    (folder / place).unlink(missing_ok=True)
    (folder / place).symlink_to(tmp_path / "secret")
    with pytest.raises(TaskError, match=rf"^task/{place}: leads out of the task's folder$"):
        read_folder(folder)


@pytest.mark.parametrize("place", ["tests/odd.sh", "environment/.dockerignore", "solution/odd", "task.toml"])
def test_pipes_and_links_to_themselves_are_refused_and_never_opened(one_task: Write, place: str) -> None:
    folder = one_task("true")
    (folder / place).unlink(missing_ok=True)
    os.mkfifo(folder / place)
    with pytest.raises(TaskError, match=rf"^task/{place}: is neither a file nor a folder$"):
        read_folder(folder)
    (folder / place).unlink()
    (folder / place).symlink_to((folder / place).name)
    with pytest.raises(TaskError, match=rf"^task/{place}: is a link that leads to itself$"):
        read_folder(folder)


def test_a_data_set_is_a_folder_of_folders_of_any_depth_and_bad_ones_do_not_end_it(
    one_task: Write, tmp_path: Path
) -> None:
    one_task("true", name="set/a")
    one_task("true", name="set/deep/b")
    one_task("true", "steps = 3", name="set/deep/c")
    (one_task("true", name="set/d") / "task.toml").unlink()
    tasks, refused = read_all(tmp_path / "set")
    assert list(tasks) == ["a", "deep/b"]
    assert refused == ["d/task.toml: is missing", "deep/c/task.toml: steps: Input should be a list"]
    assert list(read_all(tmp_path / "set" / "a")[0]) == ["a"]
    with pytest.raises(TaskError, match="holds no task folder"):
        read_all(tmp_path / "set" / "a" / "tests")


def test_the_key_of_a_folder_is_its_content(one_task: Write) -> None:
    first = read_folder(one_task("true", name="one"))
    assert first.key == read_folder(one_task("true", name="other")).key
    assert first.key != read_folder(one_task("false", name="third")).key


@given(st.text(max_size=60))
def test_only_marks_at_the_top_are_taken_from_an_instruction(text: str) -> None:
    marked = f"<!-- CANARY x -->\n# a canary y\n\n{text}"
    assert without_canary(marked) == without_canary(text)
    assert without_canary(f"Do.\n<!-- canary -->\n{text}").startswith("Do.\n<!-- canary -->")


# ---- splits ----------------------------------------------------------------------------------------------------------


@given(NAMES, st.integers(0, 5))
def test_by_hash_each_task_is_in_one_split_and_a_new_task_moves_no_old_one(names: list[str], seed: int) -> None:
    config = SplitConfig(seed=seed)
    splits = divided(names, config)
    assert splits[ALL] == names and sorted(name for split in config.shares for name in splits[split]) == sorted(names)
    more = divided([*names, "a new one"], config)
    assert all(set(splits[name]) <= set(more[name]) for name in config.shares)


def test_by_hash_shares_are_about_what_they_say() -> None:
    splits = divided([f"task-{number}" for number in range(2000)], SplitConfig())
    assert abs(len(splits["train"]) - 1400) < 80 and abs(len(splits["test"]) - 400) < 70


@given(NAMES)
def test_by_glob_the_first_that_matches_has_the_task(names: list[str]) -> None:
    splits = divided(names, SplitConfig(by="glob", globs={"test": ("a*",), "train": ("a*", "b*")}))
    assert splits["test"] == [name for name in names if name.startswith("a")]
    assert splits["train"] == [name for name in names if name.startswith("b")]


def test_by_file_names_and_patterns_that_match_nothing_are_errors(tmp_path: Path) -> None:
    file = tmp_path / "splits.yaml"

    def division(text: str) -> dict[str, list[str]]:
        file.write_text(text)
        return divided(["a1", "a2", "b1"], SplitConfig(by="file", file=file))

    assert division("train: ['a*']\ntest: [b1]\n") == {"train": ["a1", "a2"], "test": ["b1"], ALL: ["a1", "a2", "b1"]}
    for text, said in [
        ("train: [a3]", "train: there is no task 'a3'"),
        ("train: ['a*']\ntest: [a1]", "test: task 'a1' is in train, too"),
        ("train: a1", "a list of task names"),
        ("all: [a1]", "all: is always"),
        ("[", "cannot be read"),
    ]:
        with pytest.raises(TaskError) as told:
            division(text)
        assert str(told.value).startswith(f"{file}: {said}") and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "values", [{"by": "glob"}, {"by": "file"}, {"shares": {"train": 0.5}}, {"shares": {"all": 1.0}}]
)
def test_divisions_that_make_no_sense_are_refused_when_the_recipe_is_read(values: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        SplitConfig.from_values(values, "split")
