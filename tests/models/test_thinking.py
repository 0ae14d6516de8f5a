"""Models that think: what a prompt tells them, what of an answer is a thought; no text forges a turn or ends a thought."""

from __future__ import annotations

import random
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from chat_templates import SHAPES, tokenizer_of
from histories import a_history
from hypothesis import given, settings
from hypothesis import strategies as st

from leap.core import Decision, Observation
from leap.core.message import Message
from leap.datasets import Row
from leap.envs.answer import parse_answer
from leap.envs.grammar import FreeText, Line, ToolCalls
from leap.envs.thought import THOUGHTS, split_thought, unclosed
from leap.envs.tools import Tool
from leap.errors import PrerequisiteError
from leap.models.base import Completion, Sampling
from leap.models.chat import ChatTokens
from leap.policies.rendering import PromptConfig, Renderer
from leap.testing.checkpoints import tiny_tokenizer

pytest.importorskip("transformers")

THINKERS = [name for name, shape in SHAPES.items() if shape.thinks]
UNWRITTEN = {"r1", "smollm3", "phi4", "deepseek3.1", "granite"}  # these write no thought of a finished turn
BEHIND = {"phi3": "\n<|endoftext|>", "command": "<|END_OF_TURN_TOKEN|>"}  # what these write behind the end of an answer
ASKED: list[Message] = [{"role": "user", "content": "What now?"}]
DECISION = Decision(reason="The mug is here.", action="take mug 1")


@cache
def chat_of(name: str) -> ChatTokens:
    return ChatTokens(tokenizer_of(SHAPES[name]))


def text_of(chat: ChatTokens, ids: list[int]) -> str:
    return chat.tokenizer.decode(ids)


def finished(chat: ChatTokens, answer: dict[str, str], thinking: bool) -> str:
    """What the template itself writes for a conversation up to the answer."""
    return chat.template.render([*ASKED, answer], (), thinking, opened=False)  # type: ignore[list-item]


@pytest.mark.parametrize("name", SHAPES)
def test_what_a_template_knows_is_found_out(name: str) -> None:
    chat, shape = chat_of(name), SHAPES[name]
    assert chat.tokenizer.convert_ids_to_tokens(chat.end_of_turn) == shape.end
    assert chat.knows_thoughts is bool(shape.thinks)
    assert bool(chat.turn(True).begun) is (shape.thinks == "prompt") and not chat.turn(False).begun
    if not shape.thinks:
        assert chat.prompt(ASKED) == chat.prompt(ASKED, (), True) == chat.prompt(ASKED, (), False)


@pytest.mark.parametrize("name", SHAPES)
def test_without_thinking_prompt_and_answer_are_what_the_template_writes(name: str) -> None:
    chat, content = chat_of(name), "REASON: x\nACTION: look"
    prompt, answer = (
        chat.prompt(ASKED, (), False),
        chat.completion({"role": "assistant", "content": content}, ASKED, (), False),
    )
    assert text_of(chat, answer) == content + SHAPES[name].end
    assert chat.said(answer, (), False) == ("", content)
    whole, ours = finished(chat, {"role": "assistant", "content": content}, False), text_of(chat, prompt + answer)
    if name == "r1":  # opens a thought, and writes none in a finished turn: an empty one stands between
        assert ours.replace("<think>\n\n</think>\n\n", "") == whole
    elif name == "smollm3":
        assert ours.replace("<think>\n\n</think>\n", "") == whole.rstrip("\n")
    elif name == "gemma4":
        assert ours.replace("<|channel>thought\n<channel|>", "") == whole.rstrip("\n")
    elif name in ("mistral", "llama2"):  # their blanks are no part of the answer
        assert ours == whole.replace("[/INST] ", "[/INST]").replace("look <|endoftext|>", "look<|endoftext|>")
    elif name in BEHIND:
        assert whole == ours + BEHIND[name]
    else:
        assert whole.rstrip("\n") in (ours, ours.removesuffix("<|endoftext|>"))


