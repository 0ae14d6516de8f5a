"""`leap run --dry-run`: what paid models would be asked is found by rehearsing the recipe, and nobody is asked."""

from __future__ import annotations

from typing import Any

import pytest
from world import OPTIONS

from leap import registry
from leap.cli.dry_run import Estimate, estimate_recipe, estimate_seconds, print_estimate
from leap.core import PrivilegedState, Task
from leap.envs.base import load_environment
from leap.errors import EnvironmentFault, PrerequisiteError, RecipeError
from leap.models import mock
from leap.recipe import Recipe
from leap.testing.corridor import Corridor, CorridorSession

PRICES = {"mock/dear": {"input": 1.0, "output": 2.0}}


@pytest.fixture(autouse=True)
def _nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(request: mock.Request) -> str:
        raise AssertionError("a model was asked")

    monkeypatch.setitem(mock.SCRIPTS, "dear", refuses)


def recipe(**more: Any) -> Recipe:
    world = {"name": "alfworld", "options": OPTIONS, "train_tasks": 3, "validation_tasks": 2, "test_tasks": 2}
    student = {"scratch": {"layers": 1, "width": 16, "heads": 1, "mlp": 16}, "sampling": {"max_tokens": 8}}
    values = {"name": "x", "iterations": 2, "horizon": 30, "environment": world, "prices": PRICES, "student": student}
    return Recipe.model_validate({**values, "teacher": {"kind": "model", "model": "mock/dear"}, **more})


def calls(stages: list[Estimate]) -> dict[str, int]:
    return {stage.stage: stage.calls for stage in stages}


def test_a_trajectory_is_one_call_and_a_step_is_one_up_to_the_horizon() -> None:
    by_trajectory = estimate_recipe(recipe())
    assert calls(by_trajectory) == {"correct 1": 3, "correct 2": 3}
    by_step = estimate_recipe(recipe(teacher={"kind": "model", "model": "mock/dear", "by": "step"}))
    assert calls(by_step) == {"correct 1": 3 * 30, "correct 2": 3 * 30}
    assert by_step[0].tokens_in > 5 * by_trajectory[0].tokens_in
    for stage in (*by_trajectory, *by_step):
        assert stage.usd == pytest.approx((stage.tokens_in + 2 * stage.tokens_out) / 1e6)


def test_every_stage_that_asks_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leap.cli.dry_run.unmet", lambda recipe: [PrerequisiteError("some/model is not there")])
    made = recipe(
        iterations=1,
        evaluation_horizon=10,
        teacher={"kind": "model", "model": "mock/dear", "state": "extracted"},
        demonstrations={"from": "model", "model": "openai/nobody-prices-this", "episodes": 4},
        baselines={"react": [{"model": "mock/dear"}], "teacher_model": True},
        measures={"held_out": 2},
        student={"model": "hf/some/model"},
    )
    stages = estimate_recipe(made)
    found = calls(stages)
    extracted = {stage: found.pop(stage) for stage in list(found) if stage.startswith("extract")}
    acting = {"baseline react-mock/dear": 40, "baseline mock/dear-0": 40, "baseline mock/dear-50": 40}
    assert found == {"rollout 0": 4 * 30, **acting, "correct held-out 0": 2, "correct 1": 3, "correct held-out 1": 2}
    assert extracted["extract 1"] == 3 and set(extracted) <= {"extract 1", "extract held-out 0", "extract held-out 1"}
    assert [stage.usd for stage in stages if stage.model == "openai/nobody-prices-this"] == [None]
    print_estimate(made)
    lines = capsys.readouterr().out.splitlines()
    assert "price unknown" in next(line for line in lines if line.startswith("total"))
    assert "The run cannot start here yet: some/model is not there" in lines, "which no estimate has to wait for"


def test_what_the_run_would_refuse_is_refused() -> None:
    with pytest.raises(RecipeError, match="price of openai/nobody-prices-this is not known"):
        estimate_recipe(recipe(teacher={"kind": "model", "model": "openai/nobody-prices-this"}, budget={"usd": 1}))
    world = {"name": "alfworld", "options": OPTIONS, "validation": "unseen", "test": []}
    with pytest.raises(RecipeError, match="that is a test split"):
        estimate_recipe(recipe(environment=world))


