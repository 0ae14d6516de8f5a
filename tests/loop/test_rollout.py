"""Rollouts, corrections and rows on real games: the invariants of the design, with a tiny checkpoint as the student."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from world import corrected

from leap import registry
from leap.check import check_env
from leap.core import Actor, Correction, Decision, Episode, History, PrivilegedState, Rejection, StopReason
from leap.datasets import correction_rows, demonstration_rows
from leap.envs.base import Environment, opened
from leap.envs.live import states_along
from leap.errors import LeapError, ModelError
from leap.models.base import Request, Sampling
from leap.policies.base import Act, Deciding, ExpertPolicy, TeacherPolicy
from leap.policies.model import ModelPolicy
from leap.policies.rendering import PromptConfig, Renderer
from leap.teachers.verdict import leaked_entities
from leap.testing.checkpoints import STYLES, tiny_checkpoint
from leap.testing.play import played

torch = pytest.importorskip("torch")

RENDERERS = ("paper", "dialogue")
SMALL_WORLDS = {"alfworld": "world", "webshop": "small_webshop", "mixture": "small_mixture", "tasks": "small_tasks"} | {
    f"intercode-{name}": f"small_intercode_{name}" for name in ("bash", "generated", "sql", "python")
}
BRIEF = {"instructions": False, "candidates": False}


def student(
    tmp: Path, world: Environment, renderer: str = "dialogue", style: str = "scratch", batch: int = 3, temperature: float = 1.0
) -> Any:
    from leap.models.hf import HFModel

    folder = tmp / style
    if not folder.exists():
        tiny_checkpoint(folder, style)
    model = HFModel(str(folder), Sampling(temperature=temperature, max_tokens=40, max_reason_tokens=3), batch=batch)
    rendering = Renderer(PromptConfig(renderer=renderer, **BRIEF), world.prompts_of)  # type: ignore[arg-type]
    return ModelPolicy(model, rendering, Actor(name="student", checkpoint="c", iteration=0), constrained=True)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")

    with pytest.MonkeyPatch.context() as patch:  # games' prompts are long in byte-level tokens
        from transformers import LlamaConfig

        original = LlamaConfig.__init__
        patch.setattr(LlamaConfig, "__init__", lambda self, **k: original(self, **(k | {"max_position_embeddings": 8192})))
        for style in STYLES:
            tiny_checkpoint(folder / style, style)
    return folder


def without_clock(episodes: list[Episode]) -> list[dict[str, Any]]:
    return [episode.model_dump(exclude={"seconds"}) for episode in episodes]


@pytest.fixture(scope="module")
def mistakes(world: Environment, checkpoints: Path) -> list[Episode]:
    """Episodes of a random student."""
    return played(world, student(checkpoints, world), world.tasks("train", limit=4))


def test_same_recipe_same_episodes_and_another_seed_others(
    world: Environment, checkpoints: Path, mistakes: list[Episode]
) -> None:
    tasks = world.tasks("train", limit=4)
    assert without_clock(played(world, student(checkpoints, world), tasks)) == without_clock(mistakes)
    assert without_clock(played(world, student(checkpoints, world), tasks, stream="other")) != without_clock(mistakes)


def test_a_rollout_goes_on_where_it_was_interrupted(
    world: Environment, checkpoints: Path, mistakes: list[Episode]
) -> None:
    done = {mistakes[1].key}
    rest = played(world, student(checkpoints, world), world.tasks("train", limit=4), done=done)
    assert without_clock(rest) == without_clock([e for e in mistakes if e.key not in done])


def test_tokens_as_sampled_are_kept_where_they_are_asked_for(
    world: Environment, checkpoints: Path, mistakes: list[Episode]
) -> None:
    who = student(checkpoints, world)
    kept = played(world, who, world.tasks("train", limit=4), tokens=True)
    assert [episode.model_dump_json(exclude={"seconds"}) for episode in mistakes] == [
        episode.model_copy(
            update={"steps": tuple(s.model_copy(update={"tokens": (), "logprobs": ()}) for s in episode.steps)}
        ).model_dump_json(exclude={"seconds"})
        for episode in kept
    ]
    assert not any("logprobs" in episode.model_dump_json() for episode in mistakes)
    for episode in kept:
        assert Episode.model_validate_json(episode.line()) == episode
        for step in episode.steps:
            assert len(step.tokens) == len(step.logprobs) == step.completion_tokens
            assert who.model.chat.said(step.tokens).answer == step.completion
            assert all(-30 < one <= 0 for one in step.logprobs) and min(step.logprobs) < 0


@pytest.mark.parametrize("logprobs", [(-0.5,), (-0.5, float("nan")), (float("-inf"), 0.0)])
def test_log_probabilities_that_are_none_are_not_kept(world: Environment, logprobs: tuple[float, ...]) -> None:
    class Odd:
        actor, concurrency, privileged, waves = Actor(name="odd"), 1, False, False

        @asynccontextmanager
        async def playing(self, seed: int, peek: object) -> AsyncIterator[Deciding]:
            yield Deciding(self.decide)

        async def decide(self, history: History) -> Act:
            return Act(Decision(reason="", action="look"), tokens=(1, 2), logprobs=logprobs)

    (episode,) = played(world, Odd(), world.tasks("train", limit=1), horizon=1, tokens=True)
    assert (episode.steps[0].tokens, episode.steps[0].logprobs) == ((1, 2), ())
    assert Episode.model_validate_json(episode.line()) == episode


class Feeding:
    """Notes the token ids that really go into a model's forward or are copied from another row, conversation by conversation."""

    def __init__(self, model: Any, patch: pytest.MonkeyPatch) -> None:
        self.prompts: list[list[int]] = []
        fed: dict[int, list[int]] = {}
        forward, begin, keep = model._forward, model._begin_as, model._keep_prefixes
        asked: dict[int, Any] = {}

        def keeping(requests: list[Any]) -> None:
            asked.update({id(request.seat): request for request in requests})
            keep(requests)

        def beginning(seat: Any, donor: Any, tokens: int) -> None:
            fed[id(seat)] = fed[id(donor)][:tokens]
            begin(seat, donor, tokens)

        def forwarding(seats: list[Any], new: list[list[int]], logits: list[int]) -> Any:
            for seat, tokens in zip(seats, new, strict=True):
                before = fed.setdefault(id(seat), [])
                del before[len(seat.tokens) :]
                before += tokens
                request = asked[id(seat)]
                if len(before) >= len(request.ids) and not request.generated:  # behind it may stand a guess of the answer
                    self.prompts.append(before[: len(request.ids)])
            return forward(seats, new, logits)

        patch.setattr(model, "_keep_prefixes", keeping)
        patch.setattr(model, "_begin_as", beginning)
        patch.setattr(model, "_forward", forwarding)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("renderer", RENDERERS)
