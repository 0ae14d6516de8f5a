"""LEAP, then TRL's GRPO: the example at tiny size, from a model of random weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from small_games import small_games

pytest.importorskip("trl", reason="TRL is not installed (leap-agents[train])")

import torch
import trl
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import leap
from leap.envs.base import load_environment
from leap.models.checkpoints import load_chat
from leap.testing.checkpoints import tiny_tokenizer

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import grpo_after_leap as example

GAMES = small_games(train=4, valid=2, unseen=2)


def test_alfworld_by_calls_is_as_sound_as_alfworld() -> None:
    findings = leap.check_env(load_environment(example.NAME, GAMES))
    assert findings and all(finding.ok for finding in findings), findings


@pytest.mark.slow
def test_grpo_goes_on_from_what_leap_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    tokenizer = tiny_tokenizer("tools")
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text(encoding="utf-8")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=8192, eos_token_id=end, **sizes)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    small = {"horizon": 2, "training.steps": 2, "environment.train_tasks": 2, "demonstrations.episodes": 4}
    small |= {"student.sampling.max_tokens": 16, "training.max_tokens": 8192, "demonstrations.successes_only": False}
    checkpoint = example.taught(str(tmp_path / "base"), tmp_path, GAMES, small)
    run = leap.open(tmp_path / "leap")
    prompts: list[list[int]] = []

    class Watched(trl.GRPOTrainer):
        def _generate_single_turn(self, prompt_ids: list[Any], *more: Any, **named: Any) -> Any:
            prompts.extend(prompt_ids)
            return super()._generate_single_turn(prompt_ids, *more, **named)

    monkeypatch.setattr(trl, "GRPOTrainer", Watched)
    settings = {"max_steps": 2, "per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 24}
    grpo = example.trainer(
        checkpoint, tmp_path, GAMES, use_cpu=True, save_strategy="no", logging_steps=1, learning_rate=0.01, beta=0.1, **settings
    )
    left = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    began = {name: one.detach().cpu().clone() for name, one in grpo.model.state_dict().items()}
    assert all(torch.equal(began[name], left[name].to(began[name].dtype)) for name in left)
    grpo.train()
    assert grpo.state.global_step == 2 and sum("reward" in entry for entry in grpo.state.log_history) == 2
    chat = load_chat(str(checkpoint))[0]
    rows = [row for row in run.rows(0) if row.t == 0]  # of all games
    assert prompts and {*map(tuple, prompts)} <= {tuple(chat.prompt(row.prompt, row.tools, row.thinking)) for row in rows}
