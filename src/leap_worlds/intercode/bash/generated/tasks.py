"""The tasks of a generated family, split by split."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from leap.core import content_key
from leap_worlds.intercode.bash.generated.config import BashFamilyConfig
from leap_worlds.intercode.bash.generated.requests import Request, command, draw_request, look_command, say
from leap_worlds.intercode.bash.generated.trees import Tree, draw_tree, stream
from leap_worlds.intercode.bash.tasks import BashTask

GENERATOR = 2
"""Version of the generator: raised whenever the same settings come to give other tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedTask(BashTask):
    """One task of a generated family.

    Attributes:
        request: What the query says, in parts.
        path: The file that it is about; empty where it is about none.
        look: A command that tells what the query does not; None where it tells all that the gold names.
    """

    request: Request
    path: str
    look: str | None

    @property
    def id(self) -> str:
        """train-017/3 and so on."""
        return f"{self.file_system}/{self.index}"

    @property
    def kind(self) -> str:
        """The group that results are reported by: how the request names its file."""
        return str(self.request.select or "none")


class Family:
    """A generated family: file systems and tasks, drawn when they are asked for.

    Args:
        config: What to generate.
    """

    def __init__(self, config: BashFamilyConfig) -> None:
        self.config = config
        self.tree = lru_cache(maxsize=None)(self._tree)
        self.split = lru_cache(maxsize=None)(self._split)

    @property
    def fingerprint(self) -> str:
        """Names what the settings generate."""
        return content_key("bash family", GENERATOR, self.config.model_dump(mode="json"))

    def _tree(self, name: str) -> Tree:
        split, _, number = name.rpartition("-")
        return draw_tree(self.config, split, int(number))

    def trees(self, split: str) -> list[Tree]:
        """The file systems of a split."""
        return [self.tree(f"{split}-{number:03}") for number in range(self.config.file_systems[split])]

    def _split(self, split: str) -> tuple[GeneratedTask, ...]:
        return tuple(task for tree in self.trees(split) for task in self._on(split, tree))

    def _on(self, split: str, tree: Tree) -> list[GeneratedTask]:
        """The tasks on a file system, no two with the same words."""
        tasks: dict[str, GeneratedTask] = {}
        rng = stream(self.config, split, tree.name, "tasks")
        tries = 0
        while len(tasks) < self.config.tasks and tries < 50 * self.config.tasks:
            tries += 1
            request, path = draw_request(self.config, tree, rng)
            query = say(request, rng.randrange(self.config.wordings), rng.randrange(self.config.wordings))
            query = query[:1].upper() + query[1:]
            if query not in tasks:
                tasks[query] = GeneratedTask(
                    tree.name,
                    len(tasks),
                    query,
                    command(request, path),
                    request=request,
                    path=path,
                    look=look_command(request),
                )
        return list(tasks.values())
