"""A recipe as what an engine builds."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from leap.core import content_key
from leap_worlds.sandbox.image import Recipe, Step

MARKER = "/usr/share/leap-image"  # in an ignored folder: upstream's git does not see it
FROM = "docker.io/library/debian"  # in full: Podman asks which registry otherwise


def rootfs_name(rootfs: Path) -> str:
    """The name a tar is imported by: by path, size and time."""
    seen = rootfs.stat()
    return f"leap-rootfs:{content_key(ascii(str(rootfs.resolve())), seen.st_size, seen.st_mtime_ns)}"


def base_dockerfile(packages: tuple[str, ...], suite: str = Recipe.suite) -> str:
    """Debian with these packages: the one part that needs a network."""
    if not packages:
        return f"FROM {FROM}:{suite}-slim\n"
    return (
        f"FROM {FROM}:{suite}-slim\n"
        "RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "
        f"{shlex.join(packages)} && rm -rf /var/lib/apt/lists/*\n"
    )


def steps_dockerfile(
    base: str, steps: tuple[Step, ...], *, foreign: str = ""
) -> tuple[str, dict[str, bytes], dict[str, str]]:
    """Steps on a base as Dockerfile text, the files it copies, and the environment it ends with.

    A running container has /.dockerenv, mode 755. Not every builder has it while it builds, and then InterCode's git
    would find a new file in each episode: so it is put into the image. `foreign` is the id of a base that is not leap's own:
    what its name stands for may change, and its user may be another than root.
    """
    lines = [
        f"FROM {base}",
        *([f"LABEL leap.from={foreign}", "USER 0"] if foreign else []),
        "COPY dockerenv /.dockerenv",
        f"COPY key {MARKER}",
    ]
    files: dict[str, bytes] = {"dockerenv": b""}
    env: dict[str, str] = {}
    for step in steps:
        for name, value in step.env.items():
            lines.append(f"ENV {name}={_literal(value)}")
            env[name] = value
        for path, content in step.files.items():
            name = f"file-{len(files)}"
            files[name] = content
            lines.append(f"COPY {json.dumps([name, path])}")
        run = f"RUN {json.dumps(step.argv)}"
        lines += [f"USER {step.user}", run, "USER 0"] if step.user else [run]
    return "\n".join([*lines, "WORKDIR /", ""]), files, env


def _literal(value: str) -> str:
    return '"' + "".join(f"\\{letter}" if letter in '\\"$' else letter for letter in value) + '"'


def folder_key(folder: Path) -> str:
    """Content key of a build context."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or path.is_file():
            content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
            mode = 0 if path.is_symlink() else path.stat().st_mode & 0o777
            digest.update(f"{path.relative_to(folder).as_posix()}\0{mode:o}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def build_folder(folder: Path, text: str, files: Mapping[str, bytes]) -> None:
    """Writes what `docker build` is given. A copied file keeps its mode."""
    for name, content in {**files, "Dockerfile": text.encode()}.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o755)
