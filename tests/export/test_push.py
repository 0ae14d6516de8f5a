"""A pushed checkpoint: its card says what the run measured, and nothing of this machine goes along."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from tiny_run import make_run
from typer.testing import CliRunner

from leap.cli.app import push
from leap.core import Correction
from leap.errors import PrerequisiteError, RunError
from leap.files import Journal, read_json, write_json
from leap.runs.directory import RunDirectory, marker
from leap.runs.push import push_to_folder, push_to_hub
from leap.testing.checkpoints import tiny_checkpoint
from leap_lab.measures.figures import share

pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = make_run(tmp_path_factory.mktemp("run") / "tiny", finished=1)
    tiny_checkpoint(run.checkpoint(1), "llama3")
    (run.checkpoint(1) / "training_args.bin").write_bytes(b"a pickle")
    return run


def test_the_card_says_how_it_was_trained_and_what_was_measured(run: RunDirectory, tmp_path: Path) -> None:
    card = push_to_folder(run, 1, tmp_path / "out").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "transformers" and "leap" in head["tags"] and "base_model" not in head
    for said in ("| iteration | 1 of 2 |", "| teacher | expert |", "| privilege level | 50 of 100 |", "none: random weights"):
        assert said in card
    for entry in read_json(run.iteration(1) / "evaluation.json"):
        score = entry["overall"]
        use = "validation" if entry["split"] == "valid" else "test"
        assert f"| {entry['split']} | {use} | {score['n']} | {score['success']:.1%} | {score['low']:.1%} to" in card
    corrections = list(Journal(run.iteration(1) / "corrections.jsonl", Correction))
    kept = [one for one in corrections if one.kept]
    leaks = sum(bool(one.leaked) for one in kept)
    row = f"| 1 | {len(corrections)} | {len(kept)} | {leaks} ({leaks / len(kept):.1%}) | "
    assert 0 < leaks < len(kept) < len(corrections) and row in card
    low, high = (float(end) / 100 for end in re.findall(r"([\d.]+)%", card.split(row)[1].splitlines()[0]))
    # The report's own figure of the same corrections, by episode, and not steps taken for independent.
    by_episode = {one.episode: [x for x in kept if x.episode == one.episode] for one in kept}
    figure = share((sum(bool(x.leaked) for x in group), len(group)) for group in by_episode.values())
    assert figure is not None and (low, high) == pytest.approx((figure.low, figure.high), abs=0.001)


def test_the_folder_is_a_checkpoint_and_holds_nothing_else(run: RunDirectory, tmp_path: Path) -> None:
    from leap.models.checkpoints import load_causal_lm

    push_to_folder(run, 1, tmp_path / "out")
    load_causal_lm(str(tmp_path / "out"), device="cpu")
    assert not list((tmp_path / "out").glob("*.bin"))
    with pytest.raises(RunError, match="there already"):
        push_to_folder(run, 1, tmp_path / "out")
    with pytest.raises(RunError, match="train iteration 2"):
        push_to_folder(run, 2, tmp_path / "other")


@pytest.mark.parametrize(
    ("noted", "told", "base"),
    [
        ("hf/owner/name@0a1b", "owner/name (revision 0a1b)", "owner/name"),
        ("hf/owner/name", "owner/name", "owner/name"),
        ("hf/0123456789abcdef", "a local model, name (content 0123456789abcdef)", None),
    ],
)
def test_the_card_names_the_base_that_was_trained(
    noted: str, told: str, base: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever folder stands where the card is written."""
    run = make_run(tmp_path / "run", finished=1)
    recipe = yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    recipe["student"]["model"] = "hf/owner/name"
    run.recipe.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    kept = marker(run.checkpoint(1))
    write_json(kept, read_json(kept) | {"base": noted})
    for here in ("with/owner/name", "without"):
        (tmp_path / here).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / here.partition("/")[0])
        card = push_to_folder(run, 1, tmp_path / "out" / here).read_text(encoding="utf-8")
        assert yaml.safe_load(card.split("---")[1]).get("base_model") == base
        assert f"| base model | {told} |" in card


def test_an_adapter_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", finished=1)
    base = tmp_path / "secret" / "base-8b"
    base.mkdir(parents=True)
    values = {"peft_type": "LORA", "base_model_name_or_path": str(base)}
    (run.checkpoint(1) / "adapter_config.json").write_text(json.dumps(values))
    push_to_folder(run, 1, tmp_path / "out")
    assert read_json(tmp_path / "out" / "adapter_config.json")["base_model_name_or_path"] == "base-8b"
    assert not any(str(tmp_path) in path.read_text() for path in (tmp_path / "out").iterdir())


class Refusing(BaseHTTPRequestHandler):
    """A Hub that knows nobody."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(401)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_the_hub_refuses_is_one_line_without_the_token(
    run: RunDirectory, hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    with pytest.raises(PrerequisiteError, match=r"refused 'me/tiny' \(401\): check the token") as refused:
        push_to_hub(run, 1, "me/tiny", endpoint=hub)
    assert "hf_abc" not in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(PrerequisiteError, match="not a name"):
        push_to_hub(run, 1, "me/tiny/two", endpoint=hub)
    with pytest.raises(PrerequisiteError, match="cannot be reached"):
        push_to_hub(run, 1, "me/tiny", endpoint="http://127.0.0.1:9")


def test_without_a_token_it_says_how_to_get_one(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(PrerequisiteError, match="hf auth login"):
        push_to_hub(run, 1, "me/tiny")


def test_the_command_line_pushes_to_a_folder(run: RunDirectory, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(push)
    done = CliRunner().invoke(app, [str(run.root), "-i", "1", "--to-folder", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "README.md").exists()
    assert CliRunner().invoke(app, [str(run.root), "-i", "1"]).exit_code != 0
