"""Runs the original WebShop engine beside ours, from a checkout of princeton-nlp/WebShop that the user names.

What it needs and is not installed is stood in for: torch, gym, selenium and the like are imported by it but do nothing in text
mode; spaCy and Lucene do something, and are replaced by our tagger and our search, the same that our engine uses beside it.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from leap_worlds.webshop.build import CatalogueFiles
from leap_worlds.webshop.reward import Purchase
from leap_worlds.webshop.shop import Searcher
from leap_worlds.webshop.tagger import Tagger

_IDLE = ("torch", "gym", "selenium", "requests", "cleantext", "rank_bm25", "tqdm")


class _Hits:
    """A Lucene searcher's face, before our search."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher

    def search(self, query: str, k: int = 10) -> list[Any]:
        return [SimpleNamespace(docid=asin) for asin in self.searcher.search(query, k)]

    def doc(self, docid: str) -> Any:
        return SimpleNamespace(raw=lambda: json.dumps({"id": docid}))


def verbose_info(purchase: Purchase) -> dict[str, Any]:
    """The original's `verbose_info`, key by key."""
    asked = purchase.attributes_asked + purchase.options_asked + 1
    info: dict[str, Any] = {
        "r_type": purchase.type,
        "r_att": purchase.attribute,
        "w_att": purchase.attributes_asked / asked,
        "query_match": purchase.query_match,
        "category_match": purchase.category_match,
        "title_score": purchase.title_score,
    }
    if purchase.option is not None:
        info |= {"r_option": purchase.option, "w_option": purchase.options_asked / asked}
    return info | {"r_price": bool(purchase.price), "w_price": 1 / asked}


def load_original(
    checkout: Path, files: CatalogueFiles, searcher: Searcher, tagger: Tagger, *, human: bool, seed: int
) -> Any:
    """Its `WebAgentTextEnv` on a catalogue.

    Args:
        checkout: Folder that holds `web_agent_site`.
        files: The catalogue.
        searcher: Searches for it.
        tagger: Tags titles for it.
        human: Goals that people wrote.
        seed: Set before its prices and goals are drawn.
    """
    if not (checkout / "web_agent_site").is_dir():
        raise SystemExit(f"{checkout} is no checkout of princeton-nlp/WebShop: it has no folder web_agent_site")
    sys.path.insert(0, str(checkout))
    for name in _IDLE:
        if find_spec(name) is None:
            _stand_in(name)
    sys.modules["gym"].Env = object  # type: ignore[attr-defined]
    sys.modules.setdefault("spacy", ModuleType("spacy")).load = lambda model: _parser(tagger)  # type: ignore[attr-defined]
    _stand_in("pyserini")
    engine: Any = importlib.import_module("web_agent_site.engine.engine")
    text_env: Any = importlib.import_module("web_agent_site.envs.web_agent_text_env")
    engine.DEFAULT_ATTR_PATH, engine.HUMAN_ATTR_PATH = str(files.attributes), str(files.instructions)
    text_env.init_search_engine = lambda num_products=None: _Hits(searcher)
    goal: Any = importlib.import_module("web_agent_site.engine.goal")
    engine.print = goal.print = lambda *said: None  # rich's `print` draws from the generator that the prices come from
    random.seed(seed)
    return text_env.WebAgentTextEnv(
        observation_mode="text_rich", file_path=str(files.products), num_products=files.limit, human_goals=human
    )


def _parser(tagger: Tagger) -> Any:
    def parse(text: str) -> Sequence[Any]:
        return [SimpleNamespace(text=noun, pos_="NOUN") for noun in next(iter(tagger.tag([text])))]

    return parse


class _Anything(MagicMock):
    __path__: tuple[str, ...] = ()


def _stand_in(name: str) -> None:
    children = {
        "gym": ("envs", "envs.registration"),
        "selenium": ("webdriver", "webdriver.chrome", "webdriver.chrome.service", "webdriver.chrome.options",
                     "webdriver.common", "webdriver.common.keys", "common", "common.exceptions"),
        "pyserini": ("search", "search.lucene"),
    }  # fmt: skip
    for path in (name, *(f"{name}.{child}" for child in children.get(name, ()))):
        sys.modules[path] = _Anything(name=path)
    if name == "tqdm":
        sys.modules[name].tqdm = lambda items, **_: items  # type: ignore[attr-defined]


def walk(visit: Any, rng: random.Random, steps: int, queries: Sequence[str]) -> list[str]:
    """A random customer's actions, chosen on our engine's pages."""
    actions: list[str] = []
    for _ in range(steps):
        buttons = [text for text in visit.page.clickables if text not in ("search", "buy now")]
        draw = rng.random()
        if visit.page.search_bar or not buttons or draw < 0.05:
            action = f"search[{rng.choice(queries)}]"
        elif draw < 0.08:
            action = rng.choice(["nonsense", "click[no such button]", "search[]", "think[x]", "click[search]"])
        elif draw < 0.12 and "buy now" in visit.page.clickables:
            action = "click[buy now]"
        else:
            action = f"click[{rng.choice(buttons)}]"
        actions.append(action)
        visit.act(action)
    return actions
