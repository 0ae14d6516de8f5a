"""Images: the files that a sandbox starts from, and what one is made of, whichever provider makes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Report = Callable[[str], None]
"""Is called with one line of text before something that takes long."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """The files a sandbox starts from. Read-only: an episode never changes them."""

    key: str  # content key of everything it was made from
    layers: tuple[str, ...] = ()  # names of folders in the layer store, topmost first (the `namespace` provider's form)
    reference: str | None = None  # name of a Docker image with the same files, for the `docker` provider
    env: Mapping[str, str] = field(default_factory=dict)  # of every command, beside the default one
    workdir: str = "/"  # where a Dockerfile says that commands run
    user: str = ""  # who a Dockerfile says that they are run by; root if empty. A sandbox does so where it is told
    users: bool = (
        False  # whether its files, and commands, may be other users' than root (the `namespace` provider's boxes)
    )


@dataclass(frozen=True, kw_only=True)
class Step:
    """One layer: files put in place, then a command run."""

    argv: tuple[str, ...]
    files: Mapping[str, bytes] = field(
        default_factory=dict
    )  # absolute path to content; made before the command, mode 755
    env: Mapping[str, str] = field(default_factory=dict)  # from here on, beside the default
    timeout: float = 300.0  # seconds
    user: str = ""  # who runs the command; root if empty


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A Debian with packages, or a root file system of the user's, and steps upon it.

    Attributes:
        packages: Debian packages beside the minimal base. Ignored with `rootfs`.
        suite: Debian's release.
        rootfs: A tar (`docker export`, mmdebstrap; compressed or not) to start from instead.
        programs: Programs of this machine to start from instead, with what they need to run: seconds in place of
            minutes, and nothing to download. Where a provider cannot, the packages.
        optional: Those of `programs` that are left out where this machine has none.
        context: A folder with a Dockerfile to start from instead, which an engine alone can build.
        reference: The name of an image to start from instead, which an engine alone can have.
        network: Whether building the context may use the network.
        users: Whether files and commands may be other users' than root, where the provider can have them.
        steps: In order, each a layer.
    """

    packages: tuple[str, ...] = ()
    suite: str = "bookworm"
    rootfs: Path | None = None
    programs: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()
    context: Path | None = None
    reference: str | None = None
    network: bool = False
    users: bool = False
    steps: tuple[Step, ...] = ()


def own_rootfs() -> Path | None:
    """The tar that all images are to be built on, where `$LEAP_ROOTFS` names one."""
    own = os.environ.get("LEAP_ROOTFS")
    return Path(own) if own else None
