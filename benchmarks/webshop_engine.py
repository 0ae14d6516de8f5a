"""Compares our WebShop engine with the original: what they show and pay, and how much CPU time a step takes.

    python benchmarks/webshop_engine.py --data FOLDER                              our engine alone
    python benchmarks/webshop_engine.py --data FOLDER --original CHECKOUT [...]    beside the original

FOLDER holds `items_shuffle.json`, `items_ins_v2.json` and `items_human_ins.json`; CHECKOUT is princeton-nlp/WebShop, in a
Python that has at least beautifulsoup4, flask and thefuzz (any versions). Both engines are given the same actions in the same
process, and every state is compared: three observation modes, clickable actions, reward, session. Search and tagger are ours on
both sides, which favours the original: Lucene and its reading of 50 documents after each search cost it 5 to 20 ms more.

Times are of the CPU (`process_time`), of one step with its observation and clickable actions. "Rendering" answers searches from a
table on both sides, so that only the pages remain; in "fresh searches" each side computes every search that it has not had yet
(on the original's side, too, our search then remembers it for the next page; Lucene does not).
`webshop_engine.log` holds the last full run.
"""

from __future__ import annotations

import argparse
import gc
import platform
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from leap_worlds.webshop.build import CatalogueFiles
from leap_worlds.webshop.shop import Searcher, Shop, Visit
from leap_worlds.webshop.tagger import LexicalTagger
from leap_worlds.webshop.world import ShopWorld, open_search, open_world
from webshop_original import load_original, verbose_info, walk

SEED = 7
ODD = ("search_results", "item_page done", '"black" shoes', "★ café wi-fi a_b", "the", "zzzz", "a", "x  y", "Buy Now")


class Table:
    """A search that remembers."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._found: dict[str, list[str]] = {}

    def search(self, query: str, k: int = 50) -> list[str]:
        if query not in self._found:
            self._found[query] = self._searcher.search(query, k)
        return list(self._found[query])


class Times:
    """CPU seconds and steps, by who and by the page reached."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = defaultdict(float)
        self._steps: dict[tuple[str, str], int] = defaultdict(int)

    def add(self, who: str, page: str, seconds: float) -> None:
        for name in (page, "all"):
            self._seconds[who, name] += seconds
            self._steps[who, name] += 1

    def mean(self, who: str, page: str) -> float:
        """Milliseconds a step."""
        return 1e3 * self._seconds[who, page] / self._steps[who, page]

    def print(self, title: str, original: bool) -> None:
        print(f"\n{title}: CPU milliseconds a step")
        for page in ("index", "results", "item", "sub page", "done", "all"):
            if self._steps["ours", page]:
                line = f"  {page:10} n={self._steps['ours', page]:6}  ours {self.mean('ours', page):8.4f}"
                if original:
                    ratio = self.mean("original", page) / self.mean("ours", page)
                    line += f"  original {self.mean('original', page):8.3f}  ratio {ratio:7.1f}"
                print(line)


def page_of(visit: Visit) -> str:
    """The kind of page."""
    if visit.page.search_bar:
        return "index"
    if not visit.page.clickables:
        return "done"
    if visit.asin is None:
        return "results"
    return "item" if "buy now" in visit.page.clickables else "sub page"


def state_of_original(env: Any) -> dict[str, Any]:
    """All that the original shows and keeps."""
    shown = {}
    for mode in ("text_rich", "text", "url"):
        env.observation_mode = mode
        shown[mode] = env.observation
    env.observation_mode = "text_rich"
    session = dict(env.server.user_sessions[env.session])
    session.pop("goal")
    return {**shown, **env.get_available_actions(), **session, "actions": dict(session["actions"])}


def state_of_ours(visit: Visit) -> dict[str, Any]:
    """The same of our engine."""
    state = {
        "text_rich": visit.text_rich(),
        "text": visit.text(),
        "url": visit.url,
        "has_search_bar": visit.page.search_bar,
        "clickables": list(visit.page.clickables),
        "done": visit.done,
        "keywords": visit.keywords,
        "page": visit.number,
        "asin": visit.asin,
        "asins": set(visit.visited),
        "options": dict(visit.options),
        "actions": dict(visit.actions),
    }
    if visit.purchase:
        state |= {"verbose_info": verbose_info(visit.purchase), "reward": visit.purchase.total}
    return state


