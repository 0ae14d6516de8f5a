"""`distill`: pi_i learns, token by token, the distribution of a teacher that has the privileged state in its prompt.

The teacher is the student's own weights (OPSD, arXiv 2601.18734; SDFT, 2601.19897) or a bigger model with the same tokenizer.
Other than there, the privileged state is that of each of the student's own steps, and corrections are taught too: with a teacher
that is sure of each token of a correction this is SFT. The loss is in `leap.training.distilling`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from leap.core import Correction, Episode, PrivilegedState, StopReason, content_key
from leap.datasets import Lesson, Row, Taught
from leap.errors import ContextTooLong, RecipeError, RunError
from leap.policies.fitting import without_oldest
from leap.training.config import DistillConfig, SFTConfig
from leap.training.method import Collected, Job, TrainingResult
from leap.training.methods import SFT

if TYPE_CHECKING:
    from leap.recipe import Recipe

log = logging.getLogger(__name__)

class Distill(SFT):
    """pi_i <- argmin of a divergence from the teacher's distribution, and of the negative log-likelihood of D_0 u .. u D_i."""

    Config = DistillConfig
    config: DistillConfig  # type: ignore[assignment]
    packages = ("trl", "datasets")

    def check(self, recipe: Recipe) -> None:
        if not self.config.own_weights:
            _check_same_tokens(recipe.student.base, self.config.teacher.removeprefix("hf/"))

    def settings(self, i: int) -> dict[str, object]:
        return super().settings(i) if i else self._cloning.settings(0)

    @property
    def _cloning(self) -> SFT:
        values = self.config.model_dump(include=set(SFTConfig.model_fields) - {"method"})
        return SFT(SFTConfig.model_validate(values))

    def rows(self, collected: Collected) -> Sequence[Row] | Taught:
        if not collected.iteration:
            return collected.union()
        told = self._gap(collected)
        lessons = () if told.get("retired") else tuple(self._lessons(collected))
        return Taught(collected.union(), lessons, told)

    def fingerprint(self, rows: Sequence[Row] | Taught) -> list[str]:
        if not isinstance(rows, Taught):
            return []
        return [content_key([(one.episode, one.t, one.privileged, one.tokens, one.corrected) for one in rows.lessons])]

    def train(self, rows: Sequence[Row] | Taught, job: Job) -> TrainingResult:
        if not isinstance(rows, Taught):
            return self._cloning.train(rows, job)
        from leap.training.distilling import train_distill

        return train_distill(self.config.model_copy(update={"steps": self._steps(job.iteration)}), rows, job)

    def _lessons(self, collected: Collected) -> Iterator[Lesson]:
        i, on = collected.iteration, self.config.on
        corrections: dict[str, dict[int, Correction]] = {}
        for one in collected.corrections(i):
            if one.kept:
                corrections.setdefault(one.episode, {})[one.t] = one
        for episode in sorted(collected.episodes(i), key=lambda one: one.key):
            if episode.stop is StopReason.ENVIRONMENT_ERROR:
                continue
            states, renderer = collected.states(episode), collected.renderer
            wrong = _wrong(episode, states)
            for t, (step, state) in enumerate(zip(episode.steps, states, strict=True)):
                correction = corrections.get(episode.key, {}).get(t)
                own = step.tokens if on != "corrections" else ()
                if self.config.disagree and (correction is None or correction.action == step.action):
                    continue
                if not own and (correction is None or on == "own"):
                    continue
                try:
                    fitted = renderer.fit(episode.history(t))
                except ContextTooLong:
                    continue
                history = without_oldest(episode.history(t), fitted.dropped)
                yield Lesson(
                    episode.key,
                    t,
                    fitted.messages,
                    collected.privileged.render(history, state),
                    list(renderer.grammar_of(episode.task).tools),
                    renderer.thinking,
                    own,
                    corrected=correction is not None and on != "own",
                    wrong=wrong[t],
                )

    def _gap(self, collected: Collected) -> dict[str, object]:
        """How much more pi_{i-1} solves with the privileged state in its prompt, and what follows from it.

        Raises:
            RunError: It is too little, and the recipe refuses to go on then.
        """
        config, i = self.config, collected.iteration
        if config.gate == "off" or not config.own_weights:
            return {}
        gaps = [collected.with_privilege(j, config.gate_tasks) for j in range(i)]
        alone, told, n = gaps[-1]
        found: dict[str, object] = {"success": alone, "privileged": told, "tasks": n}
        if i == 1 and told - alone < config.margin:
            problem = (
                f"pi_0 solves {told:.0%} of {n} validation tasks with the privileged state in its prompt, {alone:.0%} without: "
                f"as a teacher it has less than {config.margin:.0%} to give (training.margin). demonstrations.with_state has it "
                "learn to use such states."
            )
            if config.gate == "refuse":
                raise RunError(problem)
            log.warning("%s", problem)
        last = [told - alone for alone, told, _ in gaps[-3:]]
        passed = config.retire is not None and alone >= config.retire * told
        if passed and len(last) == 3 and last[0] <= last[1] <= last[2]:
            log.warning("pi_%d: the teacher is retired: the student does as well without the privileged state", i)
            found["retired"] = True
        return found


def _wrong(episode: Episode, states: Sequence[PrivilegedState]) -> list[bool | None]:
    """For each step, whether the plan was no shorter behind it; what cannot succeed any more is endlessly far. Of steps without
    a plan before or behind them nothing is known, but that the last of a success was right."""
    left = [math.inf if one.hopeless else None if one.plan is None else len(one.plan) for one in states]
    found: list[bool | None] = [
        None if before in (None, math.inf) or after is None else after >= before for before, after in pairwise(left)
    ]
    return [*found, False if episode.success else None]


def _check_same_tokens(student: str, teacher: str) -> None:
    """Looks whether two models have the same tokens.

    Raises:
        RecipeError: They have not.
        PrerequisiteError: There is no such teacher.
    """
    from leap.models.checking import check_checkpoint
    from leap.models.checkpoints import load_chat

    check_checkpoint(teacher)
    one, other = (load_chat(path)[0].tokenizer.get_vocab() for path in (student, teacher))
    if one != other:
        apart = len(dict(one.items() ^ other.items()))
        raise RecipeError(
            f"training.teacher: hf/{teacher} has another tokenizer than the student {student} ({apart:,} tokens differ). Its "
            "distribution says nothing of the student's tokens; let it correct instead (teacher.kind: model)."
        )
