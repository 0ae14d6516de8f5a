"""The `search` teacher: no script and no other model. What the student might have done at each step of an episode is tried.

At each step some answers of the student are drawn, half of them with the privileged state in the prompt where there is one. Each
action among them is taken in a session at that state, and the student goes on from there; what is reached is the action's worth,
and the best is the correction (relabelling each visited state with the best of one's own samples: muCode, arXiv 2502.20380).
Where none is better than the student's own, that stays. A score at the end is enough, where episodes can be replayed.

The student's answer at a state is the same in every trial that comes there. So what follows upon its own action is known from
the trials of the next step, and only what it did not do is executed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Container, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple, TypeVar

from leap.core import Correction, Decision, Episode, Measured, seed_of
from leap.envs.replay import Replay
from leap.envs.tutor import roll_in
from leap.errors import EnvironmentFault, LeapError, ModelError, ModelRefused, RecipeError
from leap.models.breaker import CircuitBreaker
from leap.policies.base import ExpertPolicy
from leap.rollouts import decide
from leap.sync import in_waves, side_by_side
from leap.teachers.asking import failed_calls
from leap.teachers.base import Corrected, Teacher, TeacherContext
from leap.teachers.config import SearchConfig, SelfTeacherConfig
from leap.teachers.self import SelfTeacher

log = logging.getLogger(__name__)

T = TypeVar("T")

_STRAYED = 5
"""So many replays that end otherwise than their episodes, and more than half of all, end the stage."""
_EQUAL = 1e-9
_TUTORS = 16  # roll-ins of a tutor at once


class Reached(NamedTuple):
    """What a trial came to: the score, and after how many actions."""

    score: float
    actions: int


class Worth(NamedTuple):
    """What an action is worth: the mean over its trials of the score less what time costs, and of the score."""

    value: float
    score: float


class Trial(NamedTuple):
    """An action to be tried at a step of an episode, and which of its trials it is."""

    search: Search
    t: int
    action: str
    roll: int

    @property
    def most(self) -> int:
        """Most actions that it goes on for."""
        left, depth = self.search.episode.horizon - self.t, self.search.config.depth
        return left if depth is None else min(left, depth)


@dataclass(eq=False)
class Search:
    """What is found out about one episode.

    Attributes:
        episode: The episode.
        config: The teacher's options.
        replay: Gives sessions at its states.
        own: At each step, the action with which the student goes on in each trial that comes there; empty where a call failed.
        others: At each step, the corrections that may be made, by their action.
        reached: What trials came to, by step, action and number.
        executed: Actions executed so far for each step.
        error: Of a call that failed for good, though it may well work another time.
        dropped: Steps left out of prompts.
    """

    episode: Episode
    config: SearchConfig
    replay: Replay
    own: list[list[str]] = field(init=False)
    others: list[dict[str, Correction]] = field(init=False)
    reached: dict[tuple[int, str, int], Reached] = field(default_factory=dict)
    executed: list[int] = field(init=False)
    error: str = ""
    dropped: int = 0

    def __post_init__(self) -> None:
        steps = len(self.episode.steps)
        self.own = [[""] * self.config.rolls for _ in range(steps)]
        self.others = [{} for _ in range(steps)]
        self.executed = [1] * steps  # the replay

    def joins(self, t: int) -> bool:
        """Whether what follows upon the student's own action at a step is known from the next."""
        depth = self.config.depth
        return self.config.roll_in == "student" and (depth is None or t + depth >= self.episode.horizon)

    def wanted(self, t: int) -> list[str]:
        """The actions to be tried at a step, the most wanted first."""
        done, known = self.episode.steps[t].action, self.joins(t)
        wanted = [*self.own[t]] if self.config.roll_in == "student" else []
        wanted += [*([] if known else [done]), *self.others[t]]
        return [action for action in dict.fromkeys(wanted) if action and not (known and action == done)]

    def trials(self, number: int, cap: int) -> Iterator[Trial]:
        """Those of one more action of each step, as far as a cap on what is executed allows, were each as long as it may be."""
        spent = sum(self.executed)
        for t in range(len(self.own)):
            for action in self.wanted(t)[number : number + 1]:
                trials = [Trial(self, t, action, roll) for roll in range(self.config.rolls)]
                cost = sum(self.replay.cost(t) + trial.most for trial in trials)
                if spent + cost <= cap:
                    spent += cost
                    yield from trials

    def join(self) -> None:
        """Works out, from the last step to the first, what the student's own actions came to."""
        steps = self.episode.steps
        for t, roll in product(reversed(range(len(steps))), range(self.config.rolls)):
            if self.joins(t):
                after: Reached | None = Reached(self.episode.score, 0)
                if t + 1 < len(steps):
                    after = self.reached.get((t + 1, self.own[t + 1][roll], roll))
                if after is not None:
                    self.reached[t, steps[t].action, roll] = Reached(after.score, after.actions + 1)

    def worth(self, t: int, action: str) -> Worth | None:
        """What an action is worth at a step; None where not all of its trials were made."""
        ended = [one for roll in range(self.config.rolls) if (one := self.reached.get((t, action, roll))) is not None]
        if len(ended) < self.config.rolls:
            return None
        values = [one.score * self.config.discount ** (one.actions - 1) for one in ended]
        return Worth(sum(values) / len(values), sum(one.score for one in ended) / len(ended))


