"""Training by Ray Train: leap's own `train` on workers, each a rank. Methods and their trainers know nothing of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from leap.core import content_key
from leap.errors import LeapError, RunError, last_line
from leap.runs.ray_desk import ask, attend, fetch, offer
from leap.sync import run_sync
from leap.training.method import Job, Method, TrainingResult, quiet


def train(pool: Any, method: Method[Any], rows: Any, job: Job) -> TrainingResult:
    """Trains pi_i on as many workers as `training.processes` says, each with what a worker of the pool is given. A training that
    loses workers goes on from its last state (`training.save_steps`): when these are there again, or with fewer (`min_ranks`).

    Raises:
        LeapError: What the first rank that failed says.
        RunError: It was interrupted too often.
    """
    pool.connect()
    from ray import cloudpickle
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    config, desk = pool.config, pool.desk
    ranks = pool.ranks(method.config)
    number = ranks if isinstance(ranks, int) else ranks[1]
    key = job.work / "key"
    name = f"leap-{content_key('training', str(job.work), key.read_text() if key.exists() else '')[:16]}"
    storage = config.storage_path or str(job.work / "ray")
    alone = method.config.model_copy(update={"processes": 1})  # in each process there is nothing more to start
    work = {
        "folder": str(Path.cwd()),
        "name": name,
        "method": type(method)(alone),
        "rows": rows,
        "job": replace(job, on_step=quiet),
        "storage": config.storage_path,
        "environment": _of_accelerate(method, number),
    }
    given = pool.resources(True)
    path = [str(Path(place).absolute()) for place in sys.path]
    trainer = TorchTrainer(
        take_part,
        train_loop_config={"desk": desk, "path": path, "work": cloudpickle.dumps(work)},
        scaling_config=ScalingConfig(
            num_workers=ranks,
            use_gpu=given["GPU"] > 0,
            resources_per_worker=given,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            failure_config=FailureConfig(max_failures=config.max_task_retries),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    failed: list[LeapError] = []

    async def files(path: str) -> Mapping[str, Any]:
        return await asyncio.to_thread(offer, Path(job.start), config.storage_path)

    async def step(*figures: Any) -> None:
        job.on_step(*figures)

    async def fail(error: LeapError | None) -> bool:
        failed.extend([error] if error is not None else [])
        return bool(failed)

    async def trained(offered: Mapping[str, Any]) -> None:
        await asyncio.to_thread(fetch, offered, job.out)

    async def fitted() -> Any:
        attending = asyncio.create_task(attend(desk, {"files": files, "step": step, "fail": fail, "trained": trained}))
        try:
            return await in_thread(trainer.fit)
        except asyncio.CancelledError:
            pool.close()  # ends the ranks
            raise
        finally:
            attending.cancel()

    try:
        result = run_sync(fitted())
    except LeapError:
        raise
    except Exception as error:
        raise failed[0] if failed else RunError(f"the training on workers of Ray ended: {last_line(error)}") from error
    if failed:
        raise failed[0]
    if config.storage_path is not None:
        import fsspec

        system, place = fsspec.url_to_fs(f"{storage.rstrip('/')}/{name}")
        with suppress(OSError):
            system.rm(place, recursive=True)
    return result.return_value


async def in_thread(work: Any) -> Any:
    """The result of a function that blocks, in a thread that nobody waits for."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def tell(value: Any, error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error is not None else done.set_result(value)

    def run() -> None:
        value, error = None, None
        try:
            value = work()
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, value, error)

    threading.Thread(target=run, name="leap-ray", daemon=True).start()
    return await done


