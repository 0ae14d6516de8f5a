"""A run's episodes as task folders: what a student solved becomes the reference solution of its task.

That has a meaning for task folders alone, where an episode is commands that `solve.sh` can hold, and for tasks of one phase. A
set without solutions so comes to have some, for `leap validate`, for the scripted teacher, for a weaker student.
"""

from __future__ import annotations

import shlex
import shutil
from contextlib import closing
from pathlib import Path

from leap.core import Episode
from leap.envs.base import load_environment
from leap.envs.tools import call_of
from leap.errors import PrerequisiteError, RunError
from leap.files import Journal, atomic_directory
from leap.recipe import load_recipe
from leap.runs.directory import RunDirectory
from leap_worlds.tasks.env import TasksEnvironment
from leap_worlds.tasks.tutor import is_submission


def export_solved(run: RunDirectory, out: Path) -> int:
    """Writes the tasks that a run's rollouts solved, each with the commands of its shortest solved episode as its solution, and
    returns how many there are.

    Raises:
        RunError: It is no run, or nothing was solved, or `out` is there already.
        PrerequisiteError: Its environment is not that of task folders.
    """
    if not run.recipe.is_file():
        raise RunError(f"{run.root} is not a run directory, so it has no episodes to export.")
    if out.exists():
        raise RunError(f"{out} is there already; choose another folder.")
    section = load_recipe(run.recipe).environment
    with closing(load_environment(section.name, section.options)) as environment:
        if not isinstance(environment, TasksEnvironment):
            raise PrerequisiteError(f"{run.root} is a run on {section.name}: only episodes on task folders can be task folders.")
        best: dict[str, Episode] = {}
        for i in run.iterations():
            for episode in Journal(run.episodes(i), Episode):
                name, before = episode.task.id, best.get(episode.task.id)
                whole = episode.success and len(environment.folder(episode.task).phases) == 1
                if whole and (before is None or len(episode.steps) < len(before.steps)):
                    best[name] = episode
        if not best:
            raise RunError(f"{run.root}: no task of one phase was solved in its rollouts.")
        with atomic_directory(out) as folder:
            for name, episode in best.items():
                shutil.copytree(environment.folders[name].root, folder / name, symlinks=True)
                solution = folder / name / "solution"
                shutil.rmtree(solution, ignore_errors=True)
                solution.mkdir()
                (solution / "solve.sh").write_text(_script(episode, environment.config.actions), encoding="utf-8")
    return len(best)


def _script(episode: Episode, actions: str) -> str:
    """An episode's commands, each below its reason."""
    lines = ["#!/bin/bash"]
    for step in episode.steps:
        if not is_submission(step.action, actions) and (command := _command(step.action, actions)):
            lines += [f"# {' '.join(step.reason.split())}"] if step.reason.strip() else []
            lines.append(command)
    return "\n".join(lines) + "\n"


def _command(action: str, actions: str) -> str:
    """An action as a shell's command; empty where it was none, or only read a file."""
    if actions == "text":
        return action
    call = call_of(action)
    given = {key: str(value) for key, value in call["arguments"].items()} if call else {}
    if call and call["name"] == "bash":
        return given.get("command", "")
    if call and call["name"] == "write_file" and given.keys() >= {"path", "content"}:
        path = shlex.quote(given["path"])
        return f'mkdir -p -- "$(dirname -- {path})" && printf %s {shlex.quote(given["content"])} > {path}'
    return ""
