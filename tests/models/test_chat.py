"""One chat template path, one BOS, one end of turn (invariant 4)."""

from __future__ import annotations

from typing import Any

import pytest
from histories import a_history
from hypothesis import given, settings
from hypothesis import strategies as st

from leap.errors import PrerequisiteError
from leap.models.chat import ChatTokens
from leap.policies.rendering import PromptConfig, Renderer
from leap.testing.checkpoints import STYLES, tiny_checkpoint, tiny_tokenizer

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from transformers import AutoTokenizer

    folder = tiny_checkpoint(tmp_path_factory.mktemp("chat") / "scratch", "scratch")
    return {"scratch": AutoTokenizer.from_pretrained(folder)} | {s: tiny_tokenizer(s) for s in STYLES if s != "scratch"}


@pytest.mark.parametrize(("style", "end"), [("llama3", "<|eot_id|>"), ("chatml", "<|im_end|>"), ("scratch", "<|end|>")])
def test_the_end_of_a_turn_is_found_in_the_template_not_guessed_from_eos(
    tokenizers: dict[str, Any], style: str, end: str
) -> None:
    chat = ChatTokens(tokenizers[style])
    assert chat.tokenizer.convert_ids_to_tokens(chat.end_of_turn) == end


@pytest.mark.parametrize("renderer", ["paper", "dialogue"])
@pytest.mark.parametrize("style", STYLES)
def test_a_prompt_is_the_templates_own_rendering(
    tokenizers: dict[str, Any], style: str, renderer: str
) -> None:
    chat = ChatTokens(tokenizers[style])
    render = Renderer(PromptConfig(renderer=renderer)).render  # type: ignore[arg-type]
    for steps in range(4):
        messages = render(a_history(steps=steps))
        text = chat.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = chat.prompt(messages)
        assert ids == chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert chat.tokenizer.decode(ids) == text
        bos = chat.tokenizer.bos_token_id
        assert ids.count(bos) == (1 if style == "llama3" else 0) if bos is not None else True


def test_half_a_character_is_encoded_as_its_replacement(tokenizers: dict[str, Any]) -> None:
    chat = ChatTokens(tokenizers["chatml"])
    odd, plain = ([{"role": "user", "content": f"x {half}"}] for half in ("\ud83d", "\ufffd"))
    assert chat.prompt(odd) == chat.prompt(plain) and chat.length(odd) == len(chat.prompt(plain))  # type: ignore[arg-type]
    assert chat.answer("\ud83d\ude00") == chat.answer("\U0001f600")


pieces = st.sampled_from([" ", "\n", "\n\n", "ACTION:", "go to desk 1", "é", "<|eot_id|>", "<|im_end|>", "<|end|>", "<|x"])


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=60, deadline=None)
@given(contents=st.lists(st.lists(pieces | st.text(max_size=6), max_size=6).map("".join), min_size=1, max_size=5))
def test_prompts_of_any_content_are_encoded_as_the_template_says(
    tokenizers: dict[str, Any], style: str, contents: list[str]
) -> None:
    """Also when pieces are encoded one by one. An observation that holds the text of a special token is text like any other: to
    the byte what the template writes, and no turn more."""
    chat, roles = ChatTokens(tokenizers[style]), ("user", "assistant")

    def said(texts: list[str]) -> list[Any]:
        return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]

    whole = chat.tokenizer.apply_chat_template(said(contents), add_generation_prompt=True, tokenize=False)
    ids = chat.prompt(said(contents))
    special = set(chat.tokenizer.all_special_ids)
    assert chat.tokenizer.decode(ids) == whole
    assert [t for t in ids if t in special] == [t for t in chat.prompt(said(["x"] * len(contents))) if t in special]
    for sanitize in (False, True):  # what transformers makes of it, with special tokens in messages and without
        theirs = list(
            chat.tokenizer.apply_chat_template(
                said(contents), add_generation_prompt=True, return_dict=False, sanitize_control_tokens=sanitize
            )
        )
        if not any(token in text for text in contents for token in chat.tokenizer.all_special_tokens):
            assert ids == theirs
        elif sanitize:
            assert [t for t in ids if t in special] == [t for t in theirs if t in special]


@pytest.mark.parametrize("style", STYLES)
def test_a_prompt_and_an_answer_make_the_text_of_the_whole_conversation(tokenizers: dict[str, Any], style: str) -> None:
    chat = ChatTokens(tokenizers[style])
    messages = Renderer(PromptConfig()).render(a_history(steps=2))
    answer = "REASON: mug 1 is there.\nACTION: take mug 1 from desk 1"
    whole = chat.tokenizer.decode(chat.prompt(messages) + chat.answer(answer))
    template = chat.tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": answer}], tokenize=False)
    assert template.rstrip("\n") == whole
    assert chat.decode(chat.answer(answer)) == answer


def test_a_tokenizer_without_a_template_is_refused_with_advice() -> None:
    tokenizer = tiny_tokenizer("llama3")
    tokenizer.chat_template = None
    with pytest.raises(PrerequisiteError, match="chat template"):
        ChatTokens(tokenizer)
