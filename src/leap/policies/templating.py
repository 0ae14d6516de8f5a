"""Jinja templates of prompts: an environment's own folder first, then the shipped general one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined, Template

from leap.core import Task

PromptFolder = Callable[[Task], Path | None]
"""The folder of templates that a task's environment brings (`Environment.prompts_of`); None where it brings none."""


def shipped_alone(task: Task) -> None:
    """No folder: a task's prompts are made from the shipped templates alone."""


@cache
def load_template(name: str, *folders: Path | None) -> Template:
    """A template by its file name, from the first folder that has it; what it imports is looked up in the same way."""
    jinja = Environment(
        loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders if folder is not None]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # prompts are plain text
    )
    return jinja.get_template(name)


def call_macro(template: Template, macro: str, **values: object) -> str:
    """A macro's text; it takes all values as one mapping, so that a template needs to name only those it uses."""
    return str(getattr(template.module, macro)(values)).strip("\n")
