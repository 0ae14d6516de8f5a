"""The Docker provider: its words and what it makes of the answers, with a stand-in for the command; then a real engine.

What every provider has to do is in test_hostile.py and test_sandbox_providers.py, which a real engine takes as well.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leap.errors import PrerequisiteError
from leap_worlds.intercode.bash.images import intercode_recipe
from leap_worlds.sandbox import Image, Limits, Recipe, SandboxError, Step
from leap_worlds.sandbox.docker import DockerProvider
from leap_worlds.sandbox.docker.command import container_name, exec_words, explain, is_orphan, result_of
from leap_worlds.sandbox.docker.image import base_dockerfile, steps_dockerfile

ENV = {"PATH": "/bin"}


def test_dockerfile_of_intercode() -> None:
    recipe = intercode_recipe(b"echo hello", 2)
    assert "imagemagick" in base_dockerfile(recipe.packages)
    text, files, env = steps_dockerfile("leap-debian:1", recipe.steps)
    assert text.startswith("FROM leap-debian:1\n")
    assert text.index("ENV file_system_version") < text.index('COPY ["file-1"') < text.index("git commit")
    assert files["file-1"] == b"echo hello" and env == {"file_system_version": "2", "script": "setup_nl2b_fs_2.sh"}


def test_dockers_own_failures_are_told_apart() -> None:
    text = b"OCI runtime exec failed: exec failed: unable to start container process: "
    assert result_of(["ls"], text + b'chdir to cwd ("/x") failed', 126).exec_error == "cwd"
    assert result_of(["xyz"], text + b'exec: "xyz": executable file not found', 127).exec_error == "not_found"
    assert result_of(["xyz"], b"env: 'xyz': No such file or directory\n", 127).exec_error == "not_found"
    assert result_of(["ls"], b"leap: 1: exec: env: not found\n", 127).exec_error == "not_found"
    assert result_of(["bash"], b"mine", 127).exec_error is None
    assert result_of(["bash"], b"env: 'xyz': No such file or directory\n", 127).exec_error is None


def test_words_that_no_program_can_be_started_with() -> None:
    assert exec_words([], ENV) is None
    assert exec_words(["a\0b"], ENV) is None
    assert exec_words(["\ud800"], ENV) is None
    assert exec_words(["ls"], {"A": "\0"}) is None
    words = exec_words(["echo", "\udcff $x"], ENV)  # a byte that is no text goes through a JSON interface all the same
    assert words is not None and all(word.isascii() for word in words) and "\\xff\\x20\\x24\\x78" in words[2]


def test_only_containers_of_ended_processes_of_this_machine_are_orphans() -> None:
    own = container_name()
    assert not is_orphan(own) and not is_orphan("leap-mine") and not is_orphan("postgres")
    _, place, pid, born, rest = own.split("-")
    assert is_orphan(f"leap-{place}-{pid}-{int(born) + 1}-{rest}")  # the number is taken again, by us
    assert not is_orphan(f"leap-{'0' * 8}-{pid}-{int(born) + 1}-{rest}")  # who knows what runs over there
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert is_orphan(f"leap-{place}-{ended.pid}-{born}-{rest}")


def test_complaints_become_one_line_with_what_to_do() -> None:
    full = "docker: Error response from daemon: write /x: no space left on device.\nSee 'docker run --help'.\n"
    assert explain(full).endswith("write /x: no space left on device. `docker system prune` frees some")
    assert "usermod" not in explain("a step said: mkdir: cannot create directory: Permission denied")
    assert explain("") == "no message"


# It never runs what it is given: a stand-in that did would run on the host what is meant for a container.
ENGINE = """#!/bin/sh
echo "$@" >> {log}
case "$1" in
  version) {version} ;;
  info) {info} ;;
  exec) case "$*" in
      *" cat "*) {proof} ;;
      *" echo "*) echo answer ;;
      *" yes") while :; do echo y; done ;;
    esac ;;
