"""Tokens per second of a student through leap against one prompt at a time, as the reference implementation does it.

    python benchmarks/generation.py [--episodes 16] [--steps 8] [--answer 24] [--alone 2] [--trained-alone 4]

Same random weights, same prompts (growing dialogues of invented games), same machine, one run. Generation: leap answers all
episodes in one batch and keeps each one's prefix from step to step; the other way is `model.generate` on each whole prompt
by itself. Training: one epoch over the same rows, by trunk and branches, and over some of them as rows, one at a time; from
the first step to the last, so without loading and saving. On a GPU the model has the shape of an 8B Llama (bfloat16, LoRA),
rates are by the clock and the share of the device's peak is printed; on a CPU the model is a small one and rates are by CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from leap.core import Decision, History, Observation, Task
from leap.datasets import Row
from leap.envs.answer import format_answer
from leap.models.base import Request, Sampling
from leap.models.hf import HFModel
from leap.models.scratch import ScratchConfig, build_scratch
from leap.policies.rendering import PromptConfig, Renderer
from leap.training.config import LoraConfig, SFTConfig
from leap.training.distributed import train
from leap.training.method import Job
from leap.training.methods import SFT

SMALL = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4}
LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 operations a second, from the makers' data sheets."""
PLACES = [f"{kind} {n}" for kind in ("cabinet", "drawer", "shelf", "countertop") for n in range(1, 9)]


def histories(episodes: int, steps: int) -> list[list[History]]:
    """Histories h_0..h_{steps-1} of invented episodes."""
    draw, found = random.Random(0), []
    for k in range(episodes):
        task = Task(env="none", split="train", id=str(k), instruction=f"put a clean mug in {draw.choice(PLACES)}.")
        first = "You are in a room. You see " + ", ".join(f"a {place}" for place in PLACES)
        history, grown = History(task=task, observations=(Observation(text=first),)), []
        for _ in range(steps):
            grown.append(history)
            place = draw.choice(PLACES)
            seen = f"You arrive at {place}. On the {place}, you see " + ", ".join(
                f"a {thing} {draw.randint(1, 3)}" for thing in draw.sample(["mug", "pan", "fork", "apple", "book", "plate"], 4)
            )
            history = history.extend(f"go to {place}", Observation(text=seen))
        found.append(grown)
    return found


