"""The scratch student's tokenizer: nothing is lost, names stay whole, and with phrases the same text takes fewer tokens."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap.models.base import Sampling
from leap.models.chat import ChatTokens
from leap.models.constraint import ActionConstraint, ActionGrammar
from leap.models.scratch import ScratchConfig, build_scratch, find_phrases, pieces_pattern

ROOM = "You are in the middle of a room. Looking quickly around you, you see a desk 1, a bed 2, and a drawer 3."
TEXTS = [
    ROOM,
    "REASON: A mug is often in a cabinet; cabinet 1 is not searched yet.\nACTION: go to cabinet 1",
    "You arrive at loc 7. On the desk 1, you see a mug 1, a pen 2, and a book 3.",
    "ACTION: take mug 1 from desk 1",
] * 40
WORDS = st.sampled_from(
    ["You arrive at", " go to", " loc 7", " desk 1", ", a mug 1", " is not searched yet", ".", ":", "\n", " a", "ACTION:", "é"]
)


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ChatTokens]:
    """Tokenizers by the most phrases they may have."""
    from transformers import AutoTokenizer

    made: dict[int, ChatTokens] = {}
    for phrases in (0, 50):
        folder: Path = tmp_path_factory.mktemp(f"phrases-{phrases}")
        config = ScratchConfig(layers=1, width=16, heads=1, mlp=16, phrases=phrases)
        build_scratch(config, TEXTS, folder, seed=0)
        made[phrases] = ChatTokens(AutoTokenizer.from_pretrained(folder))
    return made


@given(st.one_of(st.text(max_size=40), st.lists(WORDS, max_size=12).map("".join)))
def test_nothing_is_lost(chats: dict[int, ChatTokens], text: str) -> None:
    for chat in chats.values():
        ids = chat.text(text)
        assert chat.decode(ids) == chat.tokenizer.decode(ids)  # no special token comes of bare text
        assert chat.decode(ids) == text or any(token in text for token in chat.tokenizer.all_special_tokens)


@given(st.lists(WORDS, max_size=12).map("".join))
def test_the_pieces_of_a_text_are_the_text(text: str) -> None:
    for phrases in ((), ("You arrive at", " go to", " is not searched yet")):
        assert "".join(re.findall(pieces_pattern(phrases), text)) == text


def test_phrases_are_runs_of_words_without_names_kinds_and_markers() -> None:
    found = find_phrases(Counter(TEXTS), 100)
    assert "You are in the middle of a room. Looking quickly around you, you see a" in found
    for phrase in found:
        assert not re.search(r"[\d\n:]", phrase)
        assert not set(phrase.split()) & {"desk", "bed", "drawer", "mug", "cabinet", "pen", "book", "loc"}
    assert find_phrases(Counter(TEXTS), 3) == found[:3]


def test_rare_runs_are_no_phrases() -> None:
    assert find_phrases(Counter(TEXTS[:4]), 100) == []


def test_with_phrases_the_same_text_takes_half_the_tokens(chats: dict[int, ChatTokens]) -> None:
    assert 2 * len(chats[50].text(ROOM)) < len(chats[0].text(ROOM))


def test_a_list_entry_is_one_token_and_a_name_in_an_action_another(chats: dict[int, ChatTokens]) -> None:
    pieces = [chats[50].decode([token]) for token in chats[50].text(ROOM)]
    assert ", a bed 2" in pieces and ", and a drawer 3" in pieces
    answer = [chats[50].decode([token]) for token in chats[50].text("ACTION: go to cabinet 1")]
    assert answer == ["ACTION:", " go to", " cabinet 1"]


@pytest.mark.parametrize("phrases", [0, 50])
def test_constrained_decoding_can_produce_each_action_and_nothing_else(chats: dict[int, ChatTokens], phrases: int) -> None:
    chat = chats[phrases]
    choices = ("go to cabinet 1", "take mug 1 from desk 1", "go to desk 1")
    grammar, sampling = ActionGrammar(chat), Sampling(max_tokens=60, max_reason_tokens=30)
    for choice in choices:
        constraint = ActionConstraint(grammar, choices, sampling)
        for token in chat.answer(f"REASON: A mug is often in a cabinet.\nACTION: {choice}"):
            allowed = constraint.allowed()
            assert allowed is None or token in allowed
            constraint.advance(token)
    constraint = ActionConstraint(grammar, choices, sampling)
    for token in chat.text("REASON: A mug.\nACTION:"):
        constraint.advance(token)
    assert {chat.decode([token]).strip() for token in constraint.allowed() or ()} <= {"go to", "go", "take"}


NAMES = ("gluten free", "2-pack", "12-pack", "5 x 8 feet", "free")


def test_names_of_several_words_are_single_tokens_wherever_they_stand(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    text = "I want granola gluten free.\nACTION: click[12-pack] 2-pack, 5 x 8 feet, gluten freedom, free 2-packs"
    build_scratch(ScratchConfig(layers=1, width=16, heads=1, mlp=16), [text], tmp_path, seed=0, names=NAMES)
    chat = ChatTokens(AutoTokenizer.from_pretrained(tmp_path))
    pieces = [chat.decode([token]) for token in chat.text(text)]
    assert "".join(pieces) == text
    assert {" gluten free", "12-pack", " 2-pack", " 5 x 8 feet"} <= set(pieces)
    assert pieces.count(" gluten") == 1 and " freedom" in pieces, "a name is none inside a longer word"
    assert pieces[-1] != " 2-packs" and pieces.count(" 2-pack") == 1


@given(
    st.lists(st.one_of(WORDS, st.sampled_from([" 2-pack", "12-pack", " gluten free", "dom", "-"])), max_size=12).map(
        "".join
    )
)
def test_names_lose_nothing_of_a_text(text: str) -> None:
    assert "".join(re.findall(pieces_pattern((), NAMES), text)) == text


@pytest.fixture(scope="module")
def looking_back(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose heads begin by looking back, with random weights where such a student begins with zeros: those would
    hide what attention finds."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("lookback")
    build_scratch(ScratchConfig(layers=2, width=64, heads=4, mlp=32, lookback=True), TEXTS, folder, seed=0)
    model: Any = LlamaForCausalLM.from_pretrained(folder)
    for layer in model.model.layers:
        assert not layer.self_attn.o_proj.weight.any() and not layer.mlp.down_proj.weight.any()
        layer.self_attn.o_proj.weight.data.normal_(std=0.1)
        layer.mlp.down_proj.weight.data.normal_(std=0.1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


def test_heads_that_look_back_find_the_tokens_before_at_any_place(looking_back: Path) -> None:
    import torch
    from transformers import LlamaForCausalLM

    model: Any = LlamaForCausalLM.from_pretrained(looking_back, attn_implementation="eager")
    ids = torch.randint(4, model.config.vocab_size, (1, 600), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = model(ids, output_attentions=True).attentions
    for heads, befores in ((first[0], (1, 2, 3)), (second[0], (1,))):
        for head, before in enumerate(befores):
            assert heads[head].diagonal(-before)[3:].min() > 0.99
    assert second[0][1].diagonal(-1).mean() < 0.5, "the other heads are free"


def test_a_student_that_looks_back_trains_as_it_plays(looking_back: Path) -> None:
    """By branches its numbers are those of separate rows; a model that answers otherwise from the cache would be refused."""
    from leap.models.hf import HFModel
    from leap.training.branches import TokenRow, attending_by_branches, tolerance

    model = HFModel(str(looking_back), Sampling(max_tokens=8))
    ids = model.chat.text(ROOM)
    rows = [TokenRow(ids[:n] + ids[3:7], ids[n : n + 5]) for n in (4, 9, 15)]
    own = model.network.config._attn_implementation
    model.network.set_attn_implementation("sdpa")
    with attending_by_branches(model.network, rows) as apart:
        assert apart < tolerance(model.network)
    model.network.set_attn_implementation(own)


def test_looking_back_needs_heads() -> None:
    with pytest.raises(ValueError, match="3 heads"):
        ScratchConfig(width=64, heads=2, lookback=True)
