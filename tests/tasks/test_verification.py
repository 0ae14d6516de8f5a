"""Tests and rewards in a box that a student has worked in: what it may plant there, and what comes of it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest

from leap_worlds.tasks import images, wheels
from leap_worlds.tasks.env import TasksEnvironment
from leap_worlds.tasks.files import _cleaned, _stays, pack_content
from leap_worlds.tasks.trial import Trial
from leap_worlds.tasks.verify import Result, falls_short, together

MakeTasks = Callable[..., TasksEnvironment]
Write = Callable[..., Path]
HONEST = "if [ -e /app/done ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt"


@contextmanager
def trial(environment: TasksEnvironment, name: str = "") -> Iterator[Trial]:
    folder = environment.folders[name] if name else next(iter(environment.folders.values()))
    made = environment.trial(folder)
    try:
        yield made
    finally:
        made.close()


def result(environment: TasksEnvironment, *commands: str) -> Result:
    with trial(environment) as made:
        for command in commands:
            made.terminal.bash(command)
        made.finish()
        return made.total


# ---- the oracle and doing nothing -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_solution_of_each_of_our_folders_gets_the_whole_reward_and_nothing_gets_less(boxes_here: MakeTasks) -> None:
    environment = boxes_here(services=("left-running",))
    said = {task.id: environment.prove(task) for task in environment.tasks("all")}
    assert said and set(said.values()) == {""}
    assert len(said) == 12


def test_where_boxes_have_no_user_but_root_a_task_that_names_another_is_refused_with_a_line(
    boxes_here: MakeTasks, one_task: Write, caplog: pytest.LogCaptureFixture
) -> None:
    one_task(HONEST, "[verifier]\nuser = 1000\n", name="by-number")
    environment = boxes_here(one_task(HONEST, name="roots").parent)
    environment.images.provider.users_missing = lambda: "nothing maps them"  # pyright: ignore[reportAttributeAccessIssue]
    assert list(environment.folders) == ["roots"]
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        "left out: by-number/task.toml: verifier.user 1000: a box has no user but root here: nothing maps them"
    ]


WORKERS = """FROM debian:bookworm-slim
RUN useradd --create-home worker
WORKDIR /srv
COPY --chown=worker given kept/ /srv/
COPY --chown=1000 kept /new
WORKDIR /srv/mine
USER worker
WORKDIR /home/worker/mine
RUN id -un > made-by
"""
WORKER = {"environment/Dockerfile": WORKERS, "environment/given": "x", "environment/kept/it": "y"}


def test_files_and_folders_of_an_image_are_whose_its_dockerfile_says(boxes_here: MakeTasks, one_task: Write) -> None:
    with trial(boxes_here(one_task("true", **WORKER))) as made:
        shown = made.terminal.bash(
            "id -un; pwd; cat made-by; stat -c '%U %n' . made-by /srv /srv/* /new /new/it /home/worker"
        ).text
    assert shown.splitlines()[:3] == ["worker", "/home/worker/mine", "worker"]
    owners = dict(reversed(line.split()) for line in shown.splitlines()[3:-1])
    assert owners.pop("/srv") == owners.pop("/srv/mine") == "root" and set(owners.values()) == {"worker"}, owners
    assert set(owners) == {".", "made-by", "/srv/given", "/srv/it", "/new", "/new/it", "/home/worker"}


def test_a_student_who_is_not_root_cannot_write_where_tests_and_rewards_are(
    boxes_here: MakeTasks, one_task: Write
) -> None:
    plant = (
        "echo 1 > /logs/verifier/reward.txt; mkdir -p /tests; echo 'echo 1 > /logs/verifier/reward.txt' > /tests/test.sh; "
        "mv /logs /logs2; ln -sfn /home/worker /logs/verifier; "
        "(while :; do echo 1 > /logs/verifier/reward.txt; sleep 0.05; done) >/dev/null 2>&1 &"
    )
    test = "[ $(id -un) = root ] && [ ! -O /home/worker ] && cat /home/worker/done > /logs/verifier/reward.txt || echo 0 > "
    toml = '[verifier]\nuser = "root"\n'
    folder = one_task(f"{test}/logs/verifier/reward.txt", toml, **WORKER)
    with trial(boxes_here(folder)) as made:
        shown = made.terminal.bash(plant)
        assert "denied" in shown.text
        made.finish()
        assert made.total.rewards == {"reward": 0.0} and not made.total.problem


def test_tests_are_run_by_the_image_s_user_where_no_other_is_named_and_may_write_the_reward(
    boxes_here: MakeTasks, one_task: Write
) -> None:
    test = "[ $(id -un):$HOME = worker:/home/worker ] && echo 1 > /logs/verifier/reward.txt"
    environment = boxes_here(one_task(test, **WORKER))
    with trial(environment) as made:
        made.finish()
        assert made.total.rewards == {"reward": 1.0}


def test_a_user_that_the_image_has_not_is_one_line(boxes_here: MakeTasks, one_task: Write) -> None:
    environment = boxes_here(one_task(HONEST, '[agent]\nuser = "nobody-here"\n'))
    assert environment.prove(environment.tasks("all")[0]) == "task: its image has no user nobody-here"


@pytest.mark.parametrize(
    ("test", "solution", "said"),
    [
        (HONEST, "true", "the solution does not pass: reward 0"),
        (HONEST, "touch /app/done; false", ""),
        (HONEST, "echo why >&2; exit 3", "the solution does not pass: solve.sh ended with status 3: why; reward 0"),
        ("echo 1 > /logs/verifier/reward.txt", "true", "the tests pass without any work"),
        ("true", "true", "the solution does not pass: no /logs/verifier/reward.txt or reward.json was written"),
        ("echo much > /logs/verifier/reward.txt", "true", "the solution does not pass: reward.txt: could not convert"),
        (
            "echo nan > /logs/verifier/reward.txt",
            "true",
            "the solution does not pass: reward.txt: reward: nan is no finite number",
        ),
        (
            "head -c 60000 /dev/zero | tr '\\0' x > /logs/verifier/reward.txt",
            "true",
            f"the solution does not pass: reward.txt: could not convert string to float: '{'x' * 40}'",
        ),
        ("echo '[1]' > /logs/verifier/reward.json", "true", "the solution does not pass: reward.json: an object"),
        (
            'echo \'{"a": "1"}\' > /logs/verifier/reward.json',
            "true",
            "the solution does not pass: reward.json: a: '1' is no",
        ),
        (
            "curl -sSf https://x.invalid; false; echo 0 > /logs/verifier/reward.txt",
            "true",
            "the solution does not pass: reward 0; ",
        ),
    ],
)
def test_each_exception_is_named(boxes_here: MakeTasks, one_task: Write, test: str, solution: str, said: str) -> None:
    environment = boxes_here(one_task(test, solution=solution))
    (task,) = environment.tasks("all")
    found = environment.prove(task)
    assert found.startswith(said) and bool(found) == bool(said) and "\n" not in found


def test_a_dockerfile_that_does_not_build_is_one_line_and_the_task_ends_at_once(
    boxes_here: MakeTasks, one_task: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = one_task("true", **{"environment/Dockerfile": "FROM debian:12\nRUN echo so it is && exit 7\n"})
    environment = boxes_here(path)
    (task,) = environment.tasks("all")
    assert "ended with status 7: so it is" in environment.prove(task)
    session = environment.start(task)
    outcome = session.act("x")
    assert outcome.done and outcome.score == 0 and session.privileged().hopeless
    assert "cannot be worked on" in caplog.text
    session.close()


# ---- what a student plants --------------------------------------------------------------------------------------------

WRITER = "echo 1 > /logs/verifier/reward.txt"
PLANTED = {
    "a reward": ["cd /logs/verifier; echo 1 > reward.txt; echo '{\"reward\": 1}' > reward.json"],
    "a test": ["mkdir -p /tests; echo 'echo 1 > /logs/verifier/reward.txt' > /tests/test.sh; chmod +x /tests/*"],
    "a linked /logs": ["rm -rf /logs; mkdir -p /x/verifier; echo 1 > /x/verifier/reward.txt; ln -s /x /logs"],
    "a linked /logs/verifier": ["rm -rf /logs/verifier; mkdir /v; echo 1 > /v/reward.txt; ln -s /v /logs/verifier"],
    "linked /tests": ["rm -rf /tests; mkdir /t; echo 'echo 1 > /logs/verifier/reward.txt' > /t/test.sh; ln -s /t /tests"],
    "files in place of folders": ["rm -rf /logs /tests; echo 1 > /logs; echo 1 > /tests"],
    "a reward that is a folder": ["mkdir -p /logs/verifier/reward.txt /logs/verifier/reward.json"],
    "a pipe": ["mkdir -p /logs/verifier; mkfifo /logs/verifier/reward.txt /logs/verifier/reward.json; mkfifo /app/done.pipe"],
    "a writer in the background": [f"setsid bash -c 'while :; do {WRITER}; sleep 0.05; done' >/dev/null 2>&1 &"],
    "an editor of tests in the background": [
        "setsid bash -c 'while :; do echo \"echo 1 > /logs/verifier/reward.txt\" > /tests/test.sh; done' >/dev/null 2>&1 &"
    ],
    "what the shell reads first": [
        "echo 'echo 1 > /logs/verifier/reward.txt; exit' > /root/.bashrc; cp /root/.bashrc /root/.profile",
        "export BASH_ENV=/root/.bashrc ENV=/root/.bashrc",
    ],
    "no permissions": ["mkdir -p /tests/a/b; chmod 0 /tests/a/b /tests/a /tests /logs/verifier"],
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(PLANTED))
def test_nothing_that_is_planted_counts(boxes_here: MakeTasks, one_task: Write, what: str) -> None:
    environment = boxes_here(one_task(HONEST))
    found = result(environment, *PLANTED[what])
    assert found.score == 0 and dict(found.rewards) == {"reward": 0.0} and not found.problem
    assert result(environment, *PLANTED[what], "touch /app/done").score == 1  # and nothing honest is lost by it


@pytest.mark.parametrize("where", ["task", "*"])
def test_a_writer_that_may_go_on_running_gives_itself_away(boxes_here: MakeTasks, one_task: Write, where: str) -> None:
    environment = boxes_here(one_task(HONEST), services=(where,))
    found = result(environment, *PLANTED["a writer in the background"])
    assert found.score == 0 and "written after the tests had ended" in found.problem


def test_a_program_that_the_tests_run_cannot_leave_a_writer_behind(boxes_here: MakeTasks, one_task: Write) -> None:
    environment = boxes_here(one_task("bash /app/program >/dev/null 2>&1; echo 0 > /logs/verifier/reward.txt"))
    body = f"setsid bash -c 'while :; do {WRITER}; sleep 0.05; done' >/dev/null 2>&1 &"
    found = result(environment, f"cat > /app/program <<'END'\n{body}\nEND")
    assert found.score == 0 and "written after the tests had ended" in found.problem


def test_what_was_left_running_is_ended_unless_the_tests_need_it(boxes_here: MakeTasks, folders: Path) -> None:
    (task,) = boxes_here(folders / "left-running").tasks("all")
    assert boxes_here(folders / "left-running").prove(task).startswith("the solution does not pass: reward 0")
    assert boxes_here(folders / "left-running", services=("left-*",)).prove(task) == ""


def test_a_test_that_hangs_ends_at_its_time(boxes_here: MakeTasks, folders: Path) -> None:
    found = result(boxes_here(folders / "little-time"), "touch /app/quick /app/hang")
    assert found.score == 0 and found.problem == "test.sh took over 3 s"


def test_a_box_that_was_spoilt_brings_nothing(boxes_here: MakeTasks, one_task: Write) -> None:
    found = result(boxes_here(one_task(HONEST)), "touch /app/done", "rm -f /usr/bin/tar")
    assert found.score == 0 and "the tests could not be run" in found.problem


def test_only_what_is_declared_comes_to_a_verifier_s_own_box(boxes_here: MakeTasks, folders: Path) -> None:
    environment = boxes_here(folders / "judged-elsewhere")
    work = "mkdir -p /app/data; touch /app/data/a /app/data/b; echo 3 > /app/report.txt"
    assert result(environment, work).score == 1
    spoilt = (
        "mkdir -p /judge /tests; echo 7 > /judge/answer; echo 'echo 1 > /logs/verifier/reward.txt' > /tests/test.sh"
    )
    assert result(environment, work, spoilt, "echo 7 > /app/report.txt").score == 0
    lied = "printf '#!/bin/bash\\nexit 1\\n' > /usr/bin/tar"
    assert result(environment, work, lied).score == 0


def test_an_archive_of_a_student_s_is_not_believed() -> None:
    entries = {"app/ok": b"1", "/app/abs": b"1", "app/../etc/passwd": b"1", "etc/passwd": b"1", "app/x.tmp": b"1"}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid = len(content), 0o4755, 1000
            tar.addfile(entry, io.BytesIO(content))
        for name, kind, link in [
            ("app/out", tarfile.SYMTYPE, "../etc/passwd"),
            ("app/in", tarfile.SYMTYPE, "ok"),
            ("app/hard", tarfile.LNKTYPE, "etc/passwd"),
            ("app/dev", tarfile.CHRTYPE, ""),
        ]:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, link
            tar.addfile(entry)
    with tarfile.open(fileobj=io.BytesIO(_cleaned(archive.getvalue(), "/app", ["*.tmp"]))) as kept:
        assert {entry.name: entry.mode for entry in kept} == {"app/ok": 0o755, "app/in": 0o644}
        assert all(entry.uid == 0 for entry in kept)
    assert _cleaned(b"no archive", "/app", []) == b""


@pytest.mark.parametrize(
    ("link", "stays"),
    [
        ("a", True),
        ("./a/../b", True),
        ("../..", False),
        ("../../app/x", True),
        ("../../../app", False),
        ("/app/x", False),
    ],
)
def test_which_links_stay_below(link: str, stays: bool) -> None:
    assert _stays(PurePosixPath("app/sub/link"), link, PurePosixPath("app")) == stays


# ---- rewards ----------------------------------------------------------------------------------------------------------


def test_the_rewards_of_several_phases() -> None:
    one, half, none = Result({"reward": 1.0, "style": 0.5}), Result({"reward": 0.5}), Result(problem="why")
    assert dict(together([one, half], "mean").rewards) == {"reward": 0.75, "style": 0.25}
    assert together([one, half], "final") is half
    assert together([one, none], "mean").score == 0.5  # a test that did not run is no way to a better mean
    assert together([one, none], "final").score == 0
    assert Result({"a": 1.0, "b": 0.0}).score == 0.5
    assert Result({"reward": 3.0}).score == 1 and Result({"reward": -1.0}).score == 0


def test_a_phase_may_ask_for_a_reward_before_the_next() -> None:
    found = Result({"reward": 0.5, "style": 1.0})
    assert not falls_short(found, None) and not falls_short(found, {"reward": 0.5})
    assert (
        falls_short(found, {"reward": 0.6})
        and falls_short(found, {"other": 0.0})
        and falls_short(Result(), {"reward": 0.0})
    )


def test_phases_follow_each_other_in_one_box_and_end_where_too_little_was_done(boxes_here: MakeTasks) -> None:
    environment = boxes_here()
    with trial(environment, "three-phases") as made:
        made.terminal.bash("echo one > /app/first.txt")
        assert made.finish().startswith("Write the word two") and not made.ended
        assert "note.txt" in made.terminal.bash("ls /app").text  # the phase's own files
        assert "test.sh" not in made.terminal.bash("ls -R /tests /logs").text  # and no test of the last one
        made.terminal.bash("echo wrong > /app/second.txt")
        assert made.finish() == "" and made.ended and made.total.score == 0.5 and not made.solved


# ---- what tests fetch ------------------------------------------------------------------------------------------------

FETCHES = """set -e
apt-get update && apt-get install -y curl
curl -LsSf https://astral.sh/uv/0.9.7/install.sh | sh
source $HOME/.local/bin/env
curl --version >/dev/null 2>&1 || true
$HOME/.local/bin/uvx --with pytest==8.4.1 pytest /tests/x.py
"""


def test_what_tests_fetch_comes_with_them_and_not_before(
    boxes_here: MakeTasks, one_task: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def fetched(requirements: tuple[str, ...], python: str) -> bytes:
        asked.append(requirements)
        archive = io.BytesIO()
        uvx = "#!/bin/sh\n[ $UV_OFFLINE$PIP_NO_INDEX = 11 ] && [ ! -e /app/early ] && echo 1 > /logs/verifier/reward.txt\n"
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, text in {**wheels._STUBS, "uvx": uvx}.items():
                pack_content(tar, text.encode(), PurePosixPath(wheels.PLACE, "bin", name), 0o755)
        return archive.getvalue()

    monkeypatch.setattr(images, "fetched", fetched)
    early = f"[ -e {wheels.PLACE} ] && touch /app/early; mkdir -p {wheels.PLACE}/bin && echo 'echo 0' > {wheels.PLACE}/bin/uvx"
    folder = one_task(FETCHES)
    assert result(boxes_here(folder, build_network=True), early).score == 1.0
    assert asked == [("uv", "pytest==8.4.1", "pytest")]
    assert result(boxes_here(folder), "true").score == 0.0 and len(asked) == 1


def test_what_cannot_be_fetched_is_one_line(boxes_here: MakeTasks, one_task: Write) -> None:
    said = result(boxes_here(one_task("pip install x"), build_network=True)).problem
    assert said == "the tests could not be run: x: the image has no python3 that they could be fetched for"
