"""Dockerfiles as recipes of sandbox images, as far as Debian's packages, wheels and files of the task's give what they ask for.

What needs the network otherwise while it is built (`curl`, other images) cannot be had here; one line says so. Packages are put
into the base, so `apt-get` has nothing left to do: while a RUN is run, a program that does nothing stands in its place.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path, PurePosixPath

from leap_worlds.sandbox.base import ROOT
from leap_worlds.sandbox.image import Recipe, Step
from leap_worlds.tasks.files import pack, pack_content
from leap_worlds.tasks.format import TaskError
from leap_worlds.tasks.ignored import Ignored
from leap_worlds.tasks.wheels import PLACE, SETTINGS, asked_for, met

IGNORED = {"LABEL", "EXPOSE", "CMD", "STOPSIGNAL", "MAINTAINER", "HEALTHCHECK", "VOLUME"}
_PYTHON = ("python3", "python3-pip", "python3-venv", "python-is-python3")
_SITE = 'cd /usr/local/lib/python3.* && ln -sT dist-packages site-packages'
"""Debian's pip puts packages where the images of Python do not, and some tests name the place."""
_UBUNTU = ("procps",)
BASES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("debian:bookworm*", "bookworm", ()),
    ("debian:12*", "bookworm", ()),
    ("debian:trixie*", "trixie", ()),
    ("debian:13*", "trixie", ()),
    ("debian:stable*", "trixie", ()),
    ("debian:latest", "trixie", ()),
    ("ubuntu:22.04", "bookworm", _UBUNTU),
    ("ubuntu:jammy*", "bookworm", _UBUNTU),
    ("ubuntu:24.04", "trixie", _UBUNTU),
    ("ubuntu:noble*", "trixie", _UBUNTU),
    ("ubuntu:latest", "trixie", _UBUNTU),
    ("python:3.11*slim*", "bookworm", _PYTHON),
    ("python:3.13*slim*", "trixie", _PYTHON),
    ("ghcr.io/laude-institute/t-bench/ubuntu-24-04:*", "trixie", (*_UBUNTU, "tmux", "asciinema")),
    ("ghcr.io/laude-institute/t-bench/python-3-13:*", "trixie", (*_PYTHON, "tmux", "asciinema")),
)
"""Names of images, the Debian that stands for each, and the packages that it has beside the minimal ones."""
_NETWORK = re.compile(
    r"(?:^|[;&|(\n]|\bthen\b|\bdo\b)\s*(?:sudo\s+)?(?:[A-Za-z_]\w*=\S*\s+)*"
    r"((?:pip3?|python3? -m pip|uv(?: pip)?|conda|mamba|gem|cargo|go|npm|yarn|pnpm) (?:install|add|get|sync)|"
    r"git clone|curl|wget|npx|add-apt-repository|apk|yum|dnf)\b"
)
_APT = re.compile(r"\b(?:apt-get|apt|aptitude)\b((?:\s+(?:-\S+|\w+=\S+))*)\s+install\b([^;&|\n]*)")
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*(?:=\S+)?")
_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)(?:\s+(.*))?", re.DOTALL)
_VARIABLE = re.compile(r"\\\$|\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})")
_HEREDOC = re.compile(r"(?<!<)<<(-?)(['\"]?)([A-Za-z_]\w*)\2")
_UV_IMAGE = re.compile(r"ghcr\.io/astral-sh/uv(?::([0-9.]+|latest))?")
_STUB = b"#!/bin/sh\nexit 0 # the packages are in the base\n"
_STUBS: tuple[str, ...] = ("/usr/local/sbin/apt-get", "/usr/local/sbin/apt")
_ARCHIVE, _NAMES = "/.leap-files.tar", "/.leap-names"
_NEEDS_USERS = re.compile(
    r"^\s*USER\s|\b(?:useradd|adduser|groupadd|addgroup|chown|chgrp|runuser|setpriv|su|sudo)\b", re.MULTILINE
)


