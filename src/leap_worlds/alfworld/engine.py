"""What the two engines have in common, so that everything above them takes either."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from leap_worlds.alfworld.game import Game, State


class Reply(NamedTuple):
    """What an engine answers: the text, exactly as ALFWorld's AlfredTWEnv gives it, the commands that can be given now,
    sorted, whether the goal holds, and 1.0 if it does, else 0.0."""

    observation: str
    admissible: tuple[str, ...]
    won: bool
    score: float


class Engine(Protocol):
    """One playthrough of one game: made, started once, stepped, thrown away.

    The engine knows no step limit and goes on after the goal is reached, as the real one does; ending an episode is the
    caller's business. `state` is the hidden state at this moment.
    """

    @property
    def game(self) -> Game: ...
    @property
    def state(self) -> State: ...
    def start(self) -> Reply:
        """The first reply. Call it once, before any step."""
        ...

    def step(self, command: str) -> Reply:
        """Gives a command. Any string is allowed; one that is not admissible answers "Nothing happens."."""
        ...