class SearchTeacher(Teacher[SearchConfig]):
    """Corrects by trying. The answers for as many episodes as the student can hold conversations are drawn together, and all
    their trials go in waves.

    Raises:
        RecipeError: There is no student.
    """

    Config = SearchConfig
    name = "search"

    def __init__(self, config: SearchConfig, context: TeacherContext) -> None:
        super().__init__(config, context)
        if context.student is None or context.student.policy is None:
            raise RecipeError("the search teacher tries what the student answers, but no student is given")
        self._student, self._hot = context.student.policy(0.0), context.student.policy(config.temperature)
        self._rolling = ExpertPolicy(context.environment) if config.roll_in == "expert" else self._student
        self._privileged = None
        if config.privilege and config.answers > 1:
            self._privileged = SelfTeacher(SelfTeacherConfig(privilege=config.privilege), context)
        self.waves = self._student.waves
        self.concurrency = max(1, self._student.concurrency // config.answers)
        self._cap = config.most_steps
        if config.stage_steps is not None:
            self._cap = min(self._cap, config.stage_steps // max(context.episodes or 1, 1))
        self._replayed = self._strayed = 0

    async def correct(self, episode: Episode) -> list[Correction]:
        """A correction for every step: the best of what was tried there."""
        (made,) = await self._corrected([episode])
        return [*made.corrections]

    async def correct_each(
        self, episodes: Sequence[Episode], hand_on: Callable[[Corrected], None], *, done: Container[str] = frozenset()
    ) -> None:
        breaker = CircuitBreaker(self.name)
        for start in range(0, len(episodes), self.concurrency):
            group = episodes[start : start + self.concurrency]
            wanted = [episode for episode in group if episode.key not in done]
            if not wanted:
                continue
            for made in await self._corrected(group if self.waves else wanted):
                if made.episode not in done:
                    hand_on(made)
                    breaker.count(made.error)

    async def _corrected(self, episodes: Sequence[Episode]) -> list[Corrected]:
        searches: dict[str, Search] = {}
        async with AsyncExitStack() as stack:

            async def begin(episode: Episode) -> None:
                replay = await stack.enter_async_context(Replay(self.context.environment, episode))
                searches[episode.key] = Search(episode, self.config, replay)

            await _all([one for one in episodes if len(one.steps) <= self._cap], begin)
            searches = {
                one.key: searches[one.key] for one in episodes if one.key in searches and self._same(searches[one.key])
            }
            await self._draw([*searches.values()])
            number = 0  # a step's next action is tried when each step has had one: a cap leaves none of them out
            while trials := [trial for search in searches.values() for trial in search.trials(number, self._cap)]:
                await self._try(trials)
                number += 1
        return [await self._made(episode, searches.get(episode.key)) for episode in episodes]

    def _same(self, search: Search) -> bool:
        """Whether an episode's replay ends as the episode did.

        Raises:
            LeapError: Too many do not.
        """
        episode, reached = search.episode, search.replay.reached
        self._replayed += 1
        if reached is None or abs(reached.score - episode.score) <= _EQUAL:
            return True
        self._strayed += 1
        task = f"the replay of task {episode.task.id} scores {reached.score:g}, its episode {episode.score:g}"
        if self._strayed >= _STRAYED and 2 * self._strayed > self._replayed:
            raise LeapError(
                f"{task}, and so it is for {self._strayed} of {self._replayed} episodes: {self.context.environment.name} is not "
                "deterministic, so actions cannot be compared in it. Choose another teacher than search."
            )
        log.warning("%s: it is not corrected", task)
        return False

    # ---- answers -----------------------------------------------------------------------------------------------------

    async def _draw(self, searches: Sequence[Search]) -> None:
        """Draws the student's answers at every step, and sorts out what may be a correction."""
        answers: dict[tuple[str, int], list[Decision | None]] = {}

        async def ask(asked: tuple[Search, int]) -> None:
            search, draw = asked
            plain = self.config.answers - self._hidden(search)
            how = self._plain(search, draw) if draw < plain else self._told(search, draw - plain)
            answers[search.episode.key, draw] = await how

        await _all([*product(searches, range(self.config.answers))], ask)
        for search, draw in product(searches, range(self.config.answers)):
            episode, states = search.episode, search.replay.states
            for t, decision in enumerate(answers[episode.key, draw]):
                correction = await self.verdict.correction(episode, t, decision, states[t])
                if correction.kept and correction.action != episode.steps[t].action:
                    search.others[t].setdefault(correction.action, correction)

    def _hidden(self, search: Search) -> int:
        """How many of the answers are drawn with the privileged state in the prompt."""
        told = self._privileged is not None and any(state.text.strip() for state in search.replay.states)
        return self.config.answers // 2 if told else 0

    async def _plain(self, search: Search, draw: int) -> list[Decision | None]:
        """Answers of the student as it acts; the first are those with which trials go on."""
        goes_on, answers = draw < self.config.rolls, list[Decision | None]()
        policy = self._student if goes_on else self._hot
        async with policy.playing(self._seed(search, draw), None) as player:
            for t in range(len(search.own)):
                try:
                    act = await decide(player, search.episode.history(t))
                except ModelError as error:
                    self._failed(search, error)
                    answers.append(None)
                    continue
                search.dropped += act.dropped
                answers.append(act.decision if act.parsed else None)
                if goes_on:
                    search.own[t][draw] = act.decision.action
        return answers

    async def _told(self, search: Search, draw: int) -> list[Decision | None]:
        """Answers of the student with the privileged state in the prompt."""
        assert self._privileged is not None
        with failed_calls() as failed:
            hot = self.config.temperature if draw else 0.0
            answers = await self._privileged.answers(search.episode, search.replay.states, draw, hot)
        search.error = failed[-1] if failed else search.error
        return answers

    def _seed(self, search: Search, draw: int) -> int:
        return seed_of(self.context.seed, "search", search.episode.key, draw)

    def _failed(self, search: Search, error: ModelError) -> None:
        log.info("task %s: %s", search.episode.task.id, error)
        if not isinstance(error, ModelRefused):
            search.error = str(error)

    # ---- trials ------------------------------------------------------------------------------------------------------

    async def _try(self, trials: list[Trial]) -> None:
        """Makes trials; of a model in this process in waves of trials that are about as long as each other."""
        trials.sort(key=lambda trial: -trial.most)
        if self.config.roll_in != "student":
            await side_by_side(trials, self._make, _TUTORS)
        elif self.waves:
            await in_waves(trials, self._make, self._student.concurrency, lambda _: True)
        else:
            await side_by_side(trials, self._make, self._student.concurrency)

    async def _make(self, trial: Trial) -> None:
        search, t, action, roll = trial
        try:
            if self.config.roll_in == "tutor":
                search.executed[t] += t + trial.most  # as much as it may have been
                score = await roll_in(self.context.environment, search.episode.history(t), action, trial.most)
                reached = Reached(score, trial.most)
            else:
                reached = await self._play(trial)
        except ModelError as error:
            self._failed(search, error)
        except EnvironmentFault as fault:
            log.warning("what comes of an action is not known: %s", fault)
        else:
            search.reached[t, action, roll] = reached

    async def _play(self, trial: Trial) -> Reached:
        """Takes the action at its state, and has the student or the expert go on."""
        search, t, action, roll = trial
        history, seed = search.episode.history(t), self._seed(search, roll)
        async with self._rolling.playing(seed, None) as player, search.replay.at(t) as session:
            search.executed[t] += search.replay.cost(t)
            taken = 0
            while True:
                outcome, taken = await session.act(action), taken + 1
                search.executed[t] += 1
                if outcome.done or taken == trial.most:
                    return Reached(1.0 if outcome.success else outcome.score, taken)
                history = history.extend(action, outcome.observation)
                action = (await decide(player, history)).decision.action

    # ---- corrections -------------------------------------------------------------------------------------------------

    async def _made(self, episode: Episode, search: Search | None) -> Corrected:
        if search is None:
            declined = tuple(self.verdict.declined(episode, t) for t in range(len(episode.steps)))
            return Corrected(episode=episode.key, corrections=declined)
        search.join()
        corrections = tuple([await self._best(search, t) for t in range(len(episode.steps))])
        return Corrected(episode=episode.key, corrections=corrections, error=search.error, dropped=search.dropped)

    async def _best(self, search: Search, t: int) -> Correction:
        """The best of what was tried at a step, the student's own where none is better. It teaches where it came to more than the
        episode did, or the episode succeeded."""
        episode, state = search.episode, search.replay.states[t]
        own, done = search.worth(t, episode.steps[t].action), episode.steps[t]
        if own is None:
            correction = self.verdict.declined(episode, t, state)
            measured = Measured(value=0, gain=0, spread=0, actions=0, executed=search.executed[t])
            return correction.model_copy(update={"measured": measured})
        others = {action: worth for action in search.others[t] if (worth := search.worth(t, action)) is not None}
        best = max(others, key=lambda action: others[action].value, default=None)
        worth = own
        if best is not None and others[best].value > own.value + _EQUAL:
            correction, worth = search.others[t][best], others[best]
        else:
            correction = await self.verdict.correction(
                episode, t, Decision(reason=done.reason, action=done.action), state
            )
        if not episode.success and worth.score <= episode.score + _EQUAL:
            correction = self.verdict.declined(episode, t, state)
        values = [own.value, *(one.value for one in others.values())]
        measured = Measured(
            value=worth.value,
            gain=worth.value - own.value,
            spread=max(values) - min(values),
            actions=len(values),
            executed=search.executed[t],
        )
        return correction.model_copy(update={"measured": measured})


async def _all(items: Sequence[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Works on all of them at once; raises as `side_by_side`."""
    await side_by_side(items, work, len(items))
