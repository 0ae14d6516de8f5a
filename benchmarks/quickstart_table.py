"""The table of a quickstart, of runs with different seeds: success and score on its test split.

    leap run recipes/webshop-quickstart.yaml --set seed=0 --run-dir runs/webshop-quickstart-seed0     # and 1, and 2
    python benchmarks/quickstart_table.py --split test runs/webshop-quickstart-seed*

Each seed draws its student's weights, its training tasks and its samples, and, where the split has more tasks than the recipe
plays, its test tasks. Means and 95 % intervals are over tasks and seeds, by the bootstrap that studies use; a comparison is
paired by task.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from leap_lab.studies.statistics import estimate, estimate_share, paired

POLICIES = ("pi_0", "pi_1", "pi_2", "pi_3", "expert", "teacher-0", "teacher-50", "teacher-100")
AGAINST = ("pi_0", "expert")


def episodes(run: Path, policy: str, split: str) -> list[dict]:
    """A policy's test episodes of one run."""
    number = policy.removeprefix("pi_")
    folder = run / f"iter-{number}" / "evaluation" if number.isdigit() else run / "baselines" / policy
    with (folder / f"{split}.jsonl").open("rb") as lines:
        return [msgspec.json.decode(line) for line in lines]


def outcomes(played: list[dict], what: str) -> dict[str, float]:
    """By task, success or score."""
    return {one["task"]["id"]: float(one[what]) for one in played}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--split", required=True)
    given = parser.parse_args()
    runs, split = given.runs, given.split
    played = {policy: [episodes(run, policy, split) for run in runs] for policy in POLICIES}
    success, score = (
        {policy: [outcomes(one, what) for one in played[policy]] for policy in POLICIES} for what in ("success", "score")
    )
    tasks = len(success["pi_0"][0])
    print(f"{split}, n = {tasks} a run, {len(runs)} runs: {', '.join(run.name for run in runs)}\n")
    print("| policy | success, % (mean over seeds, 95 %) | by seed | score, 0-100 |\n|---|---|---|---|")
    for policy in POLICIES:
        rate, points = estimate_share(success[policy]), estimate_share(score[policy])
        seeds = ", ".join(f"{100 * sum(one.values()) / len(one):.1f}" for one in success[policy])
        print(
            f"| {policy} | {100 * rate.value:.1f} [{100 * rate.low_all:.1f}, {100 * rate.high_all:.1f}] | {seeds} "
            f"| {100 * points.value:.1f} [{100 * points.low_all:.1f}, {100 * points.high_all:.1f}] |"
        )
    print()
    for other in AGAINST:
        gap = estimate(paired(success["pi_3"], success[other]))
        low, high = 100 * gap.low_all, 100 * gap.high_all
        print(f"pi_3 against {other}, paired by task: {100 * gap.value:+.1f} points [{low:+.1f}, {high:+.1f}]")


if __name__ == "__main__":
    main()
