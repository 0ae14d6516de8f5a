"""A run's episodes as logs that other tools open: trajectories in ATIF 1.8, or logs of Inspect AI, one for each policy.

Both are made to be shared. `shared/` has what the student could see, what it answered, and scores. What only a teacher may see
is in `privileged/`: the hidden state before each step, the words of whoever had seen it (corrections, reasons of a teacher that
plays), and the text of errors, which may quote anything.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from leap.core import Correction, Episode, Step
from leap.core.message import ToolSpec, sendable
from leap.core.record import JsonObject
from leap.envs.atif import as_json, episode_trajectory
from leap.errors import PrerequisiteError, RunError
from leap.extras import with_remedy
from leap.files import Journal, atomic_directory, read_records, write_text
from leap.progress import Progress
from leap.recipe import Recipe, load_recipe
from leap.runs.directory import Played, RunDirectory
from leap.runs.export import Counts, check_export, grammar_of
from leap.runs.policies import baselines_of, folder_name
from leap.runs.replays import Replays


@dataclass(frozen=True)
class Told:
    """An episode of a policy, in two halves.

    Attributes:
        policy: Who acted: `pi_3`, a baseline's name, `demonstrations`.
        episode: The record, which has everything.
        shared: What may be shared, as a trajectory.
        privileged: What may not.
    """

    policy: str
    episode: Episode
    shared: JsonObject
    privileged: JsonObject


def export_atif(run: RunDirectory, out: Path, *, privileged: bool = True) -> Counts:
    """Writes each episode as a trajectory in the Agent Trajectory Interchange Format, a JSON file.

    Args:
        run: The run directory, finished or not.
        out: Folder to write; must not hold anything.
        privileged: Whether to replay the episodes for what was hidden.

    Returns:
        Number of episodes by policy and split.

    Raises:
        RunError: The run holds no episodes, or `out` is not empty.
    """

    def write(folder: Path, policy: str, told: Iterable[Told]) -> Iterator[Told]:
        for one in told:
            path = folder / policy / folder_name(one.episode.task.split) / f"{one.episode.key}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(as_json(one.shared))
            yield one

    return _export(run, out, write, "a trajectory (ATIF 1.8) for each episode", privileged=privileged)


def export_inspect(run: RunDirectory, out: Path, *, privileged: bool = True) -> Counts:
    """Writes a log of Inspect AI for each policy, which `inspect view` opens; arguments, result and errors as of `export_atif`.

    Raises:
        PrerequisiteError: inspect_ai is not installed.
    """
    try:
        from leap.runs.inspect_log import write_log
    except ImportError as error:
        raise PrerequisiteError(f"logs of Inspect need inspect_ai: {with_remedy(error)}") from error

    name = load_recipe(run.recipe).environment.name if run.recipe.is_file() else ""

    def write(folder: Path, policy: str, told: Iterable[Told]) -> Iterator[Told]:
        samples = []
        for one in told:
            samples.append((one.episode, one.shared))
            yield one
        write_log(folder / f"{policy}.eval", name, policy, samples)

    return _export(run, out, write, "a log of Inspect for each policy: `inspect view --log-dir shared`", privileged=privileged)


Write = Callable[[Path, str, Iterable[Told]], Iterator[Told]]
"""Writes the episodes of a policy into a folder, and hands each on."""


def _export(run: RunDirectory, out: Path, write: Write, what: str, *, privileged: bool) -> Counts:
    check_export(run, out)
    if not (files := _by_policy(run)):
        raise RunError(f"{run.root} holds no episodes; `leap run` or `leap rollout` makes them.")
    wall, counts = _Wall(run), dict[str, dict[str, int]]()
    total = sum(len(Journal(file.path, Episode)) for group in files.values() for file in group)
    with (
        Progress().stage(f"export {run.root.name}") as bar,
        closing(Replays(run, wanted=privileged)) as replays,
        atomic_directory(out) as folder,
    ):
        done, (shared, hidden) = 0, (folder / "shared", folder / "privileged")
        shared.mkdir()
        hidden.mkdir()
        for policy, group in files.items():
            splits = Counter[str]()
            with (hidden / f"{policy}.jsonl").open("wb") as file:
                for one in write(shared, policy, wall.told(policy, group, replays)):
                    file.write(as_json(one.privileged, indent=None) + b"\n")
                    splits[one.episode.task.split] += 1
                    bar.update(done := done + 1, total, policy)
            counts[policy] = dict(splits)
        write_text(folder / "README.md", _ABOUT.format(name=run.root.resolve().name, what=what))
    return counts


_ABOUT = """# {name}

