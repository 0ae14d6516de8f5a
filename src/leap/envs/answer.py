"""The form of a one-line answer, `REASON: ...` then `ACTION: ...`, and the marks by which answers in words are read."""

from __future__ import annotations

import re

from leap.core import Decision
from leap.envs.thought import unclosed, without_thoughts

ACTION_MARKER = "ACTION:"
_BEFORE = r"^[ \t\r\xa0>*_#`\"']*"  # Markdown that may stand before a marker
_WITHIN = r"[ \t*_`\"']*:"
_ACTION = re.compile(rf"(?im){_BEFORE}action{_WITHIN}[ \t*_`\"']*(.*)$")
_ACTION_IN_LINE = re.compile(r"(?m)\bACTION:[ \t*_`\"']*(.*)$")
_REASON = re.compile(rf"(?ims){_BEFORE}(?:reason|thought|think){_WITHIN}[ \t*_]*(.*?)(?={_BEFORE}action{_WITHIN}|\Z)")
_FENCE = "```"
_BLOCK = re.compile(r"\s*+(?:\*\*)?\s*+```[a-zA-Z]*[ \t]*\n(.*?)\n[ \t]*```", re.DOTALL)
_AGAIN = re.compile(rf"(?i)\s*+{_BEFORE[1:]}+action{_WITHIN}[ \t*_`\"']*")  # possessive: no time is lost on long blanks
_NEXT_TURN = re.compile(rf"(?im)\n{_BEFORE[1:]}(?:reason|thought|think|observation|action){_WITHIN}")


def marker_in(text: str) -> re.Match[str] | None:
    """Where an answer's action is announced: the first line that begins with the marker, else the marker within a line."""
    return _ACTION.search(text) or _ACTION_IN_LINE.search(text)


def next_turn(text: str) -> int | None:
    """Where a model goes on to imagine the next turn behind an action; None where it does not."""
    found = _NEXT_TURN.search(text)
    return found.start() if found else None


def ends_in_marker(text: str) -> bool:
    """Whether an answer that begins with this text has its action right behind it, as `parse_answer` will read it."""
    said = without_thoughts(text)
    found = marker_in(said)
    return found is not None and not said[found.start(1) :].strip() and not unclosed(text)


def format_answer(decision: Decision) -> str:
    """The completion that a student is trained to give, byte for byte. An action of several lines stands in a code block, and
    so does one that begins with a marker of its own."""
    action = decision.action
    if "\n" in action or unmarked(action) != action:
        inside = action if "\n" in action else action.strip()
        return f"REASON: {decision.reason}\n{ACTION_MARKER}\n{_FENCE}\n{inside}\n{_FENCE}"
    return f"REASON: {decision.reason}\n{ACTION_MARKER} {action}"


def parse_answer(completion: str, admissible: tuple[str, ...] | None = None) -> Decision | None:
    """Reads what models really emit: other casing, Markdown around the markers, quotes, a numbered list, a full stop.

    Nothing is read from a thought, be it cut off.
    The first `ACTION:` line counts, so a model that goes on to imagine the next turn does not act on its imagination.
    Where the admissible actions are known, an action that equals one of them but for case, spacing, quoting or a final
    full stop is taken as that one. Where they are not, the action is free text in which quotes may matter: only marks that
    wrap the whole of it are taken off, and a code block behind the marker is taken with all its lines.

    Returns:
        The decision, or None where no action can be read.
    """
    text = without_thoughts(completion)
    found = marker_in(text)
    if found is None:
        return None
    if admissible is None:
        behind = past_repeated_markers(text[text.index(":", found.start()) + 1 :])
        block = _BLOCK.match(behind)
        lines = (block[1],) if block else (unwrapped(unmarked(line)) for line in behind.splitlines())
    else:
        line, _, below = past_repeated_markers(text[found.start(1) :]).partition("\n")
        lines = (unmarked(each).strip().strip("`\"'*").strip() for each in (line, *below.splitlines()))
    action = next((line for line in lines if line), "")  # it may stand below its marker
    if not action.strip():
        return None
    if admissible is not None and action not in admissible:
        action = {folded(choice): choice for choice in admissible}.get(folded(action), action)
    return Decision(reason=reason_in(text[: found.start()]), action=action)


def reason_in(before: str) -> str:
    """The reason in what stands before the action, on one line."""
    reason = _REASON.search(before + "\n")
    return " ".join((reason.group(1) if reason else before).split())


def past_repeated_markers(behind: str) -> str:
    """What stands behind the last of several markers that follow each other with nothing between them."""
    position = 0
    while again := _AGAIN.match(behind, position):
        position = again.end()
    return behind[position:]


def unmarked(line: str) -> str:
    """A line behind a marker that said nothing, without the marker where it says it again."""
    again = _ACTION.match(line)
    return again.group(1) if again else line


def unwrapped(action: str) -> str:
    """An action without the marks that stand around the whole of it."""
    action = action.strip()
    if action.startswith(("**", "__")):  # those that close a bold marker
        action = action[2:].strip()
    if action.endswith("**") and "**" not in action[:-2] and not action[:-2].endswith(" "):
        action = action[:-2].strip()
    for mark in (_FENCE, "`", '"', "'"):
        inside = action[len(mark) : -len(mark)]
        if len(action) > 2 * len(mark) and action == f"{mark}{inside}{mark}" and mark not in inside:
            return inside.strip()
    return action


def folded(action: str) -> str:
    """An action without what does not tell two actions apart: case, spacing, a full stop."""
    return " ".join(action.lower().rstrip(" .").split())
