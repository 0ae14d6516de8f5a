"""Tasksets of verifiers (v1) as leap's environments: `verifiers/NAME`, of one turn or of several.

verifiers runs the episode, and asks its model at an address of this process; the student's action is the answer. So rewards, user
simulators and hooks are the taskset's own. What is hidden from the student is where a path of the user's leads.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from typing import Any, ClassVar

from pydantic import Field, ValidationError

from leap.core import Observation, PrivilegedState, Task
from leap.envs.base import EnvironmentConfig, Outcome, Session, sampled, unknown_split
from leap.errors import PrerequisiteError, RecipeError, describe_validation_error
from leap.interop.foreign import Foreign, ForeignConfig, peer
from leap.interop.games import wait

_MODEL = "leap"
_BOXED = "taskset {!r} needs a box or tools of its own; leap plays those of words."


class VerifiersConfig(ForeignConfig):
    """Options of a taskset in a recipe."""

    taskset: str = Field(
        default="", description="Its id, as `vf-eval` takes it; also `verifiers/ID` as the environment's name."
    )
    taskset_options: dict[str, Any] = Field(
        default_factory=dict, description="What `--env.taskset.*` of `vf-eval` would give."
    )
    env_options: dict[str, Any] = Field(
        default_factory=dict, description="What `--env.*` would give: the id of another environment, say."
    )
    tasks: dict[str, int] = Field(
        default_factory=lambda: {"train": 100, "valid": 20, "test": 50},
        description="How many of the taskset's tasks each split has: one piece after the other.",
    )
    shuffle: int | None = Field(
        default=0, description="Seed by which a finite taskset's tasks are shuffled before; in its own order if null."
    )


class VerifiersEnvironment(Foreign[VerifiersConfig]):
    """A taskset whose one agent the student plays, in words. The path `privileged` begins with `data` (of the task), or with
    `info` or `state` (of the trace)."""

    name: ClassVar[str] = "verifiers"
    shorthand: ClassVar[str] = "taskset"
    Config: ClassVar[type[EnvironmentConfig]] = VerifiersConfig

    def __init__(self, config: VerifiersConfig | None = None) -> None:
        super().__init__(config)
        if not self.config.taskset:
            raise RecipeError("a taskset is needed: environment.name: verifiers/ID, or the option taskset.")
        self._served: _Served | None = None
        self._lock = threading.RLock()

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        counts = self.config.tasks
        if split not in counts:
            raise unknown_split(self.name, split, counts)
        first = sum(count for name, count in list(counts.items())[: list(counts).index(split)])
        chosen = list(self._theirs.items())[first : first + counts[split]]
        made = [
            Task(env=self.name, split=split, id=name, instruction=one.data.description or self.config.instruction)
            for name, one in chosen
        ]
        return sampled(made, split, limit, seed)

    def start(self, task: Task) -> Session:
        if task.id not in self._theirs:
            raise PrerequisiteError(f"{self.config.taskset} has no task {task.id!r} among those that are asked for.")
        return _Turns(self, self._theirs[task.id])

    def versions(self) -> dict[str, str]:
        return {"verifiers": f"{self.config.taskset} in verifiers {version('verifiers')}"}

    def close(self) -> None:
        if self._served is not None:
            wait(self._served.close())
            self._served = None

    def served(self) -> _Served:
        """What runs the taskset's episodes, from now on to `close`."""
        with self._lock:
            if self._served is None:
                self._served = wait(_Served(self._environment).open())
            return self._served

    @cached_property
    def _environment(self) -> Any:
        """verifiers' environment, with the student in its one seat.

        Raises:
            PrerequisiteError: There is no such taskset here, or the student cannot play it.
            RecipeError: Its options are wrong.
        """
        peer("verifiers.v1")
        loaders, agents = peer("verifiers.v1.utils.loaders"), peer("verifiers.v1.configs.agent")
        name, given = self.config.taskset, dict(self.config.env_options)
        try:
            kind = loaders.env_config_type(name, given.get("id", ""))
            roles = [role for role, field in kind.model_fields.items() if isinstance(field.default, agents.AgentConfig)]
            seat = {"harness": {"id": "leap-env"}, "runtime": {"type": "subprocess"}}
            given |= {role: {**given.get(role, {}), **seat} for role in roles}
            given["taskset"] = {"id": name, **self.config.taskset_options}
            config = loaders.resolve_env_config(given)
            task = loaders.task_type(name)
            if len(roles) != 1:
                raise PrerequisiteError(f"taskset {name!r}: its environment has {len(roles)} agents; the student can be one.")
            if task.NEEDS_CONTAINER or task.toolsets(config.taskset.task) or self._offers(loaders, config):
                raise PrerequisiteError(_BOXED.format(name))
            return loaders.load_environment(config)
        except ValidationError as error:
            raise RecipeError(describe_validation_error(error, f"taskset {name!r}")) from error
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise PrerequisiteError(_unloadable(name, error)) from error

    @staticmethod
    def _offers(loaders: Any, config: Any) -> bool:
        return bool(loaders.taskset_class(config.taskset.id).toolsets(config.taskset))

    @cached_property
    def _theirs(self) -> dict[str, Any]:
        """Those of the taskset's tasks that the splits have, by leap's ids of them."""
        wanted = sum(self.config.tasks.values())
        taskset = self._environment.taskset
        shuffled = taskset.bounded and self.config.shuffle is not None
        try:
            found = list(taskset if shuffled else islice(taskset, wanted))
        except Exception as error:  # its own code: a data set that cannot be fetched, say
            raise PrerequisiteError(_unloadable(self.config.taskset, error)) from error
        if shuffled:
            random.Random(f"{self.config.shuffle}").shuffle(found)
            found = found[:wanted]
        if any(one.data.image for one in found):
            raise PrerequisiteError(_BOXED.format(self.config.taskset))
        if len(found) < wanted:
            raise PrerequisiteError(
                f"taskset {self.config.taskset!r} has {len(found)} tasks, and the splits ask for {wanted}: set the option tasks."
            )
        names = [str(one.data.id or one.data.name or one.data.idx) for one in found]
        if len({*names}) < len(names):
            names = [str(one.data.idx) for one in found]
        return dict(zip(names, found, strict=True))


