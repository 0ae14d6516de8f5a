"""Constrained decoding by `leap.models.constraint`, llguidance and xgrammar: what a step and a token cost on one core.

    pip install llguidance xgrammar
    python benchmarks/constraint_libraries.py --vocabulary 32000

A free reason, the marker, then one of 30 actions or `search[<words>]`; the actions are others at each step, as in a household.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from leap.models.base import Sampling
from leap.models.chat import ChatTokens
from leap.models.constraint import ActionConstraint, ActionGrammar
from leap.testing.checkpoints import CHATML, TEXTS

SAMPLING = Sampling(max_tokens=96, max_reason_tokens=64)
STEPS = 60
PLACES = [f"{kind} {n}" for kind in ("cabinet", "drawer", "shelf", "countertop", "desk", "bed") for n in range(1, 12)]


def big_tokenizer(size: int) -> Any:
    """A byte-level BPE tokenizer of so many tokens, of made-up words."""
    rng = random.Random(0)
    syllables = [a + b for a in "bcdfghklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(2 * size)]
    texts = [" ".join(rng.choices(words, k=12)) + ".\n" for _ in range(size)] + TEXTS * 50
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=special[0], additional_special_tokens=special)
    tokenizer.chat_template = CHATML
    return tokenizer


def ours(chat: ChatTokens) -> Callable[[tuple[str, ...]], Callable[[int], bool]]:
    grammar = ActionGrammar(chat)

    def start(choices: tuple[str, ...]) -> Callable[[int], bool]:
        constraint = ActionConstraint(grammar, choices, SAMPLING)

        def take(token: int) -> bool:
            allowed = constraint.allowed()
            good = token in allowed if allowed is not None else token not in constraint.forbidden()
            constraint.advance(token)
            return good

        return take

    return start


def llguidance_(chat: ChatTokens) -> Callable[[tuple[str, ...]], Callable[[int], bool]]:
    import llguidance.hf
    import llguidance.numpy as masks
    from llguidance import LLMatcher

    size = len(chat.tokenizer)
    tokens = llguidance.hf.from_tokenizer(chat.tokenizer, n_vocab=size, eos_token=chat.end_of_turn)
    mask = masks.allocate_token_bitmask(1, size)

    def start(choices: tuple[str, ...]) -> Callable[[int], bool]:
        listed = " | ".join(json.dumps(f" {choice}") for choice in choices)
        rules = (
            "start: reason action\nreason[lazy,max_tokens=64]: /(?s:.*)\\n *[Aa][Cc][Tt][Ii][Oo][Nn]:/\n"
            f'action: {listed} | " search[" /[^\\n\\[\\]<>]*[^\\n\\[\\]<> ]/ "]"\n'
        )
        matcher = LLMatcher(tokens, LLMatcher.grammar_from_lark(rules))

        def take(token: int) -> bool:
            masks.fill_next_token_bitmask(matcher, mask, 0)
            good = bool(mask[0, token // 32] >> token % 32 & 1)
            matcher.consume_token(token)
            return good

        return take

    return start


def xgrammar_(chat: ChatTokens) -> Callable[[tuple[str, ...]], Callable[[int], bool]]:
    import xgrammar

    size = len(chat.tokenizer)
    info = xgrammar.TokenizerInfo.from_huggingface(chat.tokenizer, vocab_size=size, stop_token_ids=[chat.end_of_turn])
    compiler = xgrammar.GrammarCompiler(info, max_threads=1)
    mask = xgrammar.allocate_token_bitmask(1, size)

    def start(choices: tuple[str, ...]) -> Callable[[int], bool]:
        listed = " | ".join(json.dumps(f" {choice}") for choice in choices)
        rules = (
            'root ::= reason "\\nACTION:" action\nreason ::= [^\\n]*\n'  # it counts no tokens
            f'action ::= {listed} | " search[" [^\\n\\[\\]<>]+ "]"\n'
        )
        matcher = xgrammar.GrammarMatcher(compiler.compile_grammar(rules))

        def take(token: int) -> bool:
            matcher.fill_next_token_bitmask(mask)
            return matcher.accept_token(token)

        return take

    return start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    chat = ChatTokens(big_tokenizer(parser.parse_args().vocabulary))
    torch.set_num_threads(1)
    print(f"{len(chat.tokenizer):,} tokens, {STEPS} steps, numpy {np.__version__}")
    reason = chat.text("REASON: a mug is often found in a cabinet so look there now please and then go on with it")[:40]
    for name, prepare in (("leap", ours), ("llguidance", llguidance_), ("xgrammar", xgrammar_)):
        began = time.perf_counter()
        start = prepare(chat)
        once = time.perf_counter() - began
        steps, tokens, refused = [], [], 0
        for step in range(STEPS):
            drawn = random.Random(step).sample(PLACES, 28)
            choices = ("look", "inventory", *(f"go to {place}" for place in drawn))
            answer = [*reason, *chat.text("\nACTION:"), *chat.text(f" {choices[5]}"), chat.end_of_turn]
            began = time.perf_counter()
            take = start(choices)
            steps.append(time.perf_counter() - began)
            for token in answer:
                began = time.perf_counter()
                refused += not take(token)
                tokens.append(time.perf_counter() - began)
        print(
            f"{name:>10}: once {once:.2f} s, a step {1e3 * statistics.median(steps):.2f} ms, "
            f"a token {1e6 * statistics.mean(tokens):.0f} us, refused {refused}"
        )


if __name__ == "__main__":
    main()
