"""Kills a tiny run at each of its distinct file operations, gives the command again and compares with a run left alone.

    python benchmarks/kills.py expert paid      the whole; in kills.log
    python benchmarks/kills.py paid --only calls.sqlite
    python benchmarks/kills.py expert paid --strace      kills nobody: are all operations met that strace sees?

What is killed, and how: tests/shared/kill_points.py and killed_runs.py.
"""

from __future__ import annotations

import argparse
import re
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
    parser.add_argument("--strace", action="store_true", help="Count an undisturbed run's operations twice, by strace as well.")
    asked = parser.parse_args()
    wrong = 0
    if asked.strace:
        return sum(unseen(kind) for kind in asked.recipes)
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


_TRACED = (
    "open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir,mknod,mknodat,truncate,ftruncate,fallocate,fsync,fdatasync,sync_file_range,chmod,fchmod,"
    "fchmodat,chown,fchown,lchown,fchownat,utime,utimes,utimensat,sendfile,copy_file_range,splice,setxattr,fsetxattr,mmap"
)
_TO_WRITE = re.compile("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")


def unseen(kind: str) -> int:
    """Says how many operations on files of a run there are, asked about by the kernel and seen by strace; returns the number of
    kinds in which these differ."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "strace")
        strace = ["strace", "-f", "-y", "-qq", "-s", "0", "--seccomp-bpf", "-o", str(out), "-e", f"trace={_TRACED}"]
        with trials(Path(folder), strace) as trial:
            made = trial(kind)
            asked = Counter(point.what.split()[0] for point in made.points)
            out.write_text("")
            made.anew()
            made.give(watch=False)
        seen: Counter[str] = Counter()
        for line in out.read_text(errors="replace").splitlines():
            found = re.match(r"\0*\d+ +(\w+?)(?:64)?\((.*)", line)
            if found is None or f"{made.work}/" not in line:
                continue
            name, rest = found.groups()
            if name == "mmap":
                if "MAP_SHARED" in rest and "PROT_WRITE" in rest:
                    seen[f"mmap of {Path(rest.partition('<')[2].partition('>')[0]).name}"] += 1
            elif not name.startswith("open") or _TO_WRITE.search(rest):
                seen[name] += 1
    del asked["close"]  # which strace is not asked for
    print(f"{kind}: asked about {asked.total()} of {seen.total()} operations that strace sees")
    for name in sorted(asked.keys() | seen.keys()):
        print(f"  {name:24} {asked[name]:5} {seen[name]:5}{'' if asked[name] == seen[name] else '  differ'}")
    return sum(asked[name] != seen[name] for name in asked.keys() | seen.keys())


if __name__ == "__main__":
    raise SystemExit(min(main(), 1))
