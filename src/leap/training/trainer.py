"""What every method's trainer shares: arguments, optimizer, logging, going on after an interruption, and its result."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from leap.errors import PrerequisiteError, RecipeError
from leap.training.config import TrainingSettings
from leap.training.distributed import rank, world
from leap.training.method import Progress, quiet
from leap.training.optim import muon_with_adamw

# transformers has a newer name for gradient checkpointing, and TRL asks by the old one.
warnings.filterwarnings("ignore", message=r".*gradient_checkpointing", category=FutureWarning)

def arguments(
    config: TrainingSettings,
    work: Path,
    seed: int,
    steps: int | None,
    cls: type = TrainingArguments,
    **extra: Any,
) -> Any:
    """The trainer's arguments. Everything that TRL would decide otherwise than transformers is said."""
    made: Any = cls(
        output_dir=str(work),
        seed=seed,
        data_seed=seed,
        max_steps=steps or -1,
        learning_rate=config.lr,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=config.bf16,
        gradient_checkpointing=config.gradient_checkpointing,
        save_strategy="steps" if config.save_steps else "no",
        save_steps=config.save_steps or 500,
        save_total_limit=1,
        logging_steps=1,
        logging_strategy="steps",
        report_to=[] if config.logging == "none" else [config.logging],
        run_name=" ".join(path.name for path in reversed(_places(work))),
        project=os.environ.get("WANDB_PROJECT", "leap"),
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        **({"num_train_epochs": config.epochs} | extra),
    )
    if made.n_gpu > 1:  # one process, several GPUs: nn.DataParallel fits none of the trainers, so one GPU is used
        made._n_gpu = 1
    return made


def row_batches(config: TrainingSettings, *, least: int = 1) -> dict[str, int]:
    """How a step's rows are shared out: each process takes its part, in as few equal pieces as the device holds.

    Args:
        config: Settings.
        least: Smallest number of rows that a device may be given at once.

    Raises:
        RecipeError: The rows of a step cannot be shared out equally.
    """
    share, rest = divmod(config.batch_rows, world())
    fitting = [rows for rows in range(least, config.device_rows + 1) if share and share % rows == 0]
    if rest or not fitting:
        raise RecipeError(
            f"training.batch_rows: {config.batch_rows} rows cannot be shared out among {world()} processes with "
            f"{least} to {config.device_rows} rows on a device at once; choose a multiple of {world() * least}."
        )
    return {"per_device_train_batch_size": fitting[-1], "gradient_accumulation_steps": share // fitting[-1]}


def optimizers(config: TrainingSettings, model: torch.nn.Module) -> Any:
    """The optimizer that the trainer would not make itself, in the form it takes.

    Raises:
        RecipeError: Muon is asked for with sharded weights.
    """
    if config.optimizer == "muon":
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in {"1", "true"}:
            raise RecipeError("optimizer: muon needs whole matrices, and FSDP shards them; use optimizer: adamw.")
        return muon_with_adamw(model, lr=config.lr, muon_lr=config.muon_lr, weight_decay=config.weight_decay), None
    return None, None


@contextmanager
def logged(config: TrainingSettings, work: Path) -> Iterator[None]:
    """While the trainer is made: where its logger writes (TensorBoard: `logs/` in the iteration's folder).

    Raises:
        PrerequisiteError: The logger's package is not installed.
    """
    if config.logging == "none":
        yield
        return
    if find_spec(config.logging) is None:
        raise PrerequisiteError(f"logging: {config.logging} is not installed: pip install {config.logging}")
    ours = {"TENSORBOARD_LOGGING_DIR": str(_places(work)[0] / "logs"), "WANDB_PROJECT": "leap"}
    added = [name for name in ours if name not in os.environ]
    os.environ.update({name: ours[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _places(work: Path) -> tuple[Path, Path]:
    """The folders of the iteration and of the run that a training's own folder lies in."""
    iteration = next((path for path in work.parents if path.name.startswith("iter-")), work.parent)
    return iteration, iteration.parent


def run(trainer: Trainer, work: Path, on_step: Progress) -> Watch:
    """Trains, from the last state on file if there is one."""
    trainer.remove_callback(PrinterCallback)  # leap shows the progress itself
    watch = Watch(on_step if rank() == 0 else quiet)
    trainer.add_callback(watch)
    if (state := last_state(work)) is not None:
        transformers_logging.set_verbosity_error()  # that tied weights are not in the state twice is no news
    trainer.train(resume_from_checkpoint=state)
    return watch


def last_state(work: Path) -> str | None:
    """The newest complete state of an interrupted training."""
    states = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    whole = [path for path in states if (path / "trainer_state.json").exists()]
    return str(whole[-1]) if whole else None


class Watch(TrainerCallback):
    """Passes each step's loss on and remembers it, and the rewards beside it."""

    def __init__(self, on_step: Progress) -> None:
        self._on_step = on_step
        self._logs: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._logs.append(logs)
            self._on_step(state.global_step, state.max_steps, logs["loss"])

    def last_loss(self) -> float:
        """Mean over the last tenth of the steps."""
        return self._mean("loss")

    def last_rewards(self) -> dict[str, float]:
        """Means over the last tenth of the steps, by name: chosen, rejected, margins, accuracies."""
        names = {name for logs in self._logs for name in logs if name.startswith("rewards/")}
        return {name.removeprefix("rewards/"): self._mean(name) for name in sorted(names)}

    def _mean(self, name: str) -> float:
        tail = [logs[name] for logs in self._logs[-max(1, len(self._logs) // 10) :] if name in logs]
        return round(sum(tail) / len(tail), 4) if tail else float("nan")
