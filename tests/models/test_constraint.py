"""Constrained decoding: whatever the model would like to say, an admissible action is read from it."""

from __future__ import annotations

import functools
import random

import pytest
from histories import CHOICES
from hypothesis import given, settings
from hypothesis import strategies as st

from leap.envs.answer import parse_answer
from leap.errors import PrerequisiteError
from leap.models.base import Sampling
from leap.models.chat import ChatTokens
from leap.models.constraint import ActionConstraint, ActionGrammar, AnswerConstraint
from leap.testing.checkpoints import STYLES, tiny_checkpoint, tiny_tokenizer

pytest.importorskip("transformers")

TEMPTING = (
    "ACTION: dance", "ACTION:", "Action: fly", "action :", "**ACTION:** x", ":", "::", ":)", "\n", " ", "<think>", "</think>",
    "REASON:", "ACTION", "\nAction", "*", "é", "go to", "ion: x\naction", "`",
)  # fmt: skip


@functools.cache
def grammar(style: str) -> ActionGrammar:
    if style == "scratch":
        import tempfile
        from pathlib import Path

        from transformers import AutoTokenizer

        with tempfile.TemporaryDirectory() as folder:
            tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint(Path(folder) / "scratch", "scratch"))
    else:
        tokenizer = tiny_tokenizer(style)
    return ActionGrammar(ChatTokens(tokenizer))


def follow(style: str, choices: tuple[str, ...], sampling: Sampling, wishes: list[int]) -> str:
    """An answer as HFModel decodes it, from a model that wishes for these tokens."""
    grammar_ = grammar(style)
    constraint = ActionConstraint(grammar_, choices, sampling)
    generated: list[int] = []
    vocabulary = len(grammar_.chat.tokenizer)
    for n in range(sampling.max_tokens):
        allowed = constraint.allowed()
        wish = wishes[n % len(wishes)]
        if allowed is None:
            banned = set(constraint.forbidden())
            token = wish % vocabulary
            while token in banned:
                token = (token + 1) % vocabulary
        else:
            token = allowed[wish % len(allowed)]
        generated.append(token)
        constraint.advance(token)
        if token == grammar_.chat.end_of_turn:
            break
    return grammar_.chat.said(generated[constraint.thought :]).answer


@st.composite
def wishes(draw: st.DrawFn, style: str) -> list[int]:
    chat = grammar(style).chat
    byte = chat.tokenizer.convert_tokens_to_ids("<0x3A>") if style == "scratch" else chat.text(":")[0]
    tempting = st.sampled_from([chat.text(text) for text in TEMPTING] + [[byte]])
    anything = st.integers(0, 10_000).map(lambda token: [token])
    return [token for part in draw(st.lists(tempting | anything, min_size=1, max_size=30)) for token in part]


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_only_admissible_actions_are_read_whatever_is_wished_for(style: str, data: st.DataObject) -> None:
    choices = tuple(data.draw(st.lists(st.sampled_from(CHOICES), min_size=1, unique=True)))
    sampling = Sampling(
        max_tokens=data.draw(st.integers(12, 80)), max_reason_tokens=data.draw(st.integers(0, 60)), temperature=1
    )
    text = follow(style, choices, sampling, data.draw(wishes(style)))
    found = parse_answer(text, choices)
    assert found is not None and found.action in choices, text


@pytest.mark.parametrize("style", STYLES)
def test_whatever_token_spells_the_marker_s_colon_an_admissible_action_follows(style: str) -> None:
    chat = grammar(style).chat
    colons = [token for token in range(len(chat.tokenizer)) if ":" in chat.decode([token])]
    assert style == "scratch" or any(chat.decode([token]).count(":") == 2 for token in colons)  # as ` ::` of Llama 3
    for token in colons:
        text = follow(style, CHOICES, Sampling(max_tokens=60, max_reason_tokens=20), [*chat.text("ACTION"), token])
        found = parse_answer(text, CHOICES)
        assert found is not None and found.action in CHOICES, text


