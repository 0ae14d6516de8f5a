"""One task in one box, from its set-up to its rewards, whoever works in it: a student, the reference solution or nobody."""

from __future__ import annotations

import copy
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from leap.errors import LeapError
from leap_worlds.sandbox import Image
from leap_worlds.sandbox.base import Sandbox, SandboxError, SandboxGone, environment
from leap_worlds.tasks.files import carry, put
from leap_worlds.tasks.folder import Judge, Phase, TaskFolder
from leap_worlds.tasks.format import AGENT, ARTIFACTS, SOLUTION, TESTS, VERIFIER, Healthcheck, TaskError
from leap_worlds.tasks.images import Images
from leap_worlds.tasks.terminal import Terminal, wait_until_healthy
from leap_worlds.tasks.verify import Result, end_processes, falls_short, tell, together, verify
from leap_worlds.tasks.wheels import PLACE

log = logging.getLogger(__name__)

_HOST = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def filled(values: Mapping[str, str], allowed: Sequence[str], where: str) -> dict[str, str]:
    """Variables of a task.toml with those of this machine put in that they name, if that is allowed.

    Raises:
        TaskError: One is named that may not be told, or is not set, and has no default.
    """
    found = {}
    for key, value in values.items():
        name = _HOST.fullmatch(value)
        if name is None:
            found[key] = value
        elif name[1] in allowed and name[1] in os.environ:
            found[key] = os.environ[name[1]]
        elif name[2] is not None:
            found[key] = name[2]
        else:
            why = "is not set" if name[1] in allowed else "may not be told; name it in the option host_env to allow it"
            raise TaskError(f"{where}.{key}: {name[1]} of this machine {why}")
    return found


