"""One Python interpreter inside a box, which keeps what is defined from one piece of code to the next.

A small server in the box holds the interpreter and is spoken to line by line; what the code prints, and its standard
input and output themselves, are not the server's. The server interrupts a piece of code at the time limit; where the
code does not let itself be interrupted it is killed, and the next piece meets a fresh interpreter. What is printed
comes back as upstream's server gives it: a mapping of `output` and `error`, or of `error` alone.
(princeton-nlp/intercode, `docker/utils/python_server.py`.)
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from leap.errors import LeapError

if TYPE_CHECKING:
    from leap_worlds.sandbox.base import Channel, Sandbox

Reply = dict[str, str]

TIMED_OUT: Reply = {"error": "Error: timed out"}
ENDED: Reply = {"error": "Error: the interpreter ended"}
_LARGEST = 4 * 2**20
_GRACE = 2.0
_START = 30.0
_READY = b"ready"

SERVER = r"""
import json, os, signal, sys
from io import StringIO
requests = os.fdopen(os.dup(0), "r", encoding="ascii")
replies = os.fdopen(os.dup(1), "w", encoding="ascii")
null = os.open("/dev/null", os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(null, number)

def late(*_):
    raise TimeoutError("timed out")

def run(code, names, seconds):
    out, err = StringIO(), StringIO()
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err
    try:
        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        exec(code, names)
    except BaseException as error:
        return {"error": "Error: %s" % (error,)}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout, sys.stderr = kept
    return {"output": out.getvalue().strip(), "error": err.getvalue().strip()}

def serve(names, loads, dumps, run):
    print("ready", file=replies, flush=True)
    for line in requests:
        codes, seconds, token = loads(line)
        print(dumps([token, *[run(code, names, seconds) for code in codes]]), file=replies, flush=True)

serve({"__name__": "__main__", "__builtins__": __builtins__, "sys": sys, "StringIO": StringIO}, json.loads, json.dumps, run)
"""

VALUES = """
def _leap_values():
    import json, sys
    from collections import deque
    from decimal import Decimal
    from fractions import Fraction
    plain = (  # kind, what it is made of, how it is made of that
        (dict, lambda value: [[key, of] for key, of in value.items()], dict),
        *((kind, list, kind) for kind in (list, tuple, set, frozenset, deque, bytes, bytearray)),
        (complex, lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
        (range, lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
        (Fraction, lambda value: [value.numerator, value.denominator], lambda parts: Fraction(*parts)),
        (Decimal, lambda value: [str(value)], lambda parts: Decimal(*parts)),
    )
    def told(value):
        if value is None or isinstance(value, (int, float, str)):
            return value
        for number, (kind, parts, _) in enumerate(plain):
            if isinstance(value, kind):
                return [number, [told(part) for part in parts(value)]]
        raise TypeError(f"{type(value).__name__} is no plain data")
    def made(of):
        return plain[of[0]][2]([made(part) for part in of[1]]) if isinstance(of, list) else of
    def tell(mark, values):
        sys.stdout.write(mark + json.dumps(told(values)))
    def read(text):
        return made(json.loads(text))
    return tell, read
leap_tell, leap_read = _leap_values()
"""
"""Defines `leap_tell`, for the interpreter that is not trusted, which writes values behind a mark, and `leap_read`, for the
one that is. What that makes is of Python's own kinds, whatever the text says: nothing compares as it likes or changes a kind."""


class Interpreter:
    """The interpreter of a fresh box, which is closed by whoever gave it, with a time limit for a piece of code."""

    def __init__(self, box: Sandbox, seconds: float) -> None:
        self._box = box
        self._seconds = seconds
        self._channel: Channel | None = None
        self._began = False

    def run(self, code: str) -> Reply:
        """Runs a piece of code. Whatever it does, there is a reply."""
        return self.run_all([code])[0]

    def run_all(self, codes: Sequence[str]) -> list[Reply]:
        """Runs pieces of code one after another, each with its own time limit. Raises `LeapError` where no interpreter
        can be started in the fresh box."""
        try:
            channel = self._channel or self._start()
        except LeapError:
            if not self._began:
                raise
            return [ENDED] * len(codes)  # it ran in this box, and then the code took away what it needs
        token = secrets.token_hex(16)  # what was printed in the server's place before this request does not know it
        request = json.dumps([list(codes), self._seconds, token]) + "\n"  # ASCII, so any text can be sent
        try:
            channel.write(request.encode("ascii"))
            line = channel.read_line(timeout=self._seconds * len(codes) + _GRACE, max_bytes=_LARGEST)
        except LeapError:  # the code ended the interpreter before
            line = b""
        if line is None or line == b"":
            self._end()
            return [TIMED_OUT if line is None else ENDED] * len(codes)
        try:
            told, *given = json.loads(line)
            replies = [{str(key): _plain(str(value)) for key, value in reply.items()} for reply in given]
        except (ValueError, AttributeError, TypeError, RecursionError):  # the code wrote in the server's place
            told, replies = None, []
        if told != token or len(replies) != len(codes):
            self._end()
            return [ENDED] * len(codes)
        return replies

    def _start(self) -> Channel:
        channel = self._box.start(["python3", "-I", "-c", SERVER])
        if channel.read_line(timeout=_START) != _READY:
            channel.kill()
            raise LeapError("no Python interpreter can be started in the box; does its image have python3?")
        self._channel, self._began = channel, True
        return channel

    def _end(self) -> None:
        """Ends the interpreter and whatever the code started."""
        if self._channel is not None:
            self._channel.kill()
            self._channel = None


def _plain(text: str) -> str:
    """A text that can be written to a file: halves of characters as their escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
