"""verifiers' own commands on leap's tasks, with a scripted model behind an OpenAI-compatible address."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from interop_page import commands
from small_games import small_games

pytest.importorskip(
    "verifiers.v1", reason="verifiers is not installed (leap-agents[verifiers], in an environment of its own)"
)

from leap.core import Decision, Task
from leap.envs.base import Environment, load_environment, opened
from leap.errors import LeapError

GAMES = small_games(train=3, valid=1, unseen=1)
SHOP = {"generator": {"products": 1520, "goals": 1510}}
BIN = Path(sys.executable).parent


@contextmanager
def model(answer: Callable[[list[dict[str, Any]]], str]) -> Iterator[str]:
    """A model at an address, which answers conversations as a function does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = {"role": "assistant", "content": answer(body["messages"])}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            reply = {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [choice],
                "usage": usage,
            }
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()


def verifiers(command: str, *arguments: str, folder: Path) -> None:
    done = subprocess.run([BIN / command, *arguments], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def chosen(name: str, options: dict[str, Any]) -> list[str]:
    return ["--env.taskset.environment", name, "--env.taskset.options", json.dumps(options)]


def plans(environment: Environment, tasks: list[Task]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """By instruction, the hidden text at the start and the plan."""
    found = {}
    for task in tasks:
        with opened(environment, task) as session:
            state = session.privileged()
        found[task.instruction] = (state.text, state.plan or ())
    return found


def evaluated(name: str, options: dict[str, Any], split: str, tmp_path: Path) -> None:
    """Evaluates two tasks by `vf-eval`, with a model whose first answer is none and which then plays the plan."""
    environment = load_environment(name, options)
    try:
        environment.prepare()
    except LeapError as error:
        pytest.skip(str(error))
    hidden = plans(environment, environment.tasks(split)[:2])
    environment.close()
    asked: list[list[dict[str, Any]]] = []

    def answer(messages: list[dict[str, Any]]) -> str:
        asked.append(messages)
        turn = sum(message["role"] == "assistant" for message in messages)
        _, plan = next(value for task, value in hidden.items() if task in messages[0]["content"])
        return "hm" if turn == 0 else environment.grammar.write(Decision(reason="so", action=plan[turn - 1]))["content"]

    with model(answer) as address:
        arguments = ["-m", "m", "-n", "2", "--client.base-url", address, "--no-push", "--run.name", "evaluation"]
        arguments += ["--env.taskset.split", split]
        verifiers("vf-eval", "leap-env", *arguments, *chosen(name, options), folder=tmp_path)
    traces = [json.loads(line) for file in tmp_path.rglob("traces.jsonl") for line in file.read_text().splitlines()]
    traces = [trace for row in traces for trace in row.get("traces", [row])]
    assert len(traces) == 2
    for trace in traces:
        text, plan = hidden[trace["task"]["data"]["description"]]
        assert trace["rewards"]["score"]["score"] == trace["metrics"]["success"] == 1.0
        assert (trace["metrics"]["steps"], trace["metrics"]["unread_answers"]) == (len(plan) + 1, 1)
        assert trace["info"]["demonstration"] == text
        assert text not in json.dumps(trace["task"]["data"])
    assert not any(text in message["content"] for text, _ in hidden.values() for each in asked for message in each)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("alfworld", GAMES), ("webshop", SHOP)])
def test_an_evaluation_by_verifiers(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    evaluated(name, options, "train", tmp_path)


@pytest.mark.slow
@pytest.mark.engine
def test_an_evaluation_in_boxes(tmp_path: Path) -> None:
    evaluated("intercode-generated", {"generator": {"file_systems": {"train": 1}, "tasks": 4}}, "train", tmp_path)


@pytest.mark.slow
@pytest.mark.engine
def test_an_evaluation_of_intercode_s_own_tasks(boxes: None, intercode_data: Path, tmp_path: Path) -> None:
    evaluated("intercode-bash", {"path": str(intercode_data)}, "all", tmp_path)


@pytest.mark.slow
def test_the_documents_commands(tmp_path: Path) -> None:
    with model(lambda messages: "ACTION: look") as address:
        for command, *arguments in commands("verifiers", MODEL="m", ADDRESS=address):
            verifiers(command, *arguments, folder=tmp_path)
    rows = [json.loads(line) for file in tmp_path.rglob("results.jsonl") for line in file.read_text().splitlines()]
    assert [row["valid"] for row in rows] == [True]  # the gold answer solves them
