"""Templates are tried out when a model is loaded: what cannot ask a student is refused in one line, and nothing hangs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from leap.errors import PrerequisiteError
from leap.models.chat import ChatTokens
from leap.models.template import dated
from leap.testing.checkpoints import CHATML, tiny_tokenizer

pytest.importorskip("transformers")

PARTS = CHATML.replace("{{ m['content'] }}", "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}")
NO_OPENING = CHATML.split("{% if add")[0]
REFUSED = {
    "lists of parts only": (PARTS, "text of every message"),
    "the last message only": (CHATML.replace("messages", "messages[-1:]", 1), "text of every message"),
    "the last ten messages only": (CHATML.replace("messages", "messages[-10:]", 1), "text of every message"),
    "as HTML": (CHATML.replace("m['content'] }}", "m['content']|escape }}"), "text of every message"),
    "as JSON": (CHATML.replace("m['content'] }}", "m['content']|tojson }}"), "text of every message"),
    "without empty lines": (CHATML.replace("m['content'] }}", "m['content']|replace('\n\n', '\n') }}"), "text of every message"),
    "the newest first": (CHATML.replace("messages", "messages|reverse", 1), "text of every message"),
    "long ones are cut": (CHATML.replace("m['content'] }}", "m['content'][:500] }}"), "text of every message"),
    "the same twice is told once": (
        "{% set seen = namespace(all=[]) %}{% for m in messages %}{% if m.content not in seen.all %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% set seen.all = seen.all + [m.content] %}{% endif %}"
        "{% endfor %}<|im_start|>assistant\n",
        "text of every message",
    ),
    "all in small letters": (CHATML.replace("m['content'] }}", "m['content']|lower }}"), "text of every message"),
    "no roles": (CHATML.replace("{{ m['role'] }}", "x"), "words of a user from those of the assistant"),
    "no generation prompt": (NO_OPENING, "does not open the assistant's turn"),
    "opens another turn": (CHATML.replace("<|im_start|>assistant", "<|im_start|>user"), "does not open"),
    "by chance": (CHATML + "{{ range(100000) | random }}", "otherwise each time"),
    "raises": ("{{ raise_exception('wants\ntools') }}" + CHATML, "wants"),
    "raises later": ("{% if messages|length > 2 %}{{ 1 // 0 }}{% endif %}" + CHATML, "refuses these messages"),
    "broken": ("{% for m in messages %}{{ m['content'] ", "refuses these messages"),
    "names nothing": (CHATML.replace("m['content']", "m.nothing.more"), "refuses these messages"),
    "several without a default": ({"rag": CHATML, "other": CHATML}, "no default specified"),
    "huge": ("{% for i in range(99999) %}{{ messages }}{% endfor %}" + CHATML, "writes more than"),
    "huge at once": ("{{ 'x' * 30000000000 }}" + CHATML, "memory"),
}
ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}" + CHATML,
    "later": "{% if messages|length > 9 %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    "{% endif %}" + CHATML,
    "one number": "{{ 9 ** (9 ** 9) }}" + CHATML,
}


def with_template(template: Any) -> Any:
    tokenizer = tiny_tokenizer("chatml")
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_cannot_ask_a_student_is_refused_in_one_line(name: str) -> None:
    template, reason = REFUSED[name]
    with pytest.raises(PrerequisiteError, match=re.escape(reason)) as caught:
        ChatTokens(with_template(template))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_template_ends_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leap.models.template_guard.SECONDS", 1)
    with pytest.raises(PrerequisiteError, match="does not end"):
        ChatTokens(with_template(ENDLESS[name]))


def test_the_date_is_the_same_on_every_day(monkeypatch: pytest.MonkeyPatch) -> None:
    for form, shown in (("%d %b %Y", "26 Jul 2024"), ("%Y-%m-%d %H:%M:%S.%f", "2024-07-26 00:00:00.000000")):
        asks = "{% if strftime_now is defined %}{{ strftime_now(form) }}{% endif %}"
        template = "<|im_start|>system\nToday: " + asks + "<|im_end|>\n" + CHATML
        chat = ChatTokens(with_template("{% set form = '" + form + "' %}" + template))
        text = chat.tokenizer.decode(chat.prompt([{"role": "user", "content": "x"}]))
        assert text.startswith(f"<|im_start|>system\nToday: {shown}<|im_end|>\n<|im_start|>user\nx<|im_end|>")
        assert "macro" not in chat.tokenizer.chat_template  # a trained checkpoint keeps its own
    assert dated("\n x") == "\n x"


MISTRAL = (
    "{% if messages[-1]['role'] == 'assistant' %}{{ raise_exception('the last must be of the user') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('x') }}{% endif %}"
    "{% if m.role == 'user' %}<|im_start|>{{ m.content }} [/INST]{% else %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)


def test_templates_of_other_families_are_taken() -> None:
    thinking = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    always = CHATML.replace("{% if add_generation_prompt %}", "{% if true %}")
    for template in (MISTRAL, thinking, always, {"default": CHATML, "tool_use": CHATML}):
        chat = ChatTokens(with_template(template))
        assert chat.tokenizer.convert_ids_to_tokens(chat.end_of_turn) == "<|im_end|>"


def test_a_marker_that_is_no_special_token_ends_a_turn() -> None:
    from tokenizers import AddedToken

    tokenizer = tiny_tokenizer("llama3")
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("<|im_start|>", "<|im_end|>", "  ")])
    tokenizer.chat_template = CHATML
    chat = ChatTokens(tokenizer, ends=[7])
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert chat.end_of_turn == end and chat.ends == sorted({7, end, tokenizer.eos_token_id})
    assert chat.decode(chat.answer("ACTION: look")) == "ACTION: look" == chat.decode([*chat.text("ACTION: look"), 7])
    assert chat.said(chat.answer("ACTION: look")).answer == "ACTION: look"
