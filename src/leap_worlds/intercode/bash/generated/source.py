"""Generated tasks as a source, and boxes of their file systems: an image each, made when it is first asked for."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import ClassVar

from leap.envs.base import Progress, unknown_split
from leap_worlds.intercode.bash.boxes import Boxes
from leap_worlds.intercode.bash.generated.config import BashFamilyConfig
from leap_worlds.intercode.bash.generated.expert import GeneratedExpert
from leap_worlds.intercode.bash.generated.requests import Request
from leap_worlds.intercode.bash.generated.tasks import Family, GeneratedTask
from leap_worlds.intercode.bash.generated.teacher import GeneratedCoach
from leap_worlds.intercode.bash.generated.vocabulary import names, vocabulary
from leap_worlds.intercode.bash.images import ImageKind, generated_recipe
from leap_worlds.intercode.bash.source import Source
from leap_worlds.intercode.bash.teacher import Coach
from leap_worlds.sandbox.base import open_provider
from leap_worlds.sandbox.image import Image


class Generated(Source):
    """The tasks of a generated family.

    Args:
        config: What to generate.
    """

    benchmark: ClassVar[str] = "intercode-bash-generated"
    coach: ClassVar[type[Coach]] = GeneratedCoach

    def __init__(self, config: BashFamilyConfig) -> None:
        self._config = config
        self._family = Family(config)
        self._by_id: dict[str, GeneratedTask] | None = None

    @property
    def gold_splits(self) -> tuple[str, ...]:
        return tuple(self._config.file_systems)

    def tasks(self) -> Sequence[GeneratedTask]:
        return list(self._known().values())

    def split(self, name: str) -> Sequence[GeneratedTask]:
        if name not in self._config.file_systems:
            raise unknown_split("the generated family", name, self._config.file_systems)
        return self._family.split(name)

    def open_boxes(self, sandbox: str, image: ImageKind, progress: Progress | None) -> Boxes:
        provider = open_provider(sandbox)
        made: dict[int | str, Image] = {}
        locks: defaultdict[int | str, threading.Lock] = defaultdict(threading.Lock)

        def image_of(name: int | str) -> Image:
            with locks[name]:  # who asks for one that is being made waits for it
                if name not in made:
                    made[name] = provider.build(generated_recipe(self._family.tree(str(name)).script(), kind=image))
                return made[name]

        if progress is not None:
            progress(0, 1, "image")
        image_of(f"{next(iter(self._config.file_systems))}-000")
        return Boxes(lambda name: provider.create(image_of(name)), f"{provider.name}, image {image}", provider.close)

    def expert(self) -> GeneratedExpert:
        return GeneratedExpert(self.request)

    def request(self, task_id: str) -> Request:
        """What a task's words say, in parts: what who reads them knows."""
        return self._known()[task_id].request

    def vocabulary(self) -> Sequence[str]:
        """Every word of the file systems, of the requests and of what is said and done about them."""
        return vocabulary(self._config.lexicon)

    def names(self) -> Sequence[str]:
        return names(self._config.lexicon)

    def versions(self) -> Mapping[str, str]:
        return {"family": self._family.fingerprint}

    def _known(self) -> dict[str, GeneratedTask]:
        if self._by_id is None:
            self._by_id = {task.id: task for name in self._config.file_systems for task in self.split(name)}
        return self._by_id
