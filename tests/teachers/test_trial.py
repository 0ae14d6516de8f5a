"""The self-test of a model teacher: on worlds of every kind, what it finds wrong is named, and only one of no use is refused."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from small_games import small_games
from typer.testing import CliRunner

from leap import registry
from leap.cli.app import app
from leap.core import Observation, PrivilegedState, Task
from leap.envs.base import Environment, Outcome, Session
from leap.errors import LeapError, ModelError, PrerequisiteError
from leap.models.base import Completion, Model, Request, Sampling
from leap.models.ledger import Ledger
from leap.models.mock import MockModel, least_value
from leap.models.providers import MockProvider
from leap.progress import Progress
from leap.recipe import Recipe
from leap.runs import selftest
from leap.runs.directory import RunDirectory
from leap.runs.stages import Stages
from leap.teachers.answers import ACTION
from leap.teachers.base import TeacherContext
from leap.teachers.config import ModelTeacherConfig
from leap.teachers.onfile import HEADINGS
from leap.teachers.trial import STEPS, Trial, stand_in, try_teacher
from leap.testing.corridor import EAST, Corridor, CorridorConfig
from leap.testing.models import Scripted
from tiny_world import TinyWorld, TinyWorldConfig

CORRIDOR = Corridor(CorridorConfig(goal=9, cliff=None))
HIDDEN = "HIDDEN INFORMATION"


class Slow(Environment):
    """Asynchronous throughout, takes any text, and has no tutor; `Bare` hides nothing."""

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        return [Task(env=self.name, split=split, id=f"{split}/0", instruction="Say the word.")]

    async def start(self, task: Task) -> SlowSession:
        await asyncio.sleep(0)
        return SlowSession()


class SlowSession(Session):
    async def observe(self) -> Observation:
        return Observation(text="Well?")

    async def act(self, action: str) -> Outcome:
        await asyncio.sleep(0)
        good = action == "the word"
        return Outcome(Observation(text=f"You said {action}."), float(good), good, good, float(good))

    async def privileged(self) -> PrivilegedState | None:
        return PrivilegedState(text="The word is: the word.")


class Bare(Slow):
    async def start(self, task: Task) -> SlowSession:
        class Nothing(SlowSession):
            async def privileged(self) -> PrivilegedState | None:
                return None

        return Nothing()


def tried(environment: Environment, answer: Callable[[Request], Any], **options: Any) -> tuple[Trial, Scripted]:
    section = ModelTeacherConfig(model="mock/given", **options)
    model = Scripted(lambda prompt, call: answer(model.requests[-1]))
    task = environment.tasks("train")[0]
    trial = asyncio.run(try_teacher(section, TeacherContext(environment), task, lambda: model))
    return trial, model


def saying(action: Callable[[str], str]) -> Callable[[Request], str]:
    """A teacher that keeps to the schema, with an action by its prompt."""

    def answer(request: Request) -> str:
        told = json.dumps(action(str(request.messages[-1]["content"])))[1:-1]
        return json.dumps(least_value(request.schema or {})).replace(f'{ACTION}": "mock', f'{ACTION}": "{told}')

    return answer


good = saying(lambda prompt: EAST if HIDDEN in prompt else "stay here")
KEYS = [f"timestep_{t}" for t in range(3)]
CALL = '{"name": "look_up", "arguments": {"order": "A-0"}}'


@pytest.mark.parametrize("by", ["trajectory", "step"])
@pytest.mark.parametrize(
    ("environment", "action"),
    [(CORRIDOR, EAST), (TinyWorld(TinyWorldConfig(tasks=2)), ""), (Desk(), CALL), (Slow(), "the word"), (Bare(), "the word")],
    ids=lambda one: getattr(one, "name", ""),
)
def test_worlds_of_every_kind(environment: Environment, action: str, by: str) -> None:
    environment.prepare()
    first = environment.tasks("train")[0]
    offered = asyncio.run(stand_in(environment, first, 1)).steps[0].observation.admissible
    trial, model = tried(environment, saying(lambda prompt: action or (offered or ("",))[0]), by=by)
    assert trial.usable and trial.with_state.read == len(trial.episode.steps) >= 1
    assert (trial.without is not None) is trial.hidden is not isinstance(environment, Bare)
    assert all((HIDDEN in prompt) is (n < len(model.prompts) / 2) for n, prompt in enumerate(model.prompts)) or not trial.hidden
    assert len(model.prompts) <= 2 * STEPS[by], "a good answer is asked for once"
    assert trial.episode == asyncio.run(stand_in(environment, first, STEPS[by])), "the same each time, so that it is on file"
    assert len(trial.table) == len(trial.episode.steps) + 3


@pytest.mark.parametrize(
    ("answer", "options", "usable", "problem"),
    [
        (good, {}, True, ""),
        (good, {"privilege": 0}, True, ""),
        (lambda request: "No.", {}, False, "3 of 3 steps could not be read.*teacher.by: step.*'No.'"),
        (lambda request: "No.", {"by": "step"}, False, "2 of 2 steps could not be read.*try an endpoint"),
        (lambda request: Completion('{"traj', 9, 9, truncated=True), {}, False, r"raise teacher.sampling.max_tokens \(4096 now"),
        (lambda request: ModelError("429 for ever"), {}, False, "Calls failed after all retries: 429"),
        (saying(lambda prompt: "fly"), {}, False, "3 of 3 corrections are empty or cannot be taken, such as 'fly'"),
        (saying(lambda prompt: "\x1b[2J" + "fly" * 99), {}, False, r"such as ' \[2Jflyfly\S*…'"),
        (saying(lambda prompt: EAST), {}, True, "The privileged state changes none of its 3 actions"),
        (lambda request: json.dumps({"trajectory": {key: {"leave_as_it_is": True} for key in KEYS}}), {}, True, "repeats"),
    ],
)
def test_what_is_wrong_is_said_with_advice(answer: Any, options: dict[str, Any], usable: bool, problem: str) -> None:
    trial, model = tried(CORRIDOR, answer, **options)
    assert trial.usable is usable
    assert len(model.prompts) <= 8
    told = "\n".join(trial.problems)
    assert (not told) if not problem else any(re.search(problem, one) for one in trial.problems), told
    assert "\x1b" not in told + "".join(trial.table)


def test_nothing_hidden_is_said() -> None:
    trial, _ = tried(Bare(), saying(lambda prompt: "the word"))
    assert trial.problems == ["This task has no privileged state, so the teacher knows no more than the student."]


# ---- in a run --------------------------------------------------------------------------------------------------------

ASKED: list[Request] = []


@registry.model("tried")
class Tried(MockProvider):
    """mock-like models by name: `good`, `prose`."""

    name = "tried"

    def open(self, model: str, sampling: Sampling, **more: Any) -> Model:
        def answer(request: Request) -> str:
            ASKED.append(request)
            if "four headings" in str(request.messages) and model == "good":
                return "\n".join(f"{heading}: as the log says" for heading in HEADINGS)
            found = str(request.messages[-1]["content"]).rpartition("Candidates: ")[2].split(" | ")[0]
            return saying(lambda prompt: found.partition("\n")[0])(request) if model == "good" else "Fine weather today."

        return MockModel(answer, name=model, sampling=sampling)


@pytest.fixture(autouse=True)
def _nothing_asked() -> None:
    ASKED.clear()


def recipe(model: str = "tried/good", **more: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "tried",
        "iterations": 1,
        "horizon": 3,
        "environment": {"name": "alfworld", "options": small_games(8, 2, 2)},
        "demonstrations": {"episodes": 2},
        "teacher": {"kind": "model", "model": model, "episodes": "all", "by": "step"},
    }
    return Recipe.model_validate(values | more)


def self_test(made: Recipe, folder: Path) -> Trial | None:
    stages = Stages(made, RunDirectory(folder), Progress())
    try:
        return selftest.try_teacher(stages)
    finally:
        stages.close()


def test_a_run_tries_its_teacher_once_books_the_calls_and_pays_them_once(tmp_path: Path) -> None:
    trial = self_test(recipe(), tmp_path)
    assert trial is not None and trial.usable
    assert trial.episode.task.split == "train", "never a task that is measured on"
    paid = len(ASKED)
    assert 0 < paid <= 8
    assert self_test(recipe(), tmp_path) is not None and len(ASKED) == paid
    ledger = Ledger(tmp_path / "calls.sqlite")
    assert {total.stage: total.calls for total in ledger.totals()} == {"self-test": paid}
    ledger.close()
    assert self_test(recipe(calls={"self_test": False}), tmp_path) is None
    assert self_test(recipe(iterations=0), tmp_path) is None
    assert self_test(recipe(teacher={"kind": "expert"}), tmp_path) is None
    assert self_test(recipe(teacher=recipe().teacher.model_dump() | {"state": "extracted"}), tmp_path) is None, "unsolved"
    extracted = recipe(horizon=30, teacher=recipe().teacher.model_dump() | {"state": "extracted"})
    trial = self_test(extracted, tmp_path)
    assert trial is not None and trial.hidden and "Optimal actions: as the log says" in str(ASKED[-1].messages)
    corrections = RunDirectory(tmp_path).corrections(1)
    corrections.parent.mkdir(parents=True, exist_ok=True)
    corrections.write_text("")
    ASKED.clear()
    assert self_test(recipe(), tmp_path) is None and not ASKED, "it has corrected already"


def test_a_teacher_of_no_use_ends_the_run_before_anything_is_spent(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"nothing of the teacher's answers.*calls\.self_test: false") as refused:
        self_test(recipe("tried/prose"), tmp_path)
    assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(PrerequisiteError, match="No privileged state can be had"):
        self_test(recipe(horizon=30, teacher={"kind": "model", "model": "tried/prose", "state": "extracted"}), tmp_path)
    assert not RunDirectory(tmp_path).episodes(0).exists()


def test_doctor_tries_a_recipes_teacher(tmp_path: Path) -> None:
    def doctor(*more: str) -> Any:
        return CliRunner().invoke(app, ["doctor", "--teacher", str(path), *more])

    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe().model_dump(mode="json")))
    shown = doctor()
    assert shown.exit_code == 0 and "usable" in shown.output and "calls, " in shown.output, shown.output
    before = sorted(tmp_path.rglob("*"))
    refused = doctor("--set", "teacher.model=tried/prose")
    assert refused.exit_code != 0 and isinstance(refused.exception, LeapError)
    assert isinstance(doctor("--set", "teacher={kind: expert}").exception, LeapError)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left on file"
