"""leap's environments in verifiers (v1): `vf-eval leap-env --env.taskset.environment alfworld`.

The student is asked in leap's own words, as a dialogue that only grows, and answers as leap's grammars say. What is hidden from
it at the start is in `trace.info["demonstration"]`, where prime-rl's `opsd` looks for a hint. It is never in the task's data,
which go to whoever serves the model.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx
import verifiers.v1 as vf
from pydantic import Field
from verifiers.v1.dialects.chat import message_to_wire
from verifiers.v1.runtimes import ProgramResult, SubprocessConfig

from leap.cli.validate import play_plan
from leap.core import Task
from leap.envs.base import Environment, listed, load_environment
from leap.interop.games import Dialogue, Game

log = logging.getLogger(__name__)


class LeapConfig(vf.TasksetConfig):
    """Which tasks: under `--env.taskset.*`."""

    environment: str = "alfworld"
    """Registered name of the environment."""
    split: str = "train"
    """Whose tasks are played."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The environment's options, as under `environment.options` in a recipe."""
    horizon: int = 30
    """Most actions of an episode."""
    candidates: bool = True
    """Whether the student is shown the actions that are possible, where they can be listed."""
    demonstration: bool = True
    """Whether the trace's info has what is hidden from the student. It is written to the run's traces."""


class LeapData(vf.TaskData):
    """A task as it goes over the wire: all that is in it may be shown to a student."""

    task: dict[str, Any]
    """The fields of leap's task."""


class LeapTask(vf.Task[LeapData, vf.State, vf.TaskConfig]):
    """A task of leap's. `loaded` is the configuration of the taskset that it is from; it does not go over the wire."""

    loaded: LeapConfig | None = None

    @property
    def task(self) -> Task:
        """leap's record."""
        return Task.model_validate(self.data.task)

    @property
    def key(self) -> str:
        return self.task.key

    async def validate(self, runtime: Any) -> bool | None:
        """Whether the gold answer succeeds; None where none is known."""
        environment = _environment(self.loaded) if self.loaded else None
        if environment is None:
            return None
        wrong = await asyncio.to_thread(environment.prove, self.task)
        wrong = await play_plan(environment, self.task) if wrong is None else wrong
        if wrong:
            log.warning("task %s: %s", self.task.id, wrong)
        return None if wrong is None else not wrong


class LeapTaskset(vf.Taskset[LeapTask, LeapConfig]):
    """The tasks of a split."""

    def load(self) -> Iterator[LeapTask]:
        for task in listed(_environment(self.config), self.config.split):
            data = LeapData(id=task.id, name=task.id, description=task.instruction, task=task.model_dump())
            made = LeapTask(data, self.config.task)
            made.loaded = self.config
            yield made


class InProcess(vf.Harness[vf.HarnessConfig]):
    """The program that plays: a call of the model for each message, made in this process. (verifiers' own chat loop is a process
    for each turn.)"""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self, ctx: Any, trace: Any, runtime: Any, endpoint: str, secret: str, mcp_urls: Any, data: vf.TaskData, **_: Any
    ) -> ProgramResult:
        system, prompt = self.resolve_prompt(data)
        said = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else map(message_to_wire, prompt or ())
        messages = [*([{"role": "system", "content": system}] if system else []), *said]
        async with httpx.AsyncClient(timeout=None) as client:
            response = await client.post(
                f"{endpoint}/chat/completions",
                headers={"Authorization": f"Bearer {secret}"},
                json={"model": ctx.model, "messages": messages},
            )
        return ProgramResult(0 if response.is_success else 1, "", "" if response.is_success else response.text)


class LeapEnvConfig(vf.EnvConfig):
    """Who plays: under `--env.player.*`."""

    player: vf.AgentConfig = vf.AgentConfig(runtime=SubprocessConfig())


class LeapEnv(vf.Env[LeapEnvConfig]):
    """An episode: the environment speaks, the student answers, until the one is done or the other out of time."""

    async def run(self, task: LeapTask, agents: vf.Agents) -> None:
        config = self.config.taskset
        assert isinstance(config, LeapConfig)
        game = await Game(_environment(config), task.task).start()
        dialogue = Dialogue(game, candidates=config.candidates)
        try:
            async with agents.player.interaction(task) as interaction:
                trace = interaction.trace
                if config.demonstration and (hidden := (await game.privileged()).text):
                    trace.info["demonstration"] = hidden
                while not game.outcome.done and game.steps < config.horizon:
                    segment = await interaction.turn(dialogue.message())
                    if segment.terminated:
                        break
                    await dialogue.answer(segment.last_reply)
                if game.error:
                    trace.info["environment_error"] = game.error
        finally:
            await game.close()
        trace.record_reward("score", game.outcome.score)
        trace.record_metric("success", float(game.outcome.success))
        trace.record_metric("steps", game.steps)
        trace.record_metric("unread_answers", dialogue.unread)
        for part, value in game.outcome.parts.items():
            trace.record_metric(part, value)


def _environment(config: LeapConfig) -> Environment:
    return _loaded(config.environment, json.dumps(config.options, sort_keys=True))


@cache
def _loaded(name: str, options: str) -> Environment:
    return load_environment(name, json.loads(options))
