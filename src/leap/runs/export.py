"""A run's data for other programs: a Hugging Face dataset in Parquet, or rows in TRL's formats as JSON lines.

Both are folders that `datasets.load_dataset(FOLDER, CONFIG)` reads: a configuration for each kind of data, a split
`iter_<i>` for each iteration.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from leap.core import Correction, Episode
from leap.core.record import Record
from leap.datasets import PreferenceRow, Row, preference_rows, unpaired_rows
from leap.envs.base import load_environment
from leap.envs.grammar import FreeText, GrammarOf, ToolCalls
from leap.envs.tools import Tool
from leap.errors import LeapError, PrerequisiteError, RunError
from leap.files import Journal, atomic_directory, write_text
from leap.recipe import load_recipe
from leap.runs.directory import RunDirectory

log = logging.getLogger(__name__)

_OFFERED = b'"tools":['
_BATCH = 256
"""Rows turned into Parquet at once."""


@dataclass(frozen=True, slots=True)
class Iteration:
    """What a run holds of one iteration.

    Attributes:
        i: Which.
        episodes: By key.
        corrections: As the teacher gave them, kept and rejected.
        rows: D_i for SFT.
        pairs: D_i for preference training.
    """

    i: int
    episodes: Journal[Episode]
    corrections: Journal[Correction]
    rows: list[Row]
    pairs: list[PreferenceRow]


def iterations(run: RunDirectory) -> Iterator[Iteration]:
    """The iterations of a run that have episodes on file.

    Raises:
        RunError: There is none, or a file is damaged.
    """
    found, grammar_of = run.iterations(), _grammar_of(run)
    if not found:
        raise RunError(f"{run.root} holds no episodes; `leap run` or `leap rollout` makes them.")
    for i in found:
        episodes = Journal(run.episodes(i), Episode)
        rows = list(_records(run.rows(i), Row))
        by_key = {episode.key: episode for episode in episodes}
        pairs = list(preference_rows(rows, by_key, grammar_of or _grammar_of_rows(rows)))
        yield Iteration(i, episodes, Journal(run.corrections(i), Correction), rows, pairs)


def _grammar_of(run: RunDirectory) -> GrammarOf | None:
    """How the run's environment writes actions; None where it cannot be made here, of a package that is not installed."""
    try:
        section = load_recipe(run.recipe).environment
        return load_environment(section.name, section.options).grammar_of
    except LeapError as error:
        log.info("the environment of %s cannot be made, so its actions are written as its rows write them: %s", run.root, error)
        return None


def _grammar_of_rows(rows: list[Row]) -> GrammarOf:
    tools = next((row.tools for row in rows if row.tools), None)
    grammar = ToolCalls([Tool.model_validate(tool["function"]) for tool in tools]) if tools else FreeText()
    return lambda task: grammar


def _records(path: Path, record: type[Row]) -> Iterator[Row]:
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):  # of bytes: a text may hold U+2028
        try:
            yield record.model_validate_json(line)
        except ValueError as error:
            raise RunError(f"{path} line {number} is damaged; delete that file to have it made again.") from error


def export_parquet(run: RunDirectory, out: Path) -> dict[str, dict[str, int]]:
    """Writes a Hugging Face dataset: configurations `sft`, `preference`, `episodes` and `corrections`.

    Args:
        run: The run directory, finished or not.
        out: Folder to write; must not hold anything.

    Returns:
        Number of rows by configuration and split.

    Raises:
        PrerequisiteError: pyarrow is not installed.
        RunError: The run holds no episodes, or `out` is not empty.
    """
    _check(run, out)
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise PrerequisiteError("Parquet needs pyarrow, which is not installed: pip install 'leap-agents[train]'") from error

    schemas = _schemas(pa, tools=any(_OFFERED in run.rows(i).read_bytes() for i in run.iterations() if run.rows(i).exists()))
    kinds: dict[str, Callable[[Iteration], Iterable[dict[str, Any]]]] = {
        "sft": lambda one: (_tabled(_with_key(row)) for row in one.rows),
        "preference": lambda one: (_tabled(_with_key(pair)) for pair in one.pairs),
        "episodes": lambda one: (_episode(episode, one.i) for episode in one.episodes),
        "corrections": lambda one: (_with_key(correction) | {"iteration": one.i} for correction in one.corrections),
    }

    def write(path: Path, kind: str, rows: Iterable[dict[str, Any]]) -> None:
        with pq.ParquetWriter(path, schemas[kind], compression="zstd") as file:
            rows = iter(rows)
            while batch := list(islice(rows, _BATCH)):
                file.write_table(pa.Table.from_pylist(batch, schema=schemas[kind]))

    return _export(run, out, kinds, write, "parquet")


