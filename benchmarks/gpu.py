"""What one large card does with leap: rollouts and training of an 8B-shaped student, and of a larger student from random weights.

    python benchmarks/gpu.py [--out FOLDER] [--tiny]

The 8B-shaped student has Llama 3's configuration, random weights made on the device in bfloat16, and a small tokenizer made on
the spot: nothing is downloaded. Needed are PyTorch, transformers and leap's own light packages; PEFT, TRL and vLLM are used where
they are installed and it is said where not. Every part runs in a process of its own under a limit of time, eight minutes in all;
one that fails is told with its error, and the others go on. Results are printed as they come and written to gpu.json and gpu.log
in FOLDER ($OUT by default, or here). `--tiny` is the same at toy size, for a CPU.

Shares of the card are those of the products of matrices that it was measured at here (bfloat16, square), by these formulas, N
the weights without embeddings and attention left out: 2 N operations for each token that goes through the network in a rollout,
4 N for each token trained with a frozen base (forward, and backward to the activations; what is recomputed does not count), 6 N
where all weights are trained.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE / "src"))  # a bare machine has no leap installed

TINY = "--tiny" in sys.argv
LARGE = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
TOY = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512,
}  # fmt: skip
GAMES, BATCH_TOKENS, STEPS, RANK = (4, 2000, 3, 4) if TINY else (120, 8192, 6, 64)
LIMITS = {
    "peak": 30, "checkpoint": 60, "rollouts": 75, "rollouts vllm": 120, "branches": 50, "branches recomputed": 50,
    "rows recomputed": 50, "trl": 60, "scratch": 60,
}  # fmt: skip
"""Seconds of each part. Together more than WHOLE, which ends them all the same: few take their limit."""
WHOLE = 470


def device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def settled() -> float:
    """The time, once the device has done all it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def memory() -> float:
    """The most memory held on the device, in GB."""
    import torch

    return round(torch.cuda.max_memory_allocated() / 1e9, 2) if torch.cuda.is_available() else 0.0


def weights(model: Any) -> int:
    """Weights that a token is multiplied with, adapters and embeddings left out."""
    outer = (model.get_input_embeddings(), model.get_output_embeddings())
    embeddings = {id(one) for layer in outer for one in layer.parameters()}
    return sum(w.numel() for name, w in model.named_parameters() if "lora_" not in name and id(w) not in embeddings)


def speed(folder: Path, *, tokens: float, operations: float, seconds: float) -> dict[str, float]:
    """Tokens a second, and the share of the card's products that so many operations a token are."""
    peak = json.loads((folder / "peak.json").read_text(encoding="utf-8"))["operations"]
    return {
        "seconds": round(seconds, 2),
        "tokens_per_second": round(tokens / seconds, 1),
        "share_of_card": round(tokens * operations / seconds / peak, 4),
        "gb": memory(),
    }


