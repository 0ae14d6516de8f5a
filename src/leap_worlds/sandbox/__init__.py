"""Sandboxes: where a model's commands run. See `base` for the interface; docs/sandboxes.md for what each one protects."""

from leap_worlds.sandbox.base import (
    Channel,
    ExecResult,
    Limits,
    Probe,
    Sandbox,
    SandboxError,
    SandboxGone,
    SandboxProvider,
    open_provider,
    sandbox_provider,
)
from leap_worlds.sandbox.image import Image, Recipe, Step

__all__ = [
    "Channel",
    "ExecResult",
    "Image",
    "Limits",
    "Probe",
    "Recipe",
    "Sandbox",
    "SandboxError",
    "SandboxGone",
    "SandboxProvider",
    "Step",
    "open_provider",
    "sandbox_provider",
]
