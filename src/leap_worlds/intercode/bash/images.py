"""From the data's set-up scripts to boxes: which sandbox makes them, and the images of the four file systems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leap.errors import PrerequisiteError
from leap_worlds.intercode.bash.boxes import Boxes
from leap_worlds.intercode.data import FILE_SYSTEMS, IntercodeData
from leap_worlds.sandbox.recipe import ImageKind


def open_boxes(
    sandbox: str,
    data: IntercodeData,
    kind: ImageKind,
    progress: Any = None,
    *,
    file_systems: Sequence[int] = FILE_SYSTEMS,
) -> Boxes:
    """Boxes of a sandbox, its images made if they are not in the cache.

    Args:
        sandbox: A registered sandbox, or `auto` for the first that works here.
        data: Holds the set-up scripts.
        kind: What they are put on.
        progress: Optional callable `(done, total, what)`.
        file_systems: Which of upstream's four.

    Raises:
        PrerequisiteError: No sandbox works here, or an image cannot be made; the message says what to do.
    """
    try:
        from leap_worlds.sandbox import file_system_image, open_provider
    except ImportError as error:
        raise PrerequisiteError(f"this build of leap has no sandbox to run commands in ({error}).") from error
    provider = open_provider(sandbox)
    images = {}
    for done, number in enumerate(file_systems):
        if progress is not None:
            progress(done, len(file_systems), f"file system {number}")
        images[number] = file_system_image(provider, data.setup_script(number), number, kind=kind)
    return Boxes(lambda number: provider.create(images[int(number)]), provider.name, provider.close)
