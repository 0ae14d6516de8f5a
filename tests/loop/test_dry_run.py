"""`leap run --dry-run`: what paid models would be asked is found by rehearsing the recipe, and nobody is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from world import OPTIONS

from leap import registry
from leap.cli.dry_run import Estimate, estimate_recipe, print_estimate
from leap.cli.dry_time import Speeds, seconds_here
from leap.cli.dry_work import PEAK, READING, Card, Lengths, Work, card_hours, weights_of, works
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


LENGTHS = Lengths(first=100, growth=20, fresh=30, answer=10, steps=5)
WORLD = {"name": "alfworld", "options": OPTIONS}  # 8 training tasks, 3 and 3 for evaluation


def work(corrected: float = 1, **more: Any) -> dict[str, Work]:
    made = recipe(**{"environment": WORLD, "teacher": {"kind": "expert"}, "horizon": 8, **more})
    return {one.stage: one for one in works(made, load_environment("alfworld", OPTIONS), LENGTHS, corrected)}


def test_the_work_of_a_run_is_counted_in_tokens_to_the_horizon() -> None:
    found = work()
    assert list(found) == [f"{what} {i}" for i in range(3) for what in ("rollout", "train", "evaluate")][1:]
    assert found["rollout 1"] == Work("rollout 1", 8 * (100 + 7 * 30), 8 * 8 * 10, actions=8 * 8)
    assert found["evaluate 2"] == Work("evaluate 2", 6 * (100 + 7 * 30), 6 * 8 * 10, actions=6 * 8)
    d0, d1 = 8 * 5 * (100 + 2 * 20 + 10), 8 * 8 * (100 + 3.5 * 20 + 10)  # rows of each step, the union grows
    assert [found[f"train {i}"].trained for i in range(3)] == [d0, d0 + d1, d0 + 2 * d1]
    assert {found[f"train {i}"].passes for i in range(3)} == {3}
    some = work(corrected=0.25)
    assert [some[f"train {i}"].trained for i in range(3)] == [d0, d0 + d1 / 4, d0 + d1 / 2]
    assert work(training={"epochs": 2})["train 1"].trained == 2 * (d0 + d1)
    assert work(evaluation_horizon=16)["evaluate 0"].written == 6 * 16 * 10


def test_what_a_student_does_for_its_own_corrections_is_counted_to_the_horizon() -> None:
    """One answer and one replayed action a step; or four, each tried to the horizon, as far as the cap goes."""
    own = work(teacher={"kind": "self"})["correct 1"]
    assert own == Work("correct 1", 8 * (100 + 4 * 20 + 8 * 30), 8 * 8 * 10, actions=8 * 8)
    tried = work(teacher={"kind": "search"}, corrected=0.5)["correct 1"]
    answers = 4 * 8 + 4 * 8 * 4.5
    assert (tried.written, tried.actions) == (4 * answers * 10, 4 * 4 * 8 * 8)
    assert tried.read == 4 * ((4 + 4 * 8) * (100 + 4 * 20) + answers * 30)
    assert work(teacher={"kind": "search", "most_steps": 20})["correct 1"].actions == 8 * 20


def test_a_recipe_s_own_steps_and_batches_count_where_it_states_them() -> None:
    stated = work(training={"steps": 60, "first_steps": 30, "batch_rows": 4})
    assert stated["train 0"].trained == 30 * 4 * 150
    each = (8 * 5 * 150 + 8 * 8 * 180) / (8 * 5 + 8 * 8)
    assert stated["train 1"].trained == pytest.approx(60 * 4 * each)
    student = {"prompt": {"renderer": "dialogue"}, "scratch": {"width": 16}}
    branches = {"branches": True, "batch_tokens": 500}
    assert work(training={**branches, "steps": 7}, student=student)["train 2"].trained == 7 * 500
    whole = 8 * (100 + 5 * 20) + 8 * (100 + 8 * 20)  # an episode's steps in one pass
    assert work(training=branches, student=student)["train 1"].trained == whole


@pytest.mark.parametrize(("method", "stages"), [("dpo", {"preference": 1}), ("sft+dpo", {"train": 2, "preference": 1})])
def test_preference_tuning_takes_both_answers_and_a_reference(method: str, stages: dict[str, int]) -> None:
    found, d0, d1 = work(training={"method": method}), 8 * 5 * 150, 8 * 8 * 180
    assert {one.partition(" ")[0] for one in found if one.endswith(" 1")} == {"rollout", "evaluate", *stages}
    assert (found["preference 1"].trained, found["preference 1"].passes) == (2 * d1, 4)
    assert ("train 1" in found) == ("train" in stages) and found["train 0"].trained == d0
    lora = {"method": method, "lora": {"rank": 4}, "gradient_checkpointing": True}
    student = {"model": "hf/some/model-1B"}
    assert work(training=lora, student=student)["preference 1"].passes == 2 + 1 + 1


def test_hours_of_a_card_and_seconds_here_follow_from_tokens() -> None:
    card = Card(flops=1e15, bandwidth=1e12)
    trained = Work("train", trained=1e9, passes=3)
    assert card_hours(trained, 8e9, card, 32) == pytest.approx(6 * 8e9 * 1e9 / (PEAK * 1e15) / 3600)
    read = Work("rollout", read=1e9)
    assert card_hours(read, 8e9, card, 32) == pytest.approx(2 * 8e9 * 1e9 / (PEAK * 1e15) / 3600)
    written = Work("rollout", written=32e6)
    reading = 1e6 * 2 * 8e9 / (READING * 1e12) / 3600  # the weights, once for a token of each of 32 episodes
    assert card_hours(written, 8e9, card, 32) == pytest.approx(reading + 2 * 8e9 * 32e6 / (PEAK * 1e15) / 3600)
    speeds = Speeds(read=100, written=10, trained=50)
    stages = [Work("rollout", 1000, 200, actions=40), Work("train", trained=500, passes=3), Work("p", trained=500, passes=6)]
    assert seconds_here(stages, speeds, action=0.5) == pytest.approx(10 + 20 + 20 + 10 + 20)


def test_the_weights_of_a_model_are_known_from_its_configuration_or_its_name(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from leap.testing.checkpoints import tiny_checkpoint

    tensors = load_file(tiny_checkpoint(tmp_path / "m") / "model.safetensors")
    whole = sum(tensor.numel() for tensor in tensors.values())
    assert weights_of(str(tmp_path / "m")) == (whole - tensors["model.embed_tokens.weight"].numel(), "its configuration")
    named = {"meta-llama/Meta-Llama-3-8B-Instruct": 8e9, "x/SmolLM2-135M-Instruct": 135e6, "x/Qwen2.5-0.5B": 5e8, "x/y_70b": 7e10}
    for name, number in named.items():
        assert weights_of(name, here=False) == (number, "its name")
    for name in ("gpt2", "x/v2-beta", "x/4bit", "x/mamba"):
        with pytest.raises(PrerequisiteError, match="how many weights"):
            weights_of(name, here=False)


def test_a_pretrained_student_on_a_cpu_is_timed_and_gpus_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from leap.testing.checkpoints import tiny_checkpoint

    student = {"model": f"hf/{tiny_checkpoint(tmp_path / 'm', context=8192)}", "sampling": {"max_tokens": 8}}
    training = {"batch_rows": 2, "device_rows": 2}
    print_estimate(recipe(teacher={"kind": "expert"}, iterations=1, student=student, training=training))
    told = capsys.readouterr().out
    lines = [line.split() for line in told.splitlines()]
    assert [line[0] for line in lines if line[1:2] in (["0"], ["1"])] == ["train", "evaluate", "rollout", "train", "evaluate"]
    for words in ("by its tokenizer", "by its configuration", "hours H100", "total, 25% corrected"):
        assert words in told
    assert "Time: about " in told and "tokens a second" in told


def test_gpus_are_counted_for_a_student_that_is_not_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("leap.cli.dry_run.unmet", lambda recipe: [PrerequisiteError("no weights here")])
    print_estimate(recipe(teacher={"kind": "expert"}, iterations=1, student={"model": "hf/some/model-8B"}))
    told = capsys.readouterr().out
    assert "8.00 billion weights (by its name)" in told and "of four characters" in told
    assert "No time is estimated for this machine: the run cannot start here yet" in told
