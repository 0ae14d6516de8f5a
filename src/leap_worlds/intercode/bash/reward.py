"""The reward of InterCode Bash, term by term.

    r = 0.01                                       for submitting
      + round(0.33 (1 - erf(|missing| + |extra|)), 2)   changed paths: 0 differences 0.33, one 0.05, more 0
      + round(0.33 same / common, 2)                    new files of both: their checksums; 0.33 where there are none
      + round(0.33 cos, 2)                              the last output against the gold's

A task is solved where r == 1.0, exactly. Source: princeton-nlp/intercode, `BashEnv.get_reward`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from leap.errors import PrerequisiteError

BASE = 0.01
PART = 0.33
CHECKED = frozenset({"A", "??", "C"})
"""Status codes of changes whose content upstream compares: added, untracked, copied."""


class Change(NamedTuple):
    """A changed path, as `git status` tells it."""

    path: str
    status: str


@dataclass(frozen=True, slots=True)
class Parts:
    """A reward and what it is made of."""

    diff: float  # the part for changed paths
    content: float  # the part for new files' contents
    answer: float  # the part for the last output
    missing: tuple[Change, ...] = ()  # the gold's changes that the student did not make
    extra: tuple[Change, ...] = ()  # the student's that the gold did not make
    unlike: tuple[Change, ...] = ()  # changes of both whose contents differ
    similarity: float = 0.0  # cosine of the outputs
    upstream_error: str = ""  # why upstream's own code would have raised here

    @property
    def total(self) -> float:
        """The reward, added up in upstream's order: the order decides the last bits."""
        return ((BASE + self.diff) + self.content) + self.answer

    @property
    def solved(self) -> bool:
        """Whether the task is solved."""
        return self.total == 1.0


def diff_part(differences: int) -> float:
    """The part for changed paths, by the number of missing and extra ones."""
    return round(PART * (1 - math.erf(differences)), 2)


def content_part(same: int, common: int) -> float:
    """The part for contents: `same` of `common` new files are alike."""
    return round(PART * (same / common), 2) if common else PART


def answer_part(cosine: float) -> float:
    """The part for the last output."""
    return round(PART * cosine, 2)


def parse_short_status(text: str) -> list[Change]:
    """`git status --short` as upstream reads it: blank-separated words in pairs, so that a path with a blank shifts all
    that follow. Where they are odd in number an IndexError is raised, as upstream does."""
    words = text.split()
    return [Change(words[i + 1], words[i]) for i in range(0, len(words), 2)]


def parse_z_status(text: str) -> list[Change]:
    """`git status --porcelain -z`, entry by entry: any path is told exactly. A renamed path counts under its new name."""
    changes, entries = [], iter(text.split("\0"))
    for entry in entries:
        status, path = entry[:2].strip(), entry[3:]
        if path:
            changes.append(Change(path, status))
        if status[:1] in ("R", "C"):
            next(entries, None)  # the old name
    return changes


def similarity(agent: str, gold: str | None) -> float:
    """Cosine of the outputs' TF-IDF vectors over the two of them, as upstream computes it: by scikit-learn with its defaults.

    Order, case, punctuation and words of one character do not matter. Where no word of two characters is left, or there
    is no gold output, only equal texts are alike (upstream: any exception).

    Args:
        agent: The student's last output.
        gold: The gold command's output; None where it could not be read.

    Returns:
        A value in [0, 1], up to rounding.
    """
    if gold is None:
        return 0.0
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise PrerequisiteError(f"the reward needs scikit-learn ({error}); pip install 'leap-agents[intercode]'.") from error
    try:
        vectors = TfidfVectorizer().fit_transform([agent, gold])
    except ValueError:  # an empty vocabulary
        return 1.0 if agent == gold else 0.0
    return float((vectors * vectors.T).toarray()[0][1])
