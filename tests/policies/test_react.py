"""Policies that are not trained: few-shot examples, own reasons, prompts that fit, and who may see what is privileged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap.core import Actor, Episode, History, Observation, StopReason, Task
from leap.core.message import characters
from leap.errors import ContextTooLong, ModelError
from leap.models.base import Completion
from leap.policies.base import Policy
from leap.policies.fitting import Fit, fit_history, without_oldest
from leap.policies.model import ModelPolicy
from leap.policies.react import ReActRenderer, choose_examples
from leap.policies.rendering import PromptConfig, Renderer
from leap.teachers.prompts import PrivilegedRenderer
from leap.testing.models import Scripted
from leap.testing.play import expert_episodes, played
from tiny_world import TinyWorld, TinyWorldConfig

WORLD = TinyWorld(TinyWorldConfig(tasks=12))
SOLVED = expert_episodes(WORLD)
PROMPTS = Path(__file__).parents[2] / "src/leap_worlds/alfworld/prompts"


def play(policy: Policy, split: str = "test", **more: Any) -> list[Episode]:
    episodes = played(WORLD, policy, WORLD.tasks(split), **({"horizon": 12, "stream": "x"} | more))
    return sorted(episodes, key=lambda episode: episode.task.id)


def react(model: Scripted, demonstrations: list[Episode], **options: Any) -> ModelPolicy:
    return ModelPolicy(
        model, ReActRenderer(demonstrations, **options), Actor(name=f"react {model.name}"), untrained=True
    )


def acting(model: Scripted, level: int) -> ModelPolicy:
    actor = Actor(name=f"{model.name} at privilege {level}")
    return ModelPolicy(model, PrivilegedRenderer(Renderer(PromptConfig()), level), actor)


def searcher(prompt: str, call: int) -> str:
    """A model that tries one place after another, and knows what to do with a key."""
    own = prompt.rpartition("=== Your task ===")[2]
    candidates = [line[2:] for line in own.rpartition("Candidate actions:\n")[2].splitlines()]
    best = [c for c in candidates if not c.startswith("look in")]
    fresh = [c for c in candidates if f"ACTION: {c}\n" not in own]
    return f"REASON: Thought {call}.\nACTION: {(best or fresh or candidates)[0]}"


def test_react_plays_any_environment_with_examples_and_its_own_thoughts() -> None:
    model = Scripted(searcher, concurrency=1)
    policy = react(model, SOLVED)
    episodes = play(policy)
    assert all(episode.success for episode in episodes)
    assert episodes[0].actor.name == "react scripted/one"
    first = episodes[0]
    last_prompt = model.prompts[len(first.steps) - 1]
    assert last_prompt.count("=== Example") == 2
    own = last_prompt.rpartition("=== Your task ===")[2]
    for step in first.steps[:-1]:
        assert f"REASON: {step.reason}\nACTION: {step.action}\nOBSERVATION:" in own
    for earlier, later in zip(model.prompts, model.prompts[1 : len(first.steps)], strict=False):
        assert later.startswith(earlier.rpartition("\n\nCandidate actions:")[0])  # a prompt only grows


def test_who_imagines_the_next_observation_is_stopped_there() -> None:
    def dreamer(prompt: str, call: int) -> Completion:
        answer = searcher(prompt, call) + "\nOBSERVATION: You hold the key.\nREASON: Home.\nACTION: go"
        return Completion(answer, 9, 9, truncated=True).before(model.requests[-1].stop)

    model = Scripted(dreamer, concurrency=1)
    episodes = play(react(model, SOLVED))
    assert all(step.parsed and "OBSERVATION" not in step.completion for episode in episodes for step in episode.steps)
    assert all(episode.success for episode in episodes)
    student = Scripted(dreamer, concurrency=1)
    model = student
    trained = play(ModelPolicy(student, Renderer(PromptConfig()), Actor(name="student")))
    assert {request.stop for request in student.requests} == {()}, "a student is trained to end its turn"
    assert all("OBSERVATION" in step.completion for episode in trained for step in episode.steps)


def test_examples_are_solved_of_the_same_kind_and_never_the_task_itself() -> None:
    kinds = [
        episode.model_copy(
            update={
                "task": episode.task.model_copy(update={"kind": "ab"[n % 2]}),
                "success": n != 2,
                "stop": StopReason.SUCCESS,
            }
        )
        for n, episode in enumerate(SOLVED)
    ]
    histories = [episode.history(0) for episode in kinds]
    for history in histories:
        chosen = choose_examples(kinds, history, 3, seed=1)
        assert len(chosen) == 3
        assert all(c.success and c.task.kind == history.task.kind and c.task.id != history.task.id for c in chosen)
        assert chosen == choose_examples(kinds[::-1], history, 3, seed=1)
    one = [history for history in histories if history.task.kind == "b"]
    sets = {tuple(c.key for c in choose_examples(kinds, history, 2, seed=1)) for history in one}
    assert len(sets) <= 3  # the same for all, but for those who are examples themselves
    other = {tuple(c.key for c in choose_examples(kinds, one[0], 2, seed=s)) for s in range(8)}
    assert len(other) > 1
    lonely = histories[0].model_copy(update={"task": histories[0].task.model_copy(update={"kind": "c", "id": "x"})})
    assert len(choose_examples(kinds, lonely, 2, seed=0)) == 2  # of other kinds, for want of any


def test_react_fits_its_prompts() -> None:
    free = Scripted(searcher, concurrency=1)
    play(react(free, SOLVED))
    longest = max(len(prompt) for prompt in free.prompts)
    tight = Scripted(searcher, concurrency=1)
    policy = react(tight, SOLVED, limit=longest // 2)
    play(policy)
    assert max(len(prompt) for prompt in tight.prompts) <= longest // 2
    assert all("Task: open the door" in prompt.rpartition("=== Your task")[2] for prompt in tight.prompts)
    assert any("=== Example 1" in prompt for prompt in tight.prompts)
    hopeless = react(Scripted(searcher), SOLVED, limit=50)
    assert {episode.stop for episode in play(hopeless)} == {StopReason.MODEL_ERROR}
    assert "does not fit" in play(hopeless)[0].error


def test_answers_without_an_action_or_with_half_of_one_cost_a_step() -> None:
    cut = Completion("REASON: x\nACTION: look in ha", 1, 1, truncated=True)
    for answer in ("hm", cut):
        model = Scripted(lambda prompt, call, answer=answer: answer)
        episode = play(react(model, []), horizon=2)[0]
        assert [step.parsed for step in episode.steps] == [False, False]


def test_an_environments_own_rules_come_first() -> None:
    model = Scripted(searcher)
    play(react(model, SOLVED, prompts=lambda task: PROMPTS))
    assert "household" in model.prompts[0]


def asker(prompt: str, call: int) -> str:
    """A model that follows hidden information if it is shown any, and else tries the first candidate."""
    told = prompt.rpartition("The key is in the ")[2].partition(".")[0] if "The key is in the " in prompt else ""
    candidates = [line[2:] for line in prompt.splitlines() if line.startswith("- ")]
    best = [c for c in candidates if not c.startswith("look in") or c == f"look in {told}"]
    best = [c for c in best if not c.startswith("look in")] or best
    return f"REASON: So be it.\nACTION: {(best or candidates)[0]}"


def test_the_teachers_value_and_the_teacher_without_privilege() -> None:
    with_state = acting(Scripted(asker), 100)
    assert with_state.privileged and with_state.actor.name == "scripted/one at privilege 100"
    assert {len(episode.steps) for episode in play(with_state)} == {3}  # look, take, open

    model = Scripted(asker)
    without = acting(model, 0)
    assert not without.privileged
    episodes = play(without)
    assert sum(episode.success for episode in episodes) < len(episodes)
    renderer = Renderer(PromptConfig())
    asked = {renderer.render(e.history(t))[0]["content"] for e in episodes for t in range(len(e.steps))}
    assert set(model.prompts) == asked  # what a student would be asked, byte for byte


def a_long_history(actions: int) -> History:
    task = Task(env="none", split="train", id="t", instruction="do it")
    history = History(task=task, observations=(Observation(text="The beginning."),))
    for t in range(actions):
        history = history.extend(f"act {t}", Observation(text=f"Seen {t}. " * (1 + t % 3), admissible=("a", "b")))
    return history


@pytest.mark.parametrize("renderer", ["paper", "dialogue"])
@given(actions=st.integers(0, 12), share=st.floats(0.3, 1.1))
def test_as_few_of_the_oldest_steps_are_dropped_as_makes_it_fit(renderer: Any, actions: int, share: float) -> None:
    history = a_long_history(actions)
    render = Renderer(PromptConfig(renderer=renderer, instructions=False)).render
    limit = int(characters(render(history)) * share)
    try:
        messages, dropped = fit_history(render, history, Fit(limit))
    except ModelError:
        most = without_oldest(history, max(actions - 1, 0))
        assert characters(render(most)) > limit
        return
    text = "".join(message["content"] for message in messages)
    assert len(text) <= limit
    assert "Task: do it" in text or "TASK: do it" in text
    assert "The beginning." in text and history.now.text.strip() in text
    assert [int(n) for n in re.findall(r"act (\d+)", text)] == list(range(dropped, actions))
    if dropped:
        fewer = render(without_oldest(history, dropped - 1))
        assert characters(fewer) > limit
        assert "left out" in text


def test_without_oldest_keeps_a_history_in_order() -> None:
    history = a_long_history(5)
    short = without_oldest(history, 3)
    assert short.actions == ("act 3", "act 4")
    assert [o.text for o in short.observations] == [
        "The beginning.",
        "(3 earlier steps are left out here.) " + history.observations[4].text,
        history.observations[5].text,
    ]
    assert short.now == history.now
    History.model_validate(short.model_dump())
    assert without_oldest(history, 0) is history
    with pytest.raises(ValueError):
        without_oldest(history, 5)


def test_a_student_cut_off_within_its_action_has_given_none() -> None:
    cut = Completion("REASON: I try it.\nACTION: look in hat", 1, 1, truncated=True)  # "look in hatbox", perhaps
    policy = ModelPolicy(Scripted(lambda prompt, call: cut), Renderer(PromptConfig()), Actor(name="student"))
    steps = [step for episode in play(policy, horizon=2) for step in episode.steps]
    assert steps and not any(step.parsed for step in steps) and {step.completion for step in steps} == {cut.text}
    whole = Completion(cut.text, 1, 1)
    policy = ModelPolicy(Scripted(lambda prompt, call: whole), Renderer(PromptConfig()), Actor(name="student"))
    assert {step.action for episode in play(policy, horizon=2) for step in episode.steps} == {"look in hat"}


def test_an_endpoint_that_finds_a_prompt_too_long_is_shown_less_of_the_past() -> None:
    """Its limit is in no recipe: it is learnt from the refusal, prompt by prompt."""
    most = 750

    def narrow(prompt: str, call: int) -> str | Exception:
        return ContextTooLong("too long") if len(prompt) > most else searcher(prompt, call)

    model = Scripted(narrow)
    episodes = play(react(model, SOLVED, examples=0), horizon=8)
    assert not any(episode.stop is StopReason.MODEL_ERROR for episode in episodes)
    steps = [step for episode in episodes for step in episode.steps]
    assert {step.dropped > 0 for step in steps} == {True, False}
    assert max(map(len, model.prompts)) > most >= max(step.prompt_tokens for step in steps)
