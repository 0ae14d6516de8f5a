"""`accelerate launch -m leap.cli.launch RUN_DIR -i N`: the stage `train` of a run in several processes.

Rank 0 does what `leap train RUN_DIR -i N` does, reads and writes the run directory, and shows the progress. The others
take part in the computation only. See recipes/accelerate/.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from leap.cli.app import Iteration, RunDir
from leap.errors import LeapError
from leap.runs.executors import LocalExecutor
from leap.runs.open import open_run


def train(run_dir: RunDir, iteration: Iteration) -> None:
    """Train pi_i in the processes of `accelerate launch`."""
    import torch
    from accelerate import PartialState

    from leap.training import distributed

    state = PartialState(cpu=not torch.cuda.is_available())
    status = 0
    if distributed.rank():
        distributed.follow()
    else:
        status = _lead(run_dir, iteration)
    state.destroy_process_group()
    raise SystemExit(status)


def _lead(run_dir: Path, iteration: int) -> int:
    """What rank 0 does; returns its exit status."""
    from leap.training import distributed

    status, training = 0, False
    try:
        with open_run(run_dir) as stages:
            training = True
            stages.executor = LocalExecutor()  # in these very processes
            typer.echo(f"checkpoint: {stages.train(iteration)}")
    except LeapError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        status = error.exit_code
    if status and training:  # the others may be in the middle of a step and cannot be called out of it
        os._exit(status)  # the launcher ends them
    distributed.release()
    return status


if __name__ == "__main__":
    typer.run(train)
