"""The vocabulary of leap: frozen records, pure data. Imports nothing else of leap and does no I/O."""

from leap.core.correction import Correction, Measured, Rejection, Tried
from leap.core.episode import Actor, Episode, Step, StopReason
from leap.core.history import Decision, History, Observation, open_action
from leap.core.record import JsonObject, content_key, seed_of
from leap.core.task import PrivilegedState, Task

__all__ = [
    "Actor",
    "Correction",
    "Decision",
    "Episode",
    "History",
    "JsonObject",
    "Measured",
    "Observation",
    "PrivilegedState",
    "Rejection",
    "Step",
    "StopReason",
    "Task",
    "Tried",
    "content_key",
    "open_action",
    "seed_of",
]
