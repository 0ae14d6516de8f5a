"""`leap serve`: an environment for other frameworks. Light, so that `leap --help` stays instant."""

from __future__ import annotations

from typing import Annotated

import typer

from leap.cli.app import EnvironmentName, EnvironmentOptions
from leap.errors import PrerequisiteError, RecipeError


def serve(
    name: EnvironmentName,
    openenv: Annotated[
        bool, typer.Option("--openenv", help="Serve OpenEnv's protocol (there is no other yet).")
    ] = False,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="A split to serve; may be given several times.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="The port to listen at.")] = 8000,
    sessions: Annotated[int, typer.Option("--sessions", min=1, help="Most sessions at once.")] = 64,
    horizon: Annotated[int, typer.Option("--horizon", min=1, help="Most actions of an episode.")] = 30,
    privileged: Annotated[
        bool, typer.Option("--privileged", help="Tell every client, in the state, what is hidden from the student.")
    ] = False,
    web: Annotated[bool, typer.Option("--web/--no-web", help="Serve a page at /web, to play in a browser.")] = True,
    options: EnvironmentOptions = None,
) -> None:
    """Serve an environment to other frameworks."""
    from leap.cli.validate import parse_options
    from leap.envs.base import load_environment
    from leap.extras import with_remedy

    if not openenv:
        raise RecipeError("say which protocol: leap serve ENV --openenv.")
    try:
        import uvicorn

        from leap.interop.openenv import app
    except ImportError as error:
        raise PrerequisiteError(f"OpenEnv cannot be imported: {with_remedy(error, 'openenv')}") from error
    environment = load_environment(name, parse_options(options or []))
    environment.prepare()
    served = app(environment, split or ["train"], sessions=sessions, horizon=horizon, privileged=privileged, web=web)
    typer.echo(
        f"{name} at http://{host}:{port}"
        + (", page /web" if web else "")
        + (", with what is hidden" if privileged else "")
    )
    uvicorn.run(served, host=host, port=port, log_level="warning")
