"""Students from GGUF files: unpacked once, by content, or refused in one line."""

from __future__ import annotations

import os
import shutil
import struct
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from leap.core.message import Message
from leap.errors import PrerequisiteError

torch = pytest.importorskip("torch")
pytest.importorskip("gguf")

from gguf_files import a_checkpoint, write_gguf  # noqa: E402

from leap.models.checking import check_checkpoint  # noqa: E402
from leap.models.checkpoints import identity, load_causal_lm, load_chat  # noqa: E402
from leap.models.gguf import gguf_file, unpacked  # noqa: E402


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_checkpoint(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def logits(path: Path | str) -> Any:
    model, _ = load_causal_lm(str(path), device="cpu")
    with torch.inference_mode():
        return model.eval().float()(input_ids=torch.arange(3, 40)[None], use_cache=False).logits


OFF = {"F32": 0, "BF16": 0, "F16": 1e-4, "Q8_0": 0.01, "Q4_1": 0.1}
TYPES = {"F32": "float32", "F16": "float16"}


@pytest.mark.parametrize("kind", OFF)
@pytest.mark.parametrize("tied", [False, True])
def test_it_is_the_model_that_was_written(kind: str, tied: bool, tmp_path: Path) -> None:
    source = a_checkpoint(tmp_path / "source", tied=tied)
    file = write_gguf(tmp_path / "some model.gguf", source, kind)
    assert check_checkpoint(str(file)) == 512
    assert not (tmp_path / "cache" / "gguf").exists()  # nothing is unpacked for that
    own, ours = load_chat(str(source))[0], load_chat(str(file))[0]
    written, (read, _) = load_causal_lm(str(source), device="cpu")[0], load_causal_lm(str(file), device="cpu")
    assert read.dtype == getattr(torch, TYPES.get(kind, "bfloat16"))
    found = read.state_dict()
    assert found.keys() == written.state_dict().keys()
    for name, weights in written.state_dict().items():
        assert (found[name].float() - weights.float()).norm() <= OFF[kind] * weights.float().norm()
    assert OFF[kind] or torch.equal(logits(source), logits(file))
    after = load_chat(str(file))[0]
    messages: list[Message] = [{"role": "user", "content": "Take  mug 1, then look.\n"}]
    assert own.prompt(messages) == ours.prompt(messages) == after.prompt(messages)
    assert own.end_of_turn == after.end_of_turn and after.ends == ours.ends


def test_it_is_unpacked_once_wherever_it_lies(source: Path, cache: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "one.gguf", source)
    other = tmp_path / "folder" / "two.gguf"
    other.parent.mkdir()
    shutil.copy(file, other)
    folder = Path(unpacked(str(file)))
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert unpacked(str(other)) == unpacked(str(other.parent)) == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == made and len(list((cache / "gguf").iterdir())) == 1
    assert identity(str(file)) == identity(str(other)) == identity(str(other.parent))
    changed = write_gguf(tmp_path / "three.gguf", source, "F16")
    assert identity(str(changed)) != identity(str(file)) and unpacked(str(changed)) != str(folder)
    assert unpacked(str(source)) == str(source) and gguf_file("owner/name") is None


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"architecture": "strange"}, "cannot load.*strange is not supported"),
    "an encoder": ({"architecture": "bert"}, "cannot load|is a model of the kind"),
    "a vision projector": ({"architecture": "clip", "more": {"general.type": "mmproj"}}, "holds no language model"),
    "an adapter": ({"more": {"general.type": "adapter"}}, r"holds no language model \(adapter\)"),
    "one of several parts": ({"more": {"split.count": 3}}, "one of 3 parts: join them by"),
    "no tokenizer": ({"without": ("tokenizer",)}, "has no tokenizer"),
    "no template": ({"without": ("template",)}, "has no chat template"),
    "no weights": ({"without": ("token", "output", "blk")}, "has no tokenizer|has no weights"),
    "weights of another architecture": ({"architecture": "gemma3"}, r"bad\.gguf lacks .* weights of its architecture"),
    "half of the weights": ({"without": ("blk.1",)}, "lacks .* weights of its architecture, such as model.layers.1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line(name: str, source: Path, cache: Path, tmp_path: Path) -> None:
    how, said = BAD[name]
    file = write_gguf(tmp_path / "bad.gguf", source, **how)
    with pytest.raises(PrerequisiteError, match=said) as caught:
        check_checkpoint(str(file))
        load_causal_lm(str(file))
    assert "\n" not in str(caught.value) and not list(cache.glob("gguf/*"))


def test_an_adapter_of_another_model_is_refused_on_an_unpacked_file(source: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from leap.testing.checkpoints import tiny_checkpoint

    file, other = write_gguf(tmp_path / "one.gguf", source), str(tiny_checkpoint(tmp_path / "tiny"))
    for made_for, fits in ((unpacked(str(file)), True), (other, False)):
        adapter, (model, _) = tmp_path / f"adapter-{fits}", load_causal_lm(made_for, device="cpu")
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
        adapted.peft_config["default"].base_model_name_or_path = str(file)
        adapted.save_pretrained(adapter)
        load_chat(str(source))[0].tokenizer.save_pretrained(adapter)
        with nullcontext() if fits else pytest.raises(PrerequisiteError, match="does not fit the model it names as its base"):
            check_checkpoint(str(adapter))


def test_a_name_that_no_file_can_have_is_one_line() -> None:
    with pytest.raises(PrerequisiteError, match="cannot be read: File name too long"):
        check_checkpoint("x" * 300)


def test_numbers_that_are_not_finite_are_refused(source: Path, cache: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(source, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = torch.inf
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PrerequisiteError, match=r"bad\.gguf holds numbers that are not finite: fetch it again"):
        unpacked(str(write_gguf(tmp_path / "bad.gguf", broken)))
    assert not list(cache.glob("gguf/*"))


def test_a_file_cut_off_anywhere_is_refused(source: Path, tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf", source, "Q8_0").read_bytes()
    for size in [0, 3, 4, 20, 30, 100, *range(1000, len(whole), 9973), len(whole) - 64]:
        file = tmp_path / "half.gguf"
        file.write_bytes(whole[:size])
        with pytest.raises(PrerequisiteError, match=r"damaged or cut off|is no GGUF file") as caught:
            check_checkpoint(str(file))
        assert "\n" not in str(caught.value)


def test_an_unknown_quantization_and_a_huge_count_are_refused(source: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "model.gguf", source, "Q8_0")
    content = bytearray(file.read_bytes())
    at = content.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4 + 2 * 8
    content[at : at + 4] = struct.pack("<I", 191)
    file.write_bytes(content)
    with pytest.raises(PrerequisiteError, match="quantized in a way that is not known here"):
        check_checkpoint(str(file))
    content[8:24] = struct.pack("<QQ", 1 << 60, 1 << 60)
    file.write_bytes(content)
    with pytest.raises(PrerequisiteError, match="damaged"):
        check_checkpoint(str(file))


def test_room_is_looked_for_first(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_gguf(tmp_path / "model.gguf", source)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(PrerequisiteError, match="are free: make room, or set LEAP_CACHE"):
        check_checkpoint(str(file))


def test_which_file_of_a_folder(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_gguf(folder / "a.gguf", source)
    (folder / "mmproj-a.gguf").write_bytes(b"GGUF")
    assert gguf_file(str(folder)) == folder / "a.gguf"
    os.link(folder / "a.gguf", folder / "b.gguf")
    with pytest.raises(PrerequisiteError, match=r"holds 2 GGUF files; name one of them, such as a\.gguf"):
        check_checkpoint(str(folder))
    with pytest.raises(PrerequisiteError, match="there is no file"):
        check_checkpoint(str(folder / "nosuch.gguf"))
    (folder / "config.json").write_text("{}")
    assert gguf_file(str(folder)) is None
