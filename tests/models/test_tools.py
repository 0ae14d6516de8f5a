"""Calls of tools through chat templates of the forms in use: what is trained is what the template writes and what is read."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leap.core import Decision, History, Observation, Task
from leap.core.message import Message
from leap.datasets import Row
from leap.envs.grammar import ToolCalls
from leap.envs.tools import Tool, call_in, canonical_call
from leap.models.chat import ChatTokens
from leap.policies.rendering import PromptConfig, Renderer
from leap.testing.checkpoints import tiny_tokenizer

pytest.importorskip("transformers")

TOOLS = ToolCalls(
    [
        Tool(
            name="look_up",
            description="Finds an order.",
            parameters={"type": "object", "properties": {"order": {"type": "string"}}},
        ),
        Tool(
            name="refund",
            description="Pays back.",
            parameters={"type": "object", "properties": {"order": {"type": "string"}, "cents": {"type": "integer"}, "note": {}}},
        ),
    ]
)  # fmt: skip
OPEN = Observation(text="?")

_ENDS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
HERMES = (
    "{% if tools %}<|im_start|>system\nTools:{% for t in tools %}\n{{ t | tojson }}{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}\n"
    "{% if m.role == 'tool' %}<tool_response>\n{{ m.content }}\n</tool_response>{% else %}{{ m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{% if m.content or not loop.first %}\n{% endif %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
    "<|im_end|>\n{% endfor %}" + _ENDS
)
THINKING = HERMES.replace(  # an empty thought before the last message, of which the generation prompt says nothing
    "{% else %}{{ m.content }}{% endif %}",
    "{% else %}{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}{% endif %}",
)
OPENED = THINKING.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")  # a thought that the prompt begins
LIST = HERMES.replace('<tool_call>\n{"name"', '<tool_call>[{"name"').replace("}}}\n</tool_call>", "}}}]</tool_call>")
XML = HERMES.replace(
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n',
    "<function={{ c.function.name }}>\n{% for k, v in c.function.arguments.items() %}<parameter={{ k }}>\n"
    "{{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}</function>\n",
)
LLAMA = (  # shows the tools with the first question, and leaves out the words beside a call
    "{{ bos_token }}{% for m in messages %}"
    "<|start_header_id|>{{ 'ipython' if m.role == 'tool' else m.role }}<|end_header_id|>\n\n"
    "{% if tools and loop.first %}{% for t in tools %}{{ t | tojson }}\n\n{% endfor %}{% endif %}"
    "{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}"
    '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}'
    "{% else %}{{ m.content | trim }}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_MISTRAL_TURN = (
    "{% set asked = messages | selectattr('role', 'equalto', 'user') | list %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% if tools and m == asked[-1] %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "[INST]{{ m.content }}[/INST]{% elif m.role == 'tool' %}"
    "[TOOL_RESULTS]{{ {'content': m.content, 'call_id': m.tool_call_id} | tojson }}[/TOOL_RESULTS]{% elif m.tool_calls %}"
    "{% for c in m.tool_calls if c.id | length != 9 %}{{ raise_exception('an id has nine letters') }}{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}" + _MISTRAL_TURN + "{{ m.content }}[TOOL_CALLS][{% for c in m.tool_calls %}"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}{% endfor %}]'
    "{{ eos_token }}{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_NEW = (
    "{{ bos_token }}" + _MISTRAL_TURN + "{{ m.content }}{% for c in m.tool_calls %}"
    "[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}"
    "{{ eos_token }}{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
TEMPLATES = {
    "hermes": (HERMES, "chatml"),
    "thinking": (THINKING, "chatml"),
    "opened": (OPENED, "chatml"),
    "list": (LIST, "chatml"),
    "xml": (XML, "chatml"),
    "llama": (LLAMA, "llama3"),
    "mistral": (MISTRAL, "llama3"),
    "mistral-new": (MISTRAL_NEW, "llama3"),
}
WITHOUT = {
    "silent": (HERMES.partition("{% endif %}")[2], "chatml"),  # does not show the tools
    "mute": (HERMES.replace("{% for c in m.tool_calls or [] %}", "{% for c in [] %}"), "chatml"),  # does not write calls
    "deaf": (HERMES.replace("<tool_response>\n{{ m.content }}", "<tool_response>\n"), "chatml"),  # does not show results
    "strict": (HERMES.replace("<tool_response>", "{{ raise_exception('no tools here') }}"), "chatml"),
    "foreign": (HERMES.replace('{"name": "', '("name" is "'), "chatml"),  # writes what nobody can read
    "rewriting": (HERMES.replace(_ENDS, "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"), "chatml"),
}


def chat_of(template: str, style: str) -> ChatTokens:
    tokenizer = tiny_tokenizer(style)
    if "[TOOL_CALLS]" in template:  # as those of the makers, whose marks are special tokens
        tokenizer.add_special_tokens({"additional_special_tokens": ["[TOOL_CALLS]", "[ARGS]", "[INST]", "[/INST]"]})
    elif style == "chatml":
        tokenizer.add_tokens(["<tool_call>", "</tool_call>"])
    tokenizer.chat_template = template
    return ChatTokens(tokenizer)


@pytest.fixture(scope="module")
def chats() -> dict[str, ChatTokens]:
    return {name: chat_of(*each) for name, each in (TEMPLATES | WITHOUT).items()} | {
        style: ChatTokens(tiny_tokenizer(style)) for style in ("llama3", "chatml")
    }


def a_history(steps: int) -> History:
    task = Task(env="desk", split="train", id="a", instruction="Help the customer.")
    history = History(task=task, observations=(Observation(text="Where is my parcel?"),))
    for t in range(steps):
        call = canonical_call({"name": "look_up", "arguments": {"order": f"A-{t}"}})
        history = history.extend("(no action)" if t == 3 else str(call), Observation(text=f'{{"found": {t}}}'))
    return history


def a_row(decision: Decision, steps: int, renderer: str = "dialogue") -> Row:
    config = PromptConfig.model_validate({"renderer": renderer})
    prompt = Renderer(config, grammar_of=lambda task: TOOLS).render(a_history(steps))
    return Row(
        prompt=prompt, completion=[TOOLS.write(decision)], tools=list(TOOLS.tools), episode="e", t=steps, source="x", iteration=0
    )  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_with_tools_are_known_by_what_they_write(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert chat_of(*TEMPLATES[name]).takes_tools
    assert ("without reasons" in caplog.text) is (name == "llama")


@pytest.mark.parametrize("name", [*WITHOUT, "llama3", "chatml"])
def test_a_template_that_loses_anything_takes_none(chats: dict[str, ChatTokens], name: str) -> None:
    assert not chats[name].takes_tools


words = st.text(st.characters(categories=("L", "N"), include_characters=" .,'!\""), max_size=30).map(
    lambda text: " ".join(text.split())
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
    | st.sampled_from(["</tool_call>", "</think>", "\n\n", '"}', "ACTION: x", "[TOOL_CALLS", "\u2028", "\\", "<b>&'"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
notes = st.fixed_dictionaries({"order": st.text(st.characters(codec="utf-8"), max_size=20)}, optional={"note": values})
SPECIAL = ("<|", "[TOOL_CALLS]", "[ARGS]", "[INST]", "<tool_call>", "</tool_call>", "</parameter>", "<parameter")


@pytest.mark.parametrize("renderer", ["dialogue", "paper"])
@pytest.mark.parametrize("name", [*TEMPLATES, *WITHOUT, "llama3", "chatml"])
@settings(max_examples=25, deadline=None)
@given(reason=words, given=notes, steps=st.integers(0, 5))
def test_a_row_is_what_the_template_writes_and_is_read_back(
    chats: dict[str, ChatTokens], name: str, renderer: str, reason: str, given: dict[str, Any], steps: int
) -> None:
    chat = chats[name]
    if any(mark in json.dumps(given) for mark in SPECIAL if mark != "</tool_call>" or name == "xml"):
        return  # the text of a special token is that token, in any prompt and answer
    action = canonical_call({"name": "refund", "arguments": given}, TOOLS._tools["refund"])
    assert action is not None
    decision = Decision(reason=reason, action=action)
    row = a_row(decision, steps, renderer)
    prompt, answer = chat.prompt(row.prompt, row.tools), chat.completion(row.completion[0], row.prompt, row.tools)
    assert answer[-1] == chat.end_of_turn and answer.count(chat.end_of_turn) == 1
    assert len(prompt) == chat.length(row.prompt, row.tools)
    if chat.takes_tools:  # byte for byte the template's own rendering, one BOS
        number = sum(message["role"] == "assistant" for message in row.prompt)
        calls = [{"id": f"call{number:05d}", **call} for call in row.completion[0].get("tool_calls", [])]
        whole = chat.tokenizer.apply_chat_template(
            [*row.prompt, {**row.completion[0], "tool_calls": calls}], tools=row.tools, tokenize=False
        )
        ours = chat.tokenizer.decode(prompt + answer)
        assert whole.startswith(ours) and not whole[len(ours) :].strip()
    if name != "xml" or not isinstance(given.get("note"), str):  # bare text whose schema tells no type is read as JSON
        read = TOOLS.read(chat.said(answer, row.tools).answer, OPEN)
        assert read is not None and read.action == action
        assert read.reason == ("" if name == "llama" else reason)


@pytest.mark.parametrize("name", [*WITHOUT, "chatml"])
def test_without_tools_in_the_template_they_are_put_into_words(chats: dict[str, ChatTokens], name: str) -> None:
    chat = chats[name]
    action = '{"name": "refund", "arguments": {"order": "A", "cents": 5}}'
    row = a_row(Decision(reason="It is late.", action=action), 2)
    text = chat.tokenizer.decode(chat.prompt(row.prompt, row.tools))
    assert "- refund: Pays back." in text and 'ACTION: {"name": "look_up", "arguments": {"order": "A-1"}}' in text
    assert '{"found": 1}' in text and "<tool_response>" not in text
    answer = chat.completion(row.completion[0], row.prompt, row.tools)
    assert chat.decode(answer) == f"REASON: It is late.\nACTION: {action}"
    said: Message = {"role": "assistant", "content": "word for word"}
    assert chat.decode(chat.completion(said, row.prompt, row.tools)) == "word for word"


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_steps_of_an_episode_share_their_beginning(chats: dict[str, ChatTokens], name: str) -> None:
    from leap.training.branches import common_prefix

    chat = chats[name]
    decision = Decision(reason="", action='{"name": "look_up", "arguments": {"order": "A-9"}}')
    prompts = [chat.prompt((row := a_row(decision, steps)).prompt, row.tools) for steps in range(5)]
    assert all(common_prefix(one, two) > 0.7 * len(one) for one, two in pairwise(prompts[:3]))


def test_a_form_of_its_own_is_read_by_the_tokenizers_response_template() -> None:
    """Here calls in the form of Python's, which no part of leap reads."""
    pythonic = HERMES.replace('{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}', (
        "[{{ c.function.name }}({% for k, v in c.function.arguments.items() %}{{ k }}={{ v | tojson }}"
        "{% if not loop.last %}, {% endif %}{% endfor %})]"
    ))  # fmt: skip
    assert not chat_of(pythonic, "chatml").takes_tools
    chat = chat_of(pythonic, "chatml")
    calls = {
        "open": "<tool_call>\n",
        "close": "\n</tool_call>",
        "content": "python-call-list",
        "transform_each": True,
        "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{arguments}"}},
    }
    chat.tokenizer.response_template = {
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {"content": {"close": "<|im_end|>"}, "tool_calls": calls},
    }
    assert chat.takes_tools
    decision = Decision(reason="It is late.", action='{"name": "refund", "arguments": {"order": "A\\"7", "cents": 5}}')
    row = a_row(decision, 2)
    answer = chat.completion(row.completion[0], row.prompt, row.tools)
    assert '[refund(order="A\\"7", cents=5)]' in chat.tokenizer.decode(answer)
    assert TOOLS.read(chat.said(answer, row.tools).answer, OPEN) == decision
    odd = "Now.\n<tool_call>\n[refund(oh dear"
    assert chat.said(chat.answer(odd), row.tools).answer == odd  # nothing better was read, and nothing is lost


def test_other_answers_are_read_as_ever(chats: dict[str, ChatTokens]) -> None:
    for chat in chats.values():
        answer = chat.answer("REASON: x\nACTION: look")
        assert chat.said(answer, (), False).answer == chat.decode(answer) == "REASON: x\nACTION: look"
        assert call_in(chat.said(answer, TOOLS.tools, False).answer) is None
        messages: list[Message] = [{"role": "user", "content": "x"}]
        assert chat.prompt(messages) == chat.prompt(messages, ())
