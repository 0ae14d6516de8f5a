"""A third party's training method in one file: the student's own answers, pulled towards what it would say with privilege.

At each of its own steps, the distribution of every token of its answer is pulled (by KL divergence) towards the one that it
has where the privileged state is in the prompt. No correction is needed; pi_0 is cloned by SFT.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import leap
from tiny_world import TinyWorld, TinyWorldConfig


class DistillConfig(leap.TrainingSettings):
    temperature: float = 1.0


@leap.method("privileged-kl")
class PrivilegedKL(leap.Method[DistillConfig]):
    """pi_i <- pi_{i-1} that answers without the privileged state as it did with it."""

    Config = DistillConfig

    def rows(self, collected: leap.Collected) -> Any:
        if collected.iteration == 0:
            return collected.union()
        return [
            (collected.renderer.render(one.history(t)), collected.privileged.render(one.history(t), state), step.completion)
            for one in collected.episodes(collected.iteration)
            for t, (step, state) in enumerate(zip(one.steps, collected.states(one), strict=True))
        ]

    def train(self, rows: Sequence[Any], job: leap.Job) -> leap.TrainingResult:
        from leap.training.sft import train_sft

        if job.iteration == 0:
            return train_sft(leap.SFTConfig(steps=2), rows, job)
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from leap.models.chat import ChatTokens

        tokenizer, total = AutoTokenizer.from_pretrained(job.start), 0.0
        model, chat = AutoModelForCausalLM.from_pretrained(job.start), ChatTokens(tokenizer)
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.config.lr)
        for n, (prompt, privileged, answer) in enumerate(rows[: self.config.steps], start=1):
            ids = chat.answer(answer)

            def log_probs(messages: Any, ids: list[int] = ids) -> Any:
                logits = model(torch.tensor([chat.prompt(messages) + ids])).logits[0, -len(ids) - 1 : -1]
                return torch.log_softmax(logits / self.config.temperature, -1)

            with torch.no_grad():
                target = log_probs(privileged)
            loss = torch.nn.functional.kl_div(log_probs(prompt), target, log_target=True, reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            job.on_step(n, len(rows), loss.item())
        model.save_pretrained(job.out)
        tokenizer.save_pretrained(job.out)
        return leap.TrainingResult(n, len(rows), too_long=0, tokens=0, answer_tokens=0, loss=total / n, seconds=0.0)


def test_a_run_trains_by_it(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    small = {"scratch": {"layers": 1, "width": 32, "heads": 2, "mlp": 64}, "sampling": {"max_tokens": 20}}
    recipe = {"name": "kl", "iterations": 1, "horizon": 3, "student": small, "environment": {"train": "train", "test": ["test"]}}
    recipe |= {"training": {"method": "privileged-kl", "steps": 3, "lr": 1e-3}, "demonstrations": {"successes_only": False}}
    run = leap.run(recipe, environment=TinyWorld(TinyWorldConfig(tasks=2)), run_dir=tmp_path / "run")
    assert len({(run.checkpoint(i) / "model.safetensors").read_bytes() for i in (0, 1)}) == 2
    assert "temperature: 1.0" in (run.path / "recipe.yaml").read_text().partition("privileged-kl")[2]
    with pytest.raises(leap.errors.RecipeError, match=r"training\.temprature: unknown key\. Did you mean 'temperature'"):
        leap.run(recipe, set={"training.temprature": 2}, environment=TinyWorld(TinyWorldConfig(tasks=2)))
