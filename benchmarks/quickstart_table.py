"""The table of a quickstart, of runs with different seeds: success and score on its test split.

    leap run recipes/webshop-quickstart.yaml --set seed=0 --run-dir runs/webshop-quickstart-seed0     # and 1, and 2
    python benchmarks/quickstart_table.py --split test runs/webshop-quickstart-seed*

Each seed draws its student's weights, its training tasks and its samples, and, where the split has more tasks than the recipe
plays, its test tasks. Means and 95 % intervals are over tasks and seeds, by the bootstrap that studies use, and of one seed
Wilson's; a comparison is paired by task. `best` did best on the run's validation tasks. With `--beside` the best of other runs on
the same tasks, as many seeds, stands beside: another student of the same world, say. Of an evaluation that is under way the table
says how many tasks are on file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

import leap
from leap.stats import wilson
from leap_lab.studies.statistics import estimate, estimate_share, paired

POLICIES = ("pi_0", "pi_1", "pi_2", "pi_3", "expert", "teacher-0", "teacher-50", "teacher-100")
AGAINST = ("pi_0", "expert")


def found(run: Path, policy: str, split: str) -> Path:
    """Where a policy's test episodes of one run are."""
    number = policy.removeprefix("pi_")
    folder = run / f"iter-{number}" / "evaluation" if number.isdigit() else run / "baselines" / policy
    return folder / f"{split}.jsonl"


def episodes(run: Path, policy: str, split: str) -> list[dict]:
    """A policy's test episodes of one run."""
    with found(run, policy, split).open("rb") as lines:
        return [msgspec.json.decode(line) for line in lines]


def outcomes(played: list[dict], what: str) -> dict[str, float]:
    """By task, success or score."""
    return {one["task"]["id"]: float(one[what]) for one in played}


def shown(one: dict[str, float], tasks: int) -> str:
    """A seed's success in percent, with its interval, and of how many tasks where these are not all."""
    low, high = wilson(sum(one.values()), len(one))
    part = f" (under way: {len(one)} of {tasks})" if len(one) < tasks else ""
    return f"{100 * sum(one.values()) / len(one):.1f} [{100 * low:.1f}, {100 * high:.1f}]{part}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--split", required=True)
    parser.add_argument("--beside", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    runs, split = given.runs, given.split
    there = [policy for policy in POLICIES if all(found(run, policy, split).exists() for run in runs)]
    played = {policy: [episodes(run, policy, split) for run in runs] for policy in there}
    played = {policy: each for policy, each in played.items() if all(each)}
    success, score = (
        {policy: [outcomes(one, what) for one in each] for policy, each in played.items()} for what in ("success", "score")
    )
    tasks = max(len(one) for each in success.values() for one in each)
    print(f"{split}, n = {tasks} a run, {len(runs)} runs: {', '.join(run.name for run in runs)}\n")
    print("| policy | success, % (mean over seeds, 95 %) | by seed | score, 0-100 |\n|---|---|---|---|")
    for policy in played:
        rate, points = estimate_share(success[policy]), estimate_share(score[policy])
        print(
            f"| {policy} | {100 * rate.value:.1f} [{100 * rate.low_all:.1f}, {100 * rate.high_all:.1f}] "
            f"| {', '.join(shown(one, tasks) for one in success[policy])} "
            f"| {100 * points.value:.1f} [{100 * points.low_all:.1f}, {100 * points.high_all:.1f}] |"
        )
    best = [f"pi_{leap.open(run).best}" for run in runs]
    chosen = [outcomes(episodes(run, policy, split), "success") for run, policy in zip(runs, best, strict=True)]
    print(f"\nbest on validation: {', '.join(best)}")
    others = {name: success[name] for name in AGAINST if name in success}
    if given.beside:
        names = [f"pi_{leap.open(run).best}" for run in given.beside]
        beside = zip(given.beside, names, strict=True)
        others["best of the others"] = [outcomes(episodes(run, name, split), "success") for run, name in beside]
        print(f"best of the others: {', '.join(shown(one, tasks) for one in others['best of the others'])}")
    for name, other in others.items():
        pairs = paired(chosen, other)
        gap, both = estimate(pairs), sum(map(len, pairs))
        low, high = 100 * gap.low_all, 100 * gap.high_all
        print(f"best against {name}, paired by task (n = {both}): {100 * gap.value:+.1f} points [{low:+.1f}, {high:+.1f}]")


if __name__ == "__main__":
    main()
