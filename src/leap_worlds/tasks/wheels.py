"""What `pip` and `uv` are asked for by a Dockerfile or by tests, fetched on this machine as wheels: nothing of them is run here.

Beside the wheels lie `uv` itself, of the index like any package, and what takes the place of its installer and of `apt-get`:
so the usual first lines of tests (install curl, fetch uv, `uvx --with pytest ... pytest`) do what they do, without a network.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from leap.core import content_key
from leap.errors import PrerequisiteError
from leap.paths import cache_dir
from leap_worlds.tasks.files import pack

PLACE = "/opt/leap-wheels"
"""Where wheels lie while an image is made, or tests run; programs in `bin` below it."""
SETTINGS = {
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": PLACE,
    "PIP_BREAK_SYSTEM_PACKAGES": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "UV_NO_INDEX": "1",
    "UV_FIND_LINKS": PLACE,
    "UV_OFFLINE": "1",
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_BREAK_SYSTEM_PACKAGES": "1",
    "UV_LINK_MODE": "copy",
}
_INSTALLER = re.compile(r"curl\b[^|&;\n]*\bastral\.sh/uv\b[^|&;\n]*\|\s*(?:\w+=\S+\s+)*(?:ba|da)?sh\b(?: -s)?")
_SECONDS = 600
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[\w,.-]+\])?(?:[=<>!~]=?[\w.*+,!=<>~-]+)?")
_INSTALL = re.compile(
    r"(?P<pip>(?:\S*/)?(?:pip3?|python3?(?:\.\d+)? -m pip|uv pip)(?: -q| --quiet)* install)\b"
    r"|(?P<uv>\buvx|\buv tool run|\buv tool install|\buv run)\b|\buv\b"
)
_FLAGS = (
    "-q -qq --quiet -U --upgrade --no-cache-dir --no-cache --user --break-system-packages --system --compile-bytecode "
    "--disable-pip-version-check --root-user-action=ignore --prefer-binary --force-reinstall -y"
)
_ALONE = frozenset(_FLAGS.split())
_WITH_VALUE = frozenset(("-p", "--python", "--python-version", "--root-user-action", "--timeout", "--retries"))
_OTHERWISE = frozenset(("sync", "lock", "add", "python", "build", "pip"))
"""What `uv` is asked for that needs more than packages by their names."""
_STUBS = {
    "apt-get": "#!/bin/sh\nexit 0 # there is no network\n",
    "apt": "#!/bin/sh\nexit 0 # there is no network\n",
    "curl": f"""#!/bin/sh
case "$*" in *astral.sh/uv*)
  echo 'mkdir -p "$HOME/.local/bin" && cp {PLACE}/bin/uv* "$HOME/.local/bin/" && : > "$HOME/.local/bin/env"'; exit 0;;
