"""A person in the shop (`leap play webshop`)."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from generated_shop import generated, some_tasks
from rich.console import Console
from small_shop import a_product, said, write_files

from leap.cli.play import Played, play
from leap.core import Task
from leap.envs.base import load_environment
from leap.sync import run_sync
from leap_worlds.webshop.env import WebshopEnvironment


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> WebshopEnvironment:
    return generated(tmp_path_factory.mktemp("cache"))


def shopping(environment: WebshopEnvironment, task: Task, answers: list[str]) -> tuple[Played, str]:
    out = io.StringIO()
    said = iter(answers)

    def ask(prompt: str) -> str:
        try:
            return next(said)
        except StopIteration:
            raise EOFError from None

    return run_sync(play(environment, task, Console(file=out, width=200), ask)), out.getvalue()


def test_words_are_searched_numbers_click_and_a_purchase_shows_the_parts(shop: WebshopEnvironment) -> None:
    answers = ["99", "9" * 5000, "1", "?", "sofa", "3", "click[buy now]"]
    result, text = shopping(shop, some_tasks(shop, 1)[0], answers)
    assert "there is no number 99" in text and "hint: search[" in text and "> search[sofa]" in text
    assert "needs words" in text
    assert result.steps == 3 and result.hints == 1
    assert "attribute" in text and "price" in text and "Required attributes" in text


def test_who_leaves_has_bought_nothing(shop: WebshopEnvironment) -> None:
    result, text = shopping(shop, some_tasks(shop, 2)[1], ["", "q"])
    assert result.outcome is None and "not solved, given up" in text and "score 0.00" in text


HOSTILE = "<script>1</script> [bold]Mug[/] \x1b]0;owned\x07\x1b[2J\x9b2J {{7*7}} \\"


def test_what_a_seller_wrote_gives_the_terminal_no_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    options = {HOSTILE: [f"{HOSTILE} red", "blue"]}
    files = write_files(
        tmp_path,
        [a_product(0, name=HOSTILE, small_description=[HOSTILE], customization_options=options)],
        people={"B000000000": [said(f"i want {HOSTILE}", ["mug"], [f"{HOSTILE} red"])]},
    )
    environment = load_environment("webshop", {"path": str(files.products.parent)})
    answers = [
        "mug",
        "?",
        HOSTILE,
        "3",
        "click[features]",
        "click[< prev]",
        f"click[{HOSTILE.lower()} red]",
        "click[buy now]",
    ]
    result, text = shopping(environment, environment.tasks("all")[0], answers)
    assert result.outcome is not None and result.outcome.score > 0
    assert not set(text) & {chr(code) for code in (*range(32), 127, *range(128, 160))} - {"\n", "\t"}
    assert "<script>1</script> [bold]Mug[/] \N{REPLACEMENT CHARACTER}]0;owned" in text
