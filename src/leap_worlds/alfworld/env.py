"""ALFWorld as a leap environment: tasks from official or generated games, either engine, privileged state, experts."""

from __future__ import annotations

import os
import random
from copy import copy
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from leap.core import Decision, History, Observation, PrivilegedState, Task
from leap.envs.base import Environment, EnvironmentConfig, Finding, Outcome, Progress, Session, sampled, unknown_split
from leap.envs.grammar import Line
from leap.envs.tutor import Tutor
from leap.errors import LeapError, PrerequisiteError
from leap.paths import cache_dir, expanded
from leap_worlds.alfworld.data import DATA_FOLDER, GameEntry, OfficialData, checked
from leap_worlds.alfworld.engine import Engine
from leap_worlds.alfworld.expert import AlfworldExpert, teach
from leap_worlds.alfworld.fetch import SOURCE, Release, fetch
from leap_worlds.alfworld.game import load_game
from leap_worlds.alfworld.generator import GeneratorConfig, fingerprint, generate
from leap_worlds.alfworld.generator.config import VALID_SCENES
from leap_worlds.alfworld.memory import entities
from leap_worlds.alfworld.native import NativeEngine
from leap_worlds.alfworld.planner import plan


class AlfworldConfig(EnvironmentConfig):
    """ALFWorld's options in a recipe."""

    source: Literal["generated", "official"] = Field(default="generated", description="Generated games, or ALFWorld's own data.")
    engine: Literal["native", "textworld"] = Field(default="native", description="Our simulator, or the real engine (slow).")
    path: Path | None = Field(default=None, description="Official data; $ALFWORLD_DATA if null.")
    release: Release = Field(
        default="2.1.3",
        description="Which official games `leap data alfworld` fetches: of 2.1.1 are the texts that the paper's agents read.",
    )
    generator: GeneratorConfig = Field(default_factory=GeneratorConfig, description="What to generate.")


