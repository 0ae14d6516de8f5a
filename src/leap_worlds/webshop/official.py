"""The official files: where they come from, where they go, and whether what is there is what was published.

Sources: setup.sh of WebShop 64fa2a5 (the files' places); its baseline_models/data/human_goals.json, the published goals
in order, of which `canonical_goals.txt` holds six hexadecimal digits each.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from leap.envs.base import Finding, Progress
from leap.errors import LeapError, PrerequisiteError
from leap.paths import cache_dir, expanded
from leap_worlds.reach import TO_CONNECT, reach
from leap_worlds.webshop.build import CatalogueFiles
from leap_worlds.webshop.catalogue import RawAttributes, RawInstruction, RawProduct
from leap_worlds.webshop.jsonfiles import JsonArray, JsonObject
from leap_worlds.webshop.splits import SMALL_PRODUCTS
from leap_worlds.webshop.world import ShopWorld

OFFICIAL_PRODUCTS = 1_181_436
"""Products of the full catalogue, by the log of an index of it (princeton-nlp/WebShop issue 24)."""
_DIGITS = 6
_HOST = "drive.google.com"
_TO_GO_ON = 60
"""Seconds until a server that has stopped sending is given up."""
_TRIES = 3
_PRICE = re.compile(r", and price lower than [\d.]+ dollars$")


class OfficialFile(NamedTuple):
    """A published file: its name, its number at Google Drive, and roughly its size, for people."""

    name: str
    drive: str
    size: str

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"https://{_HOST}/uc?id={self.drive}"


INSTRUCTIONS = OfficialFile("items_human_ins.json", "14Kb5SPBk_jfdLZ_CDBNitW98QLDlKR5O", "5 MB")
FULL = (
    OfficialFile("items_shuffle.json", "1A2whVgOO0euk5O13n2iYDM0bQRkkRduB", "5 GB"),
    OfficialFile("items_ins_v2.json", "1s2j6NgHljiZzQNL3veZaAiyW_qDEgBNi", "180 MB"),
    INSTRUCTIONS,
)
SMALL = (
    OfficialFile("items_shuffle_1000.json", "1EgHdxQ_YxqIQlvvq5iKlCrkEKR6-j0Ib", "5 MB"),
    OfficialFile("items_ins_v2_1000.json", "1IduG0xl544V_A_jv3tHXC0kyFi7PnyBu", "150 kB"),
    INSTRUCTIONS,
)


def official_files(products: int | None) -> tuple[OfficialFile, ...]:
    """Returns the files that hold so many products; all of them if None."""
    return SMALL if products is not None and products <= SMALL_PRODUCTS else FULL


def data_folder(path: Path | None = None) -> Path:
    """Returns where the official files are looked for: the path, else `$WEBSHOP_DATA`, else leap's cache."""
    return expanded(path or os.environ.get("WEBSHOP_DATA") or cache_dir() / "webshop" / "official")


def find_files(folder: Path, limit: int | None) -> CatalogueFiles:
    """The official files in a folder; where only so many products are wanted that the small files hold them, those."""
    full, small = ([folder / file.name for file in files] for files in (FULL, SMALL))
    has_small = all(path.is_file() for path in small)
    chosen = small if official_files(limit) is SMALL and all(path.is_file() for path in small[:2]) else full
    if missing := [path.name for path in chosen if not path.is_file()]:
        hint = f" The files of the first {SMALL_PRODUCTS:,} products are there: with products: {SMALL_PRODUCTS} they are used."
        raise PrerequisiteError(
            f"no WebShop data: {', '.join(missing)} not in {folder}. `leap data webshop` fetches the official files; or put them "
            f"there by hand, or name their folder (environment.options.path, or WEBSHOP_DATA).{hint if has_small else ''}"
        )
    return CatalogueFiles(*chosen, limit=limit)


def fetch(
    files: Sequence[OfficialFile], folder: Path, *, source: Path | None = None, progress: Progress | None = None
) -> list[str]:
    """Downloads what is missing into a folder, or copies it from `source`, where it was put by hand; returns the names.

    A file is there whole and read through, or not at all; the error says what to put where by hand. `progress` is
    called with MB that came, MB in all (0 where that is not known) and what is being tried.
    """
    missing = [file for file in files if not (folder / file.name).is_file()]
    for file in missing:
        partial = folder / f".{file.name}.partial"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if source is None:
                what = f"fetching {file.name} ({file.size}) from {_HOST} into {folder}"
                _download(file, partial, lambda done, total, what=what: progress and progress(done, total, what))
            else:
                shutil.copyfile(source / file.name, partial)
            _read_through(partial, file.name)
            partial.rename(folder / file.name)
        except (LeapError, OSError) as error:
            raise PrerequisiteError(f"{file.name} could not be fetched: {error}\n{by_hand(missing, folder)}") from error
        finally:
            if partial.is_file():
                partial.unlink()
    return [file.name for file in missing]


