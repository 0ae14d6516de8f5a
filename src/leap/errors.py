"""Errors that are meant for people: one message that says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it takes a fifth of a second, and `leap --help` needs none of it
    from pydantic import ValidationError


class LeapError(Exception):
    """Something the user can mend. The command line prints its message alone and exits with `exit_code`.

    Attributes:
        exit_code: The process's exit status when this error ends a command.
    """

    exit_code = 1


class RecipeError(LeapError):
    """A recipe with an unknown key, a wrong type or a combination that makes no sense."""

    exit_code = 2


class PrerequisiteError(LeapError):
    """Something needed is missing: a package, a data folder, a checkpoint, a game."""


class RunError(LeapError):
    """The run directory cannot be used as asked: another recipe's, damaged, or an earlier stage is missing."""


class EnvironmentFault(LeapError):
    """An environment's own code raised. A rollout ends that one episode with it, and itself only where there are many."""


class ContractError(LeapError):
    """An environment breaks its contract: a score of 1.5, two tasks of one name, a tuple in place of an outcome."""


class ModelError(LeapError):
    """A model call failed. Rollouts retry it, then end that one episode; they never end the run.

    Attributes:
        tokens: Tokens of prompt and answer that were billed all the same, as far as is known.
    """

    tokens: tuple[int, int] = (0, 0)


class ModelRefused(ModelError):
    """The model does not take this prompt, however often it is asked: its episode ends, and stays ended."""


class ContextTooLong(ModelRefused):
    """The prompt does not fit into the model's context. Whoever made it can leave out its oldest steps and try again."""


def first_line(error: Exception) -> str:
    """What an error says, in one line: its first, with the next where that only begins to tell."""
    first, *more = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{first} {more[0]}" if first.endswith(":") and more else first


def last_line(said: Exception | str) -> str:
    """The last line in which something is, of an error or of what a program printed, for it names the reason."""
    lines = [line.strip() for line in str(said).splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it says nothing." if isinstance(said, str) else type(said).__name__


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns ` Did you mean 'x'?` for the known name nearest to one that is not known; empty where none is near."""
    from difflib import get_close_matches

    by_lower = {one.lower(): one for one in known}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""


_IN_PLAIN_WORDS = {
    "extra_forbidden": "unknown key",
    "missing": "must be given",
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
}
"""What to say of some of pydantic's findings in place of its own words."""

KEPT_BACK = "kept_back"
"""Type of a finding whose value is not shown: it may be a secret."""


def describe_validation_error(error: ValidationError, where: str) -> str:
    """Pydantic's findings as lines for people: the key, what is wrong, what was given."""
    from pydantic import BaseModel

    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        message = _IN_PLAIN_WORDS.get(item["type"], item["msg"].removeprefix("Value error, "))
        # A whole section is no news to who wrote it; a single value is.
        told = item["type"] in {"extra_forbidden", "unknown_key", "missing", KEPT_BACK}
        shown = not told and not isinstance(item["input"], dict | BaseModel)
        given = f" (given: {item['input']!r})" if shown else ""
        lines.append(f"  {key}: {message}{given}" if key else f"  {message}{given}")
    return f"{where} is not valid:\n" + "\n".join(lines)
