"""An endpoint that is down for a while: what is lost to it is tried again by the same command, and what was answered is not."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from leap import registry
from leap.core import Correction, Episode, StopReason
from leap.errors import ContextTooLong, ModelError, RunError
from leap.files import Journal
from leap.models import mock
from leap.models.breaker import MOST_IN_A_ROW
from leap.progress import Progress
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory
from leap.runs.policies import PolicySpec, baselines_of
from leap.runs.stages import Stages
from leap.testing.corridor import EAST, Corridor

TASKS, SLOW = 30, {"concurrency": 2}


@registry.environment("outage-corridor")
class Quiet(Corridor):
    """A corridor."""

    name = "outage-corridor"


class Endpoint:
    """A model that goes east, and says so as a teacher; each call raises what is told of its number."""

    def __init__(self) -> None:
        self.calls = 0
        self.down: dict[int, Exception] = {}
        self.answered: list[str] = []

    def __call__(self, request: mock.Request) -> str:
        self.calls += 1
        if self.calls in self.down:
            raise self.down[self.calls]
        self.answered.append(json.dumps([list(request.messages), request.seed]))
        if request.schema is None:
            return f"REASON: east\nACTION: {EAST}"
        return json.dumps({"leave_as_it_is": False, "corrected_reason": "east", "corrected_action": EAST})

    def fails(self, calls: range, error: Exception | None = None) -> None:
        """Raises at these calls."""
        self.down = dict.fromkeys(calls, error or ModelError("the endpoint answered 429"))


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    made = Endpoint()
    monkeypatch.setitem(mock.SCRIPTS, "outage", made)
    return made


def opened(folder: Path, **more: Any) -> Stages:
    values: dict[str, Any] = {
        "name": "outage",
        "horizon": 4,
        "environment": {"name": "outage-corridor", "options": {"size": TASKS}, "validation_tasks": 2},
        "teacher": {"kind": "model", "model": "mock/outage", "by": "step", "episodes": "all", "endpoint": SLOW},
        "baselines": {"react": [{"model": "mock/outage", "examples": 0, "endpoint": SLOW}]},
    }
    return Stages(Recipe.model_validate(values | more), RunDirectory(folder), Progress())


def react(stages: Stages) -> PolicySpec:
    return next(spec for spec in baselines_of(stages.recipe, stages.environment) if spec.kind == "react")


def played(folder: Path) -> list[Episode]:
    return list(Journal(RunDirectory(folder).played("react-mock-outage", "unseen"), Episode))


def corrected(stages: Stages) -> list[Correction]:
    """The corrections of the demonstrations, as if they were a student's rollouts."""
    journal = Journal(stages.run.corrections(1), Correction)
    stages.correct_episodes(0, list(stages.rollout(0)), journal, 1)
    return list(Journal(stages.run.corrections(1), Correction))


@pytest.mark.parametrize("error", [ModelError("the endpoint answered 429"), ModelError("no answer within 5 s")])
def test_lost_episodes_are_told_and_played_by_the_next_try(endpoint: Endpoint, tmp_path: Path, error: Exception) -> None:
    endpoint.fails(range(50, 62), error)
    stages = opened(tmp_path)
    with pytest.raises(ModelError, match=rf"of {TASKS} episodes are lost: .*{error}.*same command.*lost_share") as caught:
        stages.baseline(react(stages))
    lost = int(str(caught.value).split()[0])
    assert lost > 0 and len(played(tmp_path)) == TASKS - lost
    assert not stages.run.evaluation("react-mock-outage").exists()
    before = len(endpoint.answered)
    tables = {one.split: one.overall for one in opened(tmp_path).baseline(react(stages))}
    assert {episode.stop for episode in played(tmp_path)} == {StopReason.SUCCESS} and len(played(tmp_path)) == TASKS
    assert tables["unseen"].success == 1.0 and tables["unseen"].broken_off == 0
    assert len(set(endpoint.answered)) == len(endpoint.answered) > before  # nothing was asked, and paid, twice


def test_lost_corrections_are_told_and_made_by_the_next_try(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.fails(range(50, 62))
    stages = opened(tmp_path)
    with pytest.raises(ModelError, match=rf"of {TASKS} episodes are lost: .*429.*same command"):
        corrected(stages)
    kept = Journal(stages.run.corrections(1), Correction)
    assert 0 < len(kept) < 4 * TASKS and all(correction.kept for correction in kept)
    again = corrected(opened(tmp_path))
    assert len(again) == 4 * TASKS and all(correction.kept for correction in again)
    assert len(set(endpoint.answered)) == len(endpoint.answered)


def test_a_share_may_be_lost_where_the_recipe_says_so(
    endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    from leap.cli.show import print_evaluations

    caplog.set_level(logging.WARNING)
    endpoint.fails(range(50, 62))
    stages = opened(tmp_path, lost_share=0.5)
    tables = stages.baseline(react(stages))
    score = next(one.overall for one in tables if one.split == "unseen")
    assert score.n == TASKS and score.broken_off == sum(episode.lost for episode in played(tmp_path)) > 0
    assert f"{score.broken_off} of {TASKS} episodes are lost" in caplog.text
    print_evaluations(tables)
    assert f"{TASKS} ({score.broken_off} broken off)" in capsys.readouterr().out
    endpoint.fails(range(endpoint.calls + 50, endpoint.calls + 62))
    assert {one.rejected for one in corrected(stages)} == {None, "teacher_error"}


def test_a_streak_of_losses_ends_a_stage_early_after_a_first_success_too(endpoint: Endpoint, tmp_path: Path) -> None:
    for spec, work in (("student", lambda stages: stages.baseline(react(stages))), ("teacher", corrected)):
        start, stages = endpoint.calls, opened(tmp_path / spec, environment={"name": "outage-corridor", "options": {"size": 200}})
        endpoint.fails(range(start + 100, 10**6))
        with pytest.raises(ModelError, match=f"failed for {MOST_IN_A_ROW} episodes in a row .*429.*same command"):
            work(stages)
        assert endpoint.calls - start < 600
        endpoint.down = {}
        work(opened(tmp_path / spec, environment={"name": "outage-corridor", "options": {"size": 200}}))


def test_a_prompt_that_is_refused_for_good_ends_its_episode_alone(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.fails(range(50, 62), ContextTooLong("too long"))
    stages = opened(tmp_path)
    tables = stages.baseline(react(stages))
    assert sum(one.overall.broken_off for one in tables) > 0
    assert stages.baseline(react(stages)) == tables


def test_a_stage_that_was_cut_short_is_not_taken_for_whole(endpoint: Endpoint, tmp_path: Path) -> None:
    """Each verb alone: rows of what happens to be on file would stay for good, and the rest would never be trained on."""

    def halved(file: Path) -> None:
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(lines[: len(lines) // 2]))

    stages = opened(tmp_path, rollouts={"beta": 1.0})
    stages.rollout(0), stages.rollout(1), stages.correct(1)
    halved(stages.run.corrections(1))
    with pytest.raises(RunError, match=rf"\d+ of {TASKS} episodes .* are not corrected"):
        stages.dataset(1)
    for i, make in ((1, stages.correct), (0, stages.dataset)):
        halved(stages.run.episodes(i))
        with pytest.raises(RunError, match=rf"{TASKS // 2} of {TASKS} episodes; roll out iteration {i} first"):
            make(i)
    assert not stages.run.rows(0).exists() and not stages.run.rows(1).exists()

