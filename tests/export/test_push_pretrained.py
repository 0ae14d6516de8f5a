"""A pretrained student given away: plain transformers and PEFT load it in another folder, with the same answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

torch = pytest.importorskip("torch")

from tiny_run import make_run  # noqa: E402

from leap import registry  # noqa: E402
from leap.errors import PrerequisiteError, RunError  # noqa: E402
from leap.files import read_json, write_json  # noqa: E402
from leap.models import checkpoints  # noqa: E402
from leap.models.checking import check_checkpoint  # noqa: E402
from leap.models.checkpoints import base_of, identity, load_causal_lm  # noqa: E402
from leap.runs.directory import RunDirectory, marker  # noqa: E402
from leap.runs.open import open_run, recipe_of  # noqa: E402
from leap.runs.push import push_to_folder  # noqa: E402
from leap.testing.checkpoints import tiny_checkpoint  # noqa: E402
from leap.testing.corridor import Corridor  # noqa: E402


@registry.environment("pushed-corridor")
class World(Corridor):
    """A corridor of its own name."""

    name = "pushed-corridor"


PLAIN = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, base = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
if base:
    from peft import PeftModel
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
else:
    model = AutoModelForCausalLM.from_pretrained(folder)
ids, dtype = torch.tensor([tokenizer("You see a desk 1 and a mug 2.").input_ids]), str(model.dtype)
with torch.inference_mode():
    logits = model.eval().float()(input_ids=ids).logits
print(json.dumps([logits[0, -1].tolist(), dtype, tokenizer.chat_template is not None]))
"""


def in_bfloat16(folder: Path, **more: Any) -> Path:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint(folder, **more), dtype=torch.bfloat16)
    model.generation_config.eos_token_id = [1, 4]
    model.save_pretrained(folder)
    return folder


def adapter(out: Path, base: Path | str, seed: int = 1) -> Path:
    """An adapter as training leaves it, of random matrices."""
    from peft import LoraConfig, get_peft_model

    model, tokenizer = load_causal_lm(str(base), dtype=torch.float32, device="cpu")
    torch.manual_seed(seed)
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    )
    adapted.save_pretrained(str(out))
    tokenizer.save_pretrained(out)
    checkpoints.note_base(out, str(base))
    return out


def a_run(root: Path, base: Path) -> RunDirectory:
    """A run of a student that was trained from that base by LoRA."""
    run = make_run(root, finished=1)
    recipe = yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    recipe["student"]["model"], recipe["training"]["lora"] = f"hf/{base}", {"rank": 4, "targets": "all-linear"}
    recipe["environment"]["name"] = "pushed-corridor"
    run.recipe.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    adapter(run.checkpoint(1), base)
    return run


def plainly(folder: Path, base: Path | str = "") -> tuple[Any, str, bool]:
    """What transformers and PEFT make of it in a process of their own, which knows nothing of leap."""
    command = [sys.executable, "-c", PLAIN, str(folder), str(base)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder.parent, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    logits, dtype, template = json.loads(done.stdout.splitlines()[-1])
    return torch.tensor(logits), dtype, template


def logits(folder: Path, *, merge: bool = False) -> Any:
    model, tokenizer = load_causal_lm(str(folder), device="cpu", merge=merge)
    ids = torch.tensor([tokenizer("You see a desk 1 and a mug 2.").input_ids])
    with torch.inference_mode():
        return model.eval().float()(input_ids=ids).logits[0, -1]


@pytest.mark.slow
def test_it_loads_in_plain_transformers_and_peft(tmp_path: Path) -> None:
    base = in_bfloat16(tmp_path / "base")
    run = a_run(tmp_path / "run", base)
    apart, merged = logits(run.checkpoint(1)), logits(run.checkpoint(1), merge=True)
    card = push_to_folder(run, 1, tmp_path / "given" / "apart").read_text(encoding="utf-8")
    found, _, template = plainly(tmp_path / "given" / "apart", base)
    assert torch.allclose(found, apart, atol=1e-5) and template and "library_name: peft" in card
    card = push_to_folder(run, 1, tmp_path / "given" / "whole", merge=True).read_text(encoding="utf-8")
    shutil.rmtree(base)
    found, dtype, template = plainly(tmp_path / "given" / "whole")
    assert torch.allclose(found, merged, atol=1e-5) and dtype == "torch.bfloat16" and template
    assert "library_name: transformers" in card and not (tmp_path / "given" / "whole" / "adapter_config.json").exists()
    assert read_json(tmp_path / "given" / "whole" / "generation_config.json")["eos_token_id"] == [1, 4]
    assert read_json(tmp_path / "given" / "whole" / "config.json")["dtype"] == "bfloat16"
    assert not any(str(tmp_path) in path.read_text() for path in (tmp_path / "given").glob("*/*.json"))


def test_a_base_that_was_moved_is_found_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_PLACES", {})
    base, other = in_bfloat16(tmp_path / "base"), in_bfloat16(tmp_path / "models" / "other", seed=1)
    made = adapter(tmp_path / "adapter", base)
    before, key = logits(made), identity(str(made))
    moved = base.rename(tmp_path / "models" / "moved")
    with pytest.raises(
        PrerequisiteError, match="is not there: put it back, or name the folder that it lies in by LEAP_MODELS"
    ):
        check_checkpoint(str(made))
    for variable in (str(tmp_path / "models"), f"{tmp_path / 'nosuch'}:{moved}"):
        monkeypatch.setenv("LEAP_MODELS", variable)
        assert base_of(str(made)) == str(moved) and torch.equal(logits(made), before) and identity(str(made)) == key
    monkeypatch.delenv("LEAP_MODELS")
    checkpoints.look_in(str(moved))  # as a run does with its student
    assert base_of(str(made)) == str(moved)
    shutil.copytree(other, base)  # the same shapes under the old name
    assert base_of(str(made)) == str(moved)
    shutil.rmtree(moved)
    with pytest.raises(PrerequisiteError, match="holds another model now") as caught:
        load_causal_lm(str(made), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_hub_name_stays_what_it_is(tmp_path: Path) -> None:
    made = adapter(tmp_path / "adapter", in_bfloat16(tmp_path / "base"))
    values = json.loads((made / "adapter_config.json").read_text())
    (made / "adapter_config.json").write_text(json.dumps(values | {"base_model_name_or_path": "owner/name"}))
    checkpoints.note_base(made, "owner/name")
    assert base_of(str(made)) == "owner/name" and read_json(made / "base.json") == {"base": "owner/name", "content": ""}


def test_a_copied_run_goes_on_with_the_base_that_lies_elsewhere(tmp_path: Path) -> None:
    base = in_bfloat16(tmp_path / "base")
    run = a_run(tmp_path / "run", base)
    for i in (0, 1):
        noted = marker(run.checkpoint(i))
        write_json(noted, read_json(noted) | {"base": checkpoints.model_identity(f"hf/{base}")})
    moved = base.rename(tmp_path / "moved")
    other = in_bfloat16(tmp_path / "other", seed=3)
    with open_run(run.root, recipe_of(run.root, [f"student.model=hf/{moved}"])) as stages:
        assert stages.actors.base == str(moved) and base_of(stages.actors.checkpoint(1)) == str(moved)
    with (
        pytest.raises(RunError, match="belongs to another recipe"),
        open_run(run.root, recipe_of(run.root, [f"student.model=hf/{other}"])),
    ):
        pass
