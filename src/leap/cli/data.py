"""`leap data`: an environment's official data, fetched and checked."""

from __future__ import annotations

from rich.console import Console

from leap import registry
from leap.cli.validate import parse_options
from leap.envs.base import load_environment
from leap.progress import Progress


def fetch_data(name: str, source: str | None, options: list[str]) -> int:
    """Fetches what is missing and prints a line for each check.

    Args:
        name: An environment's, or the first part of its name: those that share it share their data.
        source: Where to take the files from, if not from where their authors keep them.
        options: The environment's options, as `key=value`.

    Returns:
        Exit status: 0 if everything is as it should be, 1 otherwise.
    """
    kin = [known for known in registry.environment.names() if known.startswith(f"{name}-")]
    environment = load_environment(kin[0] if kin else name, parse_options(options))
    progress = Progress()
    said = ""

    with progress.stage(f"data of {name}") as bar:

        def update(done: int, total: int, what: str) -> None:
            nonlocal said
            if what != said and not progress.console.is_terminal:  # where no bar says what is being waited for
                progress.console.print(what, markup=False, highlight=False, soft_wrap=True)
            said = what
            bar.update(done, total, what)

        findings = environment.fetch_data(update, source=source)
    console = Console()
    for finding in findings:
        mark = "[green]ok[/]    " if finding.ok else "[red]FAILED[/]"
        console.print(mark, end=" ")
        console.print(finding.text, markup=False, highlight=False, soft_wrap=True)
    return 0 if all(finding.ok for finding in findings) else 1
