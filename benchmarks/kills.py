"""Kills a tiny run at each of its distinct file operations, gives the command again and compares with a run left alone.

    python benchmarks/kills.py expert paid      the whole; in kills.log
    python benchmarks/kills.py paid --only calls.sqlite

What is killed, and how: tests/shared/kill_points.py and killed_runs.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "shared"))

from killed_runs import distinct, trials


def main() -> int:
    """Returns how many kills did not end as they should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", help="expert, paid")
    parser.add_argument("--only", default="", help="Only operations whose names hold this.")
    parser.add_argument("--list", action="store_true", help="Names every kill, not only those that went wrong.")
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="Begins no further kill after so many, for each recipe."
    )
    asked = parser.parse_args()
    wrong = 0
    memory = Path("/dev/shm")  # where nothing waits for a disk: what a kill leaves is the same
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder, trials(Path(folder)) as trial:
        for kind in asked.recipes:
            began, made, unlike = time.monotonic(), trial(kind), 0
            points = [point for point in distinct(made.points) if asked.only in point.what]
            names = {point.what for point in made.points}
            print(
                f"{kind}: {len(made.points)} file operations, {len(names)} of them distinct; {len(points)} kills",
                flush=True,
            )
            kinds = Counter(point.what.split()[0] for point in points)
            print("  at " + ", ".join(f"{count} {name}" for name, count in kinds.most_common()))
            print(f"  {sum(point.half for point in points)} of them in the middle of a write", flush=True)
            done = 0
            for point in (
                point for start in range(16) for point in points[start::16]
            ):  # what is done is spread over the run
                if time.monotonic() - began > 60 * asked.minutes:
                    break
                done += 1
                if differs := made.killed_at(point):
                    unlike += 1
                    print(f"  {point}: {differs}", flush=True)
                elif asked.list:
                    print(f"  {point}: as if nothing had happened", flush=True)
            print(f"  {done - unlike} of {done} end as the run left alone, with nothing left over")
            if made.teacher is not None:
                print(f"  no answer that was booked was paid again; {made.again} were under way at a kill, and were")
            print(f"  {time.monotonic() - began:.0f} s", flush=True)
            wrong += unlike
    return wrong


if __name__ == "__main__":
    raise SystemExit(min(main(), 1))
