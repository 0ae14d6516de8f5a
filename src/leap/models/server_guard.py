"""Runs a server for as long as whoever started it lives: `python server_guard.py COMMAND...`.

The starter holds the other end of our standard input. When that closes, because it closed it or because it was killed
(kill -9 included), the server and all its worker processes are stopped, so that none is left on the GPU.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE = 15.0
"""Seconds that a server has to end by itself."""


def main() -> int:
    """Runs the command until it ends or standard input does."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the server; we end by standard input alone
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which the server would inherit and so never hear SIGTERM
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)

    def send(number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)

    def stop() -> None:
        os.read(0, 1)
        send(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(GRACE)
        send(signal.SIGKILL)

    threading.Thread(target=stop, daemon=True).start()
    code = server.wait()
    send(signal.SIGKILL)  # workers that outlived it
    return code


if __name__ == "__main__":
    sys.exit(main())
