"""Distillation from a privileged teacher: its loss against TRL's and against SFT's, what a student's branch sees, its trainer."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import SMALL, lessons, some_rows, weights
from pydantic import ValidationError

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from leap.datasets import Taught  # noqa: E402
from leap.errors import RecipeError  # noqa: E402
from leap.recipe import Recipe  # noqa: E402
from leap.testing.checkpoints import tiny_checkpoint  # noqa: E402
from leap.training import diagnostics, distilling  # noqa: E402
from leap.training.branches import ATTENTION, TokenRow, pack, parted  # noqa: E402
from leap.training.config import DistillConfig  # noqa: E402
from leap.training.diagnostics import alike, figures, kinds_of, shares  # noqa: E402
from leap.training.distill import Distill  # noqa: E402
from leap.training.distilling import (  # noqa: E402
    DistillTrainer,
    OwnTeacher,
    TaughtEpisode,
    TaughtRow,
    divergence,
    packed_rows,
    passes_of,
)
from leap.training.method import Job, quiet  # noqa: E402

tokens = st.integers(0, 30)


# ---- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top_k", [None, 5, 40])
@pytest.mark.parametrize("kind", ["forward", "reverse", "jsd"])
def test_values_and_gradients_are_those_of_trl(kind: str, top_k: int | None) -> None:
    from trl.experimental.sdft import loss_utils as trl

    torch.manual_seed(0)
    student, teacher = (torch.randn(50, 40) * 3 for _ in range(2))
    student.requires_grad_()
    alpha = {"forward": 0.0, "reverse": 1.0, "jsd": 0.3}[kind]
    theirs = student.detach().clone().requires_grad_()
    if top_k is None or top_k == 40:
        expected = trl.compute_full_logit_self_distillation_loss(theirs, teacher, distillation_alpha=alpha)
    else:  # theirs takes its first argument's likeliest: of forward KL ours are the teacher's
        pair = (teacher, theirs) if kind == "forward" else (theirs, teacher)
        how = {"distillation_topk": top_k, "distillation_add_tail": True}
        flipped = 1.0 - alpha if kind == "forward" else alpha
        expected = trl.compute_topk_self_distillation_loss(*pair, distillation_alpha=flipped, **how)
    got = divergence(student, teacher, kind, alpha=0.3, top_k=top_k)
    assert torch.allclose(got, expected, atol=1e-5) and got.min() > 0.01
    got.sum().backward()
    expected.sum().backward()
    assert torch.allclose(student.grad, theirs.grad, atol=1e-5) and student.grad.abs().max() > 0.02


def test_the_likeliest_tokens_and_the_rest_say_less_than_all(top_k: int = 5) -> None:
    torch.manual_seed(0)
    student, teacher = (torch.randn(50, 40) * 3 for _ in range(2))
    for kind in ("forward", "reverse"):
        assert (divergence(student, teacher, kind) - divergence(student, teacher, kind, top_k=top_k)).min() > 0


def tiny_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=31, initializer_range=0.3, **sizes))


def random_rows(seed: int, steps: int, *, privilege: int = 6) -> list[TaughtRow]:
    """An episode: at each step a correction, cloned and taught, and an own answer, taught; the last step is not taught."""
    generator = torch.Generator().manual_seed(seed)

    def some(n: int) -> list[int]:
        return torch.randint(0, 31, (n,), generator=generator).tolist()

    trunk, rows = some(10 * steps), list[TaughtRow]()
    for t in range(steps):
        prompt = trunk[: 10 * (t + 1)] + some(4)
        told = [*prompt, *some(privilege)] if t < steps - 1 else None
        rows += [TaughtRow(prompt, some(3 + t), told, cloned=True, t=t), TaughtRow(prompt, some(5), told, cloned=False, t=t)]
    return [row for row in rows if row.cloned or row.privileged]


class Loss(DistillTrainer):
    """The loss alone: no Trainer around it, and a teacher of one's own."""

    def __init__(self, config: DistillConfig, model: Any, teacher: Any = None) -> None:
        self.config, self.model, self.together = config, model, config.teacher == "live"
        self.args = SimpleNamespace(bf16=False)  # type: ignore[assignment]
        self.accelerator = SimpleNamespace(unwrap_model=lambda one: one)  # type: ignore[assignment]
        self._teacher, self._other, self._top_k = None, teacher, config.top_k

    def of(self, episodes: list[list[TaughtRow]], most: int | None = None) -> Any:
        self.model.set_attn_implementation(ATTENTION)
        packs = [packed_rows(part, together=self.together) for rows in episodes for part in parted(rows, most)]
        passes = passes_of(packs, self.config, together=self.together, most=most)
        return sum(self.compute_loss(self.model, one) for one in passes)


