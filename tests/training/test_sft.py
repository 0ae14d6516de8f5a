"""SFT on tiny checkpoints: loss on answers alone, rows and branches alike, adapters, and going on after a kill."""

from __future__ import annotations

import math
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
from marks import slow
from pairs import answer, some_rows

from leap.errors import LeapError, RunError
from leap.models.base import Sampling
from leap.testing.checkpoints import STYLES, tiny_checkpoint
from leap.training.config import LoraConfig, SFTConfig

torch = pytest.importorskip("torch")

ROWS = SFTConfig(lr=1e-2, warmup_steps=0, schedule="constant", batch_rows=4, device_rows=2, max_grad_norm=1.0)
BRANCHES = ROWS.model_copy(update={"branches": True, "batch_tokens": 400, "optimizer": "muon"})
LORA = ROWS.model_copy(update={"lora": LoraConfig(rank=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj"])})


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("start")
    return {style: str(tiny_checkpoint(folder / style, style)) for style in STYLES}


def train(config: SFTConfig, start: str, folder: Path, steps: int, rows: Any = None, **more: Any) -> Any:
    from leap.training.method import Job
    from leap.training.sft import train_sft

    rows = some_rows() if rows is None else rows
    job = Job(0, start, folder / "out", folder / "work", seed=1, **more)
    return train_sft(config.model_copy(update={"steps": steps or config.steps}), rows, job)


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("config", [ROWS, BRANCHES], ids=["rows", "branches"])
def test_the_tokens_that_bear_loss_are_the_answers(
    config: SFTConfig, style: str, checkpoints: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 4: every answer with the end of its turn, nothing else, and at most one BOS in front."""
    from trl import SFTTrainer

    from leap.models.chat import ChatTokens
    from leap.training.sft import BranchTrainer

    trainer = BranchTrainer if config.branches else SFTTrainer
    batches: list[tuple[Any, Any]] = []
    compute = trainer.compute_loss

    def noting(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        batches.append((inputs["input_ids"].clone(), inputs["labels"].clone()))
        return compute(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trainer, "compute_loss", noting)
    whole = config.model_copy(update={"batch_rows": 9, "device_rows": 9, "batch_tokens": 100_000})
    train(whole, checkpoints[style], tmp_path, 1)
    from transformers import AutoTokenizer

    chat = ChatTokens(AutoTokenizer.from_pretrained(checkpoints[style]))
    learned, sequences = [], 0
    for ids, labels in batches:
        for row_ids, row_labels in zip(ids.tolist(), labels.tolist(), strict=True):
            sequences += 1
            assert all(label in (-100, token) for token, label in zip(row_ids, row_labels, strict=True))
            span: list[int] = []
            for label in [*row_labels, -100]:
                if label != -100:
                    span.append(label)
                elif span:
                    assert span[-1] == chat.end_of_turn and span.count(chat.end_of_turn) == 1
                    learned.append(chat.tokenizer.decode(span[:-1]))
                    span = []
            if style == "llama3":
                assert row_ids.count(chat.tokenizer.bos_token_id) == (3 if config.branches else 1)  # one per episode
    assert sorted(learned) == sorted(answer(k, t) for k in range(3) for t in range(3))
    assert sequences == (1 if config.branches else 9)


def test_rows_and_branches_have_the_same_loss(checkpoints: dict[str, str], tmp_path: Path) -> None:
    losses = []
    for name, config in (("rows", ROWS), ("branches", BRANCHES)):
        whole = config.model_copy(update={"batch_rows": 9, "device_rows": 9, "batch_tokens": 100_000})
        train(whole, checkpoints["llama3"], tmp_path / name, 1, on_step=lambda done, total, loss: losses.append(loss))
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)


@pytest.mark.parametrize("config", [ROWS, BRANCHES, LORA], ids=["rows", "branches", "lora"])
def test_a_trained_checkpoint_has_learned_and_loads_again(
    config: SFTConfig, checkpoints: dict[str, str], tmp_path: Path
) -> None:
    from leap.models.hf import HFModel

    losses: list[float] = []
    result = train(config, checkpoints["llama3"], tmp_path, 25, on_step=lambda done, total, loss: losses.append(loss))
    assert (result.steps, result.rows, result.too_long, len(losses)) == (25, 9, 0, 25)
    assert sum(losses[-3:]) / 3 < losses[0] - 0.3 and result.answer_tokens > 0
    model = HFModel(str(tmp_path / "out"), Sampling(temperature=0, max_tokens=4, max_reason_tokens=2))
    base = HFModel(checkpoints["llama3"], model.sampling)
    ids = torch.tensor([model.chat.prompt(some_rows()[4].prompt)])
    with torch.inference_mode():
        trained, untrained = (m.network(input_ids=ids).logits[0, -1].log_softmax(-1) for m in (model, base))
    first = model.chat.answer(answer(1, 1))[0]
    assert trained[first] > untrained[first] + 0.3
    assert (tmp_path / "out" / "adapter_config.json").exists() == (config.lora is not None)
    assert "leap_branches" not in "".join(path.read_text() for path in (tmp_path / "out").glob("*.json"))


def test_a_larger_model_takes_a_step_in_several_passes(
    checkpoints: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    from leap.models.chat import ChatTokens
    from leap.training.branches import encode_rows
    from leap.training.sft import BranchTrainer

    passes: list[int] = []
    compute = BranchTrainer.compute_loss

    def noting(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        passes.append(inputs["input_ids"].shape[1])
        return compute(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(BranchTrainer, "compute_loss", noting)
    config = BRANCHES.model_copy(update={"batch_tokens": 100_000, "optimizer": "adamw"})
    whole = train(config, checkpoints["llama3"], tmp_path / "whole", 2)
    assert len(passes) == 2
    monkeypatch.setattr("leap.training.sft.is_small", lambda model: False)
    monkeypatch.setattr("leap.training.sft.PASS_TOKENS", 64)
    cut = train(config, checkpoints["llama3"], tmp_path / "cut", 2)
    # An episode that is longer than a pass is trained in parts; a row that is longer by itself is a part.
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["llama3"])
    rows = [len(row.prompt) + len(row.answer) for row in encode_rows(some_rows(), ChatTokens(tokenizer), max_tokens=10_000)[0]]
    assert len(passes) > 2 + 6 and max(passes[2:]) <= max(64, *rows) < max(passes[:2])
    assert cut.loss == pytest.approx(whole.loss, abs=1e-4)
    one, other = weights(tmp_path / "whole" / "out"), weights(tmp_path / "cut" / "out")
    assert all(torch.allclose(tensor, other[name], atol=2e-4) for name, tensor in one.items())


@pytest.mark.parametrize("branches", [slow(False), True], ids=["rows", "branches"])
def test_adapters_in_bfloat16_train_as_with_peft_s_own_casts(
    branches: bool, checkpoints: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import helpers

    config = LORA.model_copy(update={"bf16": True, "branches": branches, "batch_tokens": 100_000})
    ours = train(config, checkpoints["llama3"], tmp_path / "ours", 3)
    spared = helpers.disable_input_dtype_casting
    monkeypatch.setattr(helpers, "disable_input_dtype_casting", lambda model, active: spared(model, active=False))
    theirs = train(config, checkpoints["llama3"], tmp_path / "theirs", 3)
    assert ours.loss == theirs.loss
    one, other = weights(tmp_path / "ours" / "out"), weights(tmp_path / "theirs" / "out")
    assert one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_an_adapter_goes_on_from_an_adapter(checkpoints: dict[str, str], tmp_path: Path) -> None:
    train(LORA, checkpoints["llama3"], tmp_path / "first", 3)
    train(LORA, str(tmp_path / "first" / "out"), tmp_path / "second", 3)
    first, second = weights(tmp_path / "first" / "out"), weights(tmp_path / "second" / "out")
    assert first.keys() == second.keys() and all("lora_" in name for name in second)
    assert any(not torch.equal(first[name], second[name]) for name in first)


class Killed(BaseException):
    """Ends a training as a kill would."""


@pytest.mark.parametrize("config", [slow(ROWS), BRANCHES, LORA], ids=["rows", "branches", "lora"])
@pytest.mark.parametrize("torn", [False, slow(True)], ids=["whole", "torn"])
def test_an_interrupted_training_ends_in_the_same_weights(
    config: SFTConfig, torn: bool, checkpoints: dict[str, str], tmp_path: Path
) -> None:
    saving = config.model_copy(update={"save_steps": 2})
    unbroken = train(saving, checkpoints["llama3"], tmp_path / "whole", 6)

    def kill(done: int, total: int, loss: float) -> None:
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        train(saving, checkpoints["llama3"], tmp_path / "cut", 6, on_step=kill)
    states = sorted(path.name for path in (tmp_path / "cut" / "work").glob("checkpoint-*"))
    assert states == ["checkpoint-4"]
    if torn:  # killed while the state was being written: it does not count
        (tmp_path / "cut" / "work" / "checkpoint-4" / "trainer_state.json").unlink()
    steps: list[int] = []
    went_on = train(saving, checkpoints["llama3"], tmp_path / "cut", 6, on_step=lambda done, total, loss: steps.append(done))
    assert steps == ([1, 2, 3, 4, 5, 6] if torn else [5, 6])
    assert went_on.losses == unbroken.losses and len(unbroken.losses) == 6, "the curve has the steps before, too"
    whole, resumed = weights(tmp_path / "whole" / "out"), weights(tmp_path / "cut" / "out")
    assert whole.keys() == resumed.keys() and whole
    for name, tensor in whole.items():
        assert torch.allclose(tensor, resumed[name], atol=1e-7), name


@pytest.mark.parametrize("config", [slow(ROWS), BRANCHES, slow(LORA)], ids=["rows", "branches", "lora"])
@pytest.mark.parametrize("steps", [4, 5])
def test_a_training_killed_after_its_last_step_takes_no_further_one(
    config: SFTConfig, steps: int, checkpoints: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed while its checkpoint is written, in the middle of a pass over the rows."""
    saving = config.model_copy(update={"save_steps": 2})
    whole = train(saving, checkpoints["llama3"], tmp_path / "whole", steps)

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("leap.training.trainer.save_student", kill)
        train(saving, checkpoints["llama3"], tmp_path / "cut", steps)
    assert any((tmp_path / "cut" / "work").glob("checkpoint-*"))
    cut = train(saving, checkpoints["llama3"], tmp_path / "cut", steps)
    assert (cut.steps, cut.loss) == (whole.steps, whole.loss)
    ended, resumed = weights(tmp_path / "whole" / "out"), weights(tmp_path / "cut" / "out")
    assert all(torch.allclose(tensor, resumed[name], atol=1e-7) for name, tensor in ended.items())


def test_rows_too_long_are_left_out_and_counted(checkpoints: dict[str, str], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from leap.models.chat import ChatTokens
    from leap.training.branches import encode_row

    chat = ChatTokens(AutoTokenizer.from_pretrained(checkpoints["llama3"]))
    lengths = sorted(len(r.prompt) + len(r.answer) for r in (encode_row(row, chat) for row in some_rows()))
    for name, config in (("rows", ROWS), ("branches", BRANCHES)):
        cut = config.model_copy(update={"max_tokens": lengths[5]})
        too_long = sum(length > lengths[5] for length in lengths)
        assert too_long and train(cut, checkpoints["llama3"], tmp_path / name, 1).too_long == too_long


@pytest.mark.parametrize("config", [ROWS, BRANCHES], ids=["rows", "branches"])
def test_rows_that_are_all_too_long_are_refused(config: SFTConfig, checkpoints: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none of the 9 rows has at most training\.max_tokens: 64 tokens"):
        train(config.model_copy(update={"max_tokens": 64}), checkpoints["llama3"], tmp_path, 1)
    with pytest.raises(RunError, match="there is no row to train on"):
        train(config, checkpoints["llama3"], tmp_path, 1, rows=[])


@pytest.mark.parametrize("config", [ROWS, BRANCHES, LORA], ids=["rows", "branches", "lora"])
@pytest.mark.parametrize("lr", [1e8, slow(1e30)])
def test_a_training_that_diverges_stops_and_keeps_the_last_good_state(
    config: SFTConfig, lr: float, checkpoints: dict[str, str], tmp_path: Path
) -> None:
    config = config.model_copy(
        update={"lr": lr, "muon_lr": lr, "max_grad_norm": 1e9, "save_steps": 1, "warmup_steps": 2}
    )
    shown: list[float] = []
    with pytest.raises(RunError, match=r"diverged at step \d+: .*lower training\.lr") as told:
        train(config, checkpoints["llama3"], tmp_path, 6, on_step=lambda done, total, loss: shown.append(loss))
    assert all(map(math.isfinite, shown)) and "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()
    for state in (tmp_path / "work").glob("checkpoint-*"):
        assert all(bool(one.isfinite().all()) for one in weights(state).values())


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_a_last_step_that_ruins_the_weights_leaves_no_checkpoint(
    value: float, checkpoints: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loss is that of the weights before."""
    step = torch.optim.AdamW.step

    def ruined(self: Any, *args: Any, **kwargs: Any) -> None:
        step(self, *args, **kwargs)
        heads = [one for group in self.param_groups for one in group["params"] if len(one) > 300]
        heads[-1].data.fill_(value)

    monkeypatch.setattr(torch.optim.AdamW, "step", ruined)
    with pytest.raises(RunError, match="diverged at step 1: the weights that it leaves"):
        train(ROWS, checkpoints["llama3"], tmp_path, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", slow("emptied"), slow("missing"), "flipped", slow("unmarked")])
def test_a_state_that_is_not_whole_does_not_count(damage: str, checkpoints: dict[str, str], tmp_path: Path) -> None:
    """Every file of the trainer's: a kill while it was written, or a disk that lost some of it."""
    config = ROWS.model_copy(update={"save_steps": 1})

    def kill(done: int, total: int, loss: float) -> None:
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        train(config, checkpoints["llama3"], tmp_path, 3, on_step=kill)
    good = tmp_path / "work" / "checkpoint-2"
    names = sorted(path.name for path in good.iterdir())
    assert {"trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "complete.json"} <= set(names)
    for step, name in enumerate(["complete.json"] if damage == "unmarked" else names, start=3):
        newer = tmp_path / "work" / f"checkpoint-{step}"  # a later one, in which one file is not whole
        shutil.copytree(good, newer)
        file = newer / name
        content = file.read_bytes()
        if damage in ("missing", "unmarked"):
            file.unlink()
        else:
            cut, half = content[:-7], len(content) // 2
            flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
            file.write_bytes({"cut": cut, "emptied": b"", "flipped": flipped}[damage])
    steps: list[int] = []
    train(config, checkpoints["llama3"], tmp_path, 3, on_step=lambda done, total, loss: steps.append(done))
    assert steps == [3], "from the state before, which is whole"


def test_the_state_before_goes_only_when_the_next_is_complete(
    checkpoints: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import TrainerState

    write = TrainerState.save_to_json

    def kill(self: Any, path: str) -> None:
        if "checkpoint-4" in path:
            Path(path).write_text('{"best_glo')
            raise Killed
        write(self, path)

    monkeypatch.setattr(TrainerState, "save_to_json", kill)
    saving = ROWS.model_copy(update={"save_steps": 2})
    with pytest.raises(Killed):
        train(saving, checkpoints["llama3"], tmp_path, 6)
    monkeypatch.undo()
    steps: list[int] = []
    train(saving, checkpoints["llama3"], tmp_path, 6, on_step=lambda done, total, loss: steps.append(done))
    assert steps == [3, 4, 5, 6]


@pytest.mark.parametrize("save_steps", [0, 1], ids=["checkpoint", "state"])
def test_a_disk_that_takes_no_more_is_said_in_one_line(
    save_steps: int, checkpoints: dict[str, str], tmp_path: Path
) -> None:
    """Here a limit on the size of a file: safetensors says so in words, torch not at all."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, usual[1]))
    try:
        with pytest.raises(LeapError, match=r"cannot write .*work") as told:
            train(ROWS.model_copy(update={"save_steps": save_steps}), checkpoints["llama3"], tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert "\n" not in str(told.value)
