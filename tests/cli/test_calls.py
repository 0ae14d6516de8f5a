"""`leap calls`: prompts and answers of a run's calls, from files of this version and of earlier ones, whatever stands in them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import make_recipe
from typer.testing import CliRunner

from leap.cli.app import app
from leap.errors import ModelError
from leap.models.base import Completion, Request, Sampling
from leap.models.calls import Call, CallFilter, CallsSection
from leap.models.ledger import Budget, Ledger, fingerprint, look_at_calls, read_totals
from leap.models.metered import MeteredModel, NotedModel
from leap.recipe import dump_recipe
from leap.runs.directory import RunDirectory
from leap.testing.models import Scripted

SAMPLING = Sampling(temperature=0.3, max_tokens=64)
RULES = "You coach an agent.\n" + "A rule that stands in every prompt, and is long. " * 80


def ask(path: Path, model: Scripted, *requests: Request, stage: str = "correct 1", **calls: Any) -> None:
    """Asks one after another, and notes of answers that hold the word bad that they cannot be used."""
    ledger = Ledger(path, calls=CallsSection(**calls))
    metered = MeteredModel(model, SAMPLING, ledger)

    async def all_of_them() -> None:
        async with metered.conversation() as conversation:
            for request in requests:
                try:
                    if "bad" in (await conversation.complete(request)).text:
                        metered.unread(request, "it holds no JSON")
                except ModelError:
                    pass

    with ledger.stage(stage):
        asyncio.run(all_of_them())
    ledger.close()


def said(text: str, step: int | None = None, task: str = "train/7", **more: Any) -> Request:
    return Request([{"role": "user", "content": text}], task=task, step=step, **more)


def on_file(path: Path, **wanted: Any) -> list[Call]:
    return look_at_calls(path, list, CallFilter(**wanted))


def a_run(folder: Path) -> RunDirectory:
    """A run with five calls of every outcome, whose prompts are alike."""
    run = RunDirectory(folder / "run")
    run.root.mkdir()
    run.recipe.write_text(dump_recipe(make_recipe()))
    answers = ["good", "a bad one", " \n", Completion("half of", 9, 64, truncated=True), ModelError("429 for ever")]
    model = Scripted(lambda prompt, call: answers[call])
    ask(run.calls, model, *(said(f"{RULES} Now {step}.", step, seed=step) for step in range(5)))
    ask(run.calls, Scripted(lambda prompt, call: "ACTION: look"), said("Play.", 0, "test/1"), stage="baseline react")
    return run


def told(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["calls", *arguments])
    assert result.exit_code == status, result.output
    return result.output


def test_calls_are_listed_read_and_filtered(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    lines = told(str(run.root)).splitlines()
    assert len(lines) == 7 and all(line.split()[0] == str(n) for n, line in enumerate(lines[:6], start=1))
    assert "unread" in lines[1] and "it holds no JSON" in lines[1] and "429 for ever" in lines[4]
    whole = told(str(run.root), "2")
    assert f"{RULES} Now 1." in whole and "a bad one" in whole and "seed: 1" in whole and "Now 2." not in whole
    for outcome, step in (("read", 0), ("unread", 1), ("empty", 2), ("cut-off", 3), ("failed", 4)):
        (call,) = on_file(run.calls, outcome=outcome, stage="correct")
        assert (call.step, call.outcome, call.task, call.model) == (step, outcome, "train/7", "scripted/one")
    assert [call.number for call in on_file(run.calls, stage="baseline react")] == [6]
    assert on_file(run.calls, stage="corr") == on_file(run.calls, model="no such") == []
    assert [call.number for call in on_file(run.calls, task="test/")] == [6]
    assert [call.number for call in on_file(run.calls, step=0)] == [1, 6]
    assert told(str(run.root), "--last", "2", "--full").count("========") == 2
    records = [json.loads(line) for line in told(str(run.root), "--json", "--last", "0").splitlines()]
    assert [record["number"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[3]["request"]["messages"][0]["content"] == f"{RULES} Now 3."
    assert "one of read, unread" in told(str(run.root), "--outcome", "fine", status=2)
    assert "no such call" in told(str(run.root), "77")


def test_what_a_model_says_does_not_steer_the_terminal(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    hostile = "\x1b]0;owned\x07\x1b[2J\r\x9b31m \ud800 fine\n======== 9"
    ask(run.calls, Scripted(lambda prompt, call: hostile), said(hostile, task=hostile, seed=99))
    for arguments in (["7"], []):
        shown = told(str(run.root), *arguments)
        assert "fine" in shown and not set(shown) & {"\x1b", "\x07", "\r", "\x9b"}
    assert json.loads(told(str(run.root), "7", "--json"))["answer"] == hostile


def test_a_run_of_an_earlier_version_opens_without_prompts_and_stays_as_it_is(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    with sqlite3.connect(run.calls) as db:
        db.execute("DROP TABLE asked")
    before = run.calls.read_bytes()
    assert "the prompt is not on file" in told(str(run.root), "1") and "good" in told(str(run.root), "1")
    assert [call.outcome for call in on_file(run.calls)] == ["read", "read", "empty", "cut-off", "failed", "read"]
    assert on_file(run.calls, task="train") == []
    assert run.calls.read_bytes() == before
    known = fingerprint(run.calls)
    ask(run.calls, Scripted(lambda prompt, call: "new"), said("More.", 3, seed=5))
    assert fingerprint(run.calls, 6) == known, "what was booked before is untouched"
    assert on_file(run.calls)[-1].request == {"messages": [{"role": "user", "content": "More."}], "seed": 5}


def test_prompts_are_packed_up_to_a_size_or_not_kept(tmp_path: Path) -> None:
    answers = Scripted(lambda prompt, call: "ok")
    requests = [said(f"{RULES} Now {n}.", n) for n in range(200)]
    ask(tmp_path / "a", answers, *requests)
    ask(tmp_path / "b", answers, *requests, keep=False)
    kept, bare = ((tmp_path / name).stat().st_size for name in "ab")
    assert kept - bare < 200 * len(RULES) / 20
    assert all(call.request is None for call in on_file(tmp_path / "b"))
    assert [call.request["messages"][0]["content"] for call in on_file(tmp_path / "a") if call.request] == [
        request.messages[0]["content"] for request in requests
    ]
    ask(tmp_path / "c", answers, *requests, most_mb=0.002)
    kept_of = [call.request is not None for call in on_file(tmp_path / "c")]
    assert 0 < sum(kept_of) < 200 and kept_of == sorted(kept_of, reverse=True)
    ask(tmp_path / "c", answers, said("One more.", seed=1), most_mb=1)
    assert on_file(tmp_path / "c")[-1].request is not None, "a raised limit applies"


def test_calls_of_a_model_in_process_are_kept_to_be_read_and_for_nothing_else(tmp_path: Path) -> None:
    answers = ["good", "a bad one", ModelError("out of memory")]
    model, path = Scripted(lambda prompt, call: answers[call % 3]), tmp_path / "a"

    def asked(path: Path, times: int, **section: Any) -> Ledger:
        ledger = Ledger(path, budget=Budget(tokens=1), calls=CallsSection(**section))
        noted = NotedModel(model, ledger)

        async def ask_again_and_again() -> None:
            async with noted.conversation() as conversation:
                for n in range(times):
                    with suppress(ModelError):
                        if "bad" in (await conversation.complete(said("The same.", 2))).text:
                            noted.unread(said("The same.", 2), f"it holds no JSON, {n}")

        with ledger.stage("correct 1"):
            asyncio.run(ask_again_and_again())
        return ledger

    ledger = asked(path, 6)
    assert len(model.requests) == 6, "none is answered from file"
    assert ledger.total().calls == 0 and ledger.spent == (0.0, 0) and read_totals(path) == []
    calls = on_file(path)
    assert [call.outcome for call in calls] == ["read", "unread", "failed"] * 2
    assert [call.problem for call in calls[:3]] == ["", "it holds no JSON, 1", "out of memory"]
    assert [call.problem for call in calls[3:]] == ["", "it holds no JSON, 4", "out of memory"]
    assert all(call.request and call.request["messages"] == said("The same.").messages and call.step == 2 for call in calls)
    ledger.close()
    assert len(on_file(path)) == 6 and Ledger(path).spent == (0.0, 0)
    asked(tmp_path / "b", 3, keep=False).close()
    assert on_file(tmp_path / "b") == []
    asked(tmp_path / "c", 300, most_mb=0.002).close()
    kept = len(on_file(tmp_path / "c"))
    assert 3 < kept < 200, "what does not fit is not kept at all"
    asked(tmp_path / "c", 3, most_mb=0.002).close()
    assert len(on_file(tmp_path / "c")) == kept


@settings(max_examples=30)
@given(st.lists(st.text(max_size=200), min_size=1, max_size=8))
def test_every_prompt_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("calls") / "calls.sqlite"
    requests = [said(text, seed=n, stop=["\n"], warmer=0.3 * n) for n, text in enumerate(texts)]
    ask(path, Scripted(lambda prompt, call: "ok"), *requests)
    assert [call.request["messages"] for call in on_file(path) if call.request] == [one.messages for one in requests]
    assert [call.request.get("warmer", 0) for call in on_file(path) if call.request] == [one.warmer for one in requests]
