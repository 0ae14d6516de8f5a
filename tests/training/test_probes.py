"""Steps at which is measured what the privileged state makes likelier: which actions are asked about."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from small_games import small_games

from leap.core import Episode
from leap.datasets import PROBED
from leap.envs.answer import parse_answer
from leap.envs.base import load_environment
from leap.envs.live import states_along
from leap.envs.replay import plans_after
from leap.policies.rendering import PromptConfig, Renderer
from leap.sync import run_sync
from leap.teachers.prompts import PrivilegedRenderer
from leap.testing.play import walked
from leap.training.distill import _probes


def test_actions_are_told_apart_by_what_is_left_behind_them() -> None:
    world = load_environment("alfworld", small_games(train=12, valid=1, unseen=1))
    world.prepare()
    episodes: dict[str, Episode] = {}
    for task in world.tasks("train"):
        plan = run_sync(states_along(world, walked(world, task, ["look"])))[0].plan or ()
        episodes[task.key] = walked(world, task, ["look", *plan[:3], "inventory"])
    renderer = Renderer(
        PromptConfig(renderer="dialogue", instructions=False, candidates=False), world.prompts_of, grammar_of=world.grammar_of
    )
    along = {one.key: run_sync(states_along(world, one)) for one in episodes.values()}
    after: dict[tuple[str, int], dict[str, int | None]] = {}

    def left(episode: Episode, t: int) -> dict[str, int | None]:
        return after.setdefault((episode.key, t), run_sync(plans_after(world, episode, t)))

    collected: Any = SimpleNamespace(renderer=renderer, privileged=PrivilegedRenderer(renderer, 50), plans_after=left)
    probes = list(_probes(collected, [*episodes.values()], along))
    assert probes
    steps = {str(renderer.fit(one.history(t)).messages): (one, t) for one in episodes.values() for t in range(len(one.steps))}
    for probe in probes:
        episode, t = steps[str(probe.prompt)]
        plan, known = along[episode.key][t].plan or (), after[episode.key, t]
        said = [parse_answer(one["content"]) for one in probe.answers]
        actions = [one.action for one in said if one is not None]
        assert len(actions) == len(PROBED) and actions[0] == plan[0] != actions[1]
        assert known[actions[0]] == known[actions[1]] == len(plan) - 1
        worse = known[actions[2]]
        assert (worse is None or worse >= len(plan)) and actions[3] not in known
        assert str(probe.privileged) != str(probe.prompt)