esac
"""


def _engine(
    tmp_path: Path,
    *,
    version: str = "echo 27.0",
    proof: str = "true",
    name: str = "docker",
    info: str = "echo true true",
) -> DockerProvider:
    """A stand-in for the docker command that shows how ours calls it and what it makes of the answers."""
    program = tmp_path / name
    program.write_text(ENGINE.format(log=tmp_path / "log", version=version, proof=proof, info=info))
    program.chmod(0o755)
    return DockerProvider(command=str(program))


def test_docker_that_may_not_be_used_or_is_not_running(tmp_path: Path) -> None:
    denied = _engine(tmp_path, version="echo 'permission denied while trying to connect' >&2; exit 1").probe()
    assert not denied.ok and "usermod -aG docker" in denied.detail
    stopped = _engine(tmp_path, version="echo 'Cannot connect to the Docker daemon.' >&2; exit 1").probe()
    assert not stopped.ok and "systemctl start docker" in stopped.detail
    assert not DockerProvider(command=str(tmp_path / "none")).probe().ok
    assert _engine(tmp_path).probe().ok


def test_an_engine_that_runs_commands_on_the_host_is_found_out_before_the_first(tmp_path: Path) -> None:
    engine = _engine(tmp_path, proof="echo no such file; hostname")  # as the engine under chroot did
    with pytest.raises(SandboxError, match="did not run inside the container"):
        engine.create(Image(key="k", reference="leap-sandbox:k"))
    calls = (tmp_path / "log").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["ps", "image", "run", "exec", "rm"]
    assert "--network none" in calls[2] and "--pids-limit 128" in calls[2] and "cat /usr/share/leap-image" in calls[3]


def test_a_container_that_proves_itself(tmp_path: Path) -> None:
    engine = _engine(tmp_path, proof="echo k; echo 1ea9c0de5a1d")
    with engine.create(Image(key="k", reference="leap-sandbox:k"), Limits(processes=7)) as box:
        assert box.exec(["echo", "x"]).output == b"answer\n"
        assert box.exec(["yes"], max_output=1000).output_capped
    verbs = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert verbs == [
        "ps",
        "image",
        "run",
        "exec",
        "exec",
        "exec",
        "restart",
        "exec",
        "rm",
    ]  # proved again after the restart


def test_an_engine_s_commands_read_nothing_from_the_terminal(tmp_path: Path) -> None:
    code = (
        "import sys; from leap_worlds.sandbox.docker import DockerProvider\n"
        "print(DockerProvider(command=sys.argv[1]).call('version', timeout=10).stdout)\n"
    )
    (tmp_path / "engine").write_text("#!/bin/sh\ncat\n")
    (tmp_path / "engine").chmod(0o755)
    command = [sys.executable, "-c", code, str(tmp_path / "engine")]
    assert subprocess.run(command, input=b"typed", capture_output=True, check=True).stdout == b"b''\n"


def test_an_engine_that_cannot_limit_is_warned_of(tmp_path: Path) -> None:
    assert not _engine(tmp_path).probe().warnings
    assert "control groups" in _engine(tmp_path, info="echo false true").probe().warnings[0]
    podman = 'case "$*" in *Host*) echo "[cpu {}]" ;; *) exit 125 ;; esac'
    assert not _engine(tmp_path, info=podman.format("memory pids")).probe().warnings
    assert _engine(tmp_path, info=podman.format("")).probe().warnings


def test_the_second_command_is_taken_where_the_first_reaches_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _engine(tmp_path, version="echo 'Cannot connect to the Docker daemon.' >&2; exit 1")
    _engine(tmp_path, version="echo 4.3", name="podman")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    provider = DockerProvider()
    assert provider.probe().detail == "podman engine 4.3" and provider.command == "podman"


def test_commands_of_a_user_are_run_by_the_engine_as_that_user_with_its_own_home(tmp_path: Path) -> None:
    engine = _engine(tmp_path, proof="echo k; echo 1ea9c0de5a1d")
    with engine.create(Image(key="k", reference="leap-sandbox:k")) as box:
        box.exec(["id"], user="worker")
        box.exec(["id"], user="1000:7", env={"HOME": "/x"}, input=b"in")
        box.exec(["id"], user="root")
    said = [line for line in (tmp_path / "log").read_text().splitlines() if line.endswith(" id")]
    assert [" --user worker " in said[0], " --user 1000:7 " in said[1], "--user" in said[2]] == [True, True, False]
    assert "HOME=$HOME" in said[0] and "HOME=/root" not in said[0]
    assert "HOME=/x" in said[1] and "HOME=$HOME" not in said[1] and "HOME=/root" in said[2]
    gone = b"unable to find user x: no matching entries in passwd file\n"
    assert result_of(["id"], gone, 126).exec_error == result_of(["id"], b"Error: " + gone, 126).exec_error == "user"
    assert result_of(["cat"], gone, 0).exec_error is None
    text, _, _ = steps_dockerfile("b", (Step(argv=("a",), user="worker"), Step(argv=("b",))))
    assert text.splitlines()[-5:] == ["USER worker", 'RUN ["a"]', "USER 0", 'RUN ["b"]', "WORKDIR /"]


def test_a_snapshot_is_a_commit_that_is_dropped_by_its_name_and_swept_when_its_process_was_killed(
    tmp_path: Path,
) -> None:
    engine = _engine(tmp_path, proof="echo k; echo 1ea9c0de5a1d")
    program, own = tmp_path / "docker", container_name()
    _, place, pid, born, rest = own.split("-")
    left = f"leap-{place}-{pid}-{int(born) + 1}-{rest}"
    busy = tmp_path / "busy"
    top = f"printf 'UID\\n1\\n'; [ -e {busy} ] && echo 2; exit 0"
    answers = f"image) [ $2 = ls ] && echo {own} {left} postgres;;\n  top) {top};;\n  exec)"
    program.write_text(program.read_text().replace("exec)", answers, 1))
    log = tmp_path / "log"
    with engine.create(Image(key="k", reference="leap-sandbox:k", env={"A": "1"}, user="app")) as box:
        swept = [line for line in log.read_text().splitlines() if line.startswith("image rm")]
        assert swept == [f"image rm -f leap-snapshot:{left}"]
        kept = box.snapshot(quiet=True)
        assert (kept.key, kept.env, kept.user) == ("k", {"A": "1"}, "app")
        assert kept.reference is not None and kept.reference.startswith("leap-snapshot:leap-")
        busy.touch()
        with pytest.raises(SandboxError, match="something runs"):
            box.snapshot(quiet=True)
        other = box.snapshot()
        with engine.create(kept) as copy:
            assert copy.exec(["echo", "x"]).output == b"answer\n"
    for image in (kept, other, Image(key="k", reference="leap-sandbox:k")):
        engine.drop(image)
    said = log.read_text().splitlines()
    commits = [line.split() for line in said if line.startswith("commit")]
    assert [words[2] for words in commits] == [kept.reference, other.reference] and commits[0][1].startswith("leap-")
    assert [line for line in said if line.startswith("image rm")][1:] == [
        f"image rm -f {kept.reference}",
        f"image rm -f {other.reference}",
    ]
    assert any(line.startswith("run") and f" {kept.reference} " in line for line in said)


# From here on with a real engine, where there is one.


def test_users_and_snapshots_of_an_engine(engine: DockerProvider) -> None:
    made = "mkdir -m 755 /own && chown 1000:7 /own && chmod 1777 /tmp && echo 'worker:x:1000:7::/own:/bin/sh' >> /etc/passwd"
    steps = (Step(argv=("bash", "-c", made)), Step(argv=("bash", "-c", "id -u > /own/who"), user="worker"))
    with engine.create(engine.build(Recipe(steps=steps))) as box:
        assert (
            box.exec(["bash", "-c", "id -u; id -g; echo $HOME; cat ~/who"], user="worker").output
            == b"1000\n7\n/own\n1000\n"
        )
        assert b"Permission denied" in box.exec(["touch", "/root/x"], user="1000").output
        assert box.exec(["id"], user="nobody-here").exec_error == "user"
        box.exec(["bash", "-c", "echo kept > /f; rm /own/who"])
        image = box.snapshot(quiet=True)
        box.exec(["bash", "-c", "echo later > /f; sleep 300 >/dev/null 2>&1 &"])
        with pytest.raises(SandboxError, match="something runs"):
            box.snapshot(quiet=True)
        with engine.create(image) as copy:
            assert copy.exec(["bash", "-c", "cat /f; ls /own"]).output == b"kept\n"
        engine.drop(image)
        assert engine.call("image", "inspect", str(image.reference), timeout=60).returncode


def test_an_engine_builds_what_the_recipe_says(engine: DockerProvider) -> None:
    told: list[str] = []
    value = "1 $B 'q' \"d\" \\x"
    script = "echo $A > /made; stat -c %a%s /.dockerenv > /seen; cat < /dev/tcp/192.0.2.1/80; rm /bin/tar"
    recipe = Recipe(steps=(Step(argv=("bash", "-c", script), files={"/in/a b.sh": b"exit 3"}, env={"A": value}),))
    image = engine.build(recipe, report=told.append)
    assert told and engine.build(recipe, report=told.append) == image and len(told) <= 2
    with engine.create(image) as box:
        assert box.exec(["cat", "/made"]).output.decode() == value + "\n"
        assert box.exec(["bash", "-c", "echo $A"]).output.decode() == value + "\n"
        assert box.exec(["/in/a b.sh"]).exit_code == 3
        assert box.exec(["ls", "/bin/tar"]).exit_code != 0
        # or InterCode's git would see a new or a changed file in every episode
        seen = box.exec(["stat", "-c", "%a%s", "/.dockerenv"]).output
        assert seen == b"7550\n" and box.exec(["cat", "/seen"]).output == seen


def test_a_failing_step_says_what_it_said(engine: DockerProvider, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"could not be built:.*this went wrong"):
        engine.build(Recipe(steps=(Step(argv=("bash", "-c", "echo this went wrong; false")),)))
    with pytest.raises(PrerequisiteError, match="No such file"):
        engine.build(Recipe(rootfs=tmp_path / "none.tar"))
    (tmp_path / "bad.tar").write_bytes(b"not a tar" * 1000)
    with pytest.raises(PrerequisiteError, match="cannot be imported"):
        engine.build(Recipe(rootfs=tmp_path / "bad.tar"))


def test_files_stay_when_a_command_is_stopped(engine: DockerProvider, image_of_engine: Image) -> None:
    with engine.create(image_of_engine) as box:
        command = "echo kept > /f; (trap '' TERM; sleep 6666) & while :; do :; done"
        assert box.exec(["bash", "-c", command], timeout=2).timed_out
        assert box.exec(["cat", "/f"]).output == b"kept\n"
        assert b"6666" not in box.exec(["bash", "-c", "cat /proc/[0-9]*/cmdline"]).output
        assert box.exec(["yes"], max_output=1000).output_capped
        assert box.exec(["cat", "/f"]).output == b"kept\n"


def test_both_outputs_are_in_the_order_they_were_written(engine: DockerProvider, image_of_engine: Image) -> None:
    with engine.create(image_of_engine) as box:
        command = ["bash", "-c", "for i in 1 2 3 4; do echo out $i; echo error $i >&2; done"]
        right = b"".join(b"out %d\nerror %d\n" % (i, i) for i in (1, 2, 3, 4))
        assert {box.exec(command).output for _ in range(5)} == {right}


def test_a_container_that_is_gone_is_no_output_of_a_command(engine: DockerProvider, image_of_engine: Image) -> None:
    with engine.create(image_of_engine) as box:
        lie = "echo Error response from daemon: gone; exit 1"
        assert box.exec(["bash", "-c", lie]).output == b"Error response from daemon: gone\n"
        engine.call("kill", str(box._name), timeout=60)
        with pytest.raises(SandboxError, match="has died"):
            box.exec(["ls"])
        with pytest.raises(SandboxError, match="closed"):
            box.exec(["ls"])
        box.reset()
        assert box.exec(["echo", "again"]).output == b"again\n"


def test_what_is_written_to_process_one_is_not_run(engine: DockerProvider, image_of_engine: Image) -> None:
    with engine.create(image_of_engine) as box:
        box.exec(["bash", "-c", "printf 'echo ran > /ran\\nexit\\n' > /proc/1/fd/0; sleep 0.5"])
        assert box.exec(["ls", "/ran"]).exit_code != 0


def test_containers_go_with_their_provider_and_those_of_a_killed_process_with_the_next(
    engine: DockerProvider, image_of_engine: Image
) -> None:
    code = f"""
