"""The value model by `planner` of finished runs on actions that the student itself draws, labelled by replay without a discount.

`python benchmarks/value_gap.py RUN...`: 3 steps of each of 100 validation episodes, 4 answers each. Who is more often right, the
student that took an action or the value model? Its values are discounted, so its order counts here and not its calibration.
"""

from __future__ import annotations

import sys
from pathlib import Path

from leap.cli.value import print_measured
from leap.runs import valuing
from leap.runs.open import open_run
from leap.value.measured import measured


def main() -> None:
    """Measures the runs, one after another."""
    for run in sys.argv[1:]:
        with open_run(Path(run)) as stages:
            asked = {"labels": "replay", "steps": 3, "answers": 4, "listed": 0, "discount": 1.0}
            config = stages.recipe.value.model_copy(update=asked)
            held = valuing.episodes_of(stages, 1, stages.recipe.environment.validation, 100, "gap")
            labels = valuing.labels_of(stages, 1, held, config, "gap-replay")
            about = {"policy": "pi_1", "labels": "planner", "split": stages.recipe.environment.validation}
            about |= dict.fromkeys(("trained", "trained_episodes", "executed"), 0)
            print(run)
            print_measured(measured(valuing.scores_of(stages, 1, held, labels), **about))


if __name__ == "__main__":
    main()
