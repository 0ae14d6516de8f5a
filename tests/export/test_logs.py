"""Logs of a run that other tools open, and what may never stand in those that are shared."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from leap import registry
from leap.core import Actor, Correction, Decision, Episode, History, PrivilegedState, Rejection, StopReason
from leap.datasets import correction_rows
from leap.envs.base import EnvironmentConfig, Session
from leap.envs.grammar import Grammar, ToolCalls
from leap.envs.tools import Tool
from leap.errors import RunError
from leap.files import Journal, write_text
from leap.policies.base import TeacherPolicy
from leap.policies.rendering import PromptConfig, Renderer
from leap.runs.directory import RunDirectory
from leap.runs.export import export_trl
from leap.runs.logs import export_atif, export_inspect
from leap.testing.corridor import EAST, STAY, WEST, Corridor, CorridorConfig, CorridorSession, CorridorTutor
from leap.testing.play import played, walked

ODD = "\ud800 <b>\u2028\x00 é"
STEP = json.dumps({"name": "walk", "arguments": {"to": "east"}})


class SecretConfig(CorridorConfig):
    """Options of the test's world."""

    secret: str = Field(default="", description="What only teachers may know.")
    tools: bool = Field(default=False, description="Whether actions are calls.")


class SecretSession(CorridorSession):
    """A walk with a secret."""

    def privileged(self) -> PrivilegedState:
        config: Any = self._config
        state = super().privileged()
        return state.model_copy(update={"text": f"{state.text} {config.secret}", "plan": (config.secret,)})


class SecretTutor(CorridorTutor):
    """A teacher that cannot keep a secret."""

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        return Decision(reason=f"I know: {privileged.text}", action=EAST)


@registry.environment("secretive")
class Secretive(Corridor):
    """A corridor with a secret."""

    name = "secretive"
    Config: type[EnvironmentConfig] = SecretConfig  # type: ignore[misc]

    def start(self, task: Any) -> Session:  # type: ignore[override]
        return SecretSession(self.config)

    @property
    def tutor(self) -> SecretTutor:
        return SecretTutor(self)

    @property
    def grammar(self) -> Grammar:  # type: ignore[override]
        walk = Tool(name="walk", description="Walks.")
        return ToolCalls([walk]) if self.config.tools else super().grammar  # type: ignore[attr-defined]


def make_run(root: Path, secret: str, *, tools: bool = False) -> RunDirectory:
    """A run of a student that never saw the secret, beside teachers that did and say it."""
    options = {"secret": secret, "note": ODD, "tools": tools}
    world = Secretive(SecretConfig.model_validate(options))
    run = RunDirectory(root)
    root.mkdir(parents=True)
    names = {"name": "secretive", "options": options, "validation": "valid", "test": ["test"]}
    run.recipe.write_text(yaml.safe_dump({"name": "r", "horizon": 6, "environment": names}), encoding="utf-8")

    def keep(path: Path, *episodes: Episode) -> None:
        for episode in episodes:
            Journal(path, Episode).append(episode)

    def student(split: str, i: int, *actions: str, **more: Any) -> Episode:
        actor = Actor(name="student", checkpoint=f"pi_{i}", iteration=i)
        return walked(world, world.task(split, 0), actions, actor=actor, reason=f"so {ODD}", **more)

    east = STEP if tools else EAST
    keep(run.episodes(0), walked(world, world.task("train", 0), [east] * 3, actor=Actor(name="expert")))
    rolled = student("train", 0, WEST, STAY, east)
    broken = student("train", 0, STAY, stop=StopReason.ENVIRONMENT_ERROR)
    keep(run.episodes(1), rolled, broken.model_copy(update={"seed": 7, "error": f"KeyError: {secret}"}))
    found = [
        Correction(
            episode=rolled.key, t=t, reason=f"for {secret}", action=f"take {secret}" if t == 2 else east,
            teacher="m", privilege=9, rejected=Rejection.LEAK if t == 2 else None, leaked=(secret,) if t == 2 else (),
        )
        for t in range(3)
    ]  # fmt: skip
    for one in found:
        Journal(run.corrections(1), Correction).append(one)
    rows = correction_rows({rolled.key: rolled}, found, Renderer(PromptConfig(), grammar_of=world.grammar_of), iteration=1)
    write_text(run.rows(1), "".join(row.model_dump_json() + "\n" for row in rows))
    for i in range(2):
        keep(run.played(f"pi_{i}", "valid"), student("valid", i, *[east] * 3))
        keep(run.played(f"pi_{i}", "test"), student("test", i, STAY))
    if not tools:
        keep(run.played("teacher-50", "valid"), *played(world, TeacherPolicy(world, 50), [world.task("valid", 0)]))
    mixed = student("valid", 0, STAY, east)
    saw = mixed.steps[1].model_copy(update={"reason": f"I know {secret}", "completion": ""})
    name = Actor(name="student, teacher-50 with probability 0.5")
    keep(run.played("mixed", "valid"), mixed.model_copy(update={"actor": name, "steps": (mixed.steps[0], saw)}))
    return run


