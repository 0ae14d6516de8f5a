"""Small corpora and a plain reading of the ranking formula for the search tests."""

from __future__ import annotations

import json
import lzma
import math
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from leap_worlds.webshop.search.analyzer import analyze


def catalogue_contents(archive: Path) -> dict[str, str]:
    """ASIN to indexed text, as upstream's convert_product_file_format.py makes it."""
    with tarfile.open(archive) as tar:
        member = next(entry for entry in tar.getmembers() if entry.name.endswith("items_shuffle.json"))
        file = tar.extractfile(member)
        assert file is not None
        products: list[dict[str, Any]] = json.load(file)
    out: dict[str, str] = {}
    for product in products:
        asin = product["asin"]
        if asin == "nan" or len(asin) > 10 or asin in out:
            continue
        bullets = product["small_description"]
        options = ", and ".join(
            f"{name}: {', '.join(values)}" for name, values in _options(product["customization_options"]).items()
        )
        first = bullets[0] if isinstance(bullets, list) else bullets
        out[asin] = " ".join([product["name"], product["full_description"], first, options]).lower()
    return out


def _options(raw: dict[str, list[dict[str, str]] | None] | str | None) -> dict[str, list[str]]:
    return {
        name.lower(): [value["value"].strip().replace("/", " | ").lower() for value in values]
        for name, values in (raw or {}).items()  # type: ignore[union-attr]
        if values is not None
    }


def recorded_rankings(path: Path) -> dict[str, list[str]]:
    """Query to Lucene's first 50."""
    return json.loads(lzma.decompress(path.read_bytes()))


def rank_by_hand(documents: Iterable[tuple[str, str]], query: str, k: int) -> list[str]:
    """The formula, one document and one term at a time."""
    counted = {asin: Counter(analyze(text)) for asin, text in documents}
    lengths = {asin: sum(counts.values()) for asin, counts in counted.items()}
    total = sum(1 for length in lengths.values() if length)
    average = np.float32(sum(lengths.values()) / total) if total else np.float32(1)
    f = np.float32
    scores: dict[str, float] = {}
    for term, boost in Counter(analyze(query)).items():
        frequency = sum(term in counts for counts in counted.values())
        weight = f(boost) * f(math.log(1 + (total - frequency + 0.5) / (frequency + 0.5)))
        for asin, counts in counted.items():
            if term in counts:
                norm = f(1) / (f(0.9) * ((f(1) - f(0.4)) + f(0.4) * f(_through_a_byte(lengths[asin])) / average))
                scores[asin] = scores.get(asin, 0.0) + float(weight - weight / (f(1) + f(counts[term]) * norm))
    return sorted(scores, key=lambda asin: (-np.float32(scores[asin]), asin))[:k]


def _through_a_byte(length: int) -> int:
    if length < 24:
        return length
    rest = length - 24
    drop = max(rest.bit_length() - 4, 0)
    return 24 + ((rest >> drop) << drop)
