"""Likelihoods in batches are those of rows computed one by one, however they are batched."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from histories import a_history  # noqa: E402

from leap.core import Decision  # noqa: E402
from leap.datasets import Row  # noqa: E402
from leap.envs.answer import format_answer  # noqa: E402
from leap.models.chat import ChatTokens  # noqa: E402
from leap.models.checkpoints import load_causal_lm  # noqa: E402
from leap.policies.rendering import PromptConfig, Renderer  # noqa: E402
from leap.testing.checkpoints import STYLES, tiny_checkpoint  # noqa: E402
from leap.training.branches import ATTENTION, encode_row  # noqa: E402
from leap_lab.measures.likelihood import AnswerLoss, Losses, answer_losses, compare, nll, summarise  # noqa: E402


def make_rows(renderer: str, lengths: tuple[int, ...] = (5, 1, 3)) -> list[Row]:
    """Corrections of a few episodes, the steps of all mixed up."""
    render = Renderer(PromptConfig.model_validate({"renderer": renderer, "instructions": False})).render
    rows = []
    for number, steps in enumerate(lengths):
        for t in range(steps):
            reason = "a mug is here, " * (1 + t % 3) + "so I go"
            decision = Decision(reason=reason, action="go to cabinet 12" if t % 2 else "look")
            rows.append(
                Row(
                    prompt=render(a_history("abc"[number], t)),
                    completion=[{"role": "assistant", "content": format_answer(decision)}],
                    episode=f"episode-{number}",
                    t=t,
                    source="correction",
                    iteration=1,
                )
            )
    return rows[::2] + rows[1::2]


def one_by_one(model: Any, chat: ChatTokens, row: Row) -> tuple[float, int, float]:
    """A row by itself, without batching: nats, tokens, and the nats of what follows the action's marker."""
    text = row.completion[0]["content"]
    prompt, answer = chat.prompt(row.prompt), chat.answer(text)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    each = [-float(logits[len(prompt) - 1 + k, token]) for k, token in enumerate(answer)]
    spelled = [chat.decode(answer[: k + 1]) for k in range(len(answer))]
    first = next(k for k, so_far in enumerate(spelled) if so_far.rstrip().endswith("ACTION:")) + 1
    return sum(each), len(answer), sum(each[first:])


@pytest.fixture(scope="module", params=STYLES)
def student(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ChatTokens]:
    folder = tiny_checkpoint(tmp_path_factory.mktemp(request.param), request.param)
    model, tokenizer = load_causal_lm(str(folder), dtype=torch.float64, device="cpu")
    return model.eval(), ChatTokens(tokenizer)


@pytest.mark.parametrize("renderer", ["dialogue", "paper"])
@pytest.mark.parametrize("batch_tokens", [1, 700, 100_000])
def test_batches_are_the_single_rows(student: tuple[Any, ChatTokens], renderer: str, batch_tokens: int) -> None:
    model, chat = student
    rows = make_rows(renderer)
    before = model.config._attn_implementation
    found = answer_losses(model, chat, rows, batch_tokens=batch_tokens)
    assert model.config._attn_implementation == before
    assert [(a.episode, a.t) for a in found.answers] == [(row.episode, row.t) for row in rows]
    for answer, row in zip(found.answers, rows, strict=True):
        nats, tokens, action = one_by_one(model, chat, row)
        assert answer.tokens == tokens
        assert answer.nats == pytest.approx(nats, rel=1e-9)
        assert answer.action_nats == pytest.approx(action, rel=1e-9)
        assert 0 < answer.action_tokens < tokens


def test_an_episode_is_one_pass(student: tuple[Any, ChatTokens], monkeypatch: pytest.MonkeyPatch) -> None:
    model, chat = student
    sizes: list[int] = []
    forward = type(model).forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(kwargs["input_ids"].numel())
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "forward", counted)
    rows = make_rows("dialogue", (8, 8, 8))
    answer_losses(model, chat, rows, batch_tokens=1)
    apart = sum(len(row.prompt) + len(row.answer) for row in (encode_row(row, chat) for row in rows))
    assert sum(sizes) < 0.9 * apart, "what is scored twice to see that it holds included"


@contextmanager
def unchecked(model: Any, episode: Any) -> Iterator[bool]:
    model.set_attn_implementation(ATTENTION)
    yield True


