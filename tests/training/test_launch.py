"""Training in several processes that leap starts itself: the same weights, told progress and errors, and nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from pairs import BOTH, SFT, train, weights  # noqa: E402

from leap.errors import RecipeError, RunError  # noqa: E402
from leap.files import sealed  # noqa: E402
from leap.training import launch  # noqa: E402
from leap.training.method import diverged, method_of  # noqa: E402
from leap.training.methods import SFT as SftMethod  # noqa: E402

TWO = SFT.model_copy(update={"processes": 2, "steps": 2})
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, and the local interface, whatever the machine has."""
    for name, value in {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    from leap.testing.checkpoints import tiny_checkpoint

    return str(tiny_checkpoint(tmp_path_factory.mktemp("start"), "llama3"))


class Fails(SftMethod):
    """Fails in the process of a rank, in one way or another."""

    how = ("", 0)

    def train(self, rows: Any, job: Any) -> Any:
        how, rank = rows
        if int(os.environ["RANK"]) == rank:
            if how == "diverged":
                raise diverged(3, "its loss is nan")
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("a shape that does not fit\nand more about it")
        time.sleep(60)


def others(word: str) -> list[int]:
    """Processes that were started with this word among their arguments."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word in (folder / "cmdline").read_bytes().decode(errors="replace").split("\0") and "State:\tZ" not in (
                folder / "status"
            ).read_text():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def gone(word: str, seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while others(word) and time.monotonic() < until:
        time.sleep(0.1)
    return not others(word)


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(start: str, tmp_path: Path) -> None:
    steps: list[tuple[int, int, float]] = []
    one = train(TWO.model_copy(update={"processes": 1}), start, tmp_path / "one")
    two = train(TWO, start, tmp_path / "two", on_step=lambda *told: steps.append(told))
    assert [step[:2] for step in steps] == [(1, 2), (2, 2)]
    assert (two.steps, two.rows, two.tokens) == (one.steps, one.rows, one.tokens)
    assert two.loss == pytest.approx(one.loss, rel=1e-2)
    before, alone, shared = weights(Path(start)), weights(tmp_path / "one" / "out"), weights(tmp_path / "two" / "out")
    assert alone.keys() == shared.keys()
    for name, tensor in alone.items():
        assert (tensor - shared[name]).abs().mean() < 0.1 * (tensor - before[name]).abs().mean() + 1e-6, name


@pytest.mark.slow
def test_a_preference_method_and_the_sft_before_it_run_there_too(start: str, tmp_path: Path) -> None:
    both = BOTH.model_copy(update={"processes": 2, "steps": 1, "sft": TWO.model_copy(update={"steps": 1})})
    result = train(both, start, tmp_path)
    assert (result.steps, result.first.steps) == (1, 1) and result.rewards


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "rank", "told"),
    [
        ("diverged", 0, "the training diverged at step 3: its loss is nan"),
        ("shapes", 1, "training, process 1: ValueError: a shape that does not fit"),
        ("killed", 1, "the training in several processes ended with status 1: "),
    ],
)
def test_the_first_rank_that_fails_is_told_in_one_line_and_nobody_waits(
    how: str, rank: int, told: str, start: str, tmp_path: Path
) -> None:
    from leap.training.distributed import train
    from leap.training.method import Job

    began = time.monotonic()
    with pytest.raises(RunError) as caught:
        train(Fails(TWO), (how, rank), Job(1, start, tmp_path / "out", tmp_path / "work", 1))
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value) and time.monotonic() - began < 55
    if how == "shapes":
        assert 'raise ValueError("a shape' in str(caught.value.__cause__), "--debug shows where"
    if how == "killed":
        assert (tmp_path / "work" / launch.LOG).exists()


def test_what_cannot_be_is_refused_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="batch_rows: 4 rows cannot be shared out among 3 processes"):
        launch.processes(SFT.model_copy(update={"processes": 3}))
    assert launch.processes(SFT.model_copy(update={"processes": "auto"})) == 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launch.processes(SFT.model_copy(update={"processes": "auto"})) == 2
    with pytest.raises(RecipeError, match="4 processes need as many GPUs, and 2 are visible"):
        launch.processes(SFT.model_copy(update={"processes": 4}))
    (missing,) = SFT.model_copy(update={"processes": 2, "accelerate": str(tmp_path / "x.yaml")}).missing()
    assert "neither ddp, fsdp nor a file" in missing
    assert not list(SFT.model_copy(update={"processes": 2, "accelerate": "fsdp"}).missing())
    assert SFT.deciding() == SFT.model_copy(update={"processes": 8, "accelerate": "fsdp"}).deciding()
    monkeypatch.setattr(Fails, "__module__", "__main__")
    with pytest.raises(RecipeError, match="is defined in a script"):
        launch.launched(Fails(TWO), (), None, 2)  # type: ignore[arg-type]


SCRIPT = """
import sys
from pathlib import Path
from leap.errors import LeapError
from pairs import train
from test_launch import TWO

def told(done, total, loss):
    print(done, flush=True)

try:
    train(TWO.model_copy(update={"steps": int(sys.argv[3]), "save_steps": 2}), sys.argv[1], Path(sys.argv[2]), on_step=told)
except LeapError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(7)
"""


def in_the_background(start: str, folder: Path, steps: int) -> subprocess.Popen[str]:
    places = [str(HERE), str(HERE.parent / "shared"), str(HERE.parents[1] / "src")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*places, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", SCRIPT, start, str(folder), str(steps)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def reached(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= step:
            return
    raise AssertionError("the training ended before")


def address_of(process: subprocess.Popen[str]) -> str:
    """The socket of its ranks, which stands among their arguments."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, line = (folder / "status").read_text(), (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if f"PPid:\t{process.pid}\n" in status and "leap.training.worker" in line:
            return line[line.index("leap.training.worker") + 1]
    raise AssertionError("no launcher")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are counted in /proc")
@pytest.mark.parametrize("whom", ["maker", "launcher", "interrupt"])
def test_whoever_is_killed_nobody_is_left_and_the_same_command_goes_on(whom: str, start: str, tmp_path: Path) -> None:
    process = in_the_background(start, tmp_path / "cut", 400)
    reached(process, 5)
    address = address_of(process)
    ranks = others(address)
    assert len(ranks) == 3, "a launcher and two ranks"
    if whom == "launcher":
        os.kill(min(ranks), signal.SIGKILL)
    else:
        process.send_signal(signal.SIGKILL if whom == "maker" else signal.SIGINT)
    rest = process.communicate(timeout=60)[0]
    assert gone(address), "no process is left behind"
    assert process.returncode == {"maker": -signal.SIGKILL, "launcher": 7, "interrupt": -signal.SIGINT}[whom], rest
    if whom == "launcher":
        assert "RunError" in rest and f"{launch.LOG} holds all that they said" in rest
    whole = [path for path in (tmp_path / "cut" / "work").glob("checkpoint-*") if sealed(path)]  # one may be half written
    states = [int(path.name.split("-")[1]) for path in whole]
    assert states and max(states) >= 4
    if whom != "maker":
        return
    steps = max(states) + 3
    again: list[int] = []
    on = TWO.model_copy(update={"steps": steps, "save_steps": 2})
    train(on, start, tmp_path / "cut", on_step=lambda *told: again.append(told[0]))
    assert again[0] == max(states) + 1 and again[-1] == steps, "it goes on where the last state was"


def test_method_of_a_recipe_keeps_its_processes() -> None:
    assert method_of(TWO).config.processes == 2
