"""Leakage and realizability, measured: how far a teacher's corrections can be learned by a student that does not see
what the teacher sees, and what the paper's bound makes of it. `docs/measures.md` explains every figure.

Nothing here is needed to train; a run without these figures is the same run.
"""

from leap_lab.measures.corrected import Corrected, held_out
from leap_lab.measures.figures import Figure
from leap_lab.measures.likelihood import AnswerLoss, Losses, nll
from leap_lab.measures.measure import Given, measure_iteration, read_measures, write_measures
from leap_lab.measures.records import IterationMeasures

__all__ = [
    "AnswerLoss",
    "Corrected",
    "Figure",
    "Given",
    "IterationMeasures",
    "Losses",
    "held_out",
    "measure_iteration",
    "nll",
    "read_measures",
    "write_measures",
]
