"""What the first iteration of finished runs cost, evaluations apart: `python benchmarks/method_costs.py RUN...`

A stage that a study's arm took from another arm counts as if it had been made there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

VERBS = ("rollout", "correct", "train")


def stages_of(run: Path) -> dict[str, dict[str, Any]]:
    """The stages of iteration 1 by verb, those of other runs too that it took them from."""
    told = json.loads((run / "stages.json").read_text(encoding="utf-8"))
    found = {one["stage"]: one for one in told if one["iteration"] == 1 and one["stage"] in VERBS}
    shared = run / "shared.jsonl"
    taken = map(json.loads, shared.read_text(encoding="utf-8").splitlines()) if shared.exists() else ()
    for source in {one["from"] for one in taken if one["iteration"] == 1 or one["part"].startswith("rollouts")}:
        found = {**stages_of(run.parent / source), **found}
    return found


def main() -> None:
    """Prints a row for each run."""
    columns = ("rollout tokens", "actions executed", "labels", "trained tokens", *(f"{verb} s" for verb in VERBS))
    print(f"{'run':<28}" + "".join(f"{name:>18}" for name in columns))
    for name in sys.argv[1:]:
        stages = stages_of(Path(name))
        figures = [
            stages["rollout"]["tokens"],
            stages["correct"].get("executed", 0),
            stages["correct"].get("kept", stages["correct"]["corrections"]),
            stages["train"]["tokens"],
            *(round(stages[verb]["seconds"]) for verb in VERBS),
        ]
        print(f"{Path(name).name:<28}" + "".join(f"{figure:>18,}" for figure in figures))


if __name__ == "__main__":
    main()
