"""`leap init`: a package with an environment of one's own to start from."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from typing import Annotated

import typer

from leap.errors import PrerequisiteError, RecipeError

_STARTER = Path(__file__).parent / "starter"


def init(folder: Annotated[Path, typer.Argument(help="Folder to make; its name is the environment's.")]) -> None:
    """Write a package with an environment, a test, a recipe and a README, to make your own."""
    from leap.policies.templating import load_template

    name = folder.resolve().name
    module = name.replace("-", "_").replace(".", "_")
    if not re.fullmatch(r"[a-z][a-z0-9._-]*", name) or keyword.iskeyword(module) or module == "leap":
        raise RecipeError(
            f"{name!r} cannot name a package: use small letters, digits and hyphens, a letter first, and no word of Python."
        )
    if folder.exists() and any(folder.iterdir()):
        raise PrerequisiteError(f"{folder} is not empty; choose another folder.")
    values = {"name": name, "module": module, "cls": "".join(part.title() for part in module.split("_"))}
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "recipe.yaml": "recipe.yaml",
        "environment.py": f"{module}.py",
        "test_environment.py": f"tests/test_{module}.py",
    }
    for template, path in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        text = load_template(f"{template}.j2", _STARTER).render(values)
        (folder / path).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        typer.echo(f"wrote {folder / path}")
    typer.echo(f"Now: cd {folder}, pip install -e '.[dev]', pytest, leap play {name}; README.md says more.")
