"""HFModel: batches, caches and constraints change nothing about the answers; failures end episodes, not runs."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from histories import CHOICES, a_history

from leap.core.message import Message
from leap.envs.answer import parse_answer
from leap.envs.grammar import Line
from leap.errors import ModelError, PrerequisiteError
from leap.models.base import Completion, Request, Sampling
from leap.models.drafts import Drafts
from leap.policies.rendering import PromptConfig, Renderer
from leap.testing.checkpoints import STYLES, tiny_checkpoint

torch = pytest.importorskip("torch")

GREEDY = Sampling(temperature=0, max_tokens=10, max_reason_tokens=5)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {style: str(tiny_checkpoint(folder / style, style)) for style in STYLES}


def load(path: str, sampling: Sampling = GREEDY, **more: Any) -> Any:
    from leap.models.hf import HFModel

    return HFModel(path, sampling, **more)


def alone(model: Any, messages: Sequence[Message]) -> str:
    """The greedy answer by plain forwards over the whole sequence: no batch, no cache, no padding."""
    ids = model.chat.prompt(messages)
    generated: list[int] = []
    with torch.inference_mode():
        for _ in range(model.sampling.max_tokens):
            logits = model.network(input_ids=torch.tensor([ids + generated]), use_cache=False).logits[0, -1]
            generated.append(int(logits.argmax()))
            if generated[-1] in model.chat.ends:
                break
    return model.chat.decode(generated)


def converse(model: Any, prompts: Sequence[Sequence[Sequence[Message]]], **more: Any) -> list[list[Completion]]:
    """Conversations of so many turns each, all at once."""

    async def one(turns: Sequence[Sequence[Message]]) -> list[Completion]:
        async with model.conversation() as conversation:
            return [await conversation.complete(Request(turn, seed=n, **more)) for n, turn in enumerate(turns)]

    async def everything() -> list[list[Completion]]:
        return list(await asyncio.gather(*(one(turns) for turns in prompts)))

    return asyncio.run(everything())


def dialogues(renderer: str, lengths: Sequence[int]) -> list[list[list[Message]]]:
    render = Renderer(PromptConfig(renderer=renderer), grammar_of=lambda task: Line()).render  # type: ignore[arg-type]
    return [[render(a_history("abcdef"[k] * (k + 1), t)) for t in range(n)] for k, n in enumerate(lengths)]


@pytest.mark.parametrize("renderer", ["dialogue", "paper"])
@pytest.mark.parametrize("style", STYLES)
def test_answers_are_those_of_a_plain_forward(checkpoints: dict[str, str], style: str, renderer: str) -> None:
    model = load(checkpoints[style])
    prompts = dialogues(renderer, [4, 1, 3])  # some end early
    answers = converse(model, prompts)
    for turns, completions in zip(prompts, answers, strict=True):
        for messages, completion in zip(turns, completions, strict=True):
            assert completion.text == alone(model, messages)
            assert completion.prompt_tokens == len(model.chat.prompt(messages))
    assert len({completion.text for completions in answers for completion in completions}) > 3  # not one constant answer
    if renderer == "dialogue":  # the cache was really used
        assert answers[0][3].cached_tokens > answers[0][2].cached_tokens > 0


def test_a_model_serves_one_rollout_after_another(checkpoints: dict[str, str]) -> None:
    model = load(checkpoints["llama3"])
    prompts = dialogues("dialogue", [2, 2])
    assert converse(model, prompts) == converse(model, prompts)


@pytest.mark.parametrize("style", STYLES)
def test_sampling_is_the_seeds_alone(checkpoints: dict[str, str], style: str) -> None:
    sampling = Sampling(temperature=1.5, max_tokens=10, max_reason_tokens=5)
    prompts = dialogues("dialogue", [3, 2])
    model = load(checkpoints[style], sampling)
    first = converse(model, prompts)
    assert converse(load(checkpoints[style], sampling), prompts) == first
    same = dialogues("dialogue", [1])[0][0]
    answers = [converse(model, [[same]])[0][0].text, converse(model, [[same, same]])[0][1].text]  # seeds 0 and 1
    assert answers[0] != answers[1]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("reason", [0, 3, 1000])
def test_constrained_answers_are_admissible_however_wild_the_model(
    checkpoints: dict[str, str], style: str, reason: int
) -> None:
    model = load(checkpoints[style], Sampling(temperature=5, max_tokens=40, max_reason_tokens=reason))
    for completions in converse(model, dialogues("dialogue", [3, 2, 3]), choices=CHOICES):
        for completion in completions:
            found = parse_answer(completion.text, CHOICES)
            assert found is not None and found.action in CHOICES, completion.text


@pytest.mark.parametrize("temperature", [0, 1.5])
@pytest.mark.parametrize("choices", [None, CHOICES])
def test_logprobs_are_of_what_was_drawn_from(
    checkpoints: dict[str, str], temperature: float, choices: tuple[str, ...] | None
) -> None:
    """After the temperature (1 in place of 0) and the constraint: what a plain forward says of each token."""
    from leap.models.constraint import ActionConstraint

    model = load(checkpoints["llama3"], Sampling(temperature=temperature, max_tokens=30, max_reason_tokens=4))
    prompts = dialogues("dialogue", [2, 1])
    forced = 0
    for turns, completions in zip(prompts, converse(model, prompts, choices=choices), strict=True):
        for messages, completion in zip(turns, completions, strict=True):
            assert model.chat.decode(completion.tokens) == completion.text
            assert len(completion.tokens) == len(completion.logprobs) == completion.completion_tokens
            ids = model.chat.prompt(messages)
            with torch.inference_mode():
                logits = model.network(input_ids=torch.tensor([[*ids, *completion.tokens]]), use_cache=False).logits[0]
            constraint = ActionConstraint(model._grammar, choices, model.sampling) if choices else None
            for n, (token, logprob) in enumerate(zip(completion.tokens, completion.logprobs, strict=True)):
                here = logits[len(ids) + n - 1].float() / (temperature or 1)
                if constraint is not None:
                    allowed = constraint.allowed()
                    barred = torch.full_like(here, allowed is not None, dtype=torch.bool)
                    barred[constraint.forbidden() if allowed is None else allowed] = allowed is None
                    here = here.masked_fill(barred, -torch.inf)
                    constraint.advance(token)
                    forced += allowed is not None and len(allowed) == 1
                    if allowed is not None and len(allowed) == 1:
                        assert logprob == 0
                assert logprob == pytest.approx(float(here.log_softmax(-1)[token]), abs=1e-4)
    assert (forced > 0) == (choices is not None)


@pytest.mark.parametrize("choices", [None, CHOICES])
@pytest.mark.parametrize("style", STYLES)
def test_no_token_is_computed_for_nothing(
    checkpoints: dict[str, str], style: str, choices: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No padding, nothing behind an answer's end, nothing where there is no choice, and a common beginning once. (Guesses are
    another matter.)"""
    monkeypatch.setattr(Drafts, "guess", lambda *_: [])
    model = load(checkpoints[style], Sampling(temperature=1.5, max_tokens=40, max_reason_tokens=6))
    head: list[Message] = [{"role": "user", "content": "You see a desk 1, a drawer 2 and a mug 3. " * 3}]
    begun: list[Message] = [*head, {"role": "assistant", "content": "ACTION: look"}]
    prompts = [[[*begun, {"role": "user", "content": f"Nothing happens, {k}. " * (k + 1)}]] for k in range(4)]
    fed, forward = [], model._forward

    def counting(seats: Any, new: Sequence[list[int]], asked: Sequence[int]) -> Any:
        fed.append([len(tokens) for tokens in new])
        return forward(seats, new, asked)

    monkeypatch.setattr(model, "_forward", counting)
    completions = [answers[0] for answers in converse(model, prompts, choices=choices)]
    ids = [model.chat.prompt(turns[0]) for turns in prompts]
    common = next(n for n, tokens in enumerate(zip(*ids, strict=False)) if len(set(tokens)) > 1)
    assert common > 16 and [c.cached_tokens for c in completions] == [len(ids[0]) - 1, common, common, common]
    asked = sum(len(one) for one in ids) - 3 * common
    answered = [c.completion_tokens for c in completions]
    assert asked < sum(map(sum, fed)) < asked + sum(answered)
    forwards = len(fed) - 1  # one was of the beginning
    assert forwards == max(answered) if choices is None else forwards < max(answered)


