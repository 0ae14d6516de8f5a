"""A world to shop in: a catalogue, its search, its prices and its goals, shared by all sessions."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from leap.envs.base import Progress
from leap.errors import PrerequisiteError
from leap_worlds.webshop.build import CatalogueFiles, open_catalogue
from leap_worlds.webshop.catalogue import Product
from leap_worlds.webshop.goals import Goal, Goals, draw_prices
from leap_worlds.webshop.reward import Purchase, RewardMode, judge
from leap_worlds.webshop.shop import Searcher, Shop
from leap_worlds.webshop.store import Blob, BlobWriter, ProductStore, put_in_place
from leap_worlds.webshop.tagger import Tagger

SEARCH = "search-2"
"""Folder of a store's index; the number is that of the index's format, so that an older one is left alone."""
_OWNER = "catalogue.txt"
"""Names the catalogue that an index is of; written last."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShopWorld:
    """One catalogue with one draw of prices.

    Attributes:
        shop: Where visits are made.
        goals: In the original's order; the place in it is the goal's number.
        prices: What each product costs, in the store's order, in US dollars.
        nouns: Nouns of a product's title.
        mode: Which reward the till pays.
    """

    shop: Shop
    goals: Goals
    prices: Any
    nouns: Callable[[Product], Sequence[str]]
    mode: RewardMode

    def price(self, asin: str) -> float:
        """Returns what a product costs, in US dollars.

        Raises:
            KeyError: It is not on sale.
        """
        place = self.shop.store.find(asin)
        if place is None:
            raise KeyError(asin)
        return float(self.prices[place])

    def judge(self, product: Product, goal: Goal, chosen: dict[str, str]) -> Purchase:
        """What buying a product with these options would be worth: what the till pays, and what a teacher may ask."""
        return self.shop.judge(product, goal, chosen)


def open_world(
    files: CatalogueFiles,
    *,
    human: bool,
    seed: int,
    tagger: Tagger,
    mode: RewardMode = RewardMode.UPSTREAM,
    searcher: Searcher | None = None,
    progress: Progress | None = None,
) -> ShopWorld:
    """Opens a world, making what is not in leap's cache yet: the store, the titles' nouns and the search index.

    Args:
        files: The official files.
        human: Goals that people wrote, or made-up ones.
        seed: Of prices and price limits, which the original draws unseeded.
        tagger: Finds the nouns of titles.
        mode: Which reward a purchase pays.
        searcher: The search; the catalogue's own index if None.
        progress: Called with what is done, of how much, and what is under way.

    Raises:
        PrerequisiteError: A file is missing or is not what it should be.
    """
    store = open_catalogue(files, progress=progress)
    nouns = title_nouns(store, tagger, progress=progress)
    rng = random.Random(seed)
    prices = draw_prices(store, rng)
    goals = Goals(store, prices, rng, human=human, progress=progress)

    def pay(product: Product, goal: Goal, chosen: dict[str, str]) -> Purchase:
        place, goal_place = store.find(product.asin), store.find(goal.asin)
        assert place is not None and goal_place is not None
        return judge(
            product,
            goal,
            price=float(prices[place]),
            chosen=chosen,
            nouns=nouns(place),
            goal_nouns=nouns(goal_place),
            mode=mode,
        )

    def nouns_of(product: Product) -> Sequence[str]:
        place = store.find(product.asin)
        return () if place is None else nouns(place)

    shop = Shop(store, searcher or open_search(store, progress=progress), pay)
    return ShopWorld(shop, goals, prices, nouns_of, mode)


def title_nouns(store: ProductStore, tagger: Tagger, *, progress: Progress | None = None) -> Callable[[int], list[str]]:
    """Returns the nouns of each title by the product's place, from the store, or found and kept there now."""
    folder = store.folder / f"nouns-{tagger.name}"
    if not (folder / "manifest.json").is_file():
        put_in_place(folder, lambda partial: _tag_all(store, tagger, partial, progress))
    try:
        blob = Blob(folder / "nouns.bin", list[str])
        if len(blob) != len(store):
            raise ValueError(f"nouns of {len(blob)} titles for {len(store)} products")
    except (OSError, ValueError) as error:
        raise PrerequisiteError(f"{folder} is damaged ({error}). Remove it; it is made anew.") from error
    return lru_cache(maxsize=4096)(blob.__getitem__)


def _tag_all(store: ProductStore, tagger: Tagger, folder: Path, progress: Progress | None) -> None:
    blob = BlobWriter(folder / "nouns.bin")
    for done, nouns in enumerate(tagger.tag(product.title for product in store)):
        blob.add(nouns)
        if progress is not None and done % 1000 == 0:
            progress(done, len(store), "tagging titles")
    blob.close()
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    if progress is not None:
        progress(len(store), len(store), "tagging titles")


def open_search(store: ProductStore, *, progress: Progress | None = None) -> Searcher:
    """Returns the catalogue's own search index, from the store, or made there now.

    Raises:
        PrerequisiteError: It is damaged or of another catalogue.
    """
    from leap_worlds.webshop.search import SearchIndex, build_index

    folder = store.folder / SEARCH
    if not (folder / _OWNER).is_file():
        _log.info("building the search index of %d products", len(store))

        def indexed(done: int) -> None:
            if progress is not None:
                progress(done, len(store), "indexing products")

        def fill(partial: Path) -> None:
            build_index(((product.asin, product.contents) for product in store), partial, progress=indexed)
            (partial / _OWNER).write_text(store.manifest.key, encoding="utf-8")

        put_in_place(folder, fill, done=_OWNER)
    if (folder / _OWNER).read_text(encoding="utf-8") != store.manifest.key:
        raise PrerequisiteError(f"{folder} is the search index of another catalogue. Remove it; it is made anew.")
    index = SearchIndex.open(folder)
    if len(index) != len(store):
        what = f"has {len(index):,} documents where the catalogue has {len(store):,} products"
        raise PrerequisiteError(f"{folder} {what}. Remove it; it is made anew.")
    return index
