"""Generated ALFWorld games, few and in small rooms."""

from __future__ import annotations

from typing import Any


def small_games(train: int, valid: int, unseen: int) -> dict[str, Any]:
    """Options of the environment for so many games of each split."""
    return {
        "generator": {
            "seed": 1,
            "games": {"train": train, "valid": valid, "unseen": unseen},
            "task_types": ["pick_and_place_simple"],
            "receptacles": [6, 7],
        }
    }
