"""Prompts that fit: of a prompt too long for a model the oldest steps are left out, never the task and never the present.

What is left out is the same each time for the same history, so a prompt of a rollout and its training row agree. A limit
that nobody told is learnt from a model's refusals.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from leap.core import History, Observation
from leap.core.message import Message, characters
from leap.errors import ContextTooLong


class Fitted(NamedTuple):
    """A prompt that fits.

    Attributes:
        messages: The prompt.
        dropped: How many of the oldest steps it leaves out.
    """

    messages: list[Message]
    dropped: int


@dataclass(eq=False)
class Fit:
    """Makes prompts that fit, in one conversation with a model.

    Attributes:
        limit: Longest prompt, in the unit of `length`; None where no limit is known.
        length: Measures a prompt.
    """

    limit: int | None
    length: Callable[[Sequence[Message]], int] = characters
    _learnt: int | None = None
    _refused: Sequence[Message] = ()

    def fits(self, messages: Sequence[Message]) -> bool:
        """Whether a prompt is short enough, by the limit and by what was refused."""
        limits = [limit for limit in (self.limit, self._learnt) if limit is not None]
        return not limits or self.length(messages) <= min(limits)

    def shortest(
        self, render: Callable[[int], list[Message]], most: int, what: str, *, last_resort: bool = True
    ) -> Fitted:
        """The prompt with as few steps left out as makes it fit.

        Args:
            render: Makes the prompt without so many of the oldest steps; leaving out more must not make it longer, but for
                a note about them.
            most: How many steps may be left out.
            what: Names the prompt, for the message.
            last_resort: Whether to try the prompt with all of them left out, too, where only a refusal speaks against it.

        Raises:
            ContextTooLong: It does not fit even so.
        """
        messages = render(0)
        if self.fits(messages):
            return Fitted(messages, 0)
        dropped = bisect_left(range(most + 1), True, lo=1, key=lambda dropped: self.fits(render(dropped)))
        if dropped <= most:
            return Fitted(render(dropped), dropped)
        messages = render(most)
        if self.limit is not None and self.length(messages) > self.limit:
            raise ContextTooLong(
                f"the prompt of {what} does not fit into {self.limit} even with nothing but the task and the present "
                "observation. Use a model with a longer context, or leave the candidate actions out of the prompt."
            )
        if not last_resort or messages == self._refused:
            raise ContextTooLong(f"the prompt of {what} is too long for the model, whatever is left out of it.")
        return Fitted(messages, most)

    def refused(self, messages: Sequence[Message]) -> None:
        """Takes note that the model found a prompt too long: the next is shorter by a tenth."""
        self._learnt, self._refused = self.length(messages) * 9 // 10, messages


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


def fit_history(render: Callable[[History], list[Message]], history: History, fit: Fit) -> Fitted:
    """The prompt of a history with as few of its oldest steps left out as makes it fit.

    Raises:
        ContextTooLong: It does not fit even without any step but the present one.
    """
    most = max(len(history.actions) - 1, 0)
    return fit.shortest(lambda steps: render(without_oldest(history, steps)), most, f"task {history.task.id}")