def export_trl(run: RunDirectory, out: Path) -> dict[str, dict[str, int]]:
    """Writes rows in TRL's conversational formats: `sft` (prompt, completion), `preference` (prompt, chosen, rejected) and
    `unpaired` (prompt, completion, label), for SFTTrainer, DPOTrainer and KTOTrainer.

    Args:
        run: The run directory, finished or not.
        out: Folder to write; must not hold anything.

    Returns:
        Number of rows by configuration and split.

    Raises:
        RunError: The run holds no episodes, or `out` is not empty.
    """
    kinds: dict[str, Callable[[Iteration], Iterable[dict[str, Any]]]] = {
        "sft": lambda one: (row.model_dump(include={"prompt", "completion", "tools"}) for row in one.rows),
        "preference": lambda one: (pair.model_dump(include={"prompt", "chosen", "rejected", "tools"}) for pair in one.pairs),
        "unpaired": lambda one: unpaired_rows(one.pairs),
    }

    def write(path: Path, kind: str, rows: Iterable[dict[str, Any]]) -> None:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)  # ASCII: no reader can split a text at U+2028

    return _export(run, out, kinds, write, "jsonl")


def _check(run: RunDirectory, out: Path) -> None:
    if not run.recipe.is_file():
        raise RunError(f"{run.root} is not a run directory, so it has no episodes to export.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is there already; choose another --out.")


