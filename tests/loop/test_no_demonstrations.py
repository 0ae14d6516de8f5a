"""An environment without any script: pi_0 is the base model, a language model corrects, and no scripted baseline is named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from marks import slow

from leap import registry
from leap.errors import PrerequisiteError, RunError
from leap.loop import leap
from leap.models import mock
from leap.models.checkpoints import identity
from leap.progress import Progress
from leap.recipe import Recipe, dump_recipe, load_recipe
from leap.report import write_report
from leap.runs.directory import RunDirectory
from leap.runs.stages import Stages
from leap.runs.table import missing_stages, stage_table
from leap.testing.checkpoints import tiny_checkpoint
from leap.testing.corridor import EAST, Corridor

pytest.importorskip("torch")


@registry.environment("bare-corridor")
class Bare(Corridor):
    """A corridor about which nothing is scripted."""

    name = "bare-corridor"
    tutor = None  # type: ignore[assignment]


def east(request: mock.Request) -> str:
    """A teacher that says to go east."""
    return json.dumps({"leave_as_it_is": False, "corrected_reason": "The goal is there.", "corrected_action": EAST})


def recipe(checkpoint: Path, **more: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "x",
        "iterations": 2,
        "horizon": 4,
        "environment": {"name": "bare-corridor", "train": "train", "validation": "valid", "test": ["unseen"]},
        "student": {
            "model": f"hf/{checkpoint}",
            "prompt": {"renderer": "dialogue"},
            "sampling": {"temperature": 0.5, "max_tokens": 8},
        },
        "demonstrations": {"from": "none"},
        "teacher": {"kind": "model", "model": "mock/east", "by": "step", "episodes": "all"},
        "training": {"steps": 2, "batch_rows": 4, "device_rows": 2, "lr": 1e-3},
        "measures": {"held_out": 2},
    }
    return Recipe.model_validate(values | more)


@pytest.mark.parametrize("training", [{}, slow({"start_from": "previous"}), slow({"method": "dpo"})])
def test_the_base_model_is_pi_0(training: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mock.SCRIPTS, "east", east)
    settings = {"steps": 2, "batch_rows": 4, "device_rows": 2, "lr": 1e-3}
    made = recipe(tiny_checkpoint(tmp_path / "base"), training=settings | training)
    stages = Stages(made, RunDirectory(tmp_path / "run"), Progress())
    result = leap(stages)
    assert result.baselines == [] and len(result.students) == 3
    run = stages.run
    assert not run.episodes(0).exists() and not run.checkpoint(0).exists() and run.checkpoint(2).exists()
    assert {episode.actor.iteration for episode in stages.episodes(1)} == {0}
    assert {row.source for i in (1, 2) for row in stages.rows_of(i)} == {"correction"}
    assert missing_stages(made, run) == []
    assert not [stage.name for stage in stage_table(made) if stage.name in ("demonstrations", "pi_0") or "expert" in stage.name]
    assert json.loads((run.iteration(1) / "measures.json").read_text())["likelihood"] is not None
    page = write_report(made, run).read_text(encoding="utf-8").split("</style>")[1].split("<script")[0]
    assert "as it is, without demonstrations" in page and "behaviour cloning" not in page and "expert" not in page
    stages.close()
    before = {path: path.read_bytes() for path in run.root.rglob("*.jsonl")}
    again = Stages(made, RunDirectory(tmp_path / "run"), Progress())
    leap(again)
    assert {path: path.read_bytes() for path in run.root.rglob("*.jsonl")} == before


def test_a_recipe_keeps_its_words(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    assert "from: none" in dump_recipe(made)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(made), encoding="utf-8")
    assert load_recipe(path) == made
    with pytest.raises(ValueError, match="scratch learns from them"):
        recipe(tmp_path, student={"model": "scratch"})


def test_what_an_environment_has_no_script_for_is_told_at_once(tmp_path: Path) -> None:
    for section, words in (({"demonstrations": {}}, "demonstrations.from: none"), ({"teacher": {}}, "teacher.kind: model")):
        with pytest.raises(PrerequisiteError, match=words):
            Stages(recipe(tmp_path, **section), RunDirectory(tmp_path / "run"), Progress()).rollout(1)


def test_a_base_is_named_by_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mock.SCRIPTS, "east", east)
    one = tiny_checkpoint(tmp_path / "one")
    shutil.copytree(one, tmp_path / "same")
    tiny_checkpoint(tmp_path / "other", seed=1)

    def keys(base: Path) -> list[str]:
        return [stage.key for stage in stage_table(recipe(base))]

    assert keys(one) == keys(tmp_path / "same")
    assert not set(keys(one)) & set(keys(tmp_path / "other"))

    def adapter(name: str, base: Path) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        values = {"peft_type": "LORA", "base_model_name_or_path": os.path.relpath(base)}
        (folder / "adapter_config.json").write_text(json.dumps(values))
        (folder / "adapter_model.safetensors").write_bytes(b"the same")
        return folder

    adapters = [adapter(f"adapter-{base.name}", base) for base in (one, tmp_path / "other")]
    assert identity(str(adapters[0])) != identity(str(adapters[1]))
    before = identity(str(adapters[0]))

    # The weights change while a run is under way: what is on file was made from others.
    made, run = recipe(one, iterations=1), RunDirectory(tmp_path / "run")
    leap(Stages(made, run, Progress()))
    shutil.copy(tmp_path / "other" / "model.safetensors", one / "model.safetensors")
    assert identity(str(adapters[0])) != before
    with pytest.raises(RunError, match=r"holds another model now than the one that pi_1 was trained from"):
        leap(Stages(made.model_copy(update={"iterations": 2}), run, Progress()))


def _snapshot(hub: Path, commit: str, seed: int) -> None:
    """A revision of owner/tiny as the Hub's client keeps it, and the one that `main` means."""
    folder = hub / "models--owner--tiny"
    tiny_checkpoint(folder / "snapshots" / commit, seed=seed)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)


