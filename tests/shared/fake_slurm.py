"""A stand-in for Slurm on one machine: `sbatch`, `srun`, `squeue`, `sacct`, `scancel`, `scontrol` and `sinfo` by the name it is
called by. It starts the elements of an array last to first, and does to jobs what a test asks for in `faults.json`:

    [{"start": 1, "when": "/run/jobs/*.claimed", "do": "kill"}]

kills the first job that was ever started, as soon as a file of that name says the job's id (`requeue`: and starts it again under
the same number; `preempt`: only signals what runs in it, as Slurm does before it takes a node away). `blind` in place of `kill`
has each job start on a node that sees nothing of this machine. While there is a file `down`, `squeue` fails. All that this knows
lies in the folder `$FAKE_SLURM`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol", "sinfo")
PARTITIONS = ("cpu", "gpu")
HOME = Path(os.environ.get("FAKE_SLURM", "/nonexistent"))


def install(folder: Path) -> None:
    """Puts the commands into a folder."""
    folder.mkdir(parents=True)
    for name in COMMANDS:
        file = folder / name
        file.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(__file__)} {name} \"$@\"\n")
        file.chmod(0o755)


def next_number(what: str) -> int:
    with (HOME / what).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        number = int(file.read() or 0) + 1
        file.truncate(0)
        file.write(str(number))
        return number


def put(job: str, state: str) -> None:
    new = HOME / f"{job}.new"
    new.write_text(state)
    new.replace(HOME / f"{job}.state")


def states() -> dict[str, str]:
    return {file.stem: file.read_text() for file in sorted(HOME.glob("*.state"))}


def sbatch(arguments: list[str]) -> None:
    test = "--test-only" in arguments
    script = [] if test else Path(arguments[-1]).read_text().splitlines()
    words = arguments if test else shlex.split(" ".join(line[8:] for line in script if line.startswith("#SBATCH")))
    options = {word[2:].partition("=")[0]: word.partition("=")[2] for word in words if word.startswith("--")}
    if options.get("partition", "cpu") not in PARTITIONS:
        sys.exit(
            f"sbatch: error: invalid partition specified: {options['partition']}\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified"
        )
    if test:
        print("sbatch: Job 1 to start at 2026-01-01T00:00:00 using 1 processors on nodes n1", file=sys.stderr)
        return
    number = next_number("number")
    first, last, at_once = map(int, re.findall(r"\d+", options.get("array", "0-0%1")))
    jobs = [f"{number}_{i}" for i in range(first, last + 1)] if "array" in options else [str(number)]
    for job in jobs:
        put(job, "PENDING")
    (HOME / f"{number}.sh").write_text("\n".join(script))
    command = [sys.executable, __file__, "supervise", str(at_once), str(HOME / f"{number}.sh"), *reversed(jobs)]
    nothing = subprocess.DEVNULL
    subprocess.Popen(command, start_new_session=True, stdin=nothing, stdout=nothing, stderr=nothing)
    print(f"Submitted batch job {number}")


def supervise(arguments: list[str]) -> None:
    at_once, script, waiting = int(arguments[0]), arguments[1], arguments[2:]
    running: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
    warned: set[int] = set()
    while waiting or running:
        faults: list[dict[str, Any]] = json.loads((HOME / "faults.json").read_text())
        while waiting and len(running) < at_once:
            job = waiting.pop(0)
            if states()[job] == "PENDING":
                array, _, index = job.partition("_")
                mine = {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index} if index else {}
                blind = any(fault["do"] == "blind" for fault in faults)
                put(job, "RUNNING")
                process = subprocess.Popen(
                    ["false"] if blind else ["bash", script],
                    start_new_session=True,
                    env=os.environ | mine | {"SLURM_JOB_ID": array, "FAKE_JOB": job},
                    stderr=subprocess.DEVNULL if blind else _log(script, job),
                )
                running[job] = process, next_number("started")
        for job, (process, start) in list(running.items()):
            found = next((one for one in faults if one.get("start") == start and _seen(one["when"], job)), None)
            wanted = "requeue" if (HOME / f"{job}.requeue").exists() else found["do"] if found else ""
            if wanted == "preempt":
                if start not in warned:
                    _signal_steps(process.pid)
                    warned.add(start)
                wanted = ""
            if states()[job] == "CANCELLED" or wanted:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if wanted == "requeue":
                    (HOME / f"{job}.requeue").unlink(missing_ok=True)
                    waiting.append(job)
                put(job, {"requeue": "PENDING", "kill": "NODE_FAIL"}.get(wanted, "CANCELLED"))
                del running[job]
            elif process.poll() is not None:
                put(job, "FAILED" if process.returncode else "COMPLETED")
                del running[job]
        time.sleep(0.02)


def _log(script: str, job: str) -> Any:
    """Where a job's script writes errors."""
    name = re.search(r"--error=(\S+)", Path(script).read_text())
    assert name
    return Path(_named(name[1].strip("'"), job)).open("ab")


def _named(name: str, job: str) -> str:
    array, _, index = job.partition("_")
    for mark, value in (("%A", array), ("%a", index), ("%j", job), ("%t", "0")):
        name = name.replace(mark, value)
    return name


def _signal_steps(group: int) -> None:
    """Signals the processes of a job, but not the shell of its script."""
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if int(folder.name) != group and os.getpgid(int(folder.name)) == group:
                os.kill(int(folder.name), signal.SIGUSR2)


def _seen(pattern: str, job: str) -> bool:
    for file in Path(pattern).parent.glob(Path(pattern).name):
        with suppress(OSError):
            if job in file.read_text().split():
                return True
    return False


def srun(arguments: list[str]) -> None:
    while arguments[0].startswith("--"):
        option = arguments.pop(0)
        if option in ("--output", "--error"):
            file = os.open(_named(arguments.pop(0), os.environ["FAKE_JOB"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(file, 1 if option == "--output" else 2)
    os.execvpe(arguments[0], arguments, os.environ | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"})


def squeue(arguments: list[str]) -> None:
    if (HOME / "down").exists():
        sys.exit("slurm_load_jobs error: Socket timed out on send/recv operation")
    for job, state in states().items():
        if state in ("PENDING", "RUNNING"):
            print(f"{job}|{state}|{'Resources' if state == 'PENDING' else 'None'}")


def sacct(arguments: list[str]) -> None:
    print("JobID|State|NodeList")
    for job, state in states().items():
        print(f"{job}|{state}|n1")


def scancel(arguments: list[str]) -> None:
    for job in arguments:
        if states().get(job) in ("PENDING", "RUNNING"):
            put(job, "CANCELLED")


def scontrol(arguments: list[str]) -> None:
    (HOME / f"{arguments[1]}.requeue").touch()


def sinfo(arguments: list[str]) -> None:
    print("\n".join(PARTITIONS))


if __name__ == "__main__":
    if sys.argv[1] == "sbatch" and "--version" in sys.argv:
        print("slurm 25.05.0")
    else:
        globals()[sys.argv[1]](sys.argv[2:])