@dataclass(frozen=True)
class Built:
    """What a Dockerfile comes to.

    Attributes:
        recipe: What to build.
        workdir: Where commands run.
        notes: What stands in for something else, for people.
        wheels: What `pip` and `uv` are to find in `wheels.PLACE`.
        user: Who runs them; root if empty.
    """

    recipe: Recipe
    workdir: str
    notes: tuple[str, ...]
    wheels: tuple[str, ...] = ()
    user: str = ""


@dataclass
class _State:
    ignored: Ignored
    env: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = ""
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    steps: list[Step] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    wheels: list[str] = field(default_factory=list)
    network: bool = False
    users: bool = False


def read_dockerfile(
    folder: Path,
    where: str,
    bases: Mapping[str, str],
    timeout: float = 600.0,
    *,
    network: bool = False,
    users: bool = False,
    named: bool = False,
) -> Built:
    """The recipe of a folder's Dockerfile.

    Args:
        folder: The build context, with the Dockerfile.
        where: Names the file in errors.
        bases: What images of some names (patterns) stand on: a tar of a root file system, or `machine`.
        timeout: Seconds for each RUN.
        network: Whether packages that `pip install` names may be fetched on this machine.
        users: Whether there can be users other than root.
        named: Whether the task itself names one.

    Raises:
        TaskError: It asks for what cannot be had here; one line that names file and line.
    """
    try:
        text = (folder / "Dockerfile").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{where}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    base: Recipe | None = None
    notes: list[str] = []
    state = _State(Ignored.read(folder), network=network, users=users)
    for line, word, rest in _instructions(text, where):
        place = f"{where}:{line}"
        if word == "FROM":
            if base is not None:
                raise TaskError(f"{place}: builds of several stages need a container engine (sandbox: docker)")
            base, note = _base(_filled(rest, state), bases, place)
            notes += [f"{place}: {note}"] if note else []
        elif base is None and word != "ARG":
            raise TaskError(f"{place}: {word} before FROM")
        elif word not in IGNORED:
            _take(state, word, rest, place, folder, timeout)
    if base is None:
        raise TaskError(f"{where}: has no FROM")
    if state.packages and (base.rootfs or base.programs):
        notes.append(f"{where}: {' '.join(state.packages)} must be in the image's stand-in already")
    packages = (
        () if base.rootfs or base.programs else tuple(dict.fromkeys((*base.packages, *sorted(set(state.packages)))))
    )
    if state.wheels:
        _add(state, ("/bin/rm", "-rf", PLACE), timeout)
    # Whatever Debian's packages do may need their users; this machine's own programs are for tasks that are made here.
    others = users and (named or not base.programs or _NEEDS_USERS.search(text) is not None)
    if others and base.programs:
        base = replace(base, programs=(*base.programs, *_ACCOUNTS), optional=base.optional | {*_ACCOUNTS})
        argv = ("/bin/sh", "-c", f"chmod 1777 /tmp && chmod 644 {' '.join(_TABLES)}")
        state.steps.insert(0, Step(argv=argv, files=_TABLES, timeout=timeout))
    recipe = replace(base, packages=packages, steps=(*base.steps, *state.steps), users=others)
    return Built(recipe, state.workdir, tuple(notes), tuple(dict.fromkeys(state.wheels)), state.user)


def _instructions(text: str, where: str) -> Iterator[tuple[int, str, str]]:
    """Line number, word and the rest of each instruction; lines that end in a backslash are one with the next, and
    here-documents stand behind it."""
    said, begun = "", 0
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        if line.lstrip().startswith("#") or (not line.strip() and said):
            continue
        begun = begun or number
        if line.rstrip().endswith("\\"):
            said += line.rstrip()[:-1] + "\n"
            continue
        said, whole, first, begun = "", said + line, begun, 0
        if not whole.strip():
            continue
        found = _INSTRUCTION.fullmatch(whole)
        if found is None:
            raise TaskError(f"{where}:{first}: {whole.strip()[:60]!r} is no instruction")
        word, documents = found[1].upper(), ""
        for tabs, _, end in _HEREDOC.findall(whole) if word in ("RUN", "COPY", "ADD") else ():
            body = list(_until(lines, end, tabs))
            if not body or body[-1] != end:
                raise TaskError(f"{where}:{first}: the here-document {end} has no end")
            documents += "".join(f"\n{line}" for line in body)
        yield first, word, " ".join((found[2] or "").split("\n")).strip() + documents


