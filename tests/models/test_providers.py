"""Models by name."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from leap import registry
from leap.errors import PrerequisiteError, RecipeError
from leap.models.base import EndpointConfig, Request, Sampling
from leap.models.ledger import Budget, Ledger, look_at_calls
from leap.models.metered import MeteredModel
from leap.models.mock import MockModel
from leap.models.providers import Provider, open_model, split_name

SAMPLING = Sampling(temperature=0, max_tokens=8)


def test_names() -> None:
    assert split_name("openai/org/model") == ("openai", "org/model")
    assert {"hf", "openai", "vllm", "mock"} <= set(registry.model.names())
    for name in ("gpt-4o", "openai/", "/x", "", "nobody/gpt-4o"):
        with pytest.raises(RecipeError, match=r"names look like provider/model, with one of hf/\.\.\."):
            split_name(name)


def test_reading_names_and_ledgers_imports_nothing_heavy() -> None:
    code = (
        "import sys, leap.models.providers as p, leap.models.ledger, leap.models.base\n"
        "p.split_name('openai/x')\n"
        "print([name for name in ('torch', 'transformers', 'trl', 'openai', 'httpx2', 'pyarrow') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_endpoint_models_are_metered_and_those_in_process_are_only_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "calls.sqlite")
    model = open_model("mock/first", SAMPLING, endpoint=EndpointConfig(concurrency=3), ledger=ledger)
    assert isinstance(model, MeteredModel) and model.concurrency == 3 and model.name == "mock/first" and model.constrains
    assert isinstance(open_model("mock/first", SAMPLING), MockModel)
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-test")
    assert isinstance(open_model("openai/gpt-4o", SAMPLING, ledger=ledger), MeteredModel)
    pytest.importorskip("torch")
    from leap.testing.checkpoints import tiny_checkpoint

    model = open_model(f"hf/{tiny_checkpoint(tmp_path / 'tiny')}", SAMPLING, ledger=ledger, batch=5)
    assert model.concurrency == 5

    async def ask() -> list[str]:
        request = Request([{"role": "user", "content": "x"}], schema={})
        async with model.conversation() as conversation:
            first = await conversation.complete(request)
        return [first.text, (await model.complete(request)).text]  # a conversation of its own

    first, again = asyncio.run(ask())
    assert first == again and ledger.total().calls == 0
    assert [call.answer for call in look_at_calls(ledger.path, list)] == [first, again]


def test_a_cap_in_dollars_on_an_unpriced_model_is_refused_before_anything_starts(tmp_path: Path) -> None:
    capped = Ledger(tmp_path / "calls.sqlite", budget=Budget(usd=5))
    with pytest.raises(RecipeError, match=r"price of openai/mystery is not known.*openai/mystery: \{input"):
        open_model("openai/mystery", SAMPLING, ledger=capped)


def test_a_provider_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    points = (
        EntryPoint("other", "leap.models.mock:MockModel", "leap.models"),
        EntryPoint("absent", "no_such_package_here:Absent", "leap.models"),
    )
    monkeypatch.setattr(registry, "_entry_points", lambda group, path: points)
    with pytest.raises(PrerequisiteError, match="'absent' cannot be imported"):
        open_model("absent/x", SAMPLING)

    class Other(Provider):
        def open(self, model: str, sampling: Sampling, **more: Any) -> MockModel:
            return MockModel(lambda request: model, sampling=sampling)

    monkeypatch.setattr(EntryPoint, "load", lambda self: Other)
    assert open_model("other/some/name", SAMPLING).name == "mock/script"


def test_a_missing_client_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.delitem(sys.modules, "leap.models.openai", raising=False)
    with pytest.raises(PrerequisiteError, match="openai/x needs the openai client"):
        open_model("openai/x", SAMPLING)
