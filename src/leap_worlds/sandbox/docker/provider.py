"""Sandboxes by a Docker engine (or Podman, itself or through DOCKER_HOST), by its command line: the one thing every engine has.

Upstream resets a container with `git reset --hard; git clean -fd` in `/`: harmless in a container, ruin on a host. Here
a reset is another container. And every container shows, before its first command, a file that only its image has: an
engine started inside a chroot has been seen to run `docker exec` in the host's own root.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from leap.core import content_key
from leap.errors import PrerequisiteError
from leap_worlds.sandbox import base
from leap_worlds.sandbox.docker import command as cli
from leap_worlds.sandbox.docker import image as files
from leap_worlds.sandbox.image import Image, Recipe, Report, own_rootfs
from leap_worlds.sandbox.pipes import PipeChannel, read_output

START_TIMEOUT = 60.0
BUILD_TIMEOUT = 1800.0
COMMANDS = ("docker", "podman")


class DockerProvider(base.SandboxProvider):
    """Containers without network, with limits, by the `docker` (or `podman`) command.

    Args:
        command: The program; the first of the two that reaches an engine if None.
        rootfs: A tar to build images on, instead of a Debian with apt-get; `$LEAP_ROOTFS` by default.
    """

    name = "docker"
    engine = True
    snapshots = True

    def __init__(self, *, command: str | None = None, rootfs: Path | None = None) -> None:
        found = [name for name in COMMANDS if shutil.which(name)]
        self._candidates = [command] if command else found or ["docker"]
        self.command = self._candidates[0]
        self._rootfs = rootfs or own_rootfs()
        self._lock = threading.Lock()
        self._live: set[str] = set()
        self._swept = False
        atexit.register(_close_at_exit, weakref.ref(self), os.getpid())

    def probe(self) -> base.Probe:
        problems = []
        for command in self._candidates:
            self.command = command
            probe = self._probe()
            if probe.ok:
                return probe
            problems.append(probe.detail)
        self.command = self._candidates[0]
        return base.Probe(ok=False, detail="; ".join(problems))

    def _probe(self) -> base.Probe:
        if shutil.which(self.command) is None:
            missing = "no `docker` or `podman` command: install one (https://docs.docker.com/get-docker/)"
            return base.Probe(ok=False, detail=missing)
        try:
            done = self.call("version", "--format", "{{.Server.Version}}", timeout=10)
            if done.returncode == 0 and b"Emulate Docker CLI" in done.stderr and shutil.which("podman"):
                self.command = "podman"  # the stand-in writes that line into every command's output
            if done.returncode:
                return base.Probe(ok=False, detail=cli.explain(done.stderr))
            limits = self._can_limit()
        except base.SandboxError as error:
            return base.Probe(ok=False, detail=str(error))
        unlimited = "the engine cannot limit memory or processes: give it control groups (`docker info` says which)"
        detail = f"{self.command} engine {done.stdout.decode().strip()}"
        return base.Probe(ok=True, detail=detail, warnings=() if limits else (unlimited,))

    def _can_limit(self) -> bool:
        """Whether the engine has what limits all processes of a container together; it would start one without, too."""
        done = self.call("info", "--format", "{{.MemoryLimit}} {{.PidsLimit}}", timeout=10)
        if done.returncode == 0:
            return b"false" not in done.stdout
        done = self.call("info", "--format", "{{.Host.CgroupControllers}}", timeout=10)  # Podman's own command
        return done.returncode != 0 or {b"memory", b"pids"} <= set(done.stdout.strip(b"[]\n").split())

    def call(self, *words: str, timeout: float) -> subprocess.CompletedProcess[bytes]:
        """Runs one engine command; raises `SandboxError` where there is no such program, or no answer in time."""
        argv, nothing = [self.command, *words], subprocess.DEVNULL  # what is typed at the terminal is not for it
        try:
            return subprocess.run(argv, stdin=nothing, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise base.SandboxError(f"`{self.command} {words[0]}` did not answer in {timeout:g} s") from None
        except OSError as error:
            raise base.SandboxError(f"`{self.command}` cannot be run: {error.strerror}") from error

    def build(self, recipe: Recipe, *, report: Report | None = None) -> Image:
        if recipe.context or recipe.reference:
            return self._foreign(recipe, report)
        if self._rootfs and recipe.rootfs is None:
            recipe = replace(recipe, rootfs=self._rootfs)
        bottom = self._import(recipe.rootfs, report) if recipe.rootfs else self._debian(recipe, report)
        return self._on(bottom, recipe, Image(key=""), report)

    def _on(self, bottom: str, recipe: Recipe, found: Image, report: Report | None, *, foreign: str = "") -> Image:
        """The recipe's steps upon an image, of which `found` tells what its Dockerfile set."""
        text, copied, env = files.steps_dockerfile(bottom, recipe.steps, foreign=foreign)
        key = content_key(text, {name: content.hex() for name, content in copied.items()})
        reference = f"leap-sandbox:{key}"
        if not self._has(reference):
            self._build(reference, text, copied | {"key": f"{key}\n".encode()}, report, "--network", "none")
        return replace(found, key=key, reference=reference, env={**found.env, **env})

    def _foreign(self, recipe: Recipe, report: Report | None) -> Image:
        """An image of somebody's Dockerfile, or from a registry: with its environment, working directory and user."""
        if recipe.context:
            bottom = f"leap-context:{files.folder_key(recipe.context)}"
            if not self._has(bottom):
                network = () if recipe.network else ("--network", "none")
                self._built(bottom, recipe.context, report, *network)
        else:
            bottom = str(recipe.reference)
            if not self._has(bottom):
                if report:
                    report(f"fetching {bottom}")
                done = self.call("pull", "-q", bottom, timeout=BUILD_TIMEOUT)
                if done.returncode:
                    raise base.SandboxError(f"the image {bottom} cannot be had: {cli.explain(done.stderr)}")
        told = self.call("image", "inspect", "--format", "{{json .Config}}", bottom, timeout=START_TIMEOUT)
        config = json.loads(told.stdout) if told.returncode == 0 else {}
        env = dict(pair.partition("=")[::2] for pair in config.get("Env") or ())
        identity = (
            self.call("image", "inspect", "--format", "{{.Id}}", bottom, timeout=START_TIMEOUT).stdout.decode().strip()
        )
        found = Image(key="", env=env, workdir=config.get("WorkingDir") or "/", user=config.get("User") or "")
        return self._on(bottom, recipe, found, report, foreign=identity)

    def _has(self, reference: str) -> bool:
        return self.call("image", "inspect", reference, timeout=START_TIMEOUT).returncode == 0

    def _debian(self, recipe: Recipe, report: Report | None) -> str:
        text = files.base_dockerfile(recipe.packages, recipe.suite)
        reference = f"leap-debian:{content_key(text)}"
        if not self._has(reference):
            self._build(reference, text, {}, report)
        return reference

    def _import(self, rootfs: Path, report: Report | None) -> str:
        try:
            reference = files.rootfs_name(rootfs)
        except OSError as error:
            raise PrerequisiteError(f"{rootfs} cannot be used as a root file system: {error.strerror}") from error
        if not self._has(reference):
            if report:
                report(f"importing {rootfs}")
            done = self.call("import", str(rootfs), reference, timeout=BUILD_TIMEOUT)
            if done.returncode:
                raise PrerequisiteError(f"{rootfs} cannot be imported: {cli.explain(done.stderr)}")
        return reference

    def _build(
        self, reference: str, text: str, copied: Mapping[str, bytes], report: Report | None, *options: str
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            files.build_folder(Path(folder), text, copied)
            self._built(reference, Path(folder), report, *options)

    def _built(self, reference: str, folder: Path, report: Report | None, *options: str) -> None:
        """Has the engine build a folder."""
        if report:
            report(f"building {reference}: once, up to a few minutes")
        words = ("-q", "--force-rm", "-t", reference, "--label", f"{cli.LABEL}=1", *options, str(folder))
        done = self.call("build", *words, timeout=BUILD_TIMEOUT)
        if done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace").strip()
            lines = [line.strip() for line in said.splitlines()[-3:-1]]
            raise base.SandboxError(f"the image could not be built: {' / '.join([*lines, cli.explain(said)])[-600:]}")

    def create(self, image: Image, limits: base.Limits | None = None) -> DockerSandbox:
        if image.reference is None:
            raise base.SandboxError(f"image {image.key} was not built for docker")
        self._sweep()
        return DockerSandbox(self, image, limits or base.Limits())

    def _sweep(self) -> None:
        """Removes, the first time it is called, containers whose processes were killed before they could."""
        with self._lock:
            swept, self._swept = self._swept, True
        if swept:
            return
        words = ("ps", "-a", "--filter", f"label={cli.LABEL}", "--format", "{{.Names}}")
        listed = self.call(*words, timeout=START_TIMEOUT)
        names = listed.stdout.decode(errors="replace").split()
        self.remove([name for name in names if cli.is_orphan(name)])
        listed = self.call("image", "ls", "--format", "{{.Tag}}", cli.SNAPSHOTS, timeout=START_TIMEOUT)
        for tag in filter(cli.is_orphan, listed.stdout.decode(errors="replace").split()):
            self._forget(f"{cli.SNAPSHOTS}:{tag}")

    def drop(self, image: Image) -> None:
        if image.reference and image.reference.startswith(f"{cli.SNAPSHOTS}:"):
            self._forget(image.reference)

    def _forget(self, reference: str) -> None:
        """Frees a snapshot. Never fails: what the engine does not remove now, a later sweep does."""
        with contextlib.suppress(base.SandboxError):
            self.call("image", "rm", "-f", reference, timeout=START_TIMEOUT)

    def run(self, image: Image, limits: base.Limits) -> str:
        """Starts a container and returns its name. Raises `SandboxError` where it cannot be started; nothing is left of
        it."""
        assert image.reference is not None
        name = cli.container_name()
        with self._lock:
            self._live.add(name)
        try:
            options = cli.run_options(image, limits)
            done = self.call("run", "--name", name, *options, image.reference, *cli.INIT, timeout=START_TIMEOUT)
        except base.SandboxError:
            self.remove([name])
            raise
        if done.returncode:
            self.remove([name])
            raise base.SandboxError(f"no container: {cli.explain(done.stderr)}")
        return name

    def remove(self, names: Sequence[str]) -> None:
        """Ends containers. Never fails: what is gone is gone, and what the engine does not remove now, a later sweep does."""
        if names:
            with contextlib.suppress(base.SandboxError):
                self.call("rm", "-f", "-v", *names, timeout=START_TIMEOUT)
        with self._lock:
            self._live -= set(names)

    def close(self) -> None:
        with self._lock:
            names = list(self._live)
        self.remove(names)


def _close_at_exit(provider: weakref.ref[DockerProvider], owner: int) -> None:
    made = provider()
    if made is not None and os.getpid() == owner:  # a fork's end is not the end of its parent's containers
        made.close()


class DockerSandbox(base.Sandbox):
    """One container. A reset is another container."""

    def __init__(self, provider: DockerProvider, image: Image, limits: base.Limits) -> None:
        self._provider, self._image, self._limits = provider, image, limits
        self._name: str | None = None
        self._open()

    def _open(self) -> None:
        self._name = self._provider.run(self._image, self._limits)
        self._prove()

    def _prove(self) -> None:
        """Before the first command: is `exec` in the container? Reads two files, changes nothing anywhere."""
        try:
            words = ("exec", self._running(), "cat", files.MARKER, "/proc/sys/kernel/hostname")
            seen = self._provider.call(*words, timeout=START_TIMEOUT)
        except base.SandboxError:
            self.close()
            raise
        if seen.stdout.split() != [self._image.key.encode(), base.HOSTNAME.encode()]:
            self.close()
            raise base.SandboxError(
                "`docker exec` did not run inside the container (an engine under chroot does this): nothing was run. "
                f"Start the engine outside of a chroot. It said: {cli.explain(seen.stderr)}"
            )

    def _running(self) -> str:
        if self._name is None:
            raise base.SandboxError("the sandbox is closed")
        return self._name

    def _argv(
        self, argv: Sequence[str], cwd: str, env: Mapping[str, str] | None, script: str, *options: str
    ) -> list[str] | base.ExecResult:
        """The engine's command line; or what comes of words that no program can be started with."""
        name = self._running()
        words = cli.exec_words(argv, base.environment(self._image) if env is None else env, script)
        if words is None:
            return base.ExecResult(output=b"not a command", exit_code=126, exec_error="not_found")
        if "\0" in cwd:
            return base.ExecResult(output=b"not a folder", exit_code=126, exec_error="cwd")
        return [self._provider.command, "exec", *options, "--workdir", cwd, name, *words]

    def exec(
        self,
        argv: Sequence[str],
        *,
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        timeout: float = base.DEFAULT_TIMEOUT,
        max_output: int = base.DEFAULT_MAX_OUTPUT,
        input: bytes = b"",
        user: str = "",
    ) -> base.ExecResult:
        who = "" if user in base.ROOT else user
        env = base.environment_of(who, base.environment(self._image) if env is None else env)
        options = [*(["-i"] if input else []), *(["--user", who] if who else [])]
        words = self._argv(argv, cwd, env, cli.RUN_AS if who and "HOME" not in env else cli.RUN, *options)
        if isinstance(words, base.ExecResult):
            return words
        with tempfile.TemporaryFile() as given:
            given.write(input)
            given.seek(0)
            try:
                process = subprocess.Popen(words, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            except (OSError, UnicodeEncodeError) as error:
                return base.ExecResult(output=str(error).encode(), exit_code=126, exec_error="not_found")
        assert process.stdout is not None
        with process.stdout:
            output, timed_out = read_output(process.stdout, time.monotonic() + timeout, max_output)
        capped = len(output) > max_output
        if timed_out or capped:
            process.kill()
            process.wait()
            self._kill_all()
            return base.ExecResult(output=output[:max_output], exit_code=137, timed_out=timed_out, output_capped=capped)
        code = process.wait()
        if cli.engine_failed(output, code):
            self._check_alive(output)
        return cli.result_of(argv, output, code)

    def _check_alive(self, output: bytes) -> None:
        """Tells an engine's complaint from a command's output: by whether the container runs."""
        words = ("container", "inspect", "--format", "{{.State.Running}}", self._running())
        if self._provider.call(*words, timeout=START_TIMEOUT).stdout.strip() != b"true":
            self.close()
            raise base.SandboxGone(f"the sandbox has died: {cli.explain(output)}")

    def _kill_all(self) -> None:
        """Killing the client leaves the command running. The engine restarts the container: processes go, files stay.

        Never by a `kill -9 -1` through `docker exec`: should that not be in the container, it would end the host.
        """
        done = self._provider.call("restart", "-t", "0", self._running(), timeout=START_TIMEOUT)
        if done.returncode:
            self.close()
            raise base.SandboxGone("a command could not be stopped: its container was ended")
        try:
            self._prove()
        except (
            base.SandboxError
        ) as error:  # it was proved when it was made: since then its programs or files were changed
            raise base.SandboxGone("the sandbox cannot be entered any more: it was ended") from error

    def start(self, argv: Sequence[str], *, cwd: str = "/", env: Mapping[str, str] | None = None) -> base.Channel:
        problem = f"{argv[0] if argv else 'nothing'} cannot be started in the sandbox"
        found = self.exec(
            ["/bin/sh", "-c", 'command -v -- "$0" >/dev/null', *argv[:1]], cwd=cwd, env=env, timeout=START_TIMEOUT
        )
        words = self._argv(argv, cwd, env, cli.START, "-i")
        try:
            if isinstance(words, base.ExecResult) or found.exit_code:
                raise base.SandboxError(problem)
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except (OSError, UnicodeEncodeError) as error:
            raise base.SandboxError(f"`{self._provider.command}` cannot be run: {error}") from error
        assert process.stdin is not None and process.stdout is not None

        def kill() -> None:
            process.kill()
            process.wait()
            if self._name is not None:
                with contextlib.suppress(base.SandboxError):
                    self._kill_all()

        with process.stdin, process.stdout:
            channel = PipeChannel(os.dup(process.stdin.fileno()), os.dup(process.stdout.fileno()), kill=kill)
        if channel.read_line(timeout=START_TIMEOUT) != b"":
            channel.kill()
            raise base.SandboxError(problem)
        return channel

    def snapshot(self, *, quiet: bool = False) -> Image:
        name, reference = self._running(), cli.snapshot_name()
        if quiet:
            told = self._provider.call("top", name, timeout=START_TIMEOUT)
            if told.returncode or len(told.stdout.splitlines()) > 2:  # a heading, and PID 1
                raise base.SandboxError("no snapshot: something runs in the sandbox")
        done = self._provider.call("commit", name, reference, timeout=BUILD_TIMEOUT)
        if done.returncode:
            raise base.SandboxError(f"no snapshot: {cli.explain(done.stderr)}")
        return replace(self._image, reference=reference)

    def reset(self) -> None:
        self.close()
        self._open()

    def close(self) -> None:
        name, self._name = self._name, None
        if name is not None:
            self._provider.remove([name])
