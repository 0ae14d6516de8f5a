"""What each process of a training in several runs: `accelerate launch -m leap.training.worker SOCKET`. See `launch`."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import Client, Connection
from typing import Any

from leap.training.launch import KEY, as_leap_error

ORPHANED = 3
"""Exit status of a rank whose maker is gone."""


def main(address: str) -> None:
    """Takes part in the training that is handed to rank 0, and ends with its maker."""
    number = int(os.environ.get("RANK", "0"))
    try:
        maker = Client(address, "AF_UNIX", authkey=os.environ.pop(KEY).encode())
    except OSError:
        os._exit(ORPHANED)
    try:
        _take_part(maker, number)
    except BaseException as error:
        with suppress(OSError):
            maker.send(("error", (as_leap_error(error, number), traceback.format_exc())))
        os._exit(1)  # the others may be in the middle of a step and cannot be called out of it: the launcher ends them


def _take_part(maker: Connection[Any, Any], number: int) -> None:
    work: Any = None
    if number == 0:
        maker.send(("work", None))
        work = maker.recv()
    threading.Thread(target=_watch, args=(maker,), daemon=True).start()
    import torch
    from accelerate import PartialState

    from leap.training import distributed

    state = PartialState(cpu=not torch.cuda.is_available())
    if work is None:
        distributed.follow()
    else:
        from dataclasses import replace

        method, rows, job = work
        told = replace(job, on_step=lambda *figures: maker.send(("step", figures)))
        result = distributed.train(method, rows, told)
        distributed.release()
        maker.send(("done", result))
    state.destroy_process_group()
    os._exit(0)  # what is left is the watch


def _watch(maker: Connection[Any, Any]) -> None:
    """Ends this process when its maker closes the socket, which it does by being killed too."""
    with suppress(EOFError, OSError):
        maker.recv()
    os._exit(ORPHANED)


if __name__ == "__main__":
    main(sys.argv[1])
