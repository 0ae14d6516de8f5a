"""What votes alone are worth: of N answers at each step the action is taken that most of them take, without a value model.

`python benchmarks/value_votes.py RUN [--split valid] [--n 8]`, and beside it `leap evaluate RUN -i 1 --best-of 1 --best-of 8`,
which draws the same answers at the same states.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from copy import copy
from pathlib import Path

from leap.core import Episode, History
from leap.policies.base import Act, Policy
from leap.policies.decoding import DecodingConfig, DecodingPolicy
from leap.policies.model import ModelPolicy
from leap.rollouts import Play, rollout
from leap.runs.open import open_run
from leap.stats import wilson


class Votes(DecodingPolicy[DecodingConfig]):
    """The action that most answers take; the first of such on a tie."""

    name = "votes"

    def __init__(self, config: DecodingConfig, student: ModelPolicy) -> None:
        super().__init__(config, student)
        self._hot = copy(student)
        self._hot.hot = 1.0

    def drawing(self, k: int) -> Policy:
        return self._hot if k else self.student

    def choose(self, history: History, acts: Sequence[Act]) -> Act:
        votes = Counter(act.decision.action for act in acts if act.parsed)
        return max((act for act in acts if act.parsed), key=lambda act: votes[act.decision.action], default=acts[0])


def main() -> None:
    """Plays the split and prints success."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("-i", type=int, default=1)
    parser.add_argument("--split", default="valid")
    parser.add_argument("--n", type=int, default=8)
    given = parser.parse_args()
    episodes: list[Episode] = []
    with open_run(given.run) as stages:
        recipe = stages.recipe
        student = stages.actors.student_policy(given.i, recipe.student.temperature_at_evaluation)
        assert isinstance(student, ModelPolicy)
        play = Play(stages.evaluation_tasks()[given.split], recipe.test_horizon, recipe.seed, f"evaluate-pi_{given.i}")
        rollout(stages.environment, Votes(DecodingConfig(n=given.n), student), play, episodes.append)
    solved, n = sum(one.success for one in episodes), len(episodes)
    low, high = wilson(solved, n)
    print(f"votes of {given.n}, pi_{given.i} on {given.split}: {solved} of {n}, {solved / n:.1%} [{low:.1%}, {high:.1%}]")


if __name__ == "__main__":
    main()
