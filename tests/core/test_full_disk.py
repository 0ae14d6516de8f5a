"""A real disk that is full, under each library that writes: one line that says so, and nothing half written that counts."""

from __future__ import annotations

import gc
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leap.errors import LeapError, RunError
from leap.files import atomic_directory
from leap.models.base import Completion
from leap.models.ledger import Budget, Ledger

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    place, mount = tmp_path / "disk", shutil.which("mount")
    place.mkdir()
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "none", str(place)], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def weights() -> dict[str, torch.Tensor]:
    return {"layer": torch.ones(500_000)}


def by_torch(folder: Path) -> None:
    torch.save(weights(), folder / "optimizer.pt")


def by_safetensors(folder: Path) -> None:
    safetensors.save_file(weights(), folder / "model.safetensors")


def by_transformers(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 64, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=512, **sizes)).save_pretrained(folder)


def by_parquet(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"x": list(range(500_000))}), folder / "x.parquet")


@pytest.mark.parametrize("write", [by_torch, by_safetensors, by_transformers, by_parquet])
def test_a_folder_is_whole_or_the_disk_is_said_to_be_full(write: Callable[[Path], None], disk: Path) -> None:
    full = pytest.raises(RunError, match=r"^the disk is full: cannot write .*made\. .*free some space")
    with full as told, atomic_directory(disk / "made") as temporary:
        write(temporary)
    assert "\n" not in str(told.value) and not (disk / "made").exists()
    del told, full  # the traceback holds torch's half written file
    gc.collect()
    with atomic_directory(disk / "made") as temporary:  # what was begun is gone, so that there is room again
        (temporary / "note").write_bytes(b"x" * 100_000)
    assert (disk / "made" / "note").exists()


def test_a_ledger_keeps_what_was_booked_when_the_disk_is_full(disk: Path) -> None:
    ledger = Ledger(disk / "calls.sqlite", {}, Budget())
    booked = 0
    with pytest.raises(LeapError, match=r"the disk is full: cannot write .*calls\.sqlite") as told:
        for booked in range(200):
            ledger.book(f"key {booked}", "openai/m", Completion("answer " * 1000, 5, 5), latency=0.0)
    assert "\n" not in str(told.value) and booked > 2
    ledger.close()
    shutil.copytree(disk, disk.parent / "larger")
    again = Ledger(disk.parent / "larger" / "calls.sqlite", {}, Budget())
    (total,) = again.totals()
    again.close()
    assert total.calls == booked
