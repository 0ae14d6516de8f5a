"""Environments: tasks, what acting in them shows, their experts and privileged state. See `leap.envs.base`."""