def _until(lines: Iterator[tuple[int, str]], end: str, tabs: str) -> Iterator[str]:
    """The lines of a here-document, its last one with them."""
    for _, line in lines:
        told = line.lstrip("\t") if tabs else line
        yield told
        if told == end:
            return


def _base(said: str, bases: Mapping[str, str], place: str) -> tuple[Recipe, str]:
    """What an image's name stands for, and what to note of it."""
    words = [word for word in said.split() if not word.startswith("--")]
    image = words[0] if words else ""
    name = image.partition("@")[0].removeprefix("docker.io/").removeprefix("library/")
    name = name if ":" in name else f"{name}:latest"
    for pattern, stands in bases.items():
        if fnmatchcase(name, pattern) or fnmatchcase(image, pattern):
            if stands == "machine":
                return Recipe(programs=PROGRAMS, optional=OPTIONAL_PROGRAMS), f"{image} is this machine's own programs"
            return Recipe(rootfs=Path(stands)), f"{image} is {stands}"
    for pattern, suite, packages in BASES:
        if fnmatchcase(name, pattern):
            exact = name.startswith("debian:")
            steps = (Step(argv=("/bin/sh", "-c", _SITE)),) if "python3-pip" in packages else ()
            return Recipe(
                suite=suite, packages=packages, steps=steps
            ), "" if exact else f"{image} is Debian {suite} with its own packages"
    known = ", ".join(dict.fromkeys(pattern.rstrip("*") for pattern, *_ in BASES))
    raise TaskError(
        f"{place}: no stand-in for the image {image!r}; known are {known}. Give a tar of it (option bases), or use docker"
    )


def _take(state: _State, word: str, rest: str, place: str, folder: Path, timeout: float) -> None:
    if word == "ARG":
        name, _, value = rest.partition("=")
        state.arguments.setdefault(name.strip(), _unquoted(_filled(value, state)))
    elif word == "ENV":
        state.env |= _assigned(rest, state, place)
    elif word == "WORKDIR":
        state.workdir = str(PurePosixPath(state.workdir) / _unquoted(_filled(rest, state)))
        _workdir(state, timeout)
    elif word == "USER":
        user = _filled(rest, state).strip()
        state.user = "" if user in ROOT else user
        if state.user and not state.users:
            raise TaskError(f"{place}: USER {rest}: a box has no user but root here (`leap doctor` says why)")
    elif word == "SHELL":
        state.shell = tuple(_listed(rest) or ())
        if not state.shell:
            raise TaskError(f'{place}: SHELL needs a list, such as ["/bin/bash", "-c"]')
    elif word == "RUN":
        _run(state, rest, place, folder, timeout)
    elif word in ("COPY", "ADD"):
        _copy(state, word, rest, place, folder, timeout)
    elif word == "ENTRYPOINT":
        raise TaskError(f"{place}: ENTRYPOINT: a box starts with nothing running; use sandbox: docker")
    else:
        raise TaskError(f"{place}: {word} is not supported; use sandbox: docker")


def _workdir(state: _State, timeout: float) -> None:
    """Makes the working directory, whose it is if it is not there."""
    argv = ("/bin/mkdir", "-p", state.workdir)
    if state.user:
        argv = (
            "/bin/sh",
            "-c",
            '[ -d "$1" ] || { mkdir -p "$1" && chown "$2" "$1"; }',
            "sh",
            state.workdir,
            state.user,
        )
    _add(state, argv, timeout)


def _add(
    state: _State, argv: tuple[str, ...], timeout: float, files: Mapping[str, bytes] | None = None, user: str = ""
) -> None:
    state.steps.append(Step(argv=argv, files=files or {}, env=dict(state.env), timeout=timeout, user=user))


