"""Prompts of model teachers. Everything that a teacher is shown is rendered here, from templates of our own words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Template

import leap.policies
from leap.core import Episode, History, PrivilegedState, Task
from leap.core.message import Message
from leap.envs.grammar import GrammarOf, free_text
from leap.envs.tools import listed
from leap.errors import RecipeError
from leap.policies.base import Act, Peek
from leap.policies.rendering import Renderer
from leap.policies.templating import PromptFolder, call_macro, load_template, shipped_alone
from leap.teachers.answers import ACTION, LEAVE, REASON
from leap.teachers.config import LEVELS

_SHIPPED = Path(__file__).parent / "templates", Path(leap.policies.__file__).parent / "templates"
_NAMES = {"leave": LEAVE, "reason": REASON, "action": ACTION}
MOST_CANDIDATES = 100
"""Admissible actions are listed at steps that have at most so many."""


@dataclass(frozen=True, slots=True)
class TeacherPrompts:
    """Prompts of a teacher at one privilege level. The same inputs give the same bytes, so that requests can be keyed.

    Attributes:
        privilege: One of `LEVELS`. At 0 the privileged state enters no prompt.
        prompts: Tells the folder of a task's templates.
        grammar_of: Tells the grammar of a task's actions.
        hindsight: Whether the privileged state is what is known once an episode is over.

    Raises:
        RecipeError: There is no prompt for that privilege level.
    """

    privilege: int
    prompts: PromptFolder = shipped_alone
    grammar_of: GrammarOf = free_text
    hindsight: bool = False

    def __post_init__(self) -> None:
        if self.privilege not in LEVELS:
            known = f"a model teacher knows the levels {', '.join(map(str, LEVELS))}; choose one of them."
            raise RecipeError(f"privilege {self.privilege}: {known}")

    def trajectory(
        self, episode: Episode, state: str, asked: Sequence[int] | None = None, *, first: int = 0, last: int | None = None
    ) -> list[Message]:
        """Asks for the corrections of these timesteps of an episode, or of all; steps before the first and behind the last are
        left out. `state` is the text of the privileged state."""
        final = len(episode.steps) - 1
        last = final if last is None else last
        steps = [self._step(episode, t) for t in range(first, last + 1)]
        end = episode.final.text.strip() if last == final else None
        more = {"asked": asked, "dropped": first, "end": end, "success": episode.success}
        return self._ask("trajectory", episode, steps, state, **more)

    def step(self, episode: Episode, t: int, state: str, *, first: int = 0) -> list[Message]:
        """Asks for the correction of step t; nothing later is shown."""
        steps = [self._step(episode, k) | {"t": None} for k in range(first, t + 1)]
        for step in steps[:-1]:
            step["candidates"] = None  # only the present ones can be chosen from
        return self._ask("step", episode, steps, state, dropped=first)

    def acting(self, task: Task, state: str) -> str:
        """What a model that acts itself is told of the privileged state, at a level above 0."""
        return call_macro(self._template(task), "acting", privilege=self.privilege, state=state.strip())

    def _template(self, task: Task) -> Template:
        return load_template("correct.j2", self.prompts(task), *_SHIPPED)

    def _step(self, episode: Episode, t: int) -> dict[str, object]:
        step = episode.steps[t]
        admissible = step.observation.admissible
        return {
            "t": t,
            "observation": step.observation.text.strip(),
            "candidates": admissible if admissible is not None and len(admissible) <= MOST_CANDIDATES else None,
            "reason": " ".join(step.reason.split()),
            "action": step.action,
        }

    def _ask(self, macro: str, episode: Episode, steps: list[dict[str, object]], state: str, **more: object) -> list[Message]:
        grammar = self.grammar_of(episode.task)
        privilege = self.privilege if state.strip() else 0  # where nothing is hidden, no level has anything to use
        text = call_macro(
            self._template(episode.task),
            macro,
            names=_NAMES,
            privilege=privilege,
            hindsight=self.hindsight,
            task=episode.task,
            state=state.strip() if privilege else None,
            steps=steps,
            length=len(episode.steps),
            tools=listed(grammar.tools),
            form=grammar.form_at(episode.steps[-1].observation),
            candidates=any(step["candidates"] is not None for step in steps),
            **more,
        )
        return [{"role": "user", "content": text}]


class PrivilegedRenderer:
    """Renders the student's own prompt with the privileged state behind it: for a model that acts with privilege.

    At level 0, and where nothing is hidden, a prompt is the student's, byte for byte. What is privileged stands at the very end,
    so that the steps of an episode share all that comes before.

    Args:
        renderer: Makes the student's prompts. Its limit is that of the prompts with the privileged state.
        privilege: One of `LEVELS`, if it ever renders a privileged state.
    """

    def __init__(self, renderer: Renderer, privilege: int) -> None:
        self.privileged = privilege > 0
        self.limit = renderer.limit
        self.length = renderer.length
        self.grammar_of = renderer.grammar_of
        self._renderer = renderer
        self._privilege = privilege

    async def at_step(self, acts: Sequence[Act], peek: Peek | None) -> Callable[[History], list[Message]]:
        state = await peek() if peek is not None else None
        return lambda history: self.render(history, state)

    def render(self, history: History, privileged: PrivilegedState | None) -> list[Message]:
        """The whole prompt at the history's present step; the privileged state may be None at level 0 alone."""
        messages = self._renderer.whole(history)
        if not self.privileged:
            return messages
        if privileged is None:
            raise ValueError("no privileged state was given")
        if not privileged.text.strip():
            return messages  # nothing is hidden
        told = TeacherPrompts(self._privilege, self._renderer.prompts).acting(history.task, privileged.text)
        return [*messages[:-1], {**messages[-1], "content": f"{messages[-1]['content']}\n\n{told}"}]
