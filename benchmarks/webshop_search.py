"""Measures WebShop's search at the size of the official catalogue, on synthetic documents (see webshop_corpus.py).

    python benchmarks/webshop_search.py build FOLDER [--documents 1180000]
    python benchmarks/webshop_search.py enlarge FOLDER INTO [--times 12]
    python benchmarks/webshop_search.py query FOLDER
    python benchmarks/webshop_search.py memory FOLDER
    python benchmarks/webshop_search_libraries.py       (beside other libraries)

`build` writes the index that `query` and `memory` read. Times are CPU time of one process on one core;
`webshop_search.log` holds the last full run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
import shutil
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from leap_worlds.made import counted
from leap_worlds.webshop.search import SearchIndex, build_index
from leap_worlds.webshop.search.bm25 import Array, Postings, best, contributions
from leap_worlds.webshop.search.index import ARRAYS, read_manifest, write_manifest, write_strings
from webshop_corpus import Corpus


def build(arguments: argparse.Namespace) -> None:
    """Index from documents that are made on the fly; what making them takes is told apart."""
    corpus = Corpus()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    making = 0.0

    def documents() -> Iterator[tuple[str, str]]:
        nonlocal making
        stream = corpus.documents(arguments.documents)
        while True:
            began = time.process_time()
            some = list(islice(stream, 1000))
            making += time.process_time() - began
            if not some:
                return
            yield from some

    def progress(done: int, total: int, what: str) -> None:
        if done % 200_000 == 0:
            print(f"  {done} documents, {time.process_time() - began - making:.0f} s", flush=True)

    began, wall = time.process_time(), time.perf_counter()
    build_index(counted(documents(), arguments.documents, progress, "documents"), arguments.folder)
    took = time.process_time() - began - making
    manifest = read_manifest(arguments.folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"build: {manifest.documents} documents, {manifest.tokens / manifest.documents:.1f} terms each, {manifest.terms}"
        f" different terms, {manifest.postings} postings, {sum(manifest.files.values()) / 1e6:.0f} MB on disk\n"
        f"  index {took:.0f} s CPU ({took / manifest.documents * 1e6:.0f} us a document), making the documents {making:.0f}"
        f" s more; {time.perf_counter() - wall:.0f} s wall on a busy machine\n"
        f"  peak memory {peak / 1024:.0f} MB, of which the corpus {before / 1024:.0f} MB"
    )


def enlarge(arguments: argparse.Namespace) -> None:
    """Where building the whole takes too long: an index with each document several times, each copy without one in ten
    of its postings, drawn anew. Document frequencies grow alike, so lists are as long as in a catalogue of that size."""
    small = read_manifest(arguments.folder)
    arrays = {name: np.load(arguments.folder / f"{name}.npy") for name in ARRAYS}
    starts = arrays["starts"]
    random = np.random.default_rng(0)
    offsets = np.arange(arguments.times, dtype=np.uint32)[:, None] * np.uint32(small.documents)
    counts = np.zeros(small.terms, np.int64)
    documents, saturations = [], []
    for low in range(0, small.terms, 20_000):
        high = min(low + 20_000, small.terms)
        span = slice(starts[low], starts[high])
        owner = np.repeat(np.arange(low, high), np.diff(starts[low : high + 1]))
        kept = random.random((arguments.times, len(owner))) < 0.9
        kept[0] |= ~kept.any(axis=0)  # no term without a posting
        owners = np.broadcast_to(owner, kept.shape)[kept]
        order = np.argsort(owners, kind="stable")
        documents.append((arrays["documents"][span] + offsets)[kept][order])
        saturations.append(np.broadcast_to(arrays["saturations"][span], kept.shape)[kept][order])
        counts += np.bincount(owners, minlength=small.terms)
    large = {**arrays, "starts": np.concatenate(([0], np.cumsum(counts)))}
    large |= {"documents": np.concatenate(documents), "saturations": np.concatenate(saturations)}
    arguments.into.mkdir()
    for name, array in large.items():
        np.save(arguments.into / f"{name}.npy", array)
    for part in ("text", "starts"):
        shutil.copy(arguments.folder / f"terms_{part}.npy", arguments.into)
    total = small.documents * arguments.times
    write_strings(arguments.into, "asins", [b"B%09d" % number for number in range(total)])
    grown = {"documents": total, "with_terms": total, "tokens": small.tokens * arguments.times, "terms": small.terms}
    write_manifest(arguments.into, **grown, postings=int(counts.sum()))
    manifest = read_manifest(arguments.into)
    size = sum(manifest.files.values()) / 1e6
    print(f"enlarge: {total} documents, {manifest.terms} terms, {manifest.postings} postings, {size:.0f} MB on disk")


def exhaustive(postings: list[Postings], documents: int, k: int) -> Array:
    """The definition that `best` must agree with: scores every document that has a term, ties in the documents' order."""
    total = np.zeros(documents, np.float64)
    for term in postings:
        total[term.documents] += contributions(term.weight, term.saturations)
    found = np.flatnonzero(total)
    return found[np.argsort(-total[found].astype(np.float32), kind="stable")[:k]]


