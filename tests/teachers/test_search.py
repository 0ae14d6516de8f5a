"""The search teacher, in a corridor in which it is known exactly what each action is worth."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leap.core import Actor, Correction, Decision, Episode, History, Measured, Observation, Rejection
from leap.envs.base import Outcome
from leap.envs.replay import Replay
from leap.errors import EnvironmentFault, LeapError, ModelError, RecipeError
from leap.models.base import Model, Sampling
from leap.policies.base import UNPARSED, Act, Deciding, Peek, Player
from leap.policies.model import ModelPolicy
from leap.policies.rendering import PromptConfig, Renderer
from leap.rollouts import play_task
from leap.teachers.base import Corrected, StudentContext, TeacherContext
from leap.teachers.config import SearchConfig
from leap.teachers.search import SearchTeacher
from leap.testing.corridor import EAST, STAY, WEST, Corridor, CorridorConfig, CorridorSession
from leap.testing.models import Scripted
from leap.testing.play import walked
from tiny_world import TinyWorld, TinyWorldConfig

ACTIONS = (EAST, WEST, STAY)
GOAL = 3


class Dice:
    """A student that acts by chance: by its seed and by how many actions there were, and otherwise always alike.

    Attributes:
        asked: How often it was asked.
        fails: What it is asked about when its calls fail.
    """

    privileged = False
    waves = False

    def __init__(self, hot: float = 0.0, *, actions: Iterable[str] = ACTIONS, waves: bool = False) -> None:
        self.actor, self.concurrency = Actor(name="student", iteration=0), 8
        self.waves = waves
        self._actions, self._hot = tuple(actions), hot
        self.asked = 0
        self.open = self.most_open = 0
        self.fails: tuple[str, ...] = ()

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        assert peek is None

        async def decide(history: History) -> Act:
            self.asked += 1
            await asyncio.sleep(0)
            if history.now.text in self.fails:
                raise ModelError("the line is dead")
            action = random.Random(f"{seed}/{len(history.actions)}/{self._hot}").choice(self._actions)
            return Act(Decision(reason="by chance", action=action), parsed=action != UNPARSED)

        self.open += 1
        self.most_open = max(self.open, self.most_open)
        yield Deciding(decide)
        self.open -= 1


def world(**options: Any) -> Corridor:
    return Corridor(CorridorConfig(goal=GOAL, **options))


def teacher(
    environment: Corridor,
    student: Any = None,
    *,
    episodes: int | None = None,
    model: Model | None = None,
    **options: Any,
) -> SearchTeacher:
    given = student or Dice()
    context = StudentContext(
        lambda: model or Scripted(lambda prompt, call: "nothing"),
        Renderer(PromptConfig(renderer="dialogue")),
        policy=(lambda hot: given) if student else Dice,
    )
    config = SearchConfig.model_validate({"privilege": 0, **options})
    return SearchTeacher(config, TeacherContext(environment, student=context, episodes=episodes))


def corrected(environment: Corridor, episode: Episode, student: Any = None, **options: Any) -> list[Correction]:
    return asyncio.run(teacher(environment, student, **options).correct(episode))


def measured(corrections: Iterable[Correction]) -> list[Measured]:
    assert all(one.measured is not None for one in corrections)
    return [one.measured for one in corrections if one.measured is not None]


def place(actions: Iterable[str], cliff: int) -> int:
    at = 0
    for action in actions:
        at += {EAST: 1, WEST: -1}.get(action, 0) if at != cliff else 0
    return at


WALKS = st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=6)


@given(walk=WALKS, horizon=st.integers(6, 8), copies=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_best_action_is_found_wherever_there_is_one(walk: list[str], horizon: int, copies: bool) -> None:
    """With the expert behind it, which goes straight for the goal, east is best; how much it is worth is arithmetic."""
    episode, discount = walked(world(), world().task(), walk, horizon=horizon), 0.9
    found = corrected(world(copies=copies), episode, roll_in="expert", answers=24, discount=discount)
    for t, (step, one) in enumerate(zip(episode.steps, found, strict=True)):
        at, left = place(walk[:t], -2), horizon - t
        lost = at == -2 or GOAL - at > left
        assert one.measured is not None and one.measured.actions == 3
        if not episode.success and lost:
            assert (
                one.rejected in (Rejection.DECLINED, Rejection.HOPELESS)
                and one.measured.value == one.measured.gain == 0
            )
            continue
        if lost:
            continue
        assert one.kept and one.action == EAST and one.measured.value == pytest.approx(discount ** (GOAL - at - 1))
        late = {EAST: 0, STAY: 1, WEST: 2}[step.action]
        fell = step.action == WEST and at == -1
        worth = 0 if fell or GOAL - at + late > left else discount ** (GOAL - at + late - 1)
        assert one.measured.gain == pytest.approx(one.measured.value - worth)
        assert one.measured.spread >= one.measured.gain - 1e-9


@given(walk=WALKS, rolls=st.integers(1, 2), seed=st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_what_joins_is_what_a_trial_of_it_comes_to(walk: list[str], rolls: int, seed: int) -> None:
    """What follows upon the student's own action is not executed: a rollout with the same seed comes to the same."""
    environment, horizon = world(), 6
    episode = walked(environment, environment.task(number=seed), walk, horizon=horizon)
    if not episode.success and len(walk) < horizon:
        episode = walked(
            environment, environment.task(number=seed), walk + [STAY] * (horizon - len(walk)), horizon=horizon
        )
    own = teacher(environment, rolls=rolls, answers=4, discount=0.9)
    student, values = Dice(), []
    for t in range(len(episode.steps)):
        of_rolls = []
        for roll in range(rolls):
            seed_of_roll = own._seed(type("S", (), {"episode": episode})(), roll)  # type: ignore[arg-type]
            forced = [step.action for step in episode.steps[: t + 1]]
            played = asyncio.run(
                play_task(environment, Forced(student, forced), episode.task, horizon=horizon, seed=seed_of_roll)
            )
            of_rolls.append(played.score * 0.9 ** (len(played.steps) - t - 1))
        values.append(sum(of_rolls) / rolls)
    found = asyncio.run(own.correct(episode))
    assert [one.value - one.gain for one in measured(found)] == pytest.approx(values)


