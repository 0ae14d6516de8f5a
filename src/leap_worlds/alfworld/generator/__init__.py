"""A generator of ALFWorld games: rooms and tasks like the official ones, in any number, in the official layout.

    config = GeneratorConfig(seed=1, games={"train": 500, "unseen": 100}, receptacles=(6, 10))
    manifest = generate(config, Path("data/small"))           # data/small/json_2.1.1/train/<task>/<trial>/game.tw-pddl
    game = generate_game(config, "train", 0)                  # one game in memory

What the rooms hold and where things lie follows proportions measured on 200 official training games (`tables.json`).
"""

from __future__ import annotations

from leap_worlds.alfworld.generator.config import SPLITS, GeneratorConfig, GeneratorError
from leap_worlds.alfworld.generator.games import (
    GeneratedGame,
    Manifest,
    fingerprint,
    generate,
    generate_game,
    read_manifest,
)

__all__ = [
    "SPLITS",
    "GeneratedGame",
    "GeneratorConfig",
    "GeneratorError",
    "Manifest",
    "fingerprint",
    "generate",
    "generate_game",
    "read_manifest",
]
