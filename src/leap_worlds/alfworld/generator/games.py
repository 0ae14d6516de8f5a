"""Makes games in memory and sets of games on disk."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

import leap
from leap.envs.base import Progress
from leap_worlds.alfworld.game import Game, parse_game
from leap_worlds.alfworld.generator.config import SPLITS, GeneratorConfig, GeneratorError, stream
from leap_worlds.alfworld.generator.scene import Scene, draw_scene
from leap_worlds.alfworld.generator.write import folder, game_file, traj_file
from leap_worlds.alfworld.native import NativeEngine
from leap_worlds.alfworld.planner import plan

GENERATOR_VERSION = 1
"""Rises whenever the same settings would give other games."""

DATA_FOLDER = "json_2.1.1"
"""The folder name of all ALFWorld releases, whatever their dialect."""

MANIFEST = "manifest.json"
_MAX_DRAWS = 100

"""Called as `(done, total, what)`."""


@dataclass(frozen=True)
class GeneratedGame:
    """A game that exists only in memory.

    Attributes:
        split: Its split.
        index: Its number in the split.
        id: The game's path below the data folder, as in the official data, without the file's name.
        scene: What was drawn.
        data: The content of `game.tw-pddl`.
        traj: The content of `traj_data.json`.
        game: The game as our engine plays it.
        walkthrough: A shortest sequence of commands that wins.
        draws: How many scenes were drawn until one was solvable and not solved already.
    """

    split: str
    index: int
    id: str
    scene: Scene
    data: dict[str, Any]
    traj: dict[str, Any]
    game: Game
    walkthrough: tuple[str, ...]
    draws: int


class Manifest(BaseModel):
    """What `manifest.json` says about a generated set of games.

    Attributes:
        generator_version: Version of the generator's output.
        leap_version: Version of leap that generated it.
        settings: The full settings.
        fingerprint: Hash of settings and generator version; equal fingerprints mean equal games.
        games: Number of games of each split.
        task_types: For each split the number of games of each task type.
        scenes: For each split the scene numbers in use.
        steps: For each split the mean length of the shortest plans.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    generator_version: int
    leap_version: str
    settings: GeneratorConfig
    fingerprint: str
    games: dict[str, int]
    task_types: dict[str, dict[str, int]]
    scenes: dict[str, list[int]]
    steps: dict[str, float]


def generate_game(config: GeneratorConfig, split: str, index: int) -> GeneratedGame:
    """Draws the index-th game of a split. It depends on nothing but the arguments.

    Raises:
        GeneratorError: The settings allow no such game.
    """
    if split not in SPLITS:
        raise GeneratorError(f"unknown split {split!r}; splits are {', '.join(SPLITS)}")
    rng = stream("game", config.seed, split, index)
    trial = f"trial_G{rng.getrandbits(40):010x}_{index:06d}"
    for draw in range(1, _MAX_DRAWS + 1):
        scene = draw_scene(config, split, rng, index)
        data = game_file(scene, trial, config.dialect, ())
        identifier = f"{split}/{folder(scene, trial)}"
        game = parse_game(data, identifier)
        walkthrough = solve(game)
        if walkthrough:
            return GeneratedGame(
                split=split,
                index=index,
                id=identifier,
                scene=scene,
                data={**data, "walkthrough": list(walkthrough)},
                traj=traj_file(scene, trial, f"{config.seed}/{split}/{index}"),
                game=game,
                walkthrough=walkthrough,
                draws=draw,
            )
    raise GeneratorError(f"game {index} of split {split!r}: none of {_MAX_DRAWS} drawn scenes can be solved")


def solve(game: Game) -> tuple[str, ...]:
    """A shortest plan from the start; empty if there is none or the goal holds already."""
    engine = NativeEngine(game)
    if engine.start().won:
        return ()
    return tuple(plan(engine) or ())


def generate(config: GeneratorConfig, out_dir: str | Path, progress: Progress | None = None) -> Manifest:
    """Writes all games of all splits in the official layout, and `manifest.json`.

    The folder appears only when it is complete. An interrupted call leaves nothing of it; making the games again is a
    matter of seconds.

    Args:
        config: The settings.
        out_dir: Folder to create. It becomes the `ALFWORLD_DATA` of the generated games.
        progress: Called after each game.

    Returns:
        The manifest. If the folder holds this very set of games already, nothing is done.

    Raises:
        GeneratorError: The folder holds something else.
    """
    out = Path(out_dir)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        manifest = read_manifest(out)
        if manifest.fingerprint == fingerprint(config):
            return manifest
        raise GeneratorError(f"{out} holds games of other settings; choose another folder or delete this one")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        manifest = _write_all(config, partial, progress)
        partial.chmod(0o755)  # temporary folders are private
        try:
            if out.is_dir():
                out.rmdir()
            partial.rename(out)
        except OSError:
            # Another process was faster; if it made the same games, they are as good as ours.
            if read_manifest(out).fingerprint != manifest.fingerprint:
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _write_all(config: GeneratorConfig, root: Path, progress: Progress | None) -> Manifest:
    total, done = sum(config.games.values()), 0
    rows: dict[str, list[tuple[str, int, int]]] = {split: [] for split in config.games}
    for split, number in config.games.items():
        for index in range(number):
            made = generate_game(config, split, index)
            _write(root / DATA_FOLDER / made.id, made)
            rows[split].append((made.scene.task_type, made.scene.room.scene, len(made.walkthrough)))
            done += 1
            if progress is not None:
                progress(done, total, f"{split} games")
    manifest = Manifest(
        generator_version=GENERATOR_VERSION,
        leap_version=leap.__version__,
        settings=config,
        fingerprint=fingerprint(config),
        games=dict(config.games),
        task_types={split: dict(sorted(Counter(task for task, _, _ in made).items())) for split, made in rows.items()},
        scenes={split: sorted({scene for _, scene, _ in made}) for split, made in rows.items()},
        steps={split: round(sum(n for _, _, n in made) / len(made), 2) for split, made in rows.items() if made},
    )
    (root / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a generated set.

    Raises:
        GeneratorError: There is none, or it cannot be read.
    """
    path = Path(folder) / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GeneratorError(f"{folder} is not empty and has no {MANIFEST}; choose another folder") from None
    except ValidationError as error:
        raise GeneratorError(f"{path} cannot be read: {error.errors()[0]['msg']}") from error


def fingerprint(config: GeneratorConfig) -> str:
    """A hash of everything that decides the games."""
    settings = json.dumps(config.gone | config.model_dump(mode="json"), sort_keys=True)
    return sha256(f"{GENERATOR_VERSION} {settings}".encode()).hexdigest()


def _write(folder: Path, made: GeneratedGame) -> None:
    folder.mkdir(parents=True)
    (folder / "traj_data.json").write_text(json.dumps(made.traj, indent=1), encoding="utf-8")
    (folder / "game.tw-pddl").write_text(json.dumps(made.data), encoding="utf-8")