class Forced:
    """A policy that begins with certain actions."""

    privileged = waves = False
    concurrency = 1

    def __init__(self, policy: Any, actions: list[str]) -> None:
        self.actor, self._policy, self._actions = policy.actor, policy, actions

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        async with self._policy.playing(seed, peek) as player:

            async def decide(history: History) -> Act:
                t = len(history.actions)
                if t < len(self._actions):
                    return Act(Decision(reason="so", action=self._actions[t]))
                return await player.decide(history)

            yield Deciding(decide)


# ---- attempts --------------------------------------------------------------------------------------------------------


@given(walk=st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=8), copies=st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_solved_the_task_once_is_known_at_every_step(walk: list[str], copies: bool) -> None:
    """Chance finds the goal in one of many attempts; without its detours that is the way there from anywhere, also where too few
    actions are left, and what the student did on that way is confirmed."""
    environment, discount = world(cliff=None, copies=copies), 0.9
    episode = walked(environment, environment.task(), walk, horizon=8)
    found = corrected(environment, episode, answers=1, attempts=40, discount=discount)
    for t, (step, one) in enumerate(zip(episode.steps, found, strict=True)):
        left, last = GOAL - place(walk[:t], -9), t == len(walk) - 1 and not episode.success
        if left > GOAL:  # farther west than any attempt began: the way ends too early there
            continue
        assert one.kept and one.action == EAST and one.measured is not None
        assert one.measured.value == pytest.approx(discount ** (left - 1))
        late = {EAST: 0, STAY: 1, WEST: 2}[step.action]
        if left + late <= GOAL and not last:
            assert one.measured.gain == pytest.approx(one.measured.value - discount ** (left + late - 1))


