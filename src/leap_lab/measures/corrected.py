"""Measures of corrections as they are on file: leaks, rejections, agreement, recoverability. Reads one episode at a time."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from leap.core import Correction, Episode, History, PrivilegedState, Rejection, StopReason, content_key
from leap.envs.base import Environment
from leap.envs.live import states_along
from leap.sync import run_sync
from leap_lab.measures.figures import Figure, mean, share
from leap_lab.measures.records import CorrectionMeasures, Leakage
from leap_lab.measures.recoverability import Planned, lengths_from_states, recoverability


@dataclass(frozen=True)
class Corrected:
    """Episodes of one student on one split, with their corrections.

    Attributes:
        episodes: The episodes; those without corrections count as not corrected.
        corrections: Corrections of their steps, kept and rejected.
        environment: Where the episodes are replayed for their privileged states: what is hidden, the plan's commands,
            and the plan's length.
    """

    episodes: Iterable[Episode]
    corrections: Iterable[Correction]
    environment: Environment


def held_out(episodes: Iterable[Episode], limit: int | None) -> list[Episode]:
    """Some of a student's episodes on the validation split (all if `limit` is None): of the same tasks for every
    student, so that iterations can be compared. What the environment's own error ended cannot be replayed."""
    whole = [episode for episode in episodes if episode.stop is not StopReason.ENVIRONMENT_ERROR]
    chosen = sorted(whole, key=lambda episode: content_key("held out", episode.task.key))[:limit]
    return sorted(chosen, key=lambda episode: (episode.task.split, episode.task.id))


def measure_corrections(corrected: Corrected, *, policy: str) -> CorrectionMeasures | None:
    """Returns everything that episodes and corrections tell by themselves; None where there is no episode.

    Args:
        corrected: The episodes and corrections.
        policy: Who acted in the episodes.

    Raises:
        ValueError: The episodes are of several splits or horizons.
        LeapError: A replay shows another world than was logged.
    """
    by_episode: dict[str, dict[int, Correction]] = defaultdict(dict)
    for correction in corrected.corrections:
        by_episode[correction.episode][correction.t] = correction
    world, played, whole = corrected.environment, Counter[tuple[str, int]](), True
    groups: list[list[_Judged]] = []
    planned: list[Planned] = []
    for episode in corrected.episodes:
        mine = {t: one for t, one in by_episode.get(episode.key, {}).items() if t < len(episode.steps)}
        played[episode.task.split, episode.horizon] += 1
        whole = whole and len(mine) == len(episode.steps)
        if not mine:
            continue
        states = privileged_states(world, episode)
        groups.append([_judged(episode, one, states, world.of(episode.task).entities) for one in mine.values()])
        agrees = {one.correction.t: one.agrees for one in groups[-1]}
        lengths = lengths_from_states(episode, states)
        planned.append(Planned(episode, lengths, [agrees.get(t) for t in range(len(episode.steps))]))
    if not played:
        return None
    if len(played) != 1:
        raise ValueError(f"episodes of one split and horizon are needed, got {sorted(played)}")
    (((split, horizon), episodes),) = played.items()

    def counted(
        what: Callable[[_Judged], object], among: Callable[[_Judged], object] = lambda one: True
    ) -> Figure | None:
        """Returns the share of corrections, among some of them."""
        chosen = [[one for one in group if among(one)] for group in groups]
        return share((sum(bool(what(one)) for one in group), len(group)) for group in chosen)

    everyone = [one for group in groups for one in group]
    causes = sorted({one.correction.rejected for one in everyone if one.correction.rejected})
    rejected = {cause.value: counted(lambda one, cause=cause: one.correction.rejected is cause) for cause in causes}
    acted = [one for one in everyone if one.agrees is not None]
    by_step = [[(int(one.agrees is True), 1) for one in acted if one.correction.t == t] for t in range(horizon)]
    apart = [(2 * sum(one.apart for one in group) / horizon, 1) for group in groups]
    return CorrectionMeasures(
        policy=policy,
        split=split,
        horizon=horizon,
        episodes=episodes,
        corrected=len(groups),
        corrections=len(everyone),
        kept=counted(lambda one: one.correction.kept),
        rejected={cause: figure for cause, figure in rejected.items() if figure is not None},
        leakage=Leakage(
            entities=counted(lambda one: one.correction.leaked),
            kept=counted(lambda one: one.correction.leaked, among=lambda one: one.correction.kept),
            hidden=counted(lambda one: one.hidden),
            invented=counted(lambda one: one.invented),
            commands=counted(lambda one: one.quotes),
        ),
        agreement=counted(lambda one: one.agrees, among=lambda one: one.agrees is not None),
        agreement_by_step=[share(step) for step in by_step[: 1 + max((one.correction.t for one in acted), default=-1)]],
        distance=mean(apart, least=0.0, most=2.0) if whole else None,
        recoverability=recoverability(planned),
    )


