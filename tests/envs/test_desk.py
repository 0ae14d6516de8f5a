"""Calls of tools through the whole path: played by a model at an endpoint and by a checkpoint, corrected, and trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from desk import Desk

from leap.core import Actor, Correction, Decision, Episode, Rejection
from leap.datasets import Row, correction_rows, preference_rows, read_rows
from leap.envs.tools import call_of
from leap.models.base import EndpointConfig, Request, Sampling
from leap.models.ledger import Ledger
from leap.models.metered import MeteredModel
from leap.models.mock import Calls, MockModel, first_choice, mock_model
from leap.models.openai import OpenAIModel
from leap.policies.base import UNPARSED
from leap.policies.model import ModelPolicy
from leap.policies.react import ReActRenderer
from leap.policies.rendering import PromptConfig, Renderer
from leap.sync import run_sync
from leap.teachers.base import StudentContext, TeacherContext
from leap.teachers.config import SelfTeacherConfig
from leap.teachers.self import SelfTeacher
from leap.testing.checkpoints import tiny_checkpoint
from leap.testing.models import Scripted
from leap.testing.play import played, walked
from leap.testing.server import MockServer
from leap.testing.teachers import model_teacher

DESK = Desk()
TASKS = DESK.tasks("train", limit=3)
SAMPLING = Sampling(max_tokens=64)


def renderer(name: str = "dialogue", **options: Any) -> Renderer:
    return Renderer(PromptConfig.model_validate({"renderer": name} | options), DESK.prompts_of, grammar_of=DESK.grammar_of)


def order_in(request: Request) -> str:
    return re.findall(r"Order (A-\d)", json.dumps(request.messages))[0]


def clerk(request: Request) -> str | Calls:
    """Looks the order up, then pays back what its cause says; by the API's own messages."""
    last = request.messages[-1]
    if last["role"] != "tool":
        return Calls([("look_up", {"order": order_in(request)})], "I look first.")
    cents = 1000 if "lost" in last["content"] else 500
    return Calls([("refund", json.dumps({"cents": cents, "order": order_in(request)}))], "The cause is known.")


def play_at(server: MockServer, **settings: Any) -> list[Episode]:
    model = OpenAIModel("mock", SAMPLING, EndpointConfig(base_url=server.base_url, retries=0))
    return played(DESK, ModelPolicy(model, renderer(), Actor(name="student")), TASKS, **settings)


def test_a_model_at_an_endpoint_plays_by_the_apis_tools() -> None:
    with MockServer(clerk) as server:
        episodes = play_at(server)
        sent = server.last
    assert all(episode.success and len(episode.steps) == 2 for episode in episodes)
    first, second = episodes[0].steps
    assert (first.reason, first.action) == ("I look first.", '{"name": "look_up", "arguments": {"order": "A-0"}}')
    assert second.action == '{"name": "refund", "arguments": {"order": "A-0", "cents": 1000}}'  # in the schema's order
    assert '<tool_call>\n{"name": "refund", "arguments": {"cents": 1000, "order": "A-0"}}\n</tool_call>' in second.completion
    assert sent["tools"] == list(Desk.grammar.tools) and "tool_choice" not in sent
    asked, gave = sent["messages"][-2:]
    assert asked["content"] is None and json.loads(asked["tool_calls"][0]["function"]["arguments"]).keys() == {"order"}
    assert gave["role"] == "tool" and gave["tool_call_id"] == asked["tool_calls"][0]["id"]
    assert "call one tool" in sent["messages"][0]["content"] and "ACTION:" not in sent["messages"][0]["content"]


def test_of_several_calls_the_first_counts_and_a_damaged_one_is_kept_as_it_was() -> None:
    def hasty(request: Request) -> Calls:
        if request.messages[-1]["role"] == "tool":
            return Calls([("refund", '{"order": "A-0", cents'), ("look_up", {"order": "A-0"})])
        return Calls([("look_up", {"order": "A-9"}), ("refund", {"order": "A-0", "cents": 1})])

    with MockServer(hasty) as server:
        first, second = play_at(server, horizon=2)[0].steps
    assert first.action == '{"name": "look_up", "arguments": {"order": "A-9"}}' and '"cents": 1' in first.completion
    assert second.action == UNPARSED and not second.parsed
    assert json.dumps('{"order": "A-0", cents') in second.completion


