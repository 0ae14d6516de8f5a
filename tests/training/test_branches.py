"""Trunk and branches: packed episodes are the separate rows, token by token, and in loss and gradients."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from leap.training.branches import ATTENTION, IGNORED, PackedEpisode, TokenRow, collate, cut, pack, packed  # noqa: E402
from leap.training.half import BlockAttention  # noqa: E402

tokens = st.integers(0, 30)


@st.composite
def episodes(draw: st.DrawFn) -> list[TokenRow]:
    """Rows that share prefixes of one growing text, or next to nothing, in any order."""
    base = draw(st.lists(tokens, min_size=1, max_size=25))
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        shared = base[: draw(st.integers(0, len(base)))]
        own = draw(st.lists(tokens, min_size=0 if shared else 1, max_size=6))
        rows.append(TokenRow(shared + own, draw(st.lists(tokens, min_size=1, max_size=5))))
    return rows


@settings(max_examples=300, deadline=None)
@given(episodes())
@pytest.mark.slow
def test_every_row_can_be_read_back_from_the_packed_episode(rows: list[TokenRow]) -> None:
    packed = pack(rows)
    mask = packed.sees(slice(None), torch.arange(len(packed.ids)))
    for k, row in enumerate(rows, start=1):
        own = (packed.branch == k).nonzero().squeeze(1)
        seen = mask[own[-1]].nonzero().squeeze(1)  # what the row's last token sees, itself included
        assert packed.ids[seen].tolist() == row.prompt + row.answer
        assert packed.positions[seen].tolist() == list(range(len(row.prompt) + len(row.answer)))
        assert packed.labels[seen].tolist() == [IGNORED] * len(row.prompt) + row.answer
        for position, token in enumerate(seen.tolist()):
            assert mask[token].nonzero().squeeze(1).tolist() == seen[: position + 1].tolist()
        assert len(own) > len(row.answer)  # the token that predicts the answer's first is the branch's own
    assert packed.answer_tokens == sum(len(row.answer) for row in rows)
    assert (packed.labels[packed.branch == 0] == IGNORED).all()


@settings(max_examples=100, deadline=None)
@given(episodes())
def test_packing_never_costs_more_than_separate_rows(rows: list[TokenRow]) -> None:
    assert len(pack(rows).ids) <= sum(len(row.prompt) + len(row.answer) for row in rows)


@settings(max_examples=100, deadline=None)
@given(episodes(), st.integers(1, 60))
def test_a_long_episode_comes_in_parts_that_hold_all_its_rows(rows: list[TokenRow], most: int) -> None:
    parts = packed(rows, most)
    assert sum(part.answer_tokens for part in parts) == sum(len(row.answer) for row in rows)
    read = []
    for part in parts:
        mask = part.sees(slice(None), torch.arange(len(part.ids)))
        count = int(part.branch.max())
        assert len(part.ids) <= most or count == 1
        last = [(part.branch == k).nonzero()[-1] for k in range(1, count + 1)]
        read += [part.ids[mask[at[0]]].tolist() for at in last]
    assert read == [row.prompt + row.answer for row in rows]
    assert len(parts) == 1 or len(pack(rows).ids) > most
    assert len(packed(rows)) == 1


def tiny_model(kv_heads: int, attention: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=31,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).double()
    model.set_attn_implementation(attention)
    return model


def random_rows(seed: int, steps: int) -> list[TokenRow]:
    generator = torch.Generator().manual_seed(seed)

    def some(n: int) -> list[int]:
        return torch.randint(0, 31, (n,), generator=generator).tolist()

    trunk = some(30 * steps)
    return [TokenRow(trunk[: 30 * (t + 1)] + some(7 + t), some(3 + t)) for t in range(steps)]


def separate(model: Any, rows: list[TokenRow]) -> Any:
    """Mean loss per answer token over rows computed one by one."""
    total, count = 0.0, 0
    for row in rows:
        ids = torch.tensor([row.prompt + row.answer])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(row.prompt) - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(row.answer), reduction="sum")
        count += len(row.answer)
    return total / count


def together(model: Any, packed: list[PackedEpisode]) -> Any:
    """The loss as the trainer computes it."""
    return loss_of(model, collate(packed))


def loss_of(model: Any, batch: Any, count: Any = None) -> Any:
    from leap.training.sft import BranchTrainer

    trainer: Any = SimpleNamespace(args=SimpleNamespace(bf16=False))
    return BranchTrainer.compute_loss(trainer, model, batch, num_items_in_batch=count)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("sizes", [[1], [6], [5, 1, 3]], ids=str)
def test_loss_and_gradients_are_those_of_the_separate_rows(kv_heads: int, sizes: list[int]) -> None:
    rows = [random_rows(seed, steps) for seed, steps in enumerate(sizes)]
    plain, branched = tiny_model(kv_heads, "sdpa"), tiny_model(kv_heads, ATTENTION)
    expected = separate(plain, [row for group in rows for row in group])
    got = together(branched, [pack(group) for group in rows])
    expected.backward()
    got.backward()
    # The trainer takes its logits in float32, so agreement is to float32.
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)
    for (name, one), two in zip(plain.named_parameters(), branched.parameters(), strict=True):
        assert two.grad is not None and one.grad is not None
        assert torch.allclose(one.grad, two.grad, rtol=1e-4, atol=1e-7 + 1e-5 * float(one.grad.abs().max())), name


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_the_attention_in_half_precision_is_that_of_pytorch(kv_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block by block, by plain products of matrices; trunks longer and shorter than a block. In float64 but for the softmax, then
    in bfloat16 as it is used."""
    from leap.training import branches

    layout = collate([pack(random_rows(seed, steps)) for seed, steps in enumerate((11, 1, 5))])["layout"]
    n = sum(layout.lengths())
    assert max(trunk for trunk, _ in layout.episodes) > 2 * branches._GROUP_TOKENS
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 4, n, 8), (1, kv_heads, n, 8), (1, kv_heads, n, 8), (1, n, 4, 8)]
    query, key, value, upstream = (torch.randn(shape, generator=generator).double() for shape in shapes)

    def attended(dtype: Any, attend: Any) -> list[Any]:
        tensors = [x.to(dtype).requires_grad_() for x in (query, key, value)]
        out = attend(*tensors)
        return [out.detach(), *torch.autograd.grad(out, tensors, upstream.to(dtype))]

    def registered(*tensors: Any) -> Any:
        placed = layout.placed(tensors[0].device, tensors[0].dtype)
        return branches.branch_attention(torch.nn.Module(), *tensors, None, layout=placed)[0]

    expected = attended(torch.float64, registered)
    by_blocks = attended(torch.float64, lambda *tensors: BlockAttention.apply(*tensors, layout.blocks, 8**-0.5))
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", None)  # not to be asked in bfloat16
    narrow = attended(torch.bfloat16, registered)
    for one, two, three in zip(expected, by_blocks, narrow, strict=True):
        assert torch.allclose(one, two, rtol=1e-5, atol=1e-5 * float(one.abs().max()))
        assert float((one - three.double()).norm() / one.norm()) < 0.01


