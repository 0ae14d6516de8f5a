"""Measures of corrections as they are on file: leaks, rejections, agreement, recoverability. Reads one episode at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from leap.core import Correction, Episode, PrivilegedState, Rejection, StopReason, content_key
from leap.envs.base import Environment
from leap.envs.live import states_along
from leap.sync import run_sync
from leap_lab.measures.figures import Figure, mean, share
from leap_lab.measures.leaks import hidden_entities, quoted_commands
from leap_lab.measures.records import CorrectionMeasures, Leakage
from leap_lab.measures.recoverability import Tally, lengths_from_corrections, lengths_from_states


@dataclass(frozen=True)
class Corrected:
    """Episodes of one student on one split, with their corrections.

    Attributes:
        episodes: The episodes; those without corrections count as not corrected.
        corrections: Corrections of their steps, kept and rejected.
        environment: Where the episodes are replayed for their privileged states: what is hidden, the plan's commands, and
            the plan's length after the last step. None leaves out what only these tell.
    """

    episodes: Iterable[Episode]
    corrections: Iterable[Correction]
    environment: Environment | None = None


def held_out(episodes: Iterable[Episode], limit: int | None) -> list[Episode]:
    """Some of a student's evaluation episodes: of the same tasks for every student, so that iterations can be compared.

    Args:
        episodes: The student's episodes on the validation split.
        limit: How many; all if None.
    """
    chosen = sorted(episodes, key=lambda episode: content_key("held out", episode.task.key))[:limit]
    return sorted(chosen, key=lambda episode: (episode.task.split, episode.task.id))


def measure_corrections(corrected: Corrected, *, policy: str) -> CorrectionMeasures | None:
    """Everything that episodes and corrections tell by themselves.

    Args:
        corrected: The episodes and corrections.
        policy: Who acted in the episodes.

    Returns:
        The measures; None where there is no episode.

    Raises:
        ValueError: The episodes are of several splits or horizons.
        LeapError: A replay shows another world than was logged.
    """
    by_episode: dict[str, dict[int, Correction]] = defaultdict(dict)
    planner = False
    for correction in corrected.corrections:
        by_episode[correction.episode][correction.t] = correction
        planner = planner or correction.plan_length is not None
    counts = _Counts()
    for episode in corrected.episodes:
        mine = {t: one for t, one in by_episode.get(episode.key, {}).items() if t < len(episode.steps)}
        counts.add(episode, mine, corrected.environment, planner)
    return counts.result(policy)


def privileged_states(environment: Environment, episode: Episode) -> list[PrivilegedState]:
    """Returns the privileged state before each step, and after the last one where the horizon ended the episode.

    Raises:
        LeapError: The session shows something else than was logged.
    """
    unended = episode.stop is StopReason.HORIZON or episode.stop.untold
    return run_sync(states_along(environment, episode, after_last=unended))


class _Counts:
    """Sums over episodes; each list has an entry per corrected episode, the unit of the intervals."""

    def __init__(self) -> None:
        self._worlds: set[tuple[str, int]] = set()
        self._episodes = self._corrected = self._corrections = 0
        self._whole = True
        self._shares: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._rejected: list[tuple[Counter[Rejection], int]] = []
        self._by_step: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        self._distance: list[tuple[float, int]] = []
        self._planned = Tally()

    def add(
        self, episode: Episode, corrections: dict[int, Correction], environment: Environment | None, planner: bool
    ) -> None:
        self._worlds.add((episode.task.split, episode.horizon))
        self._episodes += 1
        self._whole = self._whole and len(corrections) == len(episode.steps)
        if not corrections:
            return
        self._corrected += 1
        self._corrections += len(corrections)
        states = privileged_states(environment, episode) if environment is not None else None
        self._judgement(list(corrections.values()))
        self._leaks(episode, corrections, states, environment)
        differs = self._agreement(episode, corrections)
        if states is not None:
            self._planned.add(episode, lengths_from_states(episode, states), differs)
        elif planner:
            self._planned.add(episode, lengths_from_corrections(episode, corrections), differs)

    def _judgement(self, corrections: Sequence[Correction]) -> None:
        kept = [one for one in corrections if one.kept]
        self._shares["kept"].append((len(kept), len(corrections)))
        self._shares["leaked"].append((sum(bool(one.leaked) for one in corrections), len(corrections)))
        self._shares["leaked, kept"].append((sum(bool(one.leaked) for one in kept), len(kept)))
        self._rejected.append((Counter(one.rejected for one in corrections if one.rejected), len(corrections)))

    def _leaks(
        self,
        episode: Episode,
        corrections: dict[int, Correction],
        states: Sequence[PrivilegedState] | None,
        environment: Environment | None,
    ) -> None:
        if states is None or environment is None:
            return
        entities = environment.of(episode.task).entities
        hidden = invented = quoted = 0
        for t, correction in corrections.items():
            if correction.leaked:
                there = set.union(*(hidden_entities(state, entities) for state in (states[0], states[t])))
                hidden += any(name in there for name in correction.leaked)
                invented += any(name not in there for name in correction.leaked)
            # A teacher that sees a whole trajectory is given the plan of its beginning.
            commands = {*(states[t].plan or ()), *(states[0].plan or ())}
            quoted += bool(quoted_commands(correction.reason, commands, episode.history(t)))
        for name, hits in (("hidden", hidden), ("invented", invented), ("commands", quoted)):
            self._shares[name].append((hits, len(corrections)))

    def _agreement(self, episode: Episode, corrections: dict[int, Correction]) -> list[bool | None]:
        """Counts equal actions; returns where they differ."""
        differs: list[bool | None] = []
        agreed = acted = apart = 0
        for t, step in enumerate(episode.steps):
            one = corrections.get(t)
            if one is None or not one.action:
                differs.append(None)
                # Where nothing can succeed no action is worse than another; any other silence is counted as a difference.
                apart += one is not None and one.rejected is not Rejection.HOPELESS
                continue
            same = one.action == step.action
            differs.append(not same)
            acted += 1
            agreed += same
            apart += not same
            self._by_step[t][0] += same
            self._by_step[t][1] += 1
        self._shares["agreed"].append((agreed, acted))
        self._distance.append((2 * apart / episode.horizon, 1))
        return differs

    def result(self, policy: str) -> CorrectionMeasures | None:
        if not self._episodes:
            return None
        if len(self._worlds) != 1:
            raise ValueError(f"episodes of one split and horizon are needed, got {sorted(self._worlds)}")
        ((split, horizon),) = self._worlds
        causes = sorted({cause for found, _ in self._rejected for cause in found})
        rejected = {cause.value: share((found[cause], total) for found, total in self._rejected) for cause in causes}
        by_step = [self._step(t) for t in range(max(self._by_step, default=-1) + 1)]
        return CorrectionMeasures(
            policy=policy,
            split=split,
            horizon=horizon,
            episodes=self._episodes,
            corrected=self._corrected,
            corrections=self._corrections,
            kept=share(self._shares["kept"]),
            rejected={cause: figure for cause, figure in rejected.items() if figure is not None},
            leakage=Leakage(
                entities=share(self._shares["leaked"]),
                kept=share(self._shares["leaked, kept"]),
                hidden=share(self._shares["hidden"]),
                invented=share(self._shares["invented"]),
                commands=share(self._shares["commands"]),
            ),
            agreement=share(self._shares["agreed"]),
            agreement_by_step=by_step,
            distance=mean(self._distance, least=0.0, most=2.0) if self._whole else None,
            recoverability=self._planned.result(),
        )

    def _step(self, t: int) -> Figure | None:
        agreed, acted = self._by_step[t]
        return share([(1, 1)] * agreed + [(0, 1)] * (acted - agreed))
