"""A model teacher tried out before anything is spent: a few steps of one training task, with the privileged state and without.

Is the answer read, can its actions be taken, does the privileged state change them? The steps are those of a stand-in for the
student, which takes any admissible action, for there is no student yet.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from leap.core import Actor, Correction, Episode, Observation, Rejection, Step, StopReason, Task, content_key
from leap.core.message import ToolSpec
from leap.envs.base import Environment
from leap.envs.grammar import Grammar
from leap.envs.live import Live, states_along
from leap.models.base import Model
from leap.models.mock import least_value
from leap.policies.base import UNPARSED
from leap.teachers.asking import failed_calls
from leap.teachers.base import TeacherContext
from leap.teachers.config import ModelTeacherConfig
from leap.teachers.model import ModelTeacher

STEPS = {"trajectory": 3, "step": 2}
"""Steps asked about, by how the teacher is asked; each at most twice."""
_SHOWN = 36  # characters of an action
_UNUSABLE = (Rejection.TEACHER_ERROR, Rejection.NOT_ADMISSIBLE, Rejection.EMPTY)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a teacher answered.

    Attributes:
        corrections: Of each step.
        cut_off: Answers that ended for want of tokens.
        failed: What the last call said that failed for good; empty where none did.
        last: The last answer's text.
    """

    corrections: Sequence[Correction]
    cut_off: int
    failed: str
    last: str

    def count(self, *but: Rejection) -> int:
        """Corrections that are not rejected for these reasons."""
        return sum(one.rejected not in but for one in self.corrections)

    @property
    def read(self) -> int:
        """Steps whose answer could be read."""
        return self.count(Rejection.TEACHER_ERROR)

    @property
    def valid(self) -> int:
        """Steps whose action can be taken."""
        return self.count(*_UNUSABLE)


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of trying a teacher.

    Attributes:
        section: The teacher's options.
        episode: What it was asked about.
        hidden: Whether there is a privileged state.
        with_state, without: What it answered; None where its privilege is 0, or nothing is hidden.
    """

    section: ModelTeacherConfig
    episode: Episode
    hidden: bool
    with_state: Asked
    without: Asked | None

    @property
    def usable(self) -> bool:
        """Whether any of its corrections could train."""
        return any(one.kept for one in self.with_state.corrections)

    @property
    def problems(self) -> list[str]:
        """What is wrong, a sentence each, with advice."""
        return list(self._problems())

    def _problems(self) -> Iterator[str]:
        asked, section, steps = self.with_state, self.section, len(self.episode.steps)
        if section.privilege and section.state == "extracted" and not self.hidden:
            yield "No privileged state can be had from the expert's log of this task (teacher.state: extracted)."
            return
        if asked.failed:
            yield f"Calls failed after all retries: {asked.failed}."
        if asked.cut_off:
            yield f"Its answers are cut off: raise teacher.sampling.max_tokens ({section.sampling.max_tokens} now)."
        elif asked.read < steps and not asked.failed:
            one_by_one = "" if section.by == "step" else "teacher.by: step, "
            yield (
                f"{steps - asked.read} of {steps} steps could not be read, for it does not keep to the JSON asked for: try "
                f"{one_by_one}an endpoint with a JSON-schema mode, or another model. It said {_short(asked.last, 200)!r}."
            )
        wrong = [one for one in asked.corrections if one.rejected in (Rejection.NOT_ADMISSIBLE, Rejection.EMPTY)]
        if wrong:
            yield (
                f"{len(wrong)} of {asked.read} corrections are empty or cannot be taken, such as "
                f"{_short(wrong[0].action, 60)!r}: the environment's prompts may have to say more of its actions (rules.j2), "
                "or the model is too weak."
            )
        if asked.valid and all(a.action == b.action for a, b in zip(asked.corrections, self.episode.steps, strict=True)):
            yield "It repeats the student's own action at every step, though that took any: it corrects nothing."
        if section.privilege and not self.hidden:
            yield "This task has no privileged state, so the teacher knows no more than the student."
        if (both := self._both_valid()) and all(a.action == b.action for a, b in both):
            yield (
                f"The privileged state changes none of its {len(both)} actions here: if that is not by chance, it has no effect; "
                "look at the prompt, set a higher teacher.privilege, or choose a stronger model."
            )

    def _both_valid(self) -> list[tuple[Correction, Correction]]:
        without = self.without.corrections if self.without else ()
        pairs = zip(self.with_state.corrections, without, strict=False)
        return [pair for pair in pairs if not any(one.rejected in _UNUSABLE for one in pair)]

    @property
    def table(self) -> list[str]:
        """What was asked and answered, for people."""
        without = self.without.corrections if self.without else [None] * len(self.episode.steps)
        rows = [("step", "stand-in", f"teacher at {self.section.privilege}", "at 0" if self.without else "")]
        for step, one, other in zip(self.episode.steps, self.with_state.corrections, without, strict=True):
            rows.append((str(one.t), _short(step.action, _SHOWN), _answered(one), _answered(other) if other else ""))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        asked, steps = self.with_state, len(self.episode.steps)
        summed = f"{asked.read} of {steps} answers read, {asked.valid} of their actions can be taken"
        bare = f"; without the privileged state {self.without.read} and {self.without.valid}" if self.without else ""
        lines.append(summed + bare)
        return [f"self-test of {self.section.label}, task {_short(self.episode.task.id, 80)}", *(f"  {line}" for line in lines)]


def _answered(correction: Correction) -> str:
    if correction.rejected is Rejection.TEACHER_ERROR:
        return "(unread)"
    why = f" ({correction.rejected.replace('_', ' ')})" if correction.rejected else ""
    return f"{_short(correction.action, _SHOWN)}{why}"


def _short(text: str, most: int) -> str:
    """A text on one line, of bearable length, without what could steer a terminal."""
    line = "".join(one if one.isprintable() else " " for one in " ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 1]}…"


async def try_teacher(
    section: ModelTeacherConfig, context: TeacherContext, task: Task, open_model: Callable[[], Model]
) -> Trial:
    """Asks a teacher about a few steps of a task.

    Args:
        section: The teacher's options.
        context: What else it is built from.
        task: A training task.
        open_model: Opens its model, which is closed again.

    Raises:
        LeapError: The environment fails, no call can work, or the budget is spent.
    """
    episode = await stand_in(context.environment, task, STEPS[section.by])
    states = context.states
    if section.state == "hindsight":
        hidden = True
    elif states is None:
        hidden = any(state.text.strip() for state in await states_along(context.environment, episode))
    else:
        hidden = bool(states.get(task.key, "").strip())
    with closing(open_model()) as model:
        context = replace(context, open_model=lambda _: model, attempts=2)
        with_state = await _asked(section, context, episode)
        without = None
        if section.privilege and hidden:
            without = await _asked(section.model_copy(update={"privilege": 0}), context, episode)
    return Trial(section, episode, hidden, with_state, without)


async def _asked(section: ModelTeacherConfig, context: TeacherContext, episode: Episode) -> Asked:
    teacher = ModelTeacher(section, context)
    with failed_calls() as failed:
        corrections = await teacher.correct(episode)
    return Asked(corrections, teacher.cut_off, failed[-1] if failed else "", teacher.last_answer)


async def stand_in(environment: Environment, task: Task, most: int) -> Episode:
    """An episode of at most so many steps in place of a student's, the same each time."""
    grammar, draw = environment.grammar_of(task), random.Random(content_key("stand-in", task.key))
    steps, done, success, score = list[Step](), False, False, 0.0
    async with Live(environment, task) as session:
        shown = await session.observe()
        while not done and len(steps) < most:
            action = _any_action(grammar, shown, draw)
            steps.append(Step(observation=shown, reason="I try this.", action=action))
            shown, _, done, success, score, _ = await session.act(action)
    stop = StopReason.SUCCESS if success else StopReason.HORIZON
    actor = Actor(name="stand-in")
    return Episode(
        task=task, actor=actor, horizon=most, steps=tuple(steps), final=shown, score=score, success=success, stop=stop
    )


def _any_action(grammar: Grammar, shown: Observation, draw: random.Random) -> str:
    """An admissible action, the least call of a tool, or else one that does nothing anywhere."""
    if shown.admissible:
        return draw.choice(shown.admissible)
    return grammar.canonical(_least_call(draw.choice(grammar.tools))) if grammar.tools else UNPARSED


def _least_call(tool: ToolSpec) -> str:
    named = tool["function"]
    return json.dumps({"name": named["name"], "arguments": least_value(named["parameters"])})
