"""A third party's decoding policy in one file: the student answers N times and its most frequent action is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

import leap
from leap.testing.checkpoints import tiny_checkpoint
from tiny_world import TinyWorld, TinyWorldConfig


@leap.policy("majority")
class Majority(leap.DecodingPolicy):
    """Takes the action that most answers agree on; the first of these answers on a tie."""

    def choose(self, history: leap.History, acts: Sequence[leap.Act]) -> leap.Act:
        votes = Counter(act.decision.action for act in acts if act.parsed)
        return max(acts, key=lambda act: votes[act.decision.action])


WORLD = TinyWorld(TinyWorldConfig(tasks=5))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "chatml")


def student(checkpoint: Path) -> leap.Policy:
    from leap.models.base import Sampling
    from leap.models.hf import HFModel
    from leap.policies.model import ModelPolicy
    from leap.policies.rendering import PromptConfig, Renderer

    model = HFModel(str(checkpoint), Sampling(temperature=1.5, max_tokens=8, max_reason_tokens=2), batch=8)
    renderer = Renderer(PromptConfig(renderer="dialogue", instructions=False), grammar_of=WORLD.grammar_of)
    actor = leap.Actor(name="student", checkpoint="c", iteration=0)
    return ModelPolicy(model, renderer, actor, constrained=True)


def test_a_batching_model_answers_n_times_and_the_majority_acts(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, own = WORLD.tasks("train"), student(checkpoint)
    sizes: list[int] = []
    answer = own.model.answer_batch
    monkeypatch.setattr(own.model, "answer_batch", lambda requests: (sizes.append(len(requests)), answer(requests))[1])
    policy = Majority(Majority.Config(n=3), own)
    assert policy.concurrency == 2 and policy.waves  # two episodes of three conversations fill the batch of eight
    episodes = leap.rollout(WORLD, policy, tasks, horizon=3)
    assert len(episodes) == 5 and {episode.actor.name for episode in episodes} == {"student, majority (n 3)"}
    assert max(sizes) == 6 and not any(size % 3 for size in sizes)  # every conversation of an episode is in the batch
    again = leap.rollout(WORLD, Majority(Majority.Config(n=3), own), tasks, horizon=3)
    assert [[step.action for step in episode.steps] for episode in again] == [
        [step.action for step in episode.steps] for episode in episodes
    ]


def test_one_answer_is_the_student_itself(checkpoint: Path) -> None:
    tasks, own = WORLD.tasks("train", limit=3), student(checkpoint)
    alone, voted = (leap.rollout(WORLD, policy, tasks, horizon=3) for policy in (own, Majority(Majority.Config(n=1), own)))
    assert [episode.steps for episode in alone] == [episode.steps for episode in voted]
