"""Guesses of how answers go on: they change no answer, and save forwards."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
from histories import CHOICES
from test_hf import converse, dialogues, load

from leap.models.base import Sampling
from leap.models.drafts import CONTEXT, Drafts
from leap.testing.checkpoints import tiny_checkpoint

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "llama3", "llama3"))


def test_what_mostly_followed_is_guessed_and_no_more_than_that() -> None:
    drafts = Drafts()
    assert drafts.guess([1, 2], 5) == []
    drafts.learn([1, 2, 3, 4, 5], 2)
    assert drafts.guess([1, 2], 5) == [3, 4, 5]
    assert drafts.guess([9, 2], 2) == [3, 4]  # a shorter context will do
    assert drafts.guess([3, 1], 5) == []  # what stands before the answer is context alone
    drafts.learn([7, 3, 6], 1)
    drafts.learn([8, 3, 6], 1)
    drafts.learn([8, 3, 0], 1)
    assert drafts.guess([9, 3], 1) == [6]  # twice of four times
    drafts.learn([8, 3, 0], 1)
    drafts.learn([8, 3, 4], 1)
    assert drafts.guess([9, 3], 1) == []
    assert drafts.guess([2, 3], 1) == [4]  # the longer context knows better


def test_a_guess_looks_at_the_end_of_a_text_alone() -> None:
    text = [*range(100, 100 + 2 * CONTEXT), 7, 8, 9]
    drafts, same = Drafts(), Drafts()
    drafts.learn(text, len(text) - 3)
    same.learn(text[-3 - CONTEXT :], CONTEXT)
    for one in (text[:-3], text[:-2], text[-3 - CONTEXT : -3]):
        assert drafts.guess(one, 9) == same.guess(one, 9) != []


@pytest.mark.parametrize("temperature", [0, 0.7])
@pytest.mark.parametrize("choices", [None, CHOICES])
def test_answers_are_those_without_guesses(
    checkpoint: str, temperature: float, choices: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(checkpoint, Sampling(temperature=temperature, max_tokens=40, max_reason_tokens=12))
    forwards: list[int] = []
    forward = model._forward

    def counting(seats: Any, new: list[list[int]], asked: Any) -> Any:
        forwards.append(sum(map(len, new)))
        return forward(seats, new, asked)

    monkeypatch.setattr(model, "_forward", counting)
    prompts = dialogues("dialogue", [4, 2, 3])
    guessed, with_guesses = converse(model, prompts, choices=choices), len(forwards)
    forwards.clear()
    monkeypatch.setattr(Drafts, "guess", lambda *_: [])
    plain = converse(model, prompts, choices=choices)
    for one, other in zip(chain(*guessed), chain(*plain), strict=True):
        assert (one.tokens, one.text, one.cached_tokens, one.truncated) == (
            other.tokens,
            other.text,
            other.cached_tokens,
            other.truncated,
        )
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    if temperature == 0:  # a random model repeats itself
        assert with_guesses < len(forwards)


@pytest.mark.parametrize("wrong", [0, 1, 2, 7])
def test_wrong_guesses_change_nothing(checkpoint: str, wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long they are: of the next answer's guess, of a stop text behind one, of another row's."""
    sampling = Sampling(temperature=0, max_tokens=20)
    prompts = dialogues("dialogue", [3, 1, 3])
    monkeypatch.setattr(Drafts, "guess", lambda *_: [])
    plain = converse(load(checkpoint, sampling), prompts)
    monkeypatch.setattr(Drafts, "guess", lambda self, text, most: ([text[-1], 5, *text] * 3)[: min(wrong, most)])
    for one, other in zip(chain(*converse(load(checkpoint, sampling), prompts)), chain(*plain), strict=True):
        assert one.tokens == other.tokens
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
