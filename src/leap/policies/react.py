"""ReAct prompts (Yao et al. 2023): worked examples and the model's own earlier reasons, for baselines that are not trained."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import starmap
from pathlib import Path

from leap.core import Episode, History, Observation, content_key
from leap.core.message import Length, Message, characters
from leap.envs.grammar import GrammarOf, free_text
from leap.policies.base import Act, Peek
from leap.policies.templating import PromptFolder, call_macro, load_template, shipped_alone

_SHIPPED = Path(__file__).parent / "templates"


def choose_examples(demonstrations: Sequence[Episode], history: History, k: int, seed: int) -> list[Episode]:
    """The few-shot examples for a task: solved demonstrations, of the task's kind as far as there are any.

    The same for all tasks of a kind, so that prompts share their beginning; only a task that is itself among the
    examples gets another in its place.

    Args:
        demonstrations: Episodes of an expert on training tasks.
        history: Of the task to play.
        k: How many examples to choose.
        seed: Seed of the choice.
    """
    task = history.task
    solved = sorted((d for d in demonstrations if d.success and d.steps), key=lambda d: d.task.key)
    draw = random.Random(content_key("examples", seed, task.kind))
    mixed = draw.sample(solved, len(solved))
    mixed.sort(key=lambda d: d.task.kind != task.kind)  # stable: drawn order within each half
    return [d for d in mixed if (d.task.id, d.task.instruction) != (task.id, task.instruction)][:k]


class ReActRenderer:
    """Renders what a model is shown that plays in the ReAct way, on any environment.

    Args:
        demonstrations: Episodes of an expert on training tasks; those with reasons show how to reason.
        prompts: Tells the folder of a task's templates (`react.j2` there comes before the general one).
        grammar_of: Tells the grammar of a task's actions.
        examples: How many examples to show.
        seed: Seed of the examples' choice.
        limit: Longest prompt, in the unit of `length`. Examples may fill half of it.
        length: Measures a prompt.
    """

    privileged = False

    def __init__(
        self,
        demonstrations: Sequence[Episode],
        *,
        prompts: PromptFolder = shipped_alone,
        grammar_of: GrammarOf = free_text,
        examples: int = 2,
        seed: int = 0,
        limit: int | None = None,
        length: Length = characters,
    ) -> None:
        self.limit = limit
        self.length = length
        self.grammar_of = grammar_of
        self._demonstrations = demonstrations
        self._prompts = prompts
        self._k = examples
        self._seed = seed
        self._chosen: dict[str, list[Episode]] = {}  # by task

    async def at_step(self, acts: Sequence[Act], peek: Peek | None) -> Callable[[History], list[Message]]:
        reasons = [act.decision.reason for act in acts]
        return lambda history: self.render(history, reasons, self.examples(history))

    def examples(self, history: History) -> list[Episode]:
        """The examples for a task, the same at all its steps; fewer where they would fill more than half of the limit."""
        if history.task.key not in self._chosen:
            first = History(task=history.task, observations=history.observations[:1])
            chosen = choose_examples(self._demonstrations, first, self._k, self._seed)
            bare = self.length(self.render(first, [], []))
            while chosen and self.limit and self.length(self.render(first, [], chosen)) - bare > self.limit // 2:
                chosen.pop()
            self._chosen[history.task.key] = chosen
        return self._chosen[history.task.key]

    def render(self, history: History, reasons: Sequence[str], examples: Sequence[Episode]) -> list[Message]:
        """The prompt at the history's present step.

        Args:
            history: What was seen and done; it may be shortened.
            reasons: The policy's own earlier reasons, one for each of its actions so far, the dropped ones too.
            examples: Worked examples.
        """
        kept = [*([""] * len(history.actions)), *reasons][-len(history.actions) :] if history.actions else []
        past = zip(history.observations[:-1], kept, history.actions, strict=True)
        text = call_macro(
            load_template("react.j2", self._prompts(history.task), _SHIPPED),
            "prompt",
            task=history.task,
            turns=[*starmap(_turn, past), _turn(history.now)],
            candidates=history.now.admissible,
            form=self.grammar_of(history.task).form_at(history.now),
            examples=[_example(episode) for episode in examples],
            thinks=False,
        )
        return [{"role": "user", "content": text}]


def _example(episode: Episode) -> dict[str, object]:
    past = [_turn(step.observation, " ".join(step.reason.split()), step.action) for step in episode.steps]
    return {"task": episode.task, "turns": [*past, _turn(episode.final)]}


def _turn(observation: Observation, reason: str = "", action: str | None = None) -> dict[str, object]:
    return {"observation": observation.text.strip(), "reason": reason, "action": action}
