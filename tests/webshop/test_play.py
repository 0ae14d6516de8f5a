"""A person in the shop."""

from __future__ import annotations

import io

import pytest
from generated_shop import generated, some_tasks
from rich.console import Console

from leap.envs.webshop.env import WebshopSession
from leap.envs.webshop.play import play


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
