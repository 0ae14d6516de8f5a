"""The leak check: does a reason name what the student has not seen?"""

from __future__ import annotations

from leap.core import History
from leap.envs.base import Environment


def leaked_entities(environment: Environment, reason: str, history: History) -> tuple[str, ...]:
    """Entities that the reason names and that appear nowhere in the history: a student could not have known them.

    Args:
        environment: Says what an entity is.
        reason: A teacher's reason.
        history: The student's history at that step.

    Returns:
        The leaked entities, sorted; empty for a reason that keeps the secret.
    """
    named_in = environment.of(history.task).entities
    named = named_in(reason)
    if not named:
        return ()
    seen = named_in(history.task.instruction)
    for observation in history.observations:
        seen |= named_in(observation.text)
    for action in (*history.actions, *(history.now.admissible or ())):
        seen |= named_in(action)
    return tuple(sorted(named - seen))