def test_a_batch_in_pieces_has_the_gradient_of_the_whole() -> None:
    packed = [pack(random_rows(seed, steps)) for seed, steps in enumerate((5, 1, 3, 2))]
    lengths = [len(one.ids) for one in packed]
    batch, whole, summed = collate(packed), tiny_model(2, ATTENTION), tiny_model(2, ATTENTION)
    assert batch["layout"].lengths() == lengths
    pieces = list(cut(batch, lengths[1] + lengths[2]))
    assert [piece["layout"].lengths() for piece in pieces] == [lengths[:1], lengths[1:3], lengths[3:]]
    for name in ("input_ids", "position_ids", "labels"):
        assert torch.equal(torch.cat([piece[name] for piece in pieces], dim=1), batch[name])
    expected = together(whole, packed)
    expected.backward()
    total = 0.0
    for piece in pieces:
        loss = loss_of(summed, piece, (batch["labels"] != IGNORED).sum())
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(expected.item(), rel=1e-6)
    for one, two in zip(whole.parameters(), summed.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=1e-4, atol=1e-5 * float(one.grad.abs().max()))


def test_in_bfloat16_the_loss_is_that_of_the_separate_rows() -> None:
    rows = [random_rows(seed, steps) for seed, steps in enumerate([6, 1, 9])]
    plain, branched = tiny_model(2, "sdpa").bfloat16(), tiny_model(2, ATTENTION).bfloat16()
    expected = separate(plain, [row for group in rows for row in group])
    got = together(branched, [pack(group) for group in rows])
    got.backward()
    assert got.item() == pytest.approx(expected.item(), rel=1e-2)
    assert all(one.grad is not None and one.grad.abs().max() > 0 for one in branched.parameters())


def test_a_wrong_mask_would_be_noticed() -> None:
    """The comparison above has teeth: let a branch see another's tokens, and the loss is another."""
    rows = random_rows(0, 4)
    packed = pack(rows)
    leaky = PackedEpisode(packed.ids, packed.positions, packed.labels, packed.limit, packed.branch.clamp(max=1))
    model = tiny_model(2, ATTENTION)
    assert abs((together(model, [leaky]) - together(model, [packed])).item()) > 1e-3


def test_the_attention_says_what_it_misses() -> None:
    model = tiny_model(4, ATTENTION)
    with pytest.raises(ValueError, match="layout"):
        model(input_ids=torch.tensor([[1, 2]]))


def test_checkpoints_leave_no_trace_of_the_attention(tmp_path: Path) -> None:
    model = tiny_model(4, ATTENTION)
    model.set_attn_implementation("sdpa")
    model.save_pretrained(tmp_path)
    assert ATTENTION not in (tmp_path / "config.json").read_text()
