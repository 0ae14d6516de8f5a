"""A generated family: file systems and tasks, drawn when they are asked for, and boxes, each with an image made likewise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import ClassVar

from leap.core import content_key
from leap.envs.base import Progress, unknown_split
from leap_worlds.intercode.base import Boxes
from leap_worlds.intercode.bash.generated import requests
from leap_worlds.intercode.bash.generated.config import BashFamilyConfig
from leap_worlds.intercode.bash.generated.expert import GeneratedExpert
from leap_worlds.intercode.bash.generated.teacher import GeneratedCoach
from leap_worlds.intercode.bash.generated.trees import Tree, draw_tree, stream
from leap_worlds.intercode.bash.generated.voice import names, vocabulary
from leap_worlds.intercode.bash.images import ImageKind, generated_recipe, open_boxes
from leap_worlds.intercode.bash.source import Source
from leap_worlds.intercode.bash.teacher import Coach
from leap_worlds.sandbox.image import Recipe

GENERATOR = 2
"""Version of the generator: raised whenever the same settings come to give other tasks."""


class Family(Source):
    """The tasks of a generated family, as its settings say."""

    benchmark: ClassVar[str] = "intercode-bash-generated"
    coach: ClassVar[type[Coach]] = GeneratedCoach

    def __init__(self, config: BashFamilyConfig) -> None:
        self.config = config
        self.gold_splits = tuple(config.file_systems)
        self.tree = lru_cache(maxsize=None)(self._tree)
        self._splits: dict[str, Sequence[requests.GeneratedTask]] = {}

    def _tree(self, name: str) -> Tree:
        split, _, number = name.rpartition("-")
        return draw_tree(self.config, split, int(number))

    def trees(self, split: str) -> list[Tree]:
        """The file systems of a split."""
        return [self.tree(f"{split}-{number:03}") for number in range(self.config.file_systems[split])]

    def split(self, name: str) -> Sequence[requests.GeneratedTask]:
        if name not in self.config.file_systems:
            raise unknown_split("the generated family", name, self.config.file_systems)
        if name not in self._splits:
            self._splits[name] = [task for tree in self.trees(name) for task in self._on(name, tree)]
        return self._splits[name]

    def _on(self, split: str, tree: Tree) -> list[requests.GeneratedTask]:
        """The tasks on a file system, no two with the same words."""
        tasks: dict[str, requests.GeneratedTask] = {}
        rng = stream(self.config, split, tree.name, "tasks")
        for _ in range(50 * self.config.tasks):
            if len(tasks) == self.config.tasks:
                break
            request, path = requests.draw_request(self.config, tree, rng)
            query = requests.say(request, rng.randrange(self.config.wordings), rng.randrange(self.config.wordings))
            query = query[:1].upper() + query[1:]
            if query not in tasks:
                gold, look = requests.command(request, path), requests.look_command(request)
                tasks[query] = requests.GeneratedTask(
                    tree.name, len(tasks), query, gold, request=request, path=path, look=look
                )
        return list(tasks.values())

    def open_boxes(self, sandbox: str, image: ImageKind, progress: Progress | None) -> Boxes:
        def recipe(name: int | str) -> Recipe:
            return generated_recipe(self.tree(str(name)).script(), kind=image)

        boxes = open_boxes(sandbox, recipe, [f"{self.gold_splits[0]}-000"], progress)
        return replace(boxes, description=f"{boxes.description}, image {image}")

    def expert(self) -> GeneratedExpert:
        return GeneratedExpert(self.request)

    def request(self, task_id: str) -> requests.Request:
        """What a task's words say, in parts: what who reads them knows."""
        return self._requests[task_id]

    @cached_property
    def _requests(self) -> dict[str, requests.Request]:
        return {task.id: task.request for name in self.gold_splits for task in self.split(name)}

    def vocabulary(self) -> Sequence[str]:
        """Every word of the file systems, of the requests and of what is said and done about them."""
        return vocabulary(self.config.lexicon)

    def names(self) -> Sequence[str]:
        return names(self.config.lexicon)

    def versions(self) -> Mapping[str, str]:
        return {"family": self.fingerprint}

    @property
    def fingerprint(self) -> str:
        """Names what the settings generate."""
        return content_key("bash family", GENERATOR, self.config.model_dump(mode="json"))
