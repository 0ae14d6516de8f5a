"""Reads a run directory, finished or not, into a `Report`. Reads only: a report may be made while the run goes on."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from leap.core import Correction, Episode
from leap.evaluation import Evaluation
from leap.loop import best_on_validation
from leap.models.ledger import read_totals
from leap.recipe import Recipe, dump_recipe
from leap.report import journals, words
from leap.report.journals import Brief
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
from leap.runs.baselines import baselines_of, teacher_acting
from leap.runs.directory import RunDirectory, marker
from leap.runs.table import stage_table
from leap.stats import wilson

_log = logging.getLogger(__name__)
Costs = Callable[[], Iterable[Mapping[str, Any]]]
"""Sums of a run's ledger: mappings of stage, model, calls, tokens_in, tokens_out, tokens_cached and usd (or cost)."""


@dataclass
class Group:
    """Episodes of one file, from which the page shows some.

    Attributes:
        shown: What the page says about them.
        episodes: Those that may be shown, most wanted first.
        corrections: By episode and step.
    """

    shown: Shown
    episodes: list[Episode]
    corrections: dict[str, dict[int, Correction]] = field(default_factory=dict)


def collect(
    recipe: Recipe, run: RunDirectory, *, per_group: int, costs: Costs | None = None
) -> tuple[Report, list[Group]]:
    """Everything the report says, but for the trajectories, and the episodes from which those are taken.

    Args:
        recipe: The run's recipe.
        run: The run directory.
        per_group: Largest number of training episodes of an iteration, and of test episodes in all, to be shown.
        costs: Sums of the ledger, asked only if the run has one; by default read from it.
    """
    notes: list[str] = []
    policies, best = _policies(recipe, run, notes)
    chosen = next((policy for policy in policies if policy.iteration is not None and policy.iteration == best), None)
    comparisons = _comparisons(recipe, run, chosen, policies) if chosen else []
    setup = _setup(recipe)
    corrections, groups = _iterations(recipe, run, per_group)
    if best is not None:
        groups += _tests(recipe, run, best, per_group)
    report = Report(
        name=recipe.name,
        setup=setup,
        best=best,
        headline=words.headline(chosen, comparisons, setup, teacher_acting(recipe, 0)) if chosen else [],
        policies=policies,
        comparisons=comparisons,
        corrections=corrections,
        sections=read_sections(recipe, run, notes),
        costs=_costs(run, costs),
        training=_training(recipe, run),
        stages=[_stage(entry) for entry in _json(run.stages, list, notes)],
        provenance=_provenance(run.provenance, notes),
        shown=[group.shown for group in groups],
        notes=notes,
        recipe=run.recipe.read_text(encoding="utf-8") if run.recipe.exists() else dump_recipe(recipe),
    )
    return report, groups


def _setup(recipe: Recipe) -> Setup:
    student, teacher, temperature = recipe.student, recipe.teacher, recipe.student.evaluation_temperature
    return Setup(
        environment=recipe.environment.name,
        model=student.model,
        method=recipe.training.method,
        renderer=student.prompt.renderer,
        decoding=student.decoding,
        temperature=student.sampling.temperature,
        evaluation_temperature=student.sampling.temperature if temperature is None else temperature,
        seed=recipe.seed,
        iterations=recipe.iterations,
        horizon=recipe.horizon,
        evaluation_horizon=recipe.test_horizon,
        train=recipe.environment.train,
        validation=recipe.environment.validation,
        test=recipe.environment.test,
        teacher=teacher.label,
        privilege=teacher.privilege,
        first="the base model" if recipe.demonstrations.none else "behaviour cloning",
        corrected="every episode"
        if teacher.episodes == "all"
        else f"episodes that failed (score up to {teacher.failure_score:g})",
    )


# ---- evaluations ---------------------------------------------------------------------------------------------------


def _policies(recipe: Recipe, run: RunDirectory, notes: list[str]) -> tuple[list[PolicyScores], int | None]:
    students = []
    for i in range(recipe.iterations + 1):
        if evaluations := _evaluations(run.evaluation(f"pi_{i}"), notes):
            name = words.pi(i)
            students.append(
                PolicyScores(
                    name=f"pi_{i}", label=name, short=name, role="student", iteration=i, evaluations=evaluations
                )
            )
    missing = [i for i in range(recipe.iterations + 1) if i not in {policy.iteration for policy in students}]
    if missing:
        notes.append("Not evaluated yet: " + ", ".join(words.pi(i) for i in missing) + ".")
    baselines = []
    for name in run.evaluated_baselines():
        if evaluations := _evaluations(run.evaluation(name), notes):
            baselines.append(_baseline(name, recipe).model_copy(update={"evaluations": evaluations}))
    baselines.sort(key=lambda policy: (policy.role != "expert", policy.privilege or 0, policy.name))
    if not baselines and any(stage.kind == "evaluate" and stage.iteration < 0 for stage in stage_table(recipe)):
        notes.append("No baseline has been evaluated, so there is nothing to compare the students with.")
    for policy in students + baselines:
        for split, evaluation in policy.evaluations.items():
            if share := evaluation.overall.shortened:
                notes.append(
                    f"{share:.1%} of the prompts of {policy.label} on {split} were too long; their oldest steps were left out."
                )
    return students + baselines, _best(students, recipe.environment.validation)


