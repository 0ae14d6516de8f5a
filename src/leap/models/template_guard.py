"""Renders a chat template with limits on time and memory: templates come with checkpoints, and one may be endless or huge.

A process of its own, since nothing stops one that multiplies a text by a billion. It knows only what a template may use.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache

SECONDS = 10
"""Most processor time."""
MEMORY, CHARACTERS = 1 << 30, 1_000_000
"""Most memory in bytes, and most characters that a template may write for a few messages."""


@lru_cache(maxsize=64)
def trouble(template: str, variables: str) -> str:
    """What makes a template unfit to be rendered in this process; empty if nothing does.

    Args:
        template: Its text.
        variables: A JSON list of what to render it with, one object each.
    """
    command = [sys.executable, "-P", __file__]
    given = json.dumps([SECONDS, template, variables])
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=12 * SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "does not end"
    if done.returncode == 0:
        return done.stdout.strip()
    return "does not end" if done.returncode < 0 else ""  # ended for its time; anything else is found out when it is used


def _render(template: str, variables: list[dict[str, object]]) -> str:
    """Renders in this process what `trouble` was asked about; returns its answer."""
    import jinja2
    from jinja2 import ext, nodes
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols])
    environment.filters["tojson"] = lambda value, **_: json.dumps(value)
    environment.globals.update(raise_exception=refuse, strftime_now=str)
    for one in variables:
        try:
            written = 0
            for piece in environment.from_string(template).generate(**one):
                written += len(piece)
                if written > CHARACTERS:
                    return f"writes more than {CHARACTERS:,} characters around a few messages"
        except MemoryError:
            return f"takes more than {MEMORY >> 20} MB of memory"
        except Exception:  # what it raises is told when it is used
            continue
    return ""


if __name__ == "__main__":
    import resource

    seconds, template, variables = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.stdout.write(_render(template, json.loads(variables)))
