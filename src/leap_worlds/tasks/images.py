"""The images of tasks: made when they are first needed, once each, by whatever sandbox there is."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from leap_worlds.sandbox import Image, Limits, Recipe, Sandbox, SandboxProvider, open_provider
from leap_worlds.sandbox.base import ROOT, SandboxError
from leap_worlds.sandbox.image import Report, Step
from leap_worlds.tasks.dockerfile import PACKAGE, Built, packages_of, read_dockerfile
from leap_worlds.tasks.folder import Phase, TaskFolder
from leap_worlds.tasks.format import SCHEMAS, Machine, TaskError
from leap_worlds.tasks.wheels import asked_for, fetched

log = logging.getLogger(__name__)

_WHEELS = "/.leap-wheels.tar"


class Images:
    """Boxes for tasks.

    Args:
        sandbox: A registered sandbox; `auto` for the first that works.
        bases: What images of some names stand on (see `read_dockerfile`); for the namespace sandbox.
        network: Whether what images and tests fetch may be fetched, on this machine and before a box runs.
        most: What no box may have more of.
    """

    def __init__(self, sandbox: str, bases: Mapping[str, str], network: bool, most: Limits) -> None:
        self._sandbox, self._bases, self._network, self._most = sandbox, bases, network, most
        self._opening = threading.Lock()
        self._made: dict[tuple[Path, str | None], Image] = {}
        self._pythons: dict[str, str] = {}
        self._built: dict[str, Image] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._begun: dict[Sandbox, float] = {}
        self._seconds = 0.0

    @cached_property
    def provider(self) -> SandboxProvider:
        """What makes the boxes; raises `PrerequisiteError` where nothing can."""
        return open_provider(self._sandbox)

    @property
    def description(self) -> str:
        """What boxes are made by, for the record."""
        return f"sandbox {self.provider.name}; task.toml {SCHEMAS[0]} to {SCHEMAS[-1]}"

    def refuse(self, folder: TaskFolder) -> list[str]:
        """Refuses a task that no box can be made for here, as far as its files tell, and returns what to note of it.

        Raises:
            TaskError: One line that names file and key.
        """
        if self.provider.engine:
            return []
        notes = list(self._recipe(folder, folder.settings.environment, folder.environment).notes)
        missing = self.provider.users_missing()
        for phase in folder.phases:
            for key, user in (("agent.user", phase.user), ("verifier.user", phase.verifier_user)):
                if missing and _is_other(user):
                    raise TaskError(f"{folder.id}/task.toml: {key} {user}: a box has no user but root here: {missing}")
            if phase.judge:
                notes += self._recipe(folder, phase.judge.machine, phase.judge.folder).notes
        return notes

    def _recipe(self, folder: TaskFolder, machine: Machine, context: Path) -> Built:
        """What to build; the working directory is empty where the image itself tells."""
        if self.provider.engine:
            if machine.docker_image:
                return Built(Recipe(reference=machine.docker_image), "", ())
            return Built(Recipe(context=context, network=self._network), "", ())
        where = f"{folder.id}/{context.relative_to(folder.root).as_posix()}/Dockerfile"
        if machine.docker_image and not (context / "Dockerfile").is_file():
            raise TaskError(
                f"{folder.id}/task.toml: environment.docker_image {machine.docker_image}: use sandbox: docker"
            )
        built = read_dockerfile(
            context,
            where,
            self._bases,
            machine.build_timeout_sec,
            network=self._network,
            users=not self.provider.users_missing(),
            named=any(_is_other(user) for phase in folder.phases for user in (phase.user, phase.verifier_user)),
        )
        return self._with_tools(folder, context, built)

    def _with_tools(self, folder: TaskFolder, context: Path, built: Built) -> Built:
        """With the packages that the tests have apt-get install, and with the Python that `uv` would fetch."""
        if not self._network or built.recipe.rootfs or built.recipe.programs:
            return built
        here = [
            phase for phase in folder.phases if (phase.judge.folder if phase.judge else folder.environment) == context
        ]
        said = "\n".join(text for phase in here for text in _scripts(phase))
        wanted = {package.partition("=")[0] for package in packages_of(said) if PACKAGE.fullmatch(package)}
        wanted |= {"python3"} if "uv" in (asked_for(said, strict=False) or ()) else set()
        more = sorted(wanted - set(built.recipe.packages))
        if not more:
            return built
        recipe = replace(built.recipe, packages=(*built.recipe.packages, *more))
        note = f"{folder.id}: {' '.join(more)}, which its tests install, is in the image: no box has a network"
        return replace(built, recipe=recipe, notes=(*built.notes, note))

    def tools(self, phase: Phase, image: Image) -> bytes:
        """What the tests of a phase fetch by pip or uv, as a tar for their box; empty where that is nothing, or not allowed.

        Raises:
            PrerequisiteError: It cannot be had.
        """
        if not self._network:
            return b""
        found = [asked_for(text, place, strict=False) or () for place in phase.tests for text in _scripts_in(place)]
        wanted = tuple(dict.fromkeys(word for words in found for word in words))
        return fetched(wanted, self._python(image)) if wanted else b""

    def _python(self, image: Image) -> str:
        """The version of an image's Python; empty where it has none."""
        if image.key not in self._pythons:
            with self.provider.create(image) as box:
                done = box.exec(["/bin/sh", "-c", "python3 -c 'import sys; print(*sys.version_info[:2], sep=\".\")'"])
            self._pythons[image.key] = done.output.decode().strip() if done.exit_code == 0 else ""
        return self._pythons[image.key]

    def image(self, folder: TaskFolder, machine: Machine, context: Path, report: Report | None = None) -> Image:
        """The image of a box; whoever asks for one that is being made waits for it.

        Raises:
            LeapError: It cannot be made.
        """
        key = (context, machine.docker_image)
        if (made := self._made.get(key)) is None:
            built = self._recipe(folder, machine, context)
            content = hashlib.sha256(
                repr((built.recipe, built.wheels)).encode()
            ).hexdigest()  # many tasks may have the same
            with self._opening:
                lock = self._locks[content]
            with lock:
                made = self._built.get(content) or self._build(built, report)
                self._built[content] = made
            made = self._made[key] = replace(made, workdir=built.workdir, user=built.user) if built.workdir else made
        return made

    def _build(self, built: Built, report: Report | None) -> Image:
        recipe = built.recipe
        if built.wheels:
            base = self.provider.build(replace(recipe, steps=()), report=report)
            files = {_WHEELS: fetched(built.wheels, self._python(base))}
            first = Step(argv=("/bin/sh", "-c", f"tar -C / -xf {_WHEELS} && rm {_WHEELS}"), files=files)
            recipe = replace(recipe, steps=(first, *recipe.steps))
        return self.provider.build(recipe, report=report)

    def snapshot(self, box: Sandbox, *, quiet: bool) -> Image | None:
        """An image of a box's files (`Sandbox.snapshot`); None where there is none to be had."""
        if not self.provider.snapshots:
            return None
        try:
            return box.snapshot(quiet=quiet)
        except SandboxError as error:
            log.debug("%s", error)
            return None

    def drop(self, image: Image) -> None:
        """Frees a snapshot."""
        self.provider.drop(image)

    def box(self, image: Image, machine: Machine) -> Sandbox:
        """A fresh box with what the task asks for, and no more than it may have."""
        most = self._most
        limits = replace(
            most,
            memory=min(most.memory, machine.memory_mb * 2**20 if machine.memory_mb else most.memory),
            disk=min(most.disk, machine.storage_mb * 2**20 if machine.storage_mb else most.disk),
            cpus=min(most.cpus, machine.cpus or most.cpus),
        )
        box = self.provider.create(image, limits)
        self._begun[box] = time.monotonic()
        return box

    @contextmanager
    def opened(self, image: Image, machine: Machine) -> Iterator[Sandbox]:
        """A box of `box` that ends with the block."""
        box = self.box(image, machine)
        try:
            yield box
        finally:
            self.end(box)

    def end(self, box: Sandbox) -> None:
        """Ends a box that `box` has made. Twice is harmless."""
        box.close()
        begun = self._begun.pop(box, None)
        with self._opening:
            self._seconds += time.monotonic() - begun if begun is not None else 0.0

    @property
    def seconds(self) -> float:
        """How long boxes have been there so far, all of them together."""
        now = time.monotonic()
        return self._seconds + sum(now - begun for begun in list(self._begun.values()))

    def close(self) -> None:
        """Ends all boxes."""
        if "provider" in self.__dict__:
            self.__dict__.pop("provider").close()


def _is_other(user: str | int | None) -> bool:
    """Whether a task.toml names a user who is not root."""
    return user is not None and str(user) not in ROOT


def _scripts(phase: Phase) -> Iterator[str]:
    for folder in phase.tests:
        yield from _scripts_in(folder)


def _scripts_in(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.sh")):
        if path.is_file():
            yield path.read_text(encoding="utf-8", errors="replace")
