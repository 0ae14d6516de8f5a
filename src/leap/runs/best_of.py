"""`policy: {best_of: 8, value: RUN}`: of N answers of the student the one is taken that a run's value model finds best."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from leap.core import Actor, Decision, History, content_key, open_action
from leap.errors import ContextTooLong, RecipeError, RunError
from leap.files import read_json
from leap.policies.base import Act, Policy
from leap.policies.decoding import DecodingConfig, DecodingPolicy
from leap.policies.rendering import PromptConfig, Renderer
from leap.runs.directory import RunDirectory, marker

if TYPE_CHECKING:
    from leap.value.network import ValueModel


class BestOfConfig(DecodingConfig):
    """Options of best-of-N. `{best_of: 8, ...}` is short for `{kind: best-of, n: 8, ...}`."""

    kind: Literal["best-of"] = Field(default="best-of", description="best-of.")  # pyright: ignore[reportIncompatibleVariableOverride]
    n: Annotated[int, Field(ge=1)] | Literal["all"] = Field(  # type: ignore[assignment]
        default=8, description="Answers drawn at each step; all: one, and every action that the environment lists."
    )
    value: str = Field(description="Run directory whose value model chooses (`leap value`).")
    iteration: int | None = Field(
        default=None, ge=0, description="Of which pi_i in it; of the last that has one if null."
    )
    labels: Literal["replay", "returns", "planner"] = Field(
        default="replay", description="By the labels that it learnt from."
    )
    temperature: float = Field(
        default=1.0,
        ge=0,
        description="At which all answers but the first are drawn, where that is warmer than the student's.",
    )

    votes: float = Field(
        default=1.0,
        ge=0,
        description="0: the action of most value. More: of most value times the share of the answers that take it to this "
        "power; 1 is the weighted best of N. Without meaning for n: all.",
    )

    @property
    def draws(self) -> int:
        return 1 if self.n == "all" else self.n

    @property
    def checkpoint(self) -> Path:
        """The value model's folder.

        Raises:
            RecipeError: There is none.
        """
        run, i = RunDirectory(Path(self.value)), self.iteration
        known = range(run.iterations()[-1], -1, -1) if i is None and run.iterations() else [i or 0]
        found = next((path for j in known if marker(path := run.value(j, self.labels)).exists()), None)
        if found is None:
            raise RecipeError(
                f"policy.value: {self.value} has no value model by labels: {self.labels}; `leap value {self.value} -i "
                f"{known[0]} --labels {self.labels}` makes one."
            )
        return found

    def content(self) -> dict[str, object]:
        try:
            return {"value": read_json(marker(self.checkpoint))["key"], "iteration": None}
        except (RecipeError, RunError):  # whoever plays is told
            return {}


def best(values: Sequence[float], taken: Sequence[int], votes: float) -> int:
    """Which action is taken: the first of most value times how many answers take it to the power of `votes`.

    With 1 that is the weighted best of N: values are added over answers. As a policy, log value + votes * log share is what
    maximises value while it stays near the student, whose answers the shares are estimates of."""
    weights = [value * number**votes for value, number in zip(values, taken, strict=True)]
    return max(range(len(weights)), key=weights.__getitem__)


class BestOf(DecodingPolicy[BestOfConfig]):
    """Takes, of the different actions among the student's answers, the one that a value model finds best; the first on a tie.

    Raises:
        RecipeError: There is no such value model.
        RunError: It is damaged.
    """

    Config = BestOfConfig
    name = "best-of"

    def __init__(self, config: BestOfConfig, student: Policy) -> None:
        super().__init__(config, student)
        self._hot = copy(student)
        self._hot.hot = max(getattr(student, "hot", 0.0), config.temperature)  # type: ignore[attr-defined]
        self._value: ValueModel | None = None
        if config.n == 1:
            return
        from leap.value.network import ValueModel

        path = config.checkpoint
        RunDirectory(Path(config.value)).manifest.check(path, whole=True)
        told, own = read_json(marker(path))["value"], getattr(student, "renderer", None)
        assert isinstance(own, Renderer)
        self._value = ValueModel(str(path))
        self._reasons = told.get("reads") == "answer"
        shown = replace(own, config=PromptConfig.model_validate(told["prompt"]))
        self._renderer = shown.limited(told["limit"], partial(self._value.chat.length, thinking=shown.thinking))

    @classmethod
    def actor_of(cls, config: BestOfConfig, student: Actor) -> Actor:
        if config.n == 1:
            return student
        by = content_key(config.content(), config.temperature, *([config.votes] if config.votes else []))[:8]
        return student.model_copy(update={"name": f"{student.name}, best of {config.n} by {by}"})

    def drawing(self, k: int) -> Policy:
        return self._hot if k else self.student

    def choose(self, history: History, acts: Sequence[Act]) -> Act:
        found: dict[str, list[Act]] = {}
        for act in acts:
            if act.parsed:
                found.setdefault(act.decision.action, []).append(act)
        if self.config.n == "all":
            grammar = self._renderer.grammar_of(history.task)
            for action in history.now.admissible or ():
                if action not in found and not open_action(action):
                    decision = Decision(reason="", action=action)
                    found[action] = [Act(decision, grammar.write(decision)["content"])]
        if len(found) < 2 or self._value is None:
            return next((act for act in acts if act.parsed), acts[0])
        from leap.value.network import judged

        read = [some if self._reasons else some[:1] for some in found.values()]
        try:
            decisions = [act.decision for some in read for act in some]
            scores = iter(self._value.scores(judged(history, decisions, self._renderer, reasons=self._reasons)))
        except ContextTooLong:
            return acts[0]
        values, taken = [fmean([next(scores) for _ in some]) for some in read], [len(some) for some in found.values()]
        return [*found.values()][best(values, taken, self.config.votes)][0]
