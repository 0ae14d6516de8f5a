"""Hours of a real plan on 1, 8 and 64 H100: ALFWorld, Llama-3-8B, three iterations, a quarter of the episodes corrected.

    python benchmarks/scale_plan.py

Nothing is measured here. Tokens are those of `leap run alfworld-llama3-8b --dry-run` (dry_run.log), rates are cited or assumed as
the constants say; what they give is an estimate.
"""

from __future__ import annotations

from math import ceil

from leap.cli.dry_work import CARDS, Work, card_hours

ROLLED_OUT, EVALUATED, BATCH, ROWS = 3020, 804, 32, 32
"""Episodes of a rollout and of an evaluation, episodes in a shard, and rows of a step: of the recipe."""
ROLLOUT, EVALUATION = Work("", read=20.4e6, written=2.1e6), Work("", read=5.4e6, written=0.6e6)
TRAINED = [14.5e6 + i * 91.5e6 / 4 for i in range(4)]
"""Tokens of each stage: dry_run.log, where all of D_1, D_2 and D_3 would be 91.5 million each."""
TRAINING = 5762.0
"""Tokens a second and H100, trained. Cited: torchtitan, Llama 3.1 8B, FSDP on 8 H100, bfloat16, all weights
(benchmarks/llama3_h100_202412_torchtitan.md there; 5,605 on 128 H100). LoRA with recomputation takes as many operations."""
SEVERAL = 5605 / 5762
"""Of that, with many GPUs. Cited, the same table."""
START = 90.0
"""Seconds until a worker has its weights and its environment. Assumed."""
CALLS, SAID, ASKED = [(3020, 216), *[(755, 93), (755, 1910)] * 3], 80.0, 16
"""Calls to the teacher and tokens of an answer (dry_run.log); tokens a second of a call (assumed); calls at once (default)."""


def playing(work: Work, episodes: int, gpus: int) -> float:
    """Hours: shards are batches, and the last of them are waited for."""
    shards = ceil(episodes / BATCH)
    return card_hours(work, 8e9, CARDS["H100"], BATCH) * ceil(shards / gpus) / shards


def training(gpus: int) -> float:
    """Hours: a step's rows are shared out, so more GPUs than rows have nothing to do."""
    useful = min(gpus, ROWS)
    return sum(TRAINED) / (TRAINING * (SEVERAL if useful > 8 else 1)) / 3600 / useful


def main() -> None:
    teacher = sum(number * (tokens / SAID + 1) / ASKED for number, tokens in CALLS) / 3600
    starts = 11 * START / 3600  # of 4 trainings, 4 evaluations, 3 rollouts
    print("hours by the clock                            1 H100   8 H100  64 H100")
    stages = {
        "three rollouts (estimated, data sheet)": [3 * playing(ROLLOUT, ROLLED_OUT, n) for n in (1, 8, 64)],
        "four evaluations (estimated, data sheet)": [4 * playing(EVALUATION, EVALUATED, n) for n in (1, 8, 64)],
        "four trainings (estimated, cited rate)": [training(n) for n in (1, 8, 64)],
        "eleven starts (assumed)": [starts] * 3,
        "the teacher's answers (assumed)": [teacher] * 3,
    }
    totals = [sum(column) for column in zip(*stages.values(), strict=True)]
    for name, hours in {**stages, "total": totals}.items():
        print(f"{name:44}" + "".join(f"{one:9.2f}" for one in hours))
    print(f"{'GPU hours held':44}" + "".join(f"{n * one:9.0f}" for n, one in zip((1, 8, 64), totals, strict=True)))
    busy = [sum(stages[name][k] for name in list(stages)[:3]) for k in range(3)]
    print(f"{'of these at work':44}" + "".join(f"{one / total:9.0%}" for one, total in zip(busy, totals, strict=True)))


if __name__ == "__main__":
    main()