def run(
    shop: Shop, planned: Shop, world: ShopWorld, env: Any, *, episodes: int, steps: int, compare: bool
) -> tuple[Times, int, int]:
    """Walks both engines through the same random episodes.

    Args:
        shop: Ours.
        planned: Another one, in which the episodes are made up beforehand.
        world: Its goals.
        env: The original, if it takes part.
        episodes, steps: How many, and of how many steps.
        compare: Whether to compare every state.

    Returns:
        Times, steps taken and states that differ.
    """
    rng, times, taken, different = random.Random(SEED), Times(), 0, 0
    numbers = rng.sample(range(len(world.goals)), min(episodes, len(world.goals)))
    for episode, number in enumerate(numbers):
        goal = world.goals[number]
        queries = [goal.instruction, goal.name, *(f"{odd} {episode}" for odd in ODD), *ODD]
        actions = walk(planned.visit(goal), rng, steps, queries)
        taken += len(actions)
        gc.collect()
        visit = shop.visit(goal)
        pages, ours = [], []
        for action in actions:  # each engine plays its episode alone: the other's garbage is not its cost
            began = time.process_time()
            bought = visit.act(action)
            _ = visit.text_rich(), list(visit.page.clickables)
            times.add("ours", page_of(visit), time.process_time() - began)
            pages.append(page_of(visit))
            ours.append((state_of_ours(visit), bought.total if bought else 0.0, bought is not None) if compare else None)
        if env is None:
            continue
        gc.collect()
        env.reset(session=number)
        for action, page, expected in zip(actions, pages, ours, strict=True):
            began = time.process_time()
            _, reward, done, _ = env.step(action)
            times.add("original", page, time.process_time() - began)
            if compare and (theirs := (state_of_original(env), reward, done)) != expected:
                different += 1
                if different <= 2:
                    print(f"  differs after {action!r}:\n  {theirs}\n  {expected}")
    return times, taken, different


def main() -> None:
    parser = argparse.ArgumentParser(description="Our WebShop engine beside the original.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--original", type=Path)
    parser.add_argument("--products", type=int)
    parser.add_argument("--synthetic", action="store_true", help="made-up goals instead of people's")
    parser.add_argument("--episodes", type=int, default=150)
    parser.add_argument("--steps", type=int, default=25)
    given = parser.parse_args()
    files = CatalogueFiles(
        given.data / "items_shuffle.json",
        given.data / "items_ins_v2.json",
        given.data / "items_human_ins.json",
        given.products,
    )
    human, tagger = not given.synthetic, LexicalTagger()
    world = open_world(files, human=human, seed=SEED, tagger=tagger)
    store, judge = world.shop.store, world.shop.judge
    table = Table(open_search(store))
    planned = Shop(store, table, judge)
    shops = {"rendering": Shop(store, table, judge), "fresh searches": Shop(store, open_search(store), judge)}
    print(f"{platform.python_version()} on {platform.machine()}; {len(world.shop.store)} products, {len(world.goals)} goals")
    env = None
    if given.original:
        env = load_original(given.original, files, table, tagger, human=human, seed=SEED)
        theirs = [(goal["instruction_text"], goal["asin"], goal["price_upper"]) for goal in env.server.goals]
        ours = [(goal.instruction, goal.asin, goal.price_upper) for goal in world.goals]
        print(f"goals: {len(ours)}, of which {sum(a != b for a, b in zip(ours, theirs, strict=True))} differ")
        prices = list(env.server.product_prices.values())
        print(f"prices: {len(prices)}, equal: {prices == world.prices.tolist()}")
        sizes = {"episodes": given.episodes, "steps": given.steps}
        _, taken, different = run(shops["rendering"], planned, world, env, compare=True, **sizes)
        print(f"states compared: {taken}, of which {different} differ")
    for name, shop in shops.items():
        if env is not None:
            env.server.search_engine.searcher = table if name == "rendering" else open_search(store)
        times, _, _ = run(shop, planned, world, env, episodes=given.episodes, steps=given.steps, compare=False)
        times.print(name, env is not None)


if __name__ == "__main__":
    main()