@pytest.mark.parametrize("refuses", ["auto", "tools"])
def test_an_endpoint_that_parses_no_calls_or_knows_no_tools_is_asked_otherwise(refuses: str) -> None:
    """First as a server that shows the tools to its model alone, then in words."""

    def speaks(request: Request) -> str:
        assert bool(request.tools) is (refuses == "auto")
        if refuses == "tools":
            assert "- look_up: Shows an order." in request.messages[0]["content"]
            assert all(message["role"] != "tool" for message in request.messages)
            return f'REASON: So.\nACTION: {{"name": "look_up", "arguments": {{"order": "{order_in(request)}"}}}}'
        return f'So.\n{{"name": "look_up", "parameters": {{"order": "{order_in(request)}"}}}}'

    with MockServer(speaks, refuses=[refuses]) as server:
        episodes = play_at(server, horizon=2)
        sent = server.last
    assert sent.get("tool_choice") == ("none" if refuses == "auto" else None)
    for episode in episodes:
        assert [step.reason for step in episode.steps] == ["So.", "So."] and "cause" in episode.final.text


def test_requests_with_other_tools_are_other_requests(tmp_path: Path) -> None:
    model = MeteredModel(mock_model("first", SAMPLING), SAMPLING, Ledger(tmp_path / "calls.sqlite"))
    messages: Any = [{"role": "user", "content": "x"}]
    plain = model.request_key(Request(messages))
    assert plain == model.request_key(Request(messages, tools=()))
    keys = {model.request_key(Request(messages, tools=tools)) for tools in (Desk.grammar.tools, Desk.grammar.tools[:1])}
    assert len(keys | {plain}) == 3
    policy = ModelPolicy(model, renderer(), Actor(name="student"))
    once, again = (played(DESK, policy, TASKS, horizon=1) for _ in range(2))
    assert model.model.calls == len(TASKS)  # type: ignore[attr-defined]
    assert [e.steps for e in once] == [e.steps for e in again]
    assert once[0].steps[0].action == '{"name": "look_up", "arguments": {"order": "mock"}}'


def test_the_mock_calls_the_first_tool_with_the_least_arguments() -> None:
    said = first_choice(Request([{"role": "user", "content": "x"}], tools=Desk.grammar.tools[1:]))
    assert isinstance(said, Calls) and said.told() == [("refund", '{"order": "mock", "cents": 1}')]


def test_a_react_baseline_is_offered_the_tools_and_shown_calls_as_text() -> None:
    shown: list[Request] = []
    example = walked(DESK, TASKS[0], ['{"name": "refund", "arguments": {"order": "A-0", "cents": 1000}}'])

    def watched(request: Request) -> Calls:
        shown.append(request)
        return Calls([("look_up", {"order": order_in(request)})], "I look.")

    policy = ModelPolicy(
        MockModel(watched), ReActRenderer([example], grammar_of=DESK.grammar_of, examples=1), Actor(name="react")
    )
    (episode,) = played(DESK, policy, TASKS[1:2], horizon=2)
    assert [step.reason for step in episode.steps] == ["I look."] * 2
    assert shown[-1].tools == Desk.grammar.tools
    prompt = shown[-1].messages[0]["content"]
    assert 'ACTION: {"name": "refund", "arguments": {"order": "A-0", "cents": 1000}}' in prompt and "<one action" not in prompt


