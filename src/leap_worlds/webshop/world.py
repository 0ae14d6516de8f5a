"""A world to shop in: a catalogue, its search, its prices and its goals, shared by all sessions."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from leap.envs.base import Progress
from leap.errors import PrerequisiteError
from leap_worlds.made import counted, put_in_place
from leap_worlds.webshop.build import CatalogueFiles, open_catalogue
from leap_worlds.webshop.catalogue import Product
from leap_worlds.webshop.goals import Goal, Goals, draw_prices
from leap_worlds.webshop.reward import Purchase, RewardMode, judge
from leap_worlds.webshop.search import SearchIndex, build_index
from leap_worlds.webshop.shop import Shop
from leap_worlds.webshop.store import Blob, BlobWriter, ProductStore
from leap_worlds.webshop.tagger import Tagger

SEARCH = "search-2"
"""Folder of a store's index; the number is that of the index's format, so that an older one is left alone."""
_OWNER = "catalogue.txt"
"""Names the catalogue that an index is of; written last."""


@dataclass(frozen=True)
class ShopWorld:
    """One catalogue with one draw of prices (in the store's order, in US dollars), its goals in the original's order,
    and the reward that the till pays."""

    shop: Shop
    goals: Goals
    prices: np.ndarray
    mode: RewardMode


def open_world(
    files: CatalogueFiles,
    *,
    human: bool,
    seed: int,
    tagger: Tagger,
    mode: RewardMode = RewardMode.UPSTREAM,
    progress: Progress | None = None,
) -> ShopWorld:
    """Opens a world, making what is not in leap's cache yet: the store, the titles' nouns and the search index.

    Args:
        files: The official files.
        human: Goals that people wrote, or made-up ones.
        seed: Of prices and price limits, which the original draws unseeded.
        tagger, mode: What finds the nouns of titles, and which reward a purchase pays.
        progress: Called with what is done, of how much, and what is under way.
    """
    store = open_catalogue(files, progress=progress)
    nouns = title_nouns(store, tagger, progress=progress)
    rng = random.Random(seed)
    prices = draw_prices(store, rng)
    goals = Goals(store, prices, rng, human=human, progress=progress)

    def pay(product: Product, goal: Goal, chosen: dict[str, str]) -> Purchase:
        place, goal_place = store.find(product.asin), store.find(goal.asin)
        assert place is not None and goal_place is not None
        price, own, wanted = float(prices[place]), nouns(place), nouns(goal_place)
        return judge(product, goal, price=price, chosen=chosen, nouns=own, goal_nouns=wanted, mode=mode)

    return ShopWorld(Shop(store, open_search(store, progress=progress), pay), goals, prices, mode)


def title_nouns(store: ProductStore, tagger: Tagger, *, progress: Progress | None = None) -> Callable[[int], list[str]]:
    """Returns the nouns of each title by the product's place, from the store, or found and kept there now."""
    folder = store.folder / f"nouns-{tagger.name}"

    def tag_all(partial: Path) -> None:
        blob = BlobWriter(partial / "nouns.bin")
        for nouns in tagger.tag(counted((product.title for product in store), len(store), progress, "tagging titles")):
            blob.add(nouns)
        blob.close()
        (partial / "manifest.json").write_text("{}", encoding="utf-8")

    put_in_place(folder, tag_all)
    try:
        blob = Blob(folder / "nouns.bin", list[str])
        if len(blob) != len(store):
            raise ValueError(f"nouns of {len(blob)} titles for {len(store)} products")
    except (OSError, ValueError) as error:
        raise PrerequisiteError(f"{folder} is damaged ({error}). Remove it; it is made anew.") from error
    return lru_cache(maxsize=4096)(blob.__getitem__)


def open_search(store: ProductStore, *, progress: Progress | None = None) -> SearchIndex:
    """Returns the catalogue's own search index, from the store, or made there now."""
    folder = store.folder / SEARCH

    def index(partial: Path) -> None:
        products = counted((product for product in store), len(store), progress, "indexing products")
        build_index(((product.asin, product.contents) for product in products), partial)
        (partial / _OWNER).write_text(store.manifest.key, encoding="utf-8")

    put_in_place(folder, index, done=[_OWNER])
    if (folder / _OWNER).read_text(encoding="utf-8") != store.manifest.key:
        raise PrerequisiteError(f"{folder} is the search index of another catalogue. Remove it; it is made anew.")
    opened = SearchIndex(folder)
    if len(opened) != len(store):
        what = f"has {len(opened):,} documents where the catalogue has {len(store):,} products"
        raise PrerequisiteError(f"{folder} {what}. Remove it; it is made anew.")
    return opened
