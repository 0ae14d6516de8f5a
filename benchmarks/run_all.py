"""Every measure of speed, side by side with what others do for the same work: one file of data, one page.

    python benchmarks/run_all.py [--quick] [--only NAME ...] [--alfworld DIR] [--catalogue DIR] [--webshop CHECKOUT]
                                 [--model DIR] [--vllm PYTHON] [--out benchmarks/run_all.json]
    python docs/make_results.py        # docs/benchmarks.md from it

Each part is a script of this folder in a process of its own, one after the other; where one cannot run, the reason is told.
Give what is not installed with leap: DIR of official ALFWorld games and `pip install 'leap-agents[alfworld]'`; a catalogue of
WebShop in the official files' form and a checkout of princeton-nlp/WebShop, with flask, beautifulsoup4 and thefuzz; a folder of
SmolLM2-135M-Instruct; a Python that has vLLM; bubblewrap; a Docker engine and $LEAP_ROOTFS.

A ratio above 1 means that leap takes less. Use a quiet machine; the load is on file. `--quick` makes samples small: it shows that
all works, and its figures are rough.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_N = r"([\d.,]+)"
STUDENTS = ("rollouts", "iteration")
"""Parts whose student is the quickstart's pi_0, made before the first of them."""


@dataclass(frozen=True)
class Figure:
    """What leap takes for a piece of work, and what the other takes, in the same unit."""

    what: str
    against: str
    unit: str
    leap: float
    other: float

    @property
    def times(self) -> float:
        """How many times as much work leap does in the same time."""
        return self.leap / self.other if self.unit.endswith("/s") else self.other / self.leap


@dataclass(frozen=True)
class Part:
    """One script.

    Attributes:
        name, title: For --only, and for people.
        command: The script and its arguments.
        lacks: Why it cannot run here; empty if it can.
        read: The figures in what it prints.
    """

    name: str
    title: str
    command: list[str]
    lacks: str
    read: Callable[[str], Iterator[Figure]]


def number(text: str) -> float:
    """A number as a script prints it."""
    return float(text.replace(",", ""))


def lines(
    what: str, against: str, unit: str, pattern: str, *, leap: int = 1, other: int = 2
) -> Callable[[str], Iterator[Figure]]:
    """Reads a figure from each line that a pattern finds; named groups fill `what` in."""

    def read(text: str) -> Iterator[Figure]:
        for found in re.finditer(pattern, text, re.M):
            name = what.format(**found.groupdict())
            yield Figure(name, against, unit, number(found[leap]), number(found[other]))

    return read


def both(*reads: Callable[[str], Iterator[Figure]]) -> Callable[[str], Iterator[Figure]]:
    """Reads what each of them finds."""
    return lambda text: (figure for read in reads for figure in read(text))


def side_by_side(text: str) -> Iterator[Figure]:
    """64 episodes of slow commands at once, against 64 times one."""
    took: dict[int, list[float]] = {}
    for found in re.finditer(rf"^ *(\d+) episodes at once: *{_N} s", text, re.M):
        took.setdefault(int(found[1]), []).append(number(found[2]))
    yield Figure("64 episodes of three seconds' commands", "one after the other", "s", min(took[64]), 64 * min(took[1]))


def generated(text: str) -> Iterator[Figure]:
    """Tokens written per second of CPU by each engine."""
    rates = {found[1]: number(found[2]) for found in re.finditer(rf"^(\S+): .*: {_N} written a CPU second", text, re.M)}
    names = {"generate": "`generate`, one prompt at a time", "transformers": "`generate_batch`", "vllm": "vLLM"}
    for engine, name in names.items():
        if engine in rates:
            yield Figure("answers of a pretrained student", name, "tokens/s", rates["leap"], rates[engine])


def episodes(text: str) -> Iterator[Figure]:
    """Rollouts of the quickstart's student."""
    rates = {
        found[1]: number(found[2]) for found in re.finditer(rf"^(.+): \d+ episodes, .*: {_N} episodes/s", text, re.M)
    }
    other, *ours = rates.items()
    for name, rate in ours:
        yield Figure(
            f"rollouts of a small student, {name.removeprefix('leap, ')}", other[0], "episodes/s", rate, other[1]
        )