def test_rows_stay_side_by_side_as_conversations_come_and_go(checkpoints: dict[str, str]) -> None:
    model = load(checkpoints["llama3"])
    turns = dialogues("dialogue", [3, 3, 3])

    async def some_leave() -> None:
        async with AsyncExitStack() as stays:
            async with model.conversation() as first:
                await first.complete(Request(turns[0][0]))
                second = await stays.enter_async_context(model.conversation())  # has asked nothing when the first leaves
            assert (await second.complete(Request(turns[1][0]))).text == alone(model, turns[1][0])
            async with model.conversation() as third:
                fourth = await stays.enter_async_context(model.conversation())
                asked = [second.complete(Request(turns[1][1])), third.complete(Request(turns[0][0]))]
                await asyncio.gather(*asked, fourth.complete(Request(turns[2][0])))
            answers = await asyncio.gather(second.complete(Request(turns[1][2])), fourth.complete(Request(turns[2][1])))
        assert [answer.text for answer in answers] == [alone(model, turns[1][2]), alone(model, turns[2][1])]
        assert all(answer.cached_tokens > 16 for answer in answers)

    asyncio.run(asyncio.wait_for(some_leave(), 60))


def test_too_long_a_prompt_fails_alone(checkpoints: dict[str, str]) -> None:
    model = load(checkpoints["llama3"])
    long: list[Message] = [{"role": "user", "content": "word " * 3000}]
    short = dialogues("paper", [2])[0]

    async def fails() -> str:
        async with model.conversation() as conversation:
            with pytest.raises(ModelError, match="exceeds the model's 1024"):
                await conversation.complete(Request(long, seed=0))
        return "failed"

    async def works() -> list[str]:
        async with model.conversation() as conversation:
            return [(await conversation.complete(Request(turn, seed=0))).text for turn in short]

    async def both() -> list[Any]:
        return list(await asyncio.gather(fails(), works()))

    assert asyncio.run(both()) == ["failed", [alone(model, turn) for turn in short]]


