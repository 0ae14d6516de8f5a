"""A third party's model provider in one file: a model made of a rule, and an engine of its own for students' checkpoints."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field, ValidationError

import leap
from leap.config import Section
from leap.models.base import Completion, Sampling
from leap.models.mock import MockModel
from leap.models.providers import HFProvider, open_model
from tiny_world import TinyWorld, TinyWorldConfig


class ParrotConfig(Section):
    """The provider's settings, under `endpoint` beside the model's name."""

    voice: str = Field(default="Polly", description="Who speaks.")


@leap.model("parrot")
class Parrot(leap.Provider):
    """`parrot/WORDS` always says these words."""

    Config = ParrotConfig

    def open(self, model: str, sampling: Sampling, *, config: ParrotConfig, batch: int, dtype: str) -> leap.Model:
        return MockModel(lambda request: f"{config.voice}: {model}", sampling=sampling)


@leap.model("tallied")
class Counted(HFProvider):
    """Checkpoints in this process, each opening noted: the place of an engine of one's own."""

    opened: ClassVar[list[str]] = []

    def open(self, model: str, sampling: Sampling, **more: Any) -> leap.Model:
        self.opened.append(model)
        return super().open(model, sampling, **more)


def recipe(**more: Any) -> dict[str, Any]:
    return {"name": "x", "environment": {"name": "alfworld"}} | more


def test_a_model_of_it_is_a_teacher_with_the_providers_own_settings() -> None:
    made = leap.Recipe.model_validate(recipe(teacher={"kind": "model", "model": "parrot/hi", "endpoint": {"voice": "Jack"}}))
    assert made.model_dump(mode="json")["teacher"]["endpoint"] == {"voice": "Jack"}
    model = made.teacher.models[0].open()

    async def say() -> Completion:
        async with model.conversation() as conversation:
            return await conversation.complete([{"role": "user", "content": "?"}], seed=0)

    assert asyncio.run(say()).text == "Jack: hi"
    with pytest.raises(ValidationError, match=r"vioce[\s\S]*unknown key. Did you mean 'voice'"):
        leap.Recipe.model_validate(recipe(teacher={"kind": "model", "model": "parrot/hi", "endpoint": {"vioce": "Jack"}}))


def test_a_student_needs_weights(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"student\.model 'parrot/hi': training needs its weights"):
        leap.Recipe.model_validate(recipe(student={"model": "parrot/hi"}))
    pytest.importorskip("trl")
    from leap.testing.checkpoints import tiny_checkpoint

    student = {"model": f"tallied/{tiny_checkpoint(tmp_path / 'tiny')}", "sampling": {"max_tokens": 8}}
    values = {"name": "c", "iterations": 0, "horizon": 2, "student": student, "environment": {"test": ["test"]}}
    values |= {"training": {"steps": 1}, "demonstrations": {"successes_only": False}}
    run = leap.run(values, environment=TinyWorld(TinyWorldConfig(tasks=2)), run_dir=tmp_path / "run")
    assert Counted.opened == [str(run.checkpoint(0))] and not open_model("parrot/hi", Sampling()).in_process