class _Served:
    """verifiers' side: its environment, and the address at which it asks its model. All of it lives in the loop of `wait`."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._stack = AsyncExitStack()
        self._waiting: dict[str, _Turns] = {}
        self._context: Any = None

    async def open(self) -> _Served:
        """Opens the address and whatever the taskset serves."""
        web, vf = peer("aiohttp.web"), peer("verifiers.v1")
        application = web.Application(client_max_size=2**30)
        application.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        client = vf.EvalClientConfig(base_url=f"http://127.0.0.1:{port}/v1", api_key_var="LEAP_NEEDS_NO_KEY")
        self._context = vf.ModelContext(model=_MODEL, client=client)
        await self._stack.enter_async_context(self._environment.serving())
        return self

    async def close(self) -> None:
        """Closes both."""
        await self._stack.aclose()

    def episode(self, turns: _Turns, task: Any) -> asyncio.Task[Any]:
        """Begins an episode, whose model's requests go to `turns`."""

        def minted(trace: Any) -> None:
            turns.trace = trace
            self._waiting[trace.id] = turns

        def forget(_: object) -> None:
            self._waiting = {name: one for name, one in self._waiting.items() if one is not turns}

        episode = asyncio.ensure_future(self._environment.run_episode(task, self._context, on_trace=minted))
        episode.add_done_callback(forget)
        return episode

    async def _answer(self, request: Any) -> Any:
        """The model's endpoint. Which episode asks, the header with the trace's id tells."""
        web, header = peer("aiohttp.web"), peer("verifiers.v1.clients.client").SESSION_ID_HEADER
        turns = self._waiting.get(request.headers.get(header, ""))
        if turns is None:
            return web.json_response({"error": {"message": "no episode is under way"}}, status=404)
        said = await turns.asked((await request.json())["messages"])
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        told = {"id": "leap", "object": "chat.completion", "created": 0, "model": _MODEL}
        return web.json_response(told | {"choices": [choice], "usage": usage})


