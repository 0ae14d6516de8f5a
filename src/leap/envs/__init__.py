"""Environments: tasks, what acting in them shows, their experts and privileged state. See `leap.envs.base`."""

from leap.envs.base import Environment, Expert, Outcome, Session, available_environments, load_environment

__all__ = ["Environment", "Expert", "Outcome", "Session", "available_environments", "load_environment"]