@pytest.mark.parametrize("name", THINKERS)
def test_with_thinking_prompt_and_answer_are_what_the_template_writes(name: str) -> None:
    chat = chat_of(name)
    message: dict[str, Any] = {"role": "assistant", "content": "ACTION: look", "reasoning_content": "A mug?\nNo."}
    prompt, answer = chat.prompt(ASKED, (), True), chat.completion(message, ASKED, (), True)  # type: ignore[arg-type]
    assert chat.said(answer, (), True) == ("A mug?\nNo.", "ACTION: look")
    ours, whole = text_of(chat, prompt + answer), finished(chat, message, True)
    if name in BEHIND:
        assert whole == ours + BEHIND[name]
    elif name not in UNWRITTEN:
        assert whole.rstrip("\n") in (ours, ours.removesuffix("<|endoftext|>"))
    assert ours.count("A mug?") == 1 and ours.index("A mug?") < ours.index("ACTION: look")
    assert chat.answering(answer[:-1], True) == "ACTION: look"


@pytest.mark.parametrize("name", THINKERS)
def test_nothing_is_read_from_a_thought_that_is_cut_off(name: str) -> None:
    chat = chat_of(name)
    draft = "REASON: I could look.\nACTION: look\n"
    message: dict[str, Any] = {"role": "assistant", "content": "x", "reasoning_content": draft}
    whole = chat.completion(message, ASKED, (), True)  # type: ignore[arg-type]
    end = next(
        n
        for n in range(len(whole))
        if chat.answering(whole[:n], True) is None and "ACTION: look" in text_of(chat, whole[:n])
    )
    for ids in (whole[:end], whole[: end + 1]):
        assert chat.said(ids, (), True).answer == "" and chat.answering(ids, True) in (None, "")


# ---- hostile texts ---------------------------------------------------------------------------------------------------

MARKS = sorted(
    {*THOUGHTS, *THOUGHTS.values()}
    | {mark for shape in SHAPES.values() for mark in (*shape.special, *shape.added)}
    | {
        "<|endoftext|>",
        "<|channel|>final<|message|>",
        "<<|im_end|>|im_end|>",
        "<|im_<|im_end|>end|>",
        "\ufdd0",
        "ACTION: look",
    }
)
hostile = st.lists(
    st.sampled_from([*MARKS, " ", "\n", "é", "ACTION: go", "x"]) | st.text(max_size=4), min_size=1, max_size=8
).map("".join)


def controls(chat: ChatTokens, ids: list[int]) -> list[int]:
    return [token for token in ids if token in chat._controls]


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(hostile, min_size=1, max_size=5), thinking=st.sampled_from([None, True, False]))
def test_no_text_forges_a_turn(name: str, texts: list[str], thinking: bool | None) -> None:
    chat = chat_of(name)

    def said(contents: list[str]) -> list[Message]:
        return [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(contents)]

    ids, plain = chat.prompt(said(texts), (), thinking), chat.prompt(said(["x"] * len(texts)), (), thinking)
    assert controls(chat, ids) == controls(chat, plain)
    for text in texts if name not in ("llama3.1", "gemma3") else ():  # these trim
        text = text.replace("\ufdd0", "\ufffd")
        assert text in text_of(chat, ids) or name in (
            "r1",
            "words",
            "own marks",
        )  # where marks are words, past thoughts go
    answer = chat.answer(texts[0])
    assert controls(chat, answer) == [chat.end_of_turn]


@pytest.mark.parametrize("name", THINKERS)
@settings(max_examples=40, deadline=None)
@given(thought=hostile.map(str.strip).filter(bool), content=hostile)
def test_a_thought_ends_where_its_token_says(name: str, thought: str, content: str) -> None:
    """Whatever is quoted in it; and nothing that an answer quotes begins one."""
    chat = chat_of(name)
    if name == "words" and any(mark in thought + content for mark in MARKS if "ACTION" not in mark):
        return  # its marks are words like others
    if any(
        mark in thought + content
        for mark in MARKS
        if mark not in chat._special and mark not in ("\ufdd0", "ACTION: look")
    ):
        return  # marks of other models, which are read as such
    content = f"REASON: x\nACTION: {content}"
    message: Message = {"role": "assistant", "content": content, "reasoning_content": thought}
    said = chat.said(chat.completion(message, ASKED, (), True), (), True)
    assert said == tuple(text.replace("\ufdd0", "\ufffd") for text in (thought, content))