def gradients(model: Any) -> dict[str, Any]:
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def separately(config: DistillConfig, model: Any, teacher: Any, rows: list[TaughtRow]) -> Any:
    """The loss by its definition, row by row, without any packing."""

    def says(who: Any, row: TokenRow) -> Any:
        return who(input_ids=torch.tensor([row.prompt + row.answer])).logits[0, len(row.prompt) - 1 : -1]

    taught, cloned = [], []
    for row in rows:
        own = says(model, row)
        if row.privileged:
            apart = divergence(own, says(teacher, row.seen).detach(), config.divergence, alpha=config.alpha, top_k=config.top_k)
            apart = apart if config.clip is None else apart.clamp(max=config.clip)
            taught.append(apart.mean()[None] if config.balance == "turns" else apart)
        if row.cloned:
            cloned.append(torch.nn.functional.cross_entropy(own, torch.tensor(row.answer), reduction="none"))
    return config.weight * torch.cat(taught).mean() + config.ce_weight * torch.cat(cloned).mean()


@pytest.mark.parametrize("most", [None, 60], ids=["whole", "in passes"])
@pytest.mark.parametrize(
    "values",
    [
        {"teacher": "live"},
        {"teacher": "live", "divergence": "reverse", "balance": "tokens", "top_k": 7},
        {"divergence": "forward", "weight": 0.5},
        {"divergence": "reverse", "clip": 2.0, "ce_weight": 0.3},
        {"divergence": "jsd", "alpha": 0.2, "balance": "tokens", "top_k": 7},
    ],
    ids=str,
)
def test_trunk_and_branches_are_the_separate_rows(values: dict[str, Any], most: int | None) -> None:
    config = DistillConfig.model_validate({"top_k": None} | values)
    episodes = [random_rows(0, 4), random_rows(1, 2), random_rows(2, 3)]
    model, plain = tiny_model(), tiny_model()
    teacher = None if config.teacher == "live" else tiny_model()
    if teacher is not None:
        for one in teacher.parameters():
            one.data += 0.05 * torch.randn_like(one)
    told = teacher or plain
    expected = separately(config, plain, told, [row for rows in episodes for row in rows])
    if teacher is not None:
        teacher.set_attn_implementation(ATTENTION)
    got = Loss(config, model, teacher).of(episodes, most)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    got.backward()
    expected.backward()
    ours, theirs = gradients(model), gradients(plain)
    assert ours.keys() == theirs.keys()
    for name, one in theirs.items():
        assert torch.allclose(ours[name], one, rtol=1e-3, atol=1e-6 + 1e-5 * float(one.abs().max())), name


@pytest.mark.parametrize("kind", ["forward", "reverse", "jsd"])
def test_a_live_teacher_who_is_told_nothing_teaches_nothing(kind: str) -> None:
    config = DistillConfig.model_validate({"teacher": "live", "divergence": kind, "ce_weight": 0})
    model = tiny_model()
    loss = Loss(config, model).of([random_rows(0, 4, privilege=0)])
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert max(float(one.abs().max()) for one in gradients(model).values()) < 1e-5
    told = Loss(config, model).of([random_rows(0, 4)])
    assert told.item() > 0.1


