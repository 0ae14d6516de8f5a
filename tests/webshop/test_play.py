"""A person in the shop."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from generated_shop import generated, some_tasks
from rich.console import Console
from small_shop import a_product, said, write_files

from leap.envs.base import load_environment
from leap_worlds.webshop.env import WebshopSession
from leap_worlds.webshop.play import play


@pytest.fixture(scope="module")
def session_of(tmp_path_factory: pytest.TempPathFactory) -> WebshopSession:
    environment = generated(tmp_path_factory.mktemp("cache"))
    session = environment.start(some_tasks(environment, 1)[0])
    assert isinstance(session, WebshopSession)
    return session


def shopping(session: WebshopSession, answers: list[str]) -> tuple[object, str]:
    out = io.StringIO()
    said = iter(answers)

    def ask(prompt: str) -> str:
        try:
            return next(said)
        except StopIteration:
            raise EOFError from None

    result = play(session, "the task", Console(file=out, width=200), ask=ask)
    return result, out.getvalue()


def test_words_are_searched_numbers_click_and_a_purchase_shows_the_parts(session_of: WebshopSession) -> None:
    result, text = shopping(session_of, ["99", "9" * 5000, "1", "?", "sofa", "3", "click[buy now]"])
    assert "there is no number 99" in text and "hint: search[" in text and "> search[sofa]" in text
    assert result.steps == 3 and result.hints == 1 and result.best == 1.0  # type: ignore[attr-defined]
    assert "attribute" in text and "price" in text and "Required attributes" in text


def test_who_leaves_has_bought_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = generated(tmp_path_factory.mktemp("cache2"))
    session = environment.start(some_tasks(environment, 2)[1])
    assert isinstance(session, WebshopSession)
    result, text = shopping(session, ["", "q"])
    assert result.score == 0.0 and "nothing bought" in text  # type: ignore[attr-defined]


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
    session = environment.start(environment.tasks("all")[0])
    assert isinstance(session, WebshopSession)
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
    result, text = shopping(session, answers)
    assert result.score > 0  # type: ignore[attr-defined]
    assert not set(text) & {chr(code) for code in (*range(32), 127, *range(128, 160))} - {"\n", "\t"}
    assert "<script>1</script> [bold]Mug[/] \N{REPLACEMENT CHARACTER}]0;owned" in text