def test_without_an_attempt_that_succeeds_nothing_is_known() -> None:
    environment = world()
    episode = walked(environment, environment.task(), [STAY] * 4)
    assert not any(one.kept for one in corrected(environment, episode, Dice(actions=[STAY]), answers=1, attempts=5))


@given(cap=st.integers(1, 400), copies=st.booleans())
@settings(max_examples=30, deadline=None)
def test_attempts_and_what_is_done_again_keep_to_the_cap(cap: int, copies: bool) -> None:
    environment = Counted(CorridorConfig(goal=GOAL, copies=copies))
    episode = walked(environment, environment.task(), [STAY, EAST, STAY, STAY])
    environment.acted = 0
    found = corrected(environment, episode, answers=1, attempts=6, most_steps=cap)
    assert environment.acted <= cap
    assert environment.acted == sum(one.measured.executed for one in found if one.measured)


# ---- ties, caps, records ---------------------------------------------------------------------------------------------


def test_ties_keep_the_students_own_reason_and_action() -> None:
    environment = world()
    episode = walked(environment, environment.task(), [EAST, EAST, EAST], reason="my own words")
    found = corrected(environment, episode, roll_in="expert", answers=12)
    assert [(one.action, one.reason) for one in found] == [(EAST, "my own words")] * 3
    assert all(one.kept and one.measured and one.measured.gain == 0 for one in found)
    assert all(one.teacher == "search" for one in found)


def test_where_nothing_does_better_than_the_episode_nothing_is_taught() -> None:
    environment = world()
    episode = walked(environment, environment.task(), [WEST, WEST, STAY, STAY])
    found = corrected(environment, episode, roll_in="expert", answers=12, discount=1)
    assert [one.action for one in found] == [WEST, STAY, "", ""]  # on the cliff all is lost
    assert [one.rejected for one in found] == [None, None, Rejection.HOPELESS, Rejection.HOPELESS]
    assert [one.gain for one in measured(found)] == [0, 1, 0, 0]  # from -1 there are 5 actions left, which is enough
    assert [one.spread > 0 for one in measured(found)] == [False, True, False, False]


@given(cap=st.integers(1, 200), copies=st.booleans(), share=st.sampled_from([None, 1, 3]))
@settings(max_examples=50, deadline=None)
def test_no_more_is_executed_than_the_caps_allow(cap: int, copies: bool, share: int | None) -> None:
    environment = Counted(CorridorConfig(goal=GOAL, copies=copies))
    episode = walked(environment, environment.task(), [WEST, STAY, EAST, STAY, WEST, STAY])
    environment.acted = 0
    caps = {"most_steps": cap} if share is None else {"stage_steps": cap * share}
    found = corrected(environment, episode, answers=6, episodes=share, **caps)
    assert environment.acted <= cap and len(found) == len(episode.steps)
    assert environment.acted == sum(one.measured.executed for one in found if one.measured)
    assert {one.rejected for one in found} <= {None, Rejection.DECLINED}


class Counted(Corridor):
    """A corridor that counts the actions taken in all of its sessions."""

    acted = 0

    def start(self, task: Any) -> CorridorSession:
        return Watched(self.config, self)


class Watched(CorridorSession):
    def __init__(self, config: CorridorConfig, counter: Counted) -> None:
        super().__init__(config)
        self._counter = counter

    def act(self, action: str) -> Outcome:
        self._counter.acted += 1
        return super().act(action)