def test_a_budget_that_is_too_small_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    print_estimate(recipe(budget={"usd": 1e-6}))
    assert "more than budget.usd 1e-06" in capsys.readouterr().out


class OpenSession(CorridorSession):
    """A walk on which nothing is hidden."""

    def privileged(self) -> PrivilegedState:
        return PrivilegedState(text="")


@registry.environment("open-corridor")
class OpenCorridor(Corridor):
    """A world without scripts, some of whose sessions cannot be opened."""

    tutor = None
    broken = 0

    def start(self, task: Task) -> CorridorSession:
        if int(task.id.partition("/")[2]) < self.broken:
            raise RuntimeError("the box is gone")
        return OpenSession(self.config)


def in_the_open() -> Recipe:
    world = {"name": "open-corridor", "test": []}
    student, teacher = {"model": "hf/some/model"}, {"kind": "model", "model": "mock/dear", "by": "step"}
    more = {"demonstrations": {"from": "none"}, "baselines": {"teacher_model": True}, "iterations": 1}
    return recipe(environment=world, student=student, teacher=teacher, **more)


def test_what_two_stages_ask_alike_is_paid_for_both() -> None:
    each = dict.fromkeys(("baseline mock/dear-0", "baseline mock/dear-50", "correct 1"), 4 * 30)
    assert calls(estimate_recipe(in_the_open())) == each


def test_a_world_that_fails_now_and_then_is_rehearsed_without_those_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenCorridor, "broken", 1)
    assert calls(estimate_recipe(in_the_open()))["correct 1"] == 4 * 30
    monkeypatch.setattr(OpenCorridor, "broken", 4)
    with pytest.raises(EnvironmentFault, match="the box is gone"):
        estimate_recipe(in_the_open())


def test_a_recipe_without_paid_models_is_checked_and_timed(capsys: pytest.CaptureFixture[str]) -> None:
    free = {"teacher": {"kind": "expert"}, "iterations": 1}
    print_estimate(recipe(**free))
    told = capsys.readouterr().out
    assert "asks no paid model" in told and "Time: about " in told and "busy as it is now. A rehearsal" in told
    world = {"name": "alfworld", "options": OPTIONS, "validation": "vaild"}
    with pytest.raises(PrerequisiteError, match=r"no split 'vaild'.* Did you mean 'valid'\?"):
        print_estimate(recipe(environment=world, **free))


def test_the_time_of_a_run_is_that_of_its_rehearsal_as_often_as_there_is_more_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    world = {"name": "alfworld", "options": OPTIONS}  # 8 training tasks, 3 and 3 for evaluation: all are rehearsed
    training = {"first_steps": 30, "steps": 60}
    made = recipe(environment=world, teacher={"kind": "expert"}, horizon=8, training=training)
    records: list[dict[str, Any]] = []
    monkeypatch.setattr("leap.cli.dry_run.leap", lambda stages: None)
    monkeypatch.setattr("leap.cli.dry_run.read_json", lambda path: records)
    monkeypatch.setattr("leap.runs.stages.Stages.base", lambda stages: "")
    for stage, i, expected in (
        ("evaluate", -1, 8 / 2),  # 8 actions, where 2 were rehearsed
        ("rollout", 0, 8 / 2),
        ("train", 0, 30 / 4),  # 30 steps in place of 4
        ("rollout", 1, 2 * 8 / 2),  # in two iterations
        ("correct", 1, 2 * 8 / 2),
        ("train", 1, 2 * 60 / 4),
        ("evaluate", 1, 2 * 8 / 2),
    ):
        records[:] = [{"stage": stage, "iteration": i, "seconds": 1000.0, "what": stage}]
        told = estimate_seconds(made, load_environment("alfworld", OPTIONS))
        assert told == pytest.approx(1000 * expected, rel=0.01), (stage, i)