def query(arguments: argparse.Namespace) -> None:
    """Time to open, and per query, beside scoring every document that matches; both must agree."""
    began, wall = time.process_time(), time.perf_counter()
    index = SearchIndex(arguments.folder)
    index.search("nothing of interest")
    print(
        f"open: {time.perf_counter() - wall:.3f} s wall, {time.process_time() - began:.3f} s CPU, first query included"
    )
    print(f"query: {len(index)} documents, {index.manifest.postings} postings, top 50, CPU ms after one warm-up pass")
    corpus = Corpus()
    for name, long in (("long", True), ("short", False)):
        queries = corpus.queries(arguments.queries, long=long)
        terms = statistics.mean(len(index.postings(text)) for text in queries)
        touched = statistics.mean(sum(len(term.documents) for term in index.postings(text)) for text in queries)
        wrong, cold, warm, plain = 0, [], [], []
        for times in (cold, warm):
            for text in queries:
                began = time.process_time()
                index.search(text)
                times.append((time.process_time() - began) * 1e3)
        for text in queries[: arguments.exhaustive]:
            began = time.process_time()
            expected = exhaustive(index.postings(text), len(index), 50)
            plain.append((time.process_time() - began) * 1e3)
            found = best(index.postings(text), len(index), 50)
            wrong += found.tolist() != expected.tolist()
        print(
            f"  {name:5} n {len(queries)}, {terms:.1f} terms with {touched:,.0f} postings: {_times(warm)}"
            f" (first pass {_times(cold)})\n"
            f"        every match scored, n {len(plain)}: {_times(plain)};"
            f" {statistics.mean(plain) / statistics.mean(warm[: len(plain)]):.1f} times as long; {wrong} answers differ"
        )


def _times(times: list[float]) -> str:
    ordered = sorted(times)
    return f"mean {statistics.mean(times):.2f}, p95 {ordered[int(0.95 * len(ordered))]:.2f}, max {ordered[-1]:.2f}"


def memory(arguments: argparse.Namespace) -> None:
    """Proportional set size of workers that share one index, each after its own queries."""
    corpus = Corpus()
    queries = [text for long in (True, False) for text in corpus.queries(arguments.queries, long=long)]
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(arguments.workers), context.Queue()
    workers = [
        context.Process(target=_worker, args=(arguments.folder, queries[number :: arguments.workers], barrier, results))
        for number in range(arguments.workers)
    ]
    for worker in workers:
        worker.start()
    sizes = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    total = {name: sum(size[name] for size in sizes) / 1024 for name in ("Pss", "Pss_Anon", "Pss_File")}
    print(
        f"memory: {arguments.workers} workers, {len(queries)} queries between them: {total['Pss']:.0f} MB in all (PSS), of which"
        f" {total['Pss_File']:.0f} MB files, the index among them, shared; {total['Pss_Anon'] / arguments.workers:.0f} MB"
        " private to each"
    )


def _worker(folder: Path, queries: list[str], barrier: Any, results: Any) -> None:
    index = SearchIndex(folder)
    for text in queries:
        index.search(text)
    barrier.wait()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    barrier.wait()  # nobody leaves before all have looked
    results.put(sizes)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("build")
    command.add_argument("folder", type=Path)
    command.add_argument("--documents", type=int, default=1_180_000)
    command.set_defaults(run=build)
    command = commands.add_parser("enlarge")
    command.add_argument("folder", type=Path)
    command.add_argument("into", type=Path)
    command.add_argument("--times", type=int, default=12)
    command.set_defaults(run=enlarge)
    command = commands.add_parser("query")
    command.add_argument("folder", type=Path)
    command.add_argument("--queries", type=int, default=200)
    command.add_argument("--exhaustive", type=int, default=50, help="so many of them are scored in full, too")
    command.set_defaults(run=query)
    command = commands.add_parser("memory")
    command.add_argument("folder", type=Path)
    command.add_argument("--queries", type=int, default=80)
    command.add_argument("--workers", type=int, default=8)
    command.set_defaults(run=memory)
    arguments = parser.parse_args()
    print(
        f"# {platform.python_implementation()} {platform.python_version()}, numpy {np.__version__}, {platform.machine()}"
    )
    arguments.run(arguments)


if __name__ == "__main__":
    main()