def _export(
    run: RunDirectory,
    out: Path,
    kinds: dict[str, Callable[[Iteration], Iterable[dict[str, Any]]]],
    write: Callable[[Path, str, Iterable[dict[str, Any]]], None],
    suffix: str,
) -> dict[str, dict[str, int]]:
    _check(run, out)
    counts: dict[str, dict[str, int]] = {kind: {} for kind in kinds}
    with atomic_directory(out) as folder:
        for one in iterations(run):
            for kind, make in kinds.items():
                count = 0

                def counted(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
                    nonlocal count
                    for row in rows:
                        count += 1
                        yield row

                path = folder / kind / f"iter_{one.i}.{suffix}"
                path.parent.mkdir(exist_ok=True)
                write(path, kind, counted(make(one)))
                if count:
                    counts[kind][f"iter_{one.i}"] = count
                else:  # of a split without rows a reader could not tell the columns
                    path.unlink()
        counts = {kind: splits for kind, splits in counts.items() if splits}
        write_text(folder / "README.md", _dataset_card(run, counts, suffix))
    return counts


def _dataset_card(run: RunDirectory, counts: dict[str, dict[str, int]], suffix: str) -> str:
    lines = ["---", "tags: [leap, agents, imitation-learning]", "configs:"]
    for kind, splits in counts.items():
        lines += [f"- config_name: {kind}", *(["  default: true"] if kind == "sft" else []), "  data_files:"]
        lines += [f"  - split: {split}\n    path: {kind}/{split}.{suffix}" for split in splits]
    said = {
        "sft": "rows to imitate: the prompt at a step and the answer to learn",
        "preference": "pairs: the correction (chosen) over what the student answered itself (rejected)",
        "unpaired": "the halves of the pairs, with `label` true for the correction",
        "episodes": "the student's episodes (iter_0: the expert's demonstrations), step by step",
        "corrections": "what the teacher made of each step, kept or rejected",
    }
    lines += ["---", "", f"# {run.root.resolve().name}", "", "A run of leap (LEAP, arXiv 2410.05434). Read it with"]
    lines += ["`datasets.load_dataset(FOLDER, CONFIG)`; a split is an iteration, iter_0 being behaviour cloning.", ""]
    lines += ["| configuration | what | rows by split |", "|---|---|---|"]
    for kind, splits in counts.items():
        lines.append(f"| {kind} | {said[kind]} | " + ", ".join(f"{name}: {n}" for name, n in splits.items()) + " |")
    return "\n".join(lines) + "\n"


def _with_key(record: Record) -> dict[str, Any]:
    return {"key": record.key, **record.model_dump(mode="json")}  # type: ignore[attr-defined]


def _tabled(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose tools and arguments, which have any shape, are JSON texts."""
    if not row.get("tools"):
        return row
    messages = row.keys() & {"prompt", "completion", "chosen", "rejected"}
    told = {name: [_tabled_message(message) for message in row[name]] for name in messages}
    return row | told | {"tools": json.dumps(row["tools"])}


def _tabled_message(message: dict[str, Any]) -> dict[str, Any]:
    calls = [
        call | {"function": {"name": call["function"]["name"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in message.get("tool_calls", ())
    ]
    return message | {"tool_calls": calls} if calls else message


def _episode(episode: Episode, i: int) -> dict[str, Any]:
    values = episode.model_dump(mode="json")
    task, actor, final = (values.pop(name) for name in ("task", "actor", "final"))
    steps = []
    for step in values["steps"]:
        seen = step.pop("observation")
        steps.append({"observation": seen["text"], "admissible": seen["admissible"], **step})
    return {
        "key": episode.key,
        "iteration": i,
        **{("task" if name == "id" else name): value for name, value in task.items() if name != "seed"},
        "task_seed": task["seed"],
        "actor": actor["name"],
        "checkpoint": actor["checkpoint"],
        **{name: values[name] for name in ("seed", "horizon", "score", "success", "stop", "error")},
        "steps": steps,
        "final": final["text"],
        "parts": json.dumps(values["parts"], sort_keys=True),
        "versions": json.dumps(values["versions"], sort_keys=True),
    }


def _schemas(pa: Any, *, tools: bool) -> dict[str, Any]:
    text, number, real, flag = pa.string(), pa.int64(), pa.float64(), pa.bool_()
    function = pa.struct([("name", text), ("arguments", text)])
    calls = pa.list_(pa.struct([("id", text), ("type", text), ("function", function)]))
    with_calls = [("tool_calls", calls), ("tool_call_id", text)] if tools else []
    offered = [("tools", text)] if tools else []
    messages = pa.list_(pa.struct([("role", text), ("content", text), *with_calls]))
    step = pa.struct(
        [
            ("observation", text),
            ("admissible", pa.list_(text)),
            ("reason", text),
            ("action", text),
            ("completion", text),
            ("parsed", flag),
            ("reward", real),
            ("prompt_tokens", number),
            ("completion_tokens", number),
            ("dropped", number),
        ]
    )
    origin = [("episode", text), ("t", number)]
    return {
        "sft": pa.schema(
            [
                ("key", text),
                ("prompt", messages),
                ("completion", messages),
                *origin,
                ("source", text),
                ("iteration", number),
                *offered,
            ]
        ),
        "preference": pa.schema(
            [
                ("key", text),
                ("prompt", messages),
                ("chosen", messages),
                ("rejected", messages),
                *origin,
                ("iteration", number),
                *offered,
            ]
        ),
        "episodes": pa.schema(
            [
                *((name, text) for name in ("key", "env", "split", "task", "instruction", "kind")),
                ("task_seed", number),
                ("iteration", number),
                ("actor", text),
                ("checkpoint", text),
                ("seed", number),
                ("horizon", number),
                ("score", real),
                ("success", flag),
                ("stop", text),
                ("error", text),
                ("steps", pa.list_(step)),
                ("final", text),
                ("parts", text),
                ("versions", text),
            ]
        ),
        "corrections": pa.schema(
            [
                ("key", text),
                *origin,
                ("reason", text),
                ("action", text),
                ("teacher", text),
                ("privilege", number),
                ("rejected", text),
                ("leaked", pa.list_(text)),
                ("plan_length", number),
                ("iteration", number),
            ]
        ),
    }
