"""The bound and its terms, in worlds made by hypothesis and in the study's own."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leap_lab.studies.schema import TheoryStudy
from leap_lab.theory.exact import advantages, occupancy, on_states, privileged_expert
from leap_lab.theory.report import measure, theory_page
from leap_lab.theory.run import leader, mean, nearest, run_leap
from leap_lab.theory.world import Array, TabularWorld, search_world

ROUNDING = 1e-9


@st.composite
def worlds(draw: st.DrawFn) -> tuple[TabularWorld, Array]:
    """A world of random numbers and an unprivileged expert for it, deterministic or not."""
    states, actions, horizon = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    seen = np.array([draw(st.integers(0, 2)) for _ in range(states)])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    peaked = draw(st.sampled_from([0.05, 0.5, 5.0]))
    world = TabularWorld(
        start=rng.dirichlet(np.full(states, peaked)),
        moves=rng.dirichlet(np.full(states, peaked), size=(states, actions)),
        rewards=rng.random((states, actions)) / horizon,
        seen=seen,
        horizon=horizon,
    )
    expert = rng.dirichlet(np.full(actions, draw(st.sampled_from([0.01, 1.0]))), size=(horizon, world.sights))
    return world, expert


@settings(max_examples=60)
@given(worlds(), st.floats(0, 1), st.sampled_from(["l1", "log", "forward", "reverse"]), st.integers(0, 3))
def test_the_bound_holds_in_any_world(made: tuple[TabularWorld, Array], privilege: float, loss: str, n: int) -> None:
    world, expert = made
    terms = run_leap(world, expert, privilege=privilege, iterations=n, loss=loss)  # type: ignore[arg-type]
    assert terms.student >= terms.bound - ROUNDING
    assert terms.identity < ROUNDING, "the performance difference lemma is an identity"
    assert terms.epsilon >= -ROUNDING and terms.gamma >= -ROUNDING, "no student beats the minimiser in hindsight"
    assert np.mean(terms.students) >= terms.bound - ROUNDING
    assert len(terms.students) == n + 1


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["forward", "reverse"]))
def test_no_other_distribution_is_nearer_to_the_teachers(seed: int, loss: str) -> None:
    rng = np.random.default_rng(seed)
    points, weights, floor = rng.dirichlet(np.full(4, 0.2), size=3), rng.random(3) + 0.1, 0.02
    soft = (1 - floor) * points + floor / 4

    def apart(q: Array) -> float:
        one, other = (soft, np.broadcast_to(q, soft.shape))[:: 1 if loss == "forward" else -1]
        return float(weights @ (one * np.log(one / other)).sum(axis=1))

    best = mean(points, weights, loss, floor)  # type: ignore[arg-type]
    assert best.sum() == pytest.approx(1) and (best > 0).all()
    for other in rng.dirichlet(np.ones(4), size=20):
        for near in (0.01, 1.0):
            assert apart(best) <= apart((1 - near) * best + near * other) + ROUNDING


def test_what_one_teacher_never_does_the_geometric_mean_drops() -> None:
    """Two places, each teacher goes to its own and now and then asks: forward KL searches, reverse KL asks."""
    teachers, weights = np.array([[0.9, 0.0, 0.1], [0.0, 0.9, 0.1]]), np.array([0.5, 0.5])
    assert mean(teachers, weights, "forward", 1e-9) == pytest.approx([0.45, 0.45, 0.1])
    assert mean(teachers, weights, "log", 0.5) == pytest.approx([0.45, 0.45, 0.1])
    reverse = [mean(teachers, weights, "reverse", floor)[2] for floor in (1e-1, 1e-3, 1e-6, 1e-12)]
    assert reverse == sorted(reverse) and reverse[0] < 0.3 and reverse[-1] > 0.99


def test_reverse_takes_less_of_what_privilege_adds_than_forward() -> None:
    """Where only habits are to be learnt: below full privilege reverse KL stays near the unprivileged expert."""
    prior = np.random.default_rng(0).dirichlet(np.full(5, 0.5)).tolist()
    world, expert = search_world(prior, horizon=3, answer=0.0, slip=0.1)
    forward, reverse = (
        [run_leap(world, expert, privilege=p, iterations=3, loss=loss).last for p in (0.0, 0.5, 1.0)]  # type: ignore[arg-type]
        for loss in ("forward", "reverse")
    )
    assert forward[1] - forward[0] > 4 * (reverse[1] - reverse[0]) >= 0
    assert reverse[2] - reverse[1] > forward[2] - forward[1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("privilege", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_the_bound_holds_in_the_search(seed: int, privilege: float) -> None:
    prior = np.random.default_rng(seed).dirichlet(np.ones(4)).tolist()
    world, expert = search_world(prior, horizon=3, answer=0.5, slip=0.1)
    terms = run_leap(world, expert, privilege=privilege, iterations=3)
    assert terms.student >= terms.bound - ROUNDING
    if privilege == 0:
        assert terms.epsilon == 0 and terms.gamma == 0 and terms.student == pytest.approx(terms.unprivileged)
    else:
        assert terms.expert > terms.unprivileged and terms.epsilon > 0


@settings(max_examples=60)
@given(worlds(), st.floats(0, 1))
def test_the_privileged_expert_stays_near_and_gains(made: tuple[TabularWorld, Array], privilege: float) -> None:
    world, expert = made
    teacher = privileged_expert(world, expert, privilege)
    assert teacher.min() >= -ROUNDING and np.allclose(teacher.sum(axis=2), 1)
    assert np.abs(teacher - on_states(world, expert)).sum(axis=2).max() <= 2 * privilege + ROUNDING
    nothing, everything = privileged_expert(world, expert, 0.0), privileged_expert(world, expert, 1.0)
    assert np.allclose(nothing, on_states(world, expert))
    seen_by_all = TabularWorld(world.start, world.moves, world.rewards, np.arange(len(world.start)), world.horizon)
    values = [advantages(world, one)[0] for one in (teacher, everything)]
    assert values[1] >= values[0] - ROUNDING, "nobody does better than who sees everything"
    assert values[1] == pytest.approx(_best_value(seen_by_all))


def _best_value(world: TabularWorld) -> float:
    """By recursion over states, apart from the code under test."""

    @cache
    def value(x: int, t: int) -> float:
        if t == world.horizon:
            return 0.0
        return max(
            float(world.rewards[x, a])
            + sum(float(world.moves[x, a, y]) * value(y, t + 1) for y in range(len(world.start)))
            for a in range(world.actions)
        )

    return sum(float(p) * value(x, 0) for x, p in enumerate(world.start))


@settings(max_examples=40)
@given(worlds())
def test_worth_and_occupancy_are_sums_over_all_paths(made: tuple[TabularWorld, Array]) -> None:
    world, expert = made
    policy = on_states(world, expert)
    steps = min(world.horizon, 3)
    world = TabularWorld(world.start, world.moves, world.rewards, world.seen, steps)
    total, reached = 0.0, np.zeros((steps, len(world.start)))
    for states in product(range(len(world.start)), repeat=steps):
        for acts in product(range(world.actions), repeat=steps):
            p = world.start[states[0]]
            for t in range(steps):
                p *= policy[t, states[t], acts[t]]
                p *= world.moves[states[t], acts[t], states[t + 1]] if t + 1 < steps else 1.0
            total += p * sum(world.rewards[x, a] for x, a in zip(states, acts, strict=True))
            for t in range(steps):
                reached[t, states[t]] += p
    assert advantages(world, policy[:steps])[0] == pytest.approx(total)
    assert np.allclose(occupancy(world, policy[:steps]), reached)


@settings(max_examples=100)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_nothing_is_nearer_than_the_nearest(count: int, actions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    given_, weights = rng.dirichlet(np.full(actions, 0.3), size=count), rng.random(count) + 0.01
    found = nearest(given_, weights)

    def cost(p: Array) -> float:
        return float((weights * np.abs(given_ - p).sum(axis=1)).sum())

    assert found.min() >= 0 and found.sum() == pytest.approx(1)
    others = [*given_, *rng.dirichlet(np.ones(actions), size=50), *(found + 0.05 * (p - found) for p in np.eye(actions))]
    assert all(cost(found) <= cost(other) + ROUNDING for other in others)


def test_log_loss_gives_the_mean_label_by_weight() -> None:
    world = TabularWorld(np.array([0.25, 0.75]), np.full((2, 2, 2), 0.5), np.zeros((2, 2)), np.array([0, 0]), 1)
    labels = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    policy = leader(world, [occupancy(world, labels)], [labels], "log")
    assert policy[0, 0] == pytest.approx([0.25, 0.75])
    assert leader(world, [occupancy(world, labels)], [labels], "l1")[0, 0] == pytest.approx([0.0, 1.0])


def test_the_search_is_what_it_says() -> None:
    world, expert = search_world([0.5, 0.3, 0.2], horizon=2, answer=1.0, slip=0.0)
    assert np.allclose(world.moves.sum(axis=2), 1) and np.allclose(expert.sum(axis=2), 1)
    policy = on_states(world, expert)
    assert advantages(world, policy)[0] == pytest.approx(1.0), "asks, is told, opens"
    one_step = TabularWorld(world.start, world.moves, world.rewards, world.seen, 1)
    assert advantages(one_step, policy[:1])[0] == pytest.approx(0.0), "asking alone is no success"
    never_told, scripted = search_world([0.5, 0.3, 0.2], horizon=3, answer=0.0, slip=0.0)
    assert advantages(never_told, on_states(never_told, scripted))[0] == pytest.approx(0.8), "the first two from the left"


def test_the_page_tells_every_level_and_that_the_bound_holds() -> None:
    study = TheoryStudy.model_validate(
        {
            "kind": "theory",
            "name": "t",
            "claim": "c <b>",
            "hypothesis": "h",
            "seeds": [0, 1],
            "iterations": 1,
            "levels": [0, 50, 100],
            "worlds": [{"name": "w <i>", "rooms": 3, "horizon": 2, "answer": 0.5, "concentration": 1.0}],
        }
    )
    results = measure(study, command="leap study t", provenance={})
    assert len(results.measured) == 2 * 3 * 2
    page = theory_page(study, results)
    assert page.findings[0].startswith("The bound holds in 12 of 12 cases")
    assert [row[1] for row in page.tables[0].rows] == ["0 %", "50 %", "100 %"]
    assert len(page.figures) == 2 and page.figures[0].svg.startswith("<svg")