class _Turns(Session):
    """An episode of verifiers', which waits for the student whenever its model is asked."""

    repeats: ClassVar[bool] = False  # a taskset may ask a model, or draw as it likes

    def __init__(self, environment: VerifiersEnvironment, task: Any) -> None:
        self._environment, self._task = environment, task
        self.trace: Any = None
        self._known = 0
        self._requests: asyncio.Queue[list[dict[str, Any]]] = asyncio.Queue()
        self._reply: asyncio.Future[str] | None = None
        self._episode: asyncio.Task[Any] | None = None

    async def asked(self, messages: list[dict[str, Any]]) -> str:
        """Hands on what verifiers asks its model, and waits for what the student says."""
        self._reply = asyncio.get_running_loop().create_future()
        self._requests.put_nowait(messages)
        return await self._reply

    def observe(self) -> Observation:
        served = self._environment.served()

        async def begun() -> str | None:
            self._episode = served.episode(self, self._task)
            return await self._next()

        shown = wait(begun())
        if shown is None:
            raise RuntimeError("the taskset's episode ended before the student was asked anything")
        return Observation(text=shown)

    def act(self, action: str) -> Outcome:
        shown = wait(self._said(action))
        if shown is not None:
            return Outcome(Observation(text=shown))
        reward, config = float(self.trace.reward), self._environment.config
        over = Observation(text="The task is over.")
        return Outcome(over, reward=reward, done=True, success=reward >= config.solved_at, score=config.score(reward))

    async def _said(self, action: str) -> str | None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(action)
        return await self._next()

    async def _next(self) -> str | None:
        """What is said to the student next; None at the end.

        Raises:
            RuntimeError: The taskset's own code failed.
        """
        assert self._episode is not None
        request = asyncio.ensure_future(self._requests.get())
        await asyncio.wait((request, self._episode), return_when=asyncio.FIRST_COMPLETED)
        if request.done():
            messages = request.result()
            new = messages[self._known :] if self._known < len(messages) else messages
            self._known = len(messages) + 1  # the answer, too
            return "\n\n".join(filter(None, (_text(one.get("content")) for one in new)))
        request.cancel()
        episode = self._episode.result()
        errors = [*episode.errors, *(error for trace in episode.traces for error in trace.errors)]
        if errors and not episode.ok:
            raise RuntimeError(f"{errors[0].type}: {errors[0].message}")
        return None

    def privileged(self) -> PrivilegedState | None:
        known = {"data": self._task.data.model_dump(mode="json")}
        if self.trace is not None:
            known |= {"info": self.trace.info, "state": self.trace.state}
        return self._environment.hidden(known)

    def close(self) -> None:
        if self._episode is not None:
            wait(self._ended(self._episode))

    async def _ended(self, episode: asyncio.Task[Any]) -> None:
        episode.cancel()
        if self._reply is not None and not self._reply.done():
            self._reply.set_result("")  # whoever asked has gone
        await asyncio.wait((episode,))


def _text(content: object) -> str:
    if isinstance(content, list):
        parts = (part.get("text", "") if isinstance(part, Mapping) else str(part) for part in content)
        return "\n".join(filter(None, parts))
    return content if isinstance(content, str) else "" if content is None else json.dumps(content)


def _unloadable(taskset: str, error: Exception) -> str:
    return f"taskset {taskset!r} cannot be loaded: {' '.join(str(error).split())[:300]}"
