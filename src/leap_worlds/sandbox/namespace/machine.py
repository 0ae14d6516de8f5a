"""A root file system made of this machine's own programs: no download, no tool to build with, a few seconds, once."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import IO

from leap.core import content_key
from leap.errors import PrerequisiteError

FOLDERS = ("tmp", "root", "proc", "sys", "dev", "etc", "usr/bin", "usr/lib", "usr/lib64", "var")
LINKS = {"bin": "usr/bin", "sbin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

@cache
def collect(programs: tuple[str, ...], optional: frozenset[str]) -> tuple[str, dict[str, Path]]:
    """The layer of these programs with the libraries that they load: its name, and the files by their places in it. Another
    version of any of them is another layer. Looked up once a process, for `ldd` takes a second.

    Args:
        programs: Names; those that the machine lacks are an error.
        optional: Those that are left out where the machine lacks them.

    Raises:
        PrerequisiteError: A program is missing, or none can be told the libraries of.
    """
    found = {name: Path(place).resolve() for name in programs if (place := shutil.which(name, path=_PATH))}
    missing = sorted(set(programs) - found.keys() - optional)
    if missing:
        raise PrerequisiteError(
            f"an image of this machine's own programs needs {', '.join(missing)}; install it, or set the environment's option "
            "`image` to small for a Debian made by mmdebstrap."
        )
    if shutil.which("ldd", path=_PATH) is None:
        raise PrerequisiteError("no `ldd` here to find the libraries of programs with; set the option `image` to small.")
    libraries = _libraries(found.values())
    files = {f"usr/bin/{name}": path for name, path in found.items()}
    files |= {_merged(library): library.resolve() for library in libraries}
    seen = {place: (str(path), path.stat().st_size, int(path.stat().st_mtime)) for place, path in files.items()}
    return f"machine-{content_key(sorted(seen.items()))}", files


def write(file: IO[bytes], files: dict[str, Path]) -> None:
    """Writes the layer as a tar."""
    with tarfile.open(fileobj=file, mode="w") as tar:
        for folder in FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for link, target in LINKS.items():
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        for place, path in sorted(files.items()):
            tar.add(path, place, recursive=False)


def _merged(library: Path) -> str:
    """Where a library goes: /lib and /lib64 are links into /usr there, as on most systems of today."""
    place = str(library).lstrip("/")
    return f"usr/{place}" if place.startswith("lib") else place


def _libraries(programs: Iterable[Path]) -> list[Path]:
    """What `ldd` names: libraries by their paths, the loader among them. Scripts have none."""
    done = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False)
    found = re.findall(r"(/\S+) \(0x", done.stdout)
    return sorted({Path(word) for word in found})
