"""What expert and teacher say on generated tasks: short, in the first person, with nothing that only a teacher knows."""

from __future__ import annotations

from leap_worlds.intercode.bash.generated.config import Operation, Select
from leap_worlds.intercode.bash.generated.requests import Request

_LOOKS = {
    Select.NAMED: "I know its name alone, so I search for it.",
    Select.MENTIONS: "I know what it holds, so I search the files.",
    Select.LARGEST: "I list the folder by size, the largest first.",
    Select.SMALLEST: "I list the folder by size, the smallest first.",
    Select.LISTED: "I read the file that names it.",
}
_ACTS = {
    Operation.DELETE: "delete it",
    Operation.MOVE: "move it",
    Operation.COPY: "copy it",
    Operation.RENAME: "rename it",
    Operation.APPEND: "append the line",
    Operation.REPLACE: "replace the word",
    Operation.LINES: "count its lines",
    Operation.HITS: "count the lines with it",
    Operation.FIRST: "print its first line",
    Operation.LAST: "print its last line",
    Operation.COUNT: "count the files",
    Operation.CREATE: "make the file",
}
SAYS = {
    "submit": "All is done, so I submit.",
    "give up": "More would only do harm, so I submit.",
    "again": "What is printed last counts, so I do it once more.",
    "silent": "All is done, so the last thing prints nothing.",
    "cd": "Behind cd stands more than a folder, so I go back.",
    "quotes": "Double quotes fall away here, so I take single ones.",
    "malformed": "The quotes do not balance, so I mend them.",
    "undo": "Something is not as asked, so I undo it all.",
}
"""By the teacher's rule."""


def look_reason(request: Request) -> str:
    """For the command that finds the file."""
    assert request.select is not None
    return _LOOKS[request.select]


def act_reason(request: Request) -> str:
    """For the command that does what is asked."""
    if request.select in (None, Select.TOLD):
        return f"I know all I need, so I {_ACTS[request.operation]}."
    return f"I see which file it is, so I {_ACTS[request.operation]}."


def spoken() -> list[str]:
    """All that is said for a command."""
    ways = ("I know all I need, so I", "I see which file it is, so I")
    return [*_LOOKS.values(), *(f"{way} {act}." for way in ways for act in _ACTS.values())]
