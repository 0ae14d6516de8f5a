"""Sandboxes of a Docker or Podman engine. `image` writes what is built, `command` what is run; `provider` runs both."""

from leap_worlds.sandbox.docker.provider import DockerProvider

__all__ = ["DockerProvider"]
