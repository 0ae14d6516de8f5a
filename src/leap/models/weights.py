"""Weights as transformers loads them: those of the architecture, or a line that says which are not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from leap.errors import PrerequisiteError


def load_weights(base: str, name: str = "", **how: Any) -> Any:
    """Loads a model from a checkpoint directory or a hub name. Remote code is never run and only safetensors are read.

    Args:
        base: Directory or name, of no adapter.
        name: What to call it in messages, if otherwise.
        **how: Further arguments of transformers' `from_pretrained`.

    Raises:
        PrerequisiteError: The weights are not those of the architecture that its configuration names.
    """
    from transformers import AutoModelForCausalLM

    given = {"use_safetensors": True, "trust_remote_code": False, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with quiet():  # what does not fit is told here, in one line
        loaded: Any = AutoModelForCausalLM.from_pretrained(base, **given, **how)
    model, found = loaded
    if missing := found["missing_keys"]:  # transformers would draw them
        raise PrerequisiteError(f"{name or base} lacks {len(missing)} weights of its architecture, such as {min(missing)}.")
    if other := found["mismatched_keys"]:
        one, there, wanted = min(other)
        raise PrerequisiteError(
            f"{len(other)} weights of {name or base} have other shapes than its configuration says, such as {one}: "
            f"{list(there)}, not {list(wanted)}."
        )
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Has transformers print no warnings, and no progress from now on: leap shows its own."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
