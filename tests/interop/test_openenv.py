"""OpenEnv's own client and validator on a leap environment that is served, and leap's check of one that OpenEnv serves."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from interop_page import commands
from small_games import small_games

pytest.importorskip("openenv", reason="openenv is not installed (leap-agents[openenv])")

import httpx
import uvicorn
from openenv.core import GenericEnvClient

from leap.check import check_env
from leap.envs.base import Environment, load_environment
from leap.errors import PrerequisiteError, RecipeError
from leap.interop.openenv import app
from tiny_world import TinyWorld

pytestmark = pytest.mark.slow
GAMES = small_games(train=4, valid=1, unseen=1)
LEAP = [sys.executable, "-c", "from leap.cli import main; main()"]


def a_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answers(address: str, process: subprocess.Popen[str] | None = None) -> None:
    for _ in range(1200):
        try:
            if httpx.get(f"{address}/health", timeout=5).is_success:
                return
        except httpx.HTTPError:
            assert process is None or process.poll() is None, process.communicate()
            time.sleep(0.1)
    raise AssertionError(f"{address} does not answer")


@contextmanager
def served(environment: Environment, *, privileged: bool) -> Iterator[str]:
    """A server in a thread."""
    port = a_port()
    config = uvicorn.Config(
        app(environment, ["train"], privileged=privileged, web=False), port=port, log_level="warning"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    answers(f"http://127.0.0.1:{port}")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def test_the_documents_commands(tmp_path: Path) -> None:
    port = str(a_port())
    serve, validate = commands("OpenEnv", **{"8000": port, "http://127.0.0.1:8000": f"http://127.0.0.1:{port}"})
    assert serve[0] == "leap"
    process = subprocess.Popen(
        [*LEAP, *serve[1:]], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        answers(f"http://127.0.0.1:{port}", process)
        done = subprocess.run(
            [Path(sys.executable).parent / validate[0], *validate[1:]], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        page = httpx.get(f"http://127.0.0.1:{port}/web", follow_redirects=True, timeout=60)
        assert page.is_success and "gradio" in page.text.lower()
        schema = httpx.get(f"http://127.0.0.1:{port}/schema").json()
        assert schema["action"]["required"] == ["command"] and "privileged" not in json.dumps(schema)
    finally:
        process.terminate()
        process.wait()


def test_many_clients_play_at_once_and_are_told_nothing_hidden() -> None:
    environment = load_environment("alfworld", GAMES)
    tasks = environment.tasks("train")

    async def play(address: str, index: int) -> tuple[Any, Any]:
        client = GenericEnvClient(base_url=address)
        async with client:
            result = await client.reset(split="train", index=index % len(tasks))
            assert tasks[index % len(tasks)].instruction == result.observation["instruction"] and result.reward is None
            for t in range(3):
                admissible = result.observation["admissible"]
                result = await client.step({"command": admissible[(index + t) % len(admissible)]})
            return await client.state(), result

    async def all_of(address: str) -> list[tuple[Any, Any]]:
        return await asyncio.gather(*(play(address, index) for index in range(12)))

    with served(environment, privileged=False) as address:
        states = [state for state, _ in asyncio.run(all_of(address))]
    assert all(state["step_count"] == 3 and "privileged" not in state for state in states)
    assert {state["task"] for state in states} == {task.id for task in tasks}


def test_a_served_environment_is_one_of_leaps() -> None:
    with served(TinyWorld(), privileged=True) as address:
        options = {"privileged": "privileged.text", "admissible": "admissible", "tasks": {"train": 4}}
        environment = load_environment(f"openenv/{address}", options)
        findings = check_env(environment, tasks=2, strict=True)
        assert len(findings) > 10
        session = environment.start(environment.tasks("train")[0])

        async def win() -> Any:
            await session.observe()
            hidden = await session.privileged()
            place = hidden.text.rpartition(" ")[2].rstrip(".")
            outcomes = [await session.act(action) for action in (f"look in {place}", "take key", "open door", "sing")]
            await session.close()
            return outcomes

        outcomes = asyncio.run(win())
        assert [outcome.done for outcome in outcomes] == [False, False, True, True]
        assert (outcomes[2].reward, outcomes[2].score, outcomes[2].success, outcomes[3].reward) == (1.0, 1.0, True, 0.0)
    with pytest.raises(PrerequisiteError, match="no OpenEnv server answers"):
        _ = load_environment("openenv/http://127.0.0.1:9").grammar
    with pytest.raises(RecipeError, match="an OpenEnv server is needed"):
        load_environment("openenv")