def _baseline(name: str, recipe: Recipe) -> PolicyScores:
    """A baseline as it is called in the report, without scores: who corrects is told apart from who does not."""
    known = next((one for one in baselines_of(recipe, None) if one.name == name), None)
    if known is None or known.privilege is None:
        if known is not None and known.kind == "expert":
            return PolicyScores(name=name, label="expert (no privilege)", short="the expert", role="expert")
        return PolicyScores(name=name, label=name, short=name, role="other")
    privilege, corrects = known.privilege, recipe.teacher.kind == {"teacher": "expert"}.get(known.kind, known.kind)
    own = known.actor.removesuffix(f"-{privilege}")  # a model's name
    who = own if known.kind == "model" else "teacher" if corrects else "scripted teacher"
    label = f"{who} at privilege {privilege} (p{privilege})" if privilege else f"{who} without privilege (p0)"
    if privilege and name == teacher_acting(recipe):
        label += ", who corrects"
    short = who if known.kind == "model" else f"the {who}"
    short += f" at {privilege}" if privilege else ""
    return PolicyScores(
        name=name, label=label, short=short, role="teacher" if corrects else "other", privilege=privilege
    )


def _evaluations(path: Path, notes: list[str]) -> dict[str, Evaluation]:
    found: dict[str, Evaluation] = {}
    for entry in _json(path, list, notes):
        try:
            evaluation = Evaluation.model_validate(entry)
        except ValidationError:
            notes.append(f"{path.parent.name}/{path.name} is not an evaluation that this version can read.")
            continue
        found[evaluation.split] = evaluation
    return found


def _best(students: list[PolicyScores], validation: str) -> int | None:
    judged = [policy for policy in students if validation in policy.evaluations]
    if not judged:
        return None
    return judged[best_on_validation([list(policy.evaluations.values()) for policy in judged], validation)].iteration


def _comparisons(
    recipe: Recipe, run: RunDirectory, chosen: PolicyScores, policies: list[PolicyScores]
) -> list[Comparison]:
    comparisons = []
    for split in recipe.environment.test:
        if split not in chosen.evaluations:
            continue
        mine = _solved(run, chosen, split)
        for policy in policies:
            if policy.name == chosen.name or (policy.role == "student" and policy.iteration != 0):
                continue
            if split in policy.evaluations:
                theirs = _solved(run, policy, split)
                both = (mine, theirs) if mine is not None and theirs is not None else None
                comparisons.append(words.compare(split, chosen, policy, both))
    return comparisons


def _checkpoint(run: RunDirectory, i: int) -> str | None:
    """Key of pi_i as it is now; an earlier checkpoint of the same iteration may have left episodes in the same files."""
    file = marker(run.checkpoint(i))
    return json.loads(file.read_text(encoding="utf-8")).get("key") if file.exists() else None


def _solved(run: RunDirectory, policy: PolicyScores, split: str) -> dict[str, bool] | None:
    """Returns whether the policy solved each task; None where the episodes on file are not those that were scored."""
    horizon, score = policy.evaluations[split].horizon, policy.evaluations[split].overall
    path = run.played(policy.name, split)
    key = _checkpoint(run, policy.iteration) if policy.iteration is not None else None
    solved = {
        episode.task.key: episode.success
        for _, episode in journals.records(path, Episode)
        if episode.horizon == horizon and (key is None or episode.actor.checkpoint == key)
    }
    return solved if len(solved) == score.n and sum(solved.values()) == round(score.success * score.n) else None


# ---- iterations ----------------------------------------------------------------------------------------------------


def _iterations(recipe: Recipe, run: RunDirectory, per_group: int) -> tuple[list[CorrectionSummary], list[Group]]:
    summaries, groups = [], []
    for i in range(recipe.iterations + 1):
        path = run.episodes(i)
        episodes = journals.briefs(path)
        if not episodes:
            continue
        chosen = choose(episodes, per_group)
        corrections: dict[str, dict[int, Correction]] = {brief.key: {} for brief in chosen}
        summary = _summary(i, episodes, run.corrections(i), corrections)
        if i:
            summaries.append(summary)
        shown = Shown(
            title=f"rollouts of {words.pi(i - 1)}" if i else f"demonstrations by {recipe.demonstrations.who}",
            role="rollouts" if i else "demonstrations",
            iteration=i,
            split=recipe.environment.train,
            file=str(path.relative_to(run.root)),
            total=len(episodes),
        )
        groups.append(Group(shown, journals.episodes_at(path, chosen), corrections))
    return summaries, groups


