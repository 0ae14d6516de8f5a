"""Correcting: the episodes of a stage as shards, and their corrections on file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from leap.core import Correction, Episode, Rejection, Tried, content_key
from leap.files import Journal
from leap.models.providers import BATCH as MODEL_BATCH
from leap.progress import Bar
from leap.runs.actors import Actors
from leap.runs.executors import Executor, work_on
from leap.runs.policies import PolicySpec
from leap.runs.shards import BATCH, Shard, in_shards, together
from leap.teachers.base import Corrected, Keeper
from leap.teachers.config import TeacherConfig

_REJECTED = {Rejection.TEACHER_ERROR: "unread"}


@dataclass(frozen=True, slots=True)
class Correcting:
    """Which student's episodes are corrected, how many in all shards, and whether privileged states were read from logs. A
    shard's items are episodes, each with that state or None."""

    student: int
    extracted: bool
    episodes: int


async def correct_shards(shards: Sequence[Shard], actors: Actors, hand_on: Callable[[Corrected], None]) -> None:
    """Has the episodes of shards corrected, anywhere."""
    spec: Correcting = shards[0].spec
    pairs = [pair for shard in shards for pair in shard.items]
    states = {episode.task.key: state for episode, state in pairs if state is not None} if spec.extracted else None
    teacher = actors.teacher(spec.student, states, episodes=spec.episodes)
    for shard in together(shards, apart=teacher.waves):
        await teacher.correct_each([episode for episode, _ in shard.items], hand_on, done=shard.done)


def correct_all(
    student: int,
    episodes: Sequence[Episode],
    finished: set[str],
    states: Mapping[str, str] | None,
    actors: Actors,
    journal: Journal[Correction],
    what: str,
    bar: Bar,
    note: Callable[..., None],
    executor: Executor | None = None,
) -> None:
    """Has episodes of a student corrected that are not in a journal with all their steps.

    Args:
        student: i of pi_i.
        episodes: What to correct, in order.
        finished: Keys of those that are; others are added as they are done.
        states: Privileged states by task key, where they were read from logs.
        actors: Those of this process.
        journal: Gets the corrections of each episode as it is done.
        what: Names the work, for people.
        bar: Shows it.
        note: Notes figures.
        executor: Who works; this process where there is none.

    Raises:
        LeapError: See `Teacher.correct_all`.
    """
    section, recipe = actors.recipe.teacher, actors.recipe
    pays = any(model.paid for model in section.models)
    size = recipe.student.batch if section.uses_student else MODEL_BATCH if section.models and not pays else BATCH
    figures = Counter[str]()

    def told() -> str:
        return ", ".join(filter(None, (actors.spent if pays else "", executor.status if executor else "")))

    def keep(made: Corrected) -> None:
        for correction in made.corrections:
            journal.append(correction)
        finished.add(made.episode)
        figures.update(dropped=made.dropped, cut_off=made.cut_off)
        bar.update(len(finished), len(episodes), told())

    keeper = Keeper(who_corrects(section), len(episodes), keep, recipe.lost_share)
    items = {one.key: (one, states.get(one.task.key) if states is not None else None) for one in episodes}
    bar.update(len(finished), len(episodes), "")
    how = {"spec": Correcting(student, states is not None, len(episodes)), "size": size, "pays": pays}
    files = actors.files(PolicySpec("student", iteration=student)) if section.uses_student else ()
    shards = in_shards(what, correct_shards, Corrected, actors, items, {*finished}, files=files, **how)
    work_on(shards, actors, keeper.take, executor)
    if executor is None or executor.whole:
        keeper.end()
    note(corrections=len(journal))
    if figures["dropped"]:
        note(steps_left_out=figures["dropped"])
    more = f"; {figures['cut_off']} answers cut off" if figures["cut_off"] else ""
    if tried := Tried.over(one for one in journal if one.episode in finished):
        note(**tried.model_dump())
        more += f"; {tried}"
    bar.update(len(finished), len(episodes), f"{_outcome(finished, journal)}{more} {told()}")


def up_to_labels(labels: int | None, episodes: Sequence[Episode], seed: int, stream: str) -> list[Episode]:
    """Whole episodes with at most so many steps in all, drawn at random; in the order given."""
    if labels is None:
        return [*episodes]
    drawn = sorted(episodes, key=lambda episode: content_key(seed, stream, episode.task.key))
    steps = list(accumulate(len(episode.steps) for episode in drawn))
    chosen = {episode.key for episode, so_far in zip(drawn, steps, strict=True) if so_far <= labels}
    return [episode for episode in episodes if episode.key in chosen]


def who_corrects(section: TeacherConfig) -> str:
    """Name of the teacher of a section, as it stands in corrections."""
    return section.models[0].model if section.models else section.kind


def corrected(episodes: Iterable[Episode], corrections: Iterable[Correction]) -> set[str]:
    """Keys of the episodes of which every step is corrected."""
    steps = Counter(correction.episode for correction in corrections)
    return {episode.key for episode in episodes if steps[episode.key] >= len(episode.steps)}


def _outcome(episodes: Container[str], corrections: Iterable[Correction]) -> str:
    """How many steps of these episodes got a correction that trains, and what became of the others, for people."""
    counts = Counter(correction.rejected for correction in corrections if correction.episode in episodes)
    rejected = "".join(f", {count} {_REJECTED.get(why, why)}" for why, count in counts.most_common() if why is not None)
    return f"{counts[None]} of {counts.total()} steps kept{rejected}".replace("_", " ")
