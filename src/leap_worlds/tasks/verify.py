"""Verification as Harbor does it, in a box that a student has worked in: nothing that it left may speak for it.

What it left running is ended (unless the task's tests need it), `/tests` and `/logs/verifier` are made anew whatever stands
in their place, the tests come only now, and the reward is read once their script has ended. A reward that shows up after that
was not the script's.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from leap_worlds.sandbox.base import DEFAULT_ENV, ExecResult, Sandbox, SandboxError, SandboxGone
from leap_worlds.tasks.files import put, unpack
from leap_worlds.tasks.folder import Phase
from leap_worlds.tasks.format import AGENT, TESTS, VERIFIER, TaskError
from leap_worlds.tasks.wheels import PLACE, SETTINGS

REWARD = "reward"
LOG = f"{VERIFIER}/test-stdout.txt"
TRAJECTORY = f"{AGENT}/trajectory.json"
_MOST = 64 * 2**10
_LOG_TAIL = 16 * 2**10
_PATIENCE = 0.3
"""Seconds in which a reward that is written again gives itself away."""
_ANEW = f"""
for place in /logs {VERIFIER} {TESTS}; do if [ -L "$place" ] || [ ! -d "$place" ]; then rm -f -- "$place"; fi; done
rm -rf -- {VERIFIER} {TESTS} && mkdir -p -- {VERIFIER} {TESTS} && chmod 777 {VERIFIER}
"""
_TELL = f"""
for place in /logs {AGENT}; do if [ -L "$place" ] || [ ! -d "$place" ]; then rm -f -- "$place"; fi; done
mkdir -p -- {AGENT} && rm -rf -- {TRAJECTORY} && cat > {TRAJECTORY} && chmod 644 {TRAJECTORY}
"""
_RUN = f'"$1" >{LOG} 2>&1'


@dataclass(frozen=True)
class Result:
    """What the tests said.

    Attributes:
        rewards: By name; empty where there are none.
        problem: Why there are none, or why they do not count, for people.
        log: The end of what the tests printed. Hidden from students.
    """

    rewards: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""
    log: str = ""

    @property
    def score(self) -> float:
        """The reward, in [0, 1]: the one that is called so, else the mean of all."""
        if not self.rewards:
            return 0.0
        value = self.rewards.get(REWARD, sum(self.rewards.values()) / len(self.rewards))
        return min(1.0, max(0.0, value))

    @property
    def mean(self) -> float:
        """The mean of all rewards, in [0, 1]: what one of several checks adds."""
        values = [min(1.0, max(0.0, value)) for value in self.rewards.values()]
        return sum(values) / len(values) if values else 0.0


def end_processes(box: Sandbox) -> None:
    """Ends whatever runs in a box. Files stay."""
    box.start(["/bin/sh", "-c", "read -r _"]).kill()


def tell(box: Sandbox, trajectory: bytes, env: Mapping[str, str]) -> None:
    """Puts what was done where tests read it, whatever stands in its place.

    Raises:
        TaskError: The box did not take it.
    """
    if trajectory:
        _sh(box, _TELL, env, trajectory)


def verify(
    box: Sandbox,
    phase: Phase,
    *,
    cwd: str,
    env: Mapping[str, str],
    user: str,
    keep_running: bool,
    has_tests: bool = False,
    trajectory: bytes = b"",
    tools: bytes = b"",
) -> Result:
    """Runs a phase's tests in a box.

    Args:
        box: The student's, or the verifier's own.
        phase: Whose tests.
        cwd: Where they are run.
        env: Their whole environment.
        user: Who runs them.
        keep_running: Whether what the student left running goes on meanwhile.
        has_tests: Whether the box came with the tests.
        trajectory: What was done (see `leap.envs.atif`); nothing where it is not told.
        tools: A tar of what the tests would fetch (see `wheels`); nothing where they fetch nothing.
    """
    try:
        if not keep_running:
            end_processes(box)
        if has_tests:
            _sh(box, f"rm -rf -- {VERIFIER}; mkdir -p -- {VERIFIER} && chmod 777 {VERIFIER}", env)
        else:
            _sh(box, _ANEW, env)
            put(box, phase.tests, TESTS, env)
        tell(box, trajectory, env)
        if tools:
            _sh(box, f"rm -rf -- {PLACE}", env)
            unpack(box, tools, PLACE, env)
            env = {**env, **SETTINGS, "PATH": f"{PLACE}/bin:{env.get('PATH', DEFAULT_ENV['PATH'])}"}
        return _judged(box, phase, cwd, env, user)
    except SandboxGone:
        return Result(problem="the box has ended")
    except (SandboxError, TaskError) as error:
        return Result(problem=f"the tests could not be run: {error}")


def _judged(box: Sandbox, phase: Phase, cwd: str, env: Mapping[str, str], user: str) -> Result:
    seconds, script = phase.verifier.timeout_sec, f"{TESTS}/{phase.test}"
    box.exec(["/bin/chmod", "+x", script], env=env)
    argv = ["/bin/sh", "-c", _RUN, "sh", script]
    done = box.exec(argv, cwd=cwd, env=env, timeout=seconds, user=user)
    if done.exec_error == "cwd":
        done = box.exec(argv, cwd="/", env=env, timeout=seconds, user=user)
    if done.exec_error == "user":
        return Result(problem=f"the tests could not be run: {done.output.decode(errors='replace')}")
    log = _read(box, LOG, env, _LOG_TAIL).output.decode(errors="replace")
    if done.timed_out:
        return Result(problem=f"{phase.test} took over {seconds:g} s", log=log)
    found = read_rewards(box, env)
    if not found.problem and _is_written_again(box, env):
        return Result(
            problem="a reward was written after the tests had ended, by something that was left running", log=log
        )
    return Result(found.rewards, found.problem, log)


def _is_written_again(box: Sandbox, env: Mapping[str, str]) -> bool:
    names = " ".join(f"{VERIFIER}/{name}" for name in ("reward.json", "reward.txt"))
    _sh(box, f"rm -rf -- {names}", env)
    time.sleep(_PATIENCE)
    return (
        box.exec(["/bin/sh", "-c", f"for name in {names}; do [ -e $name ] && exit 1; done; exit 0"], env=env).exit_code
        != 0
    )


def _sh(box: Sandbox, script: str, env: Mapping[str, str], given: bytes = b"") -> None:
    done = box.exec(["/bin/sh", "-c", script], env=env, input=given)
    if done.exit_code:
        said = done.output.decode(errors="replace").strip().splitlines()
        raise TaskError(
            f"{TESTS} and /logs cannot be made anew: {said[-1][:200] if said else f'status {done.exit_code}'}"
        )


def _read(box: Sandbox, path: str, env: Mapping[str, str], most: int) -> ExecResult:
    """The end of a plain file; a failure where it is none."""
    script = f'[ -f "$1" ] && [ ! -L "$1" ] || exit 4; tail -c {most} -- "$1"'
    return box.exec(["/bin/sh", "-c", script, "sh", path], env=env)


def read_rewards(box: Sandbox, env: Mapping[str, str]) -> Result:
    """The rewards that stand in /logs/verifier: reward.json, else reward.txt."""
    for name, parse in (("reward.json", _of_json), ("reward.txt", _of_text)):
        done = _read(box, f"{VERIFIER}/{name}", env, _MOST)
        if done.exit_code == 0:
            try:
                return Result(parse(done.output.decode()))
            except (ValueError, RecursionError) as error:
                return Result(problem=f"{name}: {error}")
    return Result(problem=f"no {VERIFIER}/reward.txt or reward.json was written")


def _of_text(text: str) -> dict[str, float]:
    try:
        value = float(text.strip() or "nothing")
    except ValueError:
        raise ValueError(f"could not convert string to float: {text.strip()[:40]!r}") from None
    return {REWARD: _finite(REWARD, value)}


def _of_json(text: str) -> dict[str, float]:
    rewards = json.loads(text)
    if not isinstance(rewards, dict) or not rewards:
        raise ValueError("an object with a number for each reward is needed")
    return {name: _finite(name, value) for name, value in rewards.items()}


def _finite(name: str, value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: {value!r:.50} is no finite number")
    return float(value)


def together(results: list[Result], strategy: str) -> Result:
    """The rewards of a task of several phases: the mean of each, where one that a phase lacks counts 0, or the last
    phase's. A phase that brought no reward counts 0, so that nobody gains by a test that fails to run."""
    if len(results) == 1 or strategy == "final":
        return results[-1]
    names = list(dict.fromkeys(name for result in results for name in result.rewards)) or [REWARD]
    mean = {name: sum(result.rewards.get(name, 0.0) for result in results) / len(results) for name in names}
    problems = "; ".join(result.problem for result in results if result.problem)
    return Result(mean, problems, results[-1].log)


def falls_short(result: Result, least: Mapping[str, float] | None) -> bool:
    """Whether a phase's rewards are below what the next phase asks for."""
    return any(result.rewards.get(name, -math.inf) < value for name, value in (least or {}).items())
