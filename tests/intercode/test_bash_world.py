"""Upstream's texts for whatever a command does, and that no step raises, whatever comes back from a box."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from leap_worlds.intercode.bash.world import Rules, World, judge
from leap_worlds.sandbox import ExecResult, SandboxGone


class Answers:
    """Answers every command with one result: what boxes may give, the text rules are tested with."""

    def __init__(self, result: ExecResult) -> None:
        self.result = result
        self.calls: list[tuple[list[str], str]] = []

    def exec(self, argv: list[str], *, cwd: str, timeout: float, max_output: int) -> ExecResult:
        self.calls.append((argv, cwd))
        return self.result


def world(result: ExecResult, compat: Any = "intercode") -> tuple[World, Answers]:
    box: Any = Answers(result)
    return World(box, Rules(compat), "the request"), box


def test_texts_are_upstreams() -> None:
    shown = {
        "ok": ExecResult(output="é\n".encode()),
        "late": ExecResult(timed_out=True, output=b"half"),
        "long": ExecResult(output_capped=True, output=b"y\n"),
        "bytes": ExecResult(output=b"\xff\xfe"),
    }
    texts = {name: world(result)[0].act("x").text for name, result in shown.items()}
    assert texts == {"ok": "é\n", "late": "Command timed out", "long": "Command timed out", "bytes": "Malformed command"}
    lost = world(ExecResult(exec_error="cwd", exit_code=126))[0]
    lost.cwd = '/a "b" && ls'
    assert lost.act("ls").text == (
        'OCI runtime exec failed: exec failed: unable to start container process: chdir to cwd ("/a \\"b\\" && ls") '
        "set in config.json failed: no such file or directory: unknown\r\n"
    )


def test_a_command_that_ends_its_box_is_one_that_never_ended_and_nothing_runs_any_more() -> None:
    student, box = world(ExecResult(output=b"fine"))
    gold, _ = world(ExecResult(output=b"fine"))

    def gone(argv: list[str], **_: object) -> ExecResult:
        box.calls.append((argv, ""))
        raise SandboxGone("the sandbox has died")

    box.exec = gone  # type: ignore[method-assign]
    assert student.act("die").text == "Command timed out" and student.gone
    assert student.act("ls").text == "Command timed out" and len(box.calls) == 1
    assert not judge(student, gold, gold.run_gold("true")).solved


def test_cd_moves_only_where_it_succeeded() -> None:
    moved, box = world(ExecResult())
    moved.act("cd testbed && ls")
    moved.act("ls")
    assert box.calls == [
        (["/bin/bash", "-c", "cd /testbed && ls"], "/"),
        (["/bin/bash", "-c", "ls"], "/testbed && ls"),
    ]
    stayed, _ = world(ExecResult(exit_code=1))
    stayed.act("cd nowhere")
    assert stayed.cwd == "/"


def test_fixed_runs_what_was_written() -> None:
    fixed, box = world(ExecResult(output=b"/new\n"), "fixed")
    fixed.act('echo "a b"')
    assert box.calls[0][0][2].endswith('\necho "a b"')
    assert fixed.cwd == "/new"


results = st.builds(
    ExecResult,
    output=st.one_of(st.binary(), st.text().map(str.encode), st.sampled_from([b"?? a b\n", b'?? "x y"\n', b" M a\n?? b.txt\n"])),
    exit_code=st.integers(0, 255),
    timed_out=st.booleans(),
    output_capped=st.booleans(),
    exec_error=st.sampled_from([None, "cwd", "not_found"]),
)


@given(results, results, st.lists(st.text(), max_size=4), st.text(), st.sampled_from(["intercode", "fixed"]))
def test_no_step_and_no_reward_raises(mine: ExecResult, gold: ExecResult, actions: list[str], command: str, compat: Any) -> None:
    student, _ = world(mine, compat)
    for action in actions:
        student.act(action)
    other, _ = world(gold, compat)
    parts = judge(student, other, other.run_gold(command))
    assert 0.0 <= parts.total <= 1.0 + 1e-12
