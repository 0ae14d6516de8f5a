"""Other frameworks' environments as leap's: `gymnasium/ID`, `textarena/GAME`, `openenv/URL`. Tasks are seeds, and what is hidden
from the student is where a path of the user's leads. A framework is imported when its first task is started."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import Any, ClassVar, TypeVar

from pydantic import Field

from leap.core import Observation, PrivilegedState, Task, seed_of
from leap.envs.base import Environment, EnvironmentConfig, Outcome, Session, sampled, unknown_split
from leap.envs.grammar import FreeText, Grammar, ToolCalls
from leap.envs.tools import Tool
from leap.errors import LeapError, PrerequisiteError, RecipeError, suggest
from leap.extras import with_remedy


class ForeignConfig(EnvironmentConfig):
    """Options that all of them have."""

    tasks: dict[str, int] = Field(
        default_factory=lambda: {"train": 100, "valid": 20, "test": 50},
        description="How many tasks each split has: seeds.",
    )
    instruction: str = Field(
        default="Do what you are asked to do.", description="The task in words, where it has no own."
    )
    privileged: str | None = Field(
        default=None,
        description="Path to what is hidden from the student, names and numbers with dots between; nothing if null.",
    )
    solved_at: float = Field(
        default=1.0, description="The least sum of rewards that counts as a success; scores are its shares."
    )

    def score(self, reward: float) -> float:
        """The score of a sum of rewards."""
        return min(1.0, max(0.0, reward / self.solved_at)) if self.solved_at > 0 else float(reward >= self.solved_at)


C = TypeVar("C", bound=ForeignConfig, covariant=True)


class Foreign(Environment[C]):
    """An environment whose tasks are told apart by their seeds alone."""

    test_splits: ClassVar[frozenset[str]] = frozenset({"test"})

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        splits = self.config.tasks
        if split not in splits:
            raise unknown_split(self.name, split, splits)
        said = self.config.instruction
        tasks = [
            Task(env=self.name, split=split, id=f"{split}/{i}", instruction=said, seed=seed_of(self.name, split, i))
            for i in range(splits[split])
        ]
        return sampled(tasks, split, limit, seed)

    def hidden(self, source: object) -> PrivilegedState | None:
        """What the path of the configuration leads to; None without a path."""
        path = self.config.privileged
        if path is None:
            return None
        value = at(source, path, f"{self.name}: privileged")
        return PrivilegedState(text=f"{path.rpartition('.')[2]}: {as_text(value)}", facts={"value": plain(value)})


def peer(module: str) -> Any:
    """A framework's module.

    Raises:
        PrerequisiteError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise PrerequisiteError(f"{module} cannot be imported: {with_remedy(error, module)}") from error


def at(source: object, path: str, what: str) -> object:
    """Where a path leads: through mappings by key, through lists by number, through other things by attribute.

    Args:
        source: Where the path begins.
        path: Names and numbers with dots between.
        what: What is looked for, for the message.

    Raises:
        LeapError: It leads nowhere.
    """
    value: Any = source
    for name in path.split("."):
        try:
            if isinstance(value, Mapping):
                value = value[name]
            elif isinstance(value, Sequence) and not isinstance(value, str):
                value = value[int(name)]
            elif name.startswith("_"):
                raise AttributeError(name)
            else:
                value = getattr(value, name)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            there = ", ".join(map(str, value)) if isinstance(value, Mapping) else f"a {type(value).__name__}"
            raise LeapError(f"{what}: there is no {name!r} on the path {path!r}; there is: {there}.") from error
    return value


