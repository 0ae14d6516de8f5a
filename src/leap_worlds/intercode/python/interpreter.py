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

TELL = """
def tell(mark, values):
    import base64, pickle, sys
    sys.stdout.write(mark + base64.b64encode(pickle.dumps(values)).decode())
"""
"""For the interpreter that is not trusted: writes values behind a mark."""
READ = """
def read(text):
    import base64, io, pickle
    plain = {"builtins": ("set", "frozenset", "complex", "bytearray", "range", "slice", "list", "dict", "int", "float", "str"),
             "collections": ("Counter", "OrderedDict", "defaultdict", "deque"), "decimal": ("Decimal",),
             "fractions": ("Fraction",), "datetime": ("date", "datetime", "time", "timedelta")}
    class Plain(pickle.Unpickler):
        def find_class(self, module, name):
            if name not in plain.get(module, ()):
                raise TypeError(f"{module}.{name} is no plain data")
            return super().find_class(module, name)
    return Plain(io.BytesIO(base64.b64decode(text))).load()
"""
"""For the interpreter that is: reads such values, which can be nothing but data. (A class that compares as it likes is none.)"""


class Interpreter:
    """The interpreter of a fresh box, which is closed by whoever gave it, with a time limit for a piece of code."""

    def __init__(self, box: Sandbox, seconds: float) -> None:
        self._box = box
        self._seconds = seconds
        self._channel: Channel | None = None

    def run(self, code: str) -> Reply:
        """Runs a piece of code. Whatever it does, there is a reply."""
        return self.run_all([code])[0]

    def run_all(self, codes: Sequence[str]) -> list[Reply]:
        """Runs pieces of code one after another, each with its own time limit. Raises `LeapError` where no interpreter
        can be started in the box."""
        channel = self._channel or self._start()
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
        self._channel = channel
        return channel

    def _end(self) -> None:
        """Ends the interpreter and whatever the code started."""
        if self._channel is not None:
            self._channel.kill()
            self._channel = None


def _plain(text: str) -> str:
    """A text that can be written to a file: halves of characters as their escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
