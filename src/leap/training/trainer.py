"""What every method's trainer shares: arguments, optimizer, logging, going on after an interruption, and its result."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback
from transformers.utils import logging as transformers_logging

from leap.errors import RecipeError
from leap.files import explained, seal, sealed
from leap.models.checkpoints import is_small, release_memory
from leap.training.config import TrainingSettings
from leap.training.distributed import barrier, from_rank_0, in_any, rank, sharded, world
from leap.training.half import added_in_place
from leap.training.losses import Curve, thinned
from leap.training.method import Job, Progress, diverged, quiet, unnoticed
from leap.training.student import save_student

A = TypeVar("A", bound=TrainingArguments)
D = TypeVar("D")


def arguments(config: TrainingSettings, job: Job, cls: type[A], **extra: Any) -> A:
    """The trainer's arguments. Everything that TRL would decide otherwise than transformers is said."""
    if config.logging == "wandb":
        os.environ.setdefault("WANDB_PROJECT", "leap")  # its callback looks nowhere else
    shared: dict[str, Any] = {
        "output_dir": str(job.work),
        "seed": job.seed,
        "data_seed": job.seed,
        "max_steps": config.steps or -1,
        "num_train_epochs": config.epochs,
        "learning_rate": config.lr,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup_steps,
        "max_grad_norm": config.max_grad_norm,
        "bf16": config.bf16,
        "gradient_checkpointing": config.gradient_checkpointing,
        "save_strategy": "steps" if config.save_steps else "no",
        "save_steps": config.save_steps or 500,
        "logging_steps": 1,
        "logging_strategy": "steps",
        "logging_nan_inf_filter": False,  # it tells a loss of NaN as one of 0
        "report_to": [] if config.logging == "none" else [config.logging],
        "run_name": " ".join(path.name for path in reversed(_places(job.work))),
        "project": os.environ.get("WANDB_PROJECT", "leap"),
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": not torch.cuda.is_available(),
    }
    made = cls(**(shared | extra))
    if made.n_gpu > 1:  # one process, several GPUs: nn.DataParallel fits none of the trainers, so one GPU is used
        made._n_gpu = 1
    return made


class Combined(torch.optim.Optimizer):
    """Several optimizers stepped as one, so that trainers, schedulers and checkpoints need not know."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._join_groups()

    def _join_groups(self) -> None:
        # The groups are the parts' own objects: a scheduler that sets a learning rate here sets it there.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._join_groups()


def optimizers(config: TrainingSettings, model: torch.nn.Module) -> tuple[Combined | None, None]:
    """The optimizer that the trainer would not make itself, in the form it takes: Muon (Jordan et al. 2024) on the hidden
    layers' matrices, AdamW on embeddings, norms and head.

    Raises:
        RecipeError: Muon is asked for with sharded weights.
    """
    if config.optimizer != "muon":
        return None, None
    if sharded():
        raise RecipeError("optimizer: muon needs whole matrices, and FSDP shards them; use optimizer: adamw.")
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            hidden = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
            (matrices if hidden else rest).append(parameter)
    muon = torch.optim.Muon(matrices, lr=config.muon_lr, weight_decay=0.0, momentum=0.95, nesterov=True)
    return Combined(muon, torch.optim.AdamW(rest, lr=config.lr, weight_decay=0.0, betas=(0.9, 0.95))), None


def row_batches(config: TrainingSettings, *, least: int = 1) -> dict[str, int]:
    """How a step's rows are shared out: each process takes its part, in as few equal pieces as the device holds, but of at
    least so many rows.

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


def _places(work: Path) -> tuple[Path, Path]:
    """The folders of the iteration and of the run that a training's own folder lies in."""
    iteration = next((path for path in work.parents if path.name.startswith("iter-")), work.parent)
    return iteration, iteration.parent


class Fit(TypedDict):
    """Fields of a `TrainingResult`."""

    steps: int
    loss: float
    rewards: dict[str, float]
    losses: Curve


