"""`--json`: one JSON document on standard output, and nothing else there. `docs/commands.md` has its keys."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Annotated

import typer

AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output; what is for people goes to standard error.")
]


@contextmanager
def document(asked: bool) -> Iterator[dict[str, object]]:
    """A document to be filled in, and printed when the `with` block ends well, if it is asked for. What is printed meanwhile then
    goes to standard error."""
    values: dict[str, object] = {}
    with redirect_stdout(sys.stderr) if asked else nullcontext():
        yield values
    if asked:
        typer.echo(json.dumps(values, indent=2))  # in ASCII, which every terminal and pipe can hold