def _run(state: _State, rest: str, place: str, folder: Path, timeout: float) -> None:
    if rest.startswith("--"):
        raise TaskError(f"{place}: RUN {rest.split()[0]} needs a container engine (sandbox: docker)")
    argv = _listed(rest)
    script = shlex.join(argv) if argv else rest
    head, _, documents = rest.partition("\n")
    if _HEREDOC.fullmatch(head):  # the document is the script
        script = rest = documents.rpartition("\n")[0]
    wheels = asked_for(script, folder) if state.network else None
    unmet = met(script) if wheels else script
    if found := _NETWORK.search(unmet):
        raise TaskError(
            f"{place}: `{found[1]}` needs the network, which a box that is built has not; "
            "allow build_network for packages of pip's by name, use sandbox: docker, or give the image as a tar (option bases)"
        )
    for package in packages_of(script):
        if not PACKAGE.fullmatch(package):
            raise TaskError(f"{place}: the package {package!r} cannot be read; write its name")
        state.packages.append(package.partition("=")[0])
    values = "".join(
        f"{name}={shlex.quote(value)}; export {name}; "
        for name, value in state.arguments.items()
        if name not in state.env
    )
    state.wheels += wheels or ()
    if wheels:
        values += f"export {shlex.join(f'{name}={value}' for name, value in SETTINGS.items())} PATH={PLACE}/bin:$PATH; "
    inner = shlex.join(argv) if argv else shlex.join([*state.shell, rest])
    moved = f"{values}cd {shlex.quote(state.workdir)} && {inner}"
    has_apt = "apt" in script and not state.user
    cleared = f"; code=$?; rm -f {' '.join(_STUBS)}; exit $code" if has_apt else ""
    stubs = dict[str, bytes].fromkeys(_STUBS, _STUB) if has_apt else None
    _add(state, ("/bin/sh", "-c", moved + cleared), timeout, stubs, state.user)


def packages_of(script: str) -> Iterator[str]:
    """What a script has apt-get install, with versions as they stand."""
    for found in _APT.finditer(script):
        words = re.sub(r"(?:^|\s)(?:-[tco]\s*\S+|\d?>\s*\S*)", " ", found[2]).split()
        yield from (word for word in words if not word.startswith("-"))


def _copy(state: _State, word: str, rest: str, place: str, folder: Path, timeout: float) -> None:
    mode: int | None = None
    owner = ""
    said, *documents = rest.split("\n")
    lines, source_image = iter(documents), ""
    while flag := re.match(r"--(\w+)(?:=(\S+))?\s+", said):
        if flag[1] == "chmod" and re.fullmatch(r"[0-7]{3,4}", flag[2] or ""):
            mode = int(flag[2], 8)
        elif flag[1] == "from" and state.network and (uv := _UV_IMAGE.fullmatch(flag[2] or "")):
            tag = uv[1] or "latest"
            source_image = "uv" if tag == "latest" else f"uv=={tag}{'' if tag.count('.') == 2 else '.*'}"
        elif flag[1] == "chown" and flag[2] and (state.users or flag[2] in ROOT):
            owner = "" if flag[2] in ROOT else _filled(flag[2], state)
        else:
            raise TaskError(f"{place}: {word} --{flag[1]} needs a container engine (sandbox: docker)")
        said = said[flag.end() :]
    words = _listed(said) or [_unquoted(part) for part in said.split()]
    words = [_filled(part, state) for part in words]
    if len(words) < 2:
        raise TaskError(f"{place}: {word} needs what to copy and where to")
    *sources, target = words
    remote = [source for source in sources if "://" in source or source.startswith("git@")]
    if word == "ADD" and (remote or any(re.search(r"\.(tar|tgz|tar\.\w+)$", source) for source in sources)):
        raise TaskError(f"{place}: ADD of an address or an archive needs a container engine (sandbox: docker)")
    into = target.endswith("/") or target in (".", "") or len(sources) > 1
    end = PurePosixPath(state.workdir) / target
    if source_image:
        state.wheels.append(source_image)
        taken = shlex.join(f"{PLACE}/bin/{PurePosixPath(source).name}" for source in sources)
        script = f"mkdir -p {shlex.quote(str(end if into else end.parent))} && cp {taken} {shlex.quote(str(end))}"
        return _add(state, ("/bin/sh", "-c", script), timeout)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for source in sources:
            if document := _HEREDOC.fullmatch(source):
                body = "".join(f"{line}\n" for line in takewhile(lambda line, end=document[3]: line != end, lines))
                content = (body if document[2] else _filled(body, state)).encode()
                pack_content(tar, content, end / document[3] if into else end, mode or 0o644)
                continue
            for path in _matched(folder, source, place):
                if path.is_dir():
                    pack(tar, path, end, mode, state.ignored.hides)
                elif not state.ignored.hides(path):
                    pack(tar, path, end / path.name if into else end, mode)
        names = "".join(f"{name}\0" for name in tar.getnames() if name != str(end).lstrip("/"))
    files = {_ARCHIVE: archive.getvalue()}
    script = f"tar -C / --no-overwrite-dir -xf {_ARCHIVE} && rm {_ARCHIVE}"
    if not owner:
        return _add(state, ("/bin/sh", "-c", script), timeout, files)
    files[_NAMES] = names.encode()
    owns = f'cd / && xargs -0 -r chown -h -- "$1" < {_NAMES} && rm {_NAMES}'  # a folder that was there stays whose it is
    script = f'[ -d "$2" ] && old=1; {script} && {owns} && {{ [ -n "$old" ] || [ ! -e "$2" ] || chown -h -- "$1" "$2"; }}'
    owner = owner if ":" in owner else f"{owner}:{owner if owner.isdigit() else ''}"
    _add(state, ("/bin/sh", "-c", script, "sh", owner, str(end)), timeout, files)