def as_text(value: object) -> str:
    """A value in words: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)


def plain(value: object) -> Any:
    """A value as JSON has it, arrays as lists; what JSON has not is told as Python would write it."""

    def written(odd: Any) -> Any:
        if isinstance(odd, set | frozenset):
            return sorted(odd, key=str)
        if isinstance(odd, bytes):
            return odd.decode(errors="replace")
        return odd.tolist() if hasattr(odd, "tolist") else str(odd)  # NumPy's arrays and numbers

    return json.loads(json.dumps(value, default=written))


def number(reward: object) -> float:
    """A reward; 0 where what stands there is no number."""
    try:
        return float(reward)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return 0.0


# ---- Gymnasium -------------------------------------------------------------------------------------------------------


class GymnasiumConfig(ForeignConfig):
    """Options of a Gymnasium environment in a recipe."""

    id: str = Field(
        default="", description="Its id, `MODULE:ID` included; also `gymnasium/ID` as the environment's name."
    )
    make: dict[str, Any] = Field(default_factory=dict, description="What `gymnasium.make` is given beside the id.")
    observation: str | None = Field(
        default=None, description="Path to the text in an observation that is more than a text."
    )
    admissible: str | None = Field(default=None, description="Path to the list of possible actions in an info.")
    actions: tuple[str, ...] = Field(default=(), description="Names of the actions 0, 1, 2 where they are numbers.")


class GymnasiumEnvironment(Foreign[GymnasiumConfig]):
    """A Gymnasium environment of texts. The path `privileged` begins with `info` or with `env`, the unwrapped environment."""

    name: ClassVar[str] = "gymnasium"
    shorthand: ClassVar[str] = "id"
    Config: ClassVar[type[EnvironmentConfig]] = GymnasiumConfig

    def start(self, task: Task) -> Session:
        return _Foreigner(self, task)

    def versions(self) -> dict[str, str]:
        return {"gymnasium": f"{self.config.id} of Gymnasium {version('gymnasium')}"}


class _Foreigner(Session):
    def __init__(self, environment: GymnasiumEnvironment, task: Task) -> None:
        self._environment = environment
        gymnasium = peer("gymnasium")
        try:
            self._env: Any = gymnasium.make(environment.config.id, **environment.config.make)
        except (gymnasium.error.Error, ImportError) as error:
            raise PrerequisiteError(f"Gymnasium does not make {environment.config.id!r}: {error}") from error
        self._actions, space = environment.config.actions, self._env.action_space
        if not self._actions and isinstance(space, gymnasium.spaces.Discrete):
            self._actions = tuple(map(str, range(int(space.n))))
        elif not self._actions and isinstance(space, gymnasium.spaces.Box):
            raise PrerequisiteError(
                f"{environment.config.id}: its actions are {space}; leap's are texts, or names of numbers."
            )
        self._first, self._info = self._env.reset(seed=task.seed)
        self._total = 0.0

    def observe(self) -> Observation:
        return self._shown(self._first)

    def act(self, action: str) -> Outcome:
        config = self._environment.config
        if self._actions and action not in self._actions:
            return Outcome(Observation(text=f"There is no action {action!r} here.", admissible=self._actions))
        shown, reward, done, late, self._info = self._env.step(self._actions.index(action) if self._actions else action)
        self._total += float(reward)
        solved, score = done and self._total >= config.solved_at, config.score(self._total)
        return Outcome(self._shown(shown), reward=float(reward), done=done or late, success=solved, score=score)

    def privileged(self) -> PrivilegedState | None:
        return self._environment.hidden({"info": self._info, "env": self._env.unwrapped})

    def close(self) -> None:
        self._env.close()

    def _shown(self, shown: object) -> Observation:
        config = self._environment.config
        text = shown if config.observation is None else at(shown, config.observation, "gymnasium: observation")
        listed = (
            at(self._info, config.admissible, "gymnasium: admissible") if config.admissible else self._actions or None
        )
        return Observation(
            text=as_text(text), admissible=tuple(map(str, listed)) if isinstance(listed, list | tuple) else None
        )


# ---- TextArena -------------------------------------------------------------------------------------------------------


class TextArenaConfig(ForeignConfig):
    """TextArena's options in a recipe."""

    game: str = Field(
        default="", description="The game's id, such as Hangman-v0; also `textarena/ID` as the environment's name."
    )
    game_options: dict[str, Any] = Field(
        default_factory=dict, description="What `textarena.make` is given beside the id."
    )
    actions: tuple[str, ...] = Field(default=(), description="The possible actions, where they can be listed.")
    instruction: str = Field(
        default="Play the game and win it.", description="The task in words; the game tells its rules."
    )


