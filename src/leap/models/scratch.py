"""The `scratch` student: a small Llama from random initialisation with a tokenizer made from the games' own text.

It is saved as an ordinary checkpoint directory, so that training, rollout and evaluation treat it like any other model.
What makes it learn in CPU minutes: things of the world ("countertop 2") are single tokens, so that copying a name is
copying one token; separators of lists are single tokens too; a larger initialisation than usual for its narrow layers;
and, with `lookback`, heads that look at the token before from the first step on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from leap.config import Section

if TYPE_CHECKING:
    import torch

# Slow rotations leave most of a head's dimensions free of position: what must be found is what a thing is, not where.
_ROPE_THETA = 1e6
_BEFORE = (1, 2, 3)
"""With `lookback`: how many tokens back the first layer's first heads look. Those of further layers: the first of these."""
_SHARPNESS = 24.0
"""Nats that each rotation can add to what such a head sees in a token."""
USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|assistant|>' if message['role'] == 'assistant' else '<|user|>' }}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Things of the world first, then list separators, words (with a marker's colon), line breaks, the rest.
# A thing keeps the space before it, so that it is the same token wherever it is named.
_SEPARATOR = r"(?:,? and|,) an?"
_THING = r" ?[a-z]+ \d+"
_REST = rf"{_SEPARATOR}\b|,? and\b| ?[A-Za-z]+:?|\n+| ?\$?\d+(?:\.\d+)?| ?[^\sA-Za-z\d]|\s"


class ScratchConfig(Section):
    """Size of a scratch student. Part of a recipe, under `student.scratch`."""

    gone: ClassVar[dict[str, object]] = {"init": 0.08}

    layers: int = Field(default=3, ge=1, description="Transformer layers.")
    width: int = Field(default=128, ge=16, description="Hidden size.")
    heads: int = Field(default=8, ge=1, description="Attention heads.")
    mlp: int = Field(default=384, ge=16, description="Width of the feed-forward layers.")
    max_tokens: int = Field(default=4096, ge=256, description="Longest sequence, in tokens.")
    phrases: int = Field(
        default=0,
        ge=0,
        description="At most so many frequent runs of words become single tokens, and a list's entry one token with the "
        "comma before it; 0: each word and each separator is a token.",
    )

    lookback: bool = Field(
        default=False,
        description="Some heads begin by looking at the token before (in the first layer also at the two before that), and "
        "layers begin by adding nothing: what is looked up in the history is learned in fewer steps.",
    )

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % (2 * self.heads):  # positions turn pairs of a head's dimensions
            raise ValueError(f"width {self.width} must be a multiple of twice the heads ({2 * self.heads})")
        if self.lookback and self.heads < len(_BEFORE):
            raise ValueError(f"lookback takes {len(_BEFORE)} heads of the first layer, and there are {self.heads}")
        return self


_NAME = re.compile(rf"(?:{_SEPARATOR})? ?([a-z]+) (\d+)")
_RARE = 30
"""A run of words that occurs less often is no phrase."""


def pieces_pattern(phrases: Sequence[str] = (), names: Sequence[str] = ()) -> str:
    """The regular expression that cuts a text into the pieces that become tokens; joined again they are the text.

    Args:
        phrases: Runs of words that stay whole. With any, a thing also keeps the list separator before it.
        names: What stays whole as well, with the space before it, unless it goes on in a longer word.
    """
    thing = f"(?:{_SEPARATOR})?{_THING}|(?:{_any_of(phrases)})(?![A-Za-z:])" if phrases else _THING
    named = rf" ?(?:{_any_of(names)})(?![A-Za-z\d-])|" if names else ""
    return f"{named}{thing}|{_REST}"


def _any_of(texts: Sequence[str]) -> str:
    """An expression for any of them, the longest first."""
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return "|".join(re.escape(text).replace("\\ ", " ").replace("\\-", "-") for text in longest_first)


def find_phrases(texts: Counter[str], limit: int) -> list[str]:
    """The runs of words that are worth a token of their own: byte-pair encoding with words for bytes.

    Kinds and names of things are never part of a phrase, for they are what must be looked up and copied; neither are
    markers and line breaks, at which answers are taken apart.

    Args:
        texts: How often each text occurs.
        limit: Most phrases to find.
    """
    kinds = {match.group(1) for text in texts for match in _NAME.finditer(text)}
    runs: Counter[tuple[str, ...]] = Counter()
    for text, count in texts.items():
        run: tuple[str, ...] = ()
        for piece in (*re.findall(pieces_pattern(), text), "\n"):
            if piece.strip() in kinds or re.search(r"[\d:\n]", piece):
                runs[run] += count
                run = ()
            else:
                run += (piece,)
    found: list[str] = []
    while len(found) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for run, count in runs.items():
            for pair in pairwise(run):
                pairs[pair] += count
        best = max(pairs, key=lambda pair: (pairs[pair], pair), default=None)
        if best is None or pairs[best] < _RARE:
            break
        found.append("".join(best))
        merged: Counter[tuple[str, ...]] = Counter()
        for run, count in runs.items():
            merged[_merge(run, best)] += count
        runs = merged
    return found


