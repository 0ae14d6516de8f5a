"""A third party's model provider in one file: a model made of a rule, and an engine of its own for students' checkpoints."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field, ValidationError

import leap
from leap.config import Section
from leap.models.base import Sampling
from leap.models.providers import HFProvider, open_model
from tiny_world import TinyWorld, TinyWorldConfig


class ParrotConfig(Section):
    """The provider's settings, under `endpoint` beside the model's name."""

    voice: str = Field(default="Polly", description="Who speaks.")


class ParrotModel(leap.Model):
    """Always says the same."""

    def __init__(self, name: str, words: str) -> None:
        self.name, self.concurrency, self._words = name, 4, words

    async def complete(self, request: leap.Request) -> leap.Completion:
        return leap.Completion(self._words, self.length(request.messages), len(self._words))


@leap.model("parrot")
class Parrot(leap.Provider):
    """`parrot/WORDS` always says these words."""

    Config = ParrotConfig

    def open(self, model: str, sampling: Sampling, *, config: ParrotConfig, batch: int, dtype: str) -> leap.Model:
        return ParrotModel(f"parrot/{model}", f"{config.voice}: {model}")


@leap.model("tallied")
class Counted(HFProvider):
    """Checkpoints in this process, each opening noted: the place of an engine of one's own."""

    opened: ClassVar[list[str]] = []

    def open(self, model: str, sampling: Sampling, **more: Any) -> leap.Model:
        self.opened.append(model)
        return super().open(model, sampling, **more)


RECIPE: dict[str, Any] = {"name": "x", "environment": {"name": "alfworld"}}
TEACHER = {"kind": "model", "model": "parrot/hi"}


def test_a_model_of_it_is_a_teacher_with_the_providers_own_settings() -> None:
    made = leap.Recipe.model_validate(RECIPE | {"teacher": TEACHER | {"endpoint": {"voice": "Jack"}}})
    assert made.model_dump(mode="json")["teacher"]["endpoint"] == {"voice": "Jack"}
    model = made.teacher.models[0].open()

    assert asyncio.run(model.complete(leap.Request([{"role": "user", "content": "?"}]))).text == "Jack: hi"
    with pytest.raises(ValidationError, match=r"vioce[\s\S]*unknown key. Did you mean 'voice'"):
        leap.Recipe.model_validate(RECIPE | {"teacher": TEACHER | {"endpoint": {"vioce": "Jack"}}})


def test_a_student_needs_weights(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"student\.model 'parrot/hi': training needs its weights"):
        leap.Recipe.model_validate(RECIPE | {"student": {"model": "parrot/hi"}})
    pytest.importorskip("trl")
    from leap.testing.checkpoints import tiny_checkpoint

    student = {"model": f"tallied/{tiny_checkpoint(tmp_path / 'tiny')}", "sampling": {"max_tokens": 8}}
    values = {"name": "c", "iterations": 0, "horizon": 2, "student": student, "environment": {"test": ["test"]}}
    values |= {"training": {"steps": 1}, "demonstrations": {"successes_only": False}}
    run = leap.run(values, environment=TinyWorld(TinyWorldConfig(tasks=2)), run_dir=tmp_path / "run")
    assert Counted.opened == [str(run.checkpoint(0))] and not open_model("parrot/hi", Sampling()).in_process
