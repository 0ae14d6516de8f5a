"""Boxes of generated file systems: an image each, made when it is first asked for, and kept by content."""

from __future__ import annotations

from typing import Any

from leap_worlds.intercode.bash.boxes import Boxes
from leap_worlds.intercode.bash.generated.tasks import Family
from leap_worlds.intercode.bash.images import ImageKind, generated_recipe
from leap_worlds.sandbox import Image, open_provider


def open_generated_boxes(sandbox: str, family: Family, kind: ImageKind, progress: Any = None) -> Boxes:
    """Boxes of a sandbox for a family's file systems.

    Args:
        sandbox: A registered sandbox, or `auto` for the first that works here.
        family: The file systems.
        kind: What they are put on.
        progress: Optional callable `(done, total, what)`.

    Raises:
        PrerequisiteError: No sandbox works here, or the image beneath cannot be made; the message says what to do.
    """
    provider = open_provider(sandbox)
    images: dict[int | str, Image] = {}

    def image(name: int | str) -> Image:
        if name not in images:
            images[name] = provider.build(generated_recipe(family.tree(str(name)).script(), kind=kind))
        return images[name]

    if progress is not None:
        progress(0, 1, "image")
    image(f"{next(iter(family.config.file_systems))}-000")
    return Boxes(lambda name: provider.create(image(name)), f"{provider.name}, image {kind}", provider.close)
