"""Fixtures that several test folders share: data that is not part of the project, found beside it or left out."""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# The models of the tests are too small for more than one thread; with two and a busy machine each waits for the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Property tests explore at a developer's desk; where a change is judged they are the same each time. A busy machine is no
# failure, so no example has a deadline.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


ENGINES = {"namespace", "engine", "provider", "neighbour", "boxes"}
"""Fixtures that need a sandbox or a container engine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what asks for a sandbox as `engine`."""
    for item in items:
        if ENGINES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session")
def boxes() -> None:
    """Real boxes for InterCode. Making their images takes minutes, once, so they are asked for."""
    if "LEAP_TEST_SANDBOX" not in os.environ:
        pytest.skip("set LEAP_TEST_SANDBOX=1 to make InterCode's images (minutes, once) and run on them")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of test data: LEAP_SHARED_DATA, else ../shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LEAP_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set LEAP_SHARED_DATA to use some")
    return folder


@pytest.fixture(scope="session")
def official_games(shared_data: Path) -> Path:
    """A data folder with official ALFWorld games in the 2.1.1 dialect, unpacked once per machine."""
    archive = shared_data / "alfworld" / "games-2.1.1.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no official ALFWorld games: {archive} is missing")
    stat = archive.stat()
    target = Path(tempfile.gettempdir()) / f"leap-test-alfworld-{os.getuid()}-{stat.st_size}-{int(stat.st_mtime)}"
    if not target.is_dir():
        with tempfile.TemporaryDirectory(dir=target.parent) as unpacked:
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter="data")
            roots = sorted(Path(unpacked).rglob("json_2.1.1"))
            assert roots, f"{archive} holds no json_2.1.1"
            made = Path(unpacked) / "data"
            made.mkdir()
            roots[0].rename(made / "json_2.1.1")
            if not target.is_dir():  # another run may have been faster
                made.rename(target)
    return target


@pytest.fixture(scope="session")
def intercode_data(shared_data: Path) -> Path:
    """A folder with upstream's data and set-up scripts."""
    archives = [shared_data / "intercode" / f"{name}.tar.xz" for name in ("datasets", "filesystem-setups")]
    if not all(archive.is_file() for archive in archives):
        pytest.skip(f"no InterCode data: {archives[0]} is missing")
    stamp = "-".join(f"{archive.stat().st_size}" for archive in archives)
    target = Path(tempfile.gettempdir()) / f"leap-test-intercode-{os.getuid()}-{stamp}"
    if not target.is_dir():
        with tempfile.TemporaryDirectory(dir=target.parent) as unpacked:
            made = Path(unpacked) / "made"
            for archive in archives:
                with tarfile.open(archive) as tar:
                    tar.extractall(made, filter="data")
            if not target.is_dir():  # another run may have been faster
                made.rename(target)
    return target
