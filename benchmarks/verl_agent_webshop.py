"""WebShop under verl-agent's environment manager: the original, with an actor, a JVM and a catalogue for each visit, and leap's.

    python benchmarks/verl_agent_webshop.py CHECKOUT DATA --games 2 4 8 16 --alone 8 32 128 --steps 10

CHECKOUT is a checkout of verl-agent in which its own `setup.sh -d small` was run: it has `data` and `search_engine/indexes`,
and spaCy has `en_core_web_sm`, by which both sides tag titles. DATA is a folder with the same 1,000 products. `verl_agent.py`
tells how it is measured. Each turn has other goals, of the 6,910 made-up ones that verl-agent trains on by default. A customer
walks at random in its first half; then it searches for its instruction, opens a product, chooses what is asked for, and buys
with the last step.

verl-agent draws a group's prices, and shuffles its goals, by the batch's seed and the group's number. So leap's side, where it
plays what the original drew, has a catalogue of that seed for each group; alone it has one catalogue, as a trainer would. After
a purchase the original begins another visit by itself and lists what can be done there: such lists are counted apart.
"""

from __future__ import annotations

import argparse
import random
import re
from functools import partial
from types import SimpleNamespace
from typing import Any

from verl_agent import MANAGED, RESOURCES, Side, main

SPLITS = ("verl-agent", "verl-agent_eval", "verl-agent_train")
LAST = 5
"""So many steps are for buying."""


class Webshop(Side):
    """WebShop on the first 1,000 products, with made-up goals."""

    anew = True

    def __init__(self, which: str, given: argparse.Namespace, games: int) -> None:
        from agent_system.environments.env_manager import WebshopEnvironmentManager
        from agent_system.environments.env_package.webshop.projection import webshop_projection

        kwargs = {"observation_mode": "text", "num_products": None, "human_goals": False}
        files = {
            "file_path": f"{given.data}/items_shuffle_1000.json",
            "attr_path": f"{given.data}/items_ins_v2_1000.json",
        }
        self.options = {"path": str(given.data), "products": 1000, "tagger": "spacy:en_core_web_sm"}
        build: Any
        if which == "leap":
            from leap.interop.verl_agent import build_webshop_envs as build

            kwargs["options"] = self.options
        else:
            from agent_system.environments.env_package.webshop.envs import build_webshop_envs as build
        self.envs = build(0, games // given.group, given.group, RESOURCES, True, kwargs | files)
        self.games = []
        self.shops: dict[int, Any] = {}
        if which == "original":
            draw = self.envs._rng.choice

            def choose(*args: Any, **more: Any) -> Any:
                self.games = (chosen := draw(*args, **more)).tolist()
                return chosen

            self.envs._rng = SimpleNamespace(choice=choose)
        self.manager = WebshopEnvironmentManager(self.envs, partial(webshop_projection), MANAGED)

    def reset(self, games: list[Any]) -> None:
        if games:
            self.envs._tasks = [self.task(group, goal) for group, goal in enumerate(games)]
            self.envs._draw = SimpleNamespace(choice=lambda *_, **__: range(len(games)))
        shown, infos = self.manager.reset({})
        self.note(shown, infos, [False] * len(infos))
        for each, task in zip(self.seen, self.manager.tasks, strict=True):
            each["instructions"] = task

    def task(self, seed: int, goal: int) -> Any:
        """The goal of that place in the original's order of a seed, in a catalogue of that seed."""
        import leap.interop.verl_agent as door
        from leap.envs.base import load_environment
        from leap_worlds.webshop.splits import World

        if not self.shops:  # a game is of its task's own catalogue
            game = door.Game
            door.Game = lambda _, task: game(self.shops[task.seed][0], task)  # type: ignore[assignment, misc]
        if seed not in self.shops:
            shop: Any = load_environment("webshop", {"observation": "text", **self.options, "seed": seed})
            places = {int(ordinal): place for place, ordinal in enumerate(shop.world(World.SMALL).goals._order)}
            tasks = {task.id: task for split in SPLITS for task in shop.tasks(split)}
            order = [*range(len(places))]
            random.Random(seed).shuffle(order)
            self.shops[seed] = shop, [tasks[f"{World.SMALL.value}/{places[ordinal]}"] for ordinal in order]
        return self.shops[seed][1][goal]

    def note(self, shown: Any, infos: list[dict[str, Any]], dones: list[bool]) -> None:
        """Keeps what is shown, and what can be done."""
        self.listed = [info["available_actions"] for info in infos]
        self.seen = [
            {"observations": text, "lists of actions after a purchase" if over else "lists of actions": listed}
            for text, listed, over in zip(shown["anchor"], self.listed, dones, strict=True)
        ]

    def choose(self, draw: random.Random, left: int) -> list[str]:
        return [
            self.customer(draw, left, task, listed)
            for task, listed in zip(self.manager.tasks, self.listed, strict=True)
        ]

    def customer(self, draw: random.Random, left: int, task: str, listed: dict[str, Any]) -> str:
        """What a customer does who shops at random, and buys with the last step."""
        clickable = [each for each in listed["clickables"] if each not in ("search", "buy now")]
        products = [each for each in clickable if re.fullmatch(r"b\w{9}", each)]
        named = [each for each in clickable if f": {each}," in task.lower() + ","]
        if left == LAST:
            return f"search[{task}]"
        if left == LAST - 1 and products:  # the best match or another, so that some buy what the goal means
            return f"click[{draw.choice((products[0], draw.choice(products)))}]"
        if left in (3, 2) and named:
            return f"click[{named[-(left == 2)]}]"
        if left == 1:
            return "click[buy now]"
        if not clickable or draw.random() < 0.1:
            words = task.split()
            return f"search[{' '.join(draw.sample(words, min(4, len(words))))}]"
        return f"click[{draw.choice(clickable)}]" if draw.random() < 0.95 else "click[nothing of that kind]"

    def look(self, shown: Any, *told: Any) -> None:
        rewards, dones, infos = told
        self.note(shown, infos, dones.tolist())
        for each, reward, over, info in zip(self.seen, rewards.tolist(), dones.tolist(), infos, strict=True):
            each["rewards"] = [reward, over, info["won"], score := info["task_score"]]
            if over:
                each["scores of 0" if not score else "scores of 1" if score == 1 else "scores between"] = score


if __name__ == "__main__":
    main(Webshop, __doc__)
