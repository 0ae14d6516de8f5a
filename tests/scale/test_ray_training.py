"""Training by Ray Train: ranks on workers of a cluster leave what one process leaves, and go on when one is killed."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ray", reason="Ray is not installed: pip install 'leap-agents[ray]'")

import clusters  # noqa: E402

from leap.errors import RecipeError, RunError  # noqa: E402
from leap.testing.checkpoints import tiny_checkpoint  # noqa: E402
from leap.training.method import Job, method_of, quiet  # noqa: E402

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with clusters.cluster(2) as made:
        yield made


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("start"), "llama3"))


def train(
    cluster: Any,
    start: str,
    folder: Path,
    settings: Any,
    on_step: Callable[..., Any] = quiet,
    rows: Any = None,
    **options: Any,
) -> Any:
    """Trains on the cluster."""
    from pairs import some_rows

    from leap.runs.ray_executor import RayExecutor
    from leap.runs.ray_pool import RayConfig

    out, work = folder / "out", folder / "work"
    out.mkdir(parents=True)
    work.mkdir()
    executor = RayExecutor(RayConfig(address=cluster.address, workers=2, **options))
    try:
        return executor.train(method_of(settings), rows or some_rows(), Job(1, start, out, work, 1, on_step))
    finally:
        executor.close()


@pytest.mark.slow
def test_two_ranks_leave_what_one_process_leaves(cluster: Any, start: str, tmp_path: Path) -> None:
    from pairs import SFT, weights
    from pairs import train as train_here

    steps: list[tuple[int, int, float]] = []
    settings = SFT.model_copy(update={"steps": 2})  # within an epoch: the last step of one is filled up for two ranks
    alone = train_here(settings, start, tmp_path / "alone")
    two = train(cluster, start, tmp_path / "two", settings.model_copy(update={"processes": 2}), lambda *told: steps.append(told))
    assert [step[:2] for step in steps] == [(1, 2), (2, 2)]
    assert (two.steps, two.rows, two.tokens) == (alone.steps, alone.rows, alone.tokens)
    assert two.loss == pytest.approx(alone.loss, rel=1e-4)
    before, one, both = (weights(path) for path in (Path(start), tmp_path / "alone" / "out", tmp_path / "two" / "out"))
    assert one.keys() == both.keys()
    for name, tensor in one.items():
        # Where a gradient is nothing but rounding, Adam's first step goes either way by the whole learning rate.
        apart = ((tensor - both[name]).abs() > 1e-4).float().mean().item()
        assert apart < 0.01 and not torch.equal(before[name], tensor), (name, apart)


def kill_a_rank(others: Collection[int]) -> int:
    """Kills a process of Ray Train's that is none of the others; returns how many there were."""
    found = {*clusters.processes("RayTrainWorker")} - {*others}
    os.kill(max(found), signal.SIGKILL)
    return len(found)


@clusters.many_minutes
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
def test_a_killed_rank_costs_the_steps_since_the_last_state(seen: bool, start: str, tmp_path: Path) -> None:
    """Beside it two ranks are left alone: over more than an epoch they are not one process (its last step is filled up)."""
    from pairs import SFT, weights

    two = SFT.model_copy(update={"steps": 12, "save_steps": 1, "processes": 2})
    steps: list[int] = []
    killed: list[int] = []

    def on_step(done: int, total: int, loss: float) -> None:
        steps.append(done)
        if done == 6 and not killed:
            killed.append(kill_a_rank(others))

    hidden = tmp_path / "hidden"
    hidden.mkdir()
    shutil.copytree(start, hidden / "start")
    with clusters.cluster(2 if seen else 0) as cluster, ExitStack() as nodes:
        for _ in range(0 if seen else 2):
            nodes.enter_context(clusters.blind_node(cluster, hidden))
        options: dict[str, Any] = {} if seen else {"storage_path": str(tmp_path / "storage")}
        train(cluster, str(hidden / "start"), hidden / "alone", two, **options)
        others = clusters.processes("RayTrainWorker")  # of that or another training, if they are slow to end
        result = train(cluster, str(hidden / "start"), hidden, two, on_step, **options)
    assert killed == [2] and steps[-1] == result.steps == 12
    again = next(later for one, later in itertools.pairwise(steps) if later <= one)
    assert again > 3, "it does not begin anew"
    alone, cut = weights(hidden / "alone" / "out"), weights(hidden / "out")
    for name, tensor in alone.items():
        assert ((tensor - cut[name]).abs() > 1e-3).float().mean().item() < 0.01, name
    if not seen:
        assert not list((tmp_path / "storage").glob("leap-*")), "states go with a training that ends well"


def test_how_many_ranks_there_may_be() -> None:
    from pairs import SFT

    from leap.runs.ray_pool import Pool, RayConfig

    def ranks(processes: int, least: int | None = None, **settings: Any) -> Any:
        pool = Pool(RayConfig(workers=2, min_ranks=least))
        return pool.ranks(SFT.model_copy(update={"processes": processes, "batch_rows": 8, "save_steps": 1, **settings}))

    assert (ranks(4), ranks(2, 1), ranks(4, 4)) == (4, (1, 2), (4, 4))
    for told, wrong in {
        "8 rows cannot be shared out among 3 processes": {"processes": 4, "least": 2},
        "executor.min_ranks: 3 is more than the 2 of training.processes": {"processes": 2, "least": 3},
        "executor.min_ranks needs training.save_steps": {"processes": 2, "least": 1, "save_steps": 0},
        "training.accelerate: ddp": {"processes": 2, "least": 1, "accelerate": "fsdp"},
    }.items():
        with pytest.raises(RecipeError, match=told):
            ranks(**wrong)
    assert ranks(4, 2, branches=True) == (2, 4), "branches are shared out by episodes"


@pytest.mark.slow
def test_a_training_goes_on_in_fewer_ranks_where_a_node_has_gone(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pairs import SFT, some_rows, weights
    from pairs import train as train_here

    settings = SFT.model_copy(update={"steps": 12, "save_steps": 1})
    rows = some_rows(3, 4)  # whole steps make an epoch, so that two ranks are one process
    steps: list[tuple[int, int]] = []

    def on_step(done: int, total: int, loss: float) -> None:
        steps.append((done, len(clusters.processes("RayTrainWorker"))))
        if done == 3 and len(cluster.worker_nodes) == 2:
            cluster.remove_node(max(cluster.worker_nodes, key=id), allow_graceful=False)

    train_here(settings, start, tmp_path / "alone", rows=rows)
    with clusters.cluster(2) as cluster:
        monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "45")  # so long it looks for the node that is gone
        two = settings.model_copy(update={"processes": 2})
        result = train(cluster, start, tmp_path / "cut", two, on_step, rows, min_ranks=1)
    assert steps[0] == (1, 2) and steps[-1] == (12, 1) and result.steps == 12
    assert next(done for done, ranks in steps if ranks == 1) > 3, "it does not begin anew"
    alone, cut = weights(tmp_path / "alone" / "out"), weights(tmp_path / "cut" / "out")
    for name, tensor in alone.items():  # the same rows in each step, added up in another order
        assert ((tensor - cut[name]).abs() > 1e-3).float().mean().item() < 0.01, name


@pytest.mark.slow
def test_what_a_rank_says_is_told_and_not_tried_again(cluster: Any, start: str, tmp_path: Path) -> None:
    from failing_method import FailingConfig

    with pytest.raises(RunError, match="the training diverged at step 3: its loss is nan"):
        train(cluster, start, tmp_path, FailingConfig(method="failing", processes=2))
    assert (tmp_path / "tries").read_text() == "x", "once"
