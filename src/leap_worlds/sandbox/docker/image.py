"""A recipe as what an engine builds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from leap.core import content_key
from leap_worlds.sandbox.image import Step

MARKER = "/usr/share/leap-image"  # in an ignored folder: upstream's git does not see it
FROM = "docker.io/library/debian:bookworm-slim"  # in full: Podman asks which registry otherwise


def rootfs_name(rootfs: Path) -> str:
    """The name a tar is imported by: by path, size and time."""
    seen = rootfs.stat()
    return f"leap-rootfs:{content_key(ascii(str(rootfs.resolve())), seen.st_size, seen.st_mtime_ns)}"


def base_dockerfile(packages: tuple[str, ...]) -> str:
    """Debian with these packages: the one part that needs a network."""
    return (
        f"FROM {FROM}\nRUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "
        f"{shlex.join(packages)} && rm -rf /var/lib/apt/lists/*\n"
    )


def steps_dockerfile(base: str, steps: tuple[Step, ...]) -> tuple[str, dict[str, bytes], dict[str, str]]:
    """Steps on a base as Dockerfile text, the files it copies, and the environment it ends with.

    A running container has /.dockerenv, mode 755. Not every builder has it while it builds, and then InterCode's git
    would find a new file in each episode: so it is put into the image.
    """
    lines = [f"FROM {base}", "COPY dockerenv /.dockerenv", f"COPY key {MARKER}"]
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
        lines.append(f"RUN {json.dumps(step.argv)}")
    return "\n".join([*lines, "WORKDIR /", ""]), files, env


def _literal(value: str) -> str:
    return '"' + "".join(f"\\{letter}" if letter in '\\"$' else letter for letter in value) + '"'


def build_folder(folder: Path, text: str, files: Mapping[str, bytes]) -> None:
    """Writes what `docker build` is given. A copied file keeps its mode."""
    for name, content in {**files, "Dockerfile": text.encode()}.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o755)
