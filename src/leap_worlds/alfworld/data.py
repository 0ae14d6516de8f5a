"""Official ALFWorld data as `leap data alfworld` and `alfworld-download` leave it, and generated data in the same layout.

    <root>/json_2.1.1/<split>/<task type>-<object>-<movable>-<receptacle>-<scene>/<trial>/game.tw-pddl

A game's id is its folder's path after `json_2.1.1/`. Finding the playable games means opening every game file (seconds
for the training split), so each split's index is kept in leap's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from leap.core import JsonObject
from leap.envs.base import Finding
from leap.errors import LeapError, PrerequisiteError
from leap.files import write_json
from leap.paths import cache_dir, expanded
from leap_worlds.alfworld.game import GameError, parse_game, read_game_file

DATA_FOLDER = "json_2.1.1"  # the folder is called so in every release of the data
TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
OFFICIAL_SPLITS = {"train": 3553, "valid_seen": 140, "valid_unseen": 134}
"""Playable games of each official split."""
TEST_SCENES = (10, 219, 308, 424)
"""The rooms of the official unseen split: kitchen, living room, bedroom, bathroom. No training game is in one."""

_INDEX_VERSION = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GameEntry:
    """A playable game on disk: the path after `json_2.1.1/`, its `game.tw-pddl`, and what name and file say."""

    id: str
    path: Path
    split: str
    task_type: str
    scene: int
    task: str


class OfficialData:
    """The splits and playable games of one data folder. Reads only; never changes the data.

    Playable is what AlfredTWEnv plays: a folder with `traj_data.json`, not of a movable receptacle or a sliced object,
    of one of the six task types, with a `game.tw-pddl` whose `solvable` is true. Unlike there, games come sorted by id,
    so that the order does not depend on the file system.

    Args:
        root: The data folder, or its `json_2.1.1`. None means `$ALFWORLD_DATA`, else `~/.cache/alfworld`.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        named = root is not None or "ALFWORLD_DATA" in os.environ
        given = expanded(root if root is not None else os.environ.get("ALFWORLD_DATA") or "~/.cache/alfworld")
        folder = given if given.name == DATA_FOLDER else given / DATA_FOLDER
        if not folder.is_dir():
            hint = "" if named else " ($ALFWORLD_DATA is not set, so the default place was tried)"
            raise PrerequisiteError(
                f"no ALFWorld data: {folder} is not a folder{hint}. `leap data alfworld` fetches the official games or says how; "
                "generated games need none."
            )
        self.root = folder.parent.resolve()
        self._folder = self.root / DATA_FOLDER
        self._entries: dict[str, tuple[GameEntry, ...]] = {}

    def splits(self) -> tuple[str, ...]:
        """The splits on disk, sorted."""
        return tuple(sorted(p.name for p in self._folder.iterdir() if p.is_dir()))

    def entries(self, split: str) -> tuple[GameEntry, ...]:
        """The playable games of a split (train, valid_seen, valid_unseen or whatever folder there is), sorted by id.

        A damaged game file is left out and said to be; once it is mended, or any other game has changed, that is noticed.
        """
        if split not in self._entries:
            self._entries[split] = self._index(split)
        return self._entries[split]

    def __iter__(self) -> Iterator[GameEntry]:
        for split in self.splits():
            yield from self.entries(split)

    def _index(self, split: str) -> tuple[GameEntry, ...]:
        folder = self._folder / split
        if not split or "/" in split or not folder.is_dir():
            raise PrerequisiteError(
                f"no split {split!r} in {self._folder}; there are: {', '.join(self.splits()) or 'none at all'}."
            )
        key = hashlib.sha256(str(folder).encode()).hexdigest()[:24]
        cache = cache_dir() / "alfworld" / "index" / f"{key}.json"
        stamp = _stamp(folder)
        try:
            index = json.loads(cache.read_text(encoding="utf-8"))
            kept = (index["version"], index["stamp"]) == (_INDEX_VERSION, stamp)
            rows, damaged = (index["games"], index["damaged"]) if kept else (None, [])
        except (OSError, ValueError, KeyError, TypeError):
            rows, damaged = None, []  # none yet, or damaged: it is made anew
        if rows is None:
            found = (_row(self._folder, path, damaged) for path in sorted(folder.glob("*/*/game.tw-pddl")))
            rows = sorted((row for row in found if row is not None), key=lambda row: row["id"])
            if rows:  # a folder that is still being filled is not worth remembering
                index = {"version": _INDEX_VERSION, "folder": str(folder), "stamp": stamp, "games": rows}
                try:
                    write_json(cache, index | {"damaged": damaged})
                except LeapError as error:
                    _log.warning("the index of ALFWorld games cannot be kept: %s", error)
        if damaged:
            _log.warning("%d damaged game files of split %s are left out: %s", len(damaged), split, damaged[0])
        return tuple(GameEntry(path=self._folder / row["id"] / "game.tw-pddl", split=split, **row) for row in rows)


def _row(folder: Path, path: Path, damaged: list[str]) -> JsonObject | None:
    """A game's line in the index; None for one that is not playable, whose damage, if any, is noted."""
    identifier = path.parent.relative_to(folder).as_posix()
    if "movable" in identifier or "Sliced" in identifier or not (path.parent / "traj_data.json").is_file():
        return None
    task_folder = path.parent.parent.name
    task_type, _, rest = task_folder.partition("-")
    scene = rest.rpartition("-")[2]
    if task_type not in TASK_TYPES or not scene.isdecimal():
        return None
    try:
        data = read_game_file(path)
        if data.get("solvable") is not True:
            return None
        task = parse_game(data, str(path)).task
    except GameError as error:
        damaged.append(str(error))
        return None
    return {"id": identifier, "task_type": task_type, "scene": int(scene), "task": task}


def _stamp(folder: Path) -> str:
    """Changes when a game comes, goes or is written anew, or another file of its trial folder comes or goes."""
    digest = hashlib.sha256()
    for trial in sorted(folder.glob("*/*/")):
        for path in (trial, trial / "game.tw-pddl"):
            try:
                stat = path.stat()
            except OSError:
                continue
            digest.update(f"{path}\0{stat.st_mtime_ns}\0{stat.st_size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def checked(data: OfficialData) -> list[Finding]:
    """Whether each official split is there, with how many games that can be played."""
    findings = []
    for split, number in OFFICIAL_SPLITS.items():
        found = len(data.entries(split)) if split in data.splits() else 0
        anew = "" if found == number else f"; to have them fetched anew, move {data.root / DATA_FOLDER} away first"
        findings.append(Finding(found == number, f"{data.root}: {split}: {found} of {number} playable games{anew}"))
    return findings
