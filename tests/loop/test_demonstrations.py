"""Demonstrations by a model and from a file: played in the environment, kept above a score, refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import leap
from leap.errors import PrerequisiteError, RecipeError, RunError
from leap.testing.play import expert_episodes
from tiny_world import TinyWorld, TinyWorldConfig

WORLD = TinyWorld(TinyWorldConfig(tasks=8))
RECIPE: dict[str, Any] = {
    "name": "demonstrations",
    "iterations": 0,
    "horizon": 8,
    "environment": {"train": "train", "validation": "valid", "test": ["test"]},
    "student": {
        "scratch": {"layers": 1, "width": 32, "heads": 2, "mlp": 64},
        "prompt": {"renderer": "dialogue", "instructions": False, "candidates": False},
        "sampling": {"max_tokens": 40, "max_reason_tokens": 20},
        "decoding": "constrained",
    },
    "training": {"branches": True, "batch_tokens": 2000, "steps": 2},
}


def run(folder: Path, **demonstrations: Any) -> leap.Run:
    return leap.run(RECIPE | {"demonstrations": demonstrations}, environment=WORLD, run_dir=folder / "run")


def chat(episode: leap.Episode) -> dict[str, Any]:
    """An episode as a chat, the observations told in other words."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Play."}]
    for step in episode.steps:
        messages.append({"role": "user", "content": "Something is seen."})
        messages.append({"role": "assistant", "content": f"REASON: {step.reason}\nACTION: {step.action}"})
    return {"task": episode.task.id, "messages": messages}


def test_decisions_on_file_are_played_again(tmp_path: Path) -> None:
    known = expert_episodes(WORLD)[:5]
    lines = [known[0].model_dump_json(), *(json.dumps(chat(one)) for one in known[1:])]
    (tmp_path / "chats.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    done = run(tmp_path, **{"from": "file", "path": str(tmp_path / "chats.jsonl")})
    played = {one.task.id: one for one in done.episodes(0)}
    assert set(played) == {one.task.id for one in known}
    for one in known:  # what the environment shows is on file, not what the chat said
        again = played[one.task.id]
        assert [(s.observation, s.reason, s.action) for s in again.steps] == [
            (s.observation, s.reason, s.action) for s in one.steps
        ]
        assert again.success and again.actor.name == "file"
    assert len(done.rows(0)) == sum(len(one.steps) for one in known)


def test_a_chat_of_tool_calls_is_read_by_the_grammar(tmp_path: Path) -> None:
    from leap.demonstrations.files import read_decisions

    class Desk(TinyWorld):
        grammar = leap.ToolCalls([leap.Tool(name="look")])  # type: ignore[assignment]

    call = {"type": "function", "function": {"name": "look", "arguments": '{"at": "hat"}'}}
    messages = [{"role": "assistant", "content": "A hat is near.", "tool_calls": [call]}]
    path = tmp_path / "calls.jsonl"
    path.write_text(json.dumps({"task": "train/0", "messages": messages}))
    assert read_decisions(path, Desk(TinyWorldConfig(tasks=2)), "train") == {
        "train/0": [leap.Decision(reason="A hat is near.", action='{"name": "look", "arguments": {"at": "hat"}}')]
    }


def test_what_solves_too_little_is_not_cloned(tmp_path: Path) -> None:
    known = expert_episodes(WORLD)[:3]
    cut = chat(known[1])
    cut["messages"] = cut["messages"][:3]  # one answer: the task stays unsolved
    (tmp_path / "some.jsonl").write_text("\n".join(json.dumps(one) for one in (chat(known[0]), cut)), encoding="utf-8")
    done = run(tmp_path, **{"from": "file", "path": str(tmp_path / "some.jsonl")})
    assert len(done.episodes(0)) == 2
    assert len(done.rows(0)) == len(known[0].steps)


def test_a_model_plays_and_only_what_it_solves_is_cloned(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none of 8 demonstrations by mock/first is good enough.*min_score"):
        run(tmp_path, **{"from": "model", "model": "mock/first"})  # always the first place: it never takes the key
    episodes = leap.open(tmp_path / "run").episodes(0)
    assert {one.actor.name for one in episodes} == {"mock/first"} and len(episodes) == 8
    done = leap.run(
        RECIPE | {"demonstrations": {"from": "model", "model": "mock/first", "min_score": 0.0, "episodes": 3}},
        environment=WORLD,
        run_dir=tmp_path / "all",
    )
    assert len(done.rows(0)) == sum(len(one.steps) for one in done.episodes(0))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "holds no demonstration"),
        ("{", "line 1 is neither an episode, nor a chat"),
        ('{"task": "test/0", "messages": []}', "'test/0' is no task of split 'train'"),
        ('{"task": "train/0", "messages": [{"role": "assistant", "content": "hm"}]}', "no action that"),
        ('{"task": "train/0", "messages": 5}', "neither an episode, nor a chat"),
        ("[1]", "neither an episode, nor a chat"),
        ("[" * 100_000, "neither an episode, nor a chat"),
        ('{"task": "train/0", "messages": [{"role": "assistant", "content": 5}]}', "neither an episode, nor a chat"),
        ('{"task": "train/0", "messages": [{"role": "assistant", "tool_calls": [{}]}]}', "neither an episode, nor a chat"),
    ],
)
def test_a_bad_file_is_one_line_before_anything_is_played(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(PrerequisiteError, match=message):
        run(tmp_path, **{"from": "file", "path": str(tmp_path / "bad.jsonl")})
    assert not (tmp_path / "run").exists()
    with pytest.raises(PrerequisiteError, match=r"cannot read .*no\.jsonl"):
        run(tmp_path, **{"from": "file", "path": str(tmp_path / "no.jsonl")})


def test_a_source_shows_its_own_keys_alone() -> None:
    with pytest.raises(RecipeError, match="min_score"):
        leap.run(RECIPE | {"demonstrations": {"min_score": 0.5}}, environment=WORLD)
    with pytest.raises(RecipeError, match=r"scratch|speak"):
        leap.run(RECIPE | {"demonstrations": {"from": "none"}}, environment=WORLD)
    with pytest.raises(RecipeError, match="Did you mean 'file'"):
        leap.run(RECIPE | {"demonstrations": {"from": "fil"}}, environment=WORLD)
