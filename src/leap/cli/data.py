"""`leap data`: an environment's official data, fetched and checked."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from leap import registry
from leap.cli.validate import parse_options
from leap.envs.base import load_environment
from leap.progress import Progress


def fetch_data(name: str, source: str | None, options: list[str]) -> dict[str, object]:
    """Fetches what is missing and prints a line for each check.

    Args:
        name: An environment's, or the first part of its name: those that share it share their data.
        source: Where to take the files from, if not from where their authors keep them.
        options: The environment's options, as `key=value`.

    Returns:
        The checks, and whether everything is as it should be (`ok`).
    """
    kin = [known for known in registry.environment.names() if known.startswith(f"{name}-")]
    environment = load_environment(kin[0] if kin else name, parse_options(options))
    with Progress().stage(f"data of {name}", notes=True) as bar:
        findings = environment.fetch_data(bar.update, source=source)
    for ok, text in findings:
        mark = ("ok     ", "green") if ok else ("FAILED ", "red")
        Console().print(Text.assemble(mark, text), soft_wrap=True)
    checks = [{"ok": ok, "text": text} for ok, text in findings]
    return {"environment": environment.name, "ok": all(ok for ok, _ in findings), "checks": checks}