def texts(value: Any) -> Iterator[str]:
    """Every text of some JSON, names included."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from (key, *texts(one))
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str):
        yield value
        if value[:1] in "{[":  # JSON in JSON
            with suppress(ValueError):
                yield from texts(json.loads(value))


def documents(folder: Path) -> Iterator[Any]:
    """All JSON of a folder, that within logs of Inspect included."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".eval":
            with ZipFile(path) as file:
                yield from (json.loads(file.read(name)) for name in file.namelist())
        elif path.suffix == ".json":
            yield json.loads(path.read_bytes())
        elif path.suffix == ".jsonl":
            yield from (json.loads(line) for line in path.read_bytes().split(b"\n") if line)


@pytest.mark.parametrize("form", ["atif", "inspect"])
@settings(max_examples=8, deadline=None)
@given(tail=st.text(max_size=12), tools=st.booleans())
def test_what_is_hidden_is_never_in_a_log_to_be_shared(
    form: str, tail: str, tools: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if form == "inspect":
        pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (leap-agents[inspect])")
    secret = f"s3cret {tail.encode('utf-8', 'replace').decode()}".rstrip()
    folder = tmp_path_factory.mktemp("hidden")
    run = make_run(folder / "run", secret, tools=tools)
    (export_atif if form == "atif" else export_inspect)(run, folder / "out")
    shared = [text for one in documents(folder / "out" / "shared") for text in texts(one)]
    assert shared and not [text for text in shared if "s3cret" in text]
    told = {path.stem: list(texts([*documents(path.parent)])) for path in (folder / "out" / "privileged").iterdir()}
    assert all(any(secret in text for text in found) for found in told.values())
    lines = [json.loads(line) for line in (folder / "out" / "privileged" / "pi_0.jsonl").read_bytes().splitlines()]
    rolled = next(line for line in lines if any("correction" in step for step in line["steps"]))
    assert [step["correction"]["reason"] for step in rolled["steps"]] == [f"for {secret}"] * 3
    assert any(line.get("error") == f"KeyError: {secret}" for line in lines)
    assert {line["split"] for line in lines if "state" in line["steps"][0]} == {"train", "valid"}


def test_a_trajectory_is_the_episode(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "s3cret")
    counts = export_atif(run, tmp_path / "out")
    assert counts["pi_0"] == {"test": 1, "train": 2, "valid": 1} and counts["demonstrations"] == {"train": 1}
    rolled = next(iter(Journal(run.episodes(1), Episode)))
    told = json.loads((tmp_path / "out" / "shared" / "pi_0" / "train" / f"{rolled.key}.json").read_bytes())
    steps = told["steps"]
    assert told["session_id"] == rolled.key and [step["step_id"] for step in steps] == [1, 2, 3, 4]
    assert [step["tool_calls"][0]["arguments"]["command"] for step in steps[1:]] == [WEST, STAY, EAST]
    assert [step["extra"]["leap"]["correction"]["rejected"] for step in steps[1:]] == [None, None, "leak"]
    assert told["extra"]["leap"]["task"]["id"] == "train/0"
    teacher = next((tmp_path / "out" / "shared" / "teacher-50").rglob("*.json"))
    assert all("reasoning_content" not in step for step in json.loads(teacher.read_bytes())["steps"])


def test_tokens_as_sampled_are_told_but_not_those_of_a_teacher(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "s3cret")
    for policy in ("pi_1", "teacher-50"):
        (one,) = Journal(run.played(policy, "valid"), Episode)
        steps = tuple(step.model_copy(update={"tokens": (1, 2), "logprobs": (-0.5, 0.0)}) for step in one.steps)
        run.played(policy, "valid").unlink()
        Journal(run.played(policy, "valid"), Episode).append(one.model_copy(update={"steps": steps}))
    export_atif(run, tmp_path / "out", privileged=False)
    found = {
        policy: json.loads(next((tmp_path / "out" / "shared" / policy / "valid").iterdir()).read_bytes())["steps"][1]["metrics"]
        for policy in ("pi_1", "teacher-50")
    }
    assert (found["pi_1"]["completion_token_ids"], found["pi_1"]["logprobs"]) == ([1, 2], [-0.5, 0.0])
    assert not {"completion_token_ids", "logprobs"} & found["teacher-50"].keys()


def test_without_a_replay_corrections_are_still_told_and_nothing_else(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "s3cret")
    export_atif(run, tmp_path / "out", privileged=False)
    lines = [json.loads(line) for line in (tmp_path / "out" / "privileged" / "pi_0.jsonl").read_bytes().splitlines()]
    assert any("correction" in step for line in lines for step in line["steps"])
    assert not any("state" in step for line in lines for step in line["steps"])
    with pytest.raises(RunError, match="there already"):
        export_atif(run, tmp_path / "out")
    with pytest.raises(RunError, match="not a run directory"):
        export_inspect(RunDirectory(tmp_path / "nothing"), tmp_path / "other")


def test_a_world_that_cannot_be_replayed_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path / "run", "s3cret")
    text = run.recipe.read_text(encoding="utf-8")
    run.recipe.write_text(text.replace("name: secretive", "name: unknown-world"), encoding="utf-8")
    export_atif(run, tmp_path / "out")
    (told,) = [record.getMessage() for record in caplog.records if "privileged states" in record.getMessage()]
    assert "of any episode" in told and "unknown-world" in told