def test_another_way_of_attending_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sliding window is unknown to trunk and branches: the numbers stay those of the single rows."""
    from transformers import MistralConfig, MistralForCausalLM

    folder = tiny_checkpoint(tmp_path, "chatml")
    _, tokenizer = load_causal_lm(str(folder), device="cpu")
    chat = ChatTokens(tokenizer)
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=16,
        initializer_range=0.3,
    )
    model = MistralForCausalLM(config).double().eval()
    rows = make_rows("dialogue", (6,))
    found = answer_losses(model, chat, rows)
    assert [a.nats for a in found.answers] == pytest.approx([one_by_one(model, chat, r)[0] for r in rows], rel=1e-6)
    monkeypatch.setattr("leap_lab.measures.likelihood._attending_by_branches", unchecked)
    wrong = answer_losses(model, chat, rows)
    assert max(abs(a.nats - b.nats) for a, b in zip(found.answers, wrong.answers, strict=True)) > 0.1, "it has teeth"


def test_from_a_checkpoint_and_what_is_too_long(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "llama3")
    rows = make_rows("dialogue")
    every = nll(folder, rows, device="cpu")
    assert every.left_out == 0 and len(every.answers) == len(rows)
    some = nll(folder, rows, device="cpu", max_tokens=120)
    assert 0 < some.left_out < len(rows) and len(some.answers) == len(rows) - some.left_out
    kept = {(a.episode, a.t): a.nats for a in every.answers}
    assert all(a.nats == pytest.approx(kept[a.episode, a.t], abs=1e-4) for a in some.answers)
    assert nll(tmp_path / "nothing", []).answers == ()


def test_an_adapter_is_put_on_its_base_without_dropout(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    folder = tiny_checkpoint(tmp_path / "base", "chatml")
    model, tokenizer = load_causal_lm(str(folder), device="cpu")
    torch.manual_seed(0)
    adapter = LoraConfig(r=4, lora_dropout=0.5, init_lora_weights=False, target_modules=["q_proj", "v_proj"])
    adapted = get_peft_model(model, adapter)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    tokenizer.save_pretrained(tmp_path / "adapter")
    rows = make_rows("dialogue", (4,))
    found = nll(tmp_path / "adapter", rows, device="cpu")
    chat = ChatTokens(tokenizer)
    assert [a.nats for a in found.answers] == pytest.approx(
        [one_by_one(adapted.eval(), chat, row)[0] for row in rows], rel=1e-4
    )
    plain = nll(folder, rows, device="cpu")
    assert abs(plain.answers[0].nats - found.answers[0].nats) > 1e-3


def losses(table: dict[str, list[float]]) -> Losses:
    return Losses(
        answers=tuple(
            AnswerLoss(episode=key, t=t, nats=x, tokens=4, action_nats=x / 4, action_tokens=2)
            for key, row in table.items()
            for t, x in enumerate(row)
        )
    )


def test_summaries() -> None:
    one = summarise(losses({"a": [1.0, 3.0], "b": [2.0]}), policy="pi_1", horizon=10)
    assert (one.per_answer.value, one.per_answer.n, one.per_answer.episodes) == (2.0, 3, 2)
    assert (one.per_token.value, one.per_token.n) == (0.5, 12)
    assert one.action.value == 0.5
    assert one.missed.value == pytest.approx(1 - (math.exp(-1) + math.exp(-3) + math.exp(-2)) / 3)
    assert one.per_step.value == pytest.approx((0.4 + 0.2) / 2)


def test_a_change_is_of_the_same_answers_and_has_a_narrower_interval() -> None:
    before = {f"e{n}": [n + 1.0, n + 2.0] for n in range(12)}
    after = {key: [x - 0.5 - 0.01 * (t - 0.5) for t, x in enumerate(row)] for key, row in before.items()}
    extra = after | {"new": [100.0]}
    found = compare(losses(before), losses(extra), policies=("pi_0", "pi_1"), horizon=10)
    assert found.change.value == pytest.approx(-0.5) and found.change.n == 24
    assert found.change.high is not None and found.change.high < -0.49
    assert found.before.per_answer.high is not None and found.before.per_answer.low is not None
    assert found.before.per_answer.high - found.before.per_answer.low > 1
    with pytest.raises(ValueError, match="no answer"):
        compare(losses({"a": [1.0]}), losses({"b": [1.0]}), policies=("pi_0", "pi_1"), horizon=10)