def privileged_states(environment: Environment, episode: Episode) -> list[PrivilegedState]:
    """Returns the privileged state before each step, and after the last one where the horizon ended the episode.

    Raises:
        LeapError: The session shows something else than was logged.
    """
    unended = episode.stop is StopReason.HORIZON or episode.stop.untold
    return run_sync(states_along(environment, episode, after_last=unended))


class _Judged(NamedTuple):
    """A correction, and what the episode and its privileged states say of it.

    Attributes:
        correction: The correction.
        agrees: Whether it names the student's own action; None where it names none.
        hidden, invented: Its reason names what the student has not seen; the privileged state has it, or not either.
        quotes: Its reason quotes a hidden command of the privileged plan.
    """

    correction: Correction
    agrees: bool | None
    hidden: bool
    invented: bool
    quotes: bool

    @property
    def apart(self) -> bool:
        """Whether it counts as a difference. Where nothing can succeed no action is worse than another; any other
        silence of the teacher counts."""
        return self.correction.rejected is not Rejection.HOPELESS if self.agrees is None else not self.agrees


def _judged(
    episode: Episode, one: Correction, states: Sequence[PrivilegedState], entities: Callable[[str], set[str]]
) -> _Judged:
    # A teacher that sees a whole trajectory is given the state and the plan of its beginning.
    known = (states[0], states[one.t])
    there = set.union(*(hidden_entities(state, entities) for state in known)) if one.leaked else set()
    commands = {command for state in known for command in state.plan or ()}
    return _Judged(
        one,
        agrees=one.action == episode.steps[one.t].action if one.action else None,
        hidden=any(name in there for name in one.leaked),
        invented=any(name not in there for name in one.leaked),
        quotes=bool(quoted_commands(one.reason, commands, episode.history(one.t))),
    )


def quoted_commands(reason: str, commands: Iterable[str], history: History) -> tuple[str, ...]:
    """Commands of a privileged plan that a reason quotes word for word although the student has not seen them, sorted.

    Seen is a command that was admissible at this step or an earlier one, that the student gave itself, or that stands
    in the task or in an observation. Commands of one word are not looked for: `look` is also a word.
    """
    quoted = {c: _folded(c) for c in commands if len(c.split()) > 1 and _stands_in(_folded(c), _folded(reason))}
    if not quoted:
        return ()
    offered = (command for observation in history.observations for command in observation.admissible or ())
    known = {_folded(command) for command in (*history.actions, *offered)}
    texts = [_folded(text) for text in (history.task.instruction, *(o.text for o in history.observations))]
    return tuple(
        sorted(c for c, own in quoted.items() if own not in known and not any(_stands_in(own, t) for t in texts))
    )


def hidden_entities(privileged: PrivilegedState, entities: Callable[[str], set[str]]) -> set[str]:
    """Returns every entity that the privileged state names, in its text or its facts."""
    facts = json.dumps(privileged.facts, ensure_ascii=False, default=str)
    return entities(privileged.text) | entities(facts) | entities("\n".join(privileged.plan or ()))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _stands_in(command: str, text: str) -> bool:
    return command in text and re.search(rf"(?<!\w){re.escape(command)}(?!\w)", text) is not None