esac
PATH=${{PATH#{PLACE}/bin:}} exec curl "$@"
""",
}


def asked_for(script: str, folder: Path | None = None, *, strict: bool = True) -> tuple[str, ...] | None:
    """The requirements of what a script installs by pip or uv.

    Args:
        script: Commands of a shell.
        folder: Where the files lie that `-r` names.
        strict: Whether it is None where the script asks for something else than packages by their names; else that is left out.
    """
    found: list[str] = []
    script = _INSTALLER.sub("uv --version", script)
    for match in _INSTALL.finditer(script):
        words = _words(script[match.end() :])
        if "uv" in match[0]:
            found.append("uv")
        if match[0] == "uv" and strict and words and words[0] in _OTHERWISE:
            return None
        if match["pip"] or match["uv"]:
            named = list(_of_pip(words, folder) if match["pip"] else _of_uv(words, tool=match["uv"] != "uv run"))
            found += [word for word in named if _NAMED.fullmatch(word)]
            if strict and (any(not _NAMED.fullmatch(word) for word in named) or (match["pip"] and not named)):
                return None
    return tuple(dict.fromkeys(found)) or None


def met(script: str) -> str:
    """A script without what `asked_for` has found."""
    return _INSTALL.sub("true", _INSTALLER.sub("true", script))


def _words(rest: str) -> list[str]:
    """The words up to the end of a command."""
    said = re.split(r"&&|\|\||[;|\n]|(?<!\\)&(?!\d)|\s\d?>", rest.replace("\\\n", " "), maxsplit=1)[0]
    try:
        return shlex.split(said)
    except ValueError:
        return said.split()


def _of_pip(words: Sequence[str], folder: Path | None) -> Iterator[str]:
    """Requirements of an install, whatever they are: only names go to pip, for it runs code of folders and addresses."""
    left = iter(words)
    for word in left:
        if word in _WITH_VALUE:
            next(left, None)
        elif word in ("-r", "--requirement"):
            yield from _of_file(next(left, ""), folder)
        elif word not in _ALONE and not word.startswith("--python="):
            yield word


def _of_uv(words: Sequence[str], *, tool: bool) -> Iterator[str]:
    """Requirements of `uvx`, `uv run` and the like: those that are named by options, and the tool where there is one."""
    left = iter(words)
    for word in left:
        if word in ("--with", "-w", "--from"):
            yield from next(left, "").split(",")
        elif found := re.fullmatch(r"(?:--with|--from)=(.+)", word):
            yield from found[1].split(",")
        elif word in _WITH_VALUE:
            next(left, None)
        elif not word.startswith("-"):
            if tool:
                yield word.removesuffix("@latest").replace("@", "==")
            return


def _of_file(name: str, folder: Path | None) -> Iterator[str]:
    """The requirements that a file of the task's names, wherever it lies in the folder."""
    found = [path for path in sorted(folder.rglob(Path(name).name)) if path.is_file()] if folder and name else []
    if len(found) != 1:
        yield f"-r {name}"
        return
    for line in found[0].read_text(encoding="utf-8", errors="replace").splitlines():
        if said := re.sub(r"(?:^|\s)#.*", "", line).strip():
            yield said.replace(" ", "")


def fetched(requirements: Sequence[str], python: str) -> bytes:
    """A tar of wheels and programs for a version of Python, from the index that pip is set up for here; kept, so that it is
    fetched once.

    Raises:
        PrerequisiteError: They cannot be had.
    """
    if not python:
        raise PrerequisiteError(f"{', '.join(requirements)}: the image has no python3 that they could be fetched for")
    kept = cache_dir() / "tasks" / "wheels" / content_key(sorted(requirements), python, _STUBS)
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            made = Path(folder, "made")
            _download(requirements, python, made)
            _add_programs(made)
            if not kept.is_dir():  # else another process was faster
                shutil.move(made, kept)
    return _archive(kept)


@lru_cache(maxsize=4)
def _archive(folder: Path) -> bytes:
    """A folder as a tar: the same for each episode of a data set, as a rule."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        pack(tar, folder, PurePosixPath(PLACE))
    return archive.getvalue()


def _download(requirements: Sequence[str], python: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--python-version", python]
    try:
        done = subprocess.run(
            [*command, "-d", str(folder), "--", *requirements],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            cwd=folder.parent,  # where no file has a name that pip could take for a package of its own
        )
    except subprocess.TimeoutExpired:
        raise PrerequisiteError(f"pip download {' '.join(requirements)}: took over {_SECONDS} s") from None
    if done.returncode:
        lines = done.stderr.splitlines() or ["no message"]
        said = [line for line in lines if "ERROR" in line] or lines
        raise PrerequisiteError(f"pip download {' '.join(requirements)}: {said[-1][:300]}")


def _add_programs(folder: Path) -> None:
    (folder / "bin").mkdir()
    for name, text in _STUBS.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    for wheel in folder.glob("uv-*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if re.fullmatch(r"uv-[^/]+\.data/scripts/uvx?", name):
                    target = folder / "bin" / Path(name).name
                    target.write_bytes(archive.read(name))
                    target.chmod(0o755)
        wheel.unlink()
