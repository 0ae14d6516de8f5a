"""Upstream's rules for Bash that need no box: actions, `cd`, quoting, the reward's arithmetic, stages of pipelines."""

from __future__ import annotations

import math
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap_worlds.intercode.bash.pipeline import prefixes, program, single_quoted
from leap_worlds.intercode.bash.quoting import Malformed, is_submit, read_action, simplify_path
from leap_worlds.intercode.bash.reward import (
    Change,
    Parts,
    answer_part,
    content_part,
    diff_part,
    parse_short_status,
    parse_z_status,
    similarity,
)


def test_double_quotes_are_eaten_and_cut_the_command() -> None:
    assert read_action('echo "hello world"', "/").argv == ("/bin/bash", "-c", "echo hello", "world")
    assert read_action("echo 'hello world'", "/").argv == ("/bin/bash", "-c", "echo 'hello world'")
    assert read_action("  ls -l \n", "/testbed").argv == ("/bin/bash", "-c", "ls -l")


@pytest.mark.parametrize("action", ['echo "', "cd", "cdrom", "a\0b", "\ud800", 'cd "'])
def test_what_upstream_falls_over_is_malformed(action: str) -> None:
    with pytest.raises(Malformed):
        read_action(action, "/")


@given(st.text(), st.sampled_from(["/", "/testbed/dir1", "/x && y"]))
def test_reading_an_action_raises_nothing_else(action: str, cwd: str) -> None:
    try:
        command = read_action(action, cwd)
    except Malformed:
        return
    assert command.argv[:2] == ("/bin/bash", "-c") and command.cwd.startswith("/")


@pytest.mark.parametrize(
    ("current", "changed", "result"),
    [
        ("/", "testbed", "/testbed"),
        ("/testbed/dir1", "..", "/testbed"),
        ("/testbed", "/a//b/./c/..", "/a/b"),
        ("/", "../..", "/"),
        ("/a", "~", "/a/~"),
        ("/a", "", "/a"),
        ("/a", "b && ls", "/a/b && ls"),
    ],
)
def test_cd_goes_by_the_text_alone(current: str, changed: str, result: str) -> None:
    assert simplify_path(current, changed) == result


def test_cd_runs_at_the_root_and_moves_only_later_commands() -> None:
    command = read_action("cd dir1 && ls", "/testbed")
    assert (command.argv, command.cwd, command.moves_to) == (
        ("/bin/bash", "-c", "cd /testbed/dir1 && ls"),
        "/",
        "/testbed/dir1 && ls",
    )


def test_submit_is_whatever_begins_so() -> None:
    assert is_submit("submit") and is_submit("submit it") and not is_submit(" submit") and not is_submit("Submit")


def test_reward_arithmetic() -> None:
    assert [diff_part(n) for n in range(4)] == [0.33, 0.05, 0.0, 0.0]
    assert (content_part(0, 0), content_part(1, 2), content_part(0, 3), content_part(3, 3)) == (0.33, 0.17, 0.0, 0.33)
    assert answer_part(0.985) == 0.33 and answer_part(0.984) == 0.32
    assert Parts(0.33, 0.33, 0.33).solved
    assert not Parts(0.33, 0.33, 0.32).solved
    assert Parts(0.33, 0.33, 0.0).total == pytest.approx(0.67)


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0, 1))
def test_reward_is_within_bounds(differences: int, same: int, cosine: float) -> None:
    total = Parts(diff_part(differences), content_part(same, 50), answer_part(cosine)).total
    assert 0.01 <= total <= 1.0 + 1e-12
    assert not math.isnan(total)


@pytest.mark.parametrize(
    ("agent", "gold", "value"),
    [
        ("a.txt\nb.txt\n", "b.txt a.txt", 1.0),
        ("5", "6", 0.0),
        ("5", "5", 1.0),
        ("", "", 1.0),
        ("", "abc", 0.0),
        ("Hello, world!", "hello WORLD", 1.0),
        ("some text", None, 0.0),
    ],
)
def test_similarity(agent: str, gold: str | None, value: float) -> None:
    assert similarity(agent, gold) == pytest.approx(value)


@given(st.text(max_size=60), st.text(max_size=60))
def test_similarity_is_the_formula(agent: str, gold: str) -> None:
    """Smooth idf of two documents, l2-normalised, written out."""
    import re

    words = [re.findall(r"(?u)\b\w\w+\b", text.lower()) for text in (agent, gold)]
    vocabulary = sorted({word for document in words for word in document})
    if not vocabulary:
        assert similarity(agent, gold) == float(agent == gold)
        return

    def vector(document: list[str]) -> list[float]:
        raw = [document.count(w) * (math.log(3 / (1 + sum(w in d for d in words))) + 1) for w in vocabulary]
        length = math.sqrt(sum(x * x for x in raw)) or 1.0
        return [x / length for x in raw]

    expected = sum(a * b for a, b in zip(vector(words[0]), vector(words[1]), strict=True))
    assert similarity(agent, gold) == pytest.approx(expected, abs=1e-9)


def test_status_is_read_in_pairs_of_words_as_upstream_does() -> None:
    assert parse_short_status("?? a.txt\n M b\n") == [Change("a.txt", "??"), Change("b", "M")]
    with pytest.raises(IndexError):
        parse_short_status('?? "a b"\n')


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1), max_size=5))
def test_exact_status_tells_any_path(paths: list[str]) -> None:
    text = "".join(f"?? {path}\0" for path in paths)
    assert parse_z_status(text) == [Change(path, "??") for path in paths]


def test_exact_status_skips_the_old_name_of_a_renamed_path() -> None:
    assert parse_z_status("R  new\0old\0 M x\0") == [Change("new", "R"), Change("x", "M")]


@pytest.mark.parametrize(
    ("command", "stages"),
    [
        ("a | b | c", ["a", "a | b", "a | b | c"]),
        ("grep 'a|b' x | wc", ["grep 'a|b' x", "grep 'a|b' x | wc"]),
        ("a || b", ["a || b"]),
        ("x=$(a | b) && echo $x", ["x=$(a | b) && echo $x"]),
        ("comm <(a | b) <(c | d) | head", ["comm <(a | b) <(c | d)", "comm <(a | b) <(c | d) | head"]),
        ("a; b | c", ["a; b | c"]),
        (r"find . \( -name a \) | wc", [r"find . \( -name a \)", r"find . \( -name a \) | wc"]),
    ],
)
def test_stages(command: str, stages: list[str]) -> None:
    assert prefixes(command) == stages


@given(st.text())
def test_stages_end_in_the_whole_and_each_begins_it(command: str) -> None:
    found = prefixes(command)
    assert found[-1] == command
    assert all(command.strip().startswith(stage) for stage in found[:-1])
    program(command)


@given(st.text())
def test_single_quotes_mean_the_same_to_a_shell(command: str) -> None:
    mended = single_quoted(command)
    if mended is None:
        return
    assert '"' not in mended.replace("\\\"", "") or "'" in mended
    try:
        words = shlex.split(command)
    except ValueError:
        return
    assert shlex.split(mended) == words