class TextArenaEnvironment(Foreign[TextArenaConfig]):
    """Games of TextArena. What is hidden is in `state.game_state`, where the path `privileged` begins."""

    name: ClassVar[str] = "textarena"
    shorthand: ClassVar[str] = "game"
    Config: ClassVar[type[EnvironmentConfig]] = TextArenaConfig
    blocking: ClassVar[bool] = False  # its games draw from Python's one generator, so they take turns

    def start(self, task: Task) -> TextArenaGame:
        return TextArenaGame(self, task)

    def versions(self) -> dict[str, str]:
        return {"textarena": f"{self.config.game} of TextArena {version('textarena')}"}


def _make(game: str, options: str) -> Any:
    """Makes a game, which draws from Python's one generator as it stands."""
    raw = f"{game.removesuffix('-raw').removesuffix('-train')}-raw"  # without wrappers that say the history again each time
    textarena, known = peer("textarena"), peer("textarena.envs.registration").ENV_REGISTRY
    if raw not in known:
        raise PrerequisiteError(f"TextArena has no game {game!r}.{suggest(game, known)}")
    try:
        return textarena.make(raw, **json.loads(options))
    except LookupError as error:  # NLTK's data could not be fetched
        named = re.search(r"nltk\.download\('(\w+)'\)", str(error))
        advice = f"; give: python -m nltk.downloader {named[1]}" if named else f": {' '.join(str(error).split())[:200]}"
        raise PrerequisiteError(f"{game} needs data of NLTK that is not here{advice}") from error
    except Exception as error:  # a missing key, a file of its own that is no Python, an unknown option
        raise PrerequisiteError(f"TextArena does not make {game!r}: {error}") from error


@cache
def _made(game: str, options: str) -> tuple[Any, bool]:
    """The game, which is copied for each session, for making one may read a dictionary; and whether making it draws already what
    each seed should have of its own, so that each session makes its own after all."""
    before = random.getstate()
    made = _make(game, options)
    return made, random.getstate() != before