def test_an_action_is_executed_once_at_a_state_and_the_students_own_never() -> None:
    environment = Counted(CorridorConfig(goal=GOAL, copies=True, cliff=None))
    episode = walked(environment, environment.task(), [STAY] * 6)
    environment.acted = 0
    found = corrected(environment, episode, Dice(actions=[EAST]), answers=8, discount=1)
    # The replay; then east once from each state: to the goal, or to the horizon.
    assert environment.acted == 6 + sum(min(3, 6 - t) for t in range(6))
    # As long as there is time, staying is as good as going: the student would go next.
    assert [one.action for one in found if one.kept] == [STAY, STAY, STAY, EAST]
    assert [one.gain for one in measured(found)] == [0, 0, 0, 1, 0, 0]
    environment.acted = 0
    corrected(environment, episode, Dice(actions=[EAST]), answers=8, depth=2)
    # Where the horizon is farther than a trial goes, the student's own is tried as well.
    assert environment.acted == 6 + sum(2 + 2 for _ in range(4)) + 2 + 1


def test_a_trial_goes_on_for_so_many_actions_and_no_longer() -> None:
    environment = world(cliff=None)
    episode = walked(environment, environment.task(), [STAY] * 6)
    east = Dice(actions=[EAST])
    assert not any(one.kept for one in corrected(environment, episode, east, depth=2))
    assert [one.kept for one in corrected(environment, episode, east, depth=3)] == [True] * 4 + [False] * 2


def test_rejected_answers_are_not_tried_and_unread_ones_go_on_as_in_a_rollout() -> None:
    environment = Counted(CorridorConfig(goal=GOAL, copies=True))
    episode = walked(environment, environment.task(), [EAST, EAST, STAY])
    environment.acted = 0
    found = corrected(environment, episode, Dice(actions=["fly"]), answers=6)
    assert [one.actions for one in measured(found)] == [1, 1, 1]
    environment.acted = 0
    found = corrected(environment, episode, Dice(actions=[UNPARSED]), answers=6)
    assert environment.acted == 3 + 6 + 5 + 4 and not any(one.kept for one in found)


# ---- answers with the privileged state --------------------------------------------------------------------------------


@pytest.mark.parametrize(("privilege", "told"), [(0, 0), (50, 2)])
def test_half_of_the_answers_are_drawn_with_the_privileged_state_in_the_prompt(privilege: int, told: int) -> None:
    model = Scripted(lambda prompt, call: f"REASON: I know the way.\nACTION: {EAST}")
    environment = world(cliff=None)
    episode = walked(environment, environment.task(), [STAY] * 6, horizon=6)
    student = Dice(actions=[STAY])
    found = corrected(environment, episode, student, model=model, privilege=privilege, roll_in="expert", answers=4)
    assert len(model.prompts) == told * 6 and all("the lamp 7" in prompt for prompt in model.prompts)
    assert student.asked == (4 - told) * 6  # the student itself is asked by its own prompts alone
    assert [one.action for one in found if one.kept] == ([EAST] * 4 if privilege else [STAY] * 3)
    assert {(one.teacher, one.privilege) for one in found} == {("search", privilege)}
    assert all(request.hot == (1.0 if call % 12 >= 6 else 0) for call, request in enumerate(sorted_by_warmth(model)))


def sorted_by_warmth(model: Scripted) -> list[Any]:
    return sorted(model.requests, key=lambda request: request.hot)


def test_what_leaks_does_not_train() -> None:
    model = Scripted(lambda prompt, call: f"REASON: There is the lamp 7.\nACTION: {EAST}")
    environment = world(cliff=None)
    episode = walked(environment, environment.task(), [STAY] * 6)
    more = {"privilege": 50, "roll_in": "expert", "answers": 4}
    found = [
        corrected(environment, episode, Dice(actions=[STAY]), model=model, drop_leaks=drops, **more)
        for drops in (False, True)
    ]
    assert [[one.action for one in of if one.kept] for of in found] == [[EAST] * 4, [STAY] * 3]


# ---- stages ----------------------------------------------------------------------------------------------------------


