"""The `search` teacher: no script and no other model. What the student might have done at each step of an episode is tried.

At each step some answers of the student are drawn, half of them with the privileged state in the prompt where there is one. Each
action among them is taken in a session at that state, and the student goes on from there; what is reached is the action's worth,
and the best is the correction (relabelling each visited state with the best of one's own samples: muCode, arXiv 2502.20380).
Where none is better than the student's own, that stays. A score at the end is enough, where episodes can be replayed.

A student that is sure of itself answers nearly always alike, and answers that are drawn hot enough to differ say nothing. With
`attempts` it plays each task some more times from its beginning. What solved it once is done again from each step of the episode,
with what is in vain left out: that costs executions alone. So each step at which a way is known has its best action, and steps
of the student's own that are on such a way are confirmed. The reason is one with which the student did that in an attempt that
succeeded, at this task or another: of all of these the one that it finds likeliest here.

The student's answer at a state is the same in every trial that comes there. So what follows upon its own action is known from
the trials of the next step, and only what it did not do is executed.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import AsyncExitStack
from itertools import product
from typing import TypeVar

from leap.core import Correction, Decision, Episode, History, Measured, seed_of
from leap.envs.replay import Replay
from leap.envs.tutor import roll_in
from leap.errors import EnvironmentFault, LeapError, ModelError, ModelRefused, RecipeError
from leap.models.base import Conversation, Request
from leap.models.breaker import CircuitBreaker
from leap.policies.base import ExpertPolicy
from leap.rollouts import decide, play_task
from leap.sync import side_by_side, work_through
from leap.teachers.asking import failed_calls
from leap.teachers.base import Corrected, Teacher, TeacherContext
from leap.teachers.config import SearchConfig, SelfTeacherConfig
from leap.teachers.self import SelfTeacher
from leap.teachers.tried import EQUAL, Reached, Search, Trial

log = logging.getLogger(__name__)

T = TypeVar("T")

_STRAYED = 5
"""So many replays that end otherwise than their episodes, and more than half of all, end the stage."""
_WAYS = 3  # to solve a task, that are tried from each step
_REASONS = 4  # that are asked about, for one action
_TUTORS = 16  # roll-ins of a tutor at once


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
        self._whose = context.student
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
            if self.config.attempts:
                await self._attempt([*searches.values()])
                for search in searches.values():
                    search.join()
                    await self._follow(search)
                await self._reasons([*searches.values()])
        return [await self._made(episode, searches.get(episode.key)) for episode in episodes]

    def _same(self, search: Search) -> bool:
        """Whether an episode's replay ends as the episode did.

        Raises:
            LeapError: Too many do not.
        """
        episode, reached = search.episode, search.replay.reached
        self._replayed += 1
        if reached is None or abs(reached.score - episode.score) <= EQUAL:
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

    # ---- attempts ----------------------------------------------------------------------------------------------------

    async def _attempt(self, searches: Sequence[Search]) -> None:
        """Has the student play each task some more times, and keeps what solved it."""
        played: dict[tuple[str, int], Episode] = {}

        async def play(asked: tuple[Search, int]) -> None:
            search, number = asked
            episode, seed = search.episode, self._seed(search, -1 - number)
            played[episode.key, number] = await play_task(
                self.context.environment, self._hot, episode.task, horizon=episode.horizon, seed=seed
            )

        wanted = [
            (search, number)
            for search, number in product(searches, range(self.config.attempts))
            if search.own and sum(search.executed) + (number + 1) * search.episode.horizon <= self._cap
        ]
        await work_through(wanted, play, self._student.concurrency, waves=self.waves)
        for search, number in wanted:
            attempt = played[search.episode.key, number]
            search.executed[0] += len(attempt.steps)
            search.error = attempt.error if attempt.lost else search.error
        for search in searches:
            attempts = [played[one.episode.key, number] for one, number in wanted if one is search]
            search.ways = [_said(one) for one in (search.episode, *attempts) if one.success]

    async def _follow(self, search: Search) -> None:
        """Does again, from each step, what solved the task; the shortest ways come first, and the cap ends it."""
        steps = search.episode.steps
        search.ways = sorted([await self._shortened(search, way) for way in search.ways], key=len)[:_WAYS]
        after = 0 if search.episode.success else None  # how many actions are left behind a step
        for t in reversed(range(len(steps))):
            known = search.known[t]
            if after is not None:
                known[steps[t].action] = 1 + after
            for rest in [way[begin:] for way in search.ways for begin in range(len(way))]:
                done = await self._done(search, t, rest)
                if done and len(done) < known.get(done[0].action, len(done) + 1):
                    known[done[0].action] = len(done)
                    if done[0].action not in search.others[t]:
                        correction = await self.verdict.correction(search.episode, t, done[0], search.replay.states[t])
                        if correction.kept:
                            search.others[t][correction.action] = correction
            after = min(known.values(), default=None)

    async def _shortened(self, search: Search, way: list[Decision]) -> list[Decision]:
        """A way without the actions that it needs not, found by leaving out one after the other."""
        at = len(way) - 1
        while at >= 0:
            done = await self._done(search, 0, way[:at] + way[at + 1 :])
            way, at = done or way, min(at, len(done or way)) - 1
        return way

    async def _done(self, search: Search, t: int, way: Sequence[Decision]) -> list[Decision]:
        """What is done of a way, from a step on, until the task is solved; nothing where it is not. What cannot be done where it
        comes to it is left out."""
        if sum(search.executed) + search.replay.cost(t) + len(way) > self._cap:
            return []
        taken, shown = list[Decision](), search.episode.steps[t].observation
        try:
            async with search.replay.at(t) as session:
                search.executed[t] += search.replay.cost(t)
                for decision in way:
                    if shown.admissible is not None and decision.action not in shown.admissible:
                        continue
                    outcome, taken = await session.act(decision.action), [*taken, decision]
                    search.executed[t] += 1
                    if outcome.done:
                        return taken if outcome.success else []
                    shown = outcome.observation
        except EnvironmentFault as fault:
            log.warning("what comes of an action is not known: %s", fault)
        return []

    async def _reasons(self, searches: Sequence[Search]) -> None:
        """Has the student choose, where another action than its own is best, among the reasons with which it did that where it
        succeeded: in all episodes at hand, where these are always the same, else in this one."""
        if not (model := self._whose.open()).constrains:
            return
        words = defaultdict[tuple[str, str], dict[str, None]](dict)

        def group(search: Search) -> str:
            return "" if self.waves else search.episode.key

        for search in searches:
            for decision in (one for way in search.ways for one in way):
                words[group(search), decision.action][decision.reason] = None

        async def choose(search: Search) -> None:
            async with model.conversation() as conversation:
                for t in range(len(search.own)):
                    if (action := search.better(t)) is not None:
                        reasons = [*words[group(search), action]]
                        await self._reason(conversation, search, t, action, reasons)

        await _all([search for search in searches if search.ways], choose)

    async def _reason(
        self, conversation: Conversation, search: Search, t: int, action: str, reasons: Sequence[str]
    ) -> None:
        """Gives an action the reason that the student finds likeliest, of those behind which it would do that itself; where that
        is so of none of the likeliest four, the likeliest."""
        history, first = search.episode.history(t), ""
        others = history.now.admissible or (action,)
        for _ in range(_REASONS):
            left = [Decision(reason=one, action=action) for one in reasons]
            said = await self._said(conversation, search, history, left) if len(left) > 1 else (left or [None])[0]
            if said is None:
                break
            first = first or said.reason
            acts = [Decision(reason=said.reason, action=one) for one in others]
            does = await self._said(conversation, search, history, acts) if len(acts) > 1 else said
            if does is not None and does.action == action:
                first = said.reason
                break
            reasons = [one for one in reasons if one != said.reason]
        if first:
            decision = Decision(reason=first, action=action)
            correction = await self.verdict.correction(search.episode, t, decision, search.replay.states[t])
            search.others[t][action] = correction if correction.kept else search.others[t][action]

    async def _said(
        self, conversation: Conversation, search: Search, history: History, among: Sequence[Decision]
    ) -> Decision | None:
        """Which of some answers the student gives; None where the call fails."""
        renderer = self._whose.renderer
        grammar = renderer.grammar_of(history.task)
        request = Request(
            renderer.render(history),
            self._seed(search, -1),
            answers=[renderer.answer(one, history.task) for one in among],
            tools=grammar.tools,
            thinking=renderer.thinking,
            task=history.task.id,
            step=len(history.actions),
        )
        try:
            completion = await conversation.complete(request)
        except ModelError as error:
            self._failed(search, error)
            return None
        said = renderer.decision(grammar.read(completion.text, history.now), completion.thought)
        return said if said in among else None  # not every model can be held to them

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
        else:
            await work_through(trials, self._make, self._student.concurrency, waves=self.waves)

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
        worth = own
        if (best := search.better(t)) is not None:
            correction, worth = search.others[t][best], others[best]
        else:
            correction = await self.verdict.correction(
                episode, t, Decision(reason=done.reason, action=done.action), state
            )
        if not episode.success and worth.score <= episode.score + EQUAL:
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


def _said(episode: Episode) -> list[Decision]:
    """What was thought and done in an episode."""
    return [Decision(reason=step.reason, action=step.action) for step in episode.steps]


async def _all(items: Sequence[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Works on all of them at once; raises as `side_by_side`."""
    await side_by_side(items, work, len(items))
