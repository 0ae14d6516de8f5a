"""Reads a run directory, finished or not, into a `Report`. Reads only: a report may be made while the run goes on.

Journals are read a record at a time, and of each episode only what the page needs is kept.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from operator import itemgetter
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError

from leap.core import Correction, Episode
from leap.evaluation import Evaluation
from leap.files import read_records
from leap.loop import best_on_validation
from leap.models.ledger import read_totals
from leap.recipe import Recipe, dump_recipe
from leap.report import words
from leap.report.model import (
    Comparison,
    CorrectedEpisode,
    CorrectionSummary,
    Cost,
    PolicyScores,
    Report,
    Setup,
    Shown,
    StageTime,
)
from leap.report.sections import read_sections
from leap.runs.directory import RunDirectory, marker
from leap.runs.policies import baselines_of, teacher_acting
from leap.runs.provenance import starts
from leap.runs.table import stage_table
from leap.stats import wilson

T = TypeVar("T")
Markers = Mapping[int, Mapping[str, JsonValue]]
"""By i, what the checkpoint of pi_i says of itself: its key and what training noted."""


@dataclass(frozen=True, slots=True)
class Brief:
    """What is kept of an episode, about a hundredth of it; `place` is where in the file its line begins."""

    key: str
    id: str
    kind: str
    success: bool
    broken_off: bool
    actions: tuple[str, ...]
    place: int


@dataclass
class Group:
    """What the page says about a file of episodes, those it may show, most wanted first, and corrections by episode and step."""

    shown: Shown
    episodes: list[Episode]
    corrections: dict[str, dict[int, Correction]] = field(default_factory=dict)


def collect(recipe: Recipe, run: RunDirectory, *, per_group: int) -> tuple[Report, list[Group]]:
    """Everything the report says, but for the trajectories, and the episodes from which those are taken: of each iteration's
    training episodes, and of all test episodes, at most `per_group`.

    Raises:
        RunError: A file is damaged.
    """
    gone = [str(path.relative_to(run.root)) for path in run.manifest.check()]
    notes = [f"Weights are not there any more, nor what training noted of them: {', '.join(gone)}."] if gone else []
    setup = _setup(recipe)
    found = {i: _read(marker(run.checkpoint(i)), dict[str, JsonValue], notes) for i in range(recipe.iterations + 1)}
    markers = {i: content for i, content in found.items() if content}
    policies = [*_students(recipe, run, notes), *_baselines(recipe, run, notes)]
    for policy in policies:
        for split, evaluation in policy.evaluations.items():
            if share := evaluation.overall.shortened:
                prompts = f"{share:.1%} of the prompts of {policy.label} on {split}"
                notes.append(f"{prompts} were too long; their oldest steps were left out.")
    chosen = _chosen(policies, setup.validation)
    comparisons = _comparisons(setup, run, markers, chosen, policies) if chosen else []
    corrections, groups = _iterations(recipe, run, per_group)
    if chosen:
        groups += _tests(setup, run, markers, chosen, per_group)
    report = Report(
        name=recipe.name,
        setup=setup,
        best=chosen.iteration if chosen else None,
        headline=words.headline(chosen, comparisons, setup, teacher_acting(recipe, 0)) if chosen else [],
        policies=policies,
        comparisons=comparisons,
        corrections=corrections,
        sections=read_sections(recipe, run, notes),
        costs=[
            Cost(usd=one.cost, **{name: getattr(one, name) for name in Cost.model_fields if name != "usd"})
            for one in read_totals(run.calls)
        ],
        training=[{"iteration": i, **_noted(content)} for i, content in markers.items()],
        stages=_read(run.stages, list[StageTime], notes) or [],
        provenance=_provenance(run.provenance, notes),
        shown=[group.shown for group in groups],
        notes=notes,
        recipe=run.recipe.read_text(encoding="utf-8") if run.recipe.exists() else dump_recipe(recipe),
    )
    return report, groups


_CORRECTORS = {"expert": words.SCRIPT, "self": "the student itself"}
"""Teachers whose names in a recipe would mean something else to a reader."""


def _setup(recipe: Recipe) -> Setup:
    environment, student, teacher = recipe.environment, recipe.student, recipe.teacher
    temperature, evaluated = student.sampling.temperature, student.evaluation_temperature
    failed = f"episodes that failed (score up to {teacher.failure_score:g})"
    parts = environment.options.get("only") or environment.options.get("parts", ())
    return Setup(
        environment=f"mixture of {words.listed(parts)}" if environment.name == "mixture" else environment.name,
        model=student.model,
        method=recipe.training.method,
        renderer=student.prompt.renderer,
        decoding=student.decoding,
        temperature=temperature,
        evaluation_temperature=temperature if evaluated is None else evaluated,
        seed=recipe.seed,
        iterations=recipe.iterations,
        horizon=recipe.horizon,
        evaluation_horizon=recipe.test_horizon,
        train=environment.train,
        validation=environment.validation,
        test=environment.test,
        teacher=_CORRECTORS.get(teacher.kind, teacher.label),
        privilege=teacher.privilege,
        first="the base model" if recipe.demonstrations.none else "behaviour cloning",
        corrected="every episode" if teacher.episodes == "all" else failed,
    )


# ---- evaluations ---------------------------------------------------------------------------------------------------


def _evaluations(run: RunDirectory, name: str, notes: list[str]) -> dict[str, Evaluation]:
    return {one.split: one for one in _read(run.evaluation(name), list[Evaluation], notes) or ()}


def _students(recipe: Recipe, run: RunDirectory, notes: list[str]) -> list[PolicyScores]:
    found, missing = [], []
    for i in range(recipe.iterations + 1):
        name, label = f"pi_{i}", words.pi(i)
        if scores := _evaluations(run, name, notes):
            found.append(
                PolicyScores(name=name, label=label, short=label, role="student", iteration=i, evaluations=scores)
            )
        else:
            missing.append(label)
    if missing:
        notes.append(f"Not evaluated yet: {', '.join(missing)}.")
    return found


_ROLES = ("expert", "teacher", "other")  # in the order of the page


def _baselines(recipe: Recipe, run: RunDirectory, notes: list[str]) -> list[PolicyScores]:
    scores = {name: _evaluations(run, name, notes) for name in run.evaluated_baselines()}
    found = [_baseline(name, recipe, evaluations) for name, evaluations in scores.items() if evaluations]
    if not found and any(stage.kind == "evaluate" and stage.iteration < 0 for stage in stage_table(recipe)):
        notes.append("No baseline has been evaluated, so there is nothing to compare the students with.")
    return sorted(found, key=lambda policy: (_ROLES.index(policy.role), policy.privilege or 0, policy.name))


def _baseline(name: str, recipe: Recipe, evaluations: dict[str, Evaluation]) -> PolicyScores:
    """A baseline as it is called in the report: who corrects is told apart from who does not."""
    known = next((one for one in baselines_of(recipe, None) if one.name == name), None)
    label, short, privilege = name, name, known.privilege if known else None
    role: Literal["expert", "teacher", "other"] = "other"
    if known and known.kind == "expert":
        label, short, role = "expert (no privilege)", "the expert", "expert"
    elif known and known.react is not None:
        label = short = f"ReAct {known.react.model}"
    elif known and privilege is not None:
        if recipe.teacher.kind == {"teacher": "expert"}.get(known.kind, known.kind):
            role = "teacher"
        model = known.actor.removesuffix(f"-{privilege}") if known.kind == "model" else ""
        who = model or ("teacher" if role == "teacher" else "scripted teacher")
        label = f"{who} at privilege {privilege} (p{privilege})" if privilege else f"{who} without privilege (p0)"
        label += ", who corrects" if privilege and name == teacher_acting(recipe) else ""
        short = (model or f"the {who}") + (f" at {privilege}" if privilege else "")
    return PolicyScores(name=name, label=label, short=short, role=role, privilege=privilege, evaluations=evaluations)


def _chosen(policies: list[PolicyScores], validation: str) -> PolicyScores | None:
    judged = [policy for policy in policies if policy.role == "student" and validation in policy.evaluations]
    scores = [list(policy.evaluations.values()) for policy in judged]
    return judged[best_on_validation(scores, validation)] if judged else None


def _comparisons(
    setup: Setup, run: RunDirectory, markers: Markers, chosen: PolicyScores, policies: list[PolicyScores]
) -> list[Comparison]:
    found = []
    for split in (split for split in setup.test if split in chosen.evaluations):
        mine = _solved(run, markers, chosen, split)
        for other in policies:
            if split in other.evaluations and other is not chosen and (other.role != "student" or other.iteration == 0):
                found.append(words.compare(split, chosen, other, mine, _solved(run, markers, other, split)))
    return found


def _solved(run: RunDirectory, markers: Markers, policy: PolicyScores, split: str) -> dict[str, bool]:
    """Returns whether the policy solved each task; nothing where the episodes on file are not those that were scored."""
    horizon, score = policy.evaluations[split].horizon, policy.evaluations[split].overall
    solved = {
        episode.task.key: episode.success
        for _, episode in read_records(run.played(policy.name, split), Episode)
        if episode.horizon == horizon and _is_by(episode, policy, markers)
    }
    return solved if len(solved) == score.n and sum(solved.values()) == round(score.success * score.n) else {}


def _is_by(episode: Episode, policy: PolicyScores, markers: Markers) -> bool:
    """Whether pi_i as it is now played: an earlier checkpoint of that iteration may have left episodes in the same file."""
    key = markers.get(-1 if policy.iteration is None else policy.iteration, {}).get("key")
    return key is None or episode.actor.checkpoint == key


# ---- iterations ----------------------------------------------------------------------------------------------------


def briefs(path: Path, wanted: Callable[[Episode], bool] = lambda episode: True) -> list[Brief]:
    """Returns the wanted episodes of a journal, in brief."""
    return [
        Brief(
            key=episode.key,
            id=episode.task.id,
            kind=sys.intern(episode.task.kind),
            success=episode.success,
            broken_off=episode.stop.untold,
            actions=tuple(sys.intern(step.action) for step in episode.steps),
            place=place,
        )
        for place, episode in read_records(path, Episode)
        if wanted(episode)
    ]


def choose(episodes: list[Brief], limit: int) -> list[Brief]:
    """Some of the episodes, most wanted first: failures and successes in turn, task types in turn within each, and
    otherwise by content key, which is as good as chance and the same every time."""
    seen: Counter[tuple[bool, str]] = Counter()
    failures, successes = [], []
    for one in sorted(episodes, key=lambda one: one.key):
        (successes if one.success else failures).append((seen[one.success, one.kind], one.kind, one))
        seen[one.success, one.kind] += 1
    pairs = zip_longest(sorted(failures, key=itemgetter(0, 1)), sorted(successes, key=itemgetter(0, 1)))
    return [drawn[-1] for pair in pairs for drawn in pair if drawn][:limit]


def _group(run: RunDirectory, shown: Shown, episodes: list[Brief], limit: int) -> Group:
    whole = []
    with (run.root / shown.file).open("rb") as file:
        for one in choose(episodes, limit):
            file.seek(one.place)
            whole.append(Episode.model_validate_json(file.readline()))
    return Group(shown, whole)


def _iterations(recipe: Recipe, run: RunDirectory, per_group: int) -> tuple[list[CorrectionSummary], list[Group]]:
    summaries, groups = [], []
    for i in range(recipe.iterations + 1):
        if episodes := briefs(run.episodes(i)):
            acts = words.acting(recipe.rollouts.beta_at(i), words.pi(i - 1)) if i else recipe.demonstrations.who
            title = f"rollouts of {acts}" if i else f"demonstrations by {acts}"
            shown = Shown(
                title=title,
                role="rollouts" if i else "demonstrations",
                iteration=i,
                split=recipe.environment.train,
                file=str(run.episodes(i).relative_to(run.root)),
                total=len(episodes),
            )
            group = _group(run, shown, episodes, per_group)
            group.corrections = {episode.key: {} for episode in group.episodes}
            groups.append(group)
            summary = _summary(i, acts, episodes, run.corrections(i), group.corrections)
            if i:
                summaries.append(summary)
    return summaries, groups


def _summary(
    i: int, acts: str, episodes: list[Brief], path: Path, shown: dict[str, dict[int, Correction]]
) -> CorrectionSummary:
    """Counts an iteration's corrections, and puts those of the shown episodes into `shown`."""
    known = {one.key: one for one in episodes}
    counts = Counter(dict.fromkeys(("corrections", "kept", "kept_same", "acted", "agreed", "leaked"), 0))
    kept_of: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for _, correction in read_records(path, Correction):
        one = known.get(correction.episode)
        if one is None:
            continue
        kept, names_one, leaks = correction.kept, bool(correction.action), bool(correction.leaked)
        same = one.actions[correction.t : correction.t + 1] == (correction.action,)
        kept_of[one.key] += kept
        counts.update(
            corrections=1, kept=kept, kept_same=kept and same, acted=names_one, agreed=names_one and same, leaked=leaks
        )
        if correction.rejected:
            rejected[correction.rejected.value] += 1
        if one.key in shown:
            shown[one.key][correction.t] = correction
    corrected = [
        CorrectedEpisode(
            key=one.key, id=one.id, kind=one.kind, success=one.success, steps=len(one.actions), kept=kept_of[one.key]
        )
        for one in sorted(episodes, key=lambda one: (one.kind, one.id))
        if one.key in kept_of
    ]
    solved = sum(one.success for one in episodes)
    low, high = wilson(solved, len(episodes))
    return CorrectionSummary(
        iteration=i,
        acts=acts,
        episodes=len(episodes),
        broken_off=sum(one.broken_off for one in episodes),
        solved=solved,
        low=low,
        high=high,
        rejected=dict(sorted(rejected.items())),
        corrected=corrected,
        **counts,
    )


