"""InterCode's images: what is in them, how the four file systems are put on them, and boxes of them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from leap.envs.base import Progress
from leap_worlds.intercode.base import Boxes
from leap_worlds.intercode.data import FILE_SYSTEMS, IntercodeData
from leap_worlds.sandbox.base import open_provider
from leap_worlds.sandbox.image import Image, Recipe, Report, Step

# What InterCode's Dockerfile installs, and procps, which Ubuntu's base has and Debian's lacks.
TOOLS = (
    *("bash", "python3", "psmisc", "bsdmainutils", "cron", "imagemagick", "dnsutils", "git", "tree", "net-tools"),
    *("iputils-ping", "coreutils", "curl", "cpio", "jq", "procps"),
)
LARGE = ("imagemagick",)
"""Two fifths of the size, and no task's gold uses it."""

PROGRAMS = (
    *("bash", "sh", "ls", "cat", "echo", "rm", "mkdir", "rmdir", "mv", "cp", "ln", "chmod", "touch", "head", "tail", "true"),
    *("false", "id", "env", "sort", "uniq", "wc", "cut", "tr", "tac", "rev", "nl", "tee", "paste", "comm", "join", "seq", "du"),
    *("stat", "readlink", "dirname", "basename", "md5sum", "sha256sum", "find", "xargs", "grep", "sed", "diff", "tar", "git"),
    *("sleep", "kill", "awk", "tree"),
)
"""Of a machine's own, for an image without a download. `git` is what the reward is told by."""
OPTIONAL_PROGRAMS = frozenset({"rev", "awk", "tree"})
"""Left out where the machine has none."""

# Upstream's `docker.gitignore`: no leading slash, so these names are ignored at any depth.
IGNORED = "bin boot dev etc home lib media opt proc root run sbin srv sys usr var".split()  # noqa: SIM905

ImageKind = Literal["full", "small", "machine"]
"""full: Debian with upstream's packages; small: without the largest of them; machine: this machine's own programs."""


def intercode_recipe(setup: bytes, number: int | str, *, kind: ImageKind = "full") -> Recipe:
    """InterCode's Bash image (upstream's `nl2bash.Dockerfile`): set-up and first commit, then the state that upstream's
    first `git clean` leaves: empty untracked folders, /tmp and /mnt among them, are gone.

    Args:
        setup: Content of `setup_nl2b_fs_N.sh`. Its exit status does not count: upstream's scripts have bad lines.
        number: N, 1 to 4, or the name of a file system of one's own.
        kind: What the file system is put on.
    """
    script = f"setup_nl2b_fs_{number}.sh"
    commit = (
        f"cd / && bash /{script}; git config --global user.email intercode@example.com && "
        "git config --global user.name intercode && git init -q && git add -A && git commit -qm initial"
    )
    # Refreshed first: an engine's layers have new inodes, for which git would write every file anew, and with it its time
    clean = "cd / && git update-index -q --refresh; git reset -q --hard && git clean -fdq"
    files = {f"/{script}": setup, "/.gitignore": ("\n".join(IGNORED) + "\n").encode()}
    env = {"file_system_version": str(number), "script": script}
    return Recipe(
        packages=tuple(tool for tool in TOOLS if kind == "full" or tool not in LARGE),
        programs=PROGRAMS if kind == "machine" else (),
        optional=OPTIONAL_PROGRAMS,
        steps=(
            Step(argv=("/bin/bash", "-c", commit), files=files, env=env),
            Step(argv=("/bin/bash", "-c", clean), env=env),
        ),
    )


def generated_recipe(setup: str, *, kind: ImageKind) -> Recipe:
    """The image of a generated file system: as `intercode_recipe`, in one layer."""
    recipe = intercode_recipe(setup.encode(), "generated", kind=kind)
    first, second = recipe.steps
    both = f"{first.argv[-1]} && {second.argv[-1]}"
    return replace(recipe, steps=(replace(first, argv=(*first.argv[:-1], both)),))


def open_boxes(
    sandbox: str, recipe: Callable[[int | str], Recipe], first: Sequence[int | str], progress: Progress | None
) -> Boxes:
    """Boxes of a registered sandbox (`auto`: the first that works here). The image of a file system is made when it is
    first asked for, those of the `first` at once, unless it is in the cache.

    Raises:
        PrerequisiteError: No sandbox works here, or an image cannot be made; the message says what to do.
    """
    provider = open_provider(sandbox)
    made: dict[int | str, Image] = {}
    locks: defaultdict[int | str, threading.Lock] = defaultdict(threading.Lock)

    def image_of(name: int | str, report: Report | None = None) -> Image:
        with locks[name]:  # who asks for one that is being made waits for it
            if name not in made:
                made[name] = provider.build(recipe(name), report=report)
            return made[name]

    for done, name in enumerate(first):

        def report(said: str, done: int = done, name: int | str = name) -> None:
            if progress is not None:
                progress(done, len(first), f"file system {name}: {said}")

        image_of(name, report)
    return Boxes(lambda name: provider.create(image_of(name)), provider.name, provider.close)


def upstream_boxes(
    sandbox: str, data: IntercodeData, kind: ImageKind, progress: Progress | None, first: Sequence[int] = FILE_SYSTEMS
) -> Boxes:
    """Boxes of upstream's file systems; see `open_boxes`."""

    def recipe(number: int | str) -> Recipe:
        return intercode_recipe(data.setup_script(number).read_bytes(), number, kind=kind)

    return open_boxes(sandbox, recipe, first, progress)