def test_a_teacher_who_is_sure_of_each_token_is_sft() -> None:
    class Sure(Loss):
        def told(self, batch: Any) -> Any:
            wanted = batch["labels"][batch["labels"] != -100]
            return 1e4 * torch.nn.functional.one_hot(wanted, 31).float()

    rows = [[replace(row, privileged=row.prompt, cloned=True) for row in random_rows(seed, 3)] for seed in (0, 1)]
    sure, sft = tiny_model(), tiny_model()
    got = Sure(DistillConfig(balance="tokens", ce_weight=0), sure).of(rows)
    expected = Loss(DistillConfig(), sft).of([[replace(row, privileged=None) for row in some] for some in rows])
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)
    got.backward()
    expected.backward()
    for name, one in gradients(sft).items():
        assert torch.allclose(gradients(sure)[name], one, rtol=1e-4, atol=1e-7), name


def test_a_gate_lets_through_what_the_teacher_likes_better() -> None:
    model, teacher = tiny_model(), tiny_model()
    teacher.set_attn_implementation(ATTENTION)
    rows = [random_rows(0, 3)]
    plain, gated = (Loss(DistillConfig(gated=on, ce_weight=0), model, teacher).of(rows).item() for on in (False, True))
    assert 0 < gated < plain


def seen_by(teacher: Any, row: TokenRow) -> Any:
    return teacher(input_ids=torch.tensor([row.prompt + row.answer])).logits[0, len(row.prompt) - 1 : -1]


@pytest.mark.parametrize("kind", ["forward", "reverse"])
def test_what_another_tasks_state_does_too_is_not_taught(kind: str) -> None:
    model, teacher = tiny_model(), tiny_model()
    for one in teacher.parameters():
        one.data += 0.05 * torch.randn_like(one)
    rows = [replace(row, cloned=False) for row in random_rows(0, 3) if row.privileged]
    strange = [replace(row, contrast=[*row.prompt, 1, 2, 3]) for row in rows]
    config = DistillConfig.model_validate({"contrast": True, "divergence": kind, "ce_weight": 0, "top_k": None})
    expected = []
    for row in strange:
        own = seen_by(model, row)
        apart, other = (divergence(own, seen_by(teacher, one), kind) for one in (row.seen, row.contrasted))
        expected.append((apart - other).clamp(min=0).mean().item())
    teacher.set_attn_implementation(ATTENTION)
    got = Loss(config, model, teacher).of([strange]).item()
    assert got == pytest.approx(sum(expected) / len(expected), rel=1e-4) and got > 0.01
    same = Loss(config, model, teacher).of([[replace(row, contrast=row.privileged) for row in rows]])
    same.backward()
    assert abs(same.item()) < 1e-6 and max(float(one.abs().max()) for one in gradients(model).values()) < 1e-6


def test_stale_answers_count_by_how_likely_they_have_become() -> None:
    model, teacher = tiny_model(), tiny_model()
    teacher.set_attn_implementation(ATTENTION)
    config = DistillConfig.model_validate({"divergence": "reverse", "ratio": 2.0, "ce_weight": 0, "top_k": None})
    plain = config.model_copy(update={"ratio": None})
    own = [row for row in random_rows(0, 3) if not row.cloned]
    now = [(-torch.nn.functional.cross_entropy(seen_by(model, row), torch.tensor(row.answer), reduction="none")) for row in own]

    def loss(config: DistillConfig, shift: float) -> float:
        rows = [replace(row, was=(one - shift).tolist()) for row, one in zip(own, now, strict=True)]
        return Loss(config, model, teacher).of([rows]).item()

    model.set_attn_implementation(ATTENTION)
    whole = loss(plain, 0)
    assert loss(config, 0) == pytest.approx(whole, rel=1e-4) and whole > 0.01
    assert loss(config, -1) == pytest.approx(whole / math.e, rel=1e-4)
    assert loss(config, 0.5) == pytest.approx(whole * math.exp(0.5), rel=1e-4)
    assert loss(config, 3) == pytest.approx(whole * 2, rel=1e-4)
    corrections = [[row for row in random_rows(0, 3) if row.cloned]]
    assert Loss(config, model, teacher).of(corrections).item() == Loss(plain, model, teacher).of(corrections).item()


