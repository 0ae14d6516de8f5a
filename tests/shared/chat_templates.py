"""Small chat templates of the shapes in use, of our own words, each with the special and the added tokens that go with it."""

from __future__ import annotations

from typing import Any, NamedTuple

from leap.testing.checkpoints import CHATML, tiny_tokenizer


class Shape(NamedTuple):
    """A template, its special tokens, other tokens that it adds, and the token that ends an answer in it.

    `thinks` says how it opens a thought: by the prompt, by the model, or not at all.
    """

    template: str
    special: tuple[str, ...]
    added: tuple[str, ...]
    end: str
    thinks: str = ""


_IM = ("<|im_start|>", "<|im_end|>")
_THINK = ("<think>", "</think>")
_PAST = (  # past thoughts are left out: those behind the last question stay
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}"
)
_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% set words = m.content %}{% if m.role == 'assistant' %}"
    "{% if '</think>' in words %}{% set words = words.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.index0 > ns.last %}<think>\n{{ (m.reasoning_content or '').strip() }}\n</think>\n\n{% endif %}{% endif %}"
    "{{ words }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
)
QWEN3 = _PAST + _TURNS + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
QWEN35 = (
    _PAST + _TURNS + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}"
)
ALWAYS = _PAST + _TURNS + "<think>\n{% endif %}"
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<A>{{ m.content.split('</think>')[-1] }}<E>"
    "{% else %}<U>{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<A><think>\n{% endif %}"
)
QWEN25 = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}" + CHATML
SMOLLM3 = (
    "{% set mode = '/no_think' if enable_thinking is false else '/think' %}<|im_start|>system\n## Facts\nToday: "
    "{{ strftime_now('%d %B %Y') }}\nMode: {{ mode }}\n\n{% if messages[0].role == 'system' %}## Rules\n{{ messages[0].content }}"
    "{% endif %}<|im_end|>\n{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{{ '<think>\n\n</think>\n' if mode == '/no_think' }}"
    "{% endif %}"
)
LLAMA31 = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday: {{ strftime_now('%d %b %Y') }}\n\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% endif %}<|eot_id|>"
    "{% for m in messages if m.role != 'system' %}<|start_header_id|>{{ 'ipython' if m.role == 'tool' else m.role }}"
    "<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_TAKING_TURNS = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and assistant take "
    "turns') }}{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}" + _TAKING_TURNS + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}" + _TAKING_TURNS + "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
MAGISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if loop.last and m.reasoning_content %}[THINK]{{ m.reasoning_content }}[/THINK]{% endif %}{{ m.content }}{{ eos_token }}"
    "{% elif m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]{% else %}[INST]{{ m.content }}[/INST]"
    "{% endif %}{% endfor %}"
)
CHANNELS = (
    "<|start|>system<|message|>Effort: {{ reasoning_effort or 'medium' }}<|end|>{% for m in messages %}"
    "{% if m.role == 'assistant' and loop.last and not add_generation_prompt %}"
    "{% if m.reasoning_content %}<|start|>assistant<|channel|>analysis<|message|>{{ m.reasoning_content }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|return|>"
    "{% elif m.role == 'assistant' %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
GLM = (
    "[gMASK]{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\n{% if loop.last and m.reasoning_content %}"
    "<think>{{ m.reasoning_content }}</think>{% else %}<think></think>{% endif %}\n{{ m.content }}"
    "{% else %}<|{{ m.role }}|>\n{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{{ '\n<think></think>' if enable_thinking is false }}{% endif %}"
)
OWN_MARKS = (_TURNS.replace("<think>", "<muse>").replace("</think>", "</muse>") + "{% endif %}").replace(
    "loop.index0 > ns.last", "loop.last"
)  # marks that no list of ours has
PHI3 = (  # ends the text where it opens no turn
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
PHI4 = (  # tells of thoughts in its own words alone
    "<|im_start|>system<|im_sep|>First write a thought between <think> and </think>, then the answer.<|im_end|>"
    "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
)
DEEPSEEK31 = (  # thinks only if it is told to, and closes a thought that it never opened
    "{{ bos_token }}{% set ns = namespace(rules='') %}{% for m in messages if m.role == 'system' %}{% set ns.rules = m.content %}"
    "{% endfor %}{{ ns.rules }}{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}<U>{{ m.content }}{% else %}"
    "{% set words = m.content %}{% if '</think>' in words %}{% set words = words.split('</think>', 1)[1] %}{% endif %}"
    "<A></think>{{ words }}<E>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<A>{{ '<think>' if thinking else '</think>' }}{% endif %}"
)
GLM45 = (  # asks each time not to think, in the user's words
    "[gMASK]<sop>{% set last = (messages | selectattr('role', 'equalto', 'user') | list)[-1] %}{% for m in messages %}"
    "{% if m.role == 'assistant' %}<|assistant|>\n{% if m.reasoning_content %}<think>{{ m.reasoning_content.strip() }}</think>"
    "{% else %}<think></think>{% endif %}{{ '\n' + m.content }}{% else %}<|{{ m.role }}|>\n{{ m.content }}"
    "{{ '/quick' if m.role == 'user' and enable_thinking is false }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{{ '\n<think></think>' if enable_thinking is false }}{% endif %}"
)
OLMO2 = (  # no token but the one that ends an answer
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\n{{ m.content }}{{ eos_token }}"
    "{{ '\n' if not loop.last }}{% else %}<|{{ m.role }}|>\n{{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
GRANITE = (  # its key is called `thinking`, and it shows in the rules alone
    "{% if messages[0].role != 'system' %}<|start_of_role|>system<|end_of_role|>You help.{{ ' Think between <think> and </think> "
    "first.' if thinking }}<|end_of_text|>\n{% endif %}{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>"
    "{{ m.content }}<|end_of_text|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
COMMAND = (  # answers, too, stand between marks
    "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>{% if m.role == 'assistant' %}<|CHATBOT_TOKEN|>"
    "{% if m.reasoning_content and loop.last %}<|START_THINKING|>{{ m.reasoning_content }}<|END_THINKING|>{% endif %}"
    "<|START_RESPONSE|>{{ m.content }}<|END_RESPONSE|>{% else %}<|{{ m.role | upper }}_TOKEN|>{{ m.content }}{% endif %}"
    "<|END_OF_TURN_TOKEN|>{% endfor %}{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
)
LLAMA2 = (  # the rules are within the first question
    "{% if messages[0].role == 'system' %}{% set rules, rest = messages[0].content, messages[1:] %}{% else %}"
    "{% set rules, rest = '', messages %}{% endif %}{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles alternate') }}{% endif %}{% if m.role == 'user' %}{{ bos_token }}[INST] "
    "{% if loop.first and rules %}<<SYS>>\n{{ rules }}\n<</SYS>>\n\n{% endif %}{{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA4 = (
    "{{ bos_token }}{% for m in messages %}<|turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% if m.role == 'assistant' and m.reasoning_content and loop.last %}<|channel>thought\n{{ m.reasoning_content }}\n<channel|>"
    "{% endif %}{{ m.content }}<turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn>model\n{{ '<|channel>thought\n<channel|>' if enable_thinking is false }}{% endif %}"
)
SEED = (
    "{% for m in messages %}{{ bos_token }}{{ m.role }}\n{% if m.role == 'assistant' and m.reasoning_content %}<seed:think>"
    "{{ m.reasoning_content | trim }}</seed:think>{% endif %}{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}assistant\n{% endif %}"
)

SHAPES = {
    "qwen2.5": Shape(QWEN25, _IM, (), "<|im_end|>"),
    "qwen3": Shape(QWEN3, _IM, _THINK, "<|im_end|>", "model"),
    "qwen3.5": Shape(QWEN35, _IM, _THINK, "<|im_end|>", "prompt"),
    "always": Shape(ALWAYS, _IM, _THINK, "<|im_end|>", "prompt"),
    "words": Shape(QWEN35, _IM, (), "<|im_end|>", "prompt"),  # its marks are no tokens
    "own marks": Shape(OWN_MARKS, _IM, ("<muse>", "</muse>"), "<|im_end|>", "model"),
    "r1": Shape(R1, ("<U>", "<A>", "<E>"), _THINK, "<E>", "prompt"),
    "smollm2": Shape(QWEN25.replace("You help.", "You are small."), _IM, (), "<|im_end|>"),
    "smollm3": Shape(SMOLLM3, _IM, _THINK, "<|im_end|>", "model"),
    "llama3.1": Shape(
        LLAMA31, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"), (), "<|eot_id|>"
    ),
    "gemma3": Shape(GEMMA3, ("<start_of_turn>", "<end_of_turn>"), (), "<end_of_turn>"),
    "mistral": Shape(MISTRAL, ("[INST]", "[/INST]"), (), "<|endoftext|>"),
    "magistral": Shape(
        MAGISTRAL,
        ("[INST]", "[/INST]", "[THINK]", "[/THINK]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        (),
        "<|endoftext|>",
        "model",
    ),
    "channels": Shape(
        CHANNELS,
        ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"),
        (),
        "<|return|>",
        "model",
    ),
    "phi3": Shape(PHI3, ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"), (), "<|end|>"),
    "phi4": Shape(PHI4, (*_IM, "<|im_sep|>"), (), "<|im_end|>", "model"),
    "deepseek3.1": Shape(DEEPSEEK31, ("<U>", "<A>", "<E>"), _THINK, "<E>", "prompt"),
    "glm4.5": Shape(GLM45, ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>"), _THINK, "<|endoftext|>", "model"),
    "olmo2": Shape(OLMO2, (), (), "<|endoftext|>"),
    "granite": Shape(GRANITE, ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"), (), "<|end_of_text|>", "model"),
    "command": Shape(
        COMMAND,
        (
            *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>"),
            *("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        ),
        (),
        "<|END_RESPONSE|>",
        "model",
    ),
    "llama2": Shape(LLAMA2, (), (), "<|endoftext|>"),
    "gemma4": Shape(GEMMA4, ("<|turn>", "<turn|>", "<|channel>", "<channel|>"), (), "<turn|>", "model"),
    "seed": Shape(SEED, ("<seed:think>", "</seed:think>"), (), "<|endoftext|>", "model"),
    "glm": Shape(GLM, ("[gMASK]", "<|user|>", "<|assistant|>", "<|system|>"), _THINK, "<|endoftext|>", "model"),
}


def tokenizer_of(shape: Shape) -> Any:
    """A tiny tokenizer with a template of that shape."""
    tokenizer = tiny_tokenizer("chatml")
    tokenizer.add_special_tokens({"bos_token": "<|bos|>", "additional_special_tokens": list(shape.special)})
    tokenizer.add_tokens(list(shape.added))
    tokenizer.chat_template = shape.template
    return tokenizer
