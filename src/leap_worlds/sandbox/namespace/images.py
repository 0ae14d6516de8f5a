"""Images built without Docker: a root file system, then steps run in a sandbox, each a layer, all kept by content."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from leap.core import content_key
from leap.errors import PrerequisiteError
from leap_worlds.sandbox.base import DEFAULT_ENV, Limits, SandboxError
from leap_worlds.sandbox.image import Image, Recipe, Report, Step
from leap_worlds.sandbox.namespace.zygote import remove_tree
from leap_worlds.sandbox.store import LayerStore

if TYPE_CHECKING:
    from leap_worlds.sandbox.namespace.provider import NamespaceProvider

# The network is off: names fail at once instead of after a time-out.
ETC = {"etc/resolv.conf": "nameserver 127.0.0.1\n", "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n"}
BUILD_LIMITS = Limits(memory=2 * 2**30, processes=512, disk=2**30, inodes=1_000_000, cpus=2.0)
FOLDERS = ("tmp", "root", "proc", "sys", "dev", "etc", "usr/bin", "usr/lib", "usr/lib64", "var")
LINKS = {"bin": "usr/bin", "sbin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_PACKED = {b"\x1f\x8b": "--gzip", b"BZh": "--bzip2", b"\xfd7zXZ": "--xz", b"\x28\xb5\x2f\xfd": "--zstd"}


def build(provider: NamespaceProvider, recipe: Recipe, report: Report | None = None) -> Image:
    """Makes the image unless all of it is in the store. Steps run in boxes of the provider's.

    Raises:
        PrerequisiteError: The base cannot be made: a tool, a mirror or a file is missing.
        SandboxError: A step failed or ran out of its time; its last lines of output are in the message.
    """
    if recipe.context or recipe.reference:
        raise PrerequisiteError(
            f"{recipe.reference or recipe.context}: only a container engine can have it; use sandbox: docker."
        )
    users = recipe.users and provider.store.ids is not None
    if recipe.rootfs:
        name = tar_base(recipe.rootfs, provider.store, users=users)
    elif recipe.programs:
        name = machine_base(recipe, provider.store, report)
    else:
        name = debian_base(recipe.packages, provider.store, report, recipe.suite, users=users)
    image = Image(key=name, layers=(name,), users=users)
    for step in recipe.steps:
        image = _step(provider, image, step, report)
    return image


def machine_base(recipe: Recipe, store: LayerStore, report: Report | None) -> str:
    """This machine's own programs: no download, no tool to build with, a few seconds, once. Raises `PrerequisiteError`
    where a program is missing, or none can be told the libraries of."""
    name, files = _collect(recipe.programs, recipe.optional)
    if not store.layer(name).is_dir():
        if report:
            report("making an image of this machine's own programs")
        with tempfile.TemporaryFile() as file:
            _write(file, files)
            _rewind(file)
            _unpack(store, name, file)
    return name


@cache
def _collect(programs: tuple[str, ...], optional: frozenset[str]) -> tuple[str, dict[str, Path]]:
    """The name of the layer of these programs with the libraries that they load, and its files by their places. Another
    version of any of them is another layer. Looked up once a process, for `ldd` takes a second."""
    found = {name: Path(place).resolve() for name in programs if (place := shutil.which(name, path=_PATH))}
    missing = sorted(set(programs) - found.keys() - optional)
    if missing:
        raise PrerequisiteError(
            f"an image of this machine's own programs needs {', '.join(missing)}; install it, or set the environment's option "
            "`image` to small for a Debian made by mmdebstrap."
        )
    if shutil.which("ldd", path=_PATH) is None:
        raise PrerequisiteError(
            "no `ldd` here to find the libraries of programs with; set the option `image` to small."
        )
    libraries = _libraries(found.values())
    files = {f"usr/bin/{name}": path for name, path in found.items()}
    files |= {_merged(library): library.resolve() for library in libraries}
    seen = {place: (str(path), path.stat().st_size, int(path.stat().st_mtime)) for place, path in files.items()}
    return f"machine-{content_key(sorted(seen.items()))}", files


def _write(file: IO[bytes], files: dict[str, Path]) -> None:
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


def debian_base(
    packages: tuple[str, ...],
    store: LayerStore,
    report: Report | None,
    suite: str = Recipe.suite,
    *,
    users: bool = False,
) -> str:
    """Debian with these packages, made by mmdebstrap (a few minutes, once). Raises `PrerequisiteError` where mmdebstrap
    is missing, or Debian's mirror cannot be reached."""
    name = f"debian-{_owned(content_key(suite, packages, ETC), store, users)}"
    if not store.layer(name).is_dir():
        if shutil.which("mmdebstrap") is None:
            raise PrerequisiteError(
                "mmdebstrap is needed to make a Debian image: `sudo apt-get install mmdebstrap uidmap`. Or set "
                "LEAP_ROOTFS to a root file system of your own (`docker export CONTAINER > rootfs.tar`)."
            )
        if report:
            report(f"making a Debian {suite} image with mmdebstrap: a few minutes, once")
        included = [f"--include={','.join(packages)}"] if packages else []
        command = ["mmdebstrap", "--variant=minbase", *included, "--format=tar", suite, "-"]
        with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as maker:
            assert maker.stdout is not None
            _unpack(store, name, maker.stdout, finish=lambda: maker.wait() == 0 or _fail(log), users=users)
    return name


def _owned(key: str, store: LayerStore, users: bool) -> str:
    """A layer's key, of one whose files may be other users' another one: which ids they have is written in it."""
    return f"{key}-{content_key(store.ids)[:8]}" if users else key


