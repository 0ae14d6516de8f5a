"""A run's data for other programs: a Hugging Face dataset in Parquet, or rows in TRL's formats as JSON lines.

Both are folders that `datasets.load_dataset(FOLDER, CONFIG)` reads: a configuration for each kind of data, a split
`iter_<i>` for each iteration.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from contextlib import closing
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

from leap.core import Correction, Episode
from leap.core.message import sendable
from leap.core.record import Record
from leap.datasets import PreferenceRow, Row, preference_rows, read_rows, unpaired_rows
from leap.envs.base import load_environment
from leap.envs.grammar import FreeText, GrammarOf, ToolCalls
from leap.envs.tools import Tool, in_words
from leap.errors import LeapError, PrerequisiteError, RunError
from leap.files import Journal, atomic_directory, write_text
from leap.recipe import load_recipe
from leap.runs.directory import RunDirectory
from leap.runs.replays import Replays

log = logging.getLogger(__name__)

_OFFERED = b'"tools":['
_BATCH = 256
"""Rows turned into Parquet at once."""
_ABOUT = {
    "sft": "rows to imitate: the prompt at a step and the answer to learn",
    "preference": "pairs: the correction (chosen) over what the student answered itself (rejected)",
    "unpaired": "the halves of the pairs, with `label` true for the correction",
    "sdft": "the student's prompt at a corrected step, and as `privileged_context` what was hidden from it there",
    "episodes": "the student's episodes (iter_0: the expert's demonstrations), step by step",
    "corrections": "what the teacher made of each step, kept or rejected",
}
_COLUMNS = {
    "sft": "key, prompt: messages, completion: messages, episode, t: int, source, iteration: int, "
    "thinking: bool",
    "preference": "key, prompt: messages, chosen: messages, rejected: messages, episode, t: int, iteration: int, "
    "thinking: bool",
    "episodes": "key, env, split, task, instruction, kind, task_seed: int, iteration: int, actor, checkpoint, "
    "seed: int, horizon: int, score: float, success: bool, stop, error, steps: steps, final, parts, versions",
    "corrections": "key, episode, t: int, reason, action, teacher, privilege: int, rejected, leaked: texts, "
    "plan_length: int, measured: measured, iteration: int",
}
"""The columns of each kind of data in Parquet; texts, where no type is named."""
_STEP = (
    "observation, admissible: texts, reason, action, completion, parsed: bool, reward: float, prompt_tokens: int, "
    "completion_tokens: int, dropped: int, tokens: ints, logprobs: floats"
)

Rows = Iterable[dict[str, Any]]
Counts = dict[str, dict[str, int]]
"""Number of rows by configuration and split."""


class Iteration(NamedTuple):
    """What a run holds of iteration i: D_i as rows for SFT and as pairs, and what they were made of."""

    i: int
    episodes: Journal[Episode]
    corrections: Journal[Correction]
    rows: list[Row]
    pairs: list[PreferenceRow]


def export_parquet(run: RunDirectory, out: Path) -> Counts:
    """Writes a Hugging Face dataset: configurations `sft`, `preference`, `episodes` and `corrections`.

    Args:
        run: The run directory, finished or not.
        out: Folder to write; must not hold anything.

    Raises:
        PrerequisiteError: pyarrow is not installed.
        RunError: The run holds no episodes, or `out` is not empty.
    """
    check_export(run, out)
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        advice = "pip install 'leap-agents[train]'"
        raise PrerequisiteError(f"Parquet needs pyarrow, which is not installed: {advice}") from error

    files = [run.rows(i) for i in run.iterations()]
    told = [file.read_bytes() for file in files if file.exists()]
    tools, thoughts = (any(mark in one for one in told) for mark in (_OFFERED, b'"reasoning_content":'))
    schemas = _schemas(pa, tools=tools, thoughts=thoughts)

    def tables(one: Iteration) -> dict[str, Rows]:
        return {
            "sft": (_tabled(_with_key(row)) for row in one.rows),
            "preference": (_tabled(_with_key(pair)) for pair in one.pairs),
            "episodes": (_episode(episode, one.i) for episode in one.episodes),
            "corrections": (_with_key(correction) | {"iteration": one.i} for correction in one.corrections),
        }

    def write(path: Path, kind: str, rows: Rows) -> int:
        count, rows = 0, iter(rows)
        with pq.ParquetWriter(path, schemas[kind], compression="zstd") as file:
            while batch := list(islice(rows, _BATCH)):
                file.write_table(pa.Table.from_pylist(batch, schema=schemas[kind]))
                count += len(batch)
        return count

    return _export(run, out, tables, write, "parquet")


def export_trl(run: RunDirectory, out: Path, *, privileged: bool = True) -> Counts:
    """Writes rows in TRL's conversational formats: `sft` (prompt, completion), `preference` (prompt, chosen, rejected),
    `unpaired` (prompt, completion, label) and `sdft` (prompt, privileged_context), for SFTTrainer, DPOTrainer, KTOTrainer, and
    SDFTTrainer of `trl.experimental`.

    Args:
        run: The run directory, finished or not.
        out: Folder to write; must not hold anything.
        privileged: Whether to replay corrected episodes for what was hidden; without, there are no rows of `sdft`.

    Raises:
        RunError: The run holds no episodes, or `out` is not empty.
    """

    def tables(one: Iteration) -> dict[str, Rows]:
        return {
            "sft": (row.model_dump(include={"prompt", "completion", "tools"}) for row in one.rows),
            "preference": (pair.model_dump(include={"prompt", "chosen", "rejected", "tools"}) for pair in one.pairs),
            "unpaired": unpaired_rows(one.pairs),
            "sdft": _with_context(one, replays),
        }

    def write(path: Path, kind: str, rows: Rows) -> int:
        count = 0
        with path.open("w", encoding="ascii") as file:  # so that no reader can split a text at U+2028
            for row in rows:
                file.write(json.dumps(row) + "\n")
                count += 1
        return count

    with closing(Replays(run, wanted=privileged)) as replays:
        return _export(run, out, tables, write, "jsonl")


def _with_context(one: Iteration, replays: Replays) -> Rows:
    """The corrected steps of the student's episodes with what was hidden there. SDFTTrainer wants a prompt that the user ends,
    and offers no tools, so those are told in words."""
    corrected = (row for row in one.rows if row.source == "correction")
    for key, rows in groupby(corrected, key=lambda row: row.episode):
        episode = one.episodes.get(key)
        states = replays.along(episode) if episode else []
        for row in rows if states else ():
            if hidden := states[row.t].text:
                yield {"prompt": in_words(row.prompt, row.tools), "privileged_context": hidden}


def check_export(run: RunDirectory, out: Path) -> None:
    """Looks whether a run can be exported into a folder.

    Raises:
        RunError: It is no run, or is damaged, or there is something in the folder.
    """
    run.manifest.check()
    if not run.recipe.is_file():
        raise RunError(f"{run.root} is not a run directory, so it has no episodes to export.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is there already; choose another --out.")


def _export(
    run: RunDirectory,
    out: Path,
    tables: Callable[[Iteration], dict[str, Rows]],
    write: Callable[[Path, str, Rows], int],
    suffix: str,
) -> Counts:
    """Writes a file for each kind and iteration, but none for those without rows: nobody could tell its columns."""
    check_export(run, out)
    if not (found := run.iterations()):
        raise RunError(f"{run.root} holds no episodes; `leap run` or `leap rollout` makes them.")
    actions, counts = grammar_of(run), dict[str, dict[str, int]]()
    with atomic_directory(out) as folder:
        for i in found:
            for kind, rows in tables(_iteration(run, i, actions)).items():
                path = folder / kind / f"iter_{i}.{suffix}"
                path.parent.mkdir(exist_ok=True)
                if count := write(path, kind, map(sendable, rows)):
                    counts.setdefault(kind, {})[f"iter_{i}"] = count
                else:
                    path.unlink()
        counts = {kind: counts[kind] for kind in _ABOUT if kind in counts}
        write_text(folder / "README.md", _dataset_card(run, counts, suffix))
    return counts


def _iteration(run: RunDirectory, i: int, actions: GrammarOf | None) -> Iteration:
    episodes, rows = Journal(run.episodes(i), Episode), list(read_rows(run.rows(i)))
    by_key = {episode.key: episode for episode in episodes}
    pairs = list(preference_rows(rows, by_key, actions or _grammar_of_rows(rows)))
    return Iteration(i, episodes, Journal(run.corrections(i), Correction), rows, pairs)


def grammar_of(run: RunDirectory) -> GrammarOf | None:
    """How the run's environment writes actions; None where it cannot be made here, of a package that is not installed."""
    try:
        section = load_recipe(run.recipe).environment
        return load_environment(section.name, section.options).grammar_of
    except LeapError as error:
        told = "the environment of %s cannot be made, so its actions are written as its rows write them: %s"
        log.info(told, run.root, error)
        return None


