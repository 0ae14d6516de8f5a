"""Algorithm 1 of LEAP, read top to bottom: a small language model learns the tiny world of `tiny_world.py`.

    python examples/leap_loop.py          # about two minutes on a laptop's CPU, nothing to download

`leap run` does the same with a store that survives a kill, progress, evaluation on several splits and a report.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from leap.core import Actor, Episode, Task
from leap.datasets import Row, correction_rows, demonstration_rows
from leap.evaluation import score_episodes
from leap.models.base import Sampling
from leap.models.hf import HFModel
from leap.models.scratch import ScratchConfig, build_scratch
from leap.policies.base import ExpertPolicy, Policy
from leap.policies.model import ModelPolicy
from leap.policies.rendering import PromptConfig, Renderer
from leap.rollouts import rollout
from leap.sync import run_sync
from leap.teachers.base import TeacherContext
from leap.teachers.config import ExpertTeacherConfig
from leap.teachers.expert import ExpertTeacher
from leap.training.config import SFTConfig
from leap.training.sft import train_sft
from tiny_world import TinyWorld, TinyWorldConfig

ITERATIONS, HORIZON, SEED, PRIVILEGE = 2, 8, 0, 50


def play(world: TinyWorld, policy: Policy, tasks: list[Task], stream: str) -> list[Episode]:
    """Plays every task once."""
    episodes: list[Episode] = []
    rollout(world, policy, tasks, horizon=HORIZON, seed=SEED, stream=stream, on_episode=episodes.append)
    return sorted(episodes, key=lambda episode: episode.task.id)


def main(steps: int = 60, tasks: int = 100) -> list[float]:
    """Runs the loop; returns the mean number of actions of the expert and of pi_0..pi_N on test tasks."""
    world = TinyWorld(TinyWorldConfig(tasks=tasks))
    train, test = world.tasks("train"), world.tasks("test")
    # h_t -> messages. The renderer takes a History, which has no field for the privileged state.
    renderer = Renderer(PromptConfig(renderer="dialogue", instructions=False, candidates=False))
    teacher = ExpertTeacher(ExpertTeacherConfig(privilege=PRIVILEGE), TeacherContext(world))

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)

        def student(i: int, temperature: float) -> ModelPolicy:
            """pi_i, as an ordinary checkpoint directory played in one batch."""
            model = HFModel(str(work / f"pi-{i}"), Sampling(temperature=temperature, max_tokens=32), batch=64)
            return ModelPolicy(model, renderer, Actor(name="student", iteration=i), constrained=True)

        def fit(i: int, rows: list[Row], start: Path) -> None:
            """pi_i <- SFT(D_0 u .. u D_i): all steps of an episode in one pass, loss on the answers only."""
            settings = SFTConfig(
                branches=True,
                optimizer="muon",
                lr=3e-3,
                muon_lr=0.02,
                max_grad_norm=1.0,
                batch_tokens=2000,
                steps=steps,
            )
            train_sft(settings, rows, start=str(start), out=work / f"pi-{i}", work=work / "state", seed=SEED + i)

        # D_0: the unprivileged expert's demonstrations. pi_0 <- SFT(base, D_0), behaviour cloning.
        demonstrations = play(world, ExpertPolicy(world), train, "demonstrations")
        rows = list(demonstration_rows(demonstrations, renderer))
        words = [message["content"] for row in rows for message in (*row.prompt, *row.completion)]
        words += ["REASON: A key is often in a box."]
        build_scratch(ScratchConfig(layers=2, width=64, heads=4, mlp=128), words, work / "base", seed=SEED)
        fit(0, rows, work / "base")

        results = [score_episodes(play(world, ExpertPolicy(world), test, "test")).actions]
        for i in range(1, ITERATIONS + 1):
            # Roll out pi_{i-1}: the states are the student's own.
            episodes = play(world, student(i - 1, temperature=0.3), train, f"rollout-{i}")
            # For every step: r~_t, a~_t ~ T(. | h_t, r_t, a_t, s_t). The teacher sees where the key is.
            corrections = [correction for episode in episodes for correction in run_sync(teacher.correct(episode))]
            # D_i, and pi_i on the true union of everything so far.
            by_key = {episode.key: episode for episode in episodes}
            rows += correction_rows(by_key, corrections, renderer, iteration=i)
            fit(i, rows, work / f"pi-{i - 1}")

        print(
            f"{'policy':8} {'n':>4} {'success':>8} {'95 % interval':>16} {'actions':>8}   (test tasks, never trained on)"
        )
        for i in range(ITERATIONS + 1):
            score = score_episodes(play(world, student(i, temperature=0.0), test, "test"))
            results.append(score.actions)
            print(
                f"pi_{i:<5} {score.n:>4} {score.success:>8.0%} {score.low:>8.0%} to {score.high:<4.0%} {score.actions:>8.2f}"
            )
        print(f"expert   {len(test):>4} {'':>25} {results[0]:>8.2f}   (searches from left to right)")
    return results


if __name__ == "__main__":
    main()
