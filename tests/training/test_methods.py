"""The settings of the methods as a recipe states them, and what they need that may be missing."""

from __future__ import annotations

import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from marks import slow
from pydantic import BaseModel, ValidationError

from leap import registry
from leap.errors import PrerequisiteError, RecipeError
from leap.recipe import TrainingSection
from leap.training.config import DPOConfig, KTOConfig, LoraConfig, SFTConfig
from leap.training.method import method_of

METHODS = {name: registry.method.get(name) for name in ("sft", "dpo", "kto", "sft+dpo", "sft+kto")}


class Section(BaseModel):
    training: TrainingSection = SFTConfig()


def read(**training: Any) -> Any:
    return Section.model_validate({"training": training}).training


def test_a_recipe_without_a_method_is_sft() -> None:
    assert Section().training == read() == read(method="sft") == SFTConfig()
    assert read(lr=1e-4).lr == 1e-4


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_is_read_back_as_it_was_written(method: str) -> None:
    config = read(method=method, lr=0.5, lora={"rank": 3})
    assert type(config) is METHODS[method].Config and config.method == method
    assert type(method_of(config)) is METHODS[method]
    assert read(**config.model_dump(mode="json")) == config
    assert getattr(config, "sft_first", False) == ("+" in method)


def test_what_the_stages_ask_every_method() -> None:
    sft = {"start_from": "base", "branches": True, "first_steps": 7}
    for method in METHODS:
        config = read(**(sft if method == "sft" else {"method": method, "sft": sft}))
        made = method_of(config)
        assert made.planned_steps(0) == {"train": 7} and made.settings(0)["branches"] is True
        assert made.starts_from(1) == ("base" if "sft" in method else "previous") and made.starts_from(0) == "base"
        assert list(made.reads(2)) == ([0, 1, 2] if "sft" in method else [2]) and list(made.reads(0)) == [0]


def test_the_adapter_of_a_preference_method_is_also_that_of_its_cloning() -> None:
    assert read(method="dpo", lora={"rank": 3}, bf16=True).sft == SFTConfig(lora=LoraConfig(rank=3), bf16=True)
    assert read(method="dpo", lora={"rank": 3}, sft={"lora": None}).sft.lora is None
    assert DPOConfig(lora=LoraConfig(rank=3)).sft.lora == LoraConfig(rank=3)
    assert KTOConfig().batch_rows == read(method="sft+kto").batch_rows and DPOConfig().lr == read(method="sft+dpo").lr


@pytest.mark.parametrize(
    ("training", "key", "says"),
    [
        ({"method": "ppo"}, ("training", "method"), "there is no method 'ppo'"),
        ({"method": "dpo", "lrr": 1}, ("training", "lrr"), "unknown key"),
        ({"method": "dpo", "sft": {"lrr": 1}}, ("training", "sft", "lrr"), "unknown key"),
        ({"method": "dpo", "branches": True}, ("training", "branches"), "unknown key"),
        ({"beta": 0.1}, ("training", "beta"), "unknown key"),
        ({"method": "kto", "device_rows": 1}, ("training", "device_rows"), "greater than or equal to 2"),
        ({"quantize": "4bit"}, ("training",), "needs lora"),
        ({"method": "dpo", "sft": {"lora": {}}}, ("training",), "set lora too"),
        ({"method": "sft+dpo", "lora": {}, "sft": {"lora": None}}, ("training",), "set sft.lora too"),
        ({"logging": "mlflow"}, ("training", "logging"), "Input should be"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_key(training: dict[str, Any], key: tuple[str, ...], says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read(**training)
    (error,) = refused.value.errors()
    assert error["loc"] == key and says in error["msg"]


def test_the_settings_import_no_training_library() -> None:
    code = "import sys, leap.training.config, leap.cli.app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "trl", "peft", "datasets", "pyarrow", "huggingface_hub"} & set(loaded)


torch = pytest.importorskip("torch")

from pairs import DPO, LORA, SFT, train, weights  # noqa: E402

from leap.testing.checkpoints import tiny_checkpoint  # noqa: E402


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("start"), "llama3"))


def test_4_bit_without_bitsandbytes_says_what_to_install(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leap.training.config.find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match=r"needs bitsandbytes: pip install 'leap-agents\[qlora\]'"):
        train(LORA.model_copy(update={"quantize": "4bit", "steps": 1}), start, tmp_path)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("config", [LORA, slow(DPO.model_copy(update={"lora": LORA.lora}))], ids=["sft", "dpo"])
def test_a_quantised_base_trains_an_adapter(config: Any, tmp_path: Path) -> None:
    from leap.training.student import load_student

    # bitsandbytes packs weights in blocks of 64 where the processor has AVX512-BF16, and takes no narrower ones there.
    start = str(tiny_checkpoint(tmp_path / "start", "llama3", width=128))
    losses: list[float] = []
    quantised = config.model_copy(update={"quantize": "4bit", "steps": 12})
    train(quantised, start, tmp_path / "first", on_step=lambda done, total, loss: losses.append(loss))
    assert losses[-1] < losses[0] - 0.05
    assert all("lora_" in name for name in weights(tmp_path / "first" / "out"))
    assert {tensor.dtype for tensor in weights(tmp_path / "first" / "out").values()} == {torch.float32}
    model, _ = load_student(str(tmp_path / "first" / "out"), quantised)
    assert "Linear4bit" in {type(module).__name__ for module in model.modules()}
    train(quantised, str(tmp_path / "first" / "out"), tmp_path / "second", on_step=lambda *step: losses.append(step[2]))
    assert config.method != "dpo" or losses[0] == losses[12] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("logger", ["trackio", "wandb", "tensorboard"])
def test_a_logger_that_is_missing_is_named(logger: str, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leap.training.config.find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match=f"pip install {logger}"):
        train(SFT.model_copy(update={"logging": logger, "steps": 1}), start, tmp_path)


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_gets_the_rewards_in_a_folder_that_stays(start: str, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    iteration = tmp_path / "some-run" / "iter-1"
    iteration.mkdir(parents=True)
    train(DPO.model_copy(update={"logging": "tensorboard", "steps": 2}), start, iteration)
    events = EventAccumulator(str(iteration / "logs"))
    events.Reload()
    assert {"train/loss", "train/rewards/margins"} <= set(events.Tags()["scalars"])


def test_muon_does_not_go_with_sharded_weights(start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from leap.training.trainer import optimizers

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RecipeError, match="adamw"):
        optimizers(SFT.model_copy(update={"optimizer": "muon"}), torch.nn.Linear(2, 2))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_recomputed_only_where_asked(
    checkpointing: bool, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's own default is to recompute always."""
    from transformers import Trainer

    found: list[bool] = []
    step = Trainer.training_step

    def noting(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(model.is_gradient_checkpointing)
        return step(self, model, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", noting)
    for config in (SFT, DPO.model_copy(update={"lora": LORA.lora})):
        train(config.model_copy(update={"gradient_checkpointing": checkpointing, "steps": 1}), start, tmp_path / config.method)
    assert found and set(found) == {checkpointing}


def test_an_adapter_is_not_trained_as_whole_weights(start: str, tmp_path: Path) -> None:
    train(LORA, start, tmp_path / "first", steps=1)
    with pytest.raises(PrerequisiteError, match=r"training\.lora"):
        train(SFT, str(tmp_path / "first" / "out"), tmp_path / "second", steps=1)