def by_hand(files: Sequence[OfficialFile], folder: Path) -> str:
    """Returns instructions for people: which files to put where."""
    lines = "".join(f"  {file.name} ({file.size}): {file.url}\n" for file in files)
    return (
        f"Put these files into {folder}, then give the same command again to have them checked:\n{lines}"
        "(items_human_ins.json is also in the repository princeton-nlp/WebShop, under baseline_models/data.)"
    )


def _download(file: OfficialFile, target: Path, progress: Callable[[int, int], None]) -> None:
    try:
        import gdown
    except ImportError as error:
        raise PrerequisiteError("gdown is not installed; run `pip install 'leap-agents[webshop]'`.") from error

    progress(0, 0)
    reach(f"https://{_HOST}")
    try:
        came = gdown.download(
            id=file.drive,
            output=str(target),
            quiet=True,
            resume=True,  # what a broken download brought stays beside the target, and the next call goes on from there
            timeout=(TO_CONNECT, _TO_GO_ON),
            retries=_TRIES,
            progress=lambda done, total: progress(done // 1_000_000, (total or 0) // 1_000_000),
        )
    except Exception as error:  # requests' errors, gdown's own, and of what it parses
        raise PrerequisiteError(" ".join(str(error).split()) or type(error).__name__) from error
    if not came or not target.is_file():
        raise PrerequisiteError("Google Drive did not hand it out (its quota may be used up; a browser may still get it)")


def _read_through(path: Path, name: str) -> None:
    """Whether it is JSON of the right kind, to its end: Google Drive answers with a page where it has no file to give."""
    if name.startswith("items_shuffle"):
        next(iter(JsonArray(path, RawProduct, key="asin")), None)
    else:
        kind: type = RawAttributes if name.startswith("items_ins") else list[RawInstruction]
        next(iter(JsonObject(path, kind).values()), None)


def check(world: ShopWorld, *, products: int | None) -> list[Finding]:
    """Checks products (how many; all if None), search, and the order of the goals that people wrote."""
    store = world.shop.store
    have, expected = len(store), products or OFFICIAL_PRODUCTS
    cut = "" if have == expected else f", where {expected:,} were expected; is a file cut off or another version?"
    product = store[have // 2]
    found = world.shop.searcher.search(product.title.lower())
    what = f"a search for {product.title!r} does not find product {product.asin}; remove {store.folder}"
    if product.asin in found:
        what = f"search: {have:,} documents; a product's title finds it at place {found.index(product.asin) + 1}"
    findings = [Finding(not cut, f"{have:,} products{cut}"), Finding(product.asin in found, what)]
    return [*findings, _check_goals([goal_digits(goal.instruction) for goal in world.goals], products)]


def _check_goals(ours: list[str], products: int | None) -> Finding:
    expected = canonical_goals()
    if products is not None:
        published = frozenset(expected)
        known = sum(digits in published for digits in ours)
        return Finding(True, f"{len(ours):,} goals by people, {known:,} of them published; too few for the published splits")
    if ours == expected:
        return Finding(True, f"{len(ours):,} goals, in the published order")
    alike = [a == b for a, b in zip(ours, expected, strict=False)]
    first = alike.index(False) if False in alike else len(alike)
    return Finding(
        False,
        f"{len(ours):,} goals, where {len(expected):,} were published; {sum(alike):,} are in their place, and goal {first} is "
        "the first that is not. Numbers on these tasks are not comparable.",
    )


def goal_digits(instruction: str) -> str:
    """Returns what stands for a goal in `canonical_goals.txt`; the price limit and all but letters and digits aside."""
    plain = re.sub(r"[^a-z0-9]", "", _PRICE.sub("", instruction).lower())
    return hashlib.sha256(plain.encode()).hexdigest()[:_DIGITS]


def canonical_goals() -> list[str]:
    """Returns the published goals in order, six digits each."""
    digits = (Path(__file__).parent / "canonical_goals.txt").read_text(encoding="ascii").replace("\n", "")
    return [digits[start : start + _DIGITS] for start in range(0, len(digits), _DIGITS)]
