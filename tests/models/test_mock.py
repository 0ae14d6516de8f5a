"""The mock provider: scripts, faults on demand, and the server's own count of what it answered."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap.envs.answer import parse_answer
from leap.errors import ModelError, RecipeError
from leap.models.base import Completion, Request, Sampling
from leap.models.mock import FAULTS, Faults, MockModel, least_json, mock_model, spoiled

SCHEMA = {
    "type": "object",
    "properties": {
        "summary": {"type": "string"},
        "steps": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/step"}},
        "note": {"type": "string"},
    },
    "required": ["summary", "steps"],
    "$defs": {
        "step": {
            "type": "object",
            "properties": {
                "t": {"type": "integer", "minimum": 3},
                "act": {"enum": ["keep", "change"]},
                "why": {"type": ["string", "null"]},
            },
            "required": ["t", "act", "why"],
        }
    },
}


def ask(model: Any, prompt: str = "x", **more: Any) -> Completion:
    async def one() -> Completion:
        async with model.conversation() as conversation:
            return await conversation.complete(Request([{"role": "user", "content": prompt}], **({"seed": 0} | more)))

    return asyncio.run(one())


def test_first_takes_the_first_action_on_offer() -> None:
    model = mock_model("first", Sampling())
    for prompt, choices, action in [
        ("Candidate actions:\n- look\n- go to desk 1", None, "look"),
        ("where?", ["open drawer 1", "look"], "open drawer 1"),
        ("where?", None, "look"),
    ]:
        decision = parse_answer(ask(model, prompt, choices=choices).text, None)
        assert decision is not None and decision.action == action


def test_json_meets_the_schema() -> None:
    step = {"t": 3, "act": "keep", "why": "mock"}
    assert json.loads(ask(mock_model("json", Sampling()), schema=SCHEMA).text) == {"summary": "mock", "steps": [step, step]}
    assert ask(mock_model("json", Sampling())).text == "{}"


def test_answers_end_at_their_limit() -> None:
    answer = ask(MockModel(lambda request: "a" * 100, sampling=Sampling(max_tokens=5)))
    assert answer == Completion("a" * 20, 1, 5, truncated=True)


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_on_demand(kind: str) -> None:
    model = mock_model(f"json?{kind}=1", Sampling())
    if kind in ("rate_limit", "server_error", "timeout"):
        with pytest.raises(ModelError, match=kind):
            ask(model, schema=SCHEMA)
        return
    answer = ask(model, schema=SCHEMA)
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.text)
    assert answer.truncated == (kind == "truncated") and (answer.text == "") == (kind == "empty")


FAULTY = ("json?smoke=1", "json?empty", "json?empty=0.9&broken=0.2", "json?empty=-1", "json?empty=nan")


@pytest.mark.parametrize("name", ["nothing", *FAULTY])
def test_what_no_mock_is_called(name: str) -> None:
    with pytest.raises(RecipeError, match="mock"):
        mock_model(name, Sampling())


@given(st.integers(0, 2**32), st.lists(st.integers(1, 10_000), min_size=1))
def test_faults_are_the_same_each_time(seed: int, numbers: list[int]) -> None:
    one, two = (Faults({"empty": 0.3, "timeout": 0.3}, seed=seed) for _ in range(2))
    assert [one.draw(n) for n in numbers] == [two.draw(n) for n in numbers]
    assert one.counts == two.counts


def test_faults_come_as_often_as_asked() -> None:
    faults = Faults({"empty": 0.1, "timeout": 0.2})
    for number in range(4000):
        faults.draw(number)
    assert 330 < faults.counts["empty"] < 470 and 700 < faults.counts["timeout"] < 900


@given(st.text(min_size=4))
def test_spoiled_answers_differ_from_the_good_one(text: str) -> None:
    for kind in ("broken", "truncated", "empty"):
        assert spoiled(kind, text)[0] != text
    assert spoiled(None, text) == (text, False)


def test_least_json_of_any_schema_of_a_pydantic_model() -> None:
    from pydantic import BaseModel

    class Inner(BaseModel):
        reason: str
        action: str | None

    class Outer(BaseModel):
        summary: str
        score: float
        sure: bool
        first: Inner
        rest: list[Inner] = []

    text = least_json(Request([{"role": "user", "content": ""}], schema=Outer.model_json_schema()))
    assert Outer.model_validate_json(text).first.reason == "mock"