def test_prompts_in_training_are_the_rollouts_token_by_token(
    world: Environment, checkpoints: Path, renderer: str, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 2, and the cache as well: what was fed, what was kept and what is trained on are the same ids."""
    from leap.training.branches import encode_row

    policy = student(checkpoints, world, renderer, style, batch=2)
    feeding = Feeding(policy.model, monkeypatch)
    episodes = played(world, policy, world.tasks("train", limit=2), horizon=4)
    corrections = corrected(world, episodes, 50)
    rows = list(correction_rows({e.key: e for e in episodes}, corrections, policy.renderer, iteration=1))
    assert rows
    fed = {tuple(prompt) for prompt in feeding.prompts}
    steps = sum(len(episode.steps) for episode in episodes)
    assert len(feeding.prompts) == steps
    for row in rows:
        assert tuple(encode_row(row, policy.model.chat).prompt) in fed
    everything = [encode_row(row, policy.model.chat).prompt for row in demonstration_rows(episodes, policy.renderer)]
    assert sorted(everything) == sorted(feeding.prompts)


@pytest.mark.parametrize(("renderer", "style"), [("paper", "llama3"), ("dialogue", "chatml"), ("dialogue", "scratch")])
def test_prompts_too_long_lose_the_same_steps_in_rollouts_and_in_training(
    world: Environment, checkpoints: Path, renderer: str, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariants 2 and 4 where histories outgrow the student's context, and trunk and branches on what is left."""
    from leap.training.branches import encode_row, pack

    tasks = world.tasks("train", limit=1)
    policy = student(checkpoints, world, renderer, style, batch=1)
    chat = policy.model.chat
    (expert,) = played(world, ExpertPolicy(world), tasks, horizon=5)
    limit = chat.length(policy.renderer.render(expert.history(2)))  # fits at first, then no more
    policy.renderer = Renderer(policy.renderer.config, world.prompts_of, limit=limit, length=chat.length)
    feeding = Feeding(policy.model, monkeypatch)
    episodes = played(world, policy, tasks, horizon=8)
    assert {step.dropped > 0 for e in episodes for step in e.steps} == {False, True}
    assert all(step.prompt_tokens <= limit for e in episodes for step in e.steps)
    by_episode: dict[str, list[Any]] = {}
    instructions = {episode.key: episode.task.instruction for episode in episodes}
    for row in demonstration_rows(episodes, policy.renderer):
        by_episode.setdefault(row.episode, []).append(encode_row(row, chat))
        assert instructions[row.episode] in row.prompt[0]["content"]
    assert sorted(row.prompt for rows in by_episode.values() for row in rows) == sorted(feeding.prompts)
    corrections = corrected(world, episodes, 50)
    rows = correction_rows({e.key: e for e in episodes}, corrections, policy.renderer, iteration=1)
    assert all(encode_row(row, chat).prompt in feeding.prompts for row in rows)
    for rows in by_episode.values():
        packed = pack(rows)
        for k, row in enumerate(rows, start=1):
            seen = packed.sees(slice(None), torch.arange(len(packed.ids)))[int((packed.branch == k).nonzero()[-1])]
            assert packed.ids[seen].tolist() == row.prompt + row.answer


SHIPPED = [
    name
    for name, place in registry.environment.where().items()
    if place.startswith("leap") and not place.startswith("leap.interop")  # other frameworks' worlds: tests/interop checks them
]


@pytest.mark.parametrize("name", sorted(SHIPPED))
@pytest.mark.parametrize("renderer", RENDERERS)
def test_the_privileged_state_changes_no_byte_of_a_prompt(
    name: str, renderer: str, request: pytest.FixtureRequest, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 1: students are rolled out in a world that tells, and in one whose privileged state may not be read."""
    assert name in SMALL_WORLDS, f"give environment {name!r} a small world here"
    world: Environment = request.getfixturevalue(SMALL_WORLDS[name])
    tasks = world.tasks("train", limit=3)  # of a mixture of three one each
    shown: dict[bool, dict[tuple[str, int], list[Any]]] = {True: {}, False: {}}  # by task and step: episodes run side by side
    whole = Renderer.whole
    for tells in (True, False):

        def noting(self: Renderer, history: History, tells: bool = tells) -> Any:
            at_step = shown[tells].setdefault((history.task.key, len(history.actions)), [])
            at_step.append(whole(self, history))
            return at_step[-1]

        monkeypatch.setattr(Renderer, "whole", noting)
        for task in tasks if not tells else ():
            with opened(world, task) as session:
                secret = lambda self: pytest.fail("a student's rollout read the secret")  # noqa: E731
                monkeypatch.setattr(type(session), "privileged", secret)
        played(world, student(checkpoints, world, renderer), tasks, horizon=4)
    assert shown[True] == shown[False] and sum(map(len, shown[True].values())) >= 8


@pytest.mark.parametrize("name", sorted(SMALL_WORLDS.keys() - {"intercode-python"}))  # whose stand-in box runs nothing
def test_every_environment_that_ships_keeps_the_contract(name: str, request: pytest.FixtureRequest) -> None:
    world: Environment = request.getfixturevalue(SMALL_WORLDS[name])
    findings = check_env(world, ("train",), tasks=3, steps=4)
    assert [finding.text for finding in findings if not finding.ok] == []
    assert len(findings) >= 11


def test_a_hidden_difference_is_not_shown(world: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two worlds that differ only in what is hidden: equal prompts for equal histories, different secrets."""
    task = world.tasks("train", limit=1)[0]
    for renderer in RENDERERS:
        rendering = Renderer(PromptConfig(renderer=renderer), world.prompts_of)  # type: ignore[arg-type]
        prompts, secrets = [], []
        for swapped in (False, True):
            with opened(world, task) as session:
                if swapped:
                    contents = session._engine.state.contents  # type: ignore[attr-defined]
                    full = [place for place, inside in contents.items() if inside]
                    contents[full[0]], contents[full[-1]] = contents[full[-1]], contents[full[0]]
                prompts.append(rendering.render(History(task=task, observations=(session.observe(),))))
                secrets.append(session.privileged())
        assert secrets[0].facts["contents"] != secrets[1].facts["contents"]
        assert prompts[0] == prompts[1]


def test_nothing_that_renders_or_plays_a_student_takes_privileged_state() -> None:
    for function in (Renderer.__init__, Renderer.render, Renderer.fit, ModelPolicy.__init__):
        for parameter in inspect.signature(function).parameters.values():
            assert "Privileged" not in str(parameter.annotation) and "Session" not in str(parameter.annotation)
    assert list(inspect.signature(Renderer.render).parameters) == ["self", "history"]
    assert ModelPolicy.privileged is False and ExpertPolicy.privileged is False


def test_rollouts_hand_the_secret_to_those_who_declare_it_alone(world: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = []
    for policy in (ExpertPolicy(world), TeacherPolicy(world, 50)):
        playing = policy.playing
        monkeypatch.setattr(policy, "playing", lambda seed, peek, playing=playing: handed.append(peek) or playing(seed, peek))
        played(world, policy, world.tasks("train", limit=1), horizon=2)
    assert handed[0] is None and handed[1] is not None


def test_only_valid_corrections_become_rows(world: Environment, mistakes: list[Episode]) -> None:
    corrections = corrected(world, mistakes, 50)
    assert len(corrections) == sum(len(episode.steps) for episode in mistakes)
    by_key = {episode.key: episode for episode in mistakes}
    for correction in corrections:
        if correction.kept:
            assert correction.action in (by_key[correction.episode].steps[correction.t].observation.admissible or ())
    bad = [corrections[0].model_copy(update={"rejected": reason}) for reason in Rejection]
    renderer = Renderer(PromptConfig(), world.prompts_of)
    rows = list(correction_rows(by_key, [*bad, *corrections], renderer, iteration=1))
    assert [(row.episode, row.t) for row in rows] == [(c.episode, c.t) for c in corrections if c.kept]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (("think", "fly to the moon"), Rejection.NOT_ADMISSIBLE),
        (("think", ""), Rejection.EMPTY),
        (("", "look"), Rejection.EMPTY),
        (None, Rejection.HOPELESS),
        (("spaceship 9 is near.", "look"), Rejection.LEAK),
        (("I look around.", "look"), None),
    ],
)
def test_each_rejection_has_its_reason(
    world: Environment, mistakes: list[Episode], answer: Any, reason: Rejection | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leap.core import Decision

    decision = Decision(reason=answer[0], action=answer[1]) if answer else None
    monkeypatch.setattr(type(world.tutor), "correct", lambda *_: decision)
    first: Correction = corrected(world, [mistakes[0]], 50, drop_leaks=True)[0]
    assert first.rejected == reason
    if reason == Rejection.LEAK:
        assert first.leaked == ("spaceship 9",)
        assert corrected(world, [mistakes[0]], 50)[0].kept


def test_what_was_seen_is_no_leak(world: Environment, mistakes: list[Episode]) -> None:
    for t in range(len(mistakes[0].steps)):
        history = mistakes[0].history(t)
        for thing in world.entities(history.now.text):
            assert leaked_entities(world, f"{thing} is what I need.", history) == ()
    assert leaked_entities(world, "spaceship 9 is near mug 99.", mistakes[0].history(0)) == ("mug 99", "spaceship 9")


def states(world: Environment, episodes: list[Episode]) -> Iterator[tuple[History, PrivilegedState]]:
    for episode in episodes:
        for t, privileged in enumerate(asyncio.run(states_along(world, episode))):
            yield episode.history(t), privileged


def test_without_privilege_the_hidden_state_does_not_matter(world: Environment, mistakes: list[Episode]) -> None:
    compared = 0
    for history, privileged in states(world, mistakes):
        if privileged.hopeless:
            continue
        contents = privileged.facts["contents"]
        places = sorted(contents)
        turned = dict(zip(places, [contents[place] for place in [*places[1:], places[0]]], strict=True))
        for facts in (privileged.facts | {"contents": turned}, privileged.facts | {"contents": {}}):
            lied = privileged.model_copy(update={"facts": facts, "plan": ("look",), "text": "x"})
            assert world.tutor.correct(history, lied, 0) == world.tutor.correct(history, privileged, 0)
            compared += 1
    assert compared > 10


def test_with_all_privilege_the_teacher_follows_the_plan(world: Environment, mistakes: list[Episode]) -> None:
    for history, privileged in states(world, mistakes):
        decision = world.tutor.correct(history, privileged, 100)
        assert (decision.action if decision else None) == (privileged.plan[0] if privileged.plan else None)
    solved = played(world, TeacherPolicy(world, 100), world.tasks("train"), horizon=50)
    assert all(episode.success for episode in solved)


def test_gold_plans_succeed(world: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    """Invariant 8, through the command users have."""
    from world import OPTIONS

    from leap.cli.validate import validate_environment

    options = [f"generator.{key}={value}" for key, value in OPTIONS["generator"].items()]
    assert validate_environment("alfworld", ["train", "unseen"], options, None)["ok"]
    assert "solves 8 of 8" in capsys.readouterr().out


def test_a_changed_world_is_noticed_at_replay(world: Environment, mistakes: list[Episode]) -> None:
    other = mistakes[0].model_copy(update={"task": mistakes[1].task})
    with pytest.raises(LeapError, match="changed since the rollout"):
        corrected(world, [other], 50)


def test_a_failing_model_ends_its_episode_and_not_the_rollout(world: Environment, checkpoints: Path) -> None:
    policy = student(checkpoints, world, batch=2)
    submit = policy.model.submit
    tasks = world.tasks("train", limit=3)
    calls = []

    def sometimes(seat: Any, request: Request) -> Any:
        if tasks[0].instruction in request.messages[0]["content"] and len(request.messages) > 2:
            calls.append(request.seed)
            raise ModelError("the prompt is too long")
        return submit(seat, request)

    policy.model.submit = sometimes
    episodes = played(world, policy, tasks, horizon=3)
    failed = [e for e in episodes if e.stop == StopReason.MODEL_ERROR]
    assert len(episodes) == 3 and failed and failed[0].task == tasks[0]
    assert len(failed[0].steps) == 1 and failed[0].error == "the prompt is too long" and failed[0].actions == 3
    assert len(calls) >= 3  # tried again before giving up
