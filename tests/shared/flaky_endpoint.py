"""An endpoint of which a share of the calls go wrong on the way, before another server over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field

from leap.testing.server import ServerThread

FAULTS = ("cut off", "cut off in an answer", "too late", "429", "500", "garbage")


def _answer(status: str, body: bytes, *more: str, length: int | None = None) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *more, "", "")
    return "\r\n".join(lines).encode() + body


_ANSWERS = {
    "cut off in an answer": _answer(
        "200 OK", b'{"choices": [{"message"', "Content-Type: application/json", length=4000
    ),
    "429": _answer("429 Too Many Requests", b'{"error": {"message": "slowly"}}', "Retry-After: 0.02"),
    "500": _answer("500 Error", b"<html>it is broken</html>", "Content-Type: text/html"),
    "garbage": _answer("200 OK", b"\x00\xff{]oops", "Content-Type: application/json"),
}


@dataclass
class Flaky(ServerThread):
    """Hands calls on to a server of this machine, or lets them fail. A context manager.

    Attributes:
        upstream: The server's port.
        share: The share of the calls that fail, each in one of the ways of `FAULTS`. What nobody pays for, such as the list of
            models, never does.
        seed: With the call itself and how often it was made, says which.
        late: Seconds after which an answer that comes too late is given up.
        failed: How many calls failed, by the way in which they did.
        port: Where it listens.
    """

    upstream: int
    share: float = 0.0
    seed: int = 0
    late: float = 30.0
    failed: Counter[str] = field(default_factory=Counter)
    port: int = 0
    _made: Counter[str] = field(default_factory=Counter)

    def fail_anew(self, seed: int) -> None:
        """Forgets the calls that were made."""
        self.seed = seed
        self.failed.clear()
        self._made.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                asked = await _message(reader)
                fault = self._fault(asked) if asked.startswith(b"POST") else None
                if fault == "too late":
                    await asyncio.sleep(self.late)
                elif fault is None:
                    server, to = await asyncio.open_connection("127.0.0.1", self.upstream, limit=1 << 24)
                    to.write(asked)
                    writer.write(await _message(server))
                    to.close()
                elif fault in _ANSWERS:
                    writer.write(_ANSWERS[fault])
                await writer.drain()
                if fault is not None and fault.startswith(("cut", "too")):
                    break
        writer.close()

    def _fault(self, asked: bytes) -> str | None:
        name = hashlib.sha256(asked.split(b"\r\n\r\n", 1)[1]).hexdigest()
        self._made[name] += 1
        chance = random.Random(f"{self.seed} {name} {self._made[name]}")
        if chance.random() >= self.share:
            return None
        fault = chance.choice(FAULTS)
        self.failed[fault] += 1
        return fault


async def _message(reader: asyncio.StreamReader) -> bytes:
    """A request or an answer as a whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + await reader.readexactly(int(lengths[0]) if lengths else 0)