def test_episodes_of_another_world_have_no_states(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path / "run", "s3cret")
    told = yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    told["environment"]["options"]["note"] = "another world"
    run.recipe.write_text(yaml.safe_dump(told), encoding="utf-8")
    assert "sdft" not in export_trl(run, tmp_path / "out")
    assert "of 1 episodes" in caplog.text and "changed since the rollout" in caplog.text


def test_inspect_reads_its_logs(tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="inspect_ai is not installed (leap-agents[inspect])")
    analysis = pytest.importorskip("inspect_ai.analysis")
    run = make_run(tmp_path / "run", "s3cret")
    counts = export_inspect(run, tmp_path / "out")
    shared = tmp_path / "out" / "shared"
    assert {Path(one.name).stem for one in log.list_eval_logs(str(shared))} == set(counts)
    told = log.read_eval_log(str(shared / "pi_0.eval"))
    assert (told.status, told.eval.model, told.eval.task, told.results.total_samples) == ("success", "leap/pi_0", "secretive", 4)
    success = next(score for score in told.results.scores if score.name == "success")
    assert {split: metric.value for split, metric in success.metrics.items()} == {"test": 0.0, "train": 0.0, "valid": 1.0}
    assert success.metrics["valid"].metadata["n"] == 1 and success.metrics["valid"].metadata["low"] < 1.0
    sample = next(one for one in told.samples if one.metadata.get("corrections"))
    assert [message.role for message in sample.messages] == ["user", *["assistant", "tool"] * 3]
    assert [message.tool_calls[0].arguments for message in sample.messages[1::2]] == [{"command": a} for a in (WEST, STAY, EAST)]
    assert sorted(one.epoch for one in told.samples if one.id == "train/0") == [1, 2]
    assert [one.error.message for one in told.samples if one.error] == ["environment_error"]
    table = analysis.samples_df(str(shared))
    assert len(table) == sum(sum(splits.values()) for splits in counts.values())
    valid = table[table["id"] == "valid/0"]
    assert set(valid["score_success"]) == {0.0, 1.0}  # of the mixed policy 0