@pytest.mark.parametrize("how", ["revision", slow("working folder"), slow("link"), "base of an adapter"])
def test_another_base_by_the_same_name_is_refused_before_it_plays(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mock.SCRIPTS, "east", east)
    one, other = (tiny_checkpoint(tmp_path / name / "base", seed=seed) for seed, name in enumerate(("one", "other")))
    run, base = RunDirectory(tmp_path / "run"), "base"
    if how == "revision":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        base = "owner/tiny"
        _snapshot(tmp_path / "hub", "a" * 40, 0)
    elif how == "working folder":
        monkeypatch.chdir(one.parent)
    else:
        monkeypatch.chdir(tmp_path)
        Path("base").symlink_to(one)
    if how == "base of an adapter":
        peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
        model = transformers.AutoModelForCausalLM.from_pretrained(base)
        peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).save_pretrained("lora")
        transformers.AutoTokenizer.from_pretrained(base).save_pretrained("lora")
        base = "lora"
    lora = {"lora": {"rank": 2, "targets": ["q_proj"]}} if base == "lora" else {}
    training = {"steps": 1, "batch_rows": 4, "device_rows": 2, "lr": 1e-3} | lora
    made = recipe(Path(base), iterations=1, training=training, measures={"held_out": None})
    leap(Stages(made, run, Progress()))
    played = run.episodes(1).read_bytes()
    leap(Stages(made, run, Progress()))  # as long as nothing changes, all is on file
    if how == "revision":
        _snapshot(tmp_path / "hub", "b" * 40, 1)
    elif how == "working folder":
        monkeypatch.chdir(other.parent)
    else:
        Path("base").unlink()
        Path("base").symlink_to(other)
    with pytest.raises(RunError, match=f"{base} holds another model now than the one that pi_1 was trained from"):
        leap(Stages(made.model_copy(update={"iterations": 2}), run, Progress()))
    assert run.episodes(1).read_bytes() == played and not run.episodes(2).exists()
