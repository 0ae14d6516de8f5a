"""Hindsight: what is known of an attempt once it is over. Privileged information where an environment has none to tell: how the
attempt went on and ended, what the environment said to it, its score, and another attempt at the same task that solved it.
"""

from __future__ import annotations

from collections.abc import Iterable

from leap.core import Episode, PrivilegedState, StopReason

_MOST = 600
"""Characters that are told of an observation."""
_ENDS = {
    StopReason.SUCCESS: "the task was solved",
    StopReason.ENDED: "the environment ended it, and the task was not solved",
    StopReason.HORIZON: "no more actions were allowed, and the task was not solved",
}


def hindsight(episode: Episode, sibling: str = "", *, course: bool) -> str:
    """What is known of an episode once it is over, as the text of a privileged state.

    Args:
        episode: The episode.
        sibling: An account of another one of the same task that solved it, where there is one.
        course: Whether its steps are told, too: for who is shown none that is later than the one asked about.
    """
    end = _ENDS.get(episode.stop, "it was broken off, and the task was not solved")
    parts = "".join(f"; {name}: {value:g}" for name, value in episode.parts.items())
    took = f"The attempt took {len(episode.steps)} of {episode.horizon} actions"
    told = [f"{took}: {end}. Its score is {episode.score:g} of 1{parts}."]
    if course:
        told += ["Step by step:", account(episode)]
    else:
        told.append(f"At its end the environment said: {_cut(episode.final.text)}")
    if sibling:
        told += ["Another attempt at the same task solved it:", sibling]
    return "\n".join(told)


def known(sibling: str) -> PrivilegedState:
    """What a student is told that is its own teacher in hindsight: an account of an attempt at the same task that solved it."""
    return PrivilegedState(text=f"An attempt at this task that solved it:\n{sibling}")


def account(episode: Episode) -> str:
    """The actions of an episode and what the environment said to each, one line each."""
    said = [*(step.observation.text for step in episode.steps[1:]), episode.final.text]
    pairs = enumerate(zip((step.action for step in episode.steps), said, strict=False))
    return "\n".join(f"{t}. {action} -> {_cut(text)}" for t, (action, text) in pairs)


def siblings(episodes: Iterable[Episode], wanted: Iterable[str]) -> dict[str, str]:
    """By task key, for those wanted, an account of an episode that solved the task: the shortest, of these the first."""
    left, best = set(wanted), dict[str, Episode]()
    for one in episodes:
        key = one.task.key
        if key in left and one.success and (key not in best or len(one.steps) < len(best[key].steps)):
            best[key] = one
    return {key: account(one) for key, one in best.items()}


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST else f"{line[:_MOST]}…"