class Trial:
    """A task under way in a box of its own. Close it.

    Args:
        images: Makes the boxes.
        folder: The task.
        services: Patterns of the tasks whose tests need what was left running.
        host_env: Variables of this machine that a task may be told.
        limit, seconds: Of the terminal: longest output shown, in characters, and most that a command may take.

    Raises:
        LeapError: Its box cannot be made, or the set-up fails.
    """

    def __init__(
        self,
        images: Images,
        folder: TaskFolder,
        *,
        services: Sequence[str] = (),
        host_env: Sequence[str] = (),
        limit: int = 8000,
        seconds: float = 30.0,
    ) -> None:
        self._images, self.folder, self._host_env = images, folder, host_env
        self._keeps = any(fnmatchcase(folder.id, pattern) for pattern in services)
        self.results: list[Result] = []
        self.ended = False
        machine = folder.settings.environment
        self._image = images.image(folder, machine, folder.environment)
        self.workdir = machine.workdir or self._image.workdir
        self.env = {**environment(self._image), **self._filled(machine.env, "environment.env")}
        self.box = images.box(self._image, machine)
        try:
            self._root(
                f'mkdir -p {AGENT} {VERIFIER} {ARTIFACTS} -- "$1" && chmod 777 {AGENT} {ARTIFACTS}', self.workdir
            )
            if (
                machine.docker_image
                and not (folder.environment / "Dockerfile").is_file()
                and folder.environment.is_dir()
            ):
                put(self.box, [folder.environment], self.workdir, self.env)
            self.terminal = Terminal(self.box, self.workdir, self.env, limit=limit, seconds=seconds)
            if machine.healthcheck:
                self._wait(machine.healthcheck, "environment")
            self._begin()
        except BaseException:
            self.close()
            raise

    @property
    def phase(self) -> Phase:
        """The phase at hand."""
        return self.folder.phases[min(len(self.results), len(self.folder.phases) - 1)]

    @property
    def total(self) -> Result:
        """The rewards of the phases that are over."""
        return together(self.results, self.folder.settings.multi_step_reward_strategy) if self.results else Result()

    @property
    def solved(self) -> bool:
        """Whether all phases are over, none of them short of what the next asks for, with the whole reward."""
        whole = len(self.results) == len(self.folder.phases) and not any(result.problem for result in self.results)
        short = any(
            falls_short(result, phase.least) for result, phase in zip(self.results, self.folder.phases, strict=False)
        )
        return whole and not short and self.total.score > 1 - 1e-9

    def _filled(self, values: Mapping[str, str], key: str) -> dict[str, str]:
        return filled(values, self._host_env, f"{self.folder.id}/task.toml: {key}")

    def _root(self, script: str, *words: str, seconds: float = 60.0) -> None:
        done = self.box.exec(["/bin/sh", "-c", script, "sh", *words], env=self.env, timeout=seconds)
        if done.exit_code:
            said = done.output.decode(errors="replace").strip().splitlines()
            raise TaskError(f"{self.folder.id}: its box cannot be set up: {said[-1][:200] if said else done.exit_code}")

    def _user(self, named: str | int | None, image: Image | None = None) -> str:
        """Who a task.toml names; else who the image's Dockerfile does."""
        return (image or self._image).user if named is None else str(named)

    def _begin(self) -> None:
        """Sets the phase at hand up."""
        phase = self.phase
        self.terminal.user = self._user(phase.user)
        if self.box.exec(["/bin/true"], env=self.env, user=self.terminal.user).exec_error == "user":
            raise TaskError(f"{self.folder.id}: its image has no user {self.terminal.user}")
        if phase.workdir:
            put(self.box, [phase.workdir], self.workdir, self.env)
            if (phase.workdir / "setup.sh").is_file():
                argv = ["/bin/bash", f"{self.workdir.rstrip('/')}/setup.sh"]
                done = self.box.exec(argv, cwd=self.workdir, env=self.env, timeout=600, user=self.terminal.user)
                if done.exit_code:
                    raise TaskError(
                        f"{self.folder.id}/steps/{phase.name}/workdir/setup.sh: ended with status {done.exit_code}"
                    )
        if phase.healthcheck:
            self._wait(phase.healthcheck, f"steps.{phase.name}")

    def _wait(self, check: Healthcheck, key: str) -> None:
        def run(seconds: float) -> int:
            return self.box.exec(
                ["/bin/sh", "-c", check.command], cwd=self.workdir, env=self.env, timeout=seconds
            ).exit_code

        interval = check.start_interval_sec if check.start_period_sec else check.interval_sec
        if not wait_until_healthy(
            run, interval=interval, timeout=check.timeout_sec, start=check.start_period_sec, retries=check.retries
        ):
            raise TaskError(f"{self.folder.id}/task.toml: {key}.healthcheck: its command never succeeded")

    def finish(self, trajectory: bytes = b"") -> str:
        """Ends the phase at hand: runs its tests, and begins the next where there is one and the rewards are enough for it.

        Args:
            trajectory: What was done in it, for tests that read it.

        Returns:
            The next phase's instruction; empty where the task has ended.
        """
        phase = self.phase
        result = self._verified(phase, trajectory)
        self.results.append(result)
        if result.problem:
            log.info("task %s: %s", self.folder.id, result.problem)
        self.ended = (
            bool(result.problem) or falls_short(result, phase.least) or len(self.results) == len(self.folder.phases)
        )
        if self.ended:
            return ""
        try:
            self._root(f"rm -rf -- {TESTS} {VERIFIER} {PLACE} && mkdir -p {VERIFIER}")
            self._begin()
        except (TaskError, SandboxError) as error:
            log.warning("task %s: %s", self.folder.id, error)
            self.results.append(Result(problem=str(error)))
            self.ended = True
            return ""
        return self.phase.instruction

    def _verified(self, phase: Phase, trajectory: bytes) -> Result:
        env = {**self.env, **self._filled(phase.verifier.env, "verifier.env")}
        if phase.judge is None:
            try:
                tools = self._images.tools(phase, self._image)
            except LeapError as error:
                return Result(problem=f"the tests could not be run: {error}")
            return verify(
                self.box,
                phase,
                cwd=self.workdir,
                env=env,
                user=self._user(phase.verifier_user),
                keep_running=self._keeps,
                trajectory=trajectory,
                tools=tools,
            )
        try:
            return self._elsewhere(phase, phase.judge, trajectory)
        except SandboxGone:
            return Result(problem="the box has ended")
        except LeapError as error:
            return Result(problem=f"the tests could not be run: {error}")

    def _elsewhere(self, phase: Phase, judge: Judge, trajectory: bytes) -> Result:
        """Runs the tests in a box of their own, to which nothing comes but what the task says is to be judged."""
        for hook in phase.verifier.collect:
            argv, user = ["/bin/sh", "-c", hook.command], self._user(hook.user)
            self.box.exec(argv, cwd=self.workdir, env=self.env, timeout=hook.timeout_sec, user=user)
        if not self._keeps:
            end_processes(self.box)
        tell(self.box, trajectory, self.env)
        image = self._images.image(self.folder, judge.machine, judge.folder)
        own = self._filled({**judge.machine.env, **phase.verifier.env}, "verifier.env")
        env = {**environment(image), **own}
        tools = self._images.tools(phase, image)
        with self._images.opened(image, judge.machine) as box:
            box.exec(["/bin/mkdir", "-p", ARTIFACTS, VERIFIER], env=env)
            user = self._user(phase.verifier_user, image)
            for artifact in phase.artifacts:
                carry(self.box, box, artifact.source, artifact.exclude, env)
            cwd = judge.machine.workdir or image.workdir
            return verify(
                box, phase, cwd=cwd, env=env, user=user, keep_running=False, has_tests=judge.has_tests, tools=tools
            )

    def solve(self) -> str:
        """Runs the reference solution of the phase at hand as the one who works; what went wrong in words, or nothing."""
        phase = self.phase
        if phase.solution is None:
            return "no solution/solve.sh"
        put(self.box, [phase.solution], SOLUTION, self.env)
        env = {
            **self.env,
            "DEBIAN_FRONTEND": "noninteractive",
            **self._filled(self.folder.settings.solution.env, "solution.env"),
        }
        self.box.exec(["/bin/chmod", "+x", f"{SOLUTION}/solve.sh"], env=self.env)
        argv = ["/bin/sh", "-c", f"{SOLUTION}/solve.sh >{AGENT}/oracle.txt 2>&1"]
        seconds = phase.seconds or 600.0
        begun = time.monotonic()
        done = self.box.exec(argv, cwd=self.workdir, env=env, timeout=seconds, user=self.terminal.user)
        if done.timed_out:
            return f"solve.sh took over {time.monotonic() - begun:.0f} s"
        if done.exit_code:
            said = self.box.exec(["/bin/sh", "-c", f"tail -c 300 {AGENT}/oracle.txt"], env=self.env).output
            lines = said.decode(errors="replace").strip().splitlines()
            return f"solve.sh ended with status {done.exit_code}{f': {lines[-1]}' if lines else ''}"
        return ""

    def snapshot(self, *, quiet: bool) -> Image | None:
        """An image of the files as they are now; None where the sandbox makes none of this box. `Images.drop` it in the end.

        Args:
            quiet: Not where something runs that a copy would lack, be it that the tests do not need it.
        """
        return self._images.snapshot(self.box, quiet=quiet or self._keeps)

    def copied(self, image: Image) -> Trial:
        """The trial as it is now, in a box of its own, of a snapshot's files. Close it."""
        made = copy.copy(self)
        made.results = [*self.results]
        made.box = self._images.box(image, self.folder.settings.environment)
        made.terminal = self.terminal.moved(made.box)
        return made

    def close(self) -> None:
        """Ends the box."""
        box: Sandbox | None = getattr(self, "box", None)
        if box is not None:
            self._images.end(box)
