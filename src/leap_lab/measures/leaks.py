"""What a reason tells that the student could not have known, beyond the entities that the teachers' own check finds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable

from leap.core import History, PrivilegedState


def quoted_commands(reason: str, commands: Iterable[str], history: History) -> tuple[str, ...]:
    """Commands of a privileged plan that the reason quotes word for word although the student has not seen them.

    Seen is a command that was admissible at this step or an earlier one, that the student gave itself, or that stands in
    the task or in an observation. Commands of one word are not looked for: `look` is also a word.

    Args:
        reason: A teacher's reason.
        commands: The plan's commands.
        history: The student's history at that step.

    Returns:
        The quoted commands, sorted.
    """
    folded = _folded(reason)
    quoted = [c for c in set(commands) if len(c.split()) > 1 and _stands_in(_folded(c), folded)]
    if not quoted:
        return ()
    known = {*history.actions}
    for observation in history.observations:
        known.update(observation.admissible or ())
    known = {_folded(command) for command in known}
    texts = [_folded(text) for text in (history.task.instruction, *(o.text for o in history.observations))]
    return tuple(
        sorted(c for c in quoted if _folded(c) not in known and not any(_stands_in(_folded(c), t) for t in texts))
    )


def hidden_entities(privileged: PrivilegedState, entities: Callable[[str], set[str]]) -> set[str]:
    """Returns every entity that the privileged state names, in its text or its facts."""
    facts = json.dumps(privileged.facts, ensure_ascii=False, default=str)
    return entities(privileged.text) | entities(facts) | entities("\n".join(privileged.plan or ()))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _stands_in(command: str, text: str) -> bool:
    return command in text and re.search(rf"(?<!\w){re.escape(command)}(?!\w)", text) is not None
