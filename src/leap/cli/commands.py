"""The group that holds all commands: leap's own, and those that other packages register as `leap.commands`."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from leap import registry
from leap.errors import LeapError, suggest


class Commands(TyperGroup):
    """Commands by name. One of another package is imported when it is called, or when help lists it.

    What is registered is a `typer.Typer`, or a function as `typer` takes it. One that cannot be imported is listed with the
    reason, and the other commands work.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_type(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return [*own, *(name for name in registry.command.names() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in registry.command.names():
            found = _registered(cmd_name)
        for command in (found, *getattr(found, "commands", {}).values()):
            if command is not None:
                _without_type(command.get_params(ctx))
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"There is no command {name!r}.{suggest(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


def _registered(name: str) -> Any:
    try:
        thing = registry.command.get(name)
    except LeapError as error:
        reason = error

        def thing() -> None:
            raise reason

        thing.__doc__ = f"(not usable: {reason})"
    if not isinstance(thing, typer.Typer):
        function, thing = thing, typer.Typer(add_completion=False)
        thing.command()(function)
    command: Any = typer.main.get_command(thing)
    command.name = name
    return command


def _without_type(params: list[Any]) -> list[Any]:
    """A flag takes no value, so its help shows none."""
    for option in params:
        if getattr(option, "is_flag", False) and option.metavar is None:
            option.metavar = ""
    return params
