"""Fixtures that several test folders share: data that is not part of the project, found beside it or left out."""

from __future__ import annotations

import os
import signal
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

# The models of the tests are too small for more than one thread; with two and a busy machine each waits for the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A job that a shell started in the background ignores Ctrl-C, and so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

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
        asked = ENGINES & set(getattr(item, "fixturenames", ()))
        if asked:
            item.add_marker(pytest.mark.engine)
        if "boxes" in asked:  # the first one makes the images
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def boxes() -> None:
    """Real boxes for InterCode. Making their images takes minutes, once, so they are asked for."""
    if "LEAP_TEST_SANDBOX" not in os.environ:
        pytest.skip("set LEAP_TEST_SANDBOX=1 to make InterCode's images (minutes, once) and run on them")


SHARED = Path(os.environ.get("LEAP_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of test data: LEAP_SHARED_DATA, else ../shared/data beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"no test data at {SHARED}; set LEAP_SHARED_DATA to use some")
    return SHARED


@pytest.fixture(scope="session")
def official_games(shared_data: Path) -> Path:
    """A data folder with official ALFWorld games in the 2.1.1 dialect, unpacked once per machine."""
    archive = shared_data / "alfworld" / "games-2.1.1.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no official ALFWorld games: {archive} is missing")
    return _unpacked("alfworld", archive, "json_2.1.1")


@pytest.fixture(scope="session")
def intercode_data() -> Path:
    """A folder with upstream's data and set-up scripts: those of the test data, else what `leap data intercode` has fetched."""
    archives = [SHARED / "intercode" / f"{name}.tar.xz" for name in ("datasets", "filesystem-setups")]
    if all(archive.is_file() for archive in archives):
        return _unpacked("intercode", *archives)
    from leap.errors import PrerequisiteError
    from leap_worlds.intercode.data import IntercodeData

    try:
        return IntercodeData().root
    except PrerequisiteError as error:
        pytest.skip(str(error))


def _unpacked(name: str, *archives: Path | str) -> Path:
    """What archives hold, unpacked once per machine; from a folder of that name in them on, if one is given last."""
    *files, inner = archives if isinstance(archives[-1], str) else (*archives, "")
    stamp = "-".join(f"{Path(file).stat().st_size}-{int(Path(file).stat().st_mtime)}" for file in files)
    target = Path(tempfile.gettempdir()) / f"leap-test-{name}-{os.getuid()}-{stamp}"
    if not target.is_dir():
        with tempfile.TemporaryDirectory(dir=target.parent) as unpacked:
            made = Path(unpacked) / "made"
            for file in files:
                with tarfile.open(file) as tar:
                    tar.extractall(made, filter="data")
            if inner:
                (found,) = made.rglob(inner)
                made = found.parent
            with suppress(OSError):  # another process was faster
                made.rename(target)
    return target
