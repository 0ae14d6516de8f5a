"""What else could generate for a pretrained student on a CPU, on the same work: transformers one prompt
at a time and its continuous batching, vLLM, llama.cpp.

    pip install --target ELSEWHERE --no-deps xllamacpp gguf
    python benchmarks/engines_llm.py CHECKPOINT [--gguf FILE.gguf ...] [--path ELSEWHERE] [--vllm PYTHON]

PYTHON is that of an environment with vLLM (see `vllm_cpu.py`).

The first prompts of games of the quickstart's world, all at once, the likeliest tokens, so many for each, nothing constrained.
One thread, seconds of CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent.parent


def prompts(games: int) -> list[list[Any]]:
    """What a student is asked first in each game."""
    from leap.core import History
    from leap.policies.rendering import PromptConfig, Renderer
    from leap_worlds.alfworld.env import AlfworldConfig, AlfworldEnvironment

    recipe = yaml.safe_load((HERE / "src/leap/recipes/quickstart.yaml").read_text(encoding="utf-8"))
    environment = AlfworldEnvironment(AlfworldConfig.model_validate(recipe["environment"]["options"]))
    environment.prepare()
    renderer = Renderer(PromptConfig.model_validate(recipe["student"]["prompt"]), environment.prompts_of)

    found = []
    for task in environment.tasks("valid", limit=games):
        session = environment.start(task)
        found.append(renderer.render(History(task=task, observations=(session.observe(),))))
        session.close()
    return found


def tokens(given: argparse.Namespace, asked: list[list[Any]]) -> list[list[int]]:
    """The prompts as the student's token ids."""
    from transformers import AutoTokenizer

    from leap.models.chat import ChatTokens

    chat = ChatTokens(AutoTokenizer.from_pretrained(given.checkpoint))
    return [chat.prompt(one) for one in asked]


def leap(given: argparse.Namespace, asked: list[list[Any]], ids: list[list[int]]) -> Callable[[], list[int]]:
    """leap's own generator."""
    from leap.models.base import Request, Sampling
    from leap.models.hf import HFModel

    model = HFModel(given.checkpoint, Sampling(temperature=0, max_tokens=given.answer), batch=len(asked))
    model.chat.ends = []

    async def one(messages: list[Any]) -> int:
        async with model.conversation() as conversation:
            return (await conversation.complete(Request(messages))).completion_tokens

    async def all_of_them() -> list[int]:
        return list(await asyncio.gather(*map(one, asked)))

    return lambda: asyncio.run(all_of_them())


def transformers(given: argparse.Namespace, asked: list[list[Any]], ids: list[list[int]]) -> Callable[[], list[int]]:
    """transformers' generate_batch."""
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    model: Any = AutoModelForCausalLM.from_pretrained(given.checkpoint, dtype="auto")
    config = GenerationConfig(max_new_tokens=given.answer, do_sample=False, eos_token_id=-1, pad_token_id=0)
    # By itself it takes most of the memory that is free for its cache, and on a CPU more than there is.
    small = ContinuousBatchingConfig(num_blocks=256, max_batch_tokens=512)
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))

    def all_of_them() -> list[int]:
        found = model.generate_batch(ids, generation_config=config, continuous_batching_config=small)
        return [len(one.generated_tokens) for one in found.values()]

    return all_of_them


def one_by_one(given: argparse.Namespace, asked: list[list[Any]], ids: list[list[int]]) -> Callable[[], list[int]]:
    """transformers' generate, one prompt at a time: the way of the paper's released code."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(given.checkpoint, dtype="auto")

    def all_of_them() -> list[int]:
        found, n = [], given.answer
        for prompt in ids:
            one = torch.tensor([prompt])
            drawn: dict[str, Any] = {"max_new_tokens": n, "min_new_tokens": n, "do_sample": False, "pad_token_id": 0}
            found.append(model.generate(one, attention_mask=torch.ones_like(one), **drawn).shape[1] - len(prompt))
        return found

    return all_of_them


def vllm(given: argparse.Namespace, asked: list[list[Any]], ids: list[list[int]]) -> Callable[[], list[int]]:
    """vLLM, in this process."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    import vllm  # pyright: ignore[reportMissingImports]

    model = vllm.LLM(model=given.checkpoint, enforce_eager=True, max_model_len=4096, max_num_seqs=len(ids))
    sampling = vllm.SamplingParams(temperature=0, max_tokens=given.answer, ignore_eos=True)
    asked_for = [{"prompt_token_ids": prompt} for prompt in ids]
    return lambda: [len(one.outputs[0].token_ids) for one in model.generate(asked_for, sampling)]


def llama(given: argparse.Namespace, asked: list[list[Any]], ids: list[list[int]]) -> Callable[[], list[int]]:
    """llama.cpp's server, in this process."""
    import xllamacpp  # pyright: ignore[reportMissingImports]

    params = xllamacpp.CommonParams()
    params.model.path = given.engine
    params.n_parallel, params.n_batch, params.n_ubatch = len(ids), 2048, 512
    params.n_ctx = len(ids) * 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cpuparams.poll = params.cpuparams_batch.poll = 0
    params.warmup = False
    server = xllamacpp.Server(params)

    def one(tokens: list[int]) -> int:
        order = {"prompt": tokens, "max_tokens": given.answer, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        return server.handle_completions(order)["usage"]["completion_tokens"]

    def all_of_them() -> list[int]:
        with ThreadPoolExecutor(len(ids)) as pool:
            return list(pool.map(one, ids))

    return all_of_them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--gguf", nargs="*", default=[], help="files for llama.cpp")
    parser.add_argument("--path", default="", help="folder with xllamacpp")
    parser.add_argument("--games", type=int, default=32)
    parser.add_argument("--answer", type=int, default=24, help="tokens of each answer")
    parser.add_argument("--vllm", help="a Python that has vLLM")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--ids", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.engine is None:
        load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        print(f"{platform.platform()}, {load}, torch {version('torch')}, transformers {version('transformers')}", flush=True)
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), given.path)))
        for engine in ("leap", "generate", "transformers", *given.gguf):
            subprocess.run([sys.executable, *sys.argv, "--engine", engine], env={**os.environ, "PYTHONPATH": path}, check=False)
        if given.vllm:
            with tempfile.TemporaryDirectory() as name:  # that Python has no leap to make prompts with
                file = Path(name) / "ids.json"
                file.write_text(json.dumps(tokens(given, prompts(given.games))), encoding="utf-8")
                subprocess.run([given.vllm, *sys.argv, "--engine", "vllm", "--ids", str(file)], check=False)
        return
    asked = [] if given.ids else prompts(given.games)
    ids = json.loads(given.ids.read_text(encoding="utf-8")) if given.ids else tokens(given, asked)
    engines = {"leap": leap, "generate": one_by_one, "transformers": transformers, "vllm": vllm}
    run = engines.get(given.engine, llama)(given, asked, ids)
    wall, cpu = time.perf_counter(), time.process_time()
    answered = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{Path(given.engine).name}: {sum(map(len, ids))} tokens read and {sum(answered)} written in {cpu:.1f} s of CPU "
        f"({wall:.1f} s wall): {sum(answered) / cpu:.0f} written a CPU second; "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB at most",
        flush=True,
    )


if __name__ == "__main__":
    main()
