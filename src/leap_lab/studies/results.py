"""From the runs of a study to its table: every number with its split, n, seeds and intervals; seeds one by one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path

from pydantic import Field

from leap.api import Run
from leap.core import Episode
from leap.core.record import Record
from leap.errors import RunError
from leap.evaluation import score_episodes
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory
from leap.runs.policies import folder_name, teacher_acting
from leap.runs.provenance import starts
from leap.runs.table import missing_stages
from leap_lab.measures import IterationMeasures, read_measures
from leap_lab.measures.stage import measures_file
from leap_lab.studies.schema import AxisPlot, IterationsPlot, LoopStudy, Ref
from leap_lab.studies.statistics import Estimate, estimate, estimate_share, paired


class RunResults:
    """One run of a study, finished or not: what its policies did on the test split."""

    def __init__(self, recipe: Recipe, root: Path, split: str) -> None:
        self.recipe, self.files, self.split = recipe, RunDirectory(root), split
        self._played = cache(self._read)

    @cached_property
    def _run(self) -> Run:
        return Run(self.files.root)

    @property
    def finished(self) -> bool:
        """Whether every stage is on file."""
        return not missing_stages(self.recipe, self.files)

    def outcome(self, policy: str) -> dict[str, Episode] | None:
        """The episodes of a policy (with `@KIND`, of that kind) on the test split by task key; None if there are
        none."""
        kind, played = policy.partition("@")[2], self._played(self.resolve(policy))
        return {key: one for key, one in played.items() if kind in ("", one.task.kind)} or None

    def resolve(self, policy: str) -> str:
        """Returns which pi_i or baseline a policy's name means in this run, whatever kind of tasks it is of."""
        policy = policy.partition("@")[0]
        if policy == "best":
            return f"pi_{self._run.best}"
        if policy == "last":
            return f"pi_{self.recipe.iterations}"
        if policy == "react" and self.recipe.baselines.react:
            return folder_name(f"react-{self.recipe.baselines.react[0].model}")
        if found := re.fullmatch(r"teacher(?:-(\d+))?", policy):  # whoever corrects in this run, be it a script or a model
            return teacher_acting(self.recipe, int(found[1]) if found[1] else None)
        return policy

    def measures(self) -> IterationMeasures | None:
        """Leakage and realizability of the last iteration, if measured."""
        path = measures_file(self.files, self.recipe.iterations)
        self.files.manifest.check(path)
        return read_measures(path)

    def makers(self) -> set[str]:
        """Versions and commits of leap that made this run."""
        found = set()
        for one in starts(self.files.provenance):
            packages = one["packages"]
            torch = packages.get("torch") if isinstance(packages, dict) else None
            found.add(f"leap {one['leap']} {one['commit']}, torch {torch or '?'}")
        return found

    def _read(self, policy: str) -> dict[str, Episode]:
        played = self._run.played(policy, self.split)
        by_task = {episode.task.key: episode for episode in played}
        if len(by_task) != len(played):
            path = self.files.played(policy, self.split)
            raise RunError(f"{path} holds several episodes of one task; remove it and run the study again.")
        return by_task


Runs = Mapping[str, Mapping[int, RunResults]]
"""Finished runs by arm and seed."""


class SeedScore(Record):
    """One policy of one run. `low` and `high` are the 95 % Wilson interval; `policy` says which pi_i `best` was; `broken_off`
    is how many of the n an error of a model or of the environment ended, None where that is none."""

    seed: int
    policy: str
    n: int
    success: float
    low: float
    high: float
    actions: float
    broken_off: int | None = None


class Row(Record):
    """One policy of one arm over all seeds. `success` and `actions` are means over seeds."""

    arm: str
    policy: str
    seeds: list[SeedScore]
    success: Estimate
    actions: Estimate


class SeedDifference(Record):
    """Two policies on the same tasks under one seed. `only_policy`: tasks that the first alone solved."""

    seed: int
    n: int
    difference: float
    only_policy: int
    only_against: int


class Difference(Record):
    """The success of one ARM/POLICY less another's, paired by task and seed. `verdict` is above or below if the
    interval over tasks and seeds leaves out 0, else not settled."""

    policy: str
    against: str
    seeds: list[SeedDifference]
    difference: Estimate
    verdict: str


class Gap(Record):
    """The realizability gap of one run's last iteration: nats per corrected answer on held-out episodes, the 95 % interval over
    episodes, and the numbers of answers and of episodes; pages of earlier versions have the nats alone."""

    arm: str
    seed: int
    nats: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    episodes: int | None = None