@pytest.mark.parametrize("failure", [RuntimeError("out of memory\ntrace"), IndexError("index out of range"), ValueError("")])
def test_a_failing_generation_is_told_and_the_next_one_works(
    checkpoints: dict[str, str], failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(checkpoints["llama3"])
    prompts = dialogues("dialogue", [2, 2])

    async def attempt() -> list[str]:
        async with model.conversation() as conversation:
            await conversation.complete(Request(prompts[0][0], seed=0))
            monkeypatch.setattr(model, "_forward", lambda *_: (_ for _ in ()).throw(failure))
            with pytest.raises(ModelError, match=r"generation failed: [^\n]+$"):
                await conversation.complete(Request(prompts[0][1], seed=0))
            monkeypatch.undo()
            return [(await conversation.complete(Request(prompts[0][1], seed=0))).text]

    assert asyncio.run(asyncio.wait_for(attempt(), 60)) == [alone(model, prompts[0][1])]


def test_a_cancelled_conversation_leaves_nothing_behind(checkpoints: dict[str, str]) -> None:
    model = load(checkpoints["llama3"])
    messages = dialogues("dialogue", [1])[0][0]

    async def one_is_cancelled() -> str:
        async def ask() -> str:
            async with model.conversation() as conversation:
                return (await conversation.complete(Request(messages, seed=0))).text

        async with model.conversation() as other:  # has not asked, so the first waits
            waiting = asyncio.create_task(ask())
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            return (await other.complete(Request(messages, seed=0))).text

    assert asyncio.run(asyncio.wait_for(one_is_cancelled(), 60)) == alone(model, messages)


def test_a_missing_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="cannot load the model"):
        load(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(PrerequisiteError, match="empty"):
        load(str(tmp_path / "empty"))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("left", [0, 0.5])
def test_a_damaged_checkpoint_is_said_in_one_line(tmp_path: Path, name: str, left: float) -> None:
    folder = tiny_checkpoint(tmp_path / "damaged")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(PrerequisiteError, match="damaged") as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_a_chat_template_is_said(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "bare")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(PrerequisiteError, match="no chat template"):
        load(str(folder))


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "pickled")
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(PrerequisiteError, match="safetensors"):
        load(str(folder))


