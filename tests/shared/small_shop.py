"""Small catalogues written by the tests, in the official files' shape; and a search that stands still."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from leap_worlds.webshop.build import CatalogueFiles, build_store
from leap_worlds.webshop.goals import Goal
from leap_worlds.webshop.reward import judge
from leap_worlds.webshop.shop import Shop
from leap_worlds.webshop.store import ProductStore
from leap_worlds.webshop.tagger import LexicalTagger


def a_product(number: int = 0, **changes: Any) -> dict[str, Any]:
    """An entry of `items_shuffle`. Option values may be given as plain texts."""
    product = {
        "asin": f"B{number:09}",
        "name": f"Plain Mug {number}",
        "full_description": "A mug.",
        "small_description": ["holds coffee", "has a handle"],
        "pricing": f"${number + 1}.50",
        "images": ["https://example.invalid/1.jpg"],
        "customization_options": {},
        "category": "garden",
        "query": "Mugs ",
        "product_category": "Home › Kitchen › Mugs",
        "average_rating": 4.5,
    } | changes
    options = product["customization_options"]
    if isinstance(options, dict):
        product["customization_options"] = {
            name: [{"value": value, "image": None} for value in values] if values is not None else None
            for name, values in options.items()
        }
    return product


def write_files(
    folder: Path,
    products: Iterable[dict[str, Any]],
    *,
    attributes: dict[str, Any] | None = None,
    people: dict[str, Any] | None = None,
) -> CatalogueFiles:
    """The three official files."""
    files = CatalogueFiles(
        folder / "items_shuffle.json", folder / "items_ins_v2.json", folder / "items_human_ins.json"
    )
    for path, value in zip(files.paths, (list(products), attributes or {}, people or {}), strict=True):
        path.write_text(json.dumps(value), encoding="utf-8")
    return files


def said(text: str, attributes: Iterable[str] = ("steel",), options: Iterable[str] = ()) -> dict[str, Any]:
    """What a person wrote for a product: an element of an entry of `items_human_ins`."""
    return {
        "instruction": text,
        "instruction_attributes": list(attributes),
        "instruction_options": list(options),
        "worker_id": "w",
    }


def a_store(folder: Path, *products: dict[str, Any], **more: Any) -> ProductStore:
    """The store of some products."""
    files = write_files(folder, products, **more)
    target = folder / "store"
    target.mkdir()
    build_store(files, target)
    return ProductStore(target)


class FixedSearch:
    """Finds the same products whatever is asked."""

    def __init__(self, asins: Iterable[str]) -> None:
        self.asins = list(asins)
        self.queries: list[str] = []

    def search(self, query: str, k: int = 50) -> list[str]:
        """The first k."""
        self.queries.append(query)
        return self.asins[:k]


def a_shop(store: ProductStore, **options: Any) -> Shop:
    """A shop with every product at its lowest price."""
    tagger = LexicalTagger()

    def pay(product: Any, goal: Goal, chosen: dict[str, str]) -> Any:
        nouns, goal_nouns = tagger.tag([product.title, goal.name])
        return judge(product, goal, price=product.pricing[0], chosen=chosen, nouns=nouns, goal_nouns=goal_nouns)

    return Shop(store, FixedSearch(product.asin for product in store), pay, **options)


def a_goal(store: ProductStore, place: int = 0, **changes: Any) -> Goal:
    """A goal for a product."""
    product = store[place]
    fields: dict[str, Any] = {
        "index": 7,
        "asin": product.asin,
        "category": product.category,
        "query": product.query,
        "name": product.title,
        "product_category": product.product_category,
        "instruction": "i want a mug",
        "attributes": ("handle",),
        "price_upper": 50.0,
        "options": (),
    }
    return Goal(**(fields | changes))


def seeded(seed: int = 0) -> random.Random:
    """A generator."""
    return random.Random(seed)
