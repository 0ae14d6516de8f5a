"""The run directory: journals that survive torn lines and full disks, whole files or none, one process at a time."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors import SafetensorError
from samples import an_episode

from leap.core import Episode, Observation
from leap.errors import LeapError, RunError
from leap.files import Journal, append_line, atomic_directory, read_json, read_records, write_json, write_text
from leap.runs.directory import RunDirectory


def journal(path: Path, count: int) -> Journal[Episode]:
    made = Journal(path, Episode)
    for number in range(count):
        made.append(an_episode(number))
    return made


def test_a_journal_gives_back_what_was_appended_in_order(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "episodes.jsonl"
    journal(path, 5)
    again = Journal(path, Episode)
    assert list(again) == [an_episode(number) for number in range(5)]
    assert an_episode(3).key in again and again.get(an_episode(3).key) == an_episode(3)


def test_a_known_key_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    journal(path, 2)
    before = path.read_bytes()
    again = Journal(path, Episode)
    again.append(an_episode(1, steps=4, success=True))  # the same work with another outcome
    assert path.read_bytes() == before
    assert len(again) == 2


def test_a_record_that_stands_there_twice_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    journal(path, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[0]]) + lines[1][:-1])
    assert [one for _, one in read_records(path, Episode)] == list(Journal(path, Episode))
    assert [place for place, _ in read_records(path, Episode)] == [0, len(lines[0])]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_journal_torn_anywhere_keeps_every_whole_line(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("torn") / "e.jsonl"
    journal(path, 3)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    again = Journal(path, Episode)
    assert len(again) == whole[:cut].count(b"\n")
    for number in range(3):
        again.append(an_episode(number))
    assert path.read_bytes() == whole


def test_line_separators_in_texts_do_not_tear_lines(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    episode = an_episode(text="a\u2028b\u2029c\x85d\x0be\rf\ng")
    Journal(path, Episode).append(episode)
    assert list(Journal(path, Episode)) == [episode]


any_text = st.text(st.characters(), max_size=20)  # halves of characters among them


@given(any_text, any_text)
@example("\ud83d", "\udc80\0")
@example("a\ud83d\ude00", "\ude00\ud83d")
@example("\ufffd \\ud83d", "\ud83d")
@example("plain", "half a name \ud83d")
def test_whatever_is_said_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, said: str, part: str) -> None:
    path = tmp_path_factory.mktemp("odd") / "e.jsonl"
    plain = an_episode(text=said)
    odd = plain.model_copy(update={"error": said, "parts": {part: 1.0}, "final": Observation(text=part, admissible=(said, part))})
    Journal(path, Episode).append(odd)
    assert list(Journal(path, Episode)) == [odd]
    assert path.read_bytes().count(b"\n") == 1


def test_a_line_damaged_in_the_middle_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    journal(path, 3)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][: len(lines[1]) // 2], lines[2], b""]))
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"e\.jsonl line 2 is damaged"):
        Journal(path, Episode)
    assert path.read_bytes() == before


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    path = tmp_path / "e.jsonl"
    made = journal(path, 2)
    path.rename(tmp_path / "kept")
    path.symlink_to("/dev/full")
    with pytest.raises(RunError, match="disk is full"):
        made.append(an_episode(2))
    path.unlink()
    (tmp_path / "kept").rename(path)
    made.append(an_episode(2))  # not taken for done
    assert len(Journal(path, Episode)) == 3


def test_a_write_cut_short_leaves_no_torn_line(tmp_path: Path) -> None:
    """A file-size limit that falls inside a line: the kernel writes half of it, as a filling disk does."""
    path = tmp_path / "e.jsonl"
    journal(path, 2)
    size = path.stat().st_size

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, size + 40))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    code = (
        "import sys; from pathlib import Path\n"
        "from samples import an_episode; from leap.core import Episode; from leap.files import Journal\n"
        "journal = Journal(Path(sys.argv[1]), Episode)\n"
        "try: journal.append(an_episode(2))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print(len(journal))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        preexec_fn=limited,
    )
    assert done.stdout.startswith("RunError the disk is full"), done
    assert done.stdout.endswith("\n2\n")
    assert path.stat().st_size == size
    assert len(Journal(path, Episode)) == 2


def test_a_journal_takes_nothing_that_it_could_not_read_back(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Episode.model_validate(an_episode().model_dump() | {"score": math.nan})
    made = journal(tmp_path / "e.jsonl", 2)
    with pytest.raises(LeapError, match=r"e\.jsonl: .*could not be read back: score"):
        made.append(an_episode(2).model_copy(update={"score": math.inf}))  # copies are not checked
    made.append(an_episode(2))
    assert len(Journal(tmp_path / "e.jsonl", Episode)) == 3


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        Exception("No space left on device (os error 28)"),  # tokenizers
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),  # torch
        RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/0"),
    ],
    ids=["system", "quota", "tokenizers", "safetensors", "torch", "torch writer"],
)
def test_a_full_disk_is_said_whoever_was_writing(error: Exception, tmp_path: Path) -> None:
    full = pytest.raises(RunError, match=r"the disk is full: cannot write .*checkpoint\. ")
    with full as told, atomic_directory(tmp_path / "checkpoint") as temporary:
        (temporary / "half").write_text("")
        raise error
    assert "\n" not in str(told.value) and not (tmp_path / "checkpoint").exists()


def test_what_killed_processes_left_goes_when_the_run_is_next_locked(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    (run.iteration(1) / ".checkpoint.tmp" / "deep").mkdir(parents=True)
    # One with the number of a process that lives: of another that had it before, or of one on another machine.
    for name in (f"iter-1/.rows.jsonl.{os.getpid()}.tmp", f".stages.json.{os.getppid()}-0badcafe.tmp", ".report.json.1.tmp"):
        (run.root / name).write_text("half")
    run.episodes(1).write_text("")
    code = (
        "import sys; from pathlib import Path; from leap import files\n"
        "replace, wait = Path.replace, sys.stdin.readline\n"
        "Path.replace = lambda *names: (print('ready', flush=True), wait(), replace(*names))\n"
        "files.write_text(Path(sys.argv[1]), 'a report')"
    )
    command = [sys.executable, "-c", code, str(run.root / "report.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reporting:
        assert reporting.stdout and reporting.stdout.readline() == b"ready\n"
        with run.locked():
            under_way = [path.name for path in run.root.iterdir() if path.name.startswith(".report.json")]
            found = sorted(str(path.relative_to(run.root)) for path in run.root.rglob("*"))
            assert found == [".lock", *under_way, "iter-1", "iter-1/episodes.jsonl"] and len(under_way) == 1
        reporting.communicate(b"\n")
    assert (run.root / "report.json").read_text() == "a report"


def test_what_killed_processes_left_goes_when_the_same_is_written_again(tmp_path: Path) -> None:
    left = (tmp_path / f".x[1].json.{os.getppid()}-0badcafe.tmp", tmp_path / ".x[1].json.2.tmp")
    for path in left:
        path.write_text("half")
    other = tmp_path / ".y.json.2.tmp"
    other.write_text("of another file")
    write_json(tmp_path / "x[1].json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "x[1].json"]
    (tmp_path / ".made.2-0badcafe.tmp").mkdir()
    with atomic_directory(tmp_path / "made"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "made", "x[1].json"]


def test_a_file_that_is_being_written_is_not_taken_for_left_over(tmp_path: Path) -> None:
    """By two processes at one file, over and over, each of which looks for what the other may have left."""
    code = (
        "import sys; from pathlib import Path; from leap.files import write_text\n"
        "for _ in range(300): write_text(Path(sys.argv[1]), 'x')"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x")]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_half_a_line_that_a_kill_has_left_is_cut_off_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "provenance.jsonl"
    for line in (b"{}\n", b'{"to', b"{}\n"):
        append_line(path, line)
    assert path.read_bytes() == b"{}\n{}\n"


def test_whole_files_are_replaced_or_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "x.json"
    write_json(path, {"a": "ü"})
    assert read_json(path) == {"a": "ü"}
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half a file \ud800")
    assert read_json(path) == {"a": "ü"}
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_reading_says_what_to_do_about_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="missing; run the earlier stage"):
        read_json(tmp_path / "x.json")
    for content in (b'{"a": ', b"\xff\xfe\x00"):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(RunError, match="damaged"):
            read_json(tmp_path / "x.json")


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    with pytest.raises(ZeroDivisionError), atomic_directory(target) as temporary:
        (temporary / "weights").write_text("half")
        _ = 1 / 0
    assert not target.exists()
    with atomic_directory(target) as temporary:
        assert list(temporary.iterdir()) == []  # what the failed attempt left is gone
        (temporary / "weights").write_text("whole")
    assert (target / "weights").read_text() == "whole"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_two_attempts_at_a_directory_leave_each_other_alone(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    with atomic_directory(target) as first:
        (first / "weights").write_text("first")
        with atomic_directory(target) as second:
            (second / "weights").write_text("second")
        assert (target / "weights").read_text() == "second" and (first / "weights").read_text() == "first"
    assert (target / "weights").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_what_a_library_writes_for_its_owner_alone_is_as_readable_as_any_file(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    with atomic_directory(tmp_path / "checkpoint") as temporary:
        (temporary / "deep").mkdir()
        for name, rights in (("deep/model.safetensors", 0o600), ("run.sh", 0o700)):
            (temporary / name).write_text("")
            (temporary / name).chmod(rights)
    usual = (tmp_path / "usual").stat().st_mode & 0o777
    assert (tmp_path / "checkpoint/deep/model.safetensors").stat().st_mode & 0o777 == usual
    assert (tmp_path / "checkpoint/run.sh").stat().st_mode & 0o777 == usual | 0o100


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(LeapError, match="file"):
        write_text(tmp_path / "file" / "x.json", "{}")


def test_a_run_is_locked_against_other_processes_and_free_after_a_kill(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    code = (
        "import sys, time; from pathlib import Path; from leap.runs.directory import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).locked(): print('locked', flush=True); time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(run.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="another process is working on"), run.locked():
            pass
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    with run.locked():
        pass


def test_a_journal_is_one_json_line_per_record(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    journal(path, 2)
    rows = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    assert [row["task"]["id"] for row in rows] == ["task-0", "task-1"]


def test_a_journal_keeps_no_records_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    made = Journal(path, Episode)
    for number in range(50):
        made.append(an_episode(number, text="x" * 20_000))
    tracemalloc.start()
    try:
        again = Journal(path, Episode)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(again) == 50 and held < path.stat().st_size / 10
    assert again.get(an_episode(7, text="x" * 20_000).key) == an_episode(7, text="x" * 20_000)
