"""Students that cannot be used: `leap run`, its dry run and Python refuse each in one line, before anything is spent."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from leap import registry
from leap.testing.checkpoints import tiny_checkpoint, tiny_tokenizer
from leap.testing.corridor import Corridor

torch = pytest.importorskip("torch")
pytest.importorskip("gguf")

from gguf_files import a_checkpoint, write_gguf  # noqa: E402


@registry.environment("slip-corridor")
class World(Corridor):
    """A corridor of its own name."""

    name = "slip-corridor"


def gguf(folder: Path, kind: str = "F32", **how: Any) -> Path:
    return write_gguf(folder / "model.gguf", a_checkpoint(folder / "source"), kind, **how)


def half(folder: Path) -> Path:
    file = gguf(folder)
    file.write_bytes(file.read_bytes()[:30_000])
    return file


def cut(folder: Path) -> Path:
    weights = tiny_checkpoint(folder) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return folder


def without(name: str) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        tiny_checkpoint(folder)
        (folder / name).unlink()
        return folder

    return made


def index(folder: Path) -> Path:
    tiny_checkpoint(folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {
        "lm_head.weight": "model-00002-of-00002.safetensors",
        "model.norm.weight": "model-00001-of-00002.safetensors",
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return folder


def of_kind(name: str, cls: str, **size: Any) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        import transformers

        tokenizer = tiny_tokenizer("chatml")
        config = getattr(transformers, f"{name}Config")(**size)
        getattr(transformers, cls)(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return made


def no_template(folder: Path) -> Path:
    tiny_checkpoint(folder)
    for file in folder.glob("*.jinja"):
        file.unlink()
    return folder


def no_tokenizer(folder: Path) -> Path:
    tiny_checkpoint(folder)
    for file in folder.glob("*token*"):
        file.unlink()
    return folder


def pickled(folder: Path) -> Path:
    (tiny_checkpoint(folder) / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder


def adapter(folder: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = str(tiny_checkpoint(folder / "base"))
    made = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules=["q_proj"]))
    made.save_pretrained(str(folder / "adapter"))
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "adapter")
    return folder / "adapter"


def of_another_base(folder: Path) -> Path:
    from leap.models.checkpoints import note_base

    made = adapter(folder)
    note_base(made, str(folder / "base"))
    tiny_checkpoint(folder / "base", seed=7)
    return made


def of_another_rank(folder: Path) -> Path:
    file = adapter(folder) / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"r": 8}))
    return file.parent


def saying(name: str, **changed: Any) -> Callable[[Path], Path]:
    """A checkpoint, or an adapter, whose file of settings says something else."""

    def made(folder: Path) -> Path:
        checkpoint = adapter(folder) if name == "adapter_config.json" else tiny_checkpoint(folder)
        told = {key: value(folder) if callable(value) else value for key, value in changed.items()}
        (checkpoint / name).write_text(json.dumps(json.loads((checkpoint / name).read_text()) | told))
        return checkpoint

    return made


def lacking(folder: Path) -> Path:
    from safetensors.torch import load_file, save_file

    file = tiny_checkpoint(folder) / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def renamed(folder: Path) -> Path:
    (tiny_checkpoint(folder) / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    return folder


def wide(folder: Path) -> str:
    return str(tiny_checkpoint(folder / "wide", width=64))


SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no GGUF file": (lambda folder: _written(folder / "x.gguf", b"<html>not found</html>"), "is no GGUF file"),
    "half a GGUF file": (half, "is damaged or cut off: fetch it again"),
    "GGUF of another architecture": (lambda folder: gguf(folder, architecture="strange"), "strange is not supported"),
    "GGUF without a template": (lambda folder: gguf(folder, without=("template",)), "has no chat template"),
    "part of a GGUF file": (lambda folder: gguf(folder, more={"split.count": 2}), "is one of 2 parts: join them by"),
    "a GGUF file that is not there": (lambda folder: folder / "nosuch.gguf", "there is no file"),
    "safetensors cut off": (cut, "model.safetensors is damaged or cut off: fetch it again"),
    "a missing shard": (index, "lacks 1 files, such as model-00002-of-00002.safetensors: fetch it again"),
    "pickles alone": (pickled, "has no *.safetensors (pickled weights are not read)"),
    "no configuration": (without("config.json"), "cannot load the tokenizer"),
    "no template": (no_template, "has no chat template"),
    "no tokenizer": (no_tokenizer, "has no tokenizer: put its files there"),
    "an encoder": (of_kind("Bert", "BertForMaskedLM", **SMALL), "is a model of the kind 'bert'"),
    "encoder and decoder": (
        of_kind("T5", "T5ForConditionalGeneration", d_model=32, d_ff=32, num_layers=1),
        "of the kind 't5'",
    ),
    "a model of pictures": (of_kind("ViT", "ViTModel", **SMALL), "of the kind 'vit'"),
    "an adapter of another base": (of_another_base, "holds another model now"),
    "an adapter of another rank": (of_another_rank, "says rank 8, and its weights have 4"),
    "weights of other shapes": (
        saying("config.json", intermediate_size=64),
        "such as model.layers.0.mlp.down_proj.weight: [32, 48], not [32, 64]",
    ),
    "weights of fewer layers": (saying("config.json", num_hidden_layers=3), "lacks 9 weights of its architecture"),
    "a weight that lacks": (lacking, "lacks 1 weights of its architecture, such as model.layers.1.mlp.up_proj.weight"),
    "a shard without its index": (renamed, "lacks model.safetensors.index.json, which tells its parts"),
    "a quantization that nobody knows": (
        saying("config.json", quantization_config={"quant_method": "runes", "bits": 3}),
        "is quantized by 'runes', which transformers cannot read",
    ),
    "a quantization that lacks its package": (
        saying("config.json", quantization_config={"quant_method": "aqlm"}),
        "cannot load the model",
    ),
    "an adapter of a wider base": (
        saying("adapter_config.json", base_model_name_or_path=wide),
        "does not fit the model it names",
    ),
    "an adapter whose base is gone": (
        saying("adapter_config.json", base_model_name_or_path="/nowhere/base"),
        "/nowhere/base, is not there: put it back",
    ),
    "an adapter of an adapter": (
        saying("adapter_config.json", base_model_name_or_path=lambda folder: str(folder / "adapter")),
        "is an adapter itself: merge it first",
    ),
    "an adapter of another kind": (saying("adapter_config.json", peft_type="IA3"), "of the kind IA3; leap knows LoRA's alone"),
    "another rank in the recipe": (adapter, "is a LoRA adapter of rank 4, which goes on: set training.lora.rank: 4"),
}


def _written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("name", BAD)
def test_it_is_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from leap.cli import main

    make, said = BAD[name]
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "student").mkdir()
    student = make(tmp_path / "student")
    values: dict[str, Any] = {"name": "x", "environment": {"name": "slip-corridor", "test": ["unseen"]}}
    values |= {"student": {"model": f"hf/{student}", "sampling": {"max_tokens": 8}}, "training": {"lora": {"rank": 16}}}
    Path("recipe.yaml").write_text(yaml.safe_dump(values))
    for more in ((), ("--dry-run",)):
        monkeypatch.setattr(sys, "argv", ["leap", "run", "recipe.yaml", *more])
        with pytest.raises(SystemExit) as stop:
            main()
        lines = "".join(capsys.readouterr()).splitlines()
        told = [line for line in lines if said in line]
        assert 0 < int(stop.value.code or 0) < 70 and len(told) == 1, lines
        assert "Traceback" not in "".join(lines) and not Path("runs").exists() and not Path("cache/gguf").exists()