def test_a_pickled_adapter_is_not_read(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base, folder = tiny_checkpoint(tmp_path / "base"), tmp_path / "adapter"
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, task_type="CAUSAL_LM"))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    load(str(folder))
    torch.save({}, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(PrerequisiteError, match="safetensors"):
        load(str(folder))


def test_a_model_is_known_by_its_weights_wherever_they_lie(tmp_path: Path) -> None:
    folders = [tiny_checkpoint(tmp_path / "one"), tmp_path / "two"]
    shutil.copytree(*folders)
    one, two = (load(str(folder)).identity for folder in folders)
    assert one == two
    weights = bytearray((folders[1] / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folders[1] / "model.safetensors").write_bytes(weights)
    assert load(str(folders[1])).identity != one


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    import json

    folder = tiny_checkpoint(tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: ...\nclass M: ...\n")
    with pytest.raises(PrerequisiteError):
        load(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("other", [{"width": 48}, {"layers": 2}, {"layers": 4}])
def test_an_adapter_for_another_base_is_refused_in_one_line(tmp_path: Path, other: dict[str, int]) -> None:
    import json

    from peft import LoraConfig, get_peft_model

    from leap.models.checkpoints import load_causal_lm
    from leap.models.scratch import ScratchConfig, build_scratch

    texts = ["go to shelf 1"]
    size = {"layers": 3, "width": 32, "heads": 2, "mlp": 32}
    for name, change in (("base", {}), ("other", other)):
        build_scratch(ScratchConfig(**(size | change)), texts, tmp_path / name, seed=0)
    own, tokenizer = load_causal_lm(str(tmp_path / "base"))
    adapter = tmp_path / "adapter"
    get_peft_model(own, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(adapter)
    tokenizer.save_pretrained(adapter)
    load_causal_lm(str(adapter))  # on its own base
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(tmp_path / "other")}))
    with pytest.raises(PrerequisiteError, match="does not fit the model it names as its base") as caught:
        load_causal_lm(str(adapter))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("style", STYLES)
def test_of_several_answers_the_one_is_given_that_is_likeliest_token_by_token(style: str, checkpoints: dict[str, str]) -> None:
    model = load(checkpoints[style], Sampling(temperature=0, max_tokens=60))
    render = Renderer(PromptConfig(instructions=False)).render
    prompts = [render(a_history(name, t)) for name, t in (("a", 0), ("b", 2), ("c", 1))]
    said: list[Message] = [
        {"role": "assistant", "content": f"REASON: {why} is here.\nACTION: {what}"}
        for why in ("mug 1", "desk 12", "it")
        for what in CHOICES[:3]
    ]
    got = [turns[0] for turns in converse(model, [[prompt] for prompt in prompts], answers=said)]
    for prompt, completion in zip(prompts, got, strict=True):
        ids, left = model.chat.prompt(prompt), [model.chat.completion(one) for one in said]
        at = 0
        while len(left) > 1:
            with torch.inference_mode():
                logits = model.network(input_ids=torch.tensor([ids + left[0][:at]]), use_cache=False).logits[0, -1]
            best = max({one[at] for one in left}, key=lambda token: float(logits[token]))
            left, at = [one for one in left if one[at] == best], at + 1
        assert completion.tokens == tuple(left[0]) and not completion.truncated
        assert completion.text in [one["content"] for one in said]
