"""Algorithm 1 of LEAP, read top to bottom: a small language model learns the tiny world of `tiny_world.py`.

    python examples/leap_loop.py          # about two minutes on a laptop's CPU, nothing to download

`leap run` does the same with a store that survives a kill, progress, evaluation on several splits and a report.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import leap
from tiny_world import TinyWorld, TinyWorldConfig

ITERATIONS, HORIZON, SEED, PRIVILEGE = 2, 8, 0, 50
SIZE = {"layers": 2, "width": 64, "heads": 4, "mlp": 128}


def main(steps: int = 60, tasks: int = 100) -> list[float]:
    """Runs the loop; returns the mean number of actions of the expert and of pi_0..pi_N on test tasks."""
    world = TinyWorld(TinyWorldConfig(tasks=tasks))
    train = world.tasks("train")
    settings = {
        "branches": True,  # all steps of an episode in one pass, loss on the answers only
        "optimizer": "muon",
        "lr": 3e-3,
        "muon_lr": 0.02,
        "max_grad_norm": 1.0,
        "batch_tokens": 2000,
        "steps": steps,
    }

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)

        # D_0: the unprivileged expert's demonstrations. pi_0 <- SFT(base, D_0), behaviour cloning.
        demonstrations = leap.rollout(world, leap.expert(world), train, horizon=HORIZON, stream="demonstrations")
        student = leap.Student.scratch(
            work / "base",
            world,
            demonstrations,
            size=SIZE,
            seed=SEED,
            prompt={"renderer": "dialogue", "instructions": False, "candidates": False},
            sampling={"temperature": 0.3, "max_tokens": 32},
            decoding="constrained",
        )
        rows = student.rows(demonstrations)
        student = student.train(rows, work / "pi-0", seed=SEED, **settings)
        students = [student]

        for i in range(1, ITERATIONS + 1):
            # Roll out pi_{i-1}: the states are the student's own.
            episodes = leap.rollout(world, student.policy(), train, horizon=HORIZON, stream=f"rollout-{i}")
            # For every step: r~_t, a~_t ~ T(. | h_t, r_t, a_t, s_t). The teacher sees where the key is.
            corrections = leap.correct(world, episodes, privilege=PRIVILEGE)
            # D_i, and pi_i on the true union of everything so far.
            rows += student.rows(episodes, corrections)
            student = student.train(rows, work / f"pi-{i}", seed=SEED + i, **settings)
            students.append(student)

        expert = leap.evaluate(world, leap.expert(world), "test", horizon=HORIZON).overall
        results = [expert.actions]
        print(
            f"{'policy':8} {'n':>4} {'success':>8} {'95 % interval':>16} {'actions':>8}   (test tasks, never trained on)"
        )
        for i, student in enumerate(students):
            score = leap.evaluate(world, student.policy(temperature=0.0), "test", horizon=HORIZON).overall
            results.append(score.actions)
            print(
                f"pi_{i:<5} {score.n:>4} {score.success:>8.0%} {score.low:>8.0%} to {score.high:<4.0%} {score.actions:>8.2f}"
            )
        print(f"expert   {expert.n:>4} {'':>25} {expert.actions:>8.2f}   (searches from left to right)")
    return results


if __name__ == "__main__":
    main()
