"""Lets these tests use the run directory of the report's tests and the tiny checkpoints of the models'."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("report", "models")]
