"""Makes games in memory and sets of games on disk."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

import leap
from leap.core import JsonObject
from leap.envs.base import Progress
from leap_worlds.alfworld.data import DATA_FOLDER
from leap_worlds.alfworld.game import Game, parse_game
from leap_worlds.alfworld.generator.config import SPLITS, GeneratorConfig, GeneratorError
from leap_worlds.alfworld.generator.scene import Scene, draw_scene
from leap_worlds.alfworld.generator.write import folder, game_file, traj_file
from leap_worlds.alfworld.native import NativeEngine
from leap_worlds.alfworld.planner import plan
from leap_worlds.made import put_in_place, stream

GENERATOR_VERSION = 1
"""Rises whenever the same settings would give other games."""

MANIFEST = "manifest.json"
_MAX_DRAWS = 100


@dataclass(frozen=True)
class GeneratedGame:
    """A game that exists only in memory.

    Attributes:
        id: The game's path below the data folder, as in the official data, without the file's name.
        scene, game: What was drawn, and the game as our engine plays it.
        data, traj: The contents of `game.tw-pddl` and `traj_data.json`.
        walkthrough: A shortest sequence of commands that wins.
        draws: How many scenes were drawn until one was solvable and not solved already.
    """

    id: str
    scene: Scene
    data: JsonObject
    traj: JsonObject
    game: Game
    walkthrough: tuple[str, ...]
    draws: int


class Manifest(BaseModel):
    """What `manifest.json` says about a generated set of games; equal fingerprints mean equal games.

    `games`, `task_types`, `scenes` and `steps` (mean length of the shortest plans) are given for each split.
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
    """Draws the index-th game of a split. It depends on nothing but the arguments."""
    if split not in SPLITS:
        raise GeneratorError(f"unknown split {split!r}; splits are {', '.join(SPLITS)}")
    rng = stream("game", config.seed, split, index)
    trial = f"trial_G{rng.getrandbits(40):010x}_{index:06d}"
    for draw in range(1, _MAX_DRAWS + 1):
        scene = draw_scene(config, split, rng, index)
        data = game_file(scene, trial, config.dialect)
        identifier = f"{split}/{folder(scene, trial)}"
        game = parse_game(data, identifier)
        if walkthrough := plan(NativeEngine(game)):
            return GeneratedGame(
                id=identifier,
                scene=scene,
                data={**data, "walkthrough": list(walkthrough)},
                traj=traj_file(scene, trial, f"{config.seed}/{split}/{index}"),
                game=game,
                walkthrough=walkthrough,
                draws=draw,
            )
    raise GeneratorError(f"game {index} of split {split!r}: none of {_MAX_DRAWS} drawn scenes can be solved")


def generate(config: GeneratorConfig, out_dir: str | Path, progress: Progress | None = None) -> Manifest:
    """Writes all games of all splits in the official layout, and `manifest.json`. The folder appears when complete.

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
    with suppress(OSError):  # it is not there, or holds something
        out.rmdir()
    if not out.exists():
        put_in_place(out, lambda partial: _write_all(config, partial, progress), done=[MANIFEST])
    manifest = read_manifest(out)
    if manifest.fingerprint != fingerprint(config):
        raise GeneratorError(f"{out} holds games of other settings; choose another folder or delete this one")
    return manifest


def _write_all(config: GeneratorConfig, root: Path, progress: Progress | None) -> None:
    total, done = sum(config.games.values()), 0
    rows: dict[str, list[tuple[str, int, int]]] = {split: [] for split in config.games}
    for split, number in config.games.items():
        for index in range(number):
            made = generate_game(config, split, index)
            place = root / DATA_FOLDER / made.id
            place.mkdir(parents=True)
            (place / "traj_data.json").write_text(json.dumps(made.traj, indent=1), encoding="utf-8")
            (place / "game.tw-pddl").write_text(json.dumps(made.data), encoding="utf-8")
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


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a generated set."""
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
