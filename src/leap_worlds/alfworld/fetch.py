"""`leap data alfworld`: the official games from the archives of ALFWorld's releases, without ALFWorld's own program.

Of its archives two are needed: the trajectories, by which games are told playable, and the games, which hold their own rules
and words. The third (problems without a goal text) and the weights of its detector are not.
"""

from __future__ import annotations

import os
import shutil
import stat
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple
from urllib.error import HTTPError
from zipfile import BadZipFile, ZipFile, ZipInfo

from leap.envs.base import Progress
from leap.errors import PrerequisiteError
from leap.files import digest, explained, temporary_directory
from leap_worlds.alfworld.data import DATA_FOLDER
from leap_worlds.reach import reach

SOURCE = "https://github.com/alfworld/alfworld/releases/download"
"""Where the releases are. Their checksums, not this address, say that the archives are the right ones."""
Release = Literal["2.1.3", "2.1.1"]
_WANTED = ("traj_data.json", "game.tw-pddl")
_TO_GO_ON = 60
"""Seconds until a server that has stopped sending is given up."""
_TRIES = 3
_MB = 1_000_000


class Archive(NamedTuple):
    """A published archive: its path below `SOURCE`, its size in bytes and its SHA-256.

    The releases publish no checksums. These are what four users noted of their downloads, independently of each other (the
    games of 2.1.1: one).
    """

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Its file name."""
        return self.path.rpartition("/")[2]


TRAJECTORIES = Archive(
    "0.2.2/json_2.1.1_json.zip", 72_018_818, "25171f16e20ad7b048c47275c45b0babf3aa1cbab29cec97387922350a9844bc"
)
GAMES: dict[Release, Archive] = {
    "2.1.3": Archive(
        "0.4.2/json_2.1.3_tw-pddl.zip", 36_507_267, "5df77ea759f2211a4106082839ddbbb790f1ba4e7d097ed732cf453f72aa36cf"
    ),
    "2.1.1": Archive(
        "0.2.2/json_2.1.1_tw-pddl.zip", 45_059_629, "d376c4bbb097c068528a2a9805e358e4cd14bc75c4d68a24e5141aebd234ef67"
    ),
}


def fetch(folder: Path, release: Release, *, source: str = SOURCE, progress: Progress | None = None) -> None:
    """Puts the official games into a folder, as its `json_2.1.1`. It is there whole, or not at all; what was downloaded before
    an interruption is not downloaded again.

    Args:
        folder: The data folder.
        release: Whose games.
        source: An address with the archives, in the releases' folders or side by side; or a folder with them.
        progress: Told MB done, MB in all, and of what.

    Raises:
        PrerequisiteError: An archive cannot be had or is another than the published one; the message says what to put where.
    """
    archives = (TRAJECTORIES, GAMES[release])
    remote = source.startswith(("http://", "https://"))
    tell: Progress = progress or (lambda done, total, what: None)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        if remote:
            files = [_downloaded(one, folder, source.rstrip("/"), tell) for one in archives]
        else:
            files = [_given(one, Path(source)) for one in archives]
        _unpack(files, folder, tell)
    except PrerequisiteError as error:
        raise PrerequisiteError(f"{error}\n{_by_hand(archives, folder)}") from error
    for file in files if remote else ():
        file.unlink()


def _by_hand(archives: Sequence[Archive], folder: Path) -> str:
    lines = "".join(f"  {SOURCE}/{one.path} ({one.size / _MB:.0f} MB)\n" for one in archives)
    return (
        f"The same command goes on where it stopped; `--from ADDRESS` asks a mirror. Or bring these here by other means and give "
        f"`leap data alfworld --from` the folder with them, to have them unpacked into {folder}:\n{lines}".rstrip()
    )


def _given(archive: Archive, folder: Path) -> Path:
    file = folder / archive.name
    if not file.is_file():
        raise PrerequisiteError(f"there is no {archive.name} in {folder}, and no {DATA_FOLDER} either.")
    _check(file, archive)
    return file


def _check(file: Path, archive: Archive) -> None:
    size, found = file.stat().st_size, digest(file)
    if (size, found) != (archive.size, archive.sha256):
        raise PrerequisiteError(
            f"{file} is not the published {archive.name}: {size:,} bytes of SHA-256 {found}, not {archive.size:,} of "
            f"{archive.sha256}."
        )


def _downloaded(archive: Archive, folder: Path, source: str, tell: Progress) -> Path:
    """The archive's file, complete and checked. An unfinished one stays, to be gone on with."""
    part = folder / f"{archive.name}.part"
    what = f"fetching {archive.name} ({archive.size / _MB:.0f} MB) from {source} into {folder}"
    tell(0, archive.size // _MB, what)
    if not part.exists() or part.stat().st_size < archive.size:
        reach(source)
        for address in (f"{source}/{archive.path}", f"{source}/{archive.name}"):
            problem = _download(address, part, archive, lambda done: tell(done // _MB, archive.size // _MB, what))
            if problem != _NOT_THERE:
                break
        if problem:
            raise PrerequisiteError(f"{address} cannot be fetched: {problem}.")
    try:
        _check(part, archive)
    except PrerequisiteError:
        part.unlink()  # to go on with it would not mend it
        raise
    return part


_NOT_THERE = "the server has no such file"


def _download(address: str, part: Path, archive: Archive, tell: Callable[[int], None]) -> str:
    """Goes on with a download until it is whole; says what is wrong where that cannot be."""
    problem, opener = "", urllib.request.build_opener()  # by the proxies that are set now
    for _ in range(_TRIES):
        have = part.stat().st_size if part.exists() else 0
        try:
            request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
            with opener.open(request, timeout=_TO_GO_ON) as answer:
                if answer.status != 206:  # a server that gives whole files only
                    have = 0
                with explained(part), part.open("ab" if have else "wb") as file:
                    for block in _blocks(answer, archive.size - have):
                        file.write(block)
                        tell(file.tell())
            if part.stat().st_size >= archive.size:
                return ""
            problem = f"the connection broke off after {part.stat().st_size:,} of {archive.size:,} bytes"
        except HTTPError as error:
            if error.code == 404:
                return _NOT_THERE
            problem = f"the server answers {error.code} {error.reason}"
            if error.code == 416:  # what is here is no part of it
                part.unlink(missing_ok=True)
        except _Broken as error:
            problem = str(error)
        except (OSError, ValueError, HTTPException) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
    return problem


class _Broken(Exception):
    """A connection that broke off."""


def _blocks(answer: object, expected: int) -> Iterator[bytes]:
    """What a server sends, of at most so many bytes and one more, which tells that it is another file."""
    left = expected + 1
    while left > 0:
        try:
            block: bytes = answer.read(min(1 << 18, left))  # type: ignore[attr-defined]
        except (OSError, HTTPException) as error:  # not the disk's, as an error while writing would be
            raise _Broken(f"the connection broke off: {error}") from error
        if not block:
            return
        left -= len(block)
        yield block


def _unpack(files: Sequence[Path], folder: Path, tell: Progress) -> None:
    """Unpacks what is needed of the archives. Names in them that lead elsewhere are refused."""
    target = folder / DATA_FOLDER
    try:
        with ExitStack() as opened:
            archives = [opened.enter_context(ZipFile(file)) for file in files]
            members = [(archive, info, _place(info)) for archive in archives for info in archive.infolist()]
            wanted = [(archive, info, place) for archive, info, place in members if place is not None]
            size, free = sum(info.file_size for _, info, _ in wanted), shutil.disk_usage(folder).free
            if size > free:
                raise PrerequisiteError(
                    f"{folder} needs {size / _MB:,.0f} MB for the games, and {free / _MB:,.0f} MB are free."
                )
            what = f"unpacking {len(wanted):,} files ({size / _MB:,.0f} MB) into {target}"
            with explained(target), temporary_directory(target) as temporary:
                done = 0
                for archive, info, place in wanted:
                    file = temporary.joinpath(*place.parts[1:])
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(info) as content, file.open("wb") as out:
                        shutil.copyfileobj(content, out)
                    done += info.file_size
                    tell(done // _MB, size // _MB, what)
                os.sync()  # of ten thousand files, one by one it takes minutes
                temporary.replace(target)
    except (BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise PrerequisiteError(f"an archive cannot be unpacked: {error}.") from error


def _place(info: ZipInfo) -> PurePosixPath | None:
    """Where an entry belongs below the data folder; None for what is not needed.

    Raises:
        PrerequisiteError: Its name leads out of that folder, or it is a link.
    """
    place = PurePosixPath(info.filename)
    link = stat.S_ISLNK(info.external_attr >> 16)
    if place.is_absolute() or ".." in place.parts or "\\" in info.filename or link:
        raise PrerequisiteError(
            f"the archive {info.orig_filename!r} leads out of its folder; nothing of it is unpacked."
        )
    return place if place.parts[:1] == (DATA_FOLDER,) and place.name in _WANTED and not info.is_dir() else None
