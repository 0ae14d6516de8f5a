"""Best-of-N in the tiny world of the examples: a student cloned from an expert who searches from left to right, and its value
model.

`python benchmarks/value_tiny.py FOLDER [--seed N] [--labels replay]`, with `examples` in PYTHONPATH. With 4 actions two places
can be looked into. The key is nearly always in the hat, which the expert does not know: what there is to gain is learnt by the
value model alone, from training tasks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

import leap
from leap.cli.value import print_best_of, print_measured
from leap.files import read_json
from leap.runs.directory import RunDirectory
from leap.runs.valuing import BestOfScore
from leap.value.measured import Measured
from tiny_world import TinyWorld, TinyWorldConfig

RECIPE = """
name: tiny-world
iterations: 0
horizon: 4
environment: {name: tiny-world, validation: valid, test: [test]}
student:
  scratch: {layers: 1, width: 32, heads: 2, mlp: 32}
  prompt: {renderer: dialogue, instructions: false, candidates: false}
  sampling: {max_tokens: 32, max_reason_tokens: 16}
  decoding: constrained
demonstrations: {episodes: 60, successes_only: false}
training: {branches: true, optimizer: muon, lr: 0.003, first_steps: 150, steps: 150, batch_tokens: 1000}
value: {tasks: 300, held_out: 100, steps: 4, answers: 2, listed: 3, best_of: [1, 4, 8, all], votes: 0.0, training: {epochs: 3.0}}
"""


def main() -> None:
    """Runs it and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labels", default="replay", choices=("replay", "returns", "planner"))
    given = parser.parse_args()
    leap.environment("tiny-world")(TinyWorld)
    values = yaml.safe_load(RECIPE)
    values["seed"], values["value"]["labels"] = given.seed, given.labels
    done = leap.run(values, environment=TinyWorld(TinyWorldConfig(tasks=300)), run_dir=given.folder)
    run = RunDirectory(done.path)
    print_measured(Measured.model_validate(read_json(run.value(0, f"{given.labels}.json"))["measured"]))
    print_best_of([BestOfScore.model_validate(one) for one in read_json(run.best_of(0, "scores.json"))])


if __name__ == "__main__":
    main()