def fit(trainer: Trainer, tokenizer: PreTrainedTokenizerBase, job: Job) -> Fit:
    """Trains, from the last state on file if there is one, and leaves the checkpoint."""
    trainer.remove_callback(PrinterCallback)  # leap shows the progress itself
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):  # by itself it writes into the folder that goes after the training
            callback.logging_dir = callback.logging_dir or str(_places(job.work)[0] / "logs")
    trainer.add_callback(Watch(quiet if rank() else job.on_step, job.on_state))
    last = from_rank_0(None if rank() else _last_state(job.work))
    if last is not None:
        transformers_logging.set_verbosity_error()  # that tied weights are not in the state twice is no news
    with explained(job.work), _uncast(trainer.model, trainer.args.bf16):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        _check_usable(trainer)
        save_student(trainer, tokenizer, job.out)
    history = [logs for logs in trainer.state.log_history if "loss" in logs]  # with the steps before an interruption
    names = sorted({name for logs in history for name in logs if name.startswith("rewards/")})
    rewards = {name.removeprefix("rewards/"): mean for name in names if math.isfinite(mean := _last(history, name))}
    losses = thinned([(int(logs["step"]), logs["loss"]) for logs in history])
    return {"steps": trainer.state.global_step, "loss": _last(history, "loss"), "rewards": rewards, "losses": losses}


@contextmanager
def _uncast(model: Any, bf16: bool) -> Iterator[None]:
    """While a model is trained in bfloat16: autocast turns the adapters' weights into it. PEFT would turn each of their inputs
    into float32 before, only for autocast to turn it back, and both would be kept for the backward pass."""
    if not hasattr(model, "peft_config"):
        yield
        return
    from peft.helpers import disable_input_dtype_casting

    with disable_input_dtype_casting(model, active=bf16), added_in_place(model):
        yield


def _last_state(work: Path) -> Path | None:
    """The trainer's last complete state; the others go."""
    last = next((state for state in _states(work) if sealed(state)), None)
    _remove_all_but(last, _states(work))
    return last


def _states(work: Path) -> list[Path]:
    """Newest first."""
    return sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)


def _remove_all_but(last: Path | None, states: Sequence[Path]) -> None:
    for state in states:
        if state != last:
            shutil.rmtree(state)


def _check_usable(trainer: Trainer) -> None:
    """Looks at what came out: the last step has changed the weights after the last loss was computed.

    Raises:
        RunError: The weights are not finite, or not what the model makes of them.
    """
    model: Any = trainer.model_wrapped
    tokens = torch.arange(4, device=next(model.parameters()).device)[None]
    with torch.no_grad():
        logits = model.eval()(input_ids=tokens, use_cache=False).logits
    if in_any(not (_finite(model) and bool(logits.isfinite().all()))):
        raise diverged(trainer.state.global_step, "the weights that it leaves are not finite, or give no finite answer")


def _finite(model: torch.nn.Module) -> bool:
    """Whether all weights that are trained are finite."""
    return all(bool(one.isfinite().all()) for one in model.parameters() if one.requires_grad)


class Tokenized:
    """For TRL's trainers: the rows come in tokens already. And no message to TRL's makers."""

    def _prepare_dataset(self, dataset: D, *_: object, **__: object) -> D:
        return dataset

    def _send_telemetry(self) -> None:
        pass


class Watch(TrainerCallback):
    """Passes each step's loss on, ends a training that has gone astray, and keeps the last state that is whole and good."""

    def __init__(self, on_step: Progress, on_state: Callable[[Path], None] = unnoticed) -> None:
        self._on_step, self._on_state = on_step, on_state

    def on_log(
        self, args: object, state: TrainerState, control: object, logs: dict[str, float] | None = None, **_: object
    ) -> None:
        if logs and "loss" in logs:
            for name, what in (("loss", "its loss"), ("grad_norm", "its gradient's norm")):
                if not math.isfinite(value := logs.get(name, 0.0)):
                    raise diverged(state.global_step, f"{what} is {value}")
            self._on_step(state.global_step, state.max_steps, logs["loss"])

    def on_step_end(
        self, args: object, state: TrainerState, control: TrainerControl, *, model: torch.nn.Module, **_: object
    ) -> None:
        if control.should_save and in_any(not _finite(model)):
            raise diverged(state.global_step, "its weights are not finite")
        if not is_small(model):  # a hundredth of a step; in five, half as much again is held (benchmarks/memory_run.log)
            release_memory()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: object, **_: object) -> None:
        barrier()  # each process writes a part of the state
        # From a last state within an epoch transformers would take one step too many: such a one does not count.
        if state.global_step < state.max_steps or not (state.epoch or 0) % 1:
            last = Path(str(args.output_dir), f"checkpoint-{state.global_step}")
            if not rank():
                seal(last)
                _remove_all_but(last, _states(last.parent))
            self._on_state(last)


def _last(history: Sequence[Mapping[str, float]], name: str) -> float:
    """Mean over the last tenth of the steps."""
    tail = [logs[name] for logs in history[-max(1, len(history) // 10) :] if math.isfinite(logs.get(name, math.nan))]
    return round(sum(tail) / len(tail), 4) if tail else float("nan")
