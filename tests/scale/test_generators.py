"""The student apart from environments: what a generator answers to a worker is what the model answers in its own process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("ray", reason="Ray is not installed: pip install 'leap-agents[ray]'")

from stub_workers import Remote

from leap.errors import ContextTooLong, LeapError
from leap.models.base import Completion, Model, Request, Sampling
from leap.models.hf import HFModel
from leap.runs.ray_generator import Card, FarModel, _Lane
from leap.testing.checkpoints import tiny_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HFModel:
    path = str(tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "llama3"))
    return HFModel(path, Sampling(temperature=0.7, max_tokens=12), batch=4)


def far(model: HFModel, lane: str, seen: list[Any] | None = None) -> FarModel:
    """The model as a worker has it, without Ray."""
    there = _Lane(model)

    async def answer(name: str, present: Sequence[int], asked: Mapping[int, Request]) -> list[Completion | LeapError]:
        assert name == lane
        if seen is not None:
            seen.append((list(present), list(asked)))
        await asyncio.sleep(0.001)
        return await there.answer(present, asked)

    card = Card(model.name, model.identity, model.concurrency, model.in_process, model.room)
    return FarModel(SimpleNamespace(answer=Remote(answer)), lane, card, model.name.removeprefix("hf/"))


async def talk(model: Model, who: int, turns: int, told: dict[tuple[int, int], Completion]) -> None:
    async with model.conversation() as conversation:
        said = f"Number {who} is here."
        for turn in range(turns):
            request = Request([{"role": "user", "content": said}], seed=10 * who + turn)
            told[who, turn] = await conversation.complete(request)
            said += f" Then {told[who, turn].text!r}; and on."


async def wave(model: Model, numbers: Sequence[int]) -> dict[tuple[int, int], Completion]:
    told: dict[tuple[int, int], Completion] = {}
    await asyncio.gather(*(talk(model, who, 1 + who % 3, told) for who in numbers))
    return told


def test_answers_of_two_workers_are_those_of_the_model_itself(model: HFModel) -> None:
    """Conversations end at different turns, and each worker holds two waves of them."""
    numbers = {"one": [[0, 1, 2, 3], [8, 9]], "other": [[4, 5, 6], [7]]}

    async def apart() -> list[dict[tuple[int, int], Completion]]:
        async def waves(lane: str) -> list[dict[tuple[int, int], Completion]]:
            worker = far(model, lane)
            return [await wave(worker, some) for some in numbers[lane]]

        return [told for some in await asyncio.gather(*map(waves, numbers)) for told in some]

    there = asyncio.run(apart())
    here = [asyncio.run(wave(model, some)) for waves in numbers.values() for some in waves]
    assert here == there and all(one.tokens and one.logprobs for told in here for one in told.values())


def test_what_waits_goes_at_once(model: HFModel) -> None:
    seen: list[Any] = []
    asyncio.run(wave(far(model, "one", seen), [0, 1, 2]))
    assert [asked for _, asked in seen] == [[0, 1, 2], [1, 2], [2]]


def test_a_prompt_that_is_too_long_or_an_episode_that_is_cancelled_holds_up_nobody(model: HFModel) -> None:
    async def everything() -> Any:
        worker = far(model, "one")
        told: dict[tuple[int, int], Completion] = {}

        async def refused() -> None:
            async with worker.conversation() as conversation:
                with pytest.raises(ContextTooLong, match="the prompt has"):
                    await conversation.complete(Request([{"role": "user", "content": "on " * 10_000}]))

        async def cancelled() -> None:
            async with worker.conversation():
                await asyncio.sleep(60)

        leaving = asyncio.create_task(cancelled())
        others = asyncio.gather(refused(), *(talk(worker, who, 2, told) for who in (0, 1)))
        await asyncio.sleep(0.05)
        assert not told, "they wait for whoever has not asked"
        leaving.cancel()
        await asyncio.wait_for(others, 30)
        return told

    assert len(asyncio.run(everything())) == 4


def test_what_goes_wrong_there_is_heard_here(model: HFModel) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("out of order")

    card = Card(model.name, model.identity, model.concurrency, model.in_process, model.room)
    worker = FarModel(SimpleNamespace(answer=Remote(broken)), "one", card, model.name.removeprefix("hf/"))
    with pytest.raises(RuntimeError, match="out of order"):
        asyncio.run(asyncio.wait_for(wave(worker, [0, 1]), 30))
