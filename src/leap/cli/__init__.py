"""The command line. Thin: parses, calls, prints. Imports what a command needs when it runs, so that --help is instant."""

from __future__ import annotations

import io
import sys
from pathlib import Path

INTERRUPTED = 130
_SAFE = "Everything finished is on file"


def main() -> None:
    """Entry point of `leap`. Errors meant for people are printed as one message, without a traceback."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or a log that cannot show a character loses that one alone
        sys.stdout.reconfigure(errors="replace")
    try:
        from leap.cli.app import app

        app(standalone_mode=True)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer makes an interrupt one of these, without a word
            print(_told(KeyboardInterrupt())[0], file=sys.stderr)
        raise
    except BaseException as error:
        package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if debug or package in ("leap", "leap_worlds", "leap_lab"):
            raise
        message, status = _told(error)
        print(message, file=sys.stderr)
        sys.exit(status)


def _told(error: BaseException) -> tuple[str, int]:
    """What to say of an error, and the process's exit status."""
    from leap.errors import LeapError
    from leap.registry import raised_by_others

    if isinstance(error, KeyboardInterrupt):
        return f"\ninterrupted. {_SAFE}; the same command goes on from here.", INTERRUPTED
    if isinstance(error, LeapError):
        return f"error: {error}", error.exit_code
    if theirs := raised_by_others(error):
        name = type(error).__name__
        return f"{theirs}\nerror: {name} in code that is not leap's. {_SAFE}; the same command goes on from here.", 1
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return f"error: {what}. {_cache_hint(error.filename)}{_SAFE}. (--debug shows the traceback.)", 1
    if isinstance(error, ModuleNotFoundError):
        from leap.extras import with_remedy

        return f"error: {with_remedy(error)}", 1
    first = " ".join(str(error).split())[:300]
    told = f"error: something unforeseen: {type(error).__name__}: {first}\n{_SAFE}. "
    return told + "Give the same command with --debug to see the traceback, and report it.", 70


def _cache_hint(filename: object) -> str:
    """What to do where a file of the cache, or a folder on the way to it, cannot be made."""
    from leap.errors import LeapError
    from leap.paths import cache_dir

    try:
        cache = cache_dir()
    except LeapError:
        return ""
    path = Path(str(filename))
    concerned = path.is_relative_to(cache) or path in cache.parents
    return "Set LEAP_CACHE to a folder that leap may keep files in. " if concerned else ""
