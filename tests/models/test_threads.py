"""Threads: a small model on a CPU has one, unless OMP_NUM_THREADS says otherwise, and waiting costs nobody a core."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from leap.testing.checkpoints import tiny_checkpoint

pytest.importorskip("torch")

LOAD = """
import os, sys
import leap
from leap.models.checkpoints import load_causal_lm
load_causal_lm(sys.argv[1], device="cpu")
import torch
print(torch.get_num_threads(), os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, "1 PASSIVE"), ({"OMP_NUM_THREADS": "2"}, "2 PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "1 ACTIVE")],
    ids=["default", "threads", "waiting"],
)
def test_a_small_model_computes_in_one_thread(tmp_path: Path, variables: dict[str, str], expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")} | variables
    command = [sys.executable, "-c", LOAD, str(tiny_checkpoint(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250)
    assert done.stdout.strip() == expected, done.stderr


def test_a_large_model_has_the_cores_that_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from leap.models import checkpoints

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(checkpoints, "SMALL", 10)
    before, limits = torch.get_num_threads(), tmp_path / "cpu.max"
    bound = len(os.sched_getaffinity(0))
    for text, expected in (
        ("max 100000", bound),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("9900000 100000", bound),
        ("", bound),
    ):
        limits.write_text(text + "\n")
        assert checkpoints.usable_cores(limits) == expected
    assert checkpoints.usable_cores(tmp_path / "nosuch") == bound
    try:
        torch.set_num_threads(1)
        checkpoints.settle_threads(torch.nn.Linear(8, 8))
        assert torch.get_num_threads() == checkpoints.usable_cores()
    finally:
        torch.set_num_threads(before)
