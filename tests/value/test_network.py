"""The value network: a step's actions in one pass are the actions one by one, and it learns what actions come to."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from histories import CHOICES, a_history
from pydantic import ValidationError

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from leap.core import Decision  # noqa: E402
from leap.models.chat import ChatTokens  # noqa: E402
from leap.policies.rendering import PromptConfig, Renderer  # noqa: E402
from leap.testing.checkpoints import tiny_checkpoint  # noqa: E402
from leap.training.branches import TokenRow, pack  # noqa: E402
from leap.training.config import LoraConfig, SFTConfig  # noqa: E402
from leap.training.method import Job  # noqa: E402
from leap.value.config import ValueConfig, ValueTrainingConfig  # noqa: E402
from leap.value.network import Judged, ValueModel, ValueTraining, choice_loss, encode, judged  # noqa: E402

SETTINGS = ValueTrainingConfig(
    branches=True, optimizer="muon", lr=0.005, muon_lr=0.02, max_grad_norm=1.0, steps=60, batch_tokens=2000
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "chatml")


def step(renderer: str, steps: int, name: str = "a") -> Judged:
    decisions = [Decision(reason="", action=action) for action in CHOICES]
    return judged(a_history(name, steps), decisions, Renderer(PromptConfig(renderer=renderer)), episode=name)  # type: ignore[arg-type]


@pytest.mark.parametrize("renderer", ["paper", "dialogue"])
def test_actions_in_one_pass_are_the_actions_one_by_one(start: Path, renderer: str) -> None:
    model = ValueModel(str(start), dtype="float32")
    for steps in (0, 3):
        whole = step(renderer, steps)
        alone = [model.scores(replace(whole, answers=[answer]))[0] for answer in whole.answers]
        assert model.scores(whole) == pytest.approx(alone, abs=1e-5) and len({round(one, 6) for one in alone}) == len(
            CHOICES
        )
        plain = []
        for row in encode(whole, model.chat):  # without trunk and branches at all
            model._model.set_attn_implementation("eager")
            with torch.no_grad():
                logits = model._model(input_ids=torch.tensor([row.prompt + row.answer])).logits[0, -1]
            plain.append(float(logits[model.chat.end_of_turn].sigmoid()))
        model._model.set_attn_implementation("leap_branches")
        assert plain == pytest.approx(alone, abs=1e-5)


def test_the_actions_of_a_step_share_one_trunk(start: Path) -> None:
    rows: list[TokenRow] = [*encode(step("dialogue", 3), ValueModel(str(start)).chat)]
    assert len(pack(rows).ids) == len(rows[0].prompt) - 1 + sum(1 + len(row.answer) for row in rows)


def steps_to_learn(seed: int, n: int) -> list[Judged]:
    """Going somewhere succeeds in 4 of 5 tries, anything else in 1 of 5."""
    draw, found = random.Random(seed), []
    for k in range(n):
        one = step("dialogue", draw.randrange(3), f"{seed}{k}")
        worth = [float(draw.random() < (0.8 if choice.startswith("go to") else 0.2)) for choice in CHOICES]
        found.append(replace(one, values=worth))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("compare", [0.0, 1.0])
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=8, alpha=16, dropout=0.0, targets="all-linear")])
def test_it_learns_what_actions_come_to(
    start: Path, tmp_path: Path, lora: LoraConfig | None, compare: float
) -> None:
    settings = SETTINGS.model_copy(update={"lora": lora, "compare": compare})
    if lora:
        settings = settings.model_copy(update={"optimizer": "adamw", "lr": 0.01})
    out = tmp_path / "out"
    out.mkdir()
    rows = steps_to_learn(0, 60)
    result = ValueTraining(settings).train(rows, Job(1, str(start), out, tmp_path / "work", 0))
    assert result.rows == 60 * len(CHOICES) and result.loss < 0.65 + 3 * compare and result.too_long == 0
    assert not [path for path in out.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
    model = ValueModel(str(out))
    for one in steps_to_learn(1, 3):
        scores = dict(zip(CHOICES, model.scores(one), strict=True))
        going = [score for choice, score in scores.items() if choice.startswith("go to")]
        others = [score for choice, score in scores.items() if not choice.startswith("go to")]
        assert min(going) > 0.6 and max(others) < 0.4
    assert isinstance(model.chat, ChatTokens)


def test_the_choice_loss_compares_the_actions_of_a_step_alone() -> None:
    steps = torch.tensor([0, 1, 0, 1, 2, 3, 3])
    values = torch.tensor([0.9, 0.01, 0.1, 0.03, 0.7, 0.0, 0.0])
    logits = torch.tensor([1.0, -4.0, -1.0, -3.0, 5.0, 0.3, 0.1], requires_grad=True)
    loss = choice_loss(logits, values, steps)
    said = logits.detach().sigmoid()
    by_hand = [
        -sum(float(values[k] / values[pair].sum() * (said[k] / said[pair].sum()).log()) for k in pair)
        for pair in ([0, 2], [1, 3])  # a step of one action, and one where all are worth nothing, do not count
    ]
    assert loss.item() == pytest.approx(sum(by_hand) / 2, abs=1e-5)
    assert choice_loss(logits, values / 100, steps).item() == pytest.approx(loss.item(), abs=1e-5)
    (slope,) = torch.autograd.grad(loss, logits)
    assert slope[4:].tolist() == [0, 0, 0] and all(slope[:4] != 0)
    right = values.clamp(min=1e-6, max=1 - 1e-6).logit().requires_grad_()
    (slope,) = torch.autograd.grad(choice_loss(right, values, steps), right)
    assert slope.abs().max() < 1e-5  # the labels themselves are its minimum
    assert choice_loss(logits[5:], values[5:], steps[5:] - 3).item() == 0


def test_a_value_network_reads_reasons_where_it_is_to(start: Path) -> None:
    history, renderer = a_history("a", 2), Renderer(PromptConfig(renderer="dialogue"))
    one, other = (Decision(reason=reason, action=CHOICES[0]) for reason in ("Left.", "Right."))
    model = ValueModel(str(start), dtype="float32")
    told = model.scores(judged(history, [one, other], renderer, reasons=True))
    assert told[0] != told[1]
    blind = model.scores(judged(history, [one, other], renderer))
    assert blind[0] == pytest.approx(blind[1], abs=1e-6)


def test_the_weight_of_the_choice_has_one_key() -> None:
    """Under `value.training` it would be overruled in silence."""
    config = ValueConfig(compare=0.5, training={"lr": 0.002})
    made = config.settings(SFTConfig(lr=0.001))
    assert (made.compare, made.lr, made.branches, made.epochs) == (0.5, 0.002, True, 3.0)
    with pytest.raises(ValidationError, match="compare"):
        ValueConfig(training={"compare": 1.0}).settings(SFTConfig())