def test_the_self_teacher_calls_tools_as_the_student_does() -> None:
    meant = '{"name": "refund", "arguments": {"order": "A-0", "cents": 1000}}'
    model = MockModel(lambda request: Calls([("refund", {"cents": 1000, "order": "A-0"})], "It is lost."))
    context = TeacherContext(DESK, student=StudentContext(open=lambda: model, renderer=renderer()))
    corrections = run_sync(SelfTeacher(SelfTeacherConfig(), context).correct(walked(DESK, TASKS[0], WRONG)))
    assert [(c.reason, c.action, c.rejected) for c in corrections] == [("It is lost.", meant, None)] * 3


# ---- corrections -----------------------------------------------------------------------------------------------------

WRONG = [
    '{"name": "look_up", "arguments": {"order": "A-9"}}',
    "(no action)",
    '{"name": "refund", "arguments": {"order": "A-0", "cents": 5}}',
]


def corrected(answers: Callable[[int], Any]) -> tuple[Episode, list[Correction], str]:
    episode = walked(DESK, TASKS[0], WRONG)
    entries = [
        {"timestep": t, "leave_as_it_is": False, "corrected_reason": "I know.", "corrected_action": answers(t)} for t in range(3)
    ]
    model = Scripted(lambda prompt, call: json.dumps({"summary": "", "trajectory": entries}))
    return episode, run_sync(model_teacher(DESK, model, attempts=1).correct(episode)), model.prompts[0]


def test_a_model_teachers_calls_arrive_in_their_one_spelling() -> None:
    meant = '{"name": "refund", "arguments": {"order": "A-0", "cents": 1000}}'
    written: list[Any] = [
        '{"arguments":{"cents":1000,"order":"A-0"},"name":"refund"}',
        {"name": "refund", "arguments": {"cents": 1000, "order": "A-0"}},
        '```json\n{"name": "refund",\n "parameters": {"order": "A-0", "cents": 1000}}\n```',
    ]
    _, corrections, prompt = corrected(lambda t: written[t])
    assert [(c.action, c.rejected) for c in corrections] == [(meant, None)] * 3
    assert "- refund: Pays back" in prompt and f"Student's action: {WRONG[0]}" in prompt and "1000 cents are due" in prompt


def test_a_call_that_the_schema_forbids_is_not_admissible() -> None:
    bad = [
        '{"name": "pay", "arguments": {}}',
        '{"name": "refund", "arguments": {"order": "A-0", "cents": 0}}',
        "Pay back 1000 cents.",
    ]
    _, corrections, _ = corrected(lambda t: bad[t])
    assert {c.rejected for c in corrections} == {Rejection.NOT_ADMISSIBLE}


# ---- a checkpoint with tools in its template -------------------------------------------------------------------------

