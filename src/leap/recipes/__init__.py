"""The recipes that come with leap, found by name: `quickstart` is `quickstart.yaml` in this folder."""

from __future__ import annotations

from pathlib import Path

from leap.errors import RecipeError, suggest

FOLDER = Path(__file__).parent
"""Holds the recipes; `accelerate/` beside them holds launch configurations, `clusters/` files for clusters and clouds."""


def shipped_recipes() -> dict[str, Path]:
    """The files of the recipes that come with leap, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def find_recipe(name: str, *, beside: Path | None = None) -> Path:
    """The file of a recipe, given by its path or by the name of one that comes with leap.

    Args:
        name: A path, or a name such as `quickstart`. A file of that path goes before a shipped recipe of that name.
        beside: Folder that a relative path starts from; the present folder by default.

    Raises:
        RecipeError: There is no such file and no such recipe.
    """
    path = beside / name if beside else Path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    stem = name.removesuffix(".yaml").removesuffix(".yml")
    if stem in shipped and Path(name).name == name:
        return shipped[stem]
    why = "that is a folder" if path.is_dir() else "no such file"
    meant = suggest(Path(stem).name, shipped) or f" leap has: {', '.join(shipped)}."
    raise RecipeError(f"there is no recipe {name!r}: {why}, and no recipe of that name comes with leap.{meant}")


def about(path: Path) -> str:
    """What a recipe says of itself: the comment at its head, up to its first full stop."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    text = " ".join(lines)
    return text[: text.index(". ") + 1] if ". " in text else text
