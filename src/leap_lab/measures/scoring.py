"""Likelihoods of corrections as shards: what is scored is kept, and may be scored by other processes (`leap.runs.shards`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from leap.core.record import Record, content_key
from leap.datasets import Row
from leap.models.checkpoints import release_memory
from leap.runs.actors import Actors
from leap.runs.executors import work_on
from leap.runs.policies import PolicySpec
from leap.runs.shards import Shard, in_shards
from leap.runs.stages import Stages
from leap_lab.measures.likelihood import AnswerLoss, Losses, answer_losses


class EpisodeLosses(Record):
    """The corrections of one episode under one student.

    Attributes:
        rows: Content key of the student and of the rows that were scored.
        answers: How likely each is; of those too long for the student, nothing.
    """

    rows: str
    answers: tuple[AnswerLoss, ...]

    @property
    def key(self) -> str:
        """Content key."""
        return self.rows


async def score_shards(shards: Sequence[Shard], actors: Actors, hand_on: Callable[[EpisodeLosses], None]) -> None:
    """Scores the rows of shards, an item for each episode, under the student whose i is their `spec`."""
    model, chat = _loaded(actors.checkpoint(shards[0].spec), actors.checkpoint_key(shards[0].spec))
    for shard in shards:
        losses = answer_losses(model, chat, [row for rows in shard.items for row in rows])
        known = {(one.episode, one.t): one for one in losses.answers}
        for key, rows in zip(shard.keys, shard.items, strict=True):
            if key not in shard.done:
                steps = [(row.episode, row.t) for row in rows]
                hand_on(EpisodeLosses(rows=key, answers=tuple(known[step] for step in steps if step in known)))


def scored(stages: Stages, student: int, rows: Sequence[Row], i: int, file: Path) -> Losses:
    """Losses of rows under a student, in the order of the rows.

    Args:
        stages: The run's.
        student: i of pi_i.
        rows: Rows of corrections.
        i: The iteration that is measured.
        file: Journal of what is scored.
    """
    actors, journal, key = stages.actors, stages.journal(file, EpisodeLosses), stages.actors.checkpoint_key(student)
    episodes: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        episodes[row.episode].append(row)
    items = {content_key("losses", key, [one.model_dump(mode="json") for one in own]): own for own in episodes.values()}
    how: dict[str, Any] = {"spec": student, "files": actors.files(PolicySpec("student", iteration=student))}
    shards = in_shards(f"likelihood under pi_{student}", score_shards, EpisodeLosses, actors, items, journal, **how)
    if shards:
        under_way = stages.timed("measure", i, f"likelihood of corrections under pi_{student}", file)
        with under_way as (bar, _):

            def keep(one: EpisodeLosses) -> None:
                journal.append(one)
                bar.update(len([*filter(journal.__contains__, items)]), len(items), stages.executor.status)

            try:
                work_on(shards, actors, keep, stages.executor)
            finally:
                _forget()
        stages.adopt(file)
    found = {(one.episode, one.t): one for key in items if (on_file := journal.get(key)) for one in on_file.answers}
    answers = tuple(found[step] for row in rows if (step := (row.episode, row.t)) in found)
    return Losses(answers=answers, left_out=len(rows) - len(answers))


_known: dict[tuple[str, str], tuple[Any, Any]] = {}
"""The model and the tokens that this process has loaded."""


def _loaded(checkpoint: str, key: str) -> tuple[Any, Any]:
    if (checkpoint, key) not in _known:
        from leap.models.chat import ChatTokens
        from leap.models.checkpoints import load_causal_lm

        _forget()
        model, tokenizer = load_causal_lm(checkpoint, dtype="auto", device=None)
        _known[checkpoint, key] = model, ChatTokens(tokenizer)
    return _known[checkpoint, key]


def _forget() -> None:
    if _known:
        _known.clear()
        release_memory()
