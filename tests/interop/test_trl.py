"""TRL's GRPO trainer on leap's environments: a real step of a tiny model whose words are scripted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from small_games import small_games

pytest.importorskip("trl", reason="TRL is not installed (leap-agents[train])")

from transformers.utils import get_json_schema

from leap import registry
from leap.errors import PrerequisiteError
from leap.interop.trl import OVER, environment, rows
from leap.testing.checkpoints import tiny_tokenizer

GAMES = small_games(train=3, valid=1, unseen=1)


def test_an_episode_by_calls_of_act() -> None:
    game = environment("alfworld", options=GAMES)()
    schema = get_json_schema(game.act)["function"]
    assert schema["parameters"]["required"] == ["command"]
    row = rows("alfworld", options=GAMES)[0]
    shown = game.reset(**row)
    hidden = game._privileged()
    assert "Task: " in shown and "ACTION:" not in shown and hidden.text not in shown
    told = [game.act(command=action) for action in hidden.plan]
    assert told[-1].endswith(OVER) and game.act(command="look") == OVER and game.get_reward() == 1.0
    assert game.reset(**row) == shown and game.get_reward() == 0.0
    with pytest.raises(TypeError, match="command"):
        game.act(order="look")
    with pytest.raises(PrerequisiteError, match="a row names the task 'x'"):
        game.reset(task="x")


def test_tools_of_an_environment_are_tools_of_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.environment._decorated, "desk", Desk)
    game = environment("desk")()
    schema = get_json_schema(game.refund)["function"]["parameters"]
    assert {name: one["type"] for name, one in schema["properties"].items()} == {"order": "string", "cents": "integer"}
    game.reset(**rows("desk")[0])
    game.look_up(order="A-0")
    assert game.refund(order="A-0", cents=1000).endswith(OVER) and game.get_reward() == 1.0


@pytest.mark.slow
def test_a_step_of_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trl
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    tokenizer = tiny_tokenizer("tools")
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text(
        encoding="utf-8"
    )
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=8192, **sizes))
    before = model.model.embed_tokens.weight.detach().clone()
    prompts: list[str] = []

    class Scripted(trl.GRPOTrainer):
        """Of the two generations of a task one plays the plan, call by call, and the other gives up."""

        def _generate_single_turn(self, prompt_ids: list[Any], *_: Any, **__: Any) -> Any:
            turn = len(prompts)
            prompts.append(tokenizer.decode(prompt_ids[0]))
            plan = self.environments[0]._privileged().plan if self.environments[0]._dialogue else ()
            call = {"name": "act", "arguments": {"command": plan[0]}} if plan else None
            acts = f"<tool_call>\n{json.dumps(call)}\n</tool_call><|im_end|>" if call else "Done.<|im_end|>"
            said = [acts, "I give up.<|im_end|>"] if turn == 0 else [acts]
            assert len(said) == len(prompt_ids)
            return [tokenizer.encode(text, add_special_tokens=False) for text in said], None

    config = trl.GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=2,
        num_generations=2,
        max_completion_length=4000,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        logging_steps=1,
        learning_rate=0.01,
    )
    trainer = Scripted(
        model=model,
        processing_class=tokenizer,
        args=config,
        train_dataset=Dataset.from_list(rows("alfworld", options=GAMES)),
        environment_factory=environment("alfworld", options=GAMES, candidates=False),
    )
    trainer.train()
    (logged,) = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert logged["reward"] == 0.5 and logged["rewards/LeapGame/mean"] == 0.5
    assert "Task: put" in prompts[0] and "<tool_response>" in prompts[-1] and OVER in prompts[-1]
    assert (model.model.embed_tokens.weight.detach().cpu() != before).any()
