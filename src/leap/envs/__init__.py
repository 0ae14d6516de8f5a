"""Environments: tasks, what acting in them shows, their experts and privileged state. See `leap.envs.base`."""

from leap.envs.base import Environment, Outcome, Session, available_environments, load_environment
from leap.envs.tutor import Expert, Taught, Tutor

__all__ = ["Environment", "Expert", "Outcome", "Session", "Taught", "Tutor", "available_environments", "load_environment"]
