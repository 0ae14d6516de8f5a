"""One template path, one BOS: what every method trains on is, token by token, what a rollout feeds and generates."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pairs import ADAPTER, DPO, KTO, SFT, answer, some_pairs, some_rows, train, watched

from leap.models.base import Request
from leap.testing.checkpoints import CHATML, tiny_checkpoint, tiny_tokenizer

torch = pytest.importorskip("torch")

# A system message where the user gives none, as Qwen 2.5 has it.
QWEN = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}" + CHATML
)
# As reasoning models have it: a finished conversation ends in an empty block of thought that the prompt does not hold.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {"llama3": ("llama3", None), "chatml": ("chatml", None), "qwen": ("chatml", QWEN)}
TEMPLATES |= {"thinking": ("chatml", THINKING), "scratch": ("scratch", None)}


@pytest.fixture(scope="module", params=list(TEMPLATES))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    style, template = TEMPLATES[request.param]
    folder = tiny_checkpoint(tmp_path_factory.mktemp(request.param), style)
    if template is not None:
        tokenizer = tiny_tokenizer(style)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
    return folder


def rolled_out(checkpoint: Path, prompts: Sequence[Any]) -> tuple[list[tuple[int, ...]], Any]:
    """The prompts' tokens as they reached the model in rollouts, and the model."""
    from leap.models.base import Sampling
    from leap.models.hf import HFModel

    model = HFModel(str(checkpoint), Sampling(max_tokens=4, max_reason_tokens=2), device="cpu")
    fed: list[tuple[int, ...]] = []
    answering = model.answer_batch

    def noting(requests: Any) -> None:
        fed.extend(tuple(request.ids) for request in requests)
        answering(requests)

    model.answer_batch = noting  # type: ignore[method-assign]

    async def ask() -> None:
        for prompt in prompts:
            async with model.conversation() as conversation:
                await conversation.complete(Request(prompt, seed=0))

    asyncio.run(ask())
    return fed, model


def test_every_method_trains_on_the_tokens_of_a_rollout(checkpoint: Path, tmp_path: Path) -> None:
    from trl import SFTTrainer

    from leap.training.preference import TokenizedDPOTrainer, TokenizedKTOTrainer

    rows = some_rows(2, 2)
    fed, model = rolled_out(checkpoint, [row.prompt for row in rows])
    good, bad = set(), set()
    for prompt, k, t in zip(fed, (0, 0, 1, 1), (0, 1, 0, 1), strict=True):
        bos = model.chat.tokenizer.bos_token_id
        assert bos is None or prompt.count(bos) == 1
        for texts, wrong in ((good, False), (bad, True)):
            ids = model.chat.answer(answer(k, t, wrong=wrong))
            assert model.chat.decode(ids) == answer(k, t, wrong=wrong) and ids[-1] == model.chat.end_of_turn
            assert not set(ids[:-1]) & set(model.chat.tokenizer.all_special_ids)
            texts.add((prompt, tuple(ids)))

    whole = {"batch_rows": 4, "device_rows": 4, "steps": 1}
    seen = {}
    for name, trainer, config in (
        ("sft", SFTTrainer, SFT),
        ("dpo", TokenizedDPOTrainer, DPO.model_copy(update={"lora": ADAPTER})),
        ("kto", TokenizedKTOTrainer, KTO.model_copy(update={"lora": ADAPTER, "batch_rows": 8})),
    ):
        config = config.model_copy(update=whole | ({"batch_rows": 8} if name == "kto" else {}))
        with watched(trainer) as noted:
            train(config, str(checkpoint), tmp_path / name, rows=rows, preferences=some_pairs(2, 2))
        seen[name] = noted.rows
    assert sorted(seen["sft"]) == sorted(good)
    assert seen["dpo"][:4] != seen["dpo"][4:] and sorted(seen["dpo"][:4]) == sorted(good)
    assert sorted(seen["dpo"][4:]) == sorted(bad)
    assert sorted(seen["kto"]) == sorted(good | bad)


def test_trl_itself_would_have_trained_on_other_tokens(tmp_path: Path) -> None:
    """Why the rows are tokenised here: ChatML's finished conversation ends in a token that no student generates."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from leap.models.chat import ChatTokens
    from leap.models.checkpoints import load_causal_lm
    from leap.training.preference import encode_pair

    model, tokenizer = load_causal_lm(str(tiny_checkpoint(tmp_path / "start", "chatml")), device="cpu")
    pairs = some_pairs(1, 1)
    rows = Dataset.from_list([pair.model_dump(include={"prompt", "chosen", "rejected"}) for pair in pairs])
    settings = DPOConfig(output_dir=str(tmp_path), report_to=[], use_cpu=True, bf16=False, max_length=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DPOTrainer, "_send_telemetry", lambda self: None)
        trainer = DPOTrainer(model=model, args=settings, train_dataset=rows, processing_class=tokenizer)
    theirs, ours = trainer.train_dataset[0], encode_pair(pairs[0], ChatTokens(tokenizer))
    assert theirs["prompt_ids"] == ours.prompt
    assert theirs["chosen_ids"][: len(ours.chosen)] == ours.chosen
    assert tokenizer.decode(theirs["chosen_ids"][len(ours.chosen) :]) == "\n"
