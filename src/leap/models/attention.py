"""How far back each layer of a model sees, as its configuration tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from leap.errors import PrerequisiteError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
REACH = {SLIDING: "sliding_window", CHUNKED: "attention_chunk_size"}
"""Of the kinds of layers that do not see everything: the key of the configuration that says how far they see."""
_WHOLE = {FULL, "attention", "global", "full"}  # as older configurations call it


def layer_kinds(config: PretrainedConfig) -> list[str]:
    """The kind of each layer, in the words of transformers' `layer_types`."""
    config = config.get_text_config()
    for key in ("layer_types", "layers_block_type", "attention_layers"):
        if kinds := getattr(config, key, None):
            return [FULL if kind in _WHOLE else kind for kind in kinds]
    reaching = (kind for kind, key in REACH.items() if getattr(config, key, None))
    return [next(reaching, FULL)] * (getattr(config, "num_hidden_layers", None) or 1)


def reaches(config: PretrainedConfig) -> dict[str, int]:
    """How many tokens each kind of layer sees that does not see all."""
    config = config.get_text_config()
    return {kind: getattr(config, REACH[kind]) for kind in set(layer_kinds(config)) if kind in REACH}


def check_kinds(config: PretrainedConfig, name: str) -> None:
    """Looks for layers that look back in a way that is not known here.

    Raises:
        PrerequisiteError: There is one; the message names it.
    """
    for number, kind in enumerate(layer_kinds(config)):
        if kind != FULL and kind not in REACH:
            raise PrerequisiteError(refusal(name, f"layer {number} is of the kind {kind!r}"))
    if getattr(config.get_text_config(), "attn_temperature_tuning", False):  # by the cache's length, not by position
        raise PrerequisiteError(refusal(name, "its layers scale attention by length (attn_temperature_tuning)"))


def refusal(name: str, why: str) -> str:
    """What to say of a model that cannot answer here."""
    return f"{name} cannot generate in this process: {why}. Choose another model (vllm/ can serve one that is not trained)."


@contextmanager
def short_windows(config: PretrainedConfig, most: int) -> Iterator[None]:
    """While it lasts, no layer that does not see everything sees more than so many tokens: masks are made from the
    configuration at each forward, so that a short text shows whether windows are right."""
    config = config.get_text_config()
    before = {REACH[kind]: reach for kind, reach in reaches(config).items()}
    try:
        for key, reach in before.items():
            setattr(config, key, min(reach, most))
        yield
    finally:
        for key, reach in before.items():
            setattr(config, key, reach)
