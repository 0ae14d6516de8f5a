"""`leap view`: what its server says, to whom, and that it changes nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from tiny_run import FAIL, HOSTILE, SOLVE, WORLD, correct, make_recipe, make_run, play, task

from leap.core import Actor, Correction, Episode
from leap.core.message import characters
from leap.errors import LeapError
from leap.files import Journal
from leap.models.base import Completion, Request
from leap.models.ledger import Ledger
from leap.policies.model import ModelPolicy
from leap.policies.rendering import Renderer
from leap.report.calls import asked
from leap.report.index import Index
from leap.report.server import Server
from leap.report.view import RunView
from leap.testing.models import Scripted
from leap.testing.play import played
from leap.training.losses import last_step, loss_curves, note_loss

Ask = Callable[..., Any]
STUDENT = Actor(name="student", checkpoint="key-0", iteration=0)


@contextmanager
def served(*roots: Path) -> Iterator[tuple[str, Ask]]:
    with Server([RunView(root, WORLD) for root in roots]) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        parts = urlsplit(server.url)

        def ask(what: str = "", path: str = parts.path, headers: dict[str, str] = {}, method: str = "GET", **query: Any) -> Any:  # noqa: B006
            connection = HTTPConnection("127.0.0.1", parts.port, timeout=30)
            connection.request(method, f"{path}{what}{'?' if query else ''}{urlencode(query)}", headers=headers)
            answer: Any = connection.getresponse()
            answer.content = answer.read().decode()
            connection.close()
            return answer

        try:
            yield server.url, ask
        finally:
            server.shutdown()
            thread.join()


def table(answer: Any) -> list[dict[str, Any]]:
    told = json.loads(answer.content)
    files = [group["file"] for group in told["groups"]]
    rows = [dict(zip(told["columns"], row, strict=True)) for row in told["rows"]]
    return [row | {"file": files[row["group"]]} for row in rows]


def test_all_episodes_of_all_policies_are_listed_and_come_one_at_a_time(tmp_path: Path) -> None:
    run = make_run(tmp_path / "tiny")
    with served(run.root) as (_, ask):
        page = ask()
        rows = table(ask("rows"))
        assert len(rows) == 3 * 8 + 6 * 3 * 8, "three rounds to train from; six policies on three splits"
        one = next(row for row in rows if row["file"] == "iter-1/episodes.jsonl" and row["rejected"])
        assert (one["stop"], one["kept"], one["differs"], one["rejected"]) == ("horizon", 5, 5, ["not_admissible"])
        assert (one["odd"], one["unread"], one["again"]) == (1, 0, 1)
        got = json.loads(ask("episode", file=one["file"], place=one["place"]).content)
        texts = got["texts"]
        assert texts[got["episode"]["steps"][2]["teacher"]["reason"]].startswith("the lamp 1 is east")
        assert len(json.loads(ask("states", file=one["file"], place=one["place"]).content)) == 6
    assert "<img" not in page.content and HOSTILE not in page.content
    assert "connect-src 'self'" in page.content and "unsafe" not in page.content
    assert 'id="losses"' not in page.content and "Why episodes failed" in page.content


def test_only_who_calls_this_machine_by_its_name_and_knows_the_secret_is_answered(tmp_path: Path) -> None:
    with served(make_run(tmp_path / "tiny").root) as (url, ask):
        port = urlsplit(url).port
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "[", "192.168.0.7"):
            answer = ask(headers={"Host": host})
            assert answer.status in (403, 404) and "tiny" not in answer.content
        for host in (f"127.0.0.1:{port}", "localhost:9000", "LOCALHOST"):  # another port: of a tunnel
            assert ask(headers={"Host": host}).status == 200
        for path in ("/", "/0/", "/secret/0/", "//0/", "/%2e%2e/", "/../../etc/passwd"):
            assert ask(path=path).status in (403, 404)
        for what in ("nothing", "../recipe.yaml", "episode", "step"):
            assert ask(what).status == 404
        for query in ({"file": "recipe.yaml", "place": 0}, {"file": "iter-1/episodes.jsonl", "place": 7}):
            assert ask("episode", **query).status == 404
        assert ask(path=urlsplit(url).path.replace("/0/", "/7/")).status == 404
        assert ask(method="POST").status == 501
        answer = ask("rows")
        assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert ask().headers["Content-Security-Policy"] == "frame-ancestors 'none'"


def test_a_run_under_way_is_followed_and_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "tiny", iterations=2, finished=1)
    with run.locked(), served(run.root) as (_, ask):
        before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*")}
        first = ask("rows")
        told = json.loads(first.content)
        again = json.loads(ask("rows", seen=told["version"]).content)
        assert "rows" not in again and again["version"] == told["version"]
        assert "stages are left" in again["progress"] and "rollouts of pi_1" in again["progress"]
        assert {path: path.stat().st_mtime_ns for path in run.root.rglob("*")} == before
        run.episodes(2).parent.mkdir()
        with run.episodes(2).open("ab") as file:
            file.write(play(task("train", 0), STUDENT, FAIL).line())
            file.write(b'{"task": {"torn')
        more = table(ask("rows", seen=told["version"]))
        assert len(more) == len(table(first)) + 1 and more[-1]["file"].startswith("baselines")
        note_loss(run.losses(2), 1, 10, 3.5)
        assert "of 10 steps" in json.loads(ask("rows").content)["progress"] and 'id="losses"' in ask().content
        run.episodes(2).write_bytes(b"no record\n")
        answer = ask("rows")
        assert answer.status == 500 and "line 1 is damaged" in answer.content


def test_the_prompt_is_the_one_that_the_student_was_shown(tmp_path: Path) -> None:
    recipe = make_recipe()
    answers = ["REASON: so\nACTION: go west", "no action at all", "REASON: so\nACTION: stay here"]
    model = Scripted(lambda prompt, number: answers[number % 3])
    renderer = Renderer(recipe.student.prompt, WORLD.prompts_of, grammar_of=WORLD.grammar_of)
    most = characters(renderer.render(play(task("train", 0), STUDENT, FAIL).history(3)))
    renderer = renderer.limited(most)
    (episode,) = played(WORLD, ModelPolicy(model, renderer, STUDENT), [task("train", 0)])
    shown = [asked(request.messages) for request in model.requests]
    assert any(step.dropped for step in episode.steps) and not all(step.parsed for step in episode.steps)
    run = make_run(tmp_path / "tiny")
    view = RunView(run.root, WORLD)
    assert [view.prompt(episode, t) for t in range(len(episode.steps))] == shown
    assert view.prompt(play(task("train", 0), Actor(name="expert"), SOLVE), 0) == "", "a script is asked nothing"


def test_calls_stand_with_the_step_they_are_about(tmp_path: Path) -> None:
    run = make_run(tmp_path / "tiny")
    ledger = Ledger(run.calls)
    for number, (stage, about, step) in enumerate(
        [("correct 1", "train/3", 2), ("correct 1", "train/3", None), ("correct 1", "train/33", 2), ("correct 2", "train/3", 2)]
    ):
        with ledger.stage(stage):
            prompt = Request([{"role": "user", "content": f"asked {number} {HOSTILE}"}], task=about, step=step)
            ledger.book(str(number), "m/one", Completion(f"said {number}", 9, 9), 1.0, request=prompt)
    ledger.close()
    with served(run.root) as (_, ask):
        one = next(row for row in table(ask("rows")) if row["file"] == "iter-1/episodes.jsonl" and row["id"] == "train/3")
        of_step = ask("step", file=one["file"], place=one["place"], t=2).content
        assert "said 0" in of_step and not any(f"said {number}" in of_step for number in (1, 2, 3))
        assert "answered, as generated" in of_step and HOSTILE not in of_step and "asked 0 &lt;/script&gt;" in of_step
        whole = ask("step", file=one["file"], place=one["place"], t=-1).content
        assert "said 1" in whole and "said 0" not in whole
        assert ask("calls", outcome="failed").content.count("<details") == 2
        newest = ask("calls", task="train/3", newest=2).content
        assert newest.index("said 3") < newest.index("said 2") and "said 1" not in newest


def test_search_finds_what_was_said_and_what_a_teacher_said_and_no_names_of_fields(tmp_path: Path) -> None:
    run = make_run(tmp_path / "tiny")
    with served(run.root) as (_, ask):
        rows = table(ask("rows"))
        failed = {row["key"] for row in rows if row["file"].endswith("episodes.jsonl") and row["kept"]}

        def found(text: str) -> set[str]:
            return set(json.loads(ask("search", text=text).content))

        assert found("LAMP 12") == failed
        assert found("Walk 7: REACH") == {row["key"] for row in rows if row["id"].endswith("/7")}
        assert found(HOSTILE.upper()) == {row["key"] for row in rows}
        assert found("prompt_tokens") == set() and found('"action":"') == set()


def test_an_index_reads_on_and_from_the_beginning_where_the_file_is_another(tmp_path: Path) -> None:
    path, index = tmp_path / "episodes.jsonl", Index()
    assert index.episodes(path) == []
    episodes = [play(task("train", number), STUDENT, FAIL) for number in range(4)]
    for number, episode in enumerate(episodes):
        with path.open("ab") as file:
            file.write(episode.line() + episode.line() + b'{"torn')
        assert [one.key for one in index.episodes(path)] == [one.key for one in episodes[: number + 1]]
        path.write_bytes(path.read_bytes().removesuffix(b'{"torn'))  # as the next writer does
    corrections, known = Journal(tmp_path / "corrections.jsonl", Correction), index.episodes(path)
    for episode in episodes:
        for one in correct(episode):
            corrections.append(one)
        index.corrections(corrections.path, known)
    assert index.corrections(corrections.path, known).counts["corrections"] == len(corrections)
    assert Episode.model_validate_json(path.read_bytes()[known[1].place :].split(b"\n")[0]).key == known[1].key
    path.unlink()
    path.write_bytes(episodes[3].line())
    assert [one.key for one in index.episodes(path)] == [episodes[3].key]


def test_losses_after_an_interruption_are_those_of_one_training(tmp_path: Path) -> None:
    path = tmp_path / "losses.jsonl"
    assert loss_curves(path, 1) == [] and last_step(path) == (0, 0)
    for step, loss in ((1, 4.0), (2, 3.0), (3, 9.0), (3, 2.0), (4, 1.0)):  # step 3 was done again
        note_loss(path, step, 4, loss)
    for step in (1, 2, 1, 2, 3):  # a second part, begun anew
        note_loss(path, step, 1000, 1.0 + step)
    assert loss_curves(path, 2) == [[(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)], [(1, 2.0), (2, 3.0), (3, 4.0)]]
    assert last_step(path) == (3, 1000)
    with path.open("ab") as file:
        file.write(b"[4, 10")
    for step in range(4, 1001):
        note_loss(path, step, 1000, 0.5)
    assert len(loss_curves(path, 2)[1]) == 200 and loss_curves(path, 2)[1][-1] == (1000, 0.5)
    note_loss(path, 1, 1000, 7.0)  # killed before the checkpoint was there, and begun again
    assert loss_curves(path, 2)[1] == [(1, 7.0)]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LeapError, match="is not a run directory"):
        RunView(tmp_path)
