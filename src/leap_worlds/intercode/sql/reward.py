"""The reward of InterCode SQL: how much of the gold's rows there are, times how well they are ordered.

    IoU of the two multisets of rows, each row by its `str`
    x Kendall's tau of the common rows in the student's order against the gold's, compared as strings

Tau is left out where it is not a number (one row, or all alike); with it the product is rounded to two digits, and it
can be negative. Two empty results are worth 1; a result against none, 0. Source: princeton-nlp/intercode,
`SqlEnv.get_reward`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from leap.errors import PrerequisiteError
from leap_worlds.intercode.sql.mysql import Rows


def reward(student: Rows | None, gold: Rows | None) -> float:
    """The reward of a student's last result.

    Args:
        student: Its rows; None where its last statement has no result, or failed.
        gold: The gold's rows; a gold that fails counts as one without rows.

    Returns:
        A value in [-1, 1].
    """
    if student is None:
        return 0.0
    mine, theirs = [str(row) for row in student], [str(row) for row in gold or []]
    common = Counter(mine) & Counter(theirs)
    union = (Counter(mine) | Counter(theirs)).total()
    if union == 0:
        return 1.0
    overlap = common.total() / union
    if not common:
        return overlap
    tau = kendall_tau(_those(mine, common), _those(theirs, common))
    return overlap if math.isnan(tau) else round(tau * overlap, 2)


def kendall_tau(first: Sequence[str], second: Sequence[str]) -> float:
    """Kendall's tau-b of two lists of texts of one length, by their order as texts; NaN where a list is all ties."""
    if len(first) < 2:
        return math.nan
    try:
        from scipy.stats import kendalltau
    except ImportError as error:
        raise PrerequisiteError(f"the reward needs SciPy ({error}); pip install 'leap-agents[intercode]'.") from error
    # Ranks of texts order as the texts do, and unlike texts SciPy takes them in every version.
    rank = {text: number for number, text in enumerate(sorted({*first, *second}))}
    result: Any = kendalltau([rank[t] for t in first], [rank[t] for t in second])
    return float(result.statistic)


def _those(rows: Sequence[str], common: Counter[str]) -> list[str]:
    """The common rows in the order of a list, each as often as it is common."""
    left, found = common.copy(), []
    for row in rows:
        if left[row] > 0:
            left[row] -= 1
            found.append(row)
    return found
