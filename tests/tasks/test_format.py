"""The settings of a task folder: what is read, what is told, what is refused with a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap_worlds.tasks.format import SCHEMAS, Machine, StepTable, TaskError, TaskTable, VerifierTable, read_settings

KEYS = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
TABLES = {"": TaskTable, "environment": Machine, "verifier": VerifierTable}
OLD = {"version", "memory", "storage", "allow_internet"}


def refusal(text: str) -> str:
    with pytest.raises(TaskError) as told:
        read_settings(text, "a/task.toml")
    return str(told.value)


@pytest.mark.parametrize("version", SCHEMAS)
@pytest.mark.parametrize("key", ["version", "schema_version"])
def test_every_schema_is_read_by_both_names_of_its_version(version: str, key: str) -> None:
    settings = read_settings(f'{key} = "{version}"\n', "t")
    assert settings.schema_version == version and settings.notes() == []


def test_what_is_newer_is_read_and_told_and_another_format_is_refused() -> None:
    assert read_settings('schema_version = "1.9"', "t").notes() == ["schema_version 1.9 is read as 1.4"]
    assert refusal('schema_version = "2.0"') == "a/task.toml: schema_version: schema 1.0 to 1.4 is read"


@given(st.dictionaries(KEYS, st.integers(0, 9), max_size=5), st.sampled_from(sorted(TABLES)))
def test_unknown_keys_are_told_by_name_and_kept(values: dict[str, int], table: str) -> None:
    unknown = {key: value for key, value in values.items() if key not in {*TABLES[table].model_fields, *OLD}}
    text = f"[{table}]\n" if table else ""
    settings = read_settings(text + "\n".join(f"{key} = {value}" for key, value in unknown.items()), "t")
    assert sorted(settings.unknown()) == sorted(f"{table}.{key}" if table else key for key in unknown)
    assert (getattr(settings, table) if table else settings).model_extra == unknown


def test_unknown_keys_of_steps_are_told_by_their_number() -> None:
    settings = read_settings('[[steps]]\nname = "a"\n[[steps]]\nname = "b"\n[steps.verifier]\ncolour = 1\n', "t")
    assert list(settings.unknown()) == ["steps.1.verifier.colour"]


@given(st.integers(1, 64), st.sampled_from("MG"), st.sampled_from(["memory", "storage"]))
def test_old_sizes_say_what_the_new_ones_say(size: int, unit: str, key: str) -> None:
    old = read_settings(f'[environment]\n{key} = "{size}{unit}"\n', "t").environment
    new = read_settings(f"[environment]\n{key}_mb = {size * (1024 if unit == 'G' else 1)}\n", "t").environment
    assert old == new and list(old.unknown()) == []


def test_an_old_size_and_a_new_one_may_not_differ() -> None:
    said = refusal('[environment]\nmemory = "1G"\nmemory_mb = 512\n')
    assert said.startswith("a/task.toml: environment: memory (1024 MiB) and memory_mb (512)")
    assert "'512M' or '2G'" in refusal("[environment]\nmemory = 3\n")


@pytest.mark.parametrize(("text", "mode"), [("true", "public"), ("false", "no-network")])
def test_the_old_word_for_the_network(text: str, mode: str) -> None:
    assert read_settings(f"[environment]\nallow_internet = {text}\n", "t").environment.network_mode == mode
    newer = read_settings(f'[environment]\nallow_internet = {text}\nnetwork_mode = "no-network"\n', "t").environment
    assert newer.network_mode == "no-network"


def test_a_name_that_nothing_could_be_published_by_is_told() -> None:
    assert read_settings('[task]\nname = "of/us"', "t").notes() == []
    assert read_settings('[task]\nname = "us"', "t").notes() == ["task.name 'us' is not of the form organisation/name"]


def test_a_task_that_says_nothing_does_not_ask_for_a_network() -> None:
    assert not read_settings("", "t").environment.asks_for_network
    assert read_settings('[environment]\nnetwork_mode = "public"\n', "t").environment.asks_for_network


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("x", "not TOML"),
        ("steps = 3", "steps: Input should be a list"),
        ('[[steps]]\nname = "a"\n[[steps]]\nname = "A"', "steps: two steps are called 'a'"),
        ('[[steps]]\nname = "../a"', "steps.0.name"),
        ('[[steps]]\nname = "con.txt"', "steps.0.name"),
        ('[agent]\ntimeout_sec = "soon"', "agent.timeout_sec"),
        ("[agent]\ntimeout_sec = -1", "agent.timeout_sec"),
        ("[verifier]\ntimeout_sec = inf", "verifier.timeout_sec"),
        ('artifacts = ["/a/../b"]', "artifacts.0.source"),
        ('[verifier]\nenvironment_mode = "shared"\n[verifier.environment]\ncpus = 1', "verifier: environment_mode"),
        ('[environment]\nallowed_hosts = ["a.example"]', "environment: allowed_hosts needs"),
        ("[task]\nname = 3", "task.name"),
        ('[environment]\nos = "beos"', "environment.os"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_file_and_key(text: str, key: str) -> None:
    said = refusal(text)
    assert said.startswith(f"a/task.toml: {key}") and "\n" not in said


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_one_line(text: str) -> None:
    try:
        read_settings(text, "a/task.toml")
    except TaskError as error:
        assert str(error).startswith("a/task.toml: ") and "\n" not in str(error)


@given(st.text(min_size=1, max_size=30))
def test_a_step_s_name_is_the_name_of_one_folder(name: str) -> None:
    try:
        assert StepTable(name=name).name == name
    except ValueError:
        return
    assert "/" not in name and "\0" not in name and name not in (".", "..")
