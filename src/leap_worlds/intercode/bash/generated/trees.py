"""Generated file systems."""

from __future__ import annotations

import random
import shlex
from dataclasses import dataclass
from functools import cached_property

from leap_worlds.intercode.bash.generated.config import BashFamilyConfig


@dataclass(frozen=True)
class Tree:
    """A file system: one folder at the root with folders in it, and files in those."""

    name: str  # the split and a number
    root: str  # the folder at the root, `/depot`
    files: dict[str, tuple[str, ...]]  # contents by path, line by line, in the order of paths

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """Paths of the folders, sorted."""
        return tuple(sorted({path.rpartition("/")[0] for path in self.files}))

    def inside(self, folder: str) -> list[str]:
        """Paths of a folder's files, sorted."""
        return [path for path in self.files if path.rpartition("/")[0] == folder]

    def size(self, path: str) -> int:
        """Bytes."""
        return sum(len(line) + 1 for line in self.files[path])

    def holders(self, text: str) -> list[str]:
        """Files with a line that holds a text."""
        return [path for path, lines in self.files.items() if any(text in line for line in lines)]

    def script(self) -> str:
        """The set-up script, as upstream's `setup_nl2b_fs_N.sh`."""
        lines = ["#!/bin/bash", *(f"mkdir -p {folder}" for folder in self.folders)]
        for path, content in self.files.items():
            lines.append(f"printf '%s\\n' {' '.join(shlex.quote(line) for line in content)} > {path}")
        return "\n".join(lines) + "\n"


def stream(config: BashFamilyConfig, *names: object) -> random.Random:
    """A source of randomness of its own for each use, so that one more task changes no other."""
    return random.Random("/".join(map(str, ("bash", config.seed, *names))))


def draw_tree(config: BashFamilyConfig, split: str, number: int) -> Tree:
    """One of a split's file systems."""
    rng = stream(config, split, number, "tree")
    lexicon = config.lexicon
    root = f"/{rng.choice(lexicon.roots)}"
    folders = sorted(rng.sample(lexicon.folders, rng.randint(*config.folders)))
    files: dict[str, tuple[str, ...]] = {}
    stems = rng.sample(lexicon.stems, len(folders) * config.files[1])
    rare = rng.sample(lexicon.rare, 6)
    for folder in folders:
        for _ in range(rng.randint(*config.files)):
            # The same stem may come again with another ending, so that a name is no use by its beginning.
            again = rng.random() >= 0.85 and bool(files)
            stem = rng.choice(sorted(files)).rpartition("/")[2].split(".")[0] if again else stems.pop()
            free = [e for e in lexicon.endings if all(path.rpartition("/")[2] != f"{stem}.{e}" for path in files)]
            if not free:
                stem, free = stems.pop(), lexicon.endings
            files[f"{root}/{folder}/{stem}.{rng.choice(free)}"] = tuple(
                " ".join(rng.sample(lexicon.words, rng.randint(2, 3))) for _ in range(rng.randint(*config.lines))
            )
    for word in rare:  # each in one line of one file
        path = rng.choice(sorted(files))
        lines = list(files[path])
        place = rng.randrange(len(lines))
        lines[place] = f"{lines[place].split()[0]} {word}"
        files[path] = tuple(lines)
    for path in rng.sample(sorted(files), 2):  # two notes that name a file
        files[path] = (rng.choice([other for other in sorted(files) if other != path]),)
    return Tree(f"{split}-{number:03}", root, dict(sorted(files.items())))
