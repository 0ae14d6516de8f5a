"""Chats and trajectories of other programs as demonstrations: read by the grammar, matched to tasks, refused in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from hypothesis import given, settings
from hypothesis import strategies as st

import leap
from leap.core import Actor, Decision, Episode
from leap.demonstrations.files import read_decisions
from leap.demonstrations.sources import FileDemonstrationConfig
from leap.envs.atif import as_json, episode_trajectory
from leap.envs.base import Environment
from leap.errors import PrerequisiteError
from leap.testing.corridor import EAST, STAY, WEST, Corridor, CorridorConfig
from leap.testing.play import expert_episodes, walked
from tiny_world import TinyWorld, TinyWorldConfig

TOLD = "You work at a desk.\nOrder A-1 has not come as it should.\n  Pay back what is due."


def called(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def look(order: str) -> str:
    return json.dumps({"name": "look_up", "arguments": {"order": order}})


def read(tmp_path: Path, world: Environment, *values: Any) -> dict[str, list[Decision]]:
    path = tmp_path / "some.jsonl"
    path.write_bytes(b"\n".join(value if isinstance(value, bytes) else json.dumps(value).encode() for value in values))
    return read_decisions(path, world, "train")


def test_a_chat_of_an_endpoint_is_matched_by_its_instruction(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": [{"type": "text", "text": TOLD}, {"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "assistant", "content": "I begin with the order.", "tool_calls": None, "refusal": None},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "Here."}],
            "tool_calls": [called("look_up", order="A-1"), called("look_up", order="A-2")],
        },
        {"role": "tool", "tool_call_id": "look_up", "content": "{}"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "It is late.",
            "tool_calls": [called("refund", cents=500, order="A-1")],
        },
        {"role": "assistant", "content": "Done: the money is on its way."},
    ]
    found = read(tmp_path, Desk(), {"messages": messages, "tools": [], "parallel_tool_calls": True})
    paid = json.dumps({"name": "refund", "arguments": {"order": "A-1", "cents": 500}})
    assert found == {
        "train/1": [
            Decision(reason="I begin with the order. Here.", action=look("A-1")),
            Decision(reason="", action=look("A-2")),
            Decision(reason="It is late.", action=paid),
        ]
    }


def test_a_task_may_be_named_and_one_file_may_hold_many(tmp_path: Path) -> None:
    calls = [{"role": "assistant", "content": "", "tool_calls": [called("look_up", order="A-4")]}]
    old = [{"role": "assistant", "content": "", "function_call": {"name": "look_up", "arguments": '{"order": "A-5"}'}}]
    found = read(tmp_path, Desk(), {"task": "train/4", "messages": calls}, {"metadata": {"task": "train/5"}, "messages": old})
    assert {name: [one.action for one in made] for name, made in found.items()} == {
        "train/4": [look("A-4")],
        "train/5": [look("A-5")],
    }


def test_of_two_instructions_the_longer_is_meant(tmp_path: Path) -> None:
    world = Corridor(CorridorConfig(size=12))
    messages = [{"role": "user", "content": "walk 11: reach the goal now"}, {"role": "assistant", "content": f"ACTION: {EAST}"}]
    assert list(read(tmp_path, world, {"messages": messages})) == ["train/11"]
    same = TinyWorld(TinyWorldConfig(tasks=4))
    told = same.tasks("train")[0].instruction
    with pytest.raises(PrerequisiteError, match=r"line 1: which task .* tasks have its instruction.*`task`"):
        read(tmp_path, same, {"messages": [{"role": "user", "content": told}, *messages[1:]]})
    with pytest.raises(PrerequisiteError, match=r"line 1: which task .*no task's instruction"):
        read(tmp_path, world, {"messages": messages[1:]})


def walks() -> list[Episode]:
    world = Corridor(CorridorConfig(offers=None))
    return [
        walked(world, world.task("train", number), [STAY, WEST, *[EAST] * 4], reason=f"because {number}")
        for number in range(3)
    ]


def test_trajectories_of_texts_come_back_as_they_were(tmp_path: Path) -> None:
    world, known = Corridor(CorridorConfig(offers=None)), walks()
    folder = tmp_path / "trajectories"
    (folder / "below").mkdir(parents=True)
    for number, episode in enumerate(known[:2]):
        (folder / "below" / f"{number}.json").write_bytes(as_json(episode_trajectory(episode)))
    (folder / "more.jsonl").write_bytes(as_json(episode_trajectory(known[2]), indent=None))
    (folder / "README.md").write_text("not a demonstration")
    found = read_decisions(folder, world, "train")
    assert found == {
        one.task.id: [Decision(reason=step.reason, action=step.action) for step in one.steps] for one in known
    }
    before = FileDemonstrationConfig.model_validate({"from": "file", "path": folder}).fingerprint
    (folder / "more.jsonl").write_bytes(b"")
    after = FileDemonstrationConfig.model_validate({"from": "file", "path": folder}).fingerprint
    assert before and after and before != after


def test_trajectories_of_calls_are_played_again_in_a_run(tmp_path: Path) -> None:
    world = Desk()
    tasks = world.tasks("train")
    due = (1000, 500, 500)
    episodes = [
        walked(
            world,
            task,
            [look(f"A-{n}"), json.dumps({"name": "refund", "arguments": {"order": f"A-{n}", "cents": due[n % 3]}})],
            actor=Actor(name="human"),
        )
        for n, task in enumerate(tasks[:4])
    ]
    for n, episode in enumerate(episodes):
        told = episode_trajectory(episode, world.grammar.tools)
        told["extra"] = None  # as another program would have it: the instruction alone tells the task
        (tmp_path / f"{n}.json").write_bytes(as_json(told))
    recipe = {
        "name": "transcripts", "iterations": 0, "horizon": 4, "demonstrations": {"from": "file", "path": str(tmp_path)},
        "environment": {"train": "train", "validation": "test", "test": []},
        "student": {"scratch": {"layers": 1, "width": 32, "heads": 2, "mlp": 64}, "prompt": {"renderer": "dialogue"}},
        "training": {"steps": 1, "batch_tokens": 2000},
    }  # fmt: skip
    done = leap.run(recipe, environment=world, run_dir=tmp_path.parent / f"{tmp_path.name}-run")
    played = {one.task.id: one for one in done.episodes(0)}
    assert set(played) == {task.id for task in tasks[:4]} and all(one.success for one in played.values())
    assert len(done.rows(0)) == 8


ACT = {"role": "assistant", "content": "", "tool_calls": [called("goto", place="desk 1")]}
AGENT = {"step_id": 2, "source": "agent", "message": "", "tool_calls": []}
ATIF: dict[str, Any] = {"schema_version": "ATIF-v1.8", "agent": {"name": "x", "version": "1"}}


@pytest.mark.parametrize(
    ("world", "value", "message"),
    [
        (Corridor(), {"task": "train/0", "messages": [ACT]}, "message 0 of the assistant calls 'goto', but actions"),
        (Desk(), {"task": "train/0", "messages": [ACT]}, "none of the environment's tools \\('goto' is none\\): look_up, refund"),
        (Desk(), {"task": "train/0", "messages": [{"role": "assistant", "content": "hm"}]}, "none of the environment's tools: "),
        (Desk(), ATIF | {"steps": [AGENT | {"is_copied_context": True}]}, "step 1 is copied from another trajectory"),
        (Desk(), ATIF | {"schema_version": "2", "steps": [AGENT]}, "nor a trajectory in ATIF: schema_version is '2'"),
        (Desk(), ATIF | {"steps": [AGENT | {"tool_calls": [{}]}]}, "it has no 'function_name'"),
        (Desk(), ATIF | {"steps": 3}, "nor a trajectory in ATIF"),
        (Desk(), ATIF | {"steps": [], "extra": {"leap": {"task": {"id": "test/0"}}}}, "'test/0' is no task of split 'train'"),
        (Desk(), {"steps": []}, "task: Field required"),
        (Desk(), {"messages": [{"role": "assistant", "content": [{"type": "text", "text": [1]}]}]}, "nor a trajectory"),
        (Desk(), b'\xff\xfe{"messages": []}', "is neither"),
        (Desk(), b'{"messages": [' + b"9" * 5000 + b"]}", "is neither"),
        (Desk(), b'{"messages":' + b"[" * 50_000, "is neither"),
    ],
)
def test_an_odd_file_is_one_line_with_its_place(world: Environment, value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=f"^{re.escape(str(tmp_path / 'some.jsonl'))} line 2.*{message}") as refused:
        read(tmp_path, world, b"", value)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 600


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=5), one, max_size=3),
    max_leaves=6,
)
KEYS = [
    "task", "metadata", "messages", "role", "content", "tool_calls", "function", "name", "arguments", "function_call", "text",
    "reasoning_content", "type", "steps", "schema_version", "extra", "leap", "id", "source", "message", "function_name",
    "is_copied_context",
]  # fmt: skip


def spoiled(value: Any, draw: Any) -> Any:
    """A value with anything in the place of anything."""
    if draw(st.integers(0, 9)) == 0:
        return draw(JSON)
    if isinstance(value, dict):
        made = {key: spoiled(one, draw) for key, one in value.items()}
        return made | ({draw(st.sampled_from(KEYS)): draw(JSON)} if draw(st.integers(0, 5)) == 0 else {})
    return [spoiled(one, draw) for one in value] if isinstance(value, list) else value


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(data: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    spoken = {"role": "assistant", "content": f"ACTION: {look('A-1')}"}
    chat = {"messages": [{"role": "user", "content": TOLD}, ACT | {"content": "x"}, spoken]}
    walk = json.loads(as_json(episode_trajectory(walks()[0])))
    value = spoiled(data.draw(st.sampled_from([chat, walk, {"task": "train/1", **chat}])), data.draw)
    folder = tmp_path_factory.mktemp("odd")
    for world in (Desk(), Corridor(CorridorConfig(offers=None))):
        try:
            found = read(folder, world, b" ", value)
            assert all(isinstance(one, Decision) for made in found.values() for one in made)
        except PrerequisiteError as refused:
            told = str(refused)
            assert "\n" not in told and (f"{folder / 'some.jsonl'} line 2" in told or "holds no demonstration" in told)


def test_a_file_of_an_expert_s_trajectories_is_what_the_expert_did(tmp_path: Path) -> None:
    world = TinyWorld(TinyWorldConfig(tasks=4))
    known = expert_episodes(world)
    lines = [as_json(episode_trajectory(one), indent=None) for one in known]
    (tmp_path / "expert.jsonl").write_bytes(b"\n".join(lines))
    found = read_decisions(tmp_path / "expert.jsonl", world, "train")
    assert found == {one.task.id: [Decision(reason=s.reason, action=s.action) for s in one.steps] for one in known}