# ---- what a branch sees ----------------------------------------------------------------------------------------------


@st.composite
def taught_episodes(draw: st.DrawFn) -> list[TaughtRow]:
    base = draw(st.lists(tokens, min_size=1, max_size=25))
    rows = []
    for _ in range(draw(st.integers(1, 5))):
        prompt = base[: draw(st.integers(1, len(base)))] + draw(st.lists(tokens, max_size=4))
        told = [*prompt, *(100 + token for token in draw(st.lists(tokens, min_size=1, max_size=5)))]
        answer = draw(st.lists(tokens, min_size=1, max_size=5))
        rows.append(TaughtRow(prompt, answer, told if draw(st.booleans()) else None))
    return rows


@settings(max_examples=200, deadline=None)
@given(taught_episodes())
def test_no_branch_of_the_student_sees_a_privileged_token(rows: list[TaughtRow]) -> None:
    """Privileged tokens are those from 100 on; the longest prompt, of which the trunk is made, is mostly a teacher's."""
    packed = packed_rows(rows, together=True)
    assert isinstance(packed, TaughtEpisode)
    mask = packed.sees(slice(None), torch.arange(len(packed.ids)))
    for k, row in enumerate(rows, start=1):
        own = (packed.branch == k).nonzero().squeeze(1)
        assert (packed.ids[own] < 100).all()
        for at in own.tolist():
            assert (packed.ids[mask[at]] < 100).all()
        assert packed.ids[mask[own[-1]]].tolist() == row.prompt + row.answer
    teachers = [row for row in rows if row.privileged]
    for k, row in enumerate(teachers, start=len(rows) + 1):
        last = (packed.branch == k).nonzero()[-1]
        assert packed.ids[mask[last[0]]].tolist() == (row.privileged or []) + row.answer
    assert int(packed.branch.max()) == len(rows) + len(teachers)
    apart = packed_rows(rows, together=False)
    assert apart.ids.tolist() == pack(rows).ids.tolist()


# ---- the trainer -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("start") / "llama3"
    tiny_checkpoint(folder, "llama3")
    return str(folder)


SETTINGS = DistillConfig(**SMALL, batch_tokens=800, steps=6, save_steps=2)
KINDS = {kind: SETTINGS.model_copy(update={"teacher": kind}) for kind in ("frozen", "ema", "live")}


def train(config: DistillConfig, start: str, folder: Path, on_step: Any = quiet, data: Taught | None = None) -> Any:
    rows = some_rows()
    return Distill(config).train(
        data or Taught(rows, lessons(rows)), Job(1, start, folder / "out", folder / "work", 1, on_step)
    )