A run of leap (LEAP, arXiv 2410.05434).

* `shared/`: {what}. It has what the student could see, what it answered, and scores.
* `privileged/`: by policy, a line for each episode: what was hidden at each step, corrections, and whatever was said by who had
  seen it. **Not for sharing with whoever is to be tested on these tasks, nor with models that may be trained on it.**

The key `episode` of a line there is the `session_id` of a trajectory, and `key` in the metadata of a sample.
"""


def _by_policy(run: RunDirectory) -> dict[str, list[Played]]:
    """The journals of each policy, in the run's own world; that of demonstrations and the baselines first."""
    found: dict[str, list[Played]] = defaultdict(list)
    for file in run.played_files():
        if not file.part and file.kind in ("episodes", "evaluation"):
            first = next((one for _, one in read_records(file.path, Episode)), None)
            if first is not None:
                found[_player(file, first)].append(file)
    return dict(sorted(found.items()))


def _player(file: Played, first: Episode) -> str:
    if file.kind == "evaluation":
        return file.policy
    if file.iteration <= 0:
        return "demonstrations"
    return f"pi_{file.iteration - 1}" if first.actor.name == "student" else folder_name(first.actor.name)


class _Wall:
    """Divides episodes into what may be shared and what may not."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._recipe: Recipe = load_recipe(run.recipe)
        self._grammar_of = grammar_of(run)

    def told(self, policy: str, files: Iterable[Played], replays: Replays) -> Iterator[Told]:
        """The episodes of a policy's journals."""
        for file in files:
            corrections: dict[str, dict[int, Correction]] = defaultdict(dict)
            if file.kind == "episodes":
                for one in Journal(self._run.corrections(max(file.iteration, 0)), Correction):
                    corrections[one.episode][one.t] = one
            for episode in Journal(file.path, Episode):
                yield self._divided(policy, episode, corrections.get(episode.key, {}), replays)

    def _divided(self, policy: str, episode: Episode, taught: dict[int, Correction], replays: Replays) -> Told:
        seen = [self._had_seen(episode, step) for step in episode.steps]
        silent = {"reason": "", "completion": "", "tokens": (), "logprobs": ()}
        quiet = [step.model_copy(update=silent) if saw else step for step, saw in zip(episode.steps, seen, strict=True)]
        tools = self._tools(episode)
        shared = episode_trajectory(episode.model_copy(update={"steps": tuple(quiet)}), tools)
        states = replays.along(episode)
        steps: list[JsonObject] = []
        for t, step in enumerate(episode.steps):
            own: JsonObject = {"t": t}
            if states:
                own |= {"state": states[t].text} | ({"plan": states[t].plan} if states[t].plan is not None else {})
            if seen[t]:
                own |= {name: told for name in ("reason", "completion") if (told := getattr(step, name))}
            if (correction := taught.get(t)) is not None:
                who = correction.model_dump(mode="json", include={"teacher", "privilege", "rejected"})
                shared["steps"][t + 1]["extra"]["leap"]["correction"] = who
                own["correction"] = correction.model_dump(mode="json", exclude={"episode", "t"})
            steps.append(own)
        task = episode.task
        hidden: JsonObject = {"episode": episode.key, "task": task.id, "split": task.split, "steps": steps}
        if episode.error:
            hidden["error"] = episode.error
        return Told(policy, episode, sendable(shared), sendable(hidden))

    def _tools(self, episode: Episode) -> tuple[ToolSpec, ...]:
        return self._grammar_of(episode.task).tools if self._grammar_of else ()

    def _had_seen(self, episode: Episode, step: Step) -> bool:
        """Whether who acted at a step may have seen the hidden state. Of a mixed policy the steps that no model answered are the
        teacher's."""
        name = episode.actor.name
        return name in self._seeing or ("teacher-" in name and not step.completion)

    @cached_property
    def _seeing(self) -> set[str]:
        """Names of the baselines with privilege."""
        return {one.actor for one in baselines_of(self._recipe, None) if one.privilege}


