"""`accelerate launch -m leap.cli.launch RUN_DIR -i N`: the stage `train` of a run in several processes.

Rank 0 does what `leap train RUN_DIR -i N` does, reads and writes the run directory, and shows the progress. The others
take part in the computation only. See recipes/accelerate/.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from leap.cli import stages_of
from leap.errors import LeapError


def train(
    run_dir: Annotated[Path, typer.Argument(help="Run directory.")],
    iteration: Annotated[int, typer.Option("--iteration", "-i", min=0, help="Iteration i (0 is behaviour cloning).")],
) -> None:
    """Train pi_i in the processes of `accelerate launch`."""
    import torch
    from accelerate import PartialState

    from leap.training import distributed
    from leap.training.train import train_as_follower

    state = PartialState(cpu=not torch.cuda.is_available())
    if distributed.rank():
        train_as_follower()
        state.destroy_process_group()
        return
    training = False
    try:
        with stages_of.reopened(run_dir) as stages:
            training = True
            path = stages.train(iteration)
    except LeapError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if training:  # the others may be in the middle of a step and cannot be called out of it: the launcher ends them
            os._exit(error.exit_code)
        distributed.release()
        raise SystemExit(error.exit_code) from error
    distributed.release()
    typer.echo(f"checkpoint: {path}")
    state.destroy_process_group()


if __name__ == "__main__":
    typer.run(train)
