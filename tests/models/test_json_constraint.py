"""Answers of models in this process that are held to a JSON schema."""

from __future__ import annotations

import asyncio
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from chat_templates import SHAPES, tokenizer_of

from leap.core.message import Message
from leap.models.base import Completion, Request, Sampling
from leap.models.chat import ChatTokens
from leap.models.constraint import ActionGrammar
from leap.models.json_constraint import Free, JsonConstraint, pieces_of
from leap.teachers.answers import STEP_SCHEMA, parse_step, reasons_schema, trajectory_schema
from leap.testing.checkpoints import tiny_checkpoint

pytest.importorskip("transformers")

BOOLEAN = {"type": "boolean"}
HELD = [name for name in SHAPES if name != "channels"]


@cache
def grammar_of(name: str) -> ActionGrammar:
    return ActionGrammar(ChatTokens(tokenizer_of(SHAPES[name])))


def answered(name: str, schema: dict[str, Any], thinking: bool | None, draw: random.Random) -> tuple[str, str]:
    """Thought and answer of a model that says anything that it may, and closes a text or a thought now and then."""
    grammar = grammar_of(name)
    chat, generated = grammar.chat, list[int]()
    constraint = JsonConstraint(grammar, schema, thinking)
    closing = chat.text(chat.turn(thinking).closing.strip() or "x")
    ending: list[int] = []
    while not generated or generated[-1] != chat.end_of_turn:
        if (allowed := constraint.allowed()) is not None:
            token = draw.choice(allowed)
        else:
            if not ending and draw.random() < 0.2:
                ending = [*closing] if constraint._thinks else [grammar.quote]
            token = ending.pop(0) if ending else draw.randrange(len(chat.tokenizer))
            if token in constraint.forbidden():
                continue
        generated.append(token)
        constraint.advance(token)
        assert constraint.complete or token != chat.end_of_turn
    return chat.said(generated, (), thinking)


@pytest.mark.parametrize("name", HELD)
def test_any_answer_keeps_to_the_schema(name: str) -> None:
    draw = random.Random(name)
    for thinking in (None, True, False):
        for _ in range(4):
            answer = json.loads(answered(name, trajectory_schema([0, 2]), thinking, draw)[1])
            steps = answer["trajectory"]
            assert list(answer) == ["trajectory", "summary"] and list(steps) == ["timestep_0", "timestep_2"]
            for step in steps.values():
                kinds = {key: type(value) for key, value in step.items()}
                assert kinds == {"leave_as_it_is": bool, "corrected_reason": str, "corrected_action": str}


def test_a_model_that_opens_a_thought_itself_thinks_first() -> None:
    draw = random.Random(0)
    said = [answered("qwen3", STEP_SCHEMA, True, draw) for _ in range(40)]
    assert {bool(thought) for thought, _ in said} == {True, False}
    for _, answer in said:
        assert parse_step(answer) is not None or json.loads(answer)  # a text may spell a key
    assert not any(answered("qwen3", STEP_SCHEMA, False, draw)[0] for _ in range(10))


def test_other_schemas_and_channels_are_not_held_to() -> None:
    assert pieces_of(reasons_schema([1])) == ['{"trajectory": {"timestep_1": {"reason": "', Free.TEXT, "}}}"]
    optional = {"type": "object", "properties": {"a": BOOLEAN}}
    for one in ({"type": "array"}, {"type": "string", "pattern": "a"}, {}, optional):
        with pytest.raises(ValueError, match="neither an object"):
            pieces_of(one)
    with pytest.raises(ValueError, match="channels"):
        JsonConstraint(grammar_of("channels"), STEP_SCHEMA)


@pytest.mark.parametrize("style", ["llama3", "chatml"])
def test_a_model_in_this_process_is_held_to_it(style: str, tmp_path: Path) -> None:
    from leap.models.hf import HFModel

    model = HFModel(str(tiny_checkpoint(tmp_path, style)), Sampling(temperature=1.0, max_tokens=60), device="cpu")
    asked: list[Message] = [{"role": "user", "content": "Where is the mug?"}]

    async def told(schema: dict[str, Any] | None, seeds: int) -> list[Completion]:
        requests = [Request(asked, seed, schema=schema) for seed in range(seeds)]
        return list(await asyncio.gather(*map(model.complete, requests)))

    whole = {"type": "object", "properties": {"a": BOOLEAN, "b": BOOLEAN}, "required": ["a", "b"]}
    read = [json.loads(one.text) for one in asyncio.run(told(whole, 12)) if not one.truncated]
    assert len(read) == 12 and all(each.keys() == {"a", "b"} for each in read) and {each["a"] for each in read} == {True, False}
    for one in asyncio.run(told(trajectory_schema([0, 1]), 3)):
        assert one.text.startswith('{"trajectory": {"timestep_0": {"leave_as_it_is": ') and one.truncated
    assert asyncio.run(told({"type": "array"}, 2)) == asyncio.run(told(None, 2))