def _matched(folder: Path, source: str, place: str) -> list[Path]:
    pattern = source.strip("/").removeprefix("./")
    found = [folder] if pattern in ("", ".") else sorted(folder.glob(pattern))
    if not found:
        raise TaskError(f"{place}: there is no {source} in {folder.name}/")
    for path in found:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise TaskError(f"{place}: {source} leads out of {folder.name}/")
    return found


def _assigned(said: str, state: _State, place: str) -> dict[str, str]:
    """The variables of an ENV: `A=1 B="x y"`, or `A the rest`."""
    if not re.match(r"\w+=", said):
        name, _, value = said.partition(" ")
        return {name: _filled(value.strip(), state)}
    try:
        words = shlex.split(said)
    except ValueError:
        raise TaskError(f"{place}: ENV {said[:60]!r} cannot be read") from None
    pairs = (word.partition("=") for word in words)
    return {name: _filled(value, state) for name, _, value in pairs}


def _filled(text: str, state: _State) -> str:
    """A text with its variables put in."""
    values = {**state.arguments, **state.env}

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name is None:
            return "$"
        known = values.get(name, "")
        if found[3] == "-":
            return known or found[4]
        return (found[4] if known else "") if found[3] == "+" else known

    return _VARIABLE.sub(value, text)


def _listed(text: str) -> list[str] | None:
    """The words of a JSON list; None of any other text."""
    try:
        words = json.loads(text) if text.startswith("[") else None
    except ValueError:
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


_OURS = (
    "bash sh ls cat echo rm mkdir rmdir mv cp ln chmod chown touch head tail true false id env sort uniq wc cut tr tac nl tee "
    "paste comm join seq du stat readlink dirname basename md5sum sha256sum base64 od mktemp date expr test find xargs grep sed "
    "tar gzip sleep timeout mkfifo setsid printf awk tree ps cmp diff"
)
PROGRAMS = tuple(_OURS.split())
"""Of this machine's own, where `machine` stands for an image."""
_ACCOUNTS = ("useradd", "groupadd", "usermod")
_TABLES = {"/etc/passwd": b"root:x:0:0:root:/root:/bin/bash\n", "/etc/group": b"root:x:0:\n"}
"""What is added to them for an image with other users than root."""
OPTIONAL_PROGRAMS = frozenset({"tree", "awk", "ps", "cmp", "diff"})