def part_peak(folder: Path) -> dict[str, Any]:
    """Operations a second of products of square matrices."""
    import torch

    size, times = (512, 5) if TINY else (8192, 40)
    a, b = (torch.randn(size, size, device=device(), dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        torch.matmul(a, b)
    began = settled()
    for _ in range(times):
        torch.matmul(a, b)
    operations = 2 * size**3 * times / (settled() - began)
    (folder / "peak.json").write_text(json.dumps({"operations": operations}), encoding="utf-8")
    return {"teraflops": round(operations / 1e12, 2)}


def part_checkpoint(folder: Path) -> dict[str, Any]:
    """The student with random weights, on file."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from leap.testing.checkpoints import tiny_tokenizer

    tokenizer = tiny_tokenizer("llama3")
    size: dict[str, Any] = TOY if TINY else LARGE
    rope = {"rope_type": "default", "rope_theta": 5e5}
    config = LlamaConfig(**size, max_position_embeddings=8192, rope_parameters=rope, eos_token_id=tokenizer.eos_token_id)
    began = time.perf_counter()
    with device():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder / "student", max_shard_size="4GB")
    tokenizer.save_pretrained(folder / "student")
    return {"weights": sum(w.numel() for w in model.parameters()), "seconds": round(time.perf_counter() - began, 1)}


def world(recipe: str) -> tuple[Any, Any]:
    """The environment of a recipe and how its student's prompts are made."""
    import yaml

    from leap.policies.rendering import PromptConfig, Renderer
    from leap_worlds.alfworld.env import AlfworldConfig, AlfworldEnvironment

    told = yaml.safe_load((HERE / f"src/leap/recipes/{recipe}.yaml").read_text(encoding="utf-8"))
    options = told["environment"]["options"]
    options["generator"]["games"] = {"train": 4 * GAMES, "valid": GAMES}
    options["generator"]["layout_per_game"] = ["train", "valid"]
    environment = AlfworldEnvironment(AlfworldConfig.model_validate(options))
    environment.prepare()
    return environment, Renderer(PromptConfig.model_validate(told["student"]["prompt"]), environment.prompts_of)


def play(model: Any, recipe: str, *, constrained: bool) -> tuple[float, int, int]:
    """Plays the games; seconds, steps and tokens of the answers."""
    from leap.core import Actor
    from leap.policies.model import ModelPolicy
    from leap.rollouts import Play, rollout

    environment, renderer = world(recipe)
    policy = ModelPolicy(model, renderer, Actor(name="student"), constrained=constrained)
    episodes: list[Any] = []
    tasks = environment.tasks("valid")
    rollout(environment, policy, Play(tasks[:2], 1, 0, "warm-up"), lambda episode: None)
    began = settled()
    rollout(environment, policy, Play(tasks, 12, 0, "benchmark"), episodes.append)
    seconds = settled() - began
    steps = [step for episode in episodes for step in episode.steps]
    return seconds, len(steps), sum(step.completion_tokens for step in steps)


def in_process(folder: Path, checkpoint: Path, recipe: str) -> dict[str, Any]:
    from leap.models.base import Sampling
    from leap.models.hf import HFModel

    model = HFModel(str(checkpoint), Sampling(temperature=0.7, max_tokens=60, max_reason_tokens=30), batch=GAMES)
    through: list[int] = []

    def count(_: Any, args: Any, kwargs: Any) -> None:
        through.append(next(x for x in (*args, kwargs.get("input_ids")) if x is not None).numel())

    model.network.register_forward_pre_hook(count, with_kwargs=True)
    seconds, steps, answers = play(model, recipe, constrained=True)
    figures = speed(folder, tokens=sum(through), operations=2 * weights(model.network), seconds=seconds)
    return {**figures, "steps": steps, "answer_tokens_per_second": round(answers / seconds, 1), "forwards": len(through)}


def part_rollouts(folder: Path) -> dict[str, Any]:
    """In this process: tokens that go through the network, prompts included."""
    return in_process(folder, folder / "student", "quickstart")


def part_rollouts_vllm(folder: Path) -> dict[str, Any]:
    """On a vLLM server that leap starts: tokens of answers."""
    from leap.models.base import Sampling
    from leap.models.vllm import VLLMModel

    if shutil.which("vllm") is None:
        return {"left_out": "vLLM is not installed"}
    model = VLLMModel(str(folder / "student"), Sampling(temperature=0.7, max_tokens=60), batch=GAMES)
    try:
        seconds, steps, answers = play(model, "quickstart", constrained=False)
    finally:
        model.close()
    return {"seconds": round(seconds, 2), "steps": steps, "answer_tokens_per_second": round(answers / seconds, 1)}


def rows_of(recipe: str) -> list[Any]:
    """The expert's episodes as rows."""
    from leap.datasets import demonstration_rows
    from leap.policies.base import ExpertPolicy
    from leap.rollouts import Play, rollout

    environment, renderer = world(recipe)
    episodes: list[Any] = []
    rollout(environment, ExpertPolicy(environment), Play(environment.tasks("train"), 20, 0, "benchmark"), episodes.append)
    return list(demonstration_rows(sorted(episodes, key=lambda episode: episode.task.id), renderer))


def adapted(model: Any) -> Any:
    """The model with adapters on all linear layers: PEFT's, or plain ones where it is not installed."""
    import torch

    if find_spec("peft") is not None:
        from peft import LoraConfig, get_peft_model

        return get_peft_model(model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", task_type="CAUSAL_LM"))

    class Adapter(torch.nn.Module):
        def __init__(self, base: torch.nn.Linear) -> None:
            super().__init__()
            self.base, at = base, base.weight.device
            self.lora_a = torch.nn.Parameter(torch.randn(RANK, base.in_features, device=at) / base.in_features**0.5)
            self.lora_b = torch.nn.Parameter(torch.zeros(base.out_features, RANK, device=at))

        def forward(self, x: Any) -> Any:
            return self.base(x) + (x @ self.lora_a.T.to(x.dtype)) @ self.lora_b.T.to(x.dtype)

    model.requires_grad_(False)
    for layer in model.model.layers:
        for block in (layer.self_attn, layer.mlp):
            for name, linear in list(block.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    setattr(block, name, Adapter(linear))
    return model


def padded(rows: list[Any], at_once: int) -> Iterator[dict[str, Any]]:
    """Rows one under the other, as TRL has them: a batch of `at_once`."""
    import torch

    for start in range(0, len(rows) - at_once + 1, at_once):
        some = rows[start : start + at_once]
        width = max(len(row.prompt) + len(row.answer) for row in some)
        shape = (at_once, width)
        ids, labels, seen = torch.zeros(shape, dtype=torch.long), torch.full(shape, -100), torch.zeros(shape, dtype=torch.long)
        for i, row in enumerate(some):
            n = len(row.prompt) + len(row.answer)
            ids[i, :n] = torch.tensor(row.prompt + row.answer)
            labels[i, len(row.prompt) : n] = torch.tensor(row.answer)
            seen[i, :n] = 1
        yield {"input_ids": ids, "labels": labels, "attention_mask": seen}


def train(folder: Path, *, branches: bool, recompute: bool) -> dict[str, Any]:
    """Some steps of AdamW on the adapters, after one that does not count."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from leap.models.chat import ChatTokens
    from leap.training.branches import ATTENTION, IGNORED, collate, encode_episodes, filled, pack

    chat = ChatTokens(AutoTokenizer.from_pretrained(folder / "student"))
    groups, _ = encode_episodes(rows_of("quickstart"), chat, max_tokens=8000)
    model = AutoModelForCausalLM.from_pretrained(folder / "student", dtype=torch.bfloat16).to(device())
    count = weights(model)
    if recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model = adapted(model).train()
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=1e-4)
    if branches:
        model.set_attn_implementation(ATTENTION)
        batches: Any = [collate(batch) for batch in filled([pack(group) for group in groups], BATCH_TOKENS)]
    else:
        rows = [row for group in groups for row in group]
        batches = padded(rows, max(1, BATCH_TOKENS // max(len(row.prompt) + len(row.answer) for row in rows)))
    tokens = answers = 0
    began = 0.0
    for step, batch in zip(range(STEPS + 1), batches, strict=False):
        if step == 1:
            began, tokens, answers = settled(), 0, 0
        batch = {name: value.to(device()) if name != "layout" else value for name, value in batch.items()}
        labels = batch.pop("labels")
        if branches:
            batch["layout"] = batch["layout"].placed(device(), torch.bfloat16)
        with torch.autocast(device().type, dtype=torch.bfloat16):
            before = (labels[:, 1:] != IGNORED).any(0).nonzero().squeeze(1)
            logits = model(**batch, logits_to_keep=before, use_cache=False).logits
        wanted = labels[:, before + 1].flatten()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), wanted, ignore_index=IGNORED).backward()
        optimizer.step()
        optimizer.zero_grad()
        tokens += int(batch.get("attention_mask", batch["input_ids"]).ne(0).sum()) if not branches else labels.numel()
        answers += int((labels != IGNORED).sum())
    seconds = settled() - began
    return {
        **speed(folder, tokens=tokens, operations=4 * count, seconds=seconds),
        "answer_tokens_per_second": round(answers / seconds, 1),
        "adapters": "PEFT" if find_spec("peft") else "plain ones, PEFT is not installed",
    }


def part_branches(folder: Path) -> dict[str, Any]:
    """LoRA by trunk and branches."""
    return train(folder, branches=True, recompute=False)


def part_branches_recomputed(folder: Path) -> dict[str, Any]:
    """The same with activations recomputed."""
    return train(folder, branches=True, recompute=True)


def part_rows_recomputed(folder: Path) -> dict[str, Any]:
    """The same episodes as padded rows, in the same loop."""
    return train(folder, branches=False, recompute=True)


def part_trl(folder: Path) -> dict[str, Any]:
    """The same episodes as rows, by TRL's trainer as leap uses it."""
    if missing := [name for name in ("trl", "peft", "accelerate", "datasets") if find_spec(name) is None]:
        return {"left_out": f"not installed: {', '.join(missing)}"}
    from leap.training.config import LoraConfig

    lora = LoraConfig(rank=RANK, alpha=RANK, dropout=0.0)
    return trained(folder, folder / "student", rows_of("quickstart"), 4, lora=lora, bf16=True, gradient_checkpointing=True,
                   batch_rows=8, device_rows=8)  # fmt: skip


def trained(folder: Path, start: Path, rows: list[Any], per_weight: int, **settings: Any) -> dict[str, Any]:
    """Some steps of leap's own training."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from leap.training.config import SFTConfig
    from leap.training.method import Job
    from leap.training.sft import train_sft

    with torch.device("meta"):
        count = weights(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(start)))
    clock: list[float] = []
    job = Job(0, str(start), folder / "trained", folder / "work", 0, lambda done, total, loss: clock.append(settled()))
    done = train_sft(SFTConfig(steps=STEPS + 1, **settings), rows, job)
    shutil.rmtree(folder / "trained")
    share, seconds = STEPS / (STEPS + 1), clock[-1] - clock[0]
    figures = speed(folder, tokens=done.tokens * share, operations=per_weight * count, seconds=seconds)
    return {**figures, "answer_tokens_per_second": round(done.answer_tokens * share / seconds, 1)}


def part_scratch(folder: Path) -> dict[str, Any]:
    """`alfworld-scratch` with the larger student: a few steps of its training, and its rollouts."""
    from leap.models.scratch import ScratchConfig, build_scratch

    rows = rows_of("alfworld-scratch")
    shape = {"layers": 2, "width": 64, "heads": 4, "mlp": 128} if TINY else {"layers": 8, "width": 512, "heads": 16, "mlp": 1536}
    environment, _ = world("alfworld-scratch")
    texts = [text for row in rows for text in row.texts()]
    build_scratch(ScratchConfig.model_validate(shape), [*texts, *environment.vocabulary()], folder / "scratch", seed=0)
    rollouts = in_process(folder, folder / "scratch", "alfworld-scratch")
    if missing := [name for name in ("trl", "accelerate", "datasets") if find_spec(name) is None]:
        return {"rollouts": rollouts, "training": {"left_out": f"not installed: {', '.join(missing)}"}}
    gc.collect()
    settings: dict[str, Any] = {"branches": True, "optimizer": "muon", "lr": 0.003, "muon_lr": 0.012, "max_grad_norm": 1.0}
    training = trained(folder, folder / "scratch", rows, 6, batch_tokens=3000 if TINY else 24000, bf16=True, **settings)
    return {"rollouts": rollouts, "training": training}


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    name: globals()[f"part_{name.replace(' ', '_')}"] for name in LIMITS
}


def machine() -> dict[str, Any]:
    import torch

    card = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    versions = {name: sys.modules[name].__version__ for name in ("torch",)}
    return {
        "device": f"{card.name}, {card.total_memory / 1e9:.0f} GB" if card else platform.processor() or platform.machine(),
        "platform": platform.platform(),
        **versions,
        "installed": [name for name in ("transformers", "peft", "trl", "accelerate", "vllm") if find_spec(name)],
        "size": "tiny" if TINY else "8B-shaped",
    }


def run(name: str, folder: Path, most: float) -> dict[str, Any]:
    """A part in a process of its own, and what became of it."""
    command = [sys.executable, __file__, "--part", name, "--folder", str(folder), *(["--tiny"] if TINY else [])]
    began = time.perf_counter()
    with (folder / "part.log").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            process.wait(max(1, most))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # its server too
            process.wait()
            return {"failed": f"not done after {most:.0f} s"}
        output.seek(0)
        lines = output.read().splitlines()
    told = next((line for line in reversed(lines) if line.startswith('{"result"')), None)
    if process.returncode or told is None:
        return {"failed": next((line for line in reversed(lines) if line.strip()), f"ended with {process.returncode}")[:400]}
    return {**json.loads(told)["result"], "whole_part_seconds": round(time.perf_counter() - began, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", action="append", choices=list(LIMITS), help="these parts, after the first two")
    parser.add_argument("--part", choices=list(LIMITS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps({"result": PARTS[given.part](given.folder)}), flush=True)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    began, results = time.perf_counter(), {"machine": machine()}
    with tempfile.TemporaryDirectory() as scratch, (given.out / "gpu.log").open("w", encoding="utf-8") as log:
        folder = Path(scratch)
        for name in ["machine", *(n for n in LIMITS if not given.only or n in (*list(LIMITS)[:2], *given.only))]:
            left = WHOLE - (time.perf_counter() - began)
            if name != "machine":
                limit = 10 * LIMITS[name] if TINY else min(LIMITS[name], left)  # at toy size the machine may be a slow one
                results[name] = run(name, folder, limit) if limit > 5 else {"failed": "no time was left"}
            line = f"{name}: {json.dumps(results[name])}"
            print(line, flush=True)
            print(line, file=log, flush=True)
            (given.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
