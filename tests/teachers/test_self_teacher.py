"""The self teacher: the student's own weights with the privileged state in the prompt, step by step, in batches."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from leap.core import Correction, Episode, PrivilegedState, Rejection
from leap.core.message import characters
from leap.errors import ModelError, RecipeError
from leap.models.base import Completion, Sampling
from leap.policies.rendering import PromptConfig, Renderer
from leap.teachers.base import StudentContext, TeacherContext
from leap.teachers.config import SelfTeacherConfig
from leap.teachers.prompts import PrivilegedRenderer
from leap.teachers.self import SelfTeacher
from leap.testing.models import Scripted
from leap.testing.play import expert_episodes
from tiny_world import TinyWorld, TinyWorldConfig

WORLD = TinyWorld(TinyWorldConfig(tasks=12))
EPISODES = expert_episodes(WORLD)
EPISODE = max(EPISODES, key=lambda episode: len(episode.steps))
DIALOGUE = PromptConfig(renderer="dialogue")


def teacher(
    model: Any,
    level: int = 50,
    prompt: PromptConfig = DIALOGUE,
    *,
    constrained: bool = False,
    attempts: int = 3,
    states: dict[str, str] | None = None,
) -> SelfTeacher:
    student = StudentContext(lambda: model, Renderer(prompt), constrained=constrained)
    context = TeacherContext(WORLD, student=student, attempts=attempts, states=states)
    return SelfTeacher(SelfTeacherConfig(privilege=level, state="environment" if states is None else "hindsight"), context)


def candidate(prompt: str, call: int) -> str:
    """The first candidate of the present step."""
    return "REASON: I try it.\nACTION: " + prompt.rpartition("Candidate actions:\n- ")[2].partition("\n")[0]


def test_every_step_is_asked_as_the_student_is_with_the_privileged_state_behind() -> None:
    model = Scripted(candidate)
    corrections = asyncio.run(teacher(model).correct(EPISODE))
    assert [c.t for c in corrections] == list(range(len(EPISODE.steps)))
    assert all(c.kept and c.teacher == "self" and c.reason == "I try it." for c in corrections)
    student = Renderer(DIALOGUE)
    for t, prompt in enumerate(model.prompts):
        own = "\n".join(message["content"] for message in student.render(EPISODE.history(t)))
        assert prompt.startswith(own)
        assert "The key is in the" in prompt[len(own) :]
        assert EPISODE.steps[t].reason not in prompt  # nor is the student's answer shown


def test_in_hindsight_it_is_told_of_an_attempt_that_solved_the_task_and_where_there_is_none_says_nothing() -> None:
    model, way = Scripted(candidate), "0. look in hatbox -> You find the key."
    corrections = asyncio.run(teacher(model, states={EPISODE.task.key: way}).correct(EPISODE))
    assert all(one.kept for one in corrections) and len(model.prompts) == len(EPISODE.steps)
    student = Renderer(DIALOGUE)
    for t, prompt in enumerate(model.prompts):
        own = "\n".join(message["content"] for message in student.render(EPISODE.history(t)))
        told = prompt[len(own) :]
        assert prompt.startswith(own) and f"An attempt at this task that solved it:\n{way}" in told
        assert "The key is in the" not in told, "what the environment hides is not told beside it"
    model = Scripted(candidate)
    declined = asyncio.run(teacher(model, states={}).correct(EPISODE))
    assert not model.prompts and {one.rejected for one in declined} == {Rejection.DECLINED}
    assert [one.t for one in declined] == list(range(len(EPISODE.steps)))


def test_at_level_0_the_prompt_is_the_students_byte_for_byte() -> None:
    for t in range(len(EPISODE.steps)):
        history = EPISODE.history(t)
        state = PrivilegedState(text="secret")
        assert PrivilegedRenderer(Renderer(DIALOGUE), 0).render(history, state) == Renderer(DIALOGUE).render(history)


def test_a_level_without_a_prompt_is_refused_where_a_state_would_be_shown() -> None:
    renderer, history = PrivilegedRenderer(Renderer(DIALOGUE), 30), EPISODE.history(1)  # an expert may have any level
    assert renderer.render(history, PrivilegedState(text="")) == Renderer(DIALOGUE).render(history)
    with pytest.raises(RecipeError, match="privilege 30: a model teacher knows the levels 0, 25"):
        renderer.render(history, PrivilegedState(text="secret"))


def test_answers_that_cannot_be_read_are_asked_again_then_rejected() -> None:
    model = Scripted(lambda prompt, call: "well" if call % 2 == 0 else candidate(prompt, call))
    assert all(c.kept for c in asyncio.run(teacher(model).correct(EPISODE)))
    assert len(set(model.seeds)) == len(model.seeds)
    model = Scripted(lambda prompt, call: ModelError("out of memory"))
    rejected = asyncio.run(teacher(model, attempts=2).correct(EPISODE))
    assert {c.rejected for c in rejected} == {Rejection.TEACHER_ERROR}


def test_half_an_action_is_none() -> None:
    cut = Completion("REASON: I try it.\nACTION: look in hat", 1, 1, truncated=True)  # "look in hatbox", perhaps
    corrections = asyncio.run(teacher(Scripted(lambda prompt, call: cut)).correct(EPISODE))
    assert {c.rejected for c in corrections} == {Rejection.TEACHER_ERROR}


def test_prompts_too_long_lose_their_oldest_steps_and_count_them() -> None:
    model = Scripted(candidate)
    asyncio.run(teacher(model).correct(EPISODE))
    limit = max(len(prompt) for prompt in model.prompts) - 40
    short = Scripted(candidate)
    short.length = characters  # type: ignore[method-assign]
    short.room = limit
    own = teacher(short)
    assert all(c.kept for c in asyncio.run(own.correct(EPISODE)))
    assert own.dropped > 0
    assert all("Task: open the door" in prompt for prompt in short.prompts)


class TestWithAModelInThisProcess:
    @pytest.fixture(scope="class")
    def model(self, tmp_path_factory: pytest.TempPathFactory) -> Any:
        pytest.importorskip("torch")
        from leap.models.hf import HFModel
        from leap.testing.checkpoints import tiny_checkpoint

        path = tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "chatml")
        return HFModel(str(path), Sampling(temperature=0.5, max_tokens=8, max_reason_tokens=2), batch=4, dtype="float32")

    def correct_all(self, model: Any, done: frozenset[str] = frozenset()) -> dict[str, list[Correction]]:
        found: dict[str, list[Correction]] = {}
        config = PromptConfig(renderer="dialogue", instructions=False, candidates=False)
        own = teacher(model, 50, config, constrained=True, attempts=1)

        def keep(episode: Episode, corrections: list[Correction]) -> None:
            found[episode.key] = corrections

        asyncio.run(own.correct_all(EPISODES[:6], keep, done=done))
        return found

    def test_all_steps_of_all_episodes_go_in_batches(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes: list[int] = []
        answer = model.answer_batch
        monkeypatch.setattr(model, "answer_batch", lambda requests: (sizes.append(len(requests)), answer(requests))[1])
        found = self.correct_all(model)
        assert set(found) == {episode.key for episode in EPISODES[:6]}
        longest = [max(len(e.steps) for e in wave) for wave in (EPISODES[:4], EPISODES[4:6])]
        assert sizes[0] == 4 and len(sizes) == sum(longest)  # as many batches as the longest of each wave has steps
        for corrections in found.values():
            assert all(c.rejected in (None, Rejection.EMPTY, Rejection.TEACHER_ERROR) for c in corrections)

    def test_an_interrupted_wave_gives_the_same_again(self, model: Any) -> None:
        found = self.correct_all(model)
        on_file = frozenset(episode.key for episode in (EPISODES[1], EPISODES[2]))
        again = self.correct_all(model, on_file)
        assert set(again) == set(found) - on_file
        assert all(again[key] == found[key] for key in again)
