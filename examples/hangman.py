"""TextArena's Hangman as a leap environment: a student from random weights learns from a teacher who sees the word.

    pip install 'leap-agents[train,textarena]'
    python examples/hangman.py            # some four minutes of a core

The expert asks for the vowels and then goes down the alphabet. The teacher, who is told the `target_word` in the game's own
state, names the commonest of the word's letters that is still hidden. No student can know that letter, but it can learn which
to expect. Behind all of the first student's states the vowels have been asked for; how to play without that, a second iteration
teaches. Demonstrations are few: a letter that is always the same in them outweighs corrections that differ from word to word.

TextArena takes its words from NLTK's corpus `words`. Here it is given two lists of long words out of the dictionary that
comes with it: `Hangman-v0` draws from the one, to train on; `Hangman-v0-hardcore` from the other, to test on. They share no word.
"""

from __future__ import annotations

import random
import re
import tempfile
from importlib.resources import files
from pathlib import Path
from string import ascii_uppercase
from typing import ClassVar

import leap
from leap.interop.foreign import TextArenaConfig, TextArenaEnvironment, TextArenaGame

ORDER = "AEIOU" + "".join(letter for letter in ascii_uppercase if letter not in "AEIOU")
FREQUENT = "ETAOINSRHDLUCMFYWGPBVKXQJZ"
HORIZON = 26
SIZE = {"layers": 2, "width": 64, "heads": 4, "mlp": 128, "lookback": True}


class Board(TextArenaGame):
    """A game that shows its board and nothing else: a small student reads each token at a price."""

    def __init__(self, environment: TextArenaEnvironment, task: leap.Task) -> None:
        super().__init__(environment, task)
        self._left = [f"[{letter}]" for letter in ascii_uppercase]
        self._board = ""

    def observe(self) -> leap.Observation:
        boards = re.findall(r"^[A-Z_ ]+$", super().observe().text, re.MULTILINE)
        self._board = " ".join(boards[-1].split()) if boards else self._board  # an invalid move shows none
        return leap.Observation(text=f" {self._board}", admissible=tuple(self._left))

    def act(self, action: str) -> leap.Outcome:
        self._left = [letter for letter in self._left if letter != action]
        return super().act(action)


class Hangman(TextArenaEnvironment):
    """The game, and what can be scripted about it."""

    name: ClassVar[str] = "hangman"

    def start(self, task: leap.Task) -> Board:
        return Board(self, task)

    def vocabulary(self) -> list[str]:
        return [f" {letter} [{letter}]" for letter in ascii_uppercase]

    @property
    def tutor(self) -> HangmanTutor:
        return HangmanTutor(self)


class HangmanTutor(leap.Tutor[Hangman]):
    """Asks for letters in a fixed order; with the word in sight, for the commonest of its letters."""

    def expert(self, task: leap.Task) -> HangmanTutor:
        return self

    def decide(self, history: leap.History) -> leap.Decision:
        return leap.Decision(reason="Likely.", action=_left(ORDER, history)[0])

    def correct(self, history: leap.History, privileged: leap.PrivilegedState, privilege: int) -> leap.Decision | None:
        word = privileged.facts["value"].upper()
        return leap.Decision(reason="Likely.", action=_left([one for one in FREQUENT if one in word], history)[0])


def _left(letters: list[str] | str, history: leap.History) -> list[str]:
    return [f"[{letter}]" for letter in letters if f"[{letter}]" not in history.actions]


def main(
    steps: int = 300, tasks: int = 400, games: int = 300, iterations: int = 3, seed: int = 0, held_out: str = "test"
) -> dict[str, leap.Evaluation]:
    """Behaviour cloning, then iterations of LEAP; returns the scores of the expert and of each pi_i on held-out words.

    Args:
        steps: Updates of each training; a third of them for behaviour cloning.
        tasks: Games played in each iteration.
        games: Games of the evaluation.
        iterations: How often the student is corrected.
        seed: Of the student's weights and of all that is drawn.
        held_out: `test`, or `valid` to choose settings by.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _write_words(work / "nltk_data", held_out)
        splits = {"train": tasks * iterations, held_out: games}
        config = TextArenaConfig(
            game="Hangman-v0", privileged="target_word", instruction="Find the word.", tasks=splits
        )
        world = Hangman(config)
        unseen = Hangman(config.model_copy(update={"game": "Hangman-v0-hardcore"}))
        train = world.tasks("train")
        demonstrations = leap.rollout(world, leap.expert(world), train[:20], horizon=HORIZON, stream="demonstrations")
        base = leap.Student.scratch(
            work / "base",
            world,
            demonstrations,
            size=SIZE,
            seed=seed,
            prompt={"renderer": "dialogue", "instructions": False, "candidates": False},
            sampling={"temperature": 0.7, "max_tokens": 16},
            decoding="constrained",  # only letters that were not asked for yet
        )
        settings = {"branches": True, "optimizer": "muon", "lr": 2e-3, "muon_lr": 0.01, "batch_tokens": 2000}
        found: dict[str, leap.Evaluation] = {}

        def evaluate(name: str, policy: leap.Policy) -> None:
            found[name] = leap.evaluate(unseen, policy, held_out, horizon=HORIZON)
            of = found[name].overall
            print(
                f"{name:6} finds the word in {of.success:5.1%} of {of.n} games [{of.low:.1%}, {of.high:.1%}]",
                flush=True,
            )

        rows = base.rows(demonstrations)
        student = base.train(rows, work / "pi-0", seed=seed, steps=steps // 3, **settings)
        evaluate("expert", leap.expert(unseen))
        evaluate("pi_0", student.policy(temperature=0.0))
        for i in range(1, iterations + 1):
            played = train[(i - 1) * tasks : i * tasks]
            episodes = leap.rollout(world, student.policy(), played, horizon=HORIZON, stream=f"{seed}/{i}")
            rows += base.rows(episodes, leap.correct(world, episodes, privilege=100))
            student = student.train(rows, work / f"pi-{i}", seed=seed + i, steps=steps, **settings)
            evaluate(f"pi_{i}", student.policy(temperature=0.0))
    return found


def _write_words(folder: Path, held_out: str) -> None:
    """Makes a corpus `words` of words of 11 to 18 letters and has NLTK find it first."""
    import nltk

    lines = files("textarena.envs.utils.data").joinpath("en_US.dic").read_text(encoding="utf-8").splitlines()[1:]
    words = sorted({word for word in (line.partition("/")[0] for line in lines) if re.fullmatch("[a-z]{11,18}", word)})
    random.Random(0).shuffle(words)
    parts = {"test": words[:1000], "valid": words[1000:2000]}
    corpus = folder / "corpora" / "words"
    corpus.mkdir(parents=True)
    (corpus / "en-basic").write_text("\n".join(words[2000:]) + "\n", encoding="utf-8")
    (corpus / "en").write_text("\n".join(parts[held_out]) + "\n", encoding="utf-8")
    nltk.data.path.insert(0, str(folder))


if __name__ == "__main__":
    main()
