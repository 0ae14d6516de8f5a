"""`leap shop`: a person at a WebShop task."""

from __future__ import annotations

from rich.console import Console

from leap.cli.validate import parse_options
from leap.envs.base import load_environment, opened
from leap.errors import PrerequisiteError
from leap.progress import Progress


def shop_task(number: int, split: str, options: list[str]) -> None:
    """Opens the task of that number in the split.

    Raises:
        PrerequisiteError: The split has fewer tasks.
    """
    from leap_worlds.webshop.env import WebshopSession
    from leap_worlds.webshop.play import play

    environment = load_environment("webshop", parse_options(options))
    with Progress().stage("open the shop") as bar:
        environment.prepare(lambda done, total, what: bar.update(done, total, what))
    tasks = environment.tasks(split)
    if number >= len(tasks):
        raise PrerequisiteError(f"split {split!r} has {len(tasks)} tasks; give a number below that.")
    with opened(environment, tasks[number]) as session:
        assert isinstance(session, WebshopSession)
        play(session, tasks[number].instruction, console := Console())
    console.print(f"reward: {environment.versions()['webshop reward']}", style="dim", highlight=False)