def absent(*modules: str) -> str:
    """Which of some packages are not installed, as a reason."""
    missing = [name for name in modules if find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def folder(path: Path | None, option: str) -> str:
    """Why a folder that an option gives cannot be used."""
    return "" if path is not None and path.exists() else f"no {option} was given"


def engine() -> str:
    """Why no container engine can be measured."""
    if "LEAP_ROOTFS" not in os.environ:
        return "$LEAP_ROOTFS, the boxes' root file system, is not set"
    for program in ("docker", "podman"):
        if (
            shutil.which(program)
            and subprocess.run([program, "info"], capture_output=True, check=False).returncode == 0
        ):
            info = subprocess.run([program, "info", "--format", "{{.ServerVersion}}"], capture_output=True, check=False)
            if program == "podman" or info.stdout.strip():
                return ""
    return "no Docker engine answers"


def parts(given: argparse.Namespace, run: Path) -> list[Part]:
    """All parts, with what this machine lacks for each."""
    quick, alfworld = given.quick, absent("alfworld", "textworld")
    games = alfworld or folder(given.alfworld, "--alfworld")
    room = rf"^\S+ \((?P<n>\d+)\) \| {_N}, {_N}, \d+x \| {_N}, {_N}, \d+x"
    vllm = ["--vllm", str(given.vllm)] if given.vllm else []
    return [
        Part(
            "alfworld",
            "ALFWorld's engine",
            ["alfworld_engines.py", "speed", "--data", str(given.alfworld)],
            games,
            both(
                lines("load and reset, {n} receptacles", "the real engine", "ms CPU", room, leap=3, other=2),
                lines("a step, {n} receptacles", "the real engine", "ms CPU", room, leap=5, other=4),
            ),
        ),
        Part(
            "plan",
            "ALFWorld's plans",
            [
                "alfworld_engines.py",
                "planner",
                "--data",
                str(given.alfworld),
                "--games",
                "12" if quick else "60",
                "--limit-s",
                "30",
            ],
            games,
            lines(
                "a plan",
                "fast-downward",
                "ms CPU",
                rf"^planning, median CPU ms: fast-downward {_N}, native {_N}",
                leap=2,
                other=1,
            ),
        ),
        Part(
            "webshop",
            "WebShop's engine",
            [
                "webshop_engine.py",
                "--data",
                str(given.catalogue),
                "--original",
                str(given.webshop),
                "--episodes",
                "4" if quick else "20",
                "--steps",
                "20",
            ],
            absent("flask", "bs4", "thefuzz")
            or folder(given.webshop, "--webshop")
            or folder(given.catalogue, "--catalogue"),
            lines(
                "a step, {what}",
                "the original engine",
                "ms CPU",
                rf"^(?P<what>rendering|fresh searches): CPU milliseconds[^\x00]*?^  all .*ours *{_N} *original *{_N}",
                leap=2,
                other=3,
            ),
        ),
        Part(
            "bubblewrap",
            "Commands and episodes in a sandbox",
            ["sandbox_bwrap.py", "--times", *(["--quick"] if quick else [])],
            "" if shutil.which("bwrap") else "bubblewrap is not installed",
            sandboxes,
        ),
        Part(
            "docker",
            "The same beside a container engine",
            ["sandbox_docker.py", "-n", "8" if quick else "40"],
            engine(),
            lines(
                "{what}",
                "Docker",
                "ms",
                rf"^(?P<what>bash -c true|fresh episode).*? namespace median *{_N} ms.*engine median *{_N} ms",
                leap=2,
                other=3,
            ),
        ),
        Part("episodes", "Episodes of slow commands", ["intercode_side_by_side.py"], "", side_by_side),
        Part(
            "pretrained",
            "A pretrained student's answers",
            ["engines_llm.py", str(given.model), "--games", "8" if quick else "32", *vllm],
            folder(given.model, "--model"),
            generated,
        ),
        Part(
            "training",
            "Training",
            [
                "generation.py",
                "--episodes",
                "8" if quick else "24",
                "--steps",
                "10",
                "--alone",
                "2",
                "--trained-alone",
                "4",
            ],
            absent("trl"),
            both(
                lines(
                    "generating, a small student of random weights",
                    "`generate`, one prompt at a time",
                    "tokens/s",
                    rf"leap, all episodes at once:.*: {_N} a second\n.*one prompt at a time:.*: {_N} a second",
                ),
                lines(
                    "training, tokens of the rows",
                    "TRL's SFT on rows",
                    "tokens/s",
                    rf"rows, one at a time:.*: {_N} a second\n.*\n.*trunk and branches:.*: {_N} a second",
                    leap=2,
                    other=1,
                ),
            ),
        ),
        Part(
            "branches",
            "Trunk and branches, one pass",
            ["branches.py", "--episodes", "6" if quick else "60"],
            "",
            lines(
                "forwards and backwards, candidates in the prompt: {what}",
                "the same rows, one by one",
                "s CPU",
                rf"prompt: (?P<what>\w+);.*seconds for \d+ episodes: {_N} and {_N},",
                leap=3,
                other=2,
            ),
        ),
        Part(
            "rollouts",
            "A small student's rollouts",
            ["rollouts.py", str(run), "-i", "0", "--games", "5" if quick else "40"],
            alfworld,
            episodes,
        ),
        Part(
            "iteration",
            "One iteration of LEAP",
            ["iteration.py", str(run), "--games", "8" if quick else "60"],
            "",
            lines(
                "rollouts, corrections and training",
                "the released code's way",
                "s CPU",
                rf"^one iteration, CPU seconds: leap {_N}, the released code's way {_N}",
            ),
        ),
    ]


def sandboxes(text: str) -> Iterator[Figure]:
    """A command, and a fresh box where bubblewrap can launch it: the least median of the rounds."""

    def least(what: str) -> float:
        return min((number(one) for one in re.findall(rf"^{re.escape(what)} +median +{_N} ms", text, re.M)), default=0.0)

    bwrap, copied = "one bwrap for each command: bash -c true", least("bwrap: fresh box (create and close)")
    yield Figure("a command", "one bubblewrap for each command", "ms", least("ours: command in a box"), least(bwrap))
    if copied:
        fresh = least("ours: fresh box (create and close)")
        yield Figure("a fresh box", "the same box, launched by bubblewrap", "ms", fresh, copied)


def student(path: Path, quick: bool) -> None:
    """Makes the quickstart's pi_0; a part that finds none fails and says so."""
    small = ["demonstrations.episodes=8", "training.first_steps=10"] if quick else []
    few = ["iterations=0", "environment.test=[]", "environment.validation_tasks=4", *small]
    options = [word for one in few for word in ("--set", one)]
    subprocess.run([sys.executable, "-m", "leap", "run", "quickstart", *options, "--run-dir", str(path)], check=False)


def result(part: Part, limit: float) -> dict[str, Any]:
    """Runs a part; what it gave, or why not."""
    if part.lacks:
        return {"title": part.title, "left_out": part.lacks}
    shown = " ".join(Path(word).name if word.startswith("/") else word for word in part.command)
    told: dict[str, Any] = {
        "title": part.title,
        "command": f"python benchmarks/{shown}",
        "load": round(os.getloadavg()[0], 1),
    }
    began = time.perf_counter()
    try:
        command = [sys.executable, str(HERE / part.command[0]), *part.command[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return told | {"failed": f"not done after {limit:.0f} s"}
    told["seconds"] = round(time.perf_counter() - began, 1)
    try:
        figures = list(part.read(done.stdout))
    except (ValueError, KeyError):
        figures = []
    if done.returncode or not figures:
        last = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        return told | {"failed": last[-1][:200] if last else f"ended with {done.returncode}"}
    return told | {"figures": [{**one.__dict__, "times": float(f"{one.times:.3g}")} for one in figures]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small samples: shows that all works")
    parser.add_argument("--only", nargs="+", help="these parts alone; the others stay as they are on file")
    parser.add_argument("--alfworld", type=Path, default=os.environ.get("ALFWORLD_DATA"), help="official games")
    parser.add_argument("--catalogue", type=Path, help="folder of items_shuffle.json and the two beside it")
    parser.add_argument("--webshop", type=Path, help="checkout of princeton-nlp/WebShop")
    parser.add_argument("--model", type=Path, help="folder of a pretrained student, SmolLM2-135M-Instruct say")
    parser.add_argument("--vllm", type=Path, help="a Python that has vLLM")
    parser.add_argument("--limit", type=float, default=3600, help="seconds of a part")
    parser.add_argument("--out", type=Path, default=HERE / "run_all.json")
    given = parser.parse_args()
    # One figure of CPU per piece of work: more threads would make the same work dearer.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "quickstart"
        every = parts(given, run)
        if unknown := set(given.only or ()) - {part.name for part in every}:
            parser.error(
                f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(part.name for part in every)}"
            )
        chosen = [part for part in every if given.only is None or part.name in given.only]
        found: dict[str, Any] = {}
        if given.only and given.out.exists():
            found = json.loads(given.out.read_text(encoding="utf-8"))["parts"]
        for part in chosen:
            if part.name in STUDENTS and not part.lacks and not run.exists():
                student(run, given.quick)
            found[part.name] = result(part, given.limit)
            print(part.name, json.dumps(found[part.name]), flush=True)
            machine = {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
            told = {"machine": machine, "quick": given.quick, "parts": found}
            given.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