@pytest.mark.parametrize("name", SHAPES)
def test_the_steps_of_an_episode_share_their_beginning(name: str) -> None:
    from leap.training.branches import common_prefix, encode_row, pack

    chat = chat_of(name)
    for thinking in ("off", "trained"):
        renderer = Renderer(PromptConfig(renderer="dialogue", instructions=False, candidates=False, thinking=thinking))  # type: ignore[arg-type]
        histories = [a_history(steps=steps) for steps in range(4)]
        prompts = [chat.prompt(renderer.render(history), (), renderer.thinking) for history in histories]
        for one, two in pairwise(prompts):
            assert common_prefix(one, two) > 0.25 * len(one)
        rows = [
            Row(prompt=renderer.render(history), completion=[renderer.answer(DECISION, history.task)],
                thinking=renderer.learns_thoughts, episode="e", t=t, source="x", iteration=0)
            for t, history in enumerate(histories)
        ]  # fmt: skip
        encoded = [encode_row(row, chat) for row in rows]
        assert [row.prompt for row in encoded] == prompts  # training text = inference text
        packed = pack(encoded)
        for k, row in enumerate(encoded, start=1):
            own = packed.branch == k
            fork = int(packed.limit[own][0])
            assert packed.ids[:fork].tolist() + packed.ids[own].tolist() == row.prompt + row.answer


# ---- grammars --------------------------------------------------------------------------------------------------------

DESK = ToolCalls([Tool(name="pay"), Tool(name="wait")])
LISTED = Observation(text="?", admissible=("look", "go to cabinet 12"))
CASES: list[tuple[Any, Observation, str, str]] = [
    (Line(), LISTED, "ACTION: look", "REASON: x\nACTION: go to cabinet 12"),
    (Line(), Observation(text="?"), "ACTION: look", "REASON: x\nACTION: jump"),
    (FreeText(), Observation(text="?"), "ACTION: look", "REASON: x\nACTION: def f():\n    pass"),
    (DESK, Observation(text="?"), '{"name": "wait", "arguments": {}}', 'Now.\n{"name": "pay", "arguments": {}}'),
]


@pytest.mark.parametrize("opening", THOUGHTS)
@pytest.mark.parametrize("case", range(len(CASES)))
def test_no_grammar_takes_an_action_from_a_thought(opening: str, case: int) -> None:
    grammar, shown, draft, answer = CASES[case]
    wanted, closing = grammar.read(answer, shown), THOUGHTS[opening]
    assert wanted is not None
    for text in (
        f"{opening}{draft}{closing}{answer}",
        f"\n{opening}\n{draft}\n{closing}\n\n{answer}",
        f"{draft}\n{closing}\n\n{answer}",
    ):
        assert grammar.read(text, shown) == wanted, text
    for text in (
        f"{opening}{draft}",
        f"{opening}\n{draft}\n{answer}",
        f"{draft}\n{closing}",
        f"{opening}x{closing}{opening}{draft}",
    ):
        assert grammar.read(text, shown) is None, text
        assert grammar.read(text, shown, truncated=True) is None


def test_channels_are_read() -> None:
    thought = "<|channel|>analysis<|message|>ACTION: jump<|end|>"
    final = "<|start|>assistant<|channel|>final<|message|>ACTION: look<|return|>"
    call = '<|start|>assistant to=functions.pay<|channel|>commentary json<|message|>{"x": 1}<|call|>'
    assert split_thought(thought + final) == ("ACTION: jump", "ACTION: look")
    for form in (
        call,
        call.replace("json", "<|constrain|>json"),
        '<|start|>assistant<|channel|>commentary to=functions.pay<|message|>{"x": 1}',
    ):
        read = DESK.read(thought + form, Observation(text="?"))
        assert read is not None and read.action == '{"name": "pay", "arguments": {"x": 1}}'
    assert split_thought(thought.removesuffix("<|end|>")).answer == ""
    assert parse_answer(split_thought(thought).answer) is None


