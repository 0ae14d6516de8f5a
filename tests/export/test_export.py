"""What a run exports loads elsewhere and says the same as the run's own files. The episodes hold hostile text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_run import HOSTILE, make_run

from leap.core import Correction, Episode
from leap.datasets import PreferenceRow, Row, correction_rows, demonstration_rows, preference_rows, unpaired_rows
from leap.envs.answer import format_answer
from leap.errors import RunError
from leap.files import Journal, write_text
from leap.policies.rendering import PromptConfig, Renderer
from leap.runs.directory import RunDirectory
from leap.runs.export import export_parquet, export_trl

pytest.importorskip("datasets")

TASKS = 8


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = make_run(tmp_path_factory.mktemp("run") / "tiny", tasks=TASKS)
    renderer = Renderer(PromptConfig())
    for i in range(3):
        episodes = Journal(run.iteration(i) / "episodes.jsonl", Episode)
        if i == 0:
            (run.iteration(i) / "corrections.jsonl").unlink(missing_ok=True)
            rows = list(demonstration_rows(episodes, renderer))
        else:
            by_key = {episode.key: episode for episode in episodes}
            corrections = Journal(run.iteration(i) / "corrections.jsonl", Correction)
            rows = list(correction_rows(by_key, corrections, renderer, iteration=i))
        write_text(run.iteration(i) / "rows.jsonl", "".join(row.model_dump_json() + "\n" for row in rows))
    return run


def rows_of(run: RunDirectory, i: int) -> list[Row]:
    return [Row.model_validate_json(line) for line in (run.iteration(i) / "rows.jsonl").read_bytes().splitlines()]


def pairs_of(run: RunDirectory, i: int) -> list[PreferenceRow]:
    episodes = Journal(run.iteration(i) / "episodes.jsonl", Episode)
    return list(preference_rows(rows_of(run, i), {episode.key: episode for episode in episodes}))


def loaded(folder: Path, kind: str, cache: Path) -> dict[str, list[dict[str, Any]]]:
    """A configuration as any user of `datasets` gets it."""
    from datasets import load_dataset

    found = load_dataset(str(folder), kind, cache_dir=str(cache))
    return {split: found[split].to_list() for split in found}


def test_parquet_holds_the_run(run: RunDirectory, tmp_path: Path) -> None:
    counts = export_parquet(run, tmp_path / "out")
    assert list(counts) == ["sft", "preference", "episodes", "corrections"]
    rows = loaded(tmp_path / "out", "sft", tmp_path / "cache")
    assert list(rows) == ["iter_0", "iter_1", "iter_2"]
    for i in range(3):
        assert rows[f"iter_{i}"] == [{"key": row.key, **row.model_dump()} for row in rows_of(run, i)]
        assert counts["sft"][f"iter_{i}"] == len(rows[f"iter_{i}"])
    pairs = loaded(tmp_path / "out", "preference", tmp_path / "cache")
    assert list(pairs) == ["iter_1", "iter_2"]  # nothing to prefer in demonstrations
    assert pairs["iter_1"] == [{"key": pair.key, **pair.model_dump()} for pair in pairs_of(run, 1)]
    corrections = loaded(tmp_path / "out", "corrections", tmp_path / "cache")["iter_1"]
    kept = Journal(run.iteration(1) / "corrections.jsonl", Correction)
    assert [Correction.model_validate({k: v for k, v in one.items() if k not in {"key", "iteration"}}) for one in corrections]
    assert [(one["key"], one["leaked"], one["rejected"]) for one in corrections] == [
        (one.key, list(one.leaked), one.rejected) for one in kept
    ]
    assert set(Correction.model_fields) <= set(corrections[0]), "a field of the record is left out"


def test_parquet_episodes_are_whole(run: RunDirectory, tmp_path: Path) -> None:
    from leap.core import Step, Task

    export_parquet(run, tmp_path / "out")
    episodes = loaded(tmp_path / "out", "episodes", tmp_path / "cache")["iter_1"]
    journal = list(Journal(run.iteration(1) / "episodes.jsonl", Episode))
    assert [one["key"] for one in episodes] == [episode.key for episode in journal]
    one, episode = episodes[0], journal[0]
    names = {"observation": "observation", "admissible": "admissible"} | {name: name for name in Step.model_fields}
    assert set(names) == set(one["steps"][0]) and len(one["steps"]) == len(episode.steps)
    for step, logged in zip(one["steps"], episode.steps, strict=True):
        assert step["observation"] == logged.observation.text and HOSTILE in step["observation"]
        assert step["admissible"] == list(logged.observation.admissible or ())
        assert (step["reason"], step["action"], step["parsed"]) == (logged.reason, logged.action, logged.parsed)
    assert (one["task"], one["instruction"], one["kind"]) == (episode.task.id, episode.task.instruction, episode.task.kind)
    assert set(Task.model_fields) - {"id", "seed"} <= set(one)
    assert (one["success"], one["score"], one["stop"]) == (episode.success, episode.score, episode.stop)


def test_trl_rows_are_trls_formats(run: RunDirectory, tmp_path: Path) -> None:
    export_trl(run, tmp_path / "out")
    rows = loaded(tmp_path / "out", "sft", tmp_path / "cache")["iter_2"]
    assert rows == [row.model_dump(include={"prompt", "completion"}) for row in rows_of(run, 2)]
    pairs = loaded(tmp_path / "out", "preference", tmp_path / "cache")["iter_2"]
    assert pairs == [pair.model_dump(include={"prompt", "chosen", "rejected"}) for pair in pairs_of(run, 2)]
    halves = loaded(tmp_path / "out", "unpaired", tmp_path / "cache")["iter_2"]
    assert [half["label"] for half in halves[:2]] == [True, False]
    assert [half["completion"] for half in halves[:2]] == [pairs[0]["chosen"], pairs[0]["rejected"]]
    assert len(halves) == 2 * len(pairs)
    data_utils = pytest.importorskip("trl.data_utils")
    assert all(data_utils.is_conversational(example) for example in (rows[0], pairs[0], halves[0]))


def test_pairs_are_the_correction_over_what_the_student_answered(run: RunDirectory) -> None:
    episodes = {episode.key: episode for episode in Journal(run.iteration(1) / "episodes.jsonl", Episode)}
    rows = rows_of(run, 1)
    assert not list(preference_rows(rows_of(run, 0), episodes))
    pairs = pairs_of(run, 1)
    assert len(pairs) == len(rows) > 0
    for row, pair in zip(rows, pairs, strict=True):
        step = episodes[row.episode].steps[row.t]
        assert (pair.prompt, pair.chosen, pair.episode, pair.t) == (row.prompt, row.completion, row.episode, row.t)
        assert pair.rejected == [{"role": "assistant", "content": format_answer(step)}]  # type: ignore[arg-type]
    assert [half["label"] for half in unpaired_rows(pairs[:1])] == [True, False]


def test_where_both_say_the_same_there_is_no_pair_and_what_cannot_be_read_is_rejected_as_it_was(run: RunDirectory) -> None:
    row, episode = rows_of(run, 1)[0], next(iter(Journal(run.iteration(1) / "episodes.jsonl", Episode)))
    reason, action = row.completion[0]["content"].removeprefix("REASON: ").split("\nACTION: ")

    def pairs(**step: Any) -> list[PreferenceRow]:
        steps = list(episode.steps)
        steps[row.t] = steps[row.t].model_copy(update=step)
        return list(preference_rows([row], {row.episode: episode.model_copy(update={"steps": tuple(steps)})}))

    assert not pairs(reason=reason, action=action)
    assert len(pairs(reason=reason + ".", action=action)) == 1
    (unread,) = pairs(reason="", action="(no action)", parsed=False, completion="I cannot say.")
    assert unread.rejected == [{"role": "assistant", "content": "I cannot say."}]


def test_export_refuses_what_it_would_spoil(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    with pytest.raises(RunError, match="there already"):
        export_parquet(run, tmp_path / "mine")
    with pytest.raises(RunError, match="no episodes"):
        export_trl(RunDirectory(tmp_path / "nothing"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line_exports(run: RunDirectory, tmp_path: Path) -> None:
    import typer
    from typer.testing import CliRunner

    from leap.cli.app import export

    app = typer.Typer()
    app.command()(export)
    done = CliRunner().invoke(app, [str(run.root), "--format", "trl", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    first = (tmp_path / "out" / "sft" / "iter_1.jsonl").read_text(encoding="ascii").splitlines()[0]
    assert json.loads(first)["prompt"] == rows_of(run, 1)[0].prompt
