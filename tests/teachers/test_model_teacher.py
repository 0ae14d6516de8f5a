"""The model teacher: asks once, asks again only for what is missing, keeps the student's states, checks every step."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from busy_machine import waited
from pydantic import ValidationError

from leap.core import Correction, Decision, Episode, PrivilegedState, Rejection
from leap.core.message import characters
from leap.envs.grammar import Line
from leap.envs.live import states_along
from leap.errors import ContextTooLong, LeapError, ModelError, RecipeError
from leap.models.base import Completion
from leap.models.breaker import MOST_IN_A_ROW
from leap.policies.rendering import PromptConfig, Renderer
from leap.teachers.answers import STEP_SCHEMA, trajectory_schema
from leap.teachers.model import ModelTeacher
from leap.teachers.prompts import LEVELS, PrivilegedRenderer, TeacherPrompts
from leap.teachers.verdict import Verdict
from leap.testing.models import Scripted
from leap.testing.play import expert_episodes
from leap.testing.teachers import model_teacher
from tiny_world import TinyWorld, TinyWorldConfig

WORLD = TinyWorld(TinyWorldConfig(tasks=12))
EPISODES = [episode for episode in expert_episodes(WORLD) if len(episode.steps) >= 5]
EPISODE = EPISODES[0]
PROMPTS = Path(__file__).parents[2] / "src/leap_worlds/alfworld/prompts"


def entry(t: int, action: str = "", reason: str = "I look there.", *, leave: bool = False) -> dict[str, Any]:
    return {"timestep": t, "leave_as_it_is": leave, "corrected_reason": reason, "corrected_action": action}


def full(episode: Episode, skip: tuple[int, ...] = ()) -> str:
    """A whole answer: the first admissible action everywhere."""
    entries = [
        entry(t, (step.observation.admissible or ("",))[0]) for t, step in enumerate(episode.steps) if t not in skip
    ]
    return json.dumps({"summary": "s", "trajectory": entries})


def correct(teacher: ModelTeacher, episode: Episode = EPISODE) -> list[Correction]:
    return asyncio.run(teacher.correct(episode))


def test_one_call_corrects_a_whole_trajectory() -> None:
    model = Scripted(lambda prompt, call: full(EPISODE))
    corrections = correct(model_teacher(WORLD, model))
    assert [c.t for c in corrections] == list(range(len(EPISODE.steps)))
    assert all(c.kept and c.episode == EPISODE.key and c.privilege == 50 for c in corrections)
    assert all(c.teacher == "scripted/one" for c in corrections)
    assert corrections[-1].plan_length == 1
    assert len(model.prompts) == 1 and model.schemas == [trajectory_schema(range(len(EPISODE.steps)))]
    for step in EPISODE.steps:
        assert step.observation.text in model.prompts[0] and step.reason in model.prompts[0]
    assert "The key is in the" in model.prompts[0]


def test_only_missing_steps_are_asked_for_again() -> None:
    model = Scripted(lambda prompt, call: full(EPISODE, skip=(1, 3)) if call == 0 else full(EPISODE))
    corrections = correct(model_teacher(WORLD, model))
    assert all(c.kept for c in corrections)
    assert len(model.prompts) == 2
    assert model.prompts[1].endswith("Correct only timesteps 1, 3, each once and in order.")
    common = model.prompts[0].rpartition("Correct every timestep")[0]
    assert model.prompts[1].startswith(common)  # what was computed for the first call serves the second


def test_what_stays_missing_is_rejected_after_the_last_attempt() -> None:
    model = Scripted(lambda prompt, call: full(EPISODE, skip=(2,)))
    corrections = correct(model_teacher(WORLD, model, attempts=3))
    assert len(model.prompts) == 3 and len(set(model.seeds)) == 3
    assert [c.t for c in corrections if c.rejected is Rejection.TEACHER_ERROR] == [2]
    assert sum(c.kept for c in corrections) == len(corrections) - 1


def test_the_schema_holds_exactly_the_steps_asked_for_and_a_retry_is_warmer() -> None:
    model = Scripted(lambda prompt, call: full(EPISODE, skip=(1, 3)))
    correct(model_teacher(WORLD, model, attempts=3))
    assert model.schemas == [trajectory_schema(asked) for asked in (range(len(EPISODE.steps)), [1, 3], [1, 3])]
    assert [request.temperature(0.0) for request in model.requests] == pytest.approx([0, 0.3, 0.6])
    assert [request.temperature(0.9) for request in model.requests] == pytest.approx([0.9, 1, 1])
    assert [request.temperature(1.2) for request in model.requests] == [1.2] * 3


def test_a_cut_off_answer_is_called_so(caplog: pytest.LogCaptureFixture) -> None:
    model = Scripted(lambda prompt, call: Completion('{"trajectory": {"timestep_0": {"leave', 9, 77, truncated=True))
    teacher = model_teacher(WORLD, model, attempts=2)
    assert all(c.rejected is Rejection.TEACHER_ERROR for c in correct(teacher))
    assert "was cut off after 77 tokens; raise teacher.sampling.max_tokens" in caplog.text
    assert teacher.cut_off == 2
    whole = model_teacher(WORLD, Scripted(lambda prompt, call: Completion(full(EPISODE), 9, 77, truncated=True)))
    assert all(c.kept for c in correct(whole)) and whole.cut_off == 0, "nothing that was asked for is missing"


def test_failing_calls_are_attempts() -> None:
    model = Scripted(lambda prompt, call: ModelError("429") if call < 2 else full(EPISODE))
    assert all(c.kept for c in correct(model_teacher(WORLD, model)))
    assert len(model.seeds) == 3 and len(set(model.seeds)) == 1  # so that the answer is the one of a run without the failures
    assert not any(request.warmer for request in model.requests)
    model = Scripted(lambda prompt, call: ModelError("429"))
    assert {c.rejected for c in correct(model_teacher(WORLD, model))} == {Rejection.TEACHER_ERROR}


def test_a_step_left_as_it_is_is_the_students_own() -> None:
    entries = [entry(t, leave=True, reason="") for t in range(len(EPISODE.steps))]
    corrections = correct(model_teacher(WORLD, Scripted(lambda prompt, call: json.dumps(entries))))
    for step, correction in zip(EPISODE.steps, corrections, strict=True):
        assert (correction.reason, correction.action) == (step.reason, step.action)
        assert correction.kept


@pytest.mark.parametrize(
    ("change", "rejected"),
    [
        ({"corrected_action": "fly away"}, Rejection.NOT_ADMISSIBLE),
        ({"corrected_action": "open door"}, Rejection.NOT_ADMISSIBLE),  # admissible later
        ({"corrected_action": ""}, Rejection.EMPTY),
        ({"corrected_reason": "  "}, Rejection.EMPTY),
        ({"corrected_action": " Look in HAT. "}, None),
        ({"corrected_action": "look in hat"}, None),
    ],
)
def test_every_step_is_checked(change: dict[str, str], rejected: Rejection | None) -> None:
    answer = json.loads(full(EPISODE))
    answer["trajectory"][0] |= {"corrected_action": "look in hat"} | change
    corrections = correct(model_teacher(WORLD, Scripted(lambda prompt, call: json.dumps(answer))))
    assert corrections[0].rejected is rejected
    assert all(c.kept for c in corrections[1:])
    if rejected is None:
        assert corrections[0].action == "look in hat"


def test_leaks_are_told_and_dropped_where_asked() -> None:
    entries = json.loads(full(EPISODE))["trajectory"]
    entries[0]["corrected_reason"] = "The secret place is the hat."

    class Dark(type(WORLD)):
        def entities(self, text: str) -> set[str]:
            return {"secret"} if "secret" in text else set()

    dark = Dark(WORLD.config)
    model = Scripted(lambda prompt, call: json.dumps(entries))
    told = correct(model_teacher(dark, model))[0]
    assert told.kept and told.leaked == ("secret",)
    dropped = correct(model_teacher(dark, model, drop_leaks=True))[0]
    assert dropped.rejected is Rejection.LEAK and dropped.leaked == ("secret",)


def test_a_reason_over_lines_becomes_one_line() -> None:
    answer = [entry(t, "", "One.\nACTION: fly", leave=False) for t in range(len(EPISODE.steps))]
    for each, step in zip(answer, EPISODE.steps, strict=True):
        each["corrected_action"] = (step.observation.admissible or ("",))[0]
    corrections = correct(model_teacher(WORLD, Scripted(lambda prompt, call: json.dumps(answer))))
    assert {c.reason for c in corrections} == {"One. ACTION: fly"}


def test_by_step_nothing_later_is_shown() -> None:
    one = '{"leave_as_it_is": false, "corrected_reason": "I try it.", "corrected_action": "%s"}'

    def answer(prompt: str, call: int) -> str:
        return one % prompt.rpartition("Candidates: ")[2].partition(" | ")[0].partition("\n")[0]

    model = Scripted(answer)
    corrections = correct(model_teacher(WORLD, model, by="step"))
    assert all(c.kept for c in corrections)
    assert model.schemas == [STEP_SCHEMA] * len(EPISODE.steps)
    for t, prompt in enumerate(model.prompts):
        assert prompt.count("Observation: ") == t + 1
        assert prompt.endswith(f"The student's action: {EPISODE.steps[t].action}")
    assert "You have the key." not in "".join(model.prompts[:-1])


def test_by_step_unreadable_answers_are_asked_again_then_rejected() -> None:
    model = Scripted(lambda prompt, call: "I would look in the hat.")
    corrections = correct(model_teacher(WORLD, model, by="step", attempts=2))
    assert {c.rejected for c in corrections} == {Rejection.TEACHER_ERROR}
    assert len(model.prompts) == 2 * len(EPISODE.steps)


@pytest.mark.parametrize("folder", [None, PROMPTS])
def test_each_level_has_a_prompt_of_its_own(folder: Path | None) -> None:
    prompts = [TeacherPrompts(level, lambda task: folder) for level in LEVELS]
    texts = {each.privilege: each.trajectory(EPISODE, "WHERE IT IS")[0]["content"] for each in prompts}
    assert len(set(texts.values())) == len(LEVELS)
    for level, text in texts.items():
        assert ("WHERE IT IS" in text) == (level > 0)
    if folder:
        assert all("household" in text for text in texts.values())


@pytest.mark.parametrize("mode", ["trajectory", "step"])
def test_at_level_0_the_privileged_state_enters_no_prompt(mode: Any) -> None:
    seen = []
    for state in ("one", "another"):
        model = Scripted(lambda prompt, call: full(EPISODE))
        teacher = model_teacher(WORLD, model, 0, by=mode, attempts=1, states={EPISODE.task.key: state})
        correct(teacher)
        seen.append(model.prompts)
    assert seen[0] == seen[1]
    assert "The key is in the" not in "".join(seen[0])


def test_where_nothing_is_hidden_no_prompt_speaks_of_hidden_information() -> None:
    for level in LEVELS:
        prompts = TeacherPrompts(level)
        assert prompts.trajectory(EPISODE, " ") == TeacherPrompts(0).trajectory(EPISODE, "x")
        assert prompts.step(EPISODE, 1, "") == TeacherPrompts(0).step(EPISODE, 1, "x")
        student = Renderer(PromptConfig())
        acting = PrivilegedRenderer(student, level).render(EPISODE.history(1), PrivilegedState(text=""))
        assert acting == student.render(EPISODE.history(1))


def test_a_level_without_a_prompt_is_refused() -> None:
    with pytest.raises(RecipeError, match="0, 25, 50, 75, 100"):
        TeacherPrompts(30)
    with pytest.raises(ValidationError, match="0, 25, 50, 75, 100"):
        model_teacher(WORLD, Scripted(lambda prompt, call: ""), 30)


def test_extracted_states_take_the_place_of_the_environments() -> None:
    model = Scripted(lambda prompt, call: full(EPISODE))
    teacher = model_teacher(WORLD, model, states={EPISODE.task.key: "Task: from a log"})
    assert all(c.kept for c in correct(teacher))
    assert "Task: from a log" in model.prompts[0] and "The key is in the" not in model.prompts[0]
    corrections = correct(teacher, EPISODES[1])  # of a task without a log
    assert {c.rejected for c in corrections} == {Rejection.TEACHER_ERROR} and len(model.prompts) == 1


def test_requests_are_the_same_each_time_and_know_no_machine() -> None:
    runs = []
    for _ in range(2):
        model = Scripted(lambda prompt, call: full(EPISODE, skip=(1,)))
        correct(model_teacher(WORLD, model, seed=5))
        runs.append((model.prompts, model.seeds))
    assert runs[0] == runs[1]
    other = Scripted(lambda prompt, call: full(EPISODE, skip=(1,)))
    correct(model_teacher(WORLD, other, seed=6))
    assert other.prompts == runs[0][0] and other.seeds != runs[0][1]


def test_a_changed_world_is_told() -> None:
    first = EPISODE.steps[0]
    changed = first.model_copy(update={"observation": first.observation.model_copy(update={"text": "Elsewhere."})})
    episode = EPISODE.model_copy(update={"steps": (changed, *EPISODE.steps[1:])})
    with pytest.raises(LeapError, match="changed since"):
        correct(model_teacher(WORLD, Scripted(lambda prompt, call: "")), episode)


def test_a_trajectory_too_long_is_asked_for_in_parts_that_fit() -> None:
    def answer(prompt: str, call: int) -> str:
        asked = [int(n) for n in re.findall(r"\d+", prompt.rpartition("Correct only")[2])]
        shown = [int(n) for n in re.findall(r"\[timestep (\d+)\]", prompt)]
        assert set(asked) <= set(shown) and "TASK: open the door" in prompt
        actions = {t: (EPISODE.steps[t].observation.admissible or ("",))[0] for t in asked}
        return json.dumps([entry(t, action) for t, action in actions.items()])

    model = Scripted(answer)
    whole = len(TeacherPrompts(50).trajectory(EPISODE, "x")[0]["content"])
    limit = whole - 300
    teacher = model_teacher(WORLD, model, limit=limit, length=characters)
    assert all(c.kept for c in correct(teacher))
    assert len(model.prompts) > 1 and max(len(prompt) for prompt in model.prompts) <= limit
    assert teacher.dropped > 0
    hopeless = correct(model_teacher(WORLD, model, limit=100, length=characters))
    assert {c.rejected for c in hopeless} == {Rejection.TEACHER_ERROR}


@pytest.mark.parametrize("mode", ["trajectory", "step"])
def test_an_endpoint_that_finds_a_prompt_too_long_is_asked_for_less_at_once(mode: Any) -> None:
    states = [state.text for state in asyncio.run(states_along(WORLD, EPISODE))]
    prompts = TeacherPrompts(50)
    whole = prompts.trajectory(EPISODE, states[0]) if mode == "trajectory" else prompts.step(EPISODE, len(states) - 1, states[-1])
    most = len(whole[0]["content"]) - 60

    def answer(prompt: str, call: int) -> str | Exception:
        if len(prompt) > most:
            return ContextTooLong("too long")
        if mode == "step":
            return json.dumps({"leave_as_it_is": True, "corrected_reason": "", "corrected_action": ""})
        asked = [int(n) for n in re.findall(r"\d+", prompt.rpartition("Correct only")[2])]
        return json.dumps([entry(t, (EPISODE.steps[t].observation.admissible or ("",))[0]) for t in asked])

    model = Scripted(answer)
    teacher = model_teacher(WORLD, model, by=mode, attempts=1)  # a refusal costs no attempt
    assert Rejection.TEACHER_ERROR not in {c.rejected for c in correct(teacher)}
    assert max(map(len, model.prompts)) > most and teacher.dropped > 0
    hopeless = model_teacher(WORLD, Scripted(lambda prompt, call: ContextTooLong("too long")), by=mode, attempts=1)
    assert {c.rejected for c in correct(hopeless)} == {Rejection.TEACHER_ERROR}


def test_many_episodes_at_once_but_no_more_than_the_model_holds() -> None:
    by_text = {e.steps[0].observation.text + e.task.id: e for e in EPISODES}
    assert len(by_text) == len(EPISODES)
    many = EPISODES * 5
    model = Scripted(lambda prompt, call: "[]", concurrency=3, pause=0.002)
    handed: list[str] = []
    teacher = model_teacher(WORLD, _always_right(model), attempts=1)
    asyncio.run(teacher.correct_all(iter(many), lambda episode, corrections: handed.append(episode.key)))
    assert sorted(handed) == sorted(episode.key for episode in many)
    assert model.most_at_once == 3


def test_what_is_on_file_is_not_asked_again() -> None:
    model = _always_right(Scripted(lambda prompt, call: ""))
    handed: list[str] = []
    done = {EPISODES[0].key, EPISODES[2].key}
    teacher = model_teacher(WORLD, model)
    asyncio.run(teacher.correct_all(EPISODES, lambda episode, corrections: handed.append(episode.key), done=done))
    assert sorted(handed) == sorted(e.key for e in EPISODES if e.key not in done)
    assert len(model.prompts) == len(handed)


def test_200_corrections_take_no_longer_than_their_calls() -> None:
    model = _always_right(Scripted(lambda prompt, call: "", concurrency=25, pause=0.25))
    episodes = [EPISODES[n % len(EPISODES)] for n in range(200)]
    count = 0

    def keep(episode: Episode, corrections: list[Correction]) -> None:
        nonlocal count
        count += len(corrections)

    began = time.monotonic() - waited()
    asyncio.run(model_teacher(WORLD, model).correct_all(episodes, keep))
    assert count == sum(len(episode.steps) for episode in episodes)
    assert time.monotonic() - waited() - began < 2 * (200 / 25) * 0.25  # not counting the wait for a core


def test_a_teacher_that_answers_in_prose_ends_the_stage_early_and_leaves_nothing_on_file() -> None:
    model = Scripted(lambda prompt, call: "I would rather talk about it.", concurrency=2)
    handed: list[Episode] = []
    many = [EPISODES[n % len(EPISODES)] for n in range(100)]
    with pytest.raises(ModelError, match="no usable answer for any of"):
        asyncio.run(model_teacher(WORLD, model, attempts=1).correct_all(many, lambda e, c: handed.append(e)))
    assert not handed
    assert len(model.prompts) <= MOST_IN_A_ROW + 2


def test_a_few_bad_answers_do_not_end_it_and_are_on_file() -> None:
    right = _always_right(Scripted(lambda prompt, call: ""))
    good = right.answer
    right.answer = lambda prompt, call: "no" if call < 3 else good(prompt, call)
    handed: list[tuple[str, bool]] = []
    teacher = model_teacher(WORLD, right, attempts=1)
    asyncio.run(teacher.correct_all(EPISODES, lambda e, c: handed.append((e.key, all(x.kept for x in c)))))
    assert sorted(key for key, _ in handed) == sorted(e.key for e in EPISODES)
    assert sum(not kept for _, kept in handed) == 3


def test_the_budgets_end_lets_calls_under_way_finish() -> None:
    class Spent(LeapError):
        pass

    right = _always_right(Scripted(lambda prompt, call: "", concurrency=3, pause=0.001))
    good = right.answer
    right.answer = lambda prompt, call: Spent("the budget is spent") if call == 4 else good(prompt, call)
    handed: list[str] = []
    with pytest.raises(Spent):
        teacher = model_teacher(WORLD, right)
        asyncio.run(teacher.correct_all(EPISODES * 9, lambda e, c: handed.append(e.key)))
    assert len(handed) == len(right.prompts) - 1  # all that was answered was kept, and nothing new was begun
    assert len(right.prompts) <= 4 + 3


def _always_right(model: Scripted) -> Scripted:
    """Makes it answer any episode's prompt with its own first candidates."""

    def answer(prompt: str, call: int) -> str:
        firsts = re.findall(r"\[timestep (\d+)\].*\nCandidates: ([^|\n]*)", prompt)
        return json.dumps([entry(int(t), action.strip()) for t, action in firsts])

    model.answer = answer
    return model


