"""What the layers of a network give, to see whether it answers from a cache as it does without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from leap.models.attention import FULL, layer_kinds

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Watch:
    """Notes what each layer of a network gives, until it is closed."""

    def __init__(self, network: PreTrainedModel) -> None:
        self._kinds = layer_kinds(network.config)
        lists = (one for one in network.modules() if isinstance(one, torch.nn.ModuleList))
        self._layers = list(next((one for one in lists if len(one) == len(self._kinds)), ()))
        self._entered, self._states = -1, list[torch.Tensor]()
        self._hooks = [layer.register_forward_hook(self._leave) for layer in self._layers]
        self._hooks += [layer.register_forward_pre_hook(self._enter) for layer in self._layers]

    def _enter(self, layer: torch.nn.Module, _: object) -> None:
        self._entered = self._layers.index(layer)

    def _leave(self, layer: torch.nn.Module, _: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        states = output[0] if isinstance(output, tuple) else output
        if states.ndim == 3:
            self._states.append(states)

    def take(self, logits: torch.Tensor) -> list[torch.Tensor]:
        """What the layers of one forward gave, and its logits: [rows, tokens, width] each."""
        taken = [states.float().cpu() for states in [*self._states, logits]]
        self._entered, self._states = -1, []
        return taken

    def name(self, number: int | None = None) -> str:
        """What to call a layer; by default the one that was entered last."""
        number = self._entered if number is None else number
        if not 0 <= number < len(self._layers):
            return "what lies outside its layers" if self._layers else "its network"
        kind = "" if (kind := self._kinds[number]) == FULL else f", {kind}"
        return f"its layer {number} ({type(self._layers[number]).__name__}{kind})"

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far two vectors are apart, as a share of how far the second's numbers lie from their mean."""
    return float((one - other).norm() / (other - other.mean()).norm().clamp(min=1e-6))


def check_order(lengths: Sequence[int]) -> Iterator[list[tuple[int, int, int]]]:
    """How texts are fed to see whether a model answers from the cache: as turns of which one ends before the others, and with
    several tokens at once. Yields, of each forward, which text is fed from where to where."""
    for cuts in ([int(0.3 * n) for n in lengths], [int(0.8 * n) for n in lengths]):
        begin = [0 if cut < n / 2 else int(0.3 * n) - 1 for cut, n in zip(cuts, lengths, strict=True)]
        yield [(k, start, cut) for k, (start, cut) in enumerate(zip(begin, cuts, strict=True))]
        yield [(k, cut, cut + 1) for k, cut in enumerate(cuts)]
        yield [(0, cuts[0] + 1, cuts[0] + 3)]