class StudyResults(Record):
    """Everything that a study's page shows, and its JSON twin.

    Attributes:
        format: Version of this schema.
        name, claim, hypothesis, notes, split, seeds: From the study.
        command, provenance: The command that makes the page; versions, commit, machine.
        arms: In order.
        missing: Runs that are not finished: ARM, seed S.
        rows: The table.
        curves: Success of every pi_i of the arms that are drawn by iteration.
        differences: Paired comparisons.
        gaps: Realizability gaps, where drawn.
        axis: Values along the axis by arm, where there is one.
    """

    format: int = 1
    name: str
    claim: str
    hypothesis: str
    notes: list[str] = Field(default_factory=list)
    command: str
    split: str
    arms: list[str]
    seeds: list[int]
    missing: list[str] = Field(default_factory=list)
    rows: list[Row] = Field(default_factory=list)
    curves: list[Row] = Field(default_factory=list)
    differences: list[Difference] = Field(default_factory=list)
    gaps: list[Gap] = Field(default_factory=list)
    axis: dict[str, float] = Field(default_factory=dict)
    provenance: dict[str, object] = Field(default_factory=dict)

    def row(self, arm: str, policy: str) -> Row | None:
        """Returns the table's row of a policy."""
        return next((row for row in self.rows if (row.arm, row.policy) == (arm, policy)), None)


def collect(study: LoopStudy, runs: Runs, *, command: str, provenance: dict[str, object]) -> StudyResults:
    """Returns the results of the runs at hand."""
    arms = list(study.changes())
    done = {arm: {seed: run for seed, run in runs.get(arm, {}).items() if run.finished} for arm in arms}
    drawn = [plot for plot in study.plots if isinstance(plot, IterationsPlot)]
    curves = [
        _row(Ref(arm, f"pi_{i}"), done[arm])
        for arm in dict.fromkeys(arm for plot in drawn for arm in plot.arms or arms)
        for i in range(max((run.recipe.iterations for run in done[arm].values()), default=-1) + 1)
    ]
    gap = any(isinstance(plot, AxisPlot) and plot.gap for plot in study.plots)
    gaps = [_gap(arm, seed, run) for arm in arms for seed, run in done[arm].items()] if gap else []
    return StudyResults(
        **study.model_dump(include={"name", "claim", "hypothesis", "notes", "split", "seeds"}),
        command=command,
        arms=arms,
        missing=[f"{arm}, seed {seed}" for arm in arms for seed in study.seeds if seed not in done[arm]],
        rows=[row for ref in study.shown() if (row := _row(ref, done[ref.arm]))],
        curves=[row for row in curves if row],
        differences=[one for pair in study.contrasts() if (one := _difference(*pair, done))],
        gaps=[one for one in gaps if one],
        axis=_axis(study),
        provenance=provenance,
    )


def _success(episodes: Mapping[str, Episode]) -> dict[str, float]:
    return {key: float(episode.success) for key, episode in episodes.items()}


def _row(ref: Ref, runs: Mapping[int, RunResults]) -> Row | None:
    found = {seed: outcome for seed, run in runs.items() if (outcome := run.outcome(ref.policy))}
    if not found:
        return None
    return Row(
        arm=ref.arm,
        policy=ref.policy,
        seeds=[_score(seed, runs[seed].resolve(ref.policy), outcome) for seed, outcome in found.items()],
        success=estimate_share([_success(outcome) for outcome in found.values()]),
        actions=estimate([{key: float(one.actions) for key, one in outcome.items()} for outcome in found.values()]),
    )


def _score(seed: int, policy: str, outcome: Mapping[str, Episode]) -> SeedScore:
    score = score_episodes(outcome.values())
    known = score.model_dump(include={"n", "success", "low", "high", "actions"})
    return SeedScore(seed=seed, policy=policy, **known, broken_off=score.broken_off or None)


def _difference(first: Ref, second: Ref, runs: Runs) -> Difference | None:
    found: dict[int, dict[str, float]] = {}
    for seed in (seed for seed in runs[first.arm] if seed in runs[second.arm]):
        one, other = (runs[ref.arm][seed].outcome(ref.policy) for ref in (first, second))
        if one and other:
            (found[seed],) = paired([_success(one)], [_success(other)])
    if not found or not all(found.values()):
        return None
    overall = estimate(list(found.values()))
    return Difference(
        policy=str(first),
        against=str(second),
        seeds=[
            SeedDifference(
                seed=seed,
                n=len(own),
                difference=sum(own.values()) / len(own),
                only_policy=sum(value > 0 for value in own.values()),
                only_against=sum(value < 0 for value in own.values()),
            )
            for seed, own in found.items()
        ],
        difference=overall,
        verdict=_verdict(overall, [sum(own.values()) for own in found.values()]),
    )


def _verdict(overall: Estimate, sums: Sequence[float]) -> str:
    if overall.low_all <= 0 <= overall.high_all:
        return "not settled"
    same = sum((total > 0) == (overall.value > 0) and total != 0 for total in sums)
    return f"{'above' if overall.low_all > 0 else 'below'}, in {same} of {len(sums)} seeds"


def _gap(arm: str, seed: int, run: RunResults) -> Gap | None:
    measures = run.measures()
    if measures is None or measures.likelihood is None:
        return None
    nats = measures.likelihood.after.per_answer
    return Gap(arm=arm, seed=seed, nats=nats.value, **nats.model_dump(exclude={"value"}))


def _axis(study: LoopStudy) -> dict[str, float]:
    if len(study.axes) != 1 or study.arms:
        return {}
    values = study.axes[0].values
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    places = numbers if len(numbers) == len(values) else range(len(values))
    return {arm: float(place) for arm, place in zip(study.changes(), places, strict=True)}
