"""Measures the whole WebShop environment at the size of the official catalogue, on synthetic products in the official schema.

    python benchmarks/webshop_scale.py files FOLDER [--products 1180000]    writes the three official files (5 GB)
    python benchmarks/webshop_scale.py build FOLDER                         store, nouns and search index, as `prepare` makes them
    python benchmarks/webshop_scale.py open FOLDER [--cold]                 a new process, from the cache to its first page
    python benchmarks/webshop_scale.py goals FOLDER                         the made-up goals, which every product has here
    python benchmarks/webshop_scale.py workers FOLDER                       8 processes that shop: memory, and time per step

Texts are those of webshop_corpus.py, cut into titles, descriptions and features; what the shop drops (pictures, facts) is
there too, so that files and products are about as long as the official ones. leap's cache is FOLDER/cache. Times of `build`,
`goals` and `workers` are CPU time; `webshop_scale.log` holds the last full run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import random
import resource
import statistics
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from webshop_corpus import Corpus

DEPARTMENTS = ("beauty", "electronics", "fashion", "garden", "grocery")
GOALS = 12_087
SMALL_WORKER_TASKS = 25


def files(arguments: argparse.Namespace) -> None:
    """Writes the official files, one product at a time."""
    arguments.folder.mkdir(parents=True, exist_ok=True)
    corpus, rng, encode = Corpus(), random.Random(0), msgspec.json.encode
    words = corpus.words.tolist()
    attributes = [" ".join(rng.sample(words[:3000], 2)) for _ in range(700)]
    values = {"Color": words[3000:3400], "Size": words[3400:3700], "Style": words[3700:4000]}
    queries = [" ".join(rng.sample(words[:5000], 2)) for _ in range(2000)]
    asked = set(rng.sample(range(arguments.products), GOALS))
    written = 0
    with (
        (arguments.folder / "items_shuffle.json").open("wb") as products,
        (arguments.folder / "items_ins_v2.json").open("wb") as known,
        (arguments.folder / "items_human_ins.json").open("wb") as people,
    ):
        products.write(b"[")
        known.write(b"{")
        people.write(b"{")
        for number, (asin, text) in enumerate(corpus.documents(arguments.products)):
            terms = text.split(" ")
            options = {
                name: [{"value": value, "image": None} for value in rng.sample(values[name], rng.randint(1, 6))]
                for name in rng.sample(list(values), rng.choice((0, 1, 1, 2)))
            }
            has = rng.sample(attributes, rng.randint(1, 5))
            entry = _product(asin, terms, options, rng, queries)
            products.write((b",\n" if number else b"\n") + encode(entry))
            made_up = {
                "attributes": has,
                "instruction": f"Find me {' and '.join(has[:2])} {entry['query']}",
                "instruction_attributes": has[:2],
            }
            known.write((b",\n" if number else b"\n") + encode(asin) + b": " + encode(made_up))
            if number in asked:
                chosen = [rng.choice(group)["value"] for group in options.values()]
                said = {
                    "asin": asin,
                    "instruction": f"i am looking for {' '.join(terms[:7])} that is {' and '.join(has[:2])}, {' '.join(chosen)}.",
                    "attributes": has,
                    "options": chosen,
                    "instruction_attributes": has[:2],
                    "instruction_options": chosen,
                    "assignment_id": "x",
                    "worker_id": "x",
                }
                people.write((b",\n" if written else b"\n") + encode(asin) + b": " + encode([said]))
                written += 1
        products.write(b"\n]\n")
        known.write(b"\n}\n")
        people.write(b"\n}\n")
    sizes = ", ".join(
        f"{path.name} {path.stat().st_size / 1e6:.0f} MB" for path in sorted(arguments.folder.glob("*.json"))
    )
    print(f"files: {arguments.products} products, {written} instructions; {sizes}; {time.process_time():.0f} s CPU")


def _product(
    asin: str, terms: list[str], options: dict[str, Any], rng: random.Random, queries: list[str]
) -> dict[str, Any]:
    low = round(rng.lognormvariate(3.2, 0.8), 2)
    price = rng.choices((f"${low}", f"${low} to ${round(low * 1.5, 2)}", ""), (80, 15, 5))[0]
    drawn = rng.choices(terms, k=132)
    link = f"https://m.media-amazon.com/images/I/{asin}%d._AC_SL1500_.jpg"
    return {
        "name": " ".join(terms[:14]),
        "asin": asin,
        "pricing": price,
        "list_price": price,
        "brand": terms[0],
        "brand_url": f"https://www.amazon.com/{terms[0]}/b/ref=bl_dp_s_web_{asin}?ie=UTF8&field-lbr_brands_browse-bin={terms[0]}",
        "images": [link % place for place in range(6)],
        "product_information": {
            name: " ".join(drawn[6 * place : 6 * place + 6]) for place, name in enumerate(terms[:12])
        },
        "availability_status": "In Stock.",
        "total_reviews": rng.randint(0, 5000),
        "average_rating": "",
        "small_description": [" ".join(terms[14:29]), *(" ".join(drawn[at : at + 15]) for at in range(72, 132, 15))],
        "small_description_old": " ".join(terms[14:60]),
        "full_description": " ".join(terms[29:]),
        "customization_options": options or "",
        "category": rng.choice(DEPARTMENTS),
        "query": rng.choice(queries),
        "product_category": " › ".join(rng.sample(terms[:10], min(3, len(terms[:10])))),
    }


def build(arguments: argparse.Namespace) -> None:
    """Everything that is made once, as a first `leap run` or `leap data webshop` makes it."""
    from leap_worlds.webshop.world import SEARCH

    environment = _environment(arguments.folder)
    peak_private, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            peak_private[0] = max(peak_private[0], _status("RssAnon"))

    threading.Thread(target=watch, daemon=True).start()
    stages: dict[str, float] = defaultdict(float)
    last = ["checksums", time.process_time()]

    def progress(done: int, total: int, what: str) -> None:
        now = time.process_time()
        stages[last[0]] += now - last[1]
        last[:] = [what, now]

    began, wall = time.process_time(), time.perf_counter()
    environment.prepare(progress)
    stages[last[0]] += time.process_time() - last[1]
    took = time.process_time() - began
    stop.set()
    store = next((arguments.folder / "cache" / "webshop").glob("*/manifest.json")).parent
    sizes = {path.name: _size(path) for path in (store, store / SEARCH)}
    print(
        f"build: {took:.0f} s CPU on one core ({took / 60:.1f} min), {time.perf_counter() - wall:.0f} s wall; "
        + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in stages.items())
        + f"\n  {sizes[store.name] / 1e6:.0f} MB on disk, of which the search index {sizes[SEARCH] / 1e6:.0f} MB"
        f"\n  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB with pages of files, "
        f"{peak_private[0]} MB of its own"
    )


def open_(arguments: argparse.Namespace) -> None:
    """From nothing to the first page of the first test task, the search warm."""
    if arguments.cold:
        for path in arguments.folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    began, wall = time.process_time(), time.perf_counter()
    environment = _environment(arguments.folder)
    environment.prepare()
    prepared = time.perf_counter() - wall
    tasks = environment.tasks("leap")
    session = environment.start(tasks[0])
    session.observe()
    shown = session.act(f"search[{tasks[0].instruction}]").observation
    print(
        f"open{' (pages of files dropped before)' if arguments.cold else ''}: {time.perf_counter() - wall:.2f} s wall, "
        f"{time.process_time() - began:.2f} s CPU to the results of a first search, imports included (ready after "
        f"{prepared:.2f} s); {len(tasks)} tasks, {len(shown.admissible or ())} admissible actions"
    )


def goals(arguments: argparse.Namespace) -> None:
    """Opens the catalogue with its made-up goals: one for every combination of each product's options."""
    from leap_worlds.webshop.splits import World

    environment = _environment(arguments.folder)
    environment.prepare()
    known = next((arguments.folder / "cache" / "webshop").glob("*/goals-synthetic/counts.json"), None)
    began, wall, private = time.process_time(), time.perf_counter(), _status("RssAnon")
    found = environment.world(World.SYNTHETIC).goals
    opened_after, grown = time.process_time() - began, _status("RssAnon") - private
    tasks = environment.tasks("synthetic")
    began = time.process_time()
    for index in range(0, len(found), len(found) // 1000):
        found[index]
    print(
        f"goals{'' if known is None else ' (order known)'}: {len(found)} made-up goals open in {opened_after:.1f} s CPU "
        f"({time.perf_counter() - wall:.1f} s wall) and {grown} MB of private memory more, peak "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB with pages of files; {len(tasks)} tasks of the "
        f"test split; {(time.process_time() - began) * 1e3:.0f} us CPU a goal"
    )


def workers(arguments: argparse.Namespace) -> None:
    """Processes that share a catalogue and shop, the privileged state asked for at each step, as rollouts ask."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(arguments.workers), context.Queue()
    started = [
        context.Process(
            target=_worker, args=(arguments.folder, number, arguments.workers, arguments.tasks, barrier, results)
        )
        for number in range(arguments.workers)
    ]
    for worker in started:
        worker.start()
    found = [results.get() for _ in started]
    for worker in started:
        worker.join()
    total = {name: sum(one["memory"][name] for one in found) / 1024 for name in ("Pss", "Pss_Anon", "Pss_File")}
    steps = [took for one in found for took in one["steps"]]
    asked = [took for one in found for took in one["privileged"]]
    print(
        f"workers: {arguments.workers}, {arguments.tasks} episodes each, {len(steps)} steps, mean score "
        f"{statistics.mean(score for one in found for score in one['scores']):.2f} (scripted teacher, privilege 100)"
        f"\n  memory in all {total['Pss']:.0f} MB (PSS), of which {total['Pss_File']:.0f} MB pages of files, shared, and "
        f"{total['Pss_Anon'] / arguments.workers:.0f} MB private to each"
        f"\n  CPU ms a step: {_times(steps)}; the privileged state of a step besides: {_times(asked)}"
    )


def _worker(folder: Path, number: int, count: int, tasks: int, barrier: Any, results: Any) -> None:
    from leap.core import History
    from leap.envs.base import opened

    environment = _environment(folder)
    environment.prepare()
    steps, asked, scores = [], [], []
    for task in environment.tasks("leap")[number::count][:tasks]:
        with opened(environment, task) as session:
            history, score = History(task=task, observations=(session.observe(),)), 0.0
            for _ in range(15):
                began = time.process_time()
                state = session.privileged()
                asked.append((time.process_time() - began) * 1e3)
                # Some looking round, as students do; then the teacher.
                step = len(history.actions)
                action = {0: f"search[{task.instruction}]", 1: "click[next >]", 2: "click[back to search]"}.get(step)
                if action is None:
                    decision = environment.tutor.correct(history, state, 100)
                    assert decision is not None
                    action = decision.action
                began = time.process_time()
                outcome = session.act(action)
                steps.append((time.process_time() - began) * 1e3)
                history = history.extend(action, outcome.observation)
                score = outcome.score
                if outcome.done:
                    break
            scores.append(score)
    barrier.wait()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    barrier.wait()  # nobody leaves before all have looked
    results.put({"memory": sizes, "steps": steps, "privileged": asked, "scores": scores})


def _environment(folder: Path) -> Any:
    os.environ["LEAP_CACHE"] = str(folder / "cache")
    from leap.envs.base import load_environment

    return load_environment("webshop", {"source": "official", "path": str(folder)})


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(f"{name}:"))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _times(times: list[float]) -> str:
    ordered = sorted(times)
    return f"mean {statistics.mean(times):.2f}, p95 {ordered[int(0.95 * len(ordered))]:.2f}, max {ordered[-1]:.2f}"


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("files")
    command.add_argument("folder", type=Path)
    command.add_argument("--products", type=int, default=1_180_000)
    command.set_defaults(run=files)
    command = commands.add_parser("build")
    command.add_argument("folder", type=Path)
    command.set_defaults(run=build)
    command = commands.add_parser("open")
    command.add_argument("folder", type=Path)
    command.add_argument("--cold", action="store_true", help="the system's cache of the files is dropped before")
    command.set_defaults(run=open_)
    command = commands.add_parser("goals")
    command.add_argument("folder", type=Path)
    command.set_defaults(run=goals)
    command = commands.add_parser("workers")
    command.add_argument("folder", type=Path)
    command.add_argument("--workers", type=int, default=8)
    command.add_argument("--tasks", type=int, default=SMALL_WORKER_TASKS)
    command.set_defaults(run=workers)
    arguments = parser.parse_args()
    print(
        f"# {platform.python_implementation()} {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores"
    )
    arguments.run(arguments)


if __name__ == "__main__":
    main()