def test_a_correction_that_could_not_be_read_back_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    first = EPISODE.steps[0]
    unlisted = first.model_copy(update={"observation": first.observation.model_copy(update={"admissible": None})})
    episode = EPISODE.model_copy(update={"steps": (unlisted, *EPISODE.steps[1:])})
    verdict = Verdict(WORLD, "x", 50)

    def judged(action: str) -> Correction:
        return asyncio.run(verdict.correction(episode, 0, Decision(reason="r", action=action)))

    assert judged("`ls -l`").kept  # free text can say it
    monkeypatch.setattr(type(WORLD), "grammar", Line())
    assert judged("ls -l").kept
    assert judged("`ls -l`").rejected is Rejection.NOT_ADMISSIBLE
    assert judged("ls\nrm x").kept  # in a code block


def test_a_verified_correction_leaves_no_less_in_reach_than_the_students_action() -> None:
    tight = EPISODE.model_copy(update={"horizon": len(EPISODE.steps)})  # whoever wastes an action comes too late
    take = len(tight.steps) - 2
    place = tight.steps[take - 1].action
    assert tight.steps[take].action == "take key" and tight.steps[0].action != place

    def entries(at_take: str) -> str:
        steps = [entry(t, leave=True, reason="") for t in range(len(tight.steps))]
        steps[0] = entry(0, place)
        steps[take] = entry(take, at_take)
        return json.dumps(steps)

    def corrected(at_take: str, *, verify: bool) -> list[Correction]:
        return correct(model_teacher(WORLD, Scripted(lambda prompt, call: entries(at_take)), verify=verify), tight)

    other = next(a for a in tight.steps[take].observation.admissible or () if a not in ("take key", place))
    assert corrected(other, verify=False)[take].kept
    verified = corrected(other, verify=True)
    assert {c.t: c.rejected for c in verified if not c.kept} == {take: Rejection.WORSE}
    assert verified[0].action == place  # sooner than the student found it
    assert all(c.kept for c in corrected("take key", verify=True))


def test_a_roll_in_tells_the_score_in_reach() -> None:
    def rolled_in(*arguments: Any) -> float:
        return asyncio.run(WORLD.tutor.roll_in(*arguments))

    history, place = EPISODE.history(0), EPISODE.steps[-3].action
    assert rolled_in(history, place, 3) == 1.0
    assert rolled_in(history, place, 2) == 0.0
    assert rolled_in(history, EPISODE.steps[0].action, 4) == 1.0
    assert rolled_in(history, EPISODE.steps[0].action, 3) == 0.0
