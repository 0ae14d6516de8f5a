"""The real ALFWorld engine: TextWorld's PddlEnv and fast-downward, as AlfredTWEnv chains them, without its batch layer.

This is the reference that the native engine is compared with. Use it to be sure; use the native one to be fast: here
a step takes 30 to 120 ms and starting a kitchen about 3 s.
"""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from leap.errors import PrerequisiteError
from leap_worlds.alfworld.engine import Reply
from leap_worlds.alfworld.game import Game, GameError, State, human_names, load_game, read_game_file, read_state

_TRANSLATION = threading.Lock()
_IDLE_LIBRARIES: list[Any] = []  # unloading one crashes the process at its end, so they are used again


class TextWorldEngine:
    """Plays one episode on the real engine. Interface: `leap_worlds.alfworld.engine.Engine`, plus `close`.

    Memory: about 64 MB for the packages, 25 MB for the first game, 5 MB for each further open engine (a private copy of
    fast-downward's 34 MB library, since its state is global; `close` hands it to the next engine). TextWorld keeps
    every proposition it has ever seen, so each *distinct* game costs 1 to 2 MB for good: in a long run, use worker
    processes and replace each after about 100 games.

    Threads: translating a game (in `start`) replaces `sys.argv` and `sys.stdout` for its duration, one engine at a time;
    what another thread prints meanwhile is lost. To run several at once, use processes.

    Args:
        path: A `game.tw-pddl` file, or the folder that holds it.
    """

    def __init__(self, path: str | Path) -> None:
        environment = _environment_class()
        file = Path(path)
        self._path = file / "game.tw-pddl" if file.is_dir() else file
        if not self._path.is_file():
            load_game(self._path)  # raises the error that says what to do
        self._env: Any = environment()
        self._started = False

    @property
    def game(self) -> Game:
        """The parsed game. Fails for a grammar of one's own, which this engine plays all the same."""
        return load_game(self._path)

    @property
    def state(self) -> State:
        """The hidden state, read from the engine's facts; before `start`, the game's first."""
        game = self.game
        if not self._started:
            return game.initial
        facts: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
        for fact in self._env._pddl_state.facts:
            facts[fact.name].append(tuple(game.names[a.name] for a in fact.arguments if a.name in game.names))
        return read_state(facts, game.objects, game.receptacles)

    def start(self) -> Reply:
        """Translates and starts the game."""
        data = read_game_file(self._path)
        try:
            with _untouched_process():
                self._env.load(data)
                shown = self._env.reset()
        except (KeyError, TypeError, ValueError) as error:
            # A goal that nothing can fulfil makes upstream stumble over fast-downward's placeholder atoms (KeyError).
            what = f"{type(error).__name__}: {error}"
            raise GameError(f"{self._path}: the real engine cannot play it; is it solvable? ({what})") from error
        self._started = True
        return self._reply(shown)

    def step(self, command: str) -> Reply:
        """Gives a command; one that is not admissible costs a step and changes nothing."""
        return self._reply(self._env.step(command)[0])

    def close(self) -> None:
        """Hands the engine's copy of fast-downward to the next engine. This one cannot be used afterwards."""
        if self._env is not None:
            _IDLE_LIBRARIES.append(self._env.downward_lib)
            self._env = None

    def _reply(self, shown: Any) -> Reply:
        won = bool(shown["won"])
        return Reply(str(shown.feedback), tuple(shown["admissible_commands"]), won, 1.0 if won else 0.0)


@cache
def _environment_class() -> type[Any]:
    """PddlEnv with the names that AlfredDemangler gives. Imported here, as it takes a second and 64 MB."""
    try:
        with _untouched_process():
            import fast_downward  # type: ignore[import-untyped]
            from textworld import Environment
            from textworld.envs.pddl import PddlEnv
    except ImportError as error:
        raise PrerequisiteError(
            f"the real ALFWorld engine is not installed ({error}); pip install 'leap-agents[alfworld]', "
            "or use the native engine, which needs nothing."
        ) from error

    class AlfredEnv(PddlEnv):
        def __init__(self) -> None:
            Environment.__init__(self)  # PddlEnv's own would load another copy of the library
            self.downward_lib = _IDLE_LIBRARIES.pop() if _IDLE_LIBRARIES else fast_downward.load_lib()

        def _get_entity_infos(self) -> dict[str, Any]:
            infos = super()._get_entity_infos()
            names = human_names(info.id for info in infos.values())
            for info in infos.values():
                info.name = names[info.id]  # type: ignore[assignment]  # untyped upstream, None at first
            return infos

    return AlfredEnv


@contextmanager
def _untouched_process() -> Iterator[None]:
    """fast_downward's translator parses its options from sys.argv and captures sys.stdout; this puts both back."""
    with _TRANSLATION:
        arguments, stdout = sys.argv, sys.stdout
        try:
            yield
        finally:
            sys.argv, sys.stdout = arguments, stdout