def _merge(run: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """The run with each occurrence of a pair as one."""
    merged: list[str] = []
    for piece in run:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)


def build_scratch(
    config: ScratchConfig, texts: Iterable[str], directory: Path, *, seed: int, names: Sequence[str] = (), std: float = 0.08
) -> None:
    """Makes a tokenizer from texts and a randomly initialised model, and saves both as a checkpoint directory.

    Args:
        config: Sizes.
        texts: Everything whose words should be single tokens; other words fall back to bytes.
        directory: Where to save; made if missing.
        seed: Seed of the initial weights.
        names: Names of several words that should be single tokens too.
        std: Standard deviation of the initial weights.
    """
    import torch
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # leap shows its own
    occurring = Counter(texts)
    pattern = pieces_pattern(find_phrases(occurring, config.phrases) if config.phrases else (), names)
    counts: Counter[str] = Counter()
    for text, times in occurring.items():
        for piece in re.findall(pattern, text):
            counts[piece] += times
    pieces = sorted(counts, key=lambda piece: (-counts[piece], piece))
    specials = [PAD, USER, ASSISTANT, END]
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    vocabulary = [(token, 0.0) for token in specials] + [(token, -20.0) for token in bytes_]
    vocabulary += [(piece, -1.0) for piece in pieces if piece not in specials]
    core = Tokenizer(models.Unigram(vocabulary, unk_id=4, byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=END, clean_up_tokenization_spaces=False)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = config.max_tokens

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.mlp,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            rope_parameters={"rope_type": "default", "rope_theta": _ROPE_THETA},
            max_position_embeddings=config.max_tokens,
            initializer_range=std,
            tie_word_embeddings=True,
            attention_bias=config.lookback,
            bos_token_id=None,
            eos_token_id=specials.index(END),
            pad_token_id=specials.index(PAD),
        )
    )
    _compose_names(model.model.embed_tokens.weight, tokenizer.get_vocab(), std)
    if config.lookback:
        _look_back(model)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _look_back(model: Any) -> None:
    """Has a Llama's heads begin by attending to the token a fixed number of places before, and its layers by adding nothing.

    To look something up ("where was the mug seen?") a transformer must know of each token what stood before it, and learns that
    slowly (induction heads, Olsson et al., arXiv 2209.11895). A head whose queries and keys are constants attends by distance
    alone: rotary positions turn both, and constants that are turned apart by so many places from the start agree most at that
    distance. They are biases, which Llama has room for; all weights stay free to be trained.
    """
    import torch

    for number, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        size = attention.head_dim
        speeds = _ROPE_THETA ** (-torch.arange(0, size, 2) / size)  # radians a place
        length = (_SHARPNESS * size**0.5) ** 0.5  # scores are divided by the root of the size
        with torch.no_grad():
            for head, before in enumerate(_BEFORE if number == 0 else _BEFORE[:1]):
                rows, angle = slice(head * size, (head + 1) * size), -before * speeds
                for projection, turned in ((attention.q_proj, angle), (attention.k_proj, 0 * angle)):
                    projection.weight[rows] = 0
                    projection.bias[rows] = torch.cat([length * turned.cos(), length * turned.sin()])
            attention.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()


def _compose_names(embedding: torch.Tensor, vocabulary: dict[str, int], std: float) -> None:
    """Starts each thing's embedding as its kind's plus its number's, the kind's word as the kind's alone, and a word without
    a space before it as the word with one plus the same for all.

    The weights stay free and random; but from the first step on "mug 3" is near "mug" and near "mug 1", as it would be
    if names were two tokens, at the length of one. What it is worth: benchmarks/scratch_student.md.
    """
    import torch

    parts: dict[str, torch.Tensor] = {}

    def part(name: str) -> torch.Tensor:
        if name not in parts:
            parts[name] = torch.randn(embedding.shape[1]) * std
        return parts[name]

    names = {token: _NAME.fullmatch(token) for token in sorted(vocabulary)}
    with torch.no_grad():
        for token, match in names.items():
            if match:
                embedding[vocabulary[token]] = (part(match.group(1)) + part(match.group(2))) / 2**0.5
        for token, index in sorted(vocabulary.items()):
            if token.strip() in parts and not token.strip().isdigit():
                embedding[index] = parts[token.strip()]
        # A folder's name is the same name in a path: " plans" is found by " /depot/plans".
        for token, index in sorted(vocabulary.items()):
            if token.startswith(" /") and (bare := vocabulary.get(f" {token[2:]}")) is not None:
                embedding[index] = (embedding[bare] + part("a slash before")) / 2**0.5
        # A word is the same word where a bracket or a line begins with it: " red" is found by "click[red]".
        for token, index in sorted(vocabulary.items()):
            begins = token[:1].islower() or token[:1].isdigit() or token[:1] == "/"
            if begins and (spaced := vocabulary.get(f" {token}")) is not None:
                embedding[index] = (embedding[spaced] + part("no space before")) / 2**0.5
