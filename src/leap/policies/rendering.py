"""Renderers: from a history to the chat messages of a prompt. Students have no other way to be shown anything.

Two ship. `paper` makes one user message per step: task, history as a list, task again, observation, candidates.
`dialogue` makes a conversation that only ever grows, with what concerns the present step alone (the task once more, the
candidates) at its very end, so that all steps of an episode share one prefix. Texts are Jinja templates; an environment
may bring its own beside its code.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from leap.config import Section
from leap.core import Decision, History, Task
from leap.core.message import Length, Message, characters, with_tools
from leap.envs.grammar import Grammar, GrammarOf, free_text
from leap.policies.fitting import Fit, Fitted, fit_history
from leap.policies.templating import PromptFolder, load_template, shipped_alone

_SHIPPED = Path(__file__).parent / "templates"


class PromptConfig(Section):
    """How a student is asked. Part of a recipe, under `student.prompt`."""

    gone: ClassVar[dict[str, object]] = {"repeat_task": True}

    renderer: Literal["paper", "dialogue"] = Field(
        default="paper", description="One message per step, or one growing dialogue."
    )
    instructions: bool = Field(default=True, description="State the rules of the game and of the answer in the prompt.")
    candidates: bool = Field(
        default=True, description="List the admissible actions in the prompt, where there are any."
    )
    thinking: Literal["off", "dropped", "kept", "trained"] = Field(
        default="off",
        description="Of a model whose chat template knows of thinking. off: it is told not to think. Else it thinks before it "
        "answers, and its thought is dropped, or kept as the step's reason; trained: kept, and reasons are learnt as thoughts.",
    )
    max_tokens: int | None = Field(
        default=None,
        ge=64,
        description="Longest prompt in tokens; a longer one loses its oldest steps. As the model's context allows if null.",
    )

    @model_serializer(mode="wrap")
    def _without_no_thinking(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        # So that stages from before there was the key keep theirs.
        return {key: value for key, value in handler(self).items() if (key, value) != ("thinking", "off")}


def written(decision: Decision, grammar: Grammar, *, thinks: bool) -> Message:
    """The assistant message of a decision; a model that thinks has its reason in its thought."""
    if not thinks:
        return grammar.write(decision)
    message = grammar.write(Decision(reason="", action=decision.action))
    return {**message, "content": message["content"].removeprefix("REASON: \n"), "reasoning_content": decision.reason}


@dataclass(frozen=True, eq=False)
class Renderer:
    """Renders histories with one set of options. Takes a `History`, which cannot hold privileged state.

    Attributes:
        config: How prompts are made.
        prompts: Tells the folder of a task's templates.
        grammar_of: Tells the grammar of a task's actions.
        limit: Longest prompt, in the unit of `length`. It is part of the renderer, so that a prompt of a rollout and its
            training row leave out the same steps.
        length: Measures a prompt.
    """

    config: PromptConfig
    prompts: PromptFolder = shipped_alone
    _: KW_ONLY
    grammar_of: GrammarOf = free_text
    limit: int | None = None
    length: Length = characters

    def limited(self, limit: int | None, length: Length = characters) -> Renderer:
        """The same renderer with another limit."""
        return replace(self, limit=limit, length=length)

    @property
    def thinking(self) -> bool:
        """Whether the student is asked to think before it answers."""
        return self.config.thinking != "off"

    @property
    def learns_thoughts(self) -> bool:
        """Whether the prompts that it is trained on ask it to think, too."""
        return self.config.thinking == "trained"

    def answer(self, decision: Decision, task: Task) -> Message:
        """The assistant message that a student is trained to give."""
        return written(decision, self.grammar_of(task), thinks=self.learns_thoughts)

    def decision(self, decision: Decision | None, thought: str) -> Decision | None:
        """What was read from an answer, with what was thought before it as its reason where the reason is there."""
        if decision is None or self.config.thinking not in ("kept", "trained") or not thought.strip():
            return decision
        return Decision(reason=" ".join(thought.split()), action=decision.action)

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
        return [{"role": "user", "content": self._call("prompt", history, turns=turns)}]

    def _dialogue(self, history: History) -> list[Message]:
        grammar = self.grammar_of(history.task)
        messages: list[Message] = [{"role": "user", "content": self._call("opening", history)}]
        for number, (action, observation) in enumerate(zip(history.actions, history.observations[1:], strict=True)):
            messages += grammar.turn(action, self._call("turn", history, observation=observation.text), number)
        messages[-1]["content"] += self._call("ask", history)
        return messages

    def _call(self, macro: str, history: History, **extra: object) -> str:
        now = history.now
        values = {
            "task": history.task,
            "first": history.observations[0].text,
            "observation": now.text,
            "candidates": now.admissible if self.config.candidates else None,
            "form": self.grammar_of(history.task).form_at(now),
            "instructions": self.config.instructions,
            "thinks": self.learns_thoughts,
        } | extra
        template = load_template(f"{self.config.renderer}.j2", self.prompts(history.task), _SHIPPED)
        text = str(getattr(template.module, macro)(values)).rstrip("\n")
        return text if macro == "ask" else text.lstrip("\n")  # what is asked begins on a line of its own
