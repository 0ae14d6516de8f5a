"""The command line. Thin: parses, calls, prints. Imports what a command needs when it runs, so that --help is instant."""

from __future__ import annotations

import sys
from typing import NoReturn

INTERRUPTED = 130


def _interrupted() -> NoReturn:
    print("\ninterrupted. Everything finished is on file; the same command goes on from here.", file=sys.stderr)
    sys.exit(INTERRUPTED)


def main() -> None:
    """Entry point of `leap`. Errors meant for people are printed as one message, without a traceback."""
    from leap.errors import LeapError

    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        from leap.cli.app import app

        app(standalone_mode=True)
    except KeyboardInterrupt:
        if debug:
            raise
        _interrupted()
    except SystemExit as stop:  # typer makes an interrupt one of these, without a word
        if stop.code == INTERRUPTED:
            _interrupted()
        raise
    except LeapError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if debug:
            raise
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {what}. Everything finished is on file. (--debug shows the traceback.)", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if debug or (error.name or "").partition(".")[0] in ("leap", "leap_worlds", "leap_lab"):
            raise
        from leap.extras import with_remedy

        print(f"error: {with_remedy(error)}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        print(
            f"error: something unforeseen: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}\n"
            "Everything finished is on file. Give the same command with --debug to see the traceback, and report it.",
            file=sys.stderr,
        )
        sys.exit(70)