class TextArenaGame(Session):
    """A game under way. A subclass may show it in other words: `act` shows what `observe` returns.

    Args:
        environment: Whose game it is.
        task: The seed.
    """

    blocking: ClassVar[bool] = False

    def __init__(self, environment: TextArenaEnvironment, task: Task) -> None:
        self._environment = environment
        self._random = random.Random(task.seed).getstate()
        with self._drawing():
            named = environment.config.game, json.dumps(environment.config.game_options, sort_keys=True)
            made, draws = _made(*named)
            if draws:
                random.seed(task.seed)
            self._game = _make(*named) if draws else copy.deepcopy(made)
            self._game.reset(num_players=1, seed=task.seed)  # some draw from a generator of their own

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Gives the process's one generator the game's state, and afterwards its own back."""
        before = random.getstate()
        random.setstate(self._random)
        try:
            yield
        finally:
            self._random = random.getstate()
            random.setstate(before)

    def observe(self) -> Observation:
        with self._drawing():
            _, messages = self._game.get_observation()
        echo = peer("textarena").ObservationType.PLAYER_ACTION
        text = "\n".join(str(said).strip() for _, said, kind in messages if kind is not echo)
        return Observation(text=text, admissible=self._environment.config.actions or None)

    def act(self, action: str) -> Outcome:
        with self._drawing():
            done, _ = self._game.step(action)
        if not done:
            return Outcome(self.observe())
        state, config = self._game.state, self._environment.config
        reward = number((state.rewards or {}).get(0))  # some games have the reason in its place
        reason = Observation(text=str(state.game_info[0].get("reason", "The game is over.")))
        return Outcome(reason, reward=reward, done=True, success=reward >= config.solved_at, score=config.score(reward))

    def privileged(self) -> PrivilegedState | None:
        return self._environment.hidden(self._game.state.game_state)


# ---- OpenEnv ---------------------------------------------------------------------------------------------------------


class OpenEnvConfig(ForeignConfig):
    """Options of a served environment in a recipe."""

    url: str = Field(default="", description="Where it is served; also `openenv/URL` as the environment's name.")
    reset: dict[str, Any] = Field(default_factory=dict, description="What `reset` is given beside the seed.")
    observation: str | None = Field(
        default="text", description="Path to an observation's text; all of it as JSON if null."
    )
    admissible: str | None = Field(default=None, description="Path to the list of possible actions in an observation.")


class OpenEnvEnvironment(Foreign[OpenEnvConfig]):
    """An environment that an OpenEnv server serves. What is hidden is in its state, where the path `privileged` begins.

    Actions are texts where the server's schema asks for one text, else calls of a tool `act` with the schema's arguments.
    """

    name: ClassVar[str] = "openenv"
    shorthand: ClassVar[str] = "url"
    Config: ClassVar[type[EnvironmentConfig]] = OpenEnvConfig

    def __init__(self, config: OpenEnvConfig | None = None) -> None:
        super().__init__(config)
        if not self.config.url.startswith(("http://", "https://")):
            raise RecipeError(
                "an OpenEnv server is needed: environment.name: openenv/http://ADDRESS, or the option url."
            )
        self._schema: dict[str, Any] | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of actions without their metadata, as the server tells it.

        Raises:
            PrerequisiteError: It does not answer.
        """
        if self._schema is None:
            httpx = peer("httpx")
            try:
                told = (
                    httpx.get(f"{self.config.url.rstrip('/')}/schema", timeout=30).raise_for_status().json()["action"]
                )
            except (httpx.HTTPError, ValueError, KeyError) as error:
                raise PrerequisiteError(
                    f"no OpenEnv server answers at {self.config.url}: {error}. Is it running?"
                ) from error
            kept = {name: schema for name, schema in told.get("properties", {}).items() if name != "metadata"}
            self._schema = {key: told[key] for key in ("type", "required", "$defs") if key in told} | {
                "properties": kept
            }
        return self._schema

    @property
    def field(self) -> str | None:
        """The one text that an action is; None where it is more."""
        names = [*self.schema["properties"]]
        return names[0] if len(names) == 1 and self.schema["properties"][names[0]].get("type") == "string" else None

    @property
    def grammar(self) -> Grammar:  # pyright: ignore[reportIncompatibleVariableOverride]
        return FreeText() if self.field else ToolCalls([Tool(name="act", description="Acts.", parameters=self.schema)])

    def start(self, task: Task) -> Session:
        return _Remote(self, task)

    def versions(self) -> dict[str, str]:
        return {"openenv": self.config.url}


class _Remote(Session):
    """A session on a server. What its own code raises there comes back as an error of the environment's."""

    def __init__(self, environment: OpenEnvEnvironment, task: Task) -> None:
        self._environment, self._task = environment, task
        self._client: Any = peer("openenv.core").GenericEnvClient(base_url=environment.config.url)
        self._total = 0.0

    async def observe(self) -> Observation:
        await self._client.__aenter__()
        result = await self._client.reset(seed=self._task.seed, **self._environment.config.reset)
        return self._shown(result.observation)

    async def act(self, action: str) -> Outcome:
        environment = self._environment
        grammar, field = environment.grammar, environment.field
        if field is not None:
            sent: dict[str, Any] = {field: action}
        elif isinstance(grammar, ToolCalls) and (call := grammar.call(action)) is not None:
            sent = call["arguments"]
        else:
            return Outcome(Observation(text=grammar.problem(action) if isinstance(grammar, ToolCalls) else ""))
        result = await self._client.step(sent)
        reward = number(result.reward)
        self._total += reward
        config = environment.config
        score = config.score(self._total)
        solved = bool(result.done) and self._total >= config.solved_at
        return Outcome(
            self._shown(result.observation), reward=reward, done=bool(result.done), success=solved, score=score
        )

    def _shown(self, observation: dict[str, Any]) -> Observation:
        config = self._environment.config
        text = (
            observation if config.observation is None else at(observation, config.observation, "openenv: observation")
        )
        listed = at(observation, config.admissible, "openenv: admissible") if config.admissible else None
        return Observation(text=as_text(text), admissible=tuple(map(str, listed)) if isinstance(listed, list) else None)

    async def privileged(self) -> PrivilegedState | None:
        if self._environment.config.privileged is None:
            return None
        return self._environment.hidden(await self._client.state())

    async def close(self) -> None:
        await self._client.close()
