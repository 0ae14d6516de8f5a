"""Ends a stage whose model gives nothing any more, and counts the episodes that failed calls have cost."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from leap.errors import ModelError

log = logging.getLogger(__name__)

MOST_IN_A_ROW = 10
"""So many episodes lost one after another end a stage, or so many of whose answers nothing can be used, if there never was one
that could: each further episode would be lost, or paid for nothing."""


class CircuitBreaker:
    """Ends a stage whose model has stopped answering, or never answers in the form asked for.

    Args:
        who: Whose calls.

    Attributes:
        any_useful: Whether any answer could be used so far.
    """

    def __init__(self, who: str) -> None:
        self._who, self._lost, self._useless, self.any_useful = who, 0, 0, False

    def count(self, error: str, *, useful: bool | None = None) -> None:
        """Counts an episode that has ended.

        Args:
            error: The error of the calls that it is lost to; empty where it is not.
            useful: Whether any answer about it could be used; None where nothing was asked that must be.

        Raises:
            ModelError: `MOST_IN_A_ROW` were lost one after another, or so many have passed without anything that could be used.
        """
        self.any_useful = self.any_useful or bool(useful)
        self._useless += useful is False
        self._lost = self._lost + 1 if error else 0
        if self._lost >= MOST_IN_A_ROW:
            raise ModelError(
                f"the calls of {self._who} failed for {self._lost} episodes in a row (the last: {error}). Everything else is "
                "on file; give the same command again when the model answers, and these are tried again."
            )
        if not self.any_useful and self._useless >= MOST_IN_A_ROW:
            raise ModelError(
                f"{self._who} gave no usable answer for any of {self._useless} episodes; the warnings above say why. "
                "Check the endpoint and its answers' longest length, or choose another model."
            )


def check_lost(who: str, errors: Sequence[str], of: int, share: float) -> None:
    """Ends a stage in which more episodes are lost than may be. Lost ones are kept off file, so that the same command tries them
    again.

    Args:
        who: Whose calls failed.
        errors: Why, of an episode each.
        of: How many episodes the stage has.
        share: The share of them that may be lost.

    Raises:
        ModelError: More of them are.
    """
    if not errors:
        return
    told = f"{len(errors)} of {of} episodes are lost: calls of {who} failed after all retries (the first: {errors[0]})."
    if len(errors) > share * of:
        raise ModelError(
            f"{told} Everything else is on file; give the same command again and these are tried again, or allow a share of them "
            f"(lost_share, {share:g} now)."
        )
    log.warning("%s The recipe allows it (lost_share %g).", told, share)
