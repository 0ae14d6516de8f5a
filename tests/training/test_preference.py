"""DPO and KTO on tiny checkpoints: the reference is pi_{i-1} exactly, corrections gain on what the student did."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import slow
from pairs import ADAPTER, BOTH, DPO, KTO, LORA, some_pairs, train, watched, weights

from leap.errors import RunError
from leap.testing.checkpoints import tiny_checkpoint

torch = pytest.importorskip("torch")

from leap.training.config import LoraConfig  # noqa: E402


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Checkpoints to start from: whole models, and an adapter that has learned something."""
    folder = tmp_path_factory.mktemp("start")
    made = {style: str(tiny_checkpoint(folder / style, style)) for style in ("llama3", "scratch")}
    for name, targets in (("adapter", ADAPTER.targets), ("embeddings", ["q_proj", "embed_tokens"])):
        adapter = ADAPTER.model_copy(update={"targets": targets})
        train(LORA.model_copy(update={"lora": adapter}), made["llama3"], folder / name, steps=4, preferences=None)
        made[name] = str(folder / name / "out")
    return made


def config_of(method: str, start: str, **more: Any) -> Any:
    config = {"dpo": DPO, "kto": KTO}[method]
    adapted = {"adapter": ADAPTER, "fresh": ADAPTER, "embeddings": LoraConfig(rank=4)}
    changes: dict[str, Any] = {"lora": adapted.get(start)}
    if start == "scratch":
        changes["optimizer"] = "muon"
    return config.model_copy(update=changes | more)


def trainer_of(method: str) -> Any:
    from leap.training.preference import TokenizedDPOTrainer, TokenizedKTOTrainer

    return {"dpo": TokenizedDPOTrainer, "kto": TokenizedKTOTrainer}[method]


STARTS = ("llama3", "scratch", "fresh", "adapter", "embeddings")


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_before_the_first_step_the_policy_is_its_reference(
    method: str, start: str, starts: dict[str, str], tmp_path: Path
) -> None:
    """The loss is log 2 (KTO: 1/2) and no answer has a reward, as only where both give every answer the same likelihood;
    after the step that is over."""
    with watched(trainer_of(method)) as seen:
        config = config_of(method, start, steps=2)
        train(config, starts.get(start, starts["llama3"]), tmp_path)
    first = config.batch_rows // config.device_rows
    assert seen.losses[:first] == pytest.approx([math.log(2) if method == "dpo" else 0.5] * first, abs=1e-7)
    assert seen.rewards[:first] == [0.0] * first
    assert max(seen.rewards[first:]) > 1e-4


@pytest.mark.parametrize("start", [slow("llama3"), "scratch", "adapter"])
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_corrections_gain_on_what_the_student_did(method: str, start: str, starts: dict[str, str], tmp_path: Path) -> None:
    began = starts.get(start, starts["llama3"])
    losses: list[float] = []
    result = train(
        config_of(method, start, steps=12), began, tmp_path, on_step=lambda done, total, loss: losses.append(loss)
    )
    assert (result.steps, result.rows, result.too_long, len(losses)) == (12, 9, 0, 12)
    assert result.rewards["margins"] > 0.2 and losses[-1] < losses[0] - 0.05
    assert margin(tmp_path / "out") > margin(Path(began)) + 1
    kept = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir() or path.suffix == ".bin")
    assert not kept, "no reference and no pickle in the checkpoint"


def test_with_an_sft_term_corrections_gain_by_themselves_too(starts: dict[str, str], tmp_path: Path) -> None:
    """DPO alone may lower the likelihood of both answers as long as the difference grows."""
    for weight in (0.0, 2.0):
        config = config_of("dpo", "llama3", steps=8, sft_weight=weight)
        with watched(trainer_of("dpo")) as seen:
            train(config, starts["llama3"], tmp_path / str(weight))
        chosen = mean_likelihood(Path(starts["llama3"]), "chosen", per_token=True)
        first = sum(seen.losses[:2]) / 2  # the first step's two pieces; the policy is still the reference
        assert first == pytest.approx(math.log(2) - weight * chosen, rel=0.1)
    without, with_term = (mean_likelihood(tmp_path / weight / "out", "chosen") for weight in ("0.0", "2.0"))
    assert with_term > without + 1
    assert margin(tmp_path / "2.0" / "out") > margin(Path(starts["llama3"])) + 1