words = st.text(alphabet="abcdefghijklmnop qrstuvwxyzABC0123456789éß-", min_size=1, max_size=20)
actions = words.map(lambda text: " ".join(text.split())).filter(bool)


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_actions_of_any_words_come_out_verbatim(style: str, data: st.DataObject) -> None:
    choices = tuple(data.draw(st.lists(actions, min_size=1, max_size=6, unique=True)))
    sampling = Sampling(max_tokens=200, max_reason_tokens=data.draw(st.integers(0, 5)), temperature=1)
    text = follow(style, choices, sampling, data.draw(wishes(style)))
    found = parse_answer(text, choices)
    assert found is not None and found.action in choices, (text, choices)


@pytest.mark.parametrize("style", STYLES)
def test_every_choice_can_be_reached_even_one_that_begins_another(style: str) -> None:
    reached = set()
    for number in range(200):
        wish = random.Random(number).choices(range(10_000), k=40)
        found = parse_answer(follow(style, CHOICES, Sampling(max_tokens=40, max_reason_tokens=1, temperature=1), wish))
        assert found is not None
        reached.add(found.action)
    assert reached == set(CHOICES)


TEMPTING_TEXTS = ("]", "[", "]]", "\n", " ", "<think>", "</think>", "red", " shoes", "é", "*", "ACTION:", "\nACTION: click[x]")


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_an_open_action_is_closed_around_a_text_of_the_model_s_own(style: str, data: st.DataObject) -> None:
    chat = grammar(style).chat
    texts = st.sampled_from(TEMPTING_TEXTS).map(chat.text)
    parts = data.draw(st.lists(texts | st.integers(0, 10_000).map(lambda t: [t]), min_size=1, max_size=20))
    sampling = Sampling(max_tokens=data.draw(st.integers(20, 60)), max_reason_tokens=data.draw(st.integers(0, 5)), temperature=1)
    text = follow(style, ("search[<search query>]",), sampling, [token for part in parts for token in part])
    found = parse_answer(text, ("search[<search query>]",))
    assert found is not None and found.action.startswith("search[") and found.action.endswith("]"), text
    words = found.action[7:-1]
    assert words.strip() and not set(words) & set("[]<>\n"), text


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("end", ["/think", "/THINK"])
def test_an_open_action_is_never_what_closes_a_thought(style: str, end: str) -> None:
    chat = grammar(style).chat
    for cut in range(1, len(end) + 1):
        tokens = [*chat.text(end[:cut]), *(chat.text(end[cut:]) if end[cut:] else []), *chat.text("]")]
        sampling = Sampling(max_tokens=40, max_reason_tokens=0, temperature=1)
        text = follow(style, ("search[<search query>]",), sampling, tokens)
        found = parse_answer(text, ("search[<search query>]",))
        assert found is not None and found.action.startswith("search[") and end.lower() != found.action[7:-1].lower(), text


@pytest.mark.parametrize("style", STYLES)
def test_beside_an_open_action_the_others_stay_as_they_are(style: str) -> None:
    choices = ("search[<search query>]", "click[buy now]", "click[red]")
    reached = set()
    for number in range(150):
        wish = random.Random(number).choices(range(10_000), k=40)
        found = parse_answer(follow(style, choices, Sampling(max_tokens=60, max_reason_tokens=1, temperature=1), wish))
        assert found is not None
        reached.add("search" if found.action.startswith("search[") else found.action)
    assert reached == {"search", "click[buy now]", "click[red]"}


def test_too_few_tokens_for_any_action_are_refused() -> None:
    with pytest.raises(PrerequisiteError, match="max_tokens"):
        ActionConstraint(grammar("llama3"), CHOICES, Sampling(max_tokens=3, max_reason_tokens=1, temperature=1))


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_of_several_answers_one_comes_out_whole_whatever_is_wished_for(style: str, data: st.DataObject) -> None:
    chat = grammar(style).chat
    acts = ("look", "go to desk 1", "go to desk 12")
    texts = [f"REASON: mug {n} is here.\nACTION: {action}" for n in (1, 12) for action in acts]
    among = data.draw(st.lists(st.sampled_from(texts), min_size=1, unique=True))
    constraint = AnswerConstraint(map(chat.answer, among), chat.end_of_turn)
    wished, generated = iter(data.draw(wishes(style))), list[int]()
    while not generated or generated[-1] != chat.end_of_turn:
        allowed = constraint.allowed()
        token = next((one for one in wished if one in allowed), allowed[-1])
        constraint.advance(token)
        generated.append(token)
    assert chat.said(generated).answer in among and constraint.complete and generated in [chat.answer(text) for text in among]
