"""A small world for the tests of the loop: generated ALFWorld games in a cache of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from small_intercode import stand_in_boxes
from small_shop import a_product, said, write_files

from leap.core import Correction, Episode
from leap.envs.base import Environment, load_environment
from leap.sync import run_sync
from leap.teachers.base import TeacherContext
from leap.teachers.config import ExpertConfig
from leap.teachers.expert import ExpertTeacher

OPTIONS = {"generator": {"seed": 2, "games": {"train": 8, "valid": 3, "unseen": 3}, "receptacles": [6, 8]}}


def make_world(cache: Path) -> Environment:
    """The environment, its games generated."""
    os.environ["LEAP_CACHE"] = str(cache)
    environment = load_environment("alfworld", OPTIONS)
    environment.prepare()
    return environment


def make_shop(folder: Path) -> Environment:
    """A shop of a few mugs, with enough tasks to train on."""
    write_shop(folder)
    environment = load_environment("webshop", {"path": str(folder)})
    environment.prepare()
    return environment


def write_shop(folder: Path) -> None:
    """The shop's files."""
    people = {f"B{i:09}": [said(f"i want mug {i} for guest {j}", ["handle"]) for j in range(80)] for i in range(20)}
    write_files(folder, [a_product(i) for i in range(20)], people=people)


def make_mixture(folder: Path, data: Path) -> Environment:
    """The small games, the shop and upstream's Bash tasks on stand-in boxes, as one."""
    write_shop(folder)
    parts = {
        "alfworld": {"options": OPTIONS, "splits": {"test": "unseen"}},
        "webshop": {"options": {"path": str(folder)}, "splits": {"valid": "eval"}},
        "bash": {"environment": "intercode-bash", "options": {"path": str(data)}, "splits": {"valid": "train_valid"}},
    }
    environment: Any = load_environment("mixture", {"parts": parts, "each": {"valid": 3, "test": 3}})
    environment.parts["bash"].boxes = stand_in_boxes()
    environment.prepare()
    return environment


def corrected(environment: Environment, episodes: list[Episode], privilege: int, **more: bool) -> list[Correction]:
    """Corrections of every step."""
    teacher = ExpertTeacher(ExpertConfig(privilege=privilege, **more), TeacherContext(environment))
    return [correction for episode in episodes for correction in run_sync(teacher.correct(episode))]
