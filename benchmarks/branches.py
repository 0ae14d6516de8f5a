"""Trunk and branches against separate rows: tokens, and seconds of one pass forwards and backwards.

    python benchmarks/branches.py [--episodes 60]

The unprivileged expert's episodes of at least 15 steps in generated full rooms, all task types, dialogue renderer, with and
without a candidate list in the prompt; a scratch student of the default size; the same rows both ways, in one run.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch

from leap.core import Episode
from leap.datasets import Row, demonstration_rows
from leap.models.chat import ChatTokens
from leap.models.checkpoints import load_causal_lm
from leap.models.scratch import ScratchConfig, build_scratch
from leap.policies.base import ExpertPolicy
from leap.policies.rendering import PromptConfig, Renderer
from leap.rollouts import Play, rollout
from leap.training.branches import ATTENTION, IGNORED, collate, encode_rows, pack
from leap_worlds.alfworld.env import AlfworldConfig, AlfworldEnvironment
from leap_worlds.alfworld.generator import GeneratorConfig

TIMED = 6
"""Episodes timed; all are counted."""


def episodes_of(environment: AlfworldEnvironment, wanted: int) -> list[Episode]:
    """Expert episodes of at least 15 steps."""
    found: list[Episode] = []
    rollout(environment, ExpertPolicy(environment), Play(environment.tasks("train"), 30, 0, "benchmark"), found.append)
    return sorted((one for one in found if len(one.steps) >= 15), key=lambda episode: episode.task.id)[:wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=60)
    wanted = parser.parse_args().episodes
    environment = AlfworldEnvironment(AlfworldConfig(generator=GeneratorConfig(games={"train": 600})))
    environment.prepare()
    episodes = episodes_of(environment, wanted)
    steps = sum(len(episode.steps) for episode in episodes) / len(episodes)
    print(f"{platform.platform()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{len(episodes)} episodes of 15 steps or more, {steps:.1f} on average")
    for candidates in (False, True):
        config = PromptConfig(renderer="dialogue", instructions=False, candidates=candidates)
        renderer = Renderer(config, environment.prompts_of)
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in demonstration_rows(episodes, renderer):
            groups[row.episode].append(row)
        texts = [m["content"] for rows in groups.values() for m in (*rows[-1].prompt, *rows[-1].completion)]
        with tempfile.TemporaryDirectory() as folder:
            build_scratch(ScratchConfig(), [*texts, *environment.vocabulary()], Path(folder), seed=0)
            model, tokenizer = load_causal_lm(folder)
        chat = ChatTokens(tokenizer)
        encoded = [encode_rows(rows, chat, max_tokens=8000)[0] for rows in groups.values()]
        packed = [pack(rows) for rows in encoded]
        separate = sum(len(row.prompt) + len(row.answer) for rows in encoded for row in rows)
        together = sum(len(episode.ids) for episode in packed)

        began = time.process_time()
        for rows in encoded[:TIMED]:
            for row in rows:
                ids = torch.tensor([row.prompt + row.answer])
                labels = torch.tensor([[IGNORED] * len(row.prompt) + row.answer])
                model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        apart = time.process_time() - began

        model.set_attn_implementation(ATTENTION)
        began = time.process_time()
        for episode in packed[:TIMED]:
            batch = collate([episode])
            labels = batch["labels"][0]
            before = (labels[1:] != IGNORED).nonzero().squeeze(1)
            layout = batch["layout"].placed(torch.device("cpu"), torch.float32)
            output = model(
                input_ids=batch["input_ids"],
                position_ids=batch["position_ids"],
                layout=layout,
                logits_to_keep=before,
                use_cache=False,
            )
            torch.nn.functional.cross_entropy(output.logits[0], labels[before + 1]).backward()
        once = time.process_time() - began
        print(
            f"candidate list in the prompt: {'yes' if candidates else 'no'}; tokens an episode: {separate / len(packed):.0f} as "
            f"rows, {together / len(packed):.0f} as trunk and branches, {separate / together:.1f} times fewer; CPU seconds for "
            f"{TIMED} episodes: {apart:.2f} and {once:.2f}, {apart / once:.1f} times less"
        )


if __name__ == "__main__":
    main()
