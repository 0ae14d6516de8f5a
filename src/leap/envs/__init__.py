"""Environments: tasks, what acting in them shows, their experts and privileged state. See `leap.envs.base`."""

from leap.envs.base import Environment, Outcome, Session, load_environment
from leap.envs.tutor import Expert, Taught, Tutor

__all__ = ["Environment", "Expert", "Outcome", "Session", "Taught", "Tutor", "load_environment"]
