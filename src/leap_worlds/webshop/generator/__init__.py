"""A generator of catalogues: products and instructions of our own words in the official files' schema.

    config = CatalogueConfig(seed=1, products=4000)
    write_catalogue(config, Path("data/shop"))    # items_shuffle.json, items_ins_v2.json, items_human_ins.json

What makes shopping there a task: people do not speak as the shop does ("a couch that survives the launderette" is a
machine washable sofa), products of one kind differ in attributes, options and price, and only part of that stands in a
title.
"""

from __future__ import annotations

from leap_worlds.webshop.generator.config import CatalogueConfig
from leap_worlds.webshop.generator.write import fingerprint, write_catalogue

__all__ = ["CatalogueConfig", "fingerprint", "write_catalogue"]