def tar_base(path: Path, store: LayerStore, *, users: bool = False) -> str:
    """A root file system from a tar: `docker export`, `podman export`, mmdebstrap; compressed or not. Raises
    `PrerequisiteError` where the file is missing or not a tar."""
    try:
        with path.open("rb") as file:
            name = _owned(_tar_name(path, file, store), store, users)
            if not store.layer(name).is_dir():
                file.seek(0)
                start = file.read(8)
                _rewind(file)
                options = [option for magic, option in _PACKED.items() if start.startswith(magic)]
                _unpack(store, name, file, *options, users=users)
    except OSError as error:
        raise PrerequisiteError(f"{path} cannot be used as a root file system: {error.strerror}") from error
    return name


def _tar_name(path: Path, file: BufferedReader, store: LayerStore) -> str:
    """The layer's name by content; remembered by size and time, for reading 500 MB at each start takes seconds."""
    seen = os.fstat(file.fileno())
    note = store.root / f"tar-{content_key(ascii(str(path.resolve())), seen.st_size, seen.st_mtime_ns, seen.st_ino)}"
    if note.exists():
        return note.read_text()
    name = f"tar-{hashlib.file_digest(file, 'sha256').hexdigest()[:24]}"
    store.prepare()
    note.write_text(name)
    return name


def _step(provider: NamespaceProvider, image: Image, step: Step, report: Report | None) -> Image:
    files = {path: hashlib.sha256(content).hexdigest() for path, content in step.files.items()}
    owned = [step.user, provider.store.ids] if image.users else []
    name = f"step-{content_key(image.key, step.argv, files, dict(step.env), *owned)}"
    made = replace(image, key=name, layers=(name, *image.layers), env={**image.env, **step.env})
    if provider.store.layer(name).is_dir():
        return made
    title = " ".join(step.argv)[:80]
    if report:
        report(f"image step: {title}")
    with provider.create(image, BUILD_LIMITS, on_disk=True) as box:
        for path, content in step.files.items():
            script = 'mkdir -p "${1%/*}/" && cat > "$1" && chmod 755 "$1"'
            result = box.exec(["/bin/sh", "-c", script, "sh", path], input=content)
            if result.exit_code:
                raise SandboxError(f"{path} could not be put into the image: {_tail(result.output)}")
        result = box.exec(step.argv, env={**DEFAULT_ENV, **made.env}, timeout=step.timeout, user=step.user)
        if result.exit_code or result.output_capped:
            why = f"took over {step.timeout:g} s" if result.timed_out else f"ended with status {result.exit_code}"
            raise SandboxError(f"the image step `{title}` {why}: {_tail(result.output)}")
        box.commit(name)
    return made


def _rewind(file: IO[bytes]) -> None:
    """`tar` reads the descriptor, not Python's buffer."""
    file.flush()
    os.lseek(file.fileno(), 0, os.SEEK_SET)


def _unpack(
    store: LayerStore,
    name: str,
    source: IO[bytes],
    *options: str,
    finish: Callable[[], object] = lambda: None,
    users: bool = False,
) -> None:
    """Unpacks a tar into a new layer as the boxes' user: all files are that user's, who is root inside; or, with `users`, those
    of the users that the tar names."""
    store.prepare()
    making = store.layer(f"making-{uuid.uuid4().hex[:16]}")
    making.mkdir()
    user: dict[str, Any] = {}
    inside = _with_users(store) if users else []
    if store.drop_to:
        os.chown(making, *store.drop_to)
    if store.drop_to and not users:
        user = {"user": store.drop_to[0], "group": store.drop_to[1], "extra_groups": []}
    owners = ["--same-owner", "--numeric-owner"] if users else ["--no-same-owner"]
    command = ["tar", "-x", "-p", *owners, *options, "--exclude=./dev/*", "--exclude=dev/*", "-f", "-"]
    try:
        done = subprocess.run(
            [*inside, *command], stdin=source, cwd=making, stderr=subprocess.PIPE, check=False, **user
        )
        finish()
        if done.returncode:
            raise PrerequisiteError(f"the root file system could not be unpacked: {_tail(done.stderr)}")
        _complete(store, making)
        if not store.layer(name).is_dir():  # else another process was faster
            making.rename(store.layer(name))
    finally:
        if users and making.is_dir():
            subprocess.run([*inside, "find", ".", "-mindepth", "1", "-delete"], cwd=making, check=False)
        remove_tree(making)


def _with_users(store: LayerStore) -> list[str]:
    """What stands before a command of the host's, so that it is run as root of the boxes' users."""
    boot = f"import sys; sys.path.append({str(Path(__file__).parents[1])!r}); from namespace import users; users.main()"
    return [sys.executable, "-I", "-S", "-B", "-c", boot, json.dumps({"ids": store.ids, "drop_to": store.drop_to})]


def _complete(store: LayerStore, root: Path) -> None:
    """Puts in what a running container has: mount points, name resolution that fails at once, Docker's marker."""
    for folder in ("dev", "proc", "sys", "etc"):
        if (root / folder).is_symlink():
            raise PrerequisiteError(f"not a root file system: its /{folder} is a link")
        (root / folder).mkdir(exist_ok=True)
    for path, text in {**ETC, ".dockerenv": ""}.items():
        (root / path).unlink(missing_ok=True)
        (root / path).write_text(text)
    for path in ("dev", "proc", "sys", "etc", ".dockerenv", *ETC):
        if store.drop_to:
            os.chown(root / path, *store.drop_to, follow_symlinks=False)


def _fail(log: IO[bytes]) -> None:
    log.seek(0)
    raise PrerequisiteError(f"mmdebstrap failed: {_tail(log.read())}")


def _tail(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:])[-400:] or "no output"
