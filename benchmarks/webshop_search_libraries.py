"""How far search libraries agree with Lucene's ranking: 1,000 recorded queries on a catalogue of 10,000 products.

    pip install bm25s tantivy
    python benchmarks/webshop_search_libraries.py [--data FOLDER]

The data are `webshop/catalogue-10000.tar.xz` and `webshop/lucene-top50-10000.json.xz` in --data, else in $LEAP_SHARED_DATA.
A page of WebShop shows ten results; a search gives 50. `webshop_search.log` holds the last run.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from leap_worlds.webshop.search import SearchIndex, build_index
from leap_worlds.webshop.search.analyzer import analyze

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "webshop"))
from search_corpora import catalogue_contents, recorded_rankings  # type: ignore[import-not-found]

Search = Callable[[str], list[str]]


def ours(contents: dict[str, str], folder: Path) -> Search:
    """leap's index."""
    build_index(contents.items(), folder / "leap")
    return SearchIndex(folder / "leap").search


def with_bm25s(contents: dict[str, str], analyzer: Callable[[str], list[str]] | None) -> Search:
    """bm25s with Lucene's formula, k1 and b; its own tokens and English stop words, or the given ones."""
    import bm25s  # type: ignore[import-not-found]

    def tokens(texts: list[str]) -> list[list[str]]:
        if analyzer is not None:
            return [analyzer(text) for text in texts]
        return bm25s.tokenize(texts, stopwords="en", return_ids=False, show_progress=False)  # type: ignore[return-value]

    asins = np.array(list(contents))
    retriever = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    retriever.index(tokens(list(contents.values())), show_progress=False)

    def search(query: str) -> list[str]:
        found, scores = retriever.retrieve(tokens([query]), k=50, show_progress=False)
        order = np.lexsort((asins[found[0]], -scores[0]))  # ties as Lucene breaks them, where they are in the list
        return asins[found[0]][order].tolist()

    return search


def with_tantivy(contents: dict[str, str], analyzer: Callable[[str], list[str]] | None) -> Search:
    """tantivy, whose k1 and b cannot be set; its English stemmer, or the given terms."""
    import tantivy  # type: ignore[import-not-found]

    name = "whitespace" if analyzer is not None else "en_stem"
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("asin", stored=True, tokenizer_name="raw")
    builder.add_text_field("contents", tokenizer_name=name)
    index = tantivy.Index(builder.build())
    writer = index.writer(num_threads=1)
    for asin, text in contents.items():
        writer.add_document(tantivy.Document(asin=asin, contents=" ".join(analyzer(text)) if analyzer else text))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def search(query: str) -> list[str]:
        plain = " ".join(analyzer(query)) if analyzer else "".join(c if c.isalnum() else " " for c in query)
        parsed, _ = index.parse_query_lenient(plain, ["contents"])
        hits = [(-score, searcher.doc(address)["asin"][0]) for score, address in searcher.search(parsed, 50).hits]
        return [asin for _, asin in sorted(hits)]

    return search


def main() -> None:
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("LEAP_SHARED_DATA", "../shared/data"))
    data = Path(parser.parse_args().data) / "webshop"
    contents = catalogue_contents(data / "catalogue-10000.tar.xz")
    recorded = recorded_rankings(data / "lucene-top50-10000.json.xz")
    print(
        f"# CPython {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("numpy", "bm25s", "tantivy"))
    )
    print(
        f"agreement with Lucene 8.11 (Anserini 0.14.3, k1 0.9, b 0.4): {len(contents)} documents, {len(recorded)} queries"
    )
    print(f"  {'':34} in both top 50   first page same   top 50 same   CPU ms a query")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (
            ("leap", lambda: ours(contents, Path(folder))),
            ("bm25s, its tokens", lambda: with_bm25s(contents, None)),
            ("bm25s, leap's terms", lambda: with_bm25s(contents, analyze)),
            ("tantivy, its English stemmer", lambda: with_tantivy(contents, None)),
            ("tantivy, leap's terms", lambda: with_tantivy(contents, analyze)),
        ):
            search = make()
            began = time.process_time()
            found = {query: search(query) for query in recorded}
            took = (time.process_time() - began) / len(recorded) * 1e3
            shared = np.mean([len(set(found[query]) & set(asins)) / len(asins) for query, asins in recorded.items()])
            page = np.mean([found[query][:10] == asins[:10] for query, asins in recorded.items()])
            whole = np.mean([found[query] == asins for query, asins in recorded.items()])
            print(f"  {name:34} {shared:14.1%} {page:17.1%} {whole:13.1%} {took:16.2f}", flush=True)


if __name__ == "__main__":
    main()
