"""A mixture of environments: whatever is asked of a task, its own part answers, to the byte."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from world import OPTIONS, corrected

from leap.core import Decision, Episode, PrivilegedState, Task
from leap.envs.base import Environment, load_environment, opened
from leap.envs.mixture import MixtureEnvironment
from leap.errors import PrerequisiteError, RecipeError
from leap.evaluation import evaluate_episodes
from leap.policies.base import ExpertPolicy, TeacherPolicy
from leap.policies.react import ReActRenderer
from leap.policies.rendering import PromptConfig, Renderer
from leap.teachers.prompts import PrivilegedRenderer, TeacherPrompts
from leap.teachers.verdict import leaked_entities
from leap.testing.play import played

PARTS = ("alfworld", "webshop", "bash")
ALFWORLD = {"alfworld": {"options": OPTIONS}}


@pytest.fixture
def mixture(small_mixture: Environment) -> MixtureEnvironment:
    assert isinstance(small_mixture, MixtureEnvironment)
    return small_mixture


def one_each(mixture: MixtureEnvironment, split: str = "train") -> list[tuple[Task, Environment, Task]]:
    """A task of each part: as the mixture has it, its part, and as the part has it."""
    tasks = mixture.tasks(split, limit=3)
    assert tuple(task.kind for task in tasks) == PARTS
    return [(task, *mixture.inner(task)) for task in tasks]


def test_tasks_are_those_of_the_parts_by_name(mixture: MixtureEnvironment) -> None:
    tasks = mixture.tasks("train")
    by_part = {name: [task for task in tasks if task.id.startswith(f"{name}/")] for name in PARTS}
    assert sum(map(len, by_part.values())) == len(tasks) == len({task.key for task in tasks})
    for name, part in mixture.parts.items():
        own = part.tasks("train")
        assert [task.id for task in by_part[name]] == [f"{name}/{task.id}" for task in own]
        assert [mixture.inner(task)[1] for task in by_part[name]] == own


def test_a_sample_has_as_many_tasks_of_each_part_drawn_as_from_the_part_alone(mixture: MixtureEnvironment) -> None:
    for limit, shares in ((3, (1, 1, 1)), (8, (3, 3, 2)), (2, (1, 1, 0)), (60, (8, 20, 20))):  # there are eight games
        tasks = mixture.tasks("train", limit=limit, seed=5)
        counts = Counter(task.kind for task in tasks)
        assert tuple(counts[name] for name in PARTS) == shares
        for (name, part), share in zip(mixture.parts.items(), shares, strict=True):
            own = part.tasks("train", limit=share, seed=5)
            assert [mixture.inner(task)[1] for task in tasks if task.kind == name] == own


def test_a_specialist_has_the_very_tasks_of_its_part(mixture: MixtureEnvironment) -> None:
    for name in PARTS:
        alone = MixtureEnvironment(mixture.config.model_copy(update={"only": [name]}))
        alone.parts = {name: mixture.parts[name]}
        for split, limit in (("train", 4), ("valid", None), ("test", None)):
            together = mixture.tasks(split, limit=limit and 3 * limit, seed=1)
            assert alone.tasks(split, limit=limit, seed=1) == [task for task in together if task.kind == name]


def test_each_caps_a_split_under_every_seed_alike(mixture: MixtureEnvironment) -> None:
    whole = mixture.tasks("valid")
    assert Counter(task.kind for task in whole) == dict.fromkeys(PARTS, 3)
    assert mixture.tasks("valid", seed=9) == whole
    fewer = {seed: mixture.tasks("valid", limit=6, seed=seed) for seed in range(5)}
    assert all(Counter(task.kind for task in some) == dict.fromkeys(PARTS, 2) for some in fewer.values())
    assert all({task.key for task in some} <= {task.key for task in whole} for some in fewer.values())
    assert len({tuple(task.key for task in some) for some in fewer.values()}) > 1


def test_whatever_is_a_test_split_of_a_part_is_one(mixture: MixtureEnvironment) -> None:
    # `unseen` is the games', `all` is the shop's and the shell's; `test` means the games' unseen ones.
    assert {"test", "unseen", "seen", "all"} <= mixture.test_splits
    assert not {"train", "valid", "eval", "train_valid"} & mixture.test_splits


@pytest.mark.parametrize("renderer", ["paper", "dialogue"])
def test_every_prompt_is_the_one_that_the_part_itself_makes(mixture: MixtureEnvironment, renderer: Any) -> None:
    config = PromptConfig(renderer=renderer)
    texts = set()
    for task, part, own in one_each(mixture):
        (episode,) = played(mixture, TeacherPolicy(mixture, 0), [task], horizon=3)
        (alone,) = played(part, TeacherPolicy(part, 0), [own], horizon=3)
        assert len(episode.steps) == len(alone.steps) >= 1
        for t in range(len(episode.steps)):
            here, there = episode.history(t), alone.history(t)
            student = Renderer(config, mixture.prompts_of).render(here)
            assert student == Renderer(config, part.prompts_of).render(there)
            texts.add(student[0]["content"])
            state = PrivilegedState(text="the secret")
            acting = [PrivilegedRenderer(Renderer(config, world.prompts_of), 50) for world in (mixture, part)]
            assert acting[0].render(here, state) == acting[1].render(there, state) != student
        asked = TeacherPrompts(50, mixture.prompts_of).trajectory(episode, "x")
        assert asked == TeacherPrompts(50, part.prompts_of).trajectory(alone, "x")
        react = [ReActRenderer([], prompts=world.prompts_of) for world in (mixture, part)]
        assert react[0].render(episode.history(0), [], []) == react[1].render(alone.history(0), [], [])
    assert len({text.splitlines()[0] for text in texts}) == 3, "the rules of each world are its own"


def same(one: Episode, other: Episode) -> bool:
    skipped = {"task", "seconds", "versions", "seed"}
    return one.model_dump(exclude=skipped) == other.model_dump(exclude=skipped)


def test_experts_and_teachers_play_and_correct_as_in_their_part(mixture: MixtureEnvironment) -> None:
    for task, part, own in one_each(mixture)[:2]:  # stand-in boxes run no gold command
        for privilege in (0, 50, 100):
            (episode,) = played(mixture, TeacherPolicy(mixture, privilege), [task], horizon=8)
            (alone,) = played(part, TeacherPolicy(part, privilege), [own], horizon=8)
            assert same(episode, alone) and episode.task == task
            fields = {"episode": True, "leaked": False}
            assert [one.model_dump(exclude=fields) for one in corrected(mixture, [episode], 50)] == [
                one.model_dump(exclude=fields) for one in corrected(part, [alone], 50)
            ]
    for task, part, own in one_each(mixture):
        (episode,) = played(mixture, ExpertPolicy(mixture), [task], horizon=8)
        (alone,) = played(part, ExpertPolicy(part), [own], horizon=8)
        assert same(episode, alone)
        with opened(mixture, task) as session, opened(part, own) as other:
            assert type(session) is type(other) and session.observe() == other.observe()


def test_what_is_valid_and_what_a_name_is_depends_on_the_tasks_part(mixture: MixtureEnvironment) -> None:
    episodes = played(mixture, ExpertPolicy(mixture), [task for task, _, _ in one_each(mixture)], horizon=1)
    first = {episode.task.kind: episode.history(0) for episode in episodes}

    def valid(kind: str, action: str) -> bool:
        return mixture.of(first[kind].task).valid(action, first[kind].now)

    assert {kind: valid(kind, "search[mug]") for kind in PARTS} == {"alfworld": False, "webshop": True, "bash": True}
    assert {kind: valid(kind, "look") for kind in PARTS} == {"alfworld": True, "webshop": False, "bash": True}
    reason = "spaceship 9 costs $3.50 and lies in /no/such/file.txt"
    named = {kind: set(leaked_entities(mixture, reason, history)) for kind, history in first.items()}
    assert named == {"alfworld": {"spaceship 9"}, "webshop": {"$3.50"}, "bash": {"/no/such/file.txt"}}


def test_success_is_told_overall_and_by_part(mixture: MixtureEnvironment) -> None:
    tasks = [task for task in mixture.tasks("test") if task.kind != "bash"]
    evaluation = evaluate_episodes(played(mixture, TeacherPolicy(mixture, 100), tasks, horizon=30), policy="teacher")
    assert {kind: score.n for kind, score in evaluation.kinds.items()} == {"alfworld": 3, "webshop": 3}
    assert evaluation.overall.n == 6 and evaluation.kinds["alfworld"].success == 1.0
    assert {name.partition(":")[0] for name in evaluation.versions} == {*PARTS, "leap"}
    assert mixture.tutor.idle.keys() == {"bash-submit-at-once", "bash-true-then-submit"}
    assert set(mixture.vocabulary()) >= set(mixture.parts["webshop"].vocabulary())


def test_an_expert_goes_on_with_its_own_part(mixture: MixtureEnvironment) -> None:
    """One that keeps what it saw is asked again, not made anew for each step."""
    (task, part, _), *_ = one_each(mixture)
    made = []
    (episode,) = played(mixture, ExpertPolicy(mixture), [task], horizon=4)
    with pytest.MonkeyPatch.context() as patch:
        original = type(part.tutor).expert
        patch.setattr(type(part.tutor), "expert", lambda self, task: made.append(1) or original(self, task))
        expert = mixture.tutor.expert(task)
        decisions = [expert.decide(episode.history(t)) for t in range(len(episode.steps))]
    assert made == [1]
    assert decisions == [Decision(reason=step.reason, action=step.action) for step in episode.steps]


def test_whatever_an_environment_can_be_asked_its_part_is_asked() -> None:
    """A method that environments get in future is caught here if a mixture forgets it."""
    general = {"prompt_directory", "prompts_of", "grammar_of", "fetch_data"}
    asked = {name for name, member in vars(Environment).items() if callable(member) and not name.startswith("_")}
    assert asked - {"Config"} - general <= vars(MixtureEnvironment).keys()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"id": "nowhere/1"}, "of no part"),
        ({"id": "alfworld/none"}, "not in the data at hand"),
        ({"instruction": "something else"}, "not in the data at hand"),
    ],
)
def test_a_task_that_is_not_there_is_refused(
    mixture: MixtureEnvironment, changes: dict[str, str], problem: str
) -> None:
    task = mixture.tasks("train", limit=1)[0].model_copy(update=changes)
    with pytest.raises(PrerequisiteError, match=problem):
        mixture.start(task)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "parts: must be given"),
        ({"parts": {}}, "parts"),
        ({"parts": {"nowhere": {}}}, "no environment 'nowhere'"),
        ({"parts": {"a/b": {"environment": "alfworld"}}}, "parts"),
        ({"parts": {"alfworld": {"optoins": {}}}}, "parts.alfworld.optoins: unknown key"),
        ({"parts": {"alfworld": {"options": {"engin": "native"}}}}, "engin: unknown key"),
        ({"parts": ALFWORLD, "only": ["webshop"]}, "there is no part 'webshop'; there are alfworld"),
        ({"parts": ALFWORLD, "each": {"test": 0}}, "each"),
    ],
    ids=str,
)
def test_options_that_are_wrong_are_named(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_environment("mixture", options)
    assert problem in str(caught.value)


def test_a_split_that_a_part_does_not_have_is_named(mixture: MixtureEnvironment, tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="train_rest"):
        mixture.tasks("train_rest")