def test_inspect_without_its_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from leap.errors import PrerequisiteError

    run = make_run(tmp_path / "run", "s3cret")
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    monkeypatch.delitem(sys.modules, "leap.runs.inspect_log", raising=False)
    with pytest.raises(PrerequisiteError, match="inspect_ai"):
        export_inspect(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_harbor_reads_the_trajectories(tmp_path: Path) -> None:
    python = os.environ.get("LEAP_TEST_HARBOR", "")
    if not python:
        pytest.skip("set LEAP_TEST_HARBOR to a Python 3.12 with harbor (docs/testing.md)")
    for tools in (False, True):
        export_atif(make_run(tmp_path / f"run-{tools}", "s3cret", tools=tools), tmp_path / "out" / str(tools))
    paths = [str(path) for path in sorted(tmp_path.joinpath("out").rglob("*.json"))]
    check = (
        "import sys; from harbor.models.trajectories import Trajectory as T; from harbor.utils import trajectory_validator as v\n"
        "for one in sys.argv[1:]: assert v.validate_trajectory(one), one; T.model_validate_json(open(one).read())\n"
        "print(len(sys.argv) - 1)"
    )
    done = subprocess.run([python, "-c", check, *paths], capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == str(len(paths)) and len(paths) > 10, done.stdout + done.stderr


@pytest.mark.parametrize("tools", [False, True])
def test_rows_with_what_is_hidden_are_those_of_sdft(tools: bool, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "s3cret", tools=tools)
    assert export_trl(run, tmp_path / "out")["sdft"] == {"iter_1": 2}
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset(str(tmp_path / "out"), "sdft", cache_dir=str(tmp_path / "cache"))["iter_1"]
    assert rows.column_names == ["prompt", "privileged_context"]
    for t, row in enumerate(rows):
        assert row["prompt"][-1]["role"] == "user" and f"place {-t}" in row["prompt"][-1]["content"]
        assert row["privileged_context"].endswith("s3cret") and f"{3 + t} steps" in row["privileged_context"]
        assert "s3cret" not in json.dumps(row["prompt"])
        assert tools == ("walk" in row["prompt"][0]["content"].replace("walk 0", ""))
    assert "sdft" not in export_trl(run, tmp_path / "bare", privileged=False)


@pytest.mark.slow
def test_a_step_of_trl_s_self_distillation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    datasets = pytest.importorskip("datasets")
    sdft = pytest.importorskip("trl.experimental.sdft", reason="TRL is not installed (leap-agents[train])")
    from leap.testing.checkpoints import tiny_checkpoint

    export_trl(make_run(tmp_path / "run", "s3cret"), tmp_path / "out")
    rows = datasets.load_dataset(str(tmp_path / "out"), "sdft", cache_dir=str(tmp_path / "cache"))["iter_1"]
    base = str(tiny_checkpoint(tmp_path / "base", "llama3"))
    asked: list[str] = []

    class Trainer(sdft.SDFTTrainer):
        """Notes what the teacher is asked."""

        def _tokenize_prompts(self, prompts: list[Any]) -> list[list[int]]:
            asked.extend(prompt[-1]["content"] for prompt in prompts)
            return super()._tokenize_prompts(prompts)

    config = sdft.SDFTConfig(
        output_dir=str(tmp_path / "trained"),
        max_steps=1,
        per_device_train_batch_size=2,
        num_generations=2,
        max_prompt_length=None,
        max_completion_length=4,
        distillation_topk=5,
        learning_rate=0.01,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
    )
    trainer = Trainer(model=base, args=config, train_dataset=rows)
    before = trainer.model.get_input_embeddings().weight.detach().clone()
    trainer.train()
    assert {"s3cret" in prompt for prompt in asked} == {True, False}
    assert (trainer.model.get_input_embeddings().weight.detach() != before).any()
