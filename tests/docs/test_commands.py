"""Every command in the documents: the command line takes it, and what is cheap is run, in order, as a reader would.

Commands stand in ```bash blocks and between backticks. `leap` commands are read by the real command line, `make` targets by
make, extras in `pip install` by pyproject.toml. Of a block's commands those of `leap` run; long ones are cut down (`TINY`), ask
only what they would take (`--dry-run`), or are named in `NOT_RUN` with the reason.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "recipe.md")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]

TINY = [
    "iterations=1", "environment.options.generator.games={train: 12, valid: 4, unseen: 4}", "environment.train_tasks=8",
    "environment.validation_tasks=4", "environment.test_tasks=4", "demonstrations.episodes=8", "training.first_steps=3",
    "training.steps=3", "student.scratch={layers: 1, width: 32, heads: 2, mlp: 64}", "measures.held_out=2",
]  # fmt: skip
PLACES = {"RUN": "runs/quickstart", "RECIPE": "quickstart", "ENV": "alfworld", "COMMAND": "run"}
"""What stands for a word in capitals that a reader replaces; other such words stay, as the name of a folder, say."""
NOT_RUN = {
    r"leap data ": "it fetches from a network; tests of each world's fetching have a server of their own",
    r"leap serve ": "it serves until it is stopped; tests/interop/test_openenv.py serves and asks",
    r"leap play ": "it waits for what is typed; tests/cli/test_play.py types",
    r"leap (run|doctor|validate|calls).*(support-desk|recipe\.yaml)": "tests/packaging/test_wheel.py runs it",
    r"leap (validate|evaluate|run) .*(intercode|webshop|smollm2|STUDENT)": "it needs data, boxes or weights",
    r"leap study (bc-react|privilege)(?!.*--dry-run)": "it takes hours; tests/studies runs studies at tiny size",
    r"leap run alfworld-llama3-8b(?!.*--dry-run)": "it needs a GPU; tests/loop/test_paper_recipes.py runs it at tiny size",
    r"leap evaluate runs/studies": "it needs a study's student; tests/studies has one",
}
OTHERS = {
    r"pip install|uv pip install": "gigabytes; the extras are looked up below, tests/packaging installs a wheel",
    r"make ": "the targets are asked for by `make -n` below",
    r"cd |uv venv": "steps of a reader's own shell",
    r"(python -m )?pytest": "this suite itself",
    r"docker (build|run)": "no engine in CI; what the Dockerfile names is looked up below",
    r"vllm serve|python -m sglang": "needs a GPU; tests/models has a server that speaks as they do",
    r"openenv ": "OpenEnv's own command; tests/interop has it validate an environment that is served",
    r"vf-": "commands of verifiers, which has a virtual environment of its own; tests/interop runs them",
    r"leap ": "run below",
}


def blocks(page: Path) -> Iterator[str]:
    """The commands of a page's ```bash blocks, without comments."""
    for block in re.findall(r"^```(?:bash|sh)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if command := re.sub(r"(^|\s)#.*", "", line).strip():
                yield command.removeprefix(".venv/bin/")


def spans(page: Path) -> Iterator[str]:
    """What stands between backticks in a page's text and names a command of leap or make with something behind it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for span in re.findall(r"`([^`]+)`", text):
        command = " ".join(span.split())
        if re.match(r"(leap|make) \S", command) and "..." not in command and not command.endswith("--set"):
            yield command.replace("\\|", "|")


BLOCKS = [(page, command) for page in PAGES for command in blocks(page)]
SPANS = [(page, command) for page in PAGES for command in spans(page)]
OF_LEAP = sorted({command for _, command in [*BLOCKS, *SPANS] if command.startswith("leap ")})
OF_LEAP = [command for command in OF_LEAP if not command.endswith("-completion")]  # read, they write into a shell's settings
TO_RUN = list(dict.fromkeys(command for _, command in BLOCKS if command.startswith("leap ")))


def arguments(command: str) -> list[str]:
    """What is behind `leap`, with words in capitals replaced."""
    return [PLACES.get(part, part) for part in shlex.split(command)[1:]]


@pytest.mark.parametrize("command", OF_LEAP)
def test_the_command_line_takes_it(command: str) -> None:
    from leap.cli.app import app

    rest = arguments(command)
    group: Any = typer.main.get_command(app)
    context = group.make_context("leap", [], resilient_parsing=True)
    while rest and not rest[0].startswith("--") and hasattr(group, "resolve_command"):
        name, group, rest = group.resolve_command(context, rest)
        if hasattr(group, "resolve_command"):
            context = group.make_context(name, [], parent=context, resilient_parsing=True)
    try:
        group.make_context(group.name, rest)
    except Exception as error:
        # Between backticks a command may be named without what it takes; help and version end here.
        missing = type(error).__name__ == "MissingParameter" and command not in TO_RUN
        assert missing or type(error).__name__ in ("Exit", "NoArgsIsHelpError"), error


@pytest.mark.parametrize("command", sorted({command for _, command in BLOCKS}))
def test_every_command_of_a_block_is_run_or_says_why_not(command: str) -> None:
    plain = re.sub(r"^([A-Z_]+=\S+ )+", "", command)
    assert any(re.match(pattern, plain) for pattern in OTHERS)


def test_extras_and_targets_are_there() -> None:
    for page, command in BLOCKS:
        for named in re.findall(r"(?:leap-agents|\.)\[([\w,-]+)\]", command):
            if "support-desk" not in str(page) and not (page.name == "own-environment.md" and named == "dev"):
                assert set(named.split(",")) <= set(EXTRAS), command
    asked = {command for _, command in [*BLOCKS, *SPANS] if command.startswith("make ")}
    assert len(asked) > 5
    for command in sorted(asked):
        done = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True)
        assert not done.returncode, done.stderr


def test_what_the_dockerfile_names_is_there() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.*)$", text, re.M):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", text, re.M)
    assert set(extras.split(",")) <= set(EXTRAS)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert not {"docs", "src", "README.md", "LICENSE"} & set(ignored)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder, with a run of the quickstart in it."""
    place = tmp_path_factory.mktemp("reader")
    settings = [part for setting in TINY for part in ("--set", setting)]
    assert leap(place, ["run", "quickstart", *settings]) == 0
    return place


def leap(folder: Path, told: list[str]) -> int:
    """A command in this process, in that folder; returns its exit status."""
    from leap.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LEAP_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.delenv("OPENAI_API_KEY", raising=False)
        patch.setattr(sys, "argv", ["leap", *told])
        with pytest.raises(SystemExit) as stop:
            main()
    return int(stop.value.code or 0)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", [one for one in TO_RUN if not any(re.match(no, one) for no in NOT_RUN)])
def test_it_runs(command: str, folder: Path) -> None:
    told = arguments(command)
    if told[0] in ("export", "init", "games"):
        shutil.rmtree(folder / told[-1], ignore_errors=True)
    if told[:2] == ["run", "quickstart"]:  # goes on, for all is there; a dry run times small stages
        dry = [part for part in told if part == "--dry-run"]
        told = [*told[:2], *dry, *(part for setting in TINY for part in ("--set", setting))]
    if told[0] == "rollout":
        told = [part for part in told if part not in ("--recipe", "quickstart")]
    # A dry run says what is missing here by its status: weights and a key for the paper's recipes.
    assert leap(folder, told) in ({0, 1} if "--dry-run" in told else {0})


def test_reasons_not_to_run_are_of_commands_that_stand_there() -> None:
    for pattern in NOT_RUN:
        assert any(re.match(pattern, command) for command in TO_RUN), pattern
    for pattern in OTHERS:
        assert any(re.match(pattern, re.sub(r"^([A-Z_]+=\S+ )+", "", command)) for _, command in BLOCKS), pattern
