"""Whether a server answers at all, found out before something is to be fetched from it."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from leap.errors import PrerequisiteError

TO_CONNECT = 15
"""Seconds until a server that does not answer is given up."""


def reach(address: str) -> None:
    """Refuses a server that does not answer. Looking up its name has no limit, and takes minutes without a network.

    Raises:
        PrerequisiteError: It does not answer.
    """
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    if getproxies().get(parts.scheme) and not proxy_bypass(host):
        return  # then the proxy looks it up
    why = [f": no answer within {TO_CONNECT} s"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=TO_CONNECT).close()
            why.clear()
        except OSError as error:
            why[:] = [f" ({error})"]

    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(TO_CONNECT)
    if reason := "".join(why):  # read once: the attempt may end just now
        raise PrerequisiteError(f"{host} cannot be reached{reason}. Is there a network?")
