"""Sandboxes of a Docker or Podman engine. `image` writes what is built, `command` what is run; `provider` runs both."""

from leap.envs.intercode.sandbox.docker.provider import DockerProvider

__all__ = ["DockerProvider"]