def _summary(i: int, episodes: list[Brief], path: Path, shown: dict[str, dict[int, Correction]]) -> CorrectionSummary:
    """Counts an iteration's corrections, and puts those of the shown episodes into `shown`."""
    known = {brief.key: brief for brief in episodes}
    kept_of: dict[str, int] = {}
    kept = kept_same = acted = agreed = leaked = 0
    rejected: Counter[str] = Counter()
    for correction in journals.corrections(path):
        brief = known.get(correction.episode)
        if brief is None:
            continue
        same = correction.t < len(brief.actions) and correction.action == brief.actions[correction.t]
        kept_of[brief.key] = kept_of.get(brief.key, 0) + correction.kept
        kept += correction.kept
        kept_same += correction.kept and same
        acted += bool(correction.action)
        agreed += bool(correction.action) and same
        leaked += bool(correction.leaked)
        if correction.rejected:
            rejected[correction.rejected.value] += 1
        if brief.key in shown:
            shown[brief.key][correction.t] = correction
    listed = [
        CorrectedEpisode(
            key=brief.key,
            id=brief.id,
            kind=brief.kind,
            success=brief.success,
            steps=len(brief.actions),
            kept=kept_of[brief.key],
        )
        for brief in episodes
        if brief.key in kept_of
    ]
    solved = sum(brief.success for brief in episodes)
    low, high = wilson(solved, len(episodes))
    return CorrectionSummary(
        iteration=i,
        episodes=len(episodes),
        solved=solved,
        low=low,
        high=high,
        corrections=kept + rejected.total(),
        kept=kept,
        kept_same=kept_same,
        rejected=dict(sorted(rejected.items())),
        acted=acted,
        agreed=agreed,
        leaked=leaked,
        corrected=sorted(listed, key=lambda one: (one.kind, one.id)),
    )


def _tests(recipe: Recipe, run: RunDirectory, best: int, limit: int) -> list[Group]:
    groups = []
    splits = recipe.environment.test
    key = _checkpoint(run, best)
    for split in splits:
        path = run.played(f"pi_{best}", split)
        if episodes := journals.briefs(path, lambda episode: key is None or episode.actor.checkpoint == key):
            shown = Shown(
                title=f"episodes of {words.pi(best)} (the chosen one) on {split}",
                role="test",
                iteration=best,
                split=split,
                file=str(path.relative_to(run.root)),
                total=len(episodes),
            )
            chosen = choose(episodes, max(1, limit // len(splits)))
            groups.append(Group(shown, journals.episodes_at(path, chosen)))
    return groups


def choose(episodes: list[Brief], limit: int) -> list[Brief]:
    """Some of the episodes, most wanted first: failures and successes in turn, task types in turn within each, and
    otherwise by content key, which is as good as chance and the same every time."""
    failures, successes = (
        _in_turn([e for e in episodes if e.success is success], lambda e: e.kind) for success in (False, True)
    )
    mixed: list[Brief] = []
    while len(mixed) < limit:
        drawn = [one for one in (next(failures, None), next(successes, None)) if one is not None]
        if not drawn:
            break
        mixed += drawn
    return mixed[:limit]


def _in_turn(episodes: list[Brief], group: Callable[[Brief], str]) -> Iterator[Brief]:
    piles: dict[str, list[Brief]] = {}
    for episode in sorted(episodes, key=lambda e: (group(e), e.key)):
        piles.setdefault(group(episode), []).append(episode)
    for rank in range(max(map(len, piles.values()), default=0)):
        yield from (pile[rank] for pile in piles.values() if rank < len(pile))


# ---- files of other shapes -----------------------------------------------------------------------------------------


def _training(recipe: Recipe, run: RunDirectory) -> list[dict[str, Any]]:
    found = []
    for i in range(recipe.iterations + 1):
        content = _json(marker(run.checkpoint(i)), dict, [])
        if content:
            result = content.get("result")
            found.append({"iteration": i, **(result if isinstance(result, dict) else {})})
    return found


def _costs(run: RunDirectory, costs: Costs | None) -> list[Cost]:
    """Sums in the ledger's order. Its own name for the price is `cost`; what else it tells is passed by."""
    if not run.calls.exists():
        return []
    entries = costs() if costs is not None else [total.as_dict() for total in read_totals(run.calls)]
    named = [{"usd": entry.get("cost", 0.0), **entry} for entry in entries]
    return [Cost.model_validate({key: entry[key] for key in Cost.model_fields if key in entry}) for entry in named]


def _stage(entry: Any) -> StageTime:
    values = dict(entry) if isinstance(entry, dict) else {}
    seconds = values.pop("seconds", 0)
    iteration = values.pop("iteration", -1)
    return StageTime(
        stage=str(values.pop("stage", "")),
        iteration=iteration if isinstance(iteration, int) else -1,
        what=str(values.pop("what", "")),
        seconds=seconds if isinstance(seconds, int | float) else 0,
        figures=values,
    )


def _provenance(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    if not path.exists():
        notes.append(f"{path.name} is missing: versions and machine are not known.")
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # torn by a kill; the next start wrote its own line
        if isinstance(entry, dict):
            found.append(entry)
    return found


def _json(path: Path, shape: type[list] | type[dict], notes: list[str]) -> Any:
    if not path.exists():
        return shape()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        _log.warning("%s cannot be read: %s", path, error)
        notes.append(f"{path.parent.name}/{path.name} cannot be read and is left out.")
        return shape()
    return content if isinstance(content, shape) else shape()
