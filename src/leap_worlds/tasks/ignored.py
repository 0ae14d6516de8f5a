""".dockerignore: which files of a folder an image is made without."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_PARTS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True)
class Ignored:
    """The patterns of a folder's .dockerignore, in order: the last that matches a file decides.

    Attributes:
        folder: The build context.
        patterns: Of paths below it, and whether each is an exception.
    """

    folder: Path
    patterns: tuple[tuple[re.Pattern[str], bool], ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Ignored:
        """That of a folder; hides nothing where there is none."""
        try:
            lines = (folder / ".dockerignore").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return cls(folder)
        said = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        return cls(folder, tuple((_regex(line.removeprefix("!")), line.startswith("!")) for line in said))

    def hides(self, path: Path) -> bool:
        """Whether an image is made without a file or folder of the build context."""
        name, hidden = path.relative_to(self.folder).as_posix(), False
        for pattern, exception in self.patterns:
            if pattern.fullmatch(name):
                hidden = not exception
        return hidden


def _regex(pattern: str) -> re.Pattern[str]:
    """A pattern of paths as a regular expression; what is below a folder that matches does, too."""
    bare = pattern.strip().strip("/").removeprefix("./")
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])", bare)
    told = "".join(
        _PARTS.get(part) or (part.replace("[^", "[^/") if re.fullmatch(r"\[.+\]", part) else re.escape(part))
        for part in parts
    )
    try:
        return re.compile(f"{told}(?:/.*)?")
    except re.error:  # an odd class of letters: as it stands
        return re.compile(f"{re.escape(bare)}(?:/.*)?")
