"""What is left of a LoRA adapter once it is merged into weights in bfloat16, by how these are rounded.

    python benchmarks/merging.py CHECKPOINT [--steps 20]

Adapters of rank 32 on all linear layers are trained at several learning rates on leap's own documents. Then the model's answers
to a held-out text are compared with those of the adapter beside the base in float32: Kullback-Leibler divergence in nats per
token, and the share of tokens whose likeliest successor is another.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

DOCS = Path(__file__).parents[1] / "docs"
RATES = (1e-3, 3e-5, 3e-6)


def nearest(weights: torch.Tensor) -> torch.Tensor:
    """The nearest number in bfloat16."""
    return weights.bfloat16()


def drawn(weights: torch.Tensor) -> torch.Tensor:
    """One of the two numbers beside it in bfloat16, the nearer one more often, so that it is right on average."""
    bits = weights.float().view(torch.int32)
    noise = torch.randint(0, 1 << 16, bits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    return ((bits + noise) & -65536).view(torch.float32).bfloat16()


def merged(adapted: Any, rounded: Callable[[torch.Tensor], torch.Tensor]) -> torch.nn.Module:
    """The base with the adapter in its weights, each rounded once."""
    model = copy.deepcopy(adapted).float().merge_and_unload()
    for weights in model.parameters():
        weights.data = rounded(weights.data) if weights.ndim == 2 else weights.data.bfloat16()
    return model


@torch.no_grad()
def answers(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the next token, behind each token."""
    return model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)


def main() -> None:
    """Trains, and prints a table for each learning rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.checkpoint)
    texts = [tokenizer(path.read_text(encoding="utf-8"), return_tensors="pt").input_ids for path in sorted(DOCS.glob("*.md"))]
    *training, held_out = [text[:, :512] for text in texts if text.shape[1] >= 512]
    for rate in RATES:
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(arguments.checkpoint, dtype=torch.bfloat16)
        model = get_peft_model(base, LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM"))
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
        for step in range(arguments.steps):
            ids = training[step % len(training)]
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        exact = copy.deepcopy(model).float()
        truth = answers(exact, held_out)
        with exact.disable_adapter():
            others = {"without the adapter, float32": answers(exact, held_out)}
        others["beside the base, bfloat16"] = answers(model, held_out)
        both = {"rounded to nearest": merged(model, nearest), "rounded by chance": merged(model, drawn)}
        for how, one in both.items():
            others[f"merged, {how}, bfloat16"] = answers(one, held_out)
            others[f"the same weights, computed in float32, {how}"] = answers(copy.deepcopy(one).float(), held_out)
        print(f"learning rate {rate:g}, {arguments.steps} steps of 512 tokens, {held_out.shape[1]} held-out tokens")
        for name, other in others.items():
            apart = (truth.exp() * (truth - other)).sum(-1).mean()
            differ = (truth.argmax(-1) != other.argmax(-1)).float().mean()
            print(f"  {name}: {apart:.2e} nats, {differ:.1%} of tokens", flush=True)


if __name__ == "__main__":
    main()