def margin(checkpoint: Path) -> float:
    """Mean over the pairs of log pi(chosen) - log pi(rejected)."""
    return mean_likelihood(checkpoint, "chosen") - mean_likelihood(checkpoint, "rejected")


def mean_likelihood(checkpoint: Path, side: str, *, per_token: bool = False) -> float:
    """Mean over the pairs of the log likelihood of one answer, or over its tokens."""
    from leap.models.chat import ChatTokens
    from leap.models.checkpoints import load_causal_lm
    from leap.training.preference import encode_pair

    model, tokenizer = load_causal_lm(str(checkpoint), device="cpu")
    model.eval()
    chat, total, tokens = ChatTokens(tokenizer), 0.0, 0
    for pair in (encode_pair(pair, chat) for pair in some_pairs()):
        ids = getattr(pair, side)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([pair.prompt + ids])).logits[0, len(pair.prompt) - 1 : -1]
        total -= torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum").item()
        tokens += len(ids)
    return total / (tokens if per_token else len(some_pairs()))


def test_a_step_does_not_depend_on_how_it_is_cut(starts: dict[str, str], tmp_path: Path) -> None:
    for rows in (1, 4):
        train(config_of("dpo", "llama3", steps=2, device_rows=rows), starts["llama3"], tmp_path / str(rows))
    one, four = weights(tmp_path / "1" / "out"), weights(tmp_path / "4" / "out")
    assert all(torch.allclose(one[name], four[name], atol=2e-4) for name in one)


class Killed(BaseException):
    """Ends a training as a kill would."""


@pytest.mark.parametrize("case", [*map(slow, ["dpo llama3", "kto llama3", "dpo adapter", "kto adapter"]), "dpo scratch"])
def test_an_interrupted_training_ends_in_the_same_weights(case: str, starts: dict[str, str], tmp_path: Path) -> None:
    method, start = case.split()
    config = config_of(method, start, steps=6, save_steps=2)
    train(config, starts[start], tmp_path / "whole")

    def kill(done: int, total: int, loss: float) -> None:
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        train(config, starts[start], tmp_path / "cut", on_step=kill)
    steps: list[int] = []
    train(config, starts[start], tmp_path / "cut", on_step=lambda done, total, loss: steps.append(done))
    assert steps == [5, 6]
    whole, resumed = weights(tmp_path / "whole" / "out"), weights(tmp_path / "cut" / "out")
    assert whole.keys() == resumed.keys() and whole
    assert all(torch.allclose(whole[name], resumed[name], atol=1e-6) for name in whole)


@pytest.mark.parametrize("lr", [1e8, slow(1e30)])
@pytest.mark.parametrize("case", ["dpo llama3", "kto llama3", "dpo adapter", "kto fresh", "dpo scratch"])
def test_a_preference_tuning_that_diverges_stops_at_every_start(
    case: str, lr: float, starts: dict[str, str], tmp_path: Path
) -> None:
    """Also where it goes on from the last good state, which stays."""
    method, start = case.split()
    more = {"lr": lr, "muon_lr": lr, "max_grad_norm": 1e9, "save_steps": 1, "warmup_steps": 2, "steps": 6}
    config, shown, told = config_of(method, start, **more), list[float](), list[str]()
    for _ in range(2):
        with pytest.raises(RunError, match=r"diverged at step \d+: .*lower training\.lr") as caught:
            train(config, starts.get(start, starts["llama3"]), tmp_path, on_step=lambda done, total, loss: shown.append(loss))
        told.append(str(caught.value))
        states = list((tmp_path / "work").glob("checkpoint-*"))
        assert all(bool(one.isfinite().all()) for state in states for one in weights(state).values())
    assert told[0] == told[1] and "\n" not in told[0] and all(map(math.isfinite, shown))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", [slow(1), 2])
