"""Pairs by value: the best of several answers over the worst, where they differ by enough; and a run of DPO on them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tiny_recipe import RECIPE

import leap
from leap.core import History
from leap.files import Journal
from leap.policies.base import FunctionPolicy
from leap.policies.rendering import PromptConfig, Renderer
from leap.runs.directory import RunDirectory, marker
from leap.sync import run_sync
from leap.testing.corridor import EAST, STAY, WEST, Corridor, CorridorConfig
from leap.testing.play import walked
from leap.value.pairs import Compared, compare, value_rows
from tiny_world import TinyWorld, TinyWorldConfig

WORLD = Corridor(CorridorConfig(goal=3))
WORTH = {EAST: 0.9, STAY: 0.5, WEST: 0.48}


class Turns:
    """Answers in turn, whoever asks."""

    def __init__(self, *actions: str) -> None:
        self.left = list(actions)

    def __call__(self, history: History) -> str:
        return self.left.pop(0)


def compared(*answers: str, steps: int = 1) -> list[Compared]:
    episode = walked(WORLD, WORLD.task("train"), [STAY] * steps)
    policy = FunctionPolicy(Turns(*answers), concurrency=1, blocking=False)
    asked = len(answers) // steps
    score = lambda history, decisions: [WORTH[one.action] for one in decisions]  # noqa: E731
    return run_sync(compare([episode], policy, score, answers=asked, seed=0, settings="s"))


def test_the_best_answer_is_preferred_over_the_worst() -> None:
    (made,) = compared(STAY, EAST, WEST, EAST, steps=1)
    (one,) = made.steps
    assert (one.t, one.chosen.action, one.rejected.action) == (0, EAST, WEST) and one.gain == pytest.approx(0.42)


def test_where_all_say_the_same_there_is_no_pair_and_where_values_are_near_none_is_made() -> None:
    (made,) = compared(EAST, EAST, STAY, WEST, steps=2)
    assert [one.t for one in made.steps] == [1] and made.steps[0].gain == pytest.approx(0.02)
    episode = walked(WORLD, WORLD.task("train"), [STAY] * 2)
    renderer = Renderer(PromptConfig(), grammar_of=WORLD.grammar_of)
    rows = [
        [
            *value_rows(
                [made.model_copy(update={"episode": episode.key})],
                {episode.key: episode},
                renderer,
                iteration=2,
                margin=m,
            )
        ]
        for m in (0.03, 0.01)
    ]
    assert rows[0] == []
    (row,) = rows[1]
    assert row.prompt == renderer.render(episode.history(1)) and (row.t, row.iteration) == (1, 2)
    assert STAY in row.chosen[0]["content"] and WEST in row.rejected[0]["content"]


@pytest.mark.slow
def test_a_run_learns_from_its_own_answers_alone(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    values = yaml.safe_load(RECIPE)
    sft = {key: value for key, value in values["training"].items() if key != "method"}
    pairs = {
        "method": "dpo",
        "pairs": "value",
        "pair_answers": 3,
        "pair_margin": 0.0,
        "steps": 2,
        "batch_rows": 4,
        "sft": sft,
    }
    values |= {"training": pairs, "value": {"tasks": 6, "held_out": 4, "answers": 1, "training": {"epochs": 1.0}}}
    values["demonstrations"] = {"successes_only": False}
    world = TinyWorld(TinyWorldConfig(tasks=8))
    done = leap.run(values, environment=world, run_dir=tmp_path / "run")
    run = RunDirectory(done.path)
    assert marker(run.value(0, "replay")).exists() and not marker(run.value(1, "replay")).exists()
    made = list(Journal(run.compared(1), Compared))
    assert len(made) == 8
    told = yaml.safe_load(marker(run.checkpoint(1)).read_text())["result"]
    assert told["rows"] == sum(len(one.steps) for one in made) > 0 and told["steps"] == 2
    before = marker(run.checkpoint(1)).read_bytes()
    leap.run(values, environment=world, run_dir=tmp_path / "run")
    assert marker(run.checkpoint(1)).read_bytes() == before