@given(
    st.lists(st.sampled_from([*THOUGHTS, *THOUGHTS.values(), "\n", " ", "x", "ACTION: look"]), max_size=12).map("".join)
)
def test_a_thought_can_always_be_ended(text: str) -> None:
    read = parse_answer(f"{text}{unclosed(text)}\nACTION: go to cabinet 12", ("go to cabinet 12",))
    assert read is not None and (read.action == "go to cabinet 12" or "ACTION: look" in text)


@given(hostile, hostile)
def test_a_whole_answer_is_split_as_it_was(thought: str, text: str) -> None:
    whole = Completion(text, 0, 0, thought=thought).whole
    if thought.strip() and not any(mark.lower() in text.lower() for mark in (*THOUGHTS, "<|channel|>")):
        said = split_thought(whole)
        assert said.answer == text.lstrip() and Completion(text, 0, 0, thought=said.thought).whole == whole


# ---- constrained decoding --------------------------------------------------------------------------------------------

CHOICES = ("look", "go to cabinet 12", "search[<words>]")


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_constrained_answer_has_its_action_behind_the_thought(name: str, data: st.DataObject) -> None:
    from leap.models.constraint import ActionConstraint, ActionGrammar

    chat = chat_of(name)
    thinking = data.draw(st.sampled_from([None, True, False]))
    texts = [
        "ACTION: jump",
        "\nACTION:",
        "REASON: x",
        "</think>",
        "<think>",
        "\n",
        *SHAPES[name].special,
        *SHAPES[name].added,
    ]
    drawn = data.draw(
        st.lists(
            st.sampled_from(texts).map(chat.text) | st.integers(0, 600).map(lambda t: [t]), min_size=1, max_size=12
        )
    )
    wishes = [token for part in drawn for token in part]
    sampling = Sampling(max_tokens=data.draw(st.integers(80, 120)), max_reason_tokens=data.draw(st.integers(1, 40)))
    constraint, generated = ActionConstraint(ActionGrammar(chat), CHOICES, sampling, thinking), list[int]()
    for n in range(sampling.max_tokens):
        allowed, wish = constraint.allowed(), wishes[n % len(wishes)]
        token = wish % len(chat.tokenizer) if allowed is None else allowed[wish % len(allowed)]
        while allowed is None and token in constraint.forbidden():
            token = (token + 1) % len(chat.tokenizer)
        generated.append(token)
        constraint.advance(token)
        if token == chat.end_of_turn:
            break
    begin = constraint.thought
    answer = chat.said(generated[begin:], (), None if begin else thinking).answer
    read = parse_answer(answer, CHOICES)
    assert read is not None and (read.action in CHOICES or re.fullmatch(r"search\[.+\]", read.action)), text_of(
        chat, generated
    )


# ---- the whole path --------------------------------------------------------------------------------------------------


def test_what_a_student_thinks_is_its_reason_or_not(tmp_path: Path) -> None:
    decision = Decision(reason="said", action="look")
    for mode, reason in (("off", "said"), ("dropped", "said"), ("kept", "a thought"), ("trained", "a thought")):
        renderer = Renderer(PromptConfig(thinking=mode))  # type: ignore[arg-type]
        assert renderer.decision(decision, "a\nthought ") == Decision(reason=reason, action="look")
        assert renderer.decision(decision, " ") == decision and renderer.decision(None, "x") is None
        message = renderer.answer(decision, a_history(steps=1).task)
        if mode == "trained":
            assert message == {"role": "assistant", "content": "ACTION: look", "reasoning_content": "said"}
        else:
            assert message == {"role": "assistant", "content": "REASON: said\nACTION: look"}
        assert ("REASON: <" in renderer.render(a_history(steps=1))[0]["content"]) is (mode != "trained")


