"""An index opened for searching."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from pathlib import Path

from leap_worlds.webshop.search.analyzer import analyze
from leap_worlds.webshop.search.bm25 import contributions, weight
from leap_worlds.webshop.search.ranking import Postings, best
from leap_worlds.webshop.search.storage import ARRAYS, StringTable, damaged, load_array, read_manifest

_CACHED = 256


class SearchIndex:
    """A catalogue's index. Read only, memory-mapped: worker processes that open the same folder share its pages.

    Attributes:
        folder: The index's folder.
        manifest: The counts of documents, terms and postings.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        self._asins = StringTable(folder, "asins")
        self._terms = StringTable(folder, "terms")
        arrays = {name: load_array(folder, name) for name in ARRAYS}
        if (
            len(self._asins) != self.manifest.documents
            or len(self._terms) != self.manifest.terms
            or len(arrays["starts"]) != self.manifest.terms + 1
            or not len(arrays["documents"]) == len(arrays["saturations"]) == self.manifest.postings
            or len(arrays["peaks"]) != self.manifest.terms
        ):
            raise damaged(folder, "its arrays do not have the lengths that the manifest states")
        self._arrays = arrays
        self._cache: OrderedDict[tuple[str, int], tuple[str, ...]] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path) -> SearchIndex:
        """Opens an index.

        Args:
            folder: What `build_index` wrote.

        Raises:
            PrerequisiteError: No index there, another version's, or a damaged one.
        """
        return cls(folder)

    def __len__(self) -> int:
        return self.manifest.documents

    def search(self, query: str, k: int = 50) -> list[str]:
        """Returns the best documents for a query, in Lucene's order: score descending, then ASIN ascending.

        Args:
            query: Any text. One without a known term finds nothing.
            k: How many at most.

        Returns:
            ASINs.
        """
        with self._lock:
            if (known := self._cache.get((query, k))) is not None:
                self._cache.move_to_end((query, k))
                return list(known)
        ranked = best(self.postings(query), len(self), k) if k > 0 else ()
        found = tuple(self._asins[number] for number in ranked)
        with self._lock:
            self._cache[query, k] = found
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return list(found)

    def postings(self, query: str) -> list[Postings]:
        """The postings of a query's terms, each weighted by how often the query has it; unknown terms are left out."""
        found = ((self._terms.find(term), boost) for term, boost in Counter(analyze(query)).items())
        return [self._postings(at, boost) for at, boost in found if at is not None]

    def _postings(self, at: int, boost: int) -> Postings:
        start, end = self._arrays["starts"][at : at + 2].tolist()
        weighted = weight(self.manifest.with_terms, end - start, boost)
        return Postings(
            self._arrays["documents"][start:end],
            self._arrays["saturations"][start:end],
            weighted,
            float(contributions(weighted, self._arrays["peaks"][at])),
        )