class Killed(BaseException):
    """Ends a training as a kill would."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "lora", "optimizer"])
def test_an_interrupted_training_ends_in_the_same_weights(kind: str, start: str, tmp_path: Path) -> None:
    from pairs import ADAPTER

    special = {"lora": {"lora": ADAPTER, "teacher": "ema"}, "optimizer": {"optimizer": "muon", "teacher": "ema"}}
    config = KINDS.get(kind) or SETTINGS.model_copy(update=special[kind])
    whole = train(config, start, tmp_path / "whole")

    def kill(done: int, total: int, loss: float) -> None:
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        train(config, start, tmp_path / "cut", kill)
    steps: list[int] = []
    again = train(config, start, tmp_path / "cut", lambda done, total, loss: steps.append(done))
    assert steps == [5, 6]
    one, other = weights(tmp_path / "whole" / "out"), weights(tmp_path / "cut" / "out")
    assert one.keys() == other.keys() and one
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], atol=1e-6), name
    assert again.figures["distill"]["before"] == whole.figures["distill"]["before"]


@pytest.mark.slow
def test_the_teachers_differ_and_each_is_learnt(start: str, tmp_path: Path) -> None:
    done = {}
    for kind, config in KINDS.items():
        only = config.model_copy(update={"ce_weight": 0.0, "steps": 20, "save_steps": 0, "lr": 3e-3})
        result = train(only, start, tmp_path / kind)
        measured: Any = result.figures["distill"]
        assert measured["before"]["answers"] == 9 and measured["before"]["kl"] > 0
        assert measured["before"]["separation"] is not None
        assert {t for t, *_ in measured["before"]["kl_by_turn"]} == {0, 1, 2}
        done[kind] = measured["after"]["kl"] / measured["before"]["kl"], weights(tmp_path / kind / "out")
    assert done["frozen"][0] < 0.6, done["frozen"][0]
    for one, other in (("frozen", "ema"), ("ema", "live"), ("frozen", "live")):
        assert any(not torch.equal(done[one][1][name], done[other][1][name]) for name in done[one][1])


@pytest.mark.slow
def test_a_bigger_model_with_the_same_tokens_teaches(start: str, tmp_path: Path) -> None:
    import json
    import shutil

    from transformers import AutoConfig, AutoModelForCausalLM

    bigger = tmp_path / "bigger"
    shutil.copytree(start, bigger)
    config = AutoConfig.from_pretrained(start)
    config.num_hidden_layers, config.vocab_size = 3, config.vocab_size + 8  # padded otherwise
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(bigger)
    settings = SETTINGS.model_copy(update={"teacher": f"hf/{bigger}", "ce_weight": 0.0, "save_steps": 0, "steps": 10})
    recipe: Any = SimpleNamespace(student=SimpleNamespace(base=start))
    Distill(settings).check(recipe)
    result = train(settings, start, tmp_path / "run")
    measured: Any = result.figures["distill"]
    assert measured["after"]["kl"] < 0.9 * measured["before"]["kl"]
    told = json.loads((bigger / "tokenizer.json").read_text())
    vocabulary = told["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.get)
    vocabulary[f"{last}x"] = vocabulary.pop(last)
    told["model"]["merges"] = [one for one in told["model"]["merges"] if "".join(one) != last]
    (bigger / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(RecipeError, match=r"another tokenizer than the student .* let it correct instead"):
        Distill(settings).check(recipe)


def test_other_weights_are_in_place_for_a_while_alone() -> None:
    model = tiny_model()
    teacher = OwnTeacher(model)
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    with torch.no_grad():
        for one in model.parameters():
            one += 1
    with teacher.in_place(model):
        assert all(torch.equal(one, before[name]) for name, one in model.named_parameters())
    assert all(torch.equal(one, before[name] + 1) for name, one in model.named_parameters())
    teacher.follow(model, 0.25)
    assert all(torch.allclose(one, before[name] + 0.25) for name, one in teacher.weights.items())


def test_a_privileged_prompt_that_does_not_fit_teaches_nothing(start: str) -> None:
    from leap.models.checkpoints import load_chat

    chat, rows = load_chat(start)[0], some_rows()
    data, config = Taught(rows, lessons(rows)), DistillConfig(max_tokens=8000)
    some, too_long = distilling.encode(data, chat, config, 8000)
    assert too_long == 0 and [len(one) for one in some] == [6, 6, 6]
    assert all(row.privileged and len(row.privileged) > len(row.prompt) for one in some for row in one)
    longest = max(len(row.privileged or ()) + len(row.answer) for one in some for row in one)
    some, too_long = distilling.encode(data, chat, config, longest - 1)
    assert too_long + sum(map(len, some)) == 18 and sum(row.cloned for one in some for row in one) == 9
    assert 9 < sum(bool(row.privileged) for one in some for row in one) < 18
    some, too_long = distilling.encode(data, chat, config, 10)
    assert too_long == 9 and not any(row.privileged for one in some for row in one)


def test_figures_by_hand() -> None:
    rows = [TaughtRow([1], [2], [3], t=t, wrong=wrong) for t, wrong in ((0, True), (0, False), (1, True), (2, None))]
    told = figures(rows, [0.4, 0.2, 0.1, 0.5], [1, 2, 3, 4])
    assert told["kl_by_turn"] == [[0, 0.3, 2], [1, 0.1, 1], [2, 0.5, 1]]
    assert (told["kl"], told["entropy"], told["wrong"], told["right"], told["separation"]) == (0.3, 2.5, 2, 1, 0.5)
    assert figures([], [], []) == {} and figures(rows[1:2], [1], [1])["separation"] is None


def test_tokens_are_told_apart_by_what_they_are_part_of(start: str) -> None:
    from leap.models.checkpoints import load_chat

    chat = load_chat(start)[0]
    answer = chat.answer("REASON: mug 1 is in cabinet 12.\nACTION: go to cabinet 12")
    kinds = kinds_of(chat, answer, "go to cabinet 12", ("cabinet 12", "mug 1"))
    assert len(kinds) == len(answer) and {*kinds} == {*diagnostics.KINDS}
    said = dict.fromkeys(diagnostics.KINDS, "")
    for kind, token in zip(kinds, answer, strict=True):
        said[kind] += chat.decode([token])
    assert said["name in the action"].split() == ["cabinet", "12"] and said["action"].split() == ["go", "to"]
    assert said["name in the reason"].split() == ["mug", "1", "cabinet", "12"]
    assert said["reason"].split() == ["is", "in"] and "ACTION" in said["form"] and "." in said["form"]
    assert "action" not in kinds_of(chat, answer, "open cabinet 12", ()) and kinds[-1] == "form"


def test_figures_of_ratios_and_kinds_by_hand() -> None:
    assert alike([-1.0, -2.0], [-1.0, -2.0]) == 1.0
    assert alike([0.0, math.log(3)], [0.0, 0.0]) == pytest.approx(16 / 20)
    told = shares(Counter({"reason": 3.0, "action": 1.0}))
    assert dict(told["by_kind"]) == dict.fromkeys(diagnostics.KINDS, 0.0) | {"reason": 0.75, "action": 0.25}  # type: ignore[call-overload]
    assert shares(Counter()) == {}


# ---- the recipe ------------------------------------------------------------------------------------------------------

RECIPE = {
    "name": "x",
    "environment": {"name": "alfworld"},
    "student": {"prompt": {"renderer": "dialogue"}},
    "training": {"method": "distill"},
}


def test_rollouts_keep_the_tokens_that_the_method_trains_on() -> None:
    assert Recipe.model_validate(RECIPE).keeps_tokens
    assert not Recipe.model_validate(RECIPE | {"training": {"method": "distill", "on": "corrections"}}).keeps_tokens
    assert not Recipe.model_validate(RECIPE | {"training": {}}).keeps_tokens
    assert Recipe.model_validate(RECIPE | {"training": {}, "rollouts": {"tokens": True}}).keeps_tokens


@pytest.mark.parametrize(
    ("section", "values", "says"),
    [
        ("teacher", {"privilege": 0}, "would learn what it does already"),
        ("training", {"teacher": "hf/some/model"}, "no other model has a scratch student's tokenizer"),
        ("training", {"teacher": "frosen"}, "must be one of frozen, ema, live, or hf/PATH"),
        ("training", {"teacher": "hf/"}, "must be one of frozen, ema, live, or hf/PATH"),
        ("training", {"weight": 0}, "teaches nothing"),
        ("training", {"contrast": True, "teacher": "live"}, "told one privileged state alone"),
        ("training", {"ratio": 2}, "nothing else grows stale"),
        ("training", {"ratio": 2, "divergence": "reverse", "on": "corrections"}, "nothing else grows stale"),
        ("training", {"branches": False}, "Input should be True"),
        ("training", {"start_from": "base"}, "Input should be 'previous'"),
        ("rollouts", {"tokens": False}, "leave rollouts.tokens at auto"),
    ],
)
def test_what_makes_no_sense_is_refused(section: str, values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Recipe.model_validate(RECIPE | {section: {**RECIPE.get(section, {}), **values}})
