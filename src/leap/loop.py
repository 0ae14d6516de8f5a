"""Algorithm 1 of the paper, "LEAP: iterative learning with a privileged expert teacher" (arXiv 2410.05434).

    input: tasks X with privileged states s(x), demonstrations D_0, teacher T, base model, iterations N
    pi_0 <- SFT(base, D_0)                                     behaviour cloning; without D_0 the base model itself
    for i in 1..N:
        roll out pi_{i-1} on the training tasks                the student's own states
        for every step of every episode to be corrected:       r~_t, a~_t ~ T( . | h_t, r_t, a_t, s)
        D_i <- {(h_t, r_t, a_t, r~_t, a~_t)}
        pi_i <- SFT(D_0 u D_1 u .. u D_i)                      the true union
             or DPO(D_i, pi_{i-1}) or KTO(D_i, pi_{i-1})
    return the best pi_i on validation tasks

Every line below is one stage, every stage leaves a file, and what is on file is not made again: killed at any moment,
the same command goes on where it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass

from leap.evaluation import Evaluation
from leap.runs.selftest import try_teacher
from leap.runs.stages import Stages


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found.

    Attributes:
        best: i of the pi_i that did best on validation tasks.
        students: Evaluations of pi_0..pi_N, by i.
        baselines: Evaluations of the expert and of the teacher without and with privilege.
    """

    best: int
    students: list[list[Evaluation]]
    baselines: list[Evaluation]


def leap(stages: Stages) -> Result:
    """Runs a recipe from demonstrations to the best student."""
    try_teacher(stages)  # a few calls, before anything is spent on one of no use
    baselines = stages.baselines()

    if not stages.recipe.demonstrations.none:
        stages.rollout(0)  # D_0: the unprivileged expert's demonstrations
        stages.dataset(0)
        stages.train(0)  # pi_0 <- SFT(base, D_0)
    students = [stages.evaluate(0)]
    stages.extend(0)

    for i in range(1, stages.recipe.iterations + 1):
        stages.rollout(i)  # pi_{i-1} acts; the states are the student's own
        stages.correct(i)  # r~_t, a~_t ~ T( . | h_t, r_t, a_t, s_t)
        stages.dataset(i)  # D_i
        stages.train(i)  # pi_i <- SFT(D_0 u .. u D_i), or DPO or KTO of D_i against pi_{i-1}
        students.append(stages.evaluate(i))
        stages.extend(i)

    stages.run.manifest.forget_missing()
    return Result(best_on_validation(students, stages.recipe.environment.validation), students, baselines)


def best_on_validation(students: list[list[Evaluation]], split: str) -> int:
    """i of the best pi_i: most successes on the validation split, then the best score, fewest actions, the earliest."""

    def merit(i: int) -> tuple[float, float, float, int]:
        overall = next(e.overall for e in students[i] if e.split == split)
        return (-overall.success, -overall.score, overall.actions, i)

    return min(range(len(students)), key=merit)
