"""A model in this process ends its answer where it is asked to, and draws the answer to a request as warm as that asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from leap.models.base import Completion, Request, Sampling

pytest.importorskip("transformers")
from leap.models.hf import HFModel
from leap.testing.checkpoints import tiny_checkpoint


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("tiny")))


def answers(path: str, temperature: float, *requests: Request) -> list[Completion]:
    model = HFModel(path, Sampling(temperature=temperature, max_tokens=40), device="cpu")

    async def together() -> Sequence[Completion]:
        async with AsyncExitStack() as stack:
            open_ones = [await stack.enter_async_context(model.conversation()) for _ in requests]
            return await asyncio.gather(*(one.complete(asked) for one, asked in zip(open_ones, requests, strict=True)))

    return list(asyncio.run(together()))


def said(text: str, **more: object) -> Request:
    return Request([{"role": "user", "content": text}], seed=7, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_ends_before_its_stop_and_costs_no_more(path: str, temperature: float) -> None:
    (whole,) = answers(path, temperature, said("look"))
    assert whole.truncated and len(whole.text) > 8
    stop = whole.text[5:8]
    first = whole.text.index(stop)
    ended, other = answers(path, temperature, said("look", stop=["no such", stop]), said("go"))
    assert (ended.text, ended.truncated) == (whole.text[:first], False)
    assert ended.completion_tokens < whole.completion_tokens == other.completion_tokens


def test_some_are_warmer_than_others_of_their_batch(path: str) -> None:
    requests = [said("look"), said("look", warmer=0.9), said("go"), said("go", warmer=0.9)]
    cold, warm, cold_too, warm_too = (one.text for one in answers(path, 0.0, *requests))
    assert [cold, cold_too] == [answers(path, 0.0, request)[0].text for request in (said("look"), said("go"))]
    assert [warm, warm_too] == [answers(path, 0.9, request)[0].text for request in (said("look"), said("go"))]
    assert warm != cold
