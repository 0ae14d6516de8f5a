"""The small world, made once; and the models' tiny checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leap.envs.base import Environment


@pytest.fixture
def small_webshop(world: Environment, tmp_path: Path) -> Environment:
    """A small shop, in the same cache."""
    from world import make_shop

    return make_shop(tmp_path)


@pytest.fixture
def small_mixture(world: Environment, tmp_path: Path, intercode_data: Path) -> Iterator[Environment]:
    """Games, shop and shell in one, in the same cache."""
    from world import make_mixture

    environment = make_mixture(tmp_path, intercode_data)
    yield environment
    environment.close()


def _small_intercode(name: str) -> Any:
    @pytest.fixture(name=f"small_intercode_{name}")
    def made(intercode_data: Path) -> Iterator[Environment]:
        """SQL on SQLite, the others on stand-in boxes."""
        from small_intercode import make_intercode

        environment = make_intercode(name, intercode_data)
        yield environment
        environment.close()

    return made


small_intercode_bash, small_intercode_sql = map(_small_intercode, ("bash", "sql"))
small_intercode_python, small_intercode_generated = map(_small_intercode, ("python", "generated"))


@pytest.fixture
def small_tasks(tmp_path: Path) -> Iterator[Environment]:
    """Three task folders, in boxes."""
    from small_tasks import make_tasks

    three = ["plain-old", "named-rewards", "last-phase-counts"]
    environment = make_tasks(tmp_path, split={"by": "glob", "globs": {"train": three}}, checks="never")
    yield environment
    environment.close()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Generated games, in a cache that goes away."""
    from world import make_world

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEAP_CACHE", "")
        yield make_world(tmp_path_factory.mktemp("cache"))
