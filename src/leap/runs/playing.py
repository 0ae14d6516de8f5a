"""Playing: the tasks of a stage as shards, and their episodes on file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leap.core import Episode, StopReason
from leap.errors import ContractError
from leap.evaluation import Evaluation, evaluate_episodes
from leap.files import Journal
from leap.models.breaker import check_lost
from leap.progress import Bar
from leap.rollouts import Play, check_faults, play_all
from leap.runs.actors import Actors
from leap.runs.executors import Executor, work_on
from leap.runs.policies import PolicySpec
from leap.runs.shards import BATCH, Shard, in_shards, together

UnderWay = Callable[[], AbstractContextManager[tuple[Bar, Callable[..., None]]]]
"""Shows work under way: gives a bar, and a function that notes figures."""


@dataclass(frozen=True, slots=True)
class Playing:
    """Who plays, and what but for the tasks, which are a shard's items."""

    who: PolicySpec
    what: Play


async def play_shards(shards: Sequence[Shard], actors: Actors, hand_on: Callable[[Episode], None]) -> None:
    """Plays the tasks of shards, anywhere."""
    spec: Playing = shards[0].spec
    policy = actors.acting(spec.who).policy()
    for shard in together(shards, apart=policy.waves):
        # Who drives the run counts the errors of all shards.
        played = replace(spec.what, tasks=shard.items)
        await play_all(actors.environment, policy, played, hand_on, done=shard.done, error_share=1.0)


class OnFile(Sequence[Episode]):
    """Episodes of a journal in some order, each read when it is asked for: a million are too many for memory."""

    def __init__(self, journal: Journal[Episode], keys: Sequence[str]) -> None:
        self._journal, self._keys = journal, keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return OnFile(self._journal, self._keys[index])
        return self._journal.get(self._keys[int(index)])


def play_tasks(
    spec: PolicySpec,
    play: Play,
    actors: Actors,
    journal: Journal[Episode],
    under_way: UnderWay,
    executor: Executor | None = None,
) -> Sequence[Episode]:
    """Plays what is not in a journal, and puts each episode there as it ends. `under_way` is opened only if something is to be
    played; this process plays where there is no executor.

    Returns:
        The tasks' episodes, in the order of splits and ids; each is read when it is asked for.

    Raises:
        LeapError: Too many were lost to failed calls of a model, or to errors of the environment. All others are on file.
    """
    tasks, actor = play.tasks, actors.acting(spec).actor
    by_key = {play.key_of(task, actor): task for task in tasks}
    if len(by_key) < len(tasks):
        raise ContractError(f"environment {actors.environment.name}: a task is to be played twice.")
    in_order = sorted(by_key, key=lambda key: (by_key[key].split, by_key[key].id))
    on_file = OnFile(journal, [key for key in in_order if key in journal])
    if len(on_file) == len(tasks):
        return on_file
    size = actors.recipe.student.batch if spec.kind in ("student", "rollout") else BATCH
    playing, pays = Playing(spec, replace(play, tasks=())), actors.pays(spec)
    how, files = {"spec": playing, "size": size, "pays": pays}, actors.files(spec)
    shards = in_shards(play.stream, play_shards, Episode, actors, by_key, journal, files=files, **how)
    played = tokens = shortened = 0
    # Put on file when all is played: where there are too many, they are played again.
    faults: list[Episode] = []
    lost: list[Episode] = []
    solved = sum(episode.success for episode in on_file)

    with under_way() as (bar, note):
        bar.update(len(on_file), len(tasks), "")

        def keep(episode: Episode) -> None:
            nonlocal played, tokens, shortened, solved
            played += 1
            tokens += sum(step.prompt_tokens + step.completion_tokens for step in episode.steps)
            shortened += sum(step.dropped > 0 for step in episode.steps)
            if episode.stop is StopReason.ENVIRONMENT_ERROR:
                faults.append(episode)
                check_faults([one.error for one in faults], len(tasks), actors.recipe.environment.error_share)
            elif episode.lost:
                lost.append(episode)
            else:
                journal.append(episode)
            solved += episode.success
            show()

        def show() -> None:
            done = len(on_file) + played
            failed = f"{len(lost) + len(faults)} failed" if lost or faults else ""
            told = (failed, actors.spent if pays else "", executor.status if executor else "")
            bar.update(done, len(tasks), ", ".join((f"{solved / done:.0%} solved", *filter(None, told))))

        work_on(shards, actors, keep, executor)
        if played:
            show()  # with what the executor says now that it is done
        if executor is not None and not executor.whole:
            return on_file
        check_lost(actor.name, [one.error for one in lost], len(tasks), actors.recipe.lost_share)
        for episode in (*faults, *lost):
            journal.append(episode)
        if faults:
            note(environment_errors=len(faults))
        if lost:
            note(lost=len(lost))
        note(episodes=len(tasks), tokens=tokens)
        if shortened:
            note(shortened_prompts=shortened)
    return OnFile(journal, [key for key in in_order if key in journal])


def score_tasks(
    spec: PolicySpec, play: Play, actors: Actors, file: Path, under_way: UnderWay, executor: Executor | None = None
) -> Evaluation:
    """Plays what is not in the journal of that file, as `play_tasks` does, and scores all."""
    played = play_tasks(spec, play, actors, Journal(file, Episode), under_way, executor)
    return evaluate_episodes(played, policy=spec.name)
