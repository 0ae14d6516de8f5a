"""TextArena's Hangman as a leap environment: a student from random weights learns from a teacher who sees the word.

    pip install 'leap-agents[train,textarena]'
    python examples/hangman.py            # minutes on a laptop's CPU

What is hidden is where a path leads: `target_word` in the game's own state. TextArena takes its words from NLTK's corpus
`words`; where that is neither there nor can be fetched, a short list is written for it. Test games are other seeds than training
games; their words may be the same.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from string import ascii_uppercase
from typing import ClassVar

import leap
from leap.interop.foreign import TextArenaConfig, TextArenaEnvironment

FREQUENT = "ETAOINSRHDLUCMFYWGPBVKXQJZ"
"""Letters by how often they are in English texts."""
HORIZON, SEED = 15, 0
WORDS = (
    "water house garden table window kitchen paper letter school teacher summer winter mountain river forest animal "
    "bottle butter cheese bread orange potato onion carrot pepper silver copper engine machine station market "
    "village country island ocean harbour bridge castle tower church street corner farmer doctor sister brother "
    "mother father "
)


class Hangman(TextArenaEnvironment):
    """The game, and what can be scripted about it."""

    name: ClassVar[str] = "hangman"

    @property
    def tutor(self) -> HangmanTutor:
        return HangmanTutor(self)


class HangmanTutor(leap.Tutor[Hangman]):
    """Asks for letters by their frequency; with the word in sight, only for those that are in it."""

    def expert(self, task: leap.Task) -> HangmanTutor:
        return self

    def decide(self, history: leap.History) -> leap.Decision:
        return _first(FREQUENT, history, "is frequent")

    def correct(self, history: leap.History, privileged: leap.PrivilegedState, privilege: int) -> leap.Decision | None:
        word = privileged.facts["value"].upper() if privilege >= 50 else FREQUENT
        return _first([letter for letter in FREQUENT if letter in word], history, "fits well")


def _first(letters: list[str] | str, history: leap.History, why: str) -> leap.Decision:
    letter = next((letter for letter in letters if f"[{letter}]" not in history.actions), "E")
    return leap.Decision(reason=f"{letter} {why}.", action=f"[{letter}]")


def main(steps: int = 600, tasks: int = 400, games: int = 200, iterations: int = 3) -> list[float]:
    """Behaviour cloning, then iterations of LEAP; returns the scores of the expert and of each pi_i on test games."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _words(work / "nltk_data")
        splits = {"train": tasks, "test": games}
        actions = tuple(f"[{letter}]" for letter in ascii_uppercase)
        config = TextArenaConfig(game="Hangman-v0", privileged="target_word", actions=actions, tasks=splits)
        world = Hangman(config)
        train = world.tasks("train")
        demonstrations = leap.rollout(world, leap.expert(world), train[:40], horizon=HORIZON, stream="demonstrations")
        prompt = {"renderer": "dialogue", "instructions": False, "candidates": False}
        base = leap.Student.scratch(
            work / "base",
            world,
            demonstrations,
            size={"layers": 2, "width": 64, "heads": 4, "mlp": 128},
            seed=SEED,
            prompt=prompt,
            sampling={"temperature": 0.3, "max_tokens": 24},
            decoding="constrained",
        )
        settings = {
            "branches": True,
            "optimizer": "muon",
            "lr": 3e-3,
            "muon_lr": 0.02,
            "batch_tokens": 2000,
            "steps": steps,
        }
        rows = base.rows(demonstrations)
        students = [base.train(rows, work / "pi-0", seed=SEED, **settings)]
        for i in range(1, iterations + 1):
            episodes = leap.rollout(world, students[-1].policy(), train, horizon=HORIZON, stream=f"rollout-{i}")
            rows += base.rows(episodes, leap.correct(world, episodes, privilege=100))
            students.append(students[-1].train(rows, work / f"pi-{i}", seed=SEED + i, **settings))

        policies = {"expert": leap.expert(world)}
        policies |= {f"pi_{i}": student.policy(temperature=0.0) for i, student in enumerate(students)}
        scores = []
        for name, policy in policies.items():
            overall = leap.evaluate(world, policy, "test", horizon=HORIZON).overall
            scores.append(overall.score)
            said = f"{overall.success:.0%} of the words ({overall.low:.0%} to {overall.high:.0%}), "
            said += f"{overall.score:.2f} of a word's letters (+-{overall.score_ci:.2f})"
            print(f"{name:6} n {overall.n}: found {said}")
    return scores


def _words(folder: Path) -> None:
    """Sees to it that the corpus `words` is there."""
    import nltk

    try:
        nltk.data.find("corpora/words")
    except LookupError:
        if not nltk.download("words", quiet=True):
            corpus = folder / "corpora" / "words"
            corpus.mkdir(parents=True)
            for name in ("en", "en-basic"):
                (corpus / name).write_text(WORDS.replace(" ", "\n"), encoding="utf-8")
            nltk.data.path.append(str(folder))


if __name__ == "__main__":
    main()
