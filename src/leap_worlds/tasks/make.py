"""Task folders made by a seed: InterCode's generated Bash family in Harbor's format.

A request about files below one folder, as there, but that an answer goes to a file, for tests see files alone. The solution is
the command that tells what the request does not, and the one that does it. The tests are two checks, what was asked for and
that nothing else has changed; what they expect is worked out here, not by running the solution. No file system is in two splits.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from leap.errors import PrerequisiteError
from leap.files import read_json, temporary_directory, write_json
from leap_worlds.intercode.bash.generated.config import BashFamilyConfig, Operation
from leap_worlds.intercode.bash.generated.family import Family
from leap_worlds.intercode.bash.generated.requests import ASKS, WAYS, GeneratedTask, Request
from leap_worlds.intercode.bash.generated.trees import Tree

ANSWER = "/answer.txt"
MADE = "made.json"
"""By what settings a folder of tasks was made."""
_VERSION = 1
_ANSWERED = f" Write the answer to {ANSWER}."
_SETTINGS = """\
schema_version = "1.4"

[task]
name = "leap/{name}"

[metadata]
category = "{kind}"

[agent]
timeout_sec = 120.0

[verifier]
timeout_sec = 30.0

[environment]
network_mode = "no-network"
cpus = 1
memory_mb = 512
"""
_TEST = """\
#!/bin/bash
# Two checks: what was asked for is there, and nothing else has changed.
asked=1 rest=1
{checks}
[ $asked = 1 ] || echo "FAILED what was asked for is there"
[ $rest = 1 ] || echo "FAILED nothing else has changed"
echo "{{\\"asked\\": $asked, \\"rest\\": $rest, \\"reward\\": $((asked * rest))}}" > /logs/verifier/reward.json
"""


def make_tasks(
    config: BashFamilyConfig, out: Path, progress: Callable[[int, int, str], object] = lambda *_: None
) -> dict[str, int]:
    """Writes a family's tasks to `out/SPLIT/FILESYSTEM-TASK`, equal settings to equal bytes, and returns how many each split has.
    Tasks that the same settings made are left as they are.

    Raises:
        PrerequisiteError: Something else is in the folder.
    """
    family = Family(config)
    made = {"version": _VERSION, "family": family.fingerprint, "settings": config.model_dump(mode="json")}
    splits = {split: family.split(split) for split in config.file_systems}
    counts = {split: len(tasks) for split, tasks in splits.items()}
    if out.exists():
        if (out / MADE).is_file() and read_json(out / MADE) == made:
            return counts
        raise PrerequisiteError(f"{out} is there already, and was not made by these settings; choose another folder.")
    done = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    with temporary_directory(out) as folder:  # not flushed file by file, which takes minutes: they can be made again
        for split, tasks in splits.items():
            for task in tasks:
                name = f"{str(task.file_system).rpartition('-')[2]}-{task.index:02}"
                for place, text in _files(task, family.tree(str(task.file_system)), f"{split}-{name}").items():
                    path = folder / split / name / place
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text, encoding="utf-8")
                done += 1
                progress(done, sum(counts.values()), f"{split}/{name}")
        write_json(folder / MADE, made)
        try:
            folder.rename(out)
        except OSError:
            if not out.is_dir():  # else another process was faster
                raise
    return counts


def _files(task: GeneratedTask, tree: Tree, name: str) -> dict[str, str]:
    """A task's files by their places in its folder."""
    wanted, answer = _wanted(task.request, tree, task.path)
    asked = {path: lines for path, lines in wanted.items() if tree.files.get(path) != lines}
    rest = {path: lines for path, lines in wanted.items() if path not in asked}
    checks = [f"[ ! -e {path} ] || asked=0" for path in tree.files if path not in wanted]
    if asked:
        checks.append("sha256sum --check --status /tests/asked.sha256 || asked=0")
    if answer is not None:
        checks.append(f'[ "$(cat {ANSWER} 2>/dev/null)" = {shlex.quote(answer)} ] || asked=0')
    checks.append("sha256sum --check --status /tests/rest.sha256 || rest=0")
    checks.append(f'[ "$(find {tree.root} -type f | wc -l)" = {len(wanted)} ] || rest=0')
    put = [f"printf '%s\\n' {shlex.join(lines)} > {path}" for path, lines in tree.files.items()]
    made = " && \\\n    ".join([f"mkdir -p {' '.join(tree.folders)}", *put])
    files = {
        "task.toml": _SETTINGS.format(name=name, kind=task.kind),
        "instruction.md": f"{task.query}{_ANSWERED if answer is not None else ''}\n",
        "environment/Dockerfile": f"FROM debian:bookworm-slim\nRUN {made}\n",
        "solution/solve.sh": _solution(task, answer is not None),
        "tests/test.sh": _TEST.format(checks="\n".join(checks)),
        "tests/rest.sha256": _sums(rest),
    }
    return files | ({"tests/asked.sha256": _sums(asked)} if asked else {})


def _solution(task: GeneratedTask, answers: bool) -> str:
    """The commands, each below a comment that says what it is for: the scripted teacher's reasons."""
    lines = ["#!/bin/bash"]
    if task.look is not None and task.request.select is not None:
        lines += [f"# {re.sub(r'.*I ', '', WAYS[task.request.select].reason).rstrip('.')}", task.look]
    command = f"{task.gold} > {ANSWER}" if answers else task.gold
    return "\n".join([*lines, f"# {ASKS[task.request.operation].act}", command]) + "\n"


def _wanted(request: Request, tree: Tree, path: str) -> tuple[dict[str, tuple[str, ...]], str | None]:
    """The files, by path, as they have to be in the end, and the answer where one is asked for."""
    files, answer = dict(tree.files), None
    lines, name = files.get(path, ()), path.rpartition("/")[2]
    match request.operation:
        case Operation.DELETE:
            del files[path]
        case Operation.MOVE:
            files[f"{request.to}/{name}"] = files.pop(path)
        case Operation.COPY:
            files[f"{request.to}/{name}"] = lines
        case Operation.RENAME:
            files[f"{path.rpartition('/')[0]}/{request.new}"] = files.pop(path)
        case Operation.APPEND:
            files[path] = (*lines, request.text)
        case Operation.REPLACE:
            files[path] = tuple(line.replace(request.text, request.by) for line in lines)
        case Operation.CREATE:
            files[f"{request.folder}/{request.new}"] = (request.text,)
        case Operation.LINES:
            answer = str(len(lines))
        case Operation.HITS:
            answer = str(sum(request.text in line for line in lines))
        case Operation.FIRST:
            answer = lines[0]
        case Operation.LAST:
            answer = lines[-1]
        case Operation.COUNT:
            answer = str(sum(found.endswith(f".{request.ending}") for found in tree.inside(request.folder)))
    return files, answer


def _sums(files: dict[str, tuple[str, ...]]) -> str:
    """What `sha256sum` prints of these files."""
    return "".join(
        f"{hashlib.sha256(''.join(f'{line}{chr(10)}' for line in lines).encode()).hexdigest()}  {path}\n"
        for path, lines in files.items()
    )