class AlfworldEnvironment(Environment[AlfworldConfig]):
    """Household tasks in text (Shridhar et al. 2021), in the official games or in generated ones of their proportions."""

    name: ClassVar[str] = "alfworld"
    Config: ClassVar[type[EnvironmentConfig]] = AlfworldConfig
    blocking: ClassVar[bool] = False
    test_splits: ClassVar[frozenset[str]] = frozenset({"seen", "unseen", "valid_seen", "valid_unseen"})
    grammar = Line()

    def __init__(self, config: AlfworldConfig | None = None) -> None:
        super().__init__(config)
        self._data: OfficialData | None = None
        self._paths: dict[str, Path] = {}

    def prepare(self, progress: Progress | None = None) -> None:
        """Generates the games, or finds the official ones. Generated games are kept in the cache by their settings."""
        folder, settings = self.config.path, self.config.generator
        if self.config.source == "generated":
            folder = cache_dir() / "alfworld" / fingerprint(settings)
            generate(settings, folder, progress=progress)
        self._data = OfficialData(folder)

    def fetch_data(self, progress: Progress | None = None, *, source: str | None = None) -> list[Finding]:
        """Checks the official games; where they are missing, puts them into their folder first, from the releases' archives."""
        if source and (Path(source).name == DATA_FOLDER or (Path(source) / DATA_FOLDER).is_dir()):
            return checked(OfficialData(source))  # unpacked already
        folder = expanded(self.config.path or os.environ.get("ALFWORLD_DATA") or "~/.cache/alfworld")
        folder = folder.parent if folder.name == DATA_FOLDER else folder
        if not (folder / DATA_FOLDER).is_dir():
            fetch(folder, self.config.release, source=source or SOURCE, progress=progress)
        return checked(OfficialData(folder))

    @property
    def data(self) -> OfficialData:
        """The games at hand."""
        if self._data is None:
            self.prepare()
        assert self._data is not None
        return self._data

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        entries = self._entries(split)
        if not entries:
            raise PrerequisiteError(f"split {split!r} has no playable games in {self.data.root}")
        return [self._task(entry, split) for entry in sampled(entries, split, limit, seed)]

    def _entries(self, split: str) -> list[GameEntry]:
        """A split's games. Two splits are made of the training games here, for want of one to choose models by: the
        games of 16 rooms of their own (`train_valid`) and the others (`train_rest`)."""
        known = self.data.splits()
        if split in ("train_valid", "train_rest") and split not in known:
            held_out = split == "train_valid"
            return [entry for entry in self.data.entries("train") if (entry.scene in VALID_SCENES) == held_out]
        if split in ("valid_seen", "valid_unseen") and split not in known and self.config.source == "generated":
            raise PrerequisiteError(
                f"{split!r} is a split of the official games and generated ones were asked for; they have {', '.join(known)}. "
                "Give --set source=official (in a recipe: environment.options.source)."
            )
        if split not in known:
            raise unknown_split(self.name, split, known)
        return list(self.data.entries(split))

    def _task(self, entry: GameEntry, split: str) -> Task:
        return Task(env=self.name, split=split, id=entry.id, instruction=entry.task, kind=entry.task_type)

    def game_path(self, task: Task) -> Path:
        """The task's `game.tw-pddl`."""
        if task.id not in self._paths:
            self._paths |= {entry.id: entry.path for entry in self._entries(task.split)}
        if task.id not in self._paths:
            raise PrerequisiteError(f"game {task.id!r} of split {task.split!r} is not in {self.data.root}")
        return self._paths[task.id]

    def start(self, task: Task) -> AlfworldSession:
        path = self.game_path(task)
        if self.config.engine == "textworld":
            from leap_worlds.alfworld.textworld import TextWorldEngine

            return AlfworldSession(TextWorldEngine(path))
        return AlfworldSession(NativeEngine(load_game(path)))

    @property
    def tutor(self) -> AlfworldTutor:
        return AlfworldTutor(self)

    @classmethod
    def doctor(cls) -> list[Finding]:
        if "ALFWORLD_DATA" not in os.environ:
            return [Finding(True, "$ALFWORLD_DATA is not set; generated games need none")]
        try:
            data = OfficialData(None)
            counts = ", ".join(f"{split} {len(data.entries(split))}" for split in data.splits())
        except LeapError as error:
            return [Finding(False, str(error))]
        return [Finding(True, f"{data.root}: {counts}")]

    def entities(self, text: str) -> set[str]:
        return set(entities(text))

    def prompt_directory(self) -> Path:
        return Path(__file__).parent / "prompts"

    def vocabulary(self) -> list[str]:
        """Names of everything in the training games, and what is said in some of them: what a scratch student's
        tokenizer should keep whole. Demonstrations alone do not hold the words of a player who has gone astray."""
        texts = self._small_talk()
        for entry in self.data.entries("train"):
            game = load_game(entry.path)
            texts.add(f" {entry.task}")
            names = (*game.objects, *game.receptacles)
            texts.update(f" {name}" for name in names)
            texts.update(f" {name.rpartition(' ')[0]}" for name in names)
        return sorted(texts)

    def _small_talk(self, games: int = 48, steps: int = 24) -> set[str]:
        """Observations and reasons from walks, half random and half the teacher's, through some training games."""
        entries = self.data.entries("train")
        texts: set[str] = set()
        for entry in entries[:: max(1, len(entries) // games)]:
            walk = random.Random(entry.id)
            session = AlfworldSession(NativeEngine(load_game(entry.path)))
            history = History(task=self._task(entry, "train"), observations=(session.observe(),))
            for _ in range(steps):
                decision = teach(history, session.privileged(), 50)
                texts |= {history.now.text, f" {decision.reason}" if decision else ""}
                action = decision.action if decision and walk.random() < 0.5 else walk.choice(history.now.admissible or ("",))
                outcome = session.act(action)
                history = history.extend(action, outcome.observation)
                if outcome.done:
                    break
        return texts

    def versions(self) -> dict[str, str]:
        return {"alfworld": f"{self.config.engine} engine, {self.config.source} games"}


class AlfworldTutor(Tutor[AlfworldEnvironment]):
    """The common-sense expert, and the same expert with as much of the hidden state as the privilege level allows."""

    def expert(self, task: Task) -> AlfworldExpert:
        return AlfworldExpert()

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        return teach(history, privileged, privilege)


class AlfworldSession(Session):
    """One game being played."""

    blocking: ClassVar[bool] = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._first = engine.start()

    def observe(self) -> Observation:
        return Observation.model_construct(text=self._first.observation, admissible=self._first.admissible)

    def act(self, action: str) -> Outcome:
        reply = self._engine.step(action)
        observation = Observation.model_construct(text=reply.observation, admissible=reply.admissible)
        return Outcome(observation, reward=reply.score, done=reply.won, success=reply.won, score=reply.score)

    def privileged(self) -> PrivilegedState:
        return describe(self._engine)

    def copy(self) -> AlfworldSession | None:
        if not isinstance(self._engine, NativeEngine):
            return None
        other = copy(self)
        other._engine = copy(self._engine)  # its state is one value, which no step changes
        return other

    def close(self) -> None:
        if close := getattr(self._engine, "close", None):
            close()


def describe(engine: Engine) -> PrivilegedState:
    """The privileged state of a game at this moment: where everything is, and an optimal plan from here.

    The text has the paper's four parts (appendix, privileged state of ALFWorld): task, essential objects, critical
    locations, optimal actions. `facts["contents"]` maps each place to what is truly in it.
    """
    game, state = engine.game, engine.state
    actions = plan(engine)
    contents = {place: list(inside) for place, inside in state.contents.items() if inside}
    facts = {"contents": contents, "holding": state.holding, "solvable": actions is not None}
    named = {name for action in actions or () for name in entities(action)}
    things = [thing for thing in game.objects if thing in named]
    places = [place for place in game.receptacles if place in named]
    lines = [
        f"Task: {game.task}",
        "Essential objects: " + ("; ".join(_whereabouts(t, contents, state.holding) for t in things) or "none"),
        "Critical locations: " + (", ".join(places) or "none"),
        "Optimal actions: " + ("; ".join(actions) if actions else "none: the task can no longer be done"),
    ]
    return PrivilegedState(text="\n".join(lines), facts=facts, plan=actions, hopeless=actions is None)


def _whereabouts(thing: str, contents: dict[str, list[str]], holding: str | None) -> str:
    if thing == holding:
        return f"{thing} (in hand)"
    places = [place for place, inside in contents.items() if thing in inside]
    return f"{thing} (in/on {' and '.join(places)})" if places else thing