@pytest.fixture(scope="module", params=["tools", "words", "scratch"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("desk") / request.param
    return tiny_checkpoint(folder, "chatml" if request.param == "words" else request.param)


@pytest.mark.parametrize("prompt", ["dialogue", "paper"])
def test_a_rows_tokens_are_what_the_rollout_fed_and_would_generate(
    checkpoint: Path, prompt: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from leap.models.hf import HFModel
    from leap.training.branches import encode_row
    from leap.training.preference import encode_pair

    shown = renderer(prompt, instructions=False)
    model = HFModel(str(checkpoint), Sampling(max_tokens=8), batch=2)
    assert model.chat.takes_tools is (checkpoint.name == "tools")
    fed: set[tuple[int, ...]] = set()
    answer = model.answer_batch
    monkeypatch.setattr(model, "answer_batch", lambda requests: (fed.update(tuple(r.ids) for r in requests), answer(requests)))
    policy = ModelPolicy(model, shown, Actor(name="student"))
    (episode,) = played(DESK, policy, TASKS[:1], horizon=1)
    # A random student calls nothing, so it goes on from what a better one did, as a rollout would.
    episode = walked(DESK, TASKS[0], [WRONG[0], episode.steps[0].action, WRONG[0], WRONG[2]])
    player_fed = [episode.history(t) for t in range(len(episode.steps))]

    async def ask() -> None:
        async with model.conversation() as conversation:
            for history in player_fed:
                messages = policy.renderer.render(history)  # type: ignore[union-attr]
                await conversation.complete(Request(messages, seed=0, tools=Desk.grammar.tools))

    run_sync(ask())
    meant = '{"name": "refund", "arguments": {"order": "A-0", "cents": 1000}}'
    corrections = [
        Correction(episode=episode.key, t=t, reason="It is lost.", action=meant, teacher="x", privilege=50)
        for t in range(len(episode.steps))
    ]
    rows = list(correction_rows({episode.key: episode}, corrections, shown, iteration=1))
    assert [row.completion[0].get("tool_calls") for row in rows] == [[{"type": "function", "function": call_of(meant)}]] * 4
    (tmp_path / "rows.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    assert rows == list(read_rows(tmp_path / "rows.jsonl"))  # also from the file
    for row in rows:
        encoded = encode_row(row, model.chat)
        assert tuple(encoded.prompt) in fed
        read = Desk.grammar.read(model.chat.said(encoded.answer, row.tools).answer, episode.final)
        assert read == Decision(reason="It is lost.", action=meant)
    pairs = list(preference_rows(rows, {episode.key: episode}, DESK.grammar_of))
    for pair, row in zip(pairs, rows, strict=True):
        encoded, both = encode_row(row, model.chat), encode_pair(pair, model.chat)
        assert (both.prompt, both.chosen) == (encoded.prompt, encoded.answer)
        read = Desk.grammar.read(model.chat.said(both.rejected, pair.tools).answer, episode.final)
        assert (read.action if read else UNPARSED) == episode.steps[row.t].action


def test_rows_without_tools_stand_in_files_as_ever() -> None:
    plain = Row(prompt=[{"role": "user", "content": "x"}], completion=[], episode="e", t=0, source="s", iteration=0)
    assert "tools" not in json.loads(plain.model_dump_json()) and "tools" not in plain.model_dump()


# ---- for other programs ----------------------------------------------------------------------------------------------


def test_what_is_exported_holds_tools_and_calls(tmp_path: Path) -> None:
    """Without the environment's package: it is not registered here, and the rows tell how actions are written."""
    pytest.importorskip("datasets")
    from datasets import load_dataset

    from leap.files import Journal, write_text
    from leap.runs.directory import RunDirectory
    from leap.runs.export import export_parquet, export_trl

    run = RunDirectory(tmp_path / "run")
    episode = walked(DESK, TASKS[0], WRONG)
    meant = '{"name": "refund", "arguments": {"order": "A-0", "cents": 1000}}'
    corrections = [
        Correction(episode=episode.key, t=t, reason="It is lost.", action=meant, teacher="x", privilege=50) for t in range(3)
    ]
    run.iteration(1).mkdir(parents=True)
    write_text(run.recipe, "environment: {name: desk}\n")
    Journal(run.episodes(1), Episode).append(episode)
    rows = list(correction_rows({episode.key: episode}, corrections, renderer(), iteration=1))
    write_text(run.rows(1), "".join(row.model_dump_json() + "\n" for row in rows))
    export_trl(run, tmp_path / "trl")
    lines = [json.loads(line) for line in (tmp_path / "trl/preference/iter_1.jsonl").read_text().splitlines()]
    assert [line["tools"] for line in lines] == [list(Desk.grammar.tools)] * 3
    assert lines[0]["chosen"][0]["tool_calls"][0]["function"] == call_of(meant)
    assert lines[0]["rejected"][0]["tool_calls"][0]["function"] == call_of(WRONG[0])
    assert lines[1]["rejected"] == [{"role": "assistant", "content": "so\n(no action)"}]
    export_parquet(run, tmp_path / "parquet")
    table = load_dataset(str(tmp_path / "parquet"), "sft", cache_dir=str(tmp_path / "cache"))["iter_1"]  # type: ignore[index]
    row = table[2]
    assert json.loads(row["tools"]) == list(Desk.grammar.tools)
    (call,) = row["completion"][0]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"order": "A-0", "cents": 1000}
    assert row["prompt"][2]["tool_call_id"] == row["prompt"][1]["tool_calls"][0]["id"]