def _of_accelerate(method: Method[Any], number: int) -> dict[str, str]:
    """What `accelerate launch` would tell the processes, beside who they are: how weights are sharded."""
    if method.config.accelerate == "ddp" or number == 1:
        return {}
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    alone = ["--num_processes", str(number), "--num_machines", "1", "--main_process_port", "0", "-m", "leap"]
    arguments = launch_command_parser().parse_args(["--config_file", str(method.config.launch_file), *alone])
    told = prepare_multi_gpu_env(_validate_launch_command(arguments)[0])
    return {name: value for name, value in told.items() if name.startswith(("ACCELERATE_", "FSDP_"))}


# ---- on workers ----------------------------------------------------------------------------------------------------------


def take_part(given: dict[str, Any]) -> TrainingResult | None:
    """A rank's part. Rank 0 works as a single process would; see `leap.training.distributed`. What is of a user's own modules is
    read only where these are found."""
    from ray import cloudpickle

    sys.path += [place for place in given["path"] if place not in sys.path]
    work = {"desk": given["desk"], **cloudpickle.loads(given["work"])}
    desk, number = work["desk"], int(os.environ["RANK"])
    if ask(desk, "fail", None):  # what is wrong with recipe or rows is wrong at every try
        return None
    try:
        return _take_part(work, number)
    except LeapError as error:
        ask(desk, "fail", error)
        raise
    except Exception as error:  # Ray tells no more than the last line
        raise RuntimeError(f"process {number}: {type(error).__name__}: {error}\n{traceback.format_exc()}") from error


def _take_part(work: dict[str, Any], number: int) -> TrainingResult | None:
    with suppress(OSError):
        os.chdir(work["folder"])
    os.environ.update(work["environment"])
    import ray
    import torch
    from accelerate import PartialState

    from leap.training import distributed

    desk, job = work["desk"], work["job"]
    if torch.distributed.get_world_size() == 1:  # as any single process
        torch.distributed.destroy_process_group()
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK"):
            del os.environ[name]
    PartialState(cpu=not torch.cuda.is_available())
    seen = not distributed.in_any(not job.out.is_dir())  # a folder that the driver has just made, under a name of its own
    own = Path(gettempdir()) / work["name"]  # the same in all ranks: what rank 0 says of paths holds for all
    if not seen:
        job = _elsewhere(work, job, own)
    if number:
        distributed.follow()
        return None
    for left in job.out.iterdir():  # of a try that was interrupted while it wrote
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    told: Any = None

    def on_step(*figures: Any) -> None:
        nonlocal told
        told = desk.ask.remote("step", *figures)

    result = distributed.train(work["method"], work["rows"], replace(job, on_step=on_step))
    distributed.release()
    if told is not None:
        ray.get(told)
    if not seen:
        ask(desk, "trained", offer(job.out, work["storage"]))
        shutil.rmtree(own, ignore_errors=True)
    return result


def _elsewhere(work: dict[str, Any], job: Job, own: Path) -> Job:
    """The job where ranks do not see the run directory: what it starts from and its last state are fetched."""
    from ray.train import get_checkpoint, get_context

    from leap.files import seal
    from leap.training.distributed import barrier

    on_state, out, states, start = job.on_state, own / "out", own / "work", own / "start"
    if get_context().get_local_rank() == 0:  # for all ranks of this machine
        shutil.rmtree(own, ignore_errors=True)
        out.mkdir(parents=True)
        states.mkdir()
        if not Path(job.start).exists():
            fetch(ask(work["desk"], "files", job.start), start)
        if work["storage"] is not None and (last := get_checkpoint()) is not None:
            state = states / Path(last.path).name
            last.to_directory(str(state))
            seal(state)
    barrier()
    if work["storage"] is not None:
        on_state = report_state
    return replace(job, out=out, work=states, start=str(start) if start.exists() else job.start, on_state=on_state)


def report_state(state: Path) -> None:
    """Has Ray keep a state of the training: what each machine has of it."""
    from ray.train import Checkpoint, get_context, report

    here = get_context().get_local_rank() == 0
    report({}, Checkpoint.from_directory(str(state)) if here else None, checkpoint_dir_name=state.name)