def make(folder: Path, texts: list[str], shape: dict[str, int], dtype: Any) -> int:
    """A checkpoint of random weights; returns its number of parameters."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    build_scratch(ScratchConfig(width=16, layers=1, heads=2, mlp=16), texts, folder, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    values: dict[str, Any] = {"vocab_size": len(tokenizer), "max_position_embeddings": 8192} | shape
    config = LlamaConfig(**values)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model: Any = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def seconds(work: Any) -> tuple[float, float, Any]:
    """Wall-clock and CPU seconds of a piece of work, and its result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--answer", type=int, default=24, help="tokens of each answer")
    parser.add_argument("--alone", type=int, default=2, help="episodes that are also answered one prompt at a time")
    parser.add_argument("--trained-alone", type=int, default=4, help="episodes that are also trained on one row at a time")
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name(0) if gpu else f"CPU, {torch.get_num_threads()} thread(s), load {os.getloadavg()[0]:.1f}"
    print(f"{platform.platform()}, torch {version('torch')}, transformers {version('transformers')}; {device}")
    peak = next((peak for name, peak in PEAK.items() if gpu and name in device), None)
    dtype = torch.bfloat16 if gpu else torch.float32
    renderer = Renderer(PromptConfig(renderer="dialogue", candidates=False))
    grown = histories(arguments.episodes, arguments.steps)
    rows = [
        Row(
            prompt=renderer.render(history),
            completion=[
                {"role": "assistant", "content": format_answer(Decision(reason="I look there.", action=f"go to {PLACES[t]}"))}
            ],
            episode=str(k),
            t=t,
            source="demonstration",
            iteration=0,
        )
        for k, episode in enumerate(grown)
        for t, history in enumerate(episode)
    ]

    def told(what: str, tokens: int, wall: float, cpu: float, per_token: float) -> float:
        rate = tokens / (wall if gpu else cpu)
        share = f", {per_token * rate / peak:.1%} of the device's peak" if peak else ""
        print(f"  {what}: {tokens:,} tokens, {wall:.1f} s wall, {cpu:.1f} s CPU: {rate:,.0f} a second{share}", flush=True)
        return rate

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        texts = [message["content"] for row in rows for message in (*row.prompt, *row.completion)]
        parameters = make(folder, texts, LLAMA_8B if gpu else SMALL, dtype)
        print(f"{parameters / 1e6:,.1f} M parameters; {arguments.episodes} episodes of {arguments.steps} steps, random weights")
        sampling = Sampling(temperature=1.0, max_tokens=arguments.answer)
        model = HFModel(str(folder), sampling, batch=arguments.episodes)
        words = len(model.chat.tokenizer)
        decode = model.chat.decode
        model.chat.decode = lambda ids: decode([i for i in ids if i < words])  # the vocabulary is larger than its words

        async def play() -> tuple[int, int]:
            async def one(episode: list[History]) -> tuple[int, int]:
                async with model.conversation() as conversation:
                    done = [await conversation.complete(Request(renderer.render(h), seed=t)) for t, h in enumerate(episode)]
                return sum(c.completion_tokens for c in done), sum(c.prompt_tokens for c in done)

            each = await asyncio.gather(*(one(episode) for episode in grown))
            return sum(a for a, _ in each), sum(b for _, b in each)

        def alone() -> int:
            generated = 0
            for episode in grown[: arguments.alone]:
                for history in episode:
                    ids = torch.tensor([model.chat.prompt(renderer.render(history))], device=model._device)
                    mask, n = torch.ones_like(ids), arguments.answer
                    drawn: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "pad_token_id": 0}
                    out = model.network.generate(ids, attention_mask=mask, max_new_tokens=n, min_new_tokens=n, **drawn)
                    generated += out.shape[1] - ids.shape[1]
            return generated

        print("generated tokens")
        asyncio.run(play())  # warm up
        wall, cpu, (generated, _) = seconds(lambda: asyncio.run(play()))
        ours = told("leap, all episodes at once", generated, wall, cpu, 2 * parameters)
        wall, cpu, generated = seconds(alone)
        theirs = told("model.generate, one prompt at a time", generated, wall, cpu, 2 * parameters)
        print(f"  ratio {ours / theirs:.1f}")
        model.close()

        print("trained tokens (of the rows, prompts included, whatever way they are computed)")
        lora = LoraConfig(rank=16, alpha=16) if gpu else None
        common: dict[str, Any] = {"lora": lora, "bf16": gpu, "gradient_checkpointing": gpu, "warmup_steps": 0}
        ways = {
            "rows, one at a time": SFTConfig(**common, batch_rows=1, device_rows=1),
            "trunk and branches": SFTConfig(**common, branches=True, batch_tokens=4096),
        }
        chat = model.chat
        whole = sum(len(chat.prompt(row.prompt)) + len(chat.answer(row.completion[0]["content"])) for row in rows) / len(rows)
        rates = {}
        for what, config in ways.items():
            some = rows if config.branches else rows[: arguments.trained_alone * arguments.steps]
            marks: list[tuple[float, float]] = []

            def step(done: int, total: int, loss: float, marks: list[tuple[float, float]] = marks) -> None:
                if gpu:
                    torch.cuda.synchronize()
                marks.append((time.perf_counter(), time.process_time()))

            out, work = Path(name) / what / "out", Path(name) / what / "work"
            result = train(SFT(config), some, Job(0, str(folder), out, work, seed=0, on_step=step))
            after_first = (len(marks) - 1) / len(marks)
            wall, cpu = marks[-1][0] - marks[0][0], marks[-1][1] - marks[0][1]
            rates[what] = told(what, round(whole * len(some) * after_first), wall, cpu, 6 * parameters)
            print(f"    computed {round(result.tokens * after_first):,} tokens in {len(marks) - 1} steps")
        print(f"  ratio {rates['trunk and branches'] / rates['rows, one at a time']:.1f}")


if __name__ == "__main__":
    main()