@pytest.mark.parametrize(
    "name",
    ["gemma3", "mistral", "llama3.1", "qwen2.5", "smollm3", "llama2", "deepseek3.1", "olmo2", "granite"],
)
def test_rules_of_the_system_are_never_lost(name: str) -> None:
    chat = chat_of(name)
    asked: list[Message] = [{"role": "system", "content": "Be brief."}, *ASKED]
    text = text_of(chat, chat.prompt(asked))
    assert text.count("Be brief.") == 1 and text.index("Be brief.") < text.index("What now?")
    merged = [{"role": "user", "content": "Be brief.\n\nWhat now?"}]
    assert (chat.prompt(asked) == chat.prompt(merged)) is (name in ("gemma3", "mistral"))  # type: ignore[arg-type]


def test_a_conversation_that_a_template_refuses_is_refused_in_one_line() -> None:
    from leap.errors import ModelRefused

    with pytest.raises(ModelRefused, match="take turns") as refused:
        chat_of("gemma3").prompt([*ASKED, *ASKED])
    assert "\n" not in str(refused.value)


def test_a_student_that_knows_no_thoughts_is_not_asked_for_any(tmp_path: Path) -> None:
    from leap.recipe import Recipe
    from leap.runs.preflight import _check_student
    from leap.testing.checkpoints import tiny_checkpoint

    folder = tiny_checkpoint(tmp_path / "chatml", "chatml", context=2048)
    values = {
        "name": "x",
        "environment": {"name": "corridor"},
        "student": {"model": f"hf/{folder}", "prompt": {"thinking": "kept"}},
    }
    with pytest.raises(PrerequisiteError, match="knows of no thinking"):
        _check_student(Recipe.model_validate(values))
    with pytest.raises(ValueError, match="scratch student"):
        Recipe.model_validate(values | {"student": {"prompt": {"thinking": "kept"}}})


# ---- templates of the makers, where TRL brings them ------------------------------------------------------------------


def makers() -> list[Path]:
    try:
        import trl
    except ImportError:
        return []
    found = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    pictures = {"idefics3", "llava_next", "smolvlm"}  # these take contents in parts alone
    return [path for path in found if not path.stem.endswith("_training") and path.stem not in pictures]


@pytest.mark.parametrize("path", makers(), ids=lambda path: path.stem)
def test_templates_of_the_makers(path: Path) -> None:
    template, tokenizer = path.read_text(encoding="utf-8"), tiny_tokenizer("chatml")
    kinds = r"<\|[A-Za-z_]+\|?>|<[a-z_]+\|>|</?think>|</?tool_call>|<(?:start|end)_of_turn>|<｜[^｜]*｜>"
    marks = sorted(set(re.findall(kinds, template)))
    added = [mark for mark in marks if "think>" in mark or "tool_call>" in mark]
    special = [mark for mark in marks if mark not in added] + ["<|call|>", "<|return|>"]
    tokenizer.add_special_tokens({"bos_token": "<|bos|>", "additional_special_tokens": special})
    tokenizer.add_tokens(added)
    tokenizer.chat_template = template
    chat, draw = ChatTokens(tokenizer), random.Random(path.stem)
    for thinking in (None, True, False) if chat.knows_thoughts else (None, False):
        for _ in range(5):
            texts = ["".join(draw.choices([*marks, *MARKS, "x", " y ", "\n"], k=5)) for _ in range(5)]
            asked: list[Message] = [
                {"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)
            ]
            plain: list[Message] = [{**message, "content": "x"} for message in asked]
            ids = chat.prompt(asked, (), thinking)
            assert controls(chat, ids) == controls(chat, chat.prompt(plain, (), thinking))
            message: Message = {"role": "assistant", "content": "REASON: x\nACTION: look"}
            if thinking:
                message["reasoning_content"] = f"No {draw.choice(added)} here" if set(THOUGHTS) & set(added) else "No."
            said = chat.said(chat.completion(message, asked, (), thinking), (), thinking)
            assert said == (message.get("reasoning_content", ""), message["content"])