def _tests(setup: Setup, run: RunDirectory, markers: Markers, chosen: PolicyScores, limit: int) -> list[Group]:
    groups = []
    for split in setup.test:
        path = run.played(chosen.name, split)
        if episodes := briefs(path, lambda episode: _is_by(episode, chosen, markers)):
            shown = Shown(
                title=f"episodes of {chosen.label} (the chosen one) on {split}",
                role="test",
                iteration=chosen.iteration or 0,
                split=split,
                file=str(path.relative_to(run.root)),
                total=len(episodes),
            )
            groups.append(_group(run, shown, episodes, max(1, limit // len(setup.test))))
    return groups


# ---- files of other shapes -----------------------------------------------------------------------------------------


def _read(path: Path, shape: type[T], notes: list[str]) -> T | None:
    """Returns what a JSON file holds; None where there is none, and with a note where it cannot be read."""
    if path.exists():
        try:
            return TypeAdapter(shape).validate_json(path.read_bytes())
        except (OSError, ValidationError):
            notes.append(f"{path.parent.name}/{path.name} cannot be read and is left out.")
    return None


def _noted(marker: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Returns what training noted in a checkpoint."""
    result = marker.get("result")
    return result if isinstance(result, dict) else {}


def _provenance(path: Path, notes: list[str]) -> list[dict[str, object]]:
    if not path.exists():
        notes.append(f"{path.name} is missing: versions and machine are not known.")
    return starts(path)
