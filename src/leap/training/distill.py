"""`distill`: pi_i learns, token by token, the distribution of a teacher that has the privileged state in its prompt.

The teacher is the student's own weights (OPSD, arXiv 2601.18734; SDFT, 2601.19897) or a bigger model with the same tokenizer.
Other than there, the privileged state is that of each of the student's own steps, and corrections are taught too: with a teacher
that is sure of each token of a correction this is SFT. The loss is in `leap.training.distilling`.
"""

from __future__ import annotations

import logging
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from leap.core import Correction, Decision, Episode, PrivilegedState, StopReason, content_key
from leap.datasets import Lesson, Probe, Row, Taught
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
        if told.get("retired"):
            return Taught(collected.union(), (), told)
        episodes = [one for one in collected.episodes(collected.iteration) if one.stop is not StopReason.ENVIRONMENT_ERROR]
        states = {one.key: collected.states(one) for one in sorted(episodes, key=lambda one: one.key)}
        episodes.sort(key=lambda one: one.key)
        lessons = tuple(self._lessons(collected, episodes, states))
        return Taught(collected.union(), lessons, told, tuple(_probes(collected, episodes, states)))

    def fingerprint(self, rows: Sequence[Row] | Taught) -> list[str]:
        if not isinstance(rows, Taught):
            return []
        told = [(one.episode, one.t, one.privileged, one.tokens, one.corrected) for one in rows.lessons]
        more = [one.contrast for one in rows.lessons if one.contrast]
        return [content_key(told, *([more] if more else []))]

    def train(self, rows: Sequence[Row] | Taught, job: Job) -> TrainingResult:
        if not isinstance(rows, Taught):
            return self._cloning.train(rows, job)
        from leap.training.distilling import train_distill

        return train_distill(self.config.model_copy(update={"steps": self._steps(job.iteration)}), rows, job)

    def _lessons(
        self, collected: Collected, episodes: Sequence[Episode], along: Mapping[str, Sequence[PrivilegedState]]
    ) -> Iterator[Lesson]:
        i, on = collected.iteration, self.config.on
        strange = _strange(episodes, along) if self.config.contrast else None
        corrections: dict[str, dict[int, Correction]] = {}
        for one in collected.corrections(i):
            if one.kept:
                corrections.setdefault(one.episode, {})[one.t] = one
        for episode in episodes:
            states, renderer = along[episode.key], collected.renderer
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
                    action=step.action,
                    names=tuple(sorted(collected.names_in(episode.task, step.completion))) if own else (),
                    contrast=collected.privileged.render(history, strange(episode, t)) if strange else None,
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


def _strange(
    episodes: Sequence[Episode], along: Mapping[str, Sequence[PrivilegedState]]
) -> Callable[[Episode, int], PrivilegedState]:
    """Of an episode and a step: what is hidden in another task of the same type, about as far on; nothing where there is none."""
    kinds = defaultdict[str, list[Episode]](list)
    for one in episodes:
        if one.steps:
            kinds[one.task.kind].append(one)

    def of(episode: Episode, t: int) -> PrivilegedState:
        others = [one for one in kinds[episode.task.kind] if one.task.key != episode.task.key]
        if not others:
            return PrivilegedState(text="")
        states = along[random.Random(content_key("contrast", episode.key)).choice(others).key]
        return states[min(t, len(states) - 1)]

    return of


_PROBES = 60
"""Steps at which is measured what the privileged state makes likelier."""


def _probes(
    collected: Collected, episodes: Sequence[Episode], along: Mapping[str, Sequence[PrivilegedState]]
) -> Iterator[Probe]:
    """Steps with a plan, of which the actions are told apart by executing them: the plan's, another that is as good, a worse one,
    and one of another episode."""
    steps = [
        (episode, t)
        for episode in episodes
        for t, state in enumerate(along[episode.key])
        if state.plan and episode.steps[t].observation.admissible
    ]
    draw, found = random.Random(content_key("probes", [episode.key for episode in episodes])), 0
    for episode, t in draw.sample(steps, min(len(steps), 4 * _PROBES)):
        if found == _PROBES:
            return
        state, history = along[episode.key][t], episode.history(t)
        plan, left = list(state.plan or ()), collected.plans_after(episode, t)
        best = [one for one, n in left.items() if n is not None and n < len(plan) and one != plan[0]]
        worse = [one for one, n in left.items() if n is None or n >= len(plan)]
        other, at = draw.choice(steps)
        strange = [one for one in other.steps[at].observation.admissible or () if one not in left]
        if not (best and worse and strange) or plan[0] not in left:
            continue
        try:
            fitted = collected.renderer.fit(history)
        except ContextTooLong:
            continue
        found += 1
        actions = plan[0], draw.choice(best), draw.choice(worse), draw.choice(strange)
        yield Probe(
            fitted.messages,
            collected.privileged.render(without_oldest(history, fitted.dropped), state),
            list(collected.renderer.grammar_of(episode.task).tools),
            collected.renderer.thinking,
            [collected.renderer.answer(Decision(reason="", action=one), episode.task) for one in actions],
        )


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