def _grammar_of_rows(rows: list[Row]) -> GrammarOf:
    tools = next((row.tools for row in rows if row.tools), None)
    grammar = ToolCalls([Tool.model_validate(tool["function"]) for tool in tools]) if tools else FreeText()
    return lambda task: grammar


def _dataset_card(run: RunDirectory, counts: Counts, suffix: str) -> str:
    lines = ["---", "tags: [leap, agents, imitation-learning]", "configs:"]
    for kind, splits in counts.items():
        lines += [f"- config_name: {kind}", *(["  default: true"] if kind == "sft" else []), "  data_files:"]
        lines += [f"  - split: {split}\n    path: {kind}/{split}.{suffix}" for split in splits]
    lines += ["---", "", f"# {run.root.resolve().name}", "", "A run of leap (LEAP, arXiv 2410.05434). Read it with"]
    lines += ["`datasets.load_dataset(FOLDER, CONFIG)`; a split is an iteration, iter_0 being behaviour cloning.", ""]
    lines += ["| configuration | what | rows by split |", "|---|---|---|"]
    for kind, splits in counts.items():
        lines.append(f"| {kind} | {_ABOUT[kind]} | " + ", ".join(f"{name}: {n}" for name, n in splits.items()) + " |")
    return "\n".join(lines) + "\n"


