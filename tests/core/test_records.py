"""The vocabulary: content keys, histories made from logged steps, frozen and strict records."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from samples import a_task, an_episode

from leap.core import Actor, Correction, Episode, History, Observation, PrivilegedState, Task, content_key
from leap.core.episode import episode_key
from leap.core.record import Record

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_a_key_does_not_depend_on_the_order_inside_a_mapping(values: dict[str, object]) -> None:
    assert content_key(values) == content_key(dict(reversed(values.items())))


def test_a_key_depends_on_the_order_and_the_parting_of_its_parts() -> None:
    keys = [content_key("a", "b"), content_key("b", "a"), content_key("ab"), content_key(["a", "b"]), content_key("a")]
    assert len(set(keys)) == len(keys)


def test_keys_are_the_same_in_another_process_with_another_hash_seed() -> None:
    code = (
        "from leap.core import Task;"
        "print(Task(env='none', split='train', id='ü-1', instruction='heat \\u201cegg\\u201d', seed=7).key)"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert keys == {Task(env="none", split="train", id="ü-1", instruction="heat “egg”", seed=7).key}


def test_an_episode_has_the_key_that_was_told_before_it_was_played() -> None:
    episode = an_episode(3)
    assert episode.key == episode_key(episode.task, episode.actor, seed=episode.seed, horizon=episode.horizon)


def test_the_key_of_an_episode_names_its_work_and_not_its_outcome() -> None:
    episode = an_episode(1)
    assert an_episode(1, steps=4, success=True).key == episode.key
    others = [
        episode.model_copy(update={"seed": 99}),
        episode.model_copy(update={"horizon": 99}),
        episode.model_copy(update={"task": a_task(2)}),
        episode.model_copy(update={"actor": Actor(name="student", checkpoint="other", iteration=0)}),
    ]
    assert len({episode.key, *(Episode.model_validate(other.model_dump()).key for other in others)}) == 5


def test_the_key_of_a_correction_names_step_teacher_and_privilege() -> None:
    base = {"episode": "e", "t": 1, "reason": "r", "action": "a", "teacher": "expert", "privilege": 50}
    variants = [base | change for change in ({}, {"episode": "f"}, {"t": 2}, {"teacher": "x"}, {"privilege": 0})]
    assert len({Correction.model_validate(variant).key for variant in variants}) == 5
    assert Correction.model_validate(base | {"reason": "other", "action": "b"}).key == Correction.model_validate(base).key


def test_a_history_holds_the_logged_observations_and_the_original_actions() -> None:
    episode = an_episode(steps=3)
    for t in range(3):
        history = episode.history(t)
        assert [o.text for o in history.observations] == [s.observation.text for s in episode.steps[: t + 1]]
        assert list(history.actions) == [step.action for step in episode.steps[:t]]
    assert episode.history(3).now == episode.final
    assert len(episode.history(3).observations) == 4


def test_extending_step_by_step_gives_the_logged_histories() -> None:
    episode = an_episode(steps=4)
    history = History(task=episode.task, observations=(episode.steps[0].observation,))
    for t, step in enumerate(episode.steps):
        assert history == episode.history(t)
        following = episode.steps[t + 1].observation if t + 1 < len(episode.steps) else episode.final
        history = history.extend(step.action, following)
    assert history == episode.history(4)


def test_a_history_needs_one_more_observation_than_actions() -> None:
    with pytest.raises(ValidationError, match="do not fit"):
        History(task=a_task(), observations=(Observation(text="x"),), actions=("go",))


@pytest.mark.parametrize(("success", "actions"), [(True, 2), (False, 5)])
def test_a_failure_counts_as_the_whole_horizon(success: bool, actions: int) -> None:
    assert an_episode(steps=2, success=success, horizon=5).actions == actions


def test_records_are_frozen_and_refuse_unknown_fields() -> None:
    with pytest.raises(ValidationError):
        a_task().id = "other"
    with pytest.raises(ValidationError):
        Task.model_validate(a_task().model_dump() | {"privileged": "x"})


def test_an_episode_survives_its_way_through_json() -> None:
    episode = an_episode(steps=3, text='quotes " and \u2028 and \x85 and ü')
    assert Episode.model_validate_json(episode.model_dump_json()) == episode


def test_nothing_a_student_is_shown_can_hold_privileged_state() -> None:
    """Invariant 1, by type: neither a history nor anything inside it has a field for it, or for anything at all."""

    def types(model: type[BaseModel]) -> set[object]:
        found: set[object] = {model}
        for field in model.model_fields.values():
            parts = [field.annotation]
            while parts:
                part = parts.pop()
                parts += getattr(part, "__args__", ())
                if isinstance(part, type) and issubclass(part, BaseModel):
                    found |= types(part)
                else:
                    found.add(part)
        return found

    reached = types(History)
    assert PrivilegedState not in reached
    assert {t for t in reached if isinstance(t, type) and issubclass(t, Record)} == {History, Task, Observation}
    assert dict not in reached and not any(getattr(t, "__origin__", None) is dict for t in reached)
