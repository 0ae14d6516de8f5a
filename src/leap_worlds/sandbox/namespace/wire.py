"""Messages between the training process, the zygote and the monitors: a JSON header and raw bytes, with their lengths.

Sizes are checked on reading, although both ends are ours: a monitor reads what commands wrote, never what they say.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_HEAD = struct.Struct("!IQ")
MAX_HEADER = 8 * 2**20
MAX_BODY = 2**32


class Gone(Exception):
    """The other end has closed."""


def send(sock: socket.socket, header: dict[str, Any], body: bytes = b"") -> None:
    raw = json.dumps(header).encode()
    try:
        sock.sendall(_HEAD.pack(len(raw), len(body)) + raw + body)
    except OSError as error:
        raise Gone from error


def receive(sock: socket.socket) -> tuple[dict[str, Any], bytes]:
    header_size, body_size = _HEAD.unpack(_exactly(sock, _HEAD.size))
    if header_size > MAX_HEADER or body_size > MAX_BODY:
        raise Gone
    header = json.loads(_exactly(sock, header_size))
    return header, _exactly(sock, body_size)


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        try:
            part = sock.recv(min(size - len(parts), 2**20))
        except TimeoutError:
            raise
        except OSError as error:
            raise Gone from error
        if not part:
            raise Gone
        parts += part
    return bytes(parts)