# ---- records as rows of a table ------------------------------------------------------------------------------------


def _with_key(record: Record) -> dict[str, Any]:
    return {"key": record.key, **record.model_dump(mode="json")}  # type: ignore[attr-defined]


def _tabled(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose tools and arguments, which have any shape, are JSON texts."""
    if not row.get("tools"):
        return row
    for messages in (row.get(name, ()) for name in ("prompt", "completion", "chosen", "rejected")):
        for call in (call for message in messages for call in message.get("tool_calls", ())):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    return row | {"tools": json.dumps(row["tools"])}


def _episode(episode: Episode, i: int) -> dict[str, Any]:
    values = episode.model_dump(mode="json")
    for step in values["steps"]:
        seen = step["observation"]
        step["observation"], step["admissible"] = seen["text"], seen["admissible"]
    task = values["task"]
    flat = {
        "key": episode.key,
        "iteration": i,
        "task": task["id"],
        "task_seed": task["seed"],
        "actor": values["actor"]["name"],
        "checkpoint": values["actor"]["checkpoint"],
        "final": values["final"]["text"],
        "parts": json.dumps(values["parts"], sort_keys=True),
        "versions": json.dumps(values["versions"], sort_keys=True),
    }
    return task | values | flat


def _schemas(pa: Any, *, tools: bool, thoughts: bool) -> dict[str, Any]:
    """The Arrow schema of each kind of data; what else a record has is left out."""
    text = pa.string()
    types = {"": text, "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "texts": pa.list_(text)}
    types |= {"ints": pa.list_(pa.int64()), "floats": pa.list_(pa.float64())}

    def columns(told: str) -> dict[str, Any]:
        return {name: types[kind] for name, _, kind in (column.partition(": ") for column in told.split(", "))}

    types["measured"] = pa.struct(columns("value: float, gain: float, spread: float, actions: int, executed: int"))
    types["function"] = pa.struct(columns("name, arguments"))
    types["calls"] = pa.list_(pa.struct(columns("id, type, function: function")))
    message = "role, content, tool_calls: calls, tool_call_id" if tools else "role, content"
    message += ", reasoning_content" if thoughts else ""
    types["messages"] = pa.list_(pa.struct(columns(message)))
    types["steps"] = pa.list_(pa.struct(columns(_STEP)))
    return {
        kind: pa.schema(columns(told + (", tools" if tools and "messages" in told else "")))
        for kind, told in _COLUMNS.items()
    }
