"""Episodes that failed calls of a model have cost. They are kept off file, so that the same command tries them again."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from leap.errors import ModelError

log = logging.getLogger(__name__)

MOST_IN_A_ROW = 10
"""So many episodes lost one after another end a stage: the endpoint is down, and each further one would be lost as well."""


class Streak:
    """Ends a stage whose model has stopped answering.

    Args:
        who: Whose calls.
    """

    def __init__(self, who: str) -> None:
        self._who, self._length = who, 0

    def count(self, error: str) -> None:
        """Counts an episode that has ended: the error of the calls that it is lost to, or nothing.

        Raises:
            ModelError: `MOST_IN_A_ROW` were lost one after another.
        """
        self._length = self._length + 1 if error else 0
        if self._length >= MOST_IN_A_ROW:
            raise ModelError(
                f"the calls of {self._who} failed for {self._length} episodes in a row (the last: {error}). Everything else is "
                "on file; give the same command again when the model answers, and these are tried again."
            )


def check_lost(who: str, errors: Sequence[str], of: int, share: float) -> None:
    """Ends a stage in which more episodes are lost than may be.

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
