"""Trainings of a tiny checkpoint, alone or as one of several processes: `python job.py FOLDER START KIND[,KIND...]`.

Rank 0 prints each step's figures as a line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pairs import ADAPTER, BOTH, DISTILL, DPO, KTO, SFT, train

from leap.training.trainer import Watch

KINDS = {
    "rows": SFT,
    "branches": SFT.model_copy(update={"branches": True, "batch_tokens": 100_000, "optimizer": "muon"}),
    "short branches": SFT.model_copy(update={"branches": True, "batch_tokens": 64}),
    "dpo": DPO.model_copy(update={"optimizer": "muon"}),
    "adapter": DPO.model_copy(update={"lora": ADAPTER}),
    "kto": KTO,
    "distill": DISTILL,
    "distill one each": DISTILL.model_copy(update={"batch_tokens": 64, "optimizer": "muon"}),
    "both": BOTH.model_copy(update={"sft": BOTH.sft.model_copy(update={"steps": 1})}),
}


def main(folder: Path, start: str, kinds: list[str]) -> None:
    """Trains one step of each kind."""
    from accelerate import PartialState

    from leap.training import distributed

    state = PartialState(cpu=True)
    if distributed.rank():
        distributed.follow()
    else:
        for kind in kinds:
            work = folder / kind
            work.mkdir(parents=True)
            train(KINDS[kind].model_copy(update={"steps": 1}), start, work)
        distributed.release()
    state.destroy_process_group()


def noting(self: Watch, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
    """Prints the figures of a step."""
    if logs and "loss" in logs and state.is_world_process_zero:
        print(json.dumps({"processes": state_of_world(), "loss": logs["loss"], "norm": logs["grad_norm"]}), flush=True)


def state_of_world() -> int:
    """Number of processes."""
    from leap.training.distributed import world

    return world()


if __name__ == "__main__":
    Watch.on_log = noting
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(","))
