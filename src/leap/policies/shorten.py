"""Lengths. Prompts that would be too long for a model: the oldest steps are dropped, never the task and never the present.

What is dropped is the same each time for the same history, so a prompt of a rollout and its training row agree.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from leap.core import History, Observation
from leap.core.message import Length, Message, characters
from leap.errors import ContextTooLong

if TYPE_CHECKING:
    from leap.core.message import Message
    from leap.models.base import Completion

class Shortened(NamedTuple):
    """A prompt that fits.

    Attributes:
        messages: The prompt.
        dropped: How many of the oldest steps it leaves out.
    """

    messages: list[Message]
    dropped: int


def without_oldest(history: History, steps: int) -> History:
    """The history without its oldest steps. The first observation stays, for it describes the task's world; the first
    observation after the gap says how many steps are left out.

    Args:
        history: A history of t actions.
        steps: How many to drop, 0 <= steps < max(t, 1).
    """
    if steps == 0:
        return history
    if not 0 < steps < len(history.actions):
        raise ValueError(f"cannot drop {steps} of {len(history.actions)} steps")
    after = history.observations[steps + 1]
    left_out = "1 earlier step is" if steps == 1 else f"{steps} earlier steps are"
    marked = Observation(text=f"({left_out} left out here.) {after.text}", admissible=after.admissible)
    return History.model_construct(
        task=history.task,
        observations=(history.observations[0], marked, *history.observations[steps + 2 :]),
        actions=history.actions[steps:],
    )


def shorten(
    render: Callable[[History], list[Message]], history: History, limit: int | None, length: Length = characters
) -> Shortened:
    """The prompt of a history, with as few of its oldest steps dropped as makes it fit.

    Args:
        render: Makes a prompt of a history; fewer steps must not make it longer by more than the note about them.
        history: What to show.
        limit: Longest prompt allowed, in the unit of `length`; None for no limit.
        length: Measures a prompt.

    Raises:
        ContextTooLong: It does not fit even without any step but the present one.
    """
    messages = render(history)
    if limit is None or length(messages) <= limit:
        return Shortened(messages, 0)
    low, high = 0, len(history.actions)  # `low` dropped is too long; `high` is the first number that cannot be dropped
    best: Shortened | None = None
    while high - low > 1:
        middle = (low + high) // 2
        tried = render(without_oldest(history, middle))
        if length(tried) <= limit:
            best, high = Shortened(tried, middle), middle
        else:
            low = middle
    if best is None:
        raise ContextTooLong(
            f"the prompt of task {history.task.id} does not fit into {limit} even with nothing but the task and the "
            "present observation. Use a model with a longer context, or leave the candidate actions out of the prompt."
        )
    return best


def drop_more(dropped: int, most: int) -> int | None:
    """How many of the oldest steps to leave out after a model of unknown limit has refused a prompt without `dropped` of
    them: half of those that are left, so that a few refusals are enough. None if all `most` that may go are gone."""
    return None if dropped >= most else dropped + (most - dropped + 1) // 2


async def ask_fitting(
    ask: Callable[[list[Message]], Awaitable[Completion]],
    render: Callable[[History], list[Message]],
    history: History,
    limit: int | None,
    length: Length,
) -> tuple[Completion, int]:
    """Asks with a prompt that fits, or, where the model refuses it as too long all the same, with ever shorter ones.

    Args:
        ask: Makes the call.
        render, history, limit, length: As for `shorten`.

    Returns:
        The answer, and how many of the oldest steps its prompt left out.

    Raises:
        ContextTooLong: It does not fit even without any step but the present one.
        ModelError: As the call raises.
    """
    messages, dropped = shorten(render, history, limit, length)
    while True:
        try:
            return await ask(messages), dropped
        except ContextTooLong:
            more = drop_more(dropped, len(history.actions) - 1)
            if more is None:
                raise
            messages, dropped = render(without_oldest(history, more)), more
