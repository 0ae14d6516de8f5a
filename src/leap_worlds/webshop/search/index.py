"""An index opened for searching."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from pathlib import Path

from leap_worlds.webshop.search.analyzer import analyze
from leap_worlds.webshop.search.bm25 import weight
from leap_worlds.webshop.search.ranking import Postings, best
from leap_worlds.webshop.search.storage import ARRAYS, StringTable, damaged, load_array, read_manifest

_CACHED = 256


class SearchIndex:
    """A catalogue's index. Read only, memory-mapped: worker processes that open the same folder share its pages.

    Attributes:
        folder: Where it is.
        manifest: Its counts.
        saturations: (codes,) float32: tf * norm of BM25 for each code of a posting, ascending.
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
            or len(arrays["documents"]) != self.manifest.postings
        ):
            raise damaged(folder, "its arrays do not have the lengths that the manifest states")
        self._starts, self._heads = arrays["starts"], arrays["heads"]
        self._head_codes, self._tail_codes = arrays["head_codes"], arrays["tail_codes"]
        self._documents, self._codes, self.saturations = arrays["documents"], arrays["codes"], arrays["saturations"]
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
        """The best documents for a query, in Lucene's order: score descending, then ASIN ascending.

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
        ranked = best(self.postings(query), self.saturations, len(self), k) if k > 0 else ()
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
        start, head, end = int(self._starts[at]), int(self._heads[at]), int(self._starts[at + 1])
        return Postings(
            self._documents[start:end],
            self._codes[start:end],
            head - start,
            weight(self.manifest.with_terms, end - start, boost),
            int(self._head_codes[at]),
            int(self._tail_codes[at]),
        )