def test_of_two_parts_the_finished_one_is_not_done_again(part: int, starts: dict[str, str], tmp_path: Path) -> None:
    config = BOTH.model_copy(update={"steps": 3, "sft": BOTH.sft.model_copy(update={"steps": 2})})
    whole = train(config, starts["llama3"], tmp_path / "whole")
    assert (whole.steps, whole.rows, whole.first.steps, whole.first.rows) == (3, 9, 2, 9)
    totals: list[int] = []

    def kill(done: int, total: int, loss: float) -> None:
        totals.append(total)
        if len(set(totals)) == part:
            raise Killed

    with pytest.raises(Killed):
        train(config, starts["llama3"], tmp_path / "cut", on_step=kill)
    steps: list[tuple[int, int]] = []
    again = train(
        config, starts["llama3"], tmp_path / "cut", on_step=lambda done, total, loss: steps.append((done, total))
    )
    assert again.first.steps == 2 and steps == [*([(1, 2), (2, 2)] if part == 1 else []), (1, 3), (2, 3), (3, 3)]
    assert all(
        torch.allclose(tensor, weights(tmp_path / "cut" / "out")[name], atol=1e-6)
        for name, tensor in weights(tmp_path / "whole" / "out").items()
    )


def test_after_sft_the_reference_is_what_sft_left(starts: dict[str, str], tmp_path: Path) -> None:
    config = BOTH.model_copy(update={"steps": 1, "sft": BOTH.sft.model_copy(update={"steps": 3})})
    with watched(trainer_of("dpo")) as seen:
        train(config, starts["llama3"], tmp_path)
    assert seen.losses == pytest.approx([math.log(2)] * 2, abs=1e-7) and seen.rewards == [0.0, 0.0]


def test_pi_0_is_cloned_by_sft(starts: dict[str, str], tmp_path: Path) -> None:
    config = DPO.model_copy(update={"sft": LORA})
    result = train(config, starts["llama3"], tmp_path, preferences=None, steps=2)
    assert (result.steps, result.rows, result.rewards) == (2, 9, {})
    assert all("lora_" in name for name in weights(tmp_path / "out"))


def test_without_a_pair_the_policy_stays(starts: dict[str, str], tmp_path: Path) -> None:
    result = train(DPO, starts["llama3"], tmp_path, preferences=[])
    before = weights(Path(starts["llama3"]))
    assert (result.steps, result.rows) == (0, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(tmp_path / "out").items())


def test_pairs_too_long_are_left_out_and_counted(starts: dict[str, str], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from leap.models.chat import ChatTokens
    from leap.training.preference import encode_pair

    chat = ChatTokens(AutoTokenizer.from_pretrained(starts["llama3"]))
    encoded = [encode_pair(pair, chat) for pair in some_pairs()]
    lengths = sorted(len(p.prompt) + max(len(p.chosen), len(p.rejected)) for p in encoded)
    result = train(DPO.model_copy(update={"max_tokens": lengths[5], "steps": 1}), starts["llama3"], tmp_path)
    assert result.too_long == sum(length > lengths[5] for length in lengths) > 0
    with pytest.raises(RunError, match="max_tokens"):
        train(DPO.model_copy(update={"max_tokens": 64}), starts["llama3"], tmp_path)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(2, 6), st.integers(0, 99))
def test_kto_takes_all_halves_in_turn_and_sets_answers_against_other_prompts(
    pairs: int, steps: int, size: int, seed: int
) -> None:
    from leap.training.preference import kto_order

    rows = steps * size
    order = kto_order(pairs, rows, device_rows=size, seed=seed)
    assert len(order) == rows
    for start in range(0, rows - 2 * pairs + 1, 2 * pairs):
        assert sorted(half for half, _ in order[start : start + 2 * pairs]) == list(range(2 * pairs))
    for start in range(0, rows, size):
        batch = order[start : start + size]
        halves = [half for half, _ in batch]
        others = [other for _, other in batch]
        assert sorted(others) == sorted(halves)  # the same answers, to other prompts
        shifts = [[halves[k - shift] for k in range(size)] for shift in range(1, size)]
        clashes = [sum(a // 2 == b // 2 for a, b in zip(halves, turned, strict=True)) for turned in shifts]
        assert sum(a // 2 == b // 2 for a, b in batch) == min(clashes)