import os, signal
from leap_worlds.sandbox import Image
from leap_worlds.sandbox.docker import DockerProvider
provider = DockerProvider(command={engine.command!r})
boxes = [provider.create(Image(key={image_of_engine.key!r}, reference={image_of_engine.reference!r})) for _ in range(2)]
print(*(box._name for box in boxes), flush=True)
input()
"""

    def started() -> tuple[subprocess.Popen[str], list[str]]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, process.stdout.readline().split()

    killed, orphans = started()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(orphans) == 2 and set(orphans) <= _running(engine)
    ended, others = started()  # its first container is made after the sweep
    names = _running(engine)
    assert not set(orphans) & names and set(others) <= names
    ended.communicate("\n")
    assert not set(others) & _running(engine)


def _running(engine: DockerProvider) -> set[str]:
    words = ("ps", "-a", "--filter", "label=leap.sandbox", "--format", "{{.Names}}")
    return set(engine.call(*words, timeout=60).stdout.decode().split())


@pytest.fixture(scope="session")
def image_of_engine(engine: DockerProvider) -> Image:
    return engine.build(Recipe())


def test_somebody_s_dockerfile_is_built_without_a_network_and_its_user_and_folder_are_known(tmp_path: Path) -> None:
    engine = _engine(tmp_path)
    config = '{"User": "app", "WorkingDir": "/app", "Env": ["A=1", "B=x=y"]}'
    told = f"*.Config*) echo '{config}' ;; *.Id*) echo sha256:abc ;; *leap-*) exit 1 ;;"
    answers = f'image) case "$*" in {told} esac ;;\n  exec)'
    program = tmp_path / "docker"
    program.write_text(program.read_text().replace("exec)", answers, 1))
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM debian\nUSER app\n")
    image = engine.build(Recipe(context=context))
    assert (image.user, image.workdir, image.env) == ("app", "/app", {"A": "1", "B": "x=y"})
    builds = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("build")]
    assert len(builds) == 2 and all("--network none" in line for line in builds) and str(context) in builds[0]
    engine.build(Recipe(context=context, network=True))
    assert "--network" not in (tmp_path / "log").read_text().splitlines()[-4]


def test_a_foreign_image_is_made_root_s_and_named_by_its_content() -> None:
    text, _, _ = steps_dockerfile("theirs:latest", (), foreign="sha256:abc")
    assert text.splitlines()[:3] == ["FROM theirs:latest", "LABEL leap.from=sha256:abc", "USER 0"]
    assert text != steps_dockerfile("theirs:latest", (), foreign="sha256:def")[0]
