"""Goals: what to buy, in words and in facts, with the prices that they depend on.

Source: `get_human_goals`, `get_synthetic_goals` (web_agent_site/engine/goal.py) and `generate_product_prices`
(engine.py) of WebShop 64fa2a5. There all draws come from one unseeded generator, so that two processes disagree on the
price limits (the goals' order is the same: it is shuffled by seed 233). Here the generator is an argument, and draws in
the same order: the price of each product that has a range, then a limit for each goal.
"""

from __future__ import annotations

import bisect
import json
import math
import random
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from leap.envs.base import Progress
from leap.errors import PrerequisiteError
from leap_worlds.made import counted, put_in_place
from leap_worlds.webshop.store import Blob, ProductStore, load_array

SHUFFLE_SEED = 233
"""Seed of the goals' order in the original; the published splits are ranges of this order."""
NO_LIMIT = 1_000_000
"""Price limit of a goal that names none, in US dollars."""
_LIMITS = [10.0 * i for i in range(1, 100)]
_CANDIDATES = 4
_COUNTS = "counts.json"
"""How many there are; written last."""
_MOST = 100_000_000
"""No catalogue has more goals: the whole official one can have eight million."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What to buy.

    Attributes:
        index: Place in the shuffled order: the session number of the original.
        asin, category, query, name, product_category: Of the product it was written for.
        instruction: The task in words, with the price limit where there is one.
        attributes: What the purchase must have.
        price_upper: Price limit, in US dollars; `NO_LIMIT` if there is none.
        options: What must be chosen: values (goals by people), or values by name (synthetic ones).
    """

    index: int
    asin: str
    category: str
    query: str
    name: str
    product_category: str
    instruction: str
    attributes: tuple[str, ...]
    price_upper: float
    options: tuple[str, ...] | dict[str, str]

    @property
    def option_values(self) -> tuple[str, ...]:
        """The values to choose, of either kind of goal."""
        return tuple(self.options.values()) if isinstance(self.options, dict) else self.options


def draw_prices(store: ProductStore, rng: random.Random) -> np.ndarray:
    """The price of each product that a purchase is judged by, in US dollars: a float64 array in the store's order.

    A product with a range has a price drawn from it (the page shows the range). The draws are the generator's own
    `uniform`, all at once.
    """
    prices, ends = np.array(store.pricing[:, 0]), store.pricing[:, 1]
    ranged = np.flatnonzero(~np.isnan(ends))
    version, internal, gauss = rng.getstate()
    twin = np.random.RandomState()  # the same generator (MT19937), drawing the same numbers many at a time
    twin.set_state(("MT19937", np.array(internal[:-1], dtype=np.uint32), internal[-1], 0, 0.0))
    draws = twin.random_sample(len(ranged))
    state: Any = twin.get_state()
    rng.setstate((version, (*(int(word) for word in state[1]), int(state[2])), gauss))
    prices[ranged] += (ends[ranged] - prices[ranged]) * draws
    return prices


def draw_limit(price: float, rng: random.Random) -> float:
    """A price limit above a price: two of the next four multiples of ten below 1,000 are drawn and the larger is taken."""
    first = bisect.bisect_right(_LIMITS, price)
    candidates = _LIMITS[first : first + _CANDIDATES]
    return max(rng.sample(candidates, 2)) if len(candidates) > 1 else NO_LIMIT


def limit_text(limit: float) -> str:
    """Returns a price limit as the instruction words it."""
    return "" if limit == NO_LIMIT else f", and price lower than {limit:.2f} dollars"


class Goals:
    """The goals of a catalogue in the original's order; each is put together when it is asked for.

    Made-up goals can be eight million. So nothing is kept of each but its limit: texts stay in the store's files, and
    where they lie there, how many goals each stands for and the order are found once, and kept beside them.

    Args:
        store: The catalogue.
        prices, rng: What `draw_prices` drew, and the generator that drew it, to go on with.
        human: Goals that people wrote; otherwise those made up from attributes and every combination of options.
        progress: Called while the goals are counted.
    """

    def __init__(
        self, store: ProductStore, prices: np.ndarray, rng: random.Random, *, human: bool, progress: Progress | None = None
    ) -> None:
        self._store = store
        folder = store.folder / ("goals-human" if human else "goals-synthetic")
        try:
            put_in_place(folder, lambda partial: _index(store, partial, human=human, progress=progress), done=[_COUNTS])
            self._lines = Blob(store.instructions_file(human=human), list, ends=load_array(folder / "lines.npy"))
            self._ends, self._order = load_array(folder / "ends.npy"), load_array(folder / "order.npy")
            places = load_array(folder / "places.npy")
            sizes = {len(self._lines), len(self._ends), len(places)}
            if len(sizes) != 1 or len(self._order) != (self._ends[-1] if len(self._ends) else 0):
                raise ValueError("its parts do not belong together")
        except (OSError, ValueError) as error:
            raise PrerequisiteError(
                f"{folder} is damaged ({error}). Remove {store.folder}; it is made anew."
            ) from error
        limits = (draw_limit(price, rng) for price in np.asarray(prices)[places].tolist())
        self._limits = np.fromiter(limits, np.float64, len(places))

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Goal:
        index = range(len(self))[index]
        ordinal = int(self._order[index])
        number = int(np.searchsorted(self._ends, ordinal, side="right"))
        place, text, attributes, *said = self._lines[number]
        product = self._store[place]
        if said:
            text, options = text.strip("."), tuple(said[0])
        else:
            options = _combination(product.options, ordinal - (int(self._ends[number - 1]) if number else 0))
            text += (" with " if options else "") + ", and ".join(f"{k}: {v}" for k, v in options.items())
        limit = float(self._limits[number])
        return Goal(
            index=index,
            asin=product.asin,
            category=product.category,
            query=product.query,
            name=product.title,
            product_category=product.product_category,
            instruction=text + limit_text(limit),
            attributes=tuple(attributes),
            price_upper=limit,
            options=options,
        )


def _index(store: ProductStore, folder: Path, *, human: bool, progress: Progress | None) -> None:
    """Finds where each instruction lies, how many goals it stands for, and the order of all goals."""
    places, lines, ends = array("i"), array("q"), array("q")
    line_end = goals = 0
    total = store.manifest.human if human else store.manifest.synthetic
    with store.instructions_file(human=human).open("rb") as file:
        for line in counted(file, total, progress, "counting goals"):
            place, *_ = msgspec.json.decode(line)
            line_end += len(line)
            goals += 1 if human else math.prod(len(values) for values in store[place].options.values())
            if goals > _MOST:
                raise PrerequisiteError(f"this catalogue's options combine to more than {_MOST:,} goals")
            places.append(place)
            lines.append(line_end)
            ends.append(goals)
    order = array("i", range(goals))
    random.Random(SHUFFLE_SEED).shuffle(order)
    for name, values in (("places", places), ("lines", lines), ("ends", ends), ("order", order)):
        np.save(folder / f"{name}.npy", np.array(values))
    (folder / _COUNTS).write_text(json.dumps({"instructions": len(lines), "goals": goals}), encoding="utf-8")


def _combination(options: dict[str, tuple[str, ...]], rank: int) -> dict[str, str]:
    """Returns the combination of that rank in `itertools.product` over the sorted names' values."""
    chosen: dict[str, str] = {}
    for name in sorted(options, reverse=True):
        rank, at = divmod(rank, len(options[name]))
        chosen[name] = options[name][at]
    return {name: chosen[name] for name in sorted(options)}
