"""What the two engines have in common, so that everything above them takes either."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from leap_worlds.alfworld.game import Game, State


class Reply(NamedTuple):
    """What an engine answers.

    Attributes:
        observation: The text, exactly as ALFWorld's AlfredTWEnv gives it.
        admissible: The commands that can be given now, sorted.
        won: Whether the goal holds.
        score: 1.0 if won, else 0.0.
    """

    observation: str
    admissible: tuple[str, ...]
    won: bool
    score: float


class Engine(Protocol):
    """One playthrough of one game: made, started once, stepped, thrown away.

    The engine knows no step limit and goes on after the goal is reached, as the real one does; ending an episode is the
    caller's business.
    """

    @property
    def game(self) -> Game:
        """The game being played."""
        ...

    @property
    def state(self) -> State:
        """The hidden state at this moment (where things are, what is open, held, clean, hot, cool, used)."""
        ...

    def start(self) -> Reply:
        """The first reply. Call it once, before any step."""
        ...

    def step(self, command: str) -> Reply:
        """Gives a command. Any string is allowed; one that is not admissible answers "Nothing happens."."""
        ...
