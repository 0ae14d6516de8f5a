"""Hooks of the site: a file of the repository that a page links to becomes a page of the site, so that every link is checked.

Markdown stays as it is, pictures are copied, any other text is shown as code, and of a folder the names of its files.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)")
PICTURES = {".png", ".svg"}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".toml": "toml"}
ALWAYS = ("CHANGELOG.md", "CONTRIBUTING.md")
"""Pages that the navigation names."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what pages link to outside of docs/, and what those pages link to in turn."""
    from mkdocs.structure.files import File

    root = Path(config.docs_dir).parent
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()] + list(ALWAYS)
    seen = set(waiting)
    for path in waiting:  # grows
        place = root / path
        text = place.suffix not in PICTURES and place.is_file()
        if not path.startswith("docs/"):
            content = _shown(place) if place.suffix not in PICTURES else place.read_bytes()
            files.append(File.generated(config, _uri(root, path), content=content))
        if place.suffix == ".md" and text:
            for target in _targets(root, path, place.read_text(encoding="utf-8")):
                if target not in seen and not target.startswith("docs/"):
                    seen.add(target)
                    waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Has links lead to where the site has what they name."""
    root, uri = Path(config.docs_dir).parent, page.file.src_uri
    path = uri.removeprefix("repository/") if uri.startswith("repository/") else f"docs/{uri}"

    def there(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link[1]))
        if not (root / target).exists():
            return link[1]
        return posixpath.relpath(_uri(root, target), posixpath.dirname(uri) or ".")

    return LINK.sub(there, markdown)


def _targets(root: Path, path: str, markdown: str) -> Iterator[str]:
    """The files of the repository that a page links to."""
    for link in LINK.findall(markdown):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
        if not target.startswith("..") and (root / target).exists():
            yield target


def _uri(root: Path, path: str) -> str:
    """Where the site has a file of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    place = root / path
    if place.is_dir():
        return f"repository/{path}/index.md"
    return f"repository/{path}" if place.suffix in {".md", *PICTURES} else f"repository/{path}.md"


def _shown(place: Path) -> str:
    """A file or folder of the repository as a page."""
    if place.is_dir():
        names = sorted(one.name for one in place.iterdir() if not one.name.startswith(("__", ".")))
        return "\n".join([f"# {place.name}", "", *(f"* `{name}`" for name in names)])
    text = place.read_text(encoding="utf-8")
    if place.suffix == ".md":
        return text
    return f"# {place.name}\n\n``````{LANGUAGES.get(place.suffix, 'text')}\n{text.rstrip()}\n``````\n"