def all_of(own: SearchTeacher, episodes: list[Episode], done: frozenset[str] = frozenset()) -> list[Corrected]:
    made: list[Corrected] = []
    asyncio.run(own.correct_each(episodes, made.append, done=done))
    return made


def walks(environment: Corridor, number: int) -> list[Episode]:
    draw = random.Random(7)
    return [
        walked(environment, environment.task(number=n), [draw.choice(ACTIONS) for _ in range(6)]) for n in range(number)
    ]


@pytest.mark.parametrize("waves", [False, True])
def test_what_is_on_file_is_not_made_again_and_the_rest_comes_out_the_same(waves: bool) -> None:
    environment = world()
    episodes = walks(environment, 11)
    made = all_of(teacher(environment, Dice(waves=waves), answers=2), episodes)
    assert [one.episode for one in made] == [episode.key for episode in episodes]
    for done in ({1, 2}, {0, 1, 2, 3}, {5, 10}, set(range(11))):
        keys = frozenset(episodes[n].key for n in done)
        student = Dice(waves=waves)
        again = all_of(teacher(environment, student, answers=2), episodes, keys)
        assert again == [one for one in made if one.episode not in keys]
        assert bool(student.asked) is (len(done) < 11)


def test_as_many_conversations_are_held_as_the_student_can() -> None:
    student = Dice(waves=True)
    all_of(teacher(world(), student, answers=2), walks(world(), 8))
    assert student.most_open == student.concurrency


def test_an_episode_of_which_a_call_failed_is_lost_and_tried_again() -> None:
    environment = world()
    student, episodes = Dice(), walks(environment, 2)
    student.fails = ("You are at place 1.",)
    made = all_of(teacher(environment, student), episodes)
    assert {one.error for one in made} == {"the line is dead"}
    student.fails = ()
    assert {one.error for one in all_of(teacher(environment, student), episodes)} == {""}


class Trapped(Corridor):
    """A corridor in which going west raises."""

    def start(self, task: Any) -> CorridorSession:
        return Trap(self.config)


class Trap(CorridorSession):
    def act(self, action: str) -> Outcome:
        if action == WEST:
            raise ValueError("there is no west")
        return super().act(action)


def test_an_action_that_the_environment_fails_at_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    environment = Trapped(CorridorConfig(goal=GOAL))
    episode = walked(environment, environment.task(), [STAY] * 6)
    found = corrected(environment, episode, Dice(actions=[WEST, EAST]), answers=8)
    assert all(one.action in (EAST, STAY) for one in found if one.kept) and "there is no west" in caplog.text
    with pytest.raises(EnvironmentFault):  # but what the student did itself must be possible
        corrected(environment, walked(world(), environment.task(), [WEST]))


def test_a_student_is_needed() -> None:
    for student in (None, StudentContext(lambda: Model(), Renderer(PromptConfig()))):
        with pytest.raises(RecipeError, match="no student is given"):
            SearchTeacher(SearchConfig(), TeacherContext(world(), student=student))


# ---- environments that do not repeat ---------------------------------------------------------------------------------


class Shaky(Corridor):
    """A corridor in which each session has luck of its own: which place is shown, or whether the goal counts."""

    shows = True

    def start(self, task: Any) -> CorridorSession:
        return ShakySession(self.config, self.shows)


class ShakySession(CorridorSession):
    luck = 0

    def __init__(self, config: CorridorConfig, shows: bool) -> None:
        super().__init__(config)
        ShakySession.luck += 1
        self._mine, self._shows = ShakySession.luck, shows

    def observe(self) -> Observation:
        shown = super().observe()
        return shown.model_copy(update={"text": f"{shown.text} {self._mine}"}) if self._shows else shown

    def act(self, action: str) -> Outcome:
        outcome = super().act(action)
        return outcome if self._shows else outcome._replace(score=1 / self._mine, success=False)


