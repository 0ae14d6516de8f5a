"""What half precision on a CPU computes in fewer passes is what PyTorch and PEFT compute, up to rounding."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from leap.training.half import added_in_place, summed_cross_entropy  # noqa: E402


@pytest.mark.parametrize("count", [1, 63, 64, 200])
def test_the_loss_and_its_gradient_are_pytorch_s(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    logits = (4 * torch.randn(count, 301, generator=generator)).bfloat16().requires_grad_()
    labels = torch.randint(0, 301, (count,), generator=generator)
    wide = logits.detach().float().requires_grad_()
    expected = torch.nn.functional.cross_entropy(wide, labels, reduction="sum")
    (expected / 7).backward()
    loss = summed_cross_entropy(logits, labels)
    (loss / 7).backward()
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(logits.grad.float(), wide.grad, rtol=1e-2, atol=1e-5)


def test_no_label_is_no_loss() -> None:
    logits = torch.zeros(0, 5, dtype=torch.bfloat16, requires_grad=True)
    summed_cross_entropy(logits, torch.zeros(0, dtype=torch.long)).backward()
    assert logits.grad.shape == (0, 5)


def adapted(dtype: Any, dropout: float = 0.0) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(24, 40, bias=False), torch.nn.Tanh(), torch.nn.Linear(40, 8)).to(dtype)
    settings = LoraConfig(r=4, lora_alpha=12, lora_dropout=dropout, target_modules=["0", "2"])
    model = get_peft_model(layers, settings, autocast_adapter_dtype=True)
    for name, weights in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weights, std=0.3)
    return model


def computed(model: Any, x: Any) -> list[Any]:
    model.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    out.float().square().sum().backward()
    return [out.detach(), x.grad, *(weights.grad for weights in model.parameters() if weights.requires_grad)]


def test_adapters_are_added_as_peft_adds_them() -> None:
    model = adapted(torch.bfloat16)
    x = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = computed(model, x)
    with added_in_place(model):
        variants = [layer.lora_variant for layer in model.modules() if hasattr(layer, "lora_variant")]
        assert [len(one) for one in variants] == [1, 1]
        ours = computed(model, x)
    assert [len(one) for one in variants] == [0, 0]
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert float((one - other).float().norm() / other.float().norm()) < 0.02
    assert all(torch.equal(one, other) for one, other in zip(computed(model, x), expected, strict=True))


def test_other_adapters_stay_peft_s() -> None:
    """Those of float32, and those with dropout."""
    for model in (adapted(torch.float32), adapted(torch.bfloat16, dropout=0.5)):
        with added_in_place(model):
            assert not any(layer.lora_variant for layer in model.modules() if hasattr(layer, "lora_variant"))
