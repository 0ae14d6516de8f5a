"""Renderers: from a history to the chat messages of a prompt. Students have no other way to be shown anything.

Two ship. `paper` makes one user message per step: task, history as a list, task again, observation, candidates.
`dialogue` makes a conversation that only ever grows, with what concerns the present step alone (the task once more, the
candidates) at its very end, so that all steps of an episode share one prefix. Texts are Jinja templates; an environment
may bring its own beside its code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from leap.config import Section
from leap.core import History
from leap.core.message import Length, Message, characters, with_tools
from leap.envs.grammar import GrammarOf, free_text
from leap.policies.fitting import Fit, Fitted, fit_history
from leap.policies.templating import PromptFolder, load_template, shipped_alone

_SHIPPED = Path(__file__).parent / "templates"


class PromptConfig(Section):
    """How a student is asked. Part of a recipe, under `student.prompt`."""

    gone: ClassVar[dict[str, Any]] = {"repeat_task": True}

    renderer: Literal["paper", "dialogue"] = Field(
        default="paper", description="One message per step, or one growing dialogue."
    )
    instructions: bool = Field(default=True, description="State the rules of the game and of the answer in the prompt.")
    candidates: bool = Field(
        default=True, description="List the admissible actions in the prompt, where there are any."
    )
    max_tokens: int | None = Field(
        default=None,
        ge=64,
        description="Longest prompt in tokens; a longer one loses its oldest steps. As the model's context allows if null.",
    )


class Renderer:
    """Renders histories with one set of options. Takes a `History`, which cannot hold privileged state.

    Args:
        config: How prompts are made.
        prompts: Tells the folder of a task's templates.
        grammar_of: Tells the grammar of a task's actions.
        limit: Longest prompt, in the unit of `length`. It is part of the renderer, so that a prompt of a rollout and its
            training row leave out the same steps.
        length: Measures a prompt.
    """

    def __init__(
        self,
        config: PromptConfig,
        prompts: PromptFolder = shipped_alone,
        *,
        grammar_of: GrammarOf = free_text,
        limit: int | None = None,
        length: Length = characters,
    ) -> None:
        self.config = config
        self.grammar_of = grammar_of
        self.limit = limit
        self.length = length
        self.prompts = prompts

    def limited(self, limit: int | None, length: Length = characters) -> Renderer:
        """The same renderer with another limit."""
        return Renderer(self.config, self.prompts, grammar_of=self.grammar_of, limit=limit, length=length)

    def render(self, history: History) -> list[Message]:
        """The messages of the prompt at the history's present step.

        Raises:
            ContextTooLong: It does not fit even without any step but the present one.
        """
        return self.fit(history).messages

    def fit(self, history: History) -> Fitted:
        """The same, and how many of the oldest steps had to be left out.

        Raises:
            ContextTooLong: It does not fit even without any step but the present one.
        """
        length = with_tools(self.length, self.grammar_of(history.task).tools)
        return fit_history(self.whole, history, Fit(self.limit, length))

    def whole(self, history: History) -> list[Message]:
        """The prompt of a history, be it too long."""
        return self._paper(history) if self.config.renderer == "paper" else self._dialogue(history)

    def _paper(self, history: History) -> list[Message]:
        turns = [
            {"observation": observation.text, "action": action}
            for observation, action in zip(history.observations[:-1], history.actions, strict=True)
        ]
        text = self._call("prompt", history, turns=turns)
        return [{"role": "user", "content": text}]

    def _dialogue(self, history: History) -> list[Message]:
        grammar = self.grammar_of(history.task)
        messages: list[Message] = [{"role": "user", "content": self._call("opening", history)}]
        for number, (action, observation) in enumerate(zip(history.actions, history.observations[1:], strict=True)):
            messages += grammar.turn(action, self._call("turn", history, observation=observation.text), number)
        messages[-1]["content"] += self._call("ask", history)
        return messages

    def _call(self, macro: str, history: History, **extra: Any) -> str:
        now = history.now
        candidates = now.admissible if self.config.candidates and now.admissible is not None else None
        values = {
            "task": history.task,
            "first": history.observations[0].text,
            "observation": now.text,
            "candidates": candidates,
            "form": self.grammar_of(history.task).form_at(now),
            "instructions": self.config.instructions,
        } | extra
        module: Any = load_template(f"{self.config.renderer}.j2", self.prompts(history.task), _SHIPPED).module
        return (
            str(getattr(module, macro)(values)).strip("\n") if macro != "ask" else str(module.ask(values)).rstrip("\n")
        )