def test_an_environment_that_shows_something_else_is_found_out_in_a_line() -> None:
    environment = Shaky(CorridorConfig(goal=GOAL))
    episode = walked(environment, environment.task(), [STAY] * 2)
    with pytest.raises(LeapError, match="not deterministic") as told:
        corrected(environment, episode)
    assert "\n" not in str(told.value)


def test_an_environment_that_scores_otherwise_is_found_out_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    environment = Shaky(CorridorConfig(goal=GOAL))
    environment.shows = False
    episodes = walks(environment, 6)
    made = corrected(environment, episodes[0])
    assert [one.rejected for one in made] == [Rejection.DECLINED] * len(made) and "it is not corrected" in caplog.text
    with pytest.raises(LeapError, match=r"5 of 5 episodes: corridor is not deterministic") as told:
        all_of(teacher(environment), episodes)
    assert "\n" not in str(told.value)


# ---- replays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [False, True])
def test_sessions_at_the_states_of_an_episode_do_not_disturb_each_other(copies: bool) -> None:
    environment = Counted(CorridorConfig(goal=GOAL, copies=copies))
    episode = walked(environment, environment.task(), [EAST, WEST, EAST, EAST, EAST])

    async def places() -> None:
        async with Replay(environment, episode) as replay:
            assert len(replay.states) == 5 and replay.reached is not None and replay.reached.success
            for t, at in enumerate((0, 1, 0, 1, 2)):
                for _ in range(2):
                    environment.acted = 0
                    async with replay.at(t) as session:
                        assert environment.acted == replay.cost(t) == (0 if copies else t)
                        assert (await session.act(EAST)).observation.text == f"You are at place {at + 1}."

    asyncio.run(places())


# ---- a model in this process -------------------------------------------------------------------------------------------


class TestWithAModelInThisProcess:
    @pytest.fixture(scope="class")
    def model(self, tmp_path_factory: pytest.TempPathFactory) -> Any:
        pytest.importorskip("torch")
        from leap.models.hf import HFModel
        from leap.testing.checkpoints import tiny_checkpoint

        path = tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "chatml")
        return HFModel(str(path), Sampling(temperature=0.5, max_tokens=24, max_reason_tokens=4), batch=6, dtype="float32")

    def corrected(self, model: Any, done: frozenset[str] = frozenset()) -> tuple[list[Corrected], list[int]]:
        environment = TinyWorld(TinyWorldConfig(tasks=12))
        episodes = [walked(environment, task, ["look in box", "look in jar"]) for task in environment.tasks("train")[:5]]
        renderer = Renderer(PromptConfig(renderer="dialogue", instructions=False, candidates=False))

        def policy(hot: float) -> ModelPolicy:
            return ModelPolicy(model, renderer, Actor(name="student"), constrained=True, hot=hot)

        context = StudentContext(lambda: model, renderer, constrained=True, policy=policy)
        own = SearchTeacher(SearchConfig(answers=3, temperature=2), TeacherContext(environment, student=context))
        sizes: list[int] = []
        answer = type(model).answer_batch
        model.answer_batch = lambda requests: (sizes.append(len(requests)), answer(model, requests))[1]
        return all_of(own, episodes, done), sizes

    def test_answers_and_trials_go_in_batches(self, model: Any) -> None:
        made, sizes = self.corrected(model)
        tried = [one for of in made for one in measured(of.corrections)]
        assert sizes[:2] == [6, 6] and max(sizes) <= 6  # two episodes of three answers at each of two steps
        assert sum(one.executed for one in tried) > 5 * 2 and any(one.actions > 1 for one in tried)
        assert sum(sizes) / len(sizes) > 2

    def test_an_interrupted_group_gives_the_same_again(self, model: Any) -> None:
        made, _ = self.corrected(model)
        on_file = frozenset((made[1].episode, made[2].episode))
        again, _ = self.corrected(model, on_file)
        assert again == [one for one in made if one.episode not in on_file]
