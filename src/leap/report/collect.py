"""Reads a run directory, finished or not, into a `Report`. Reads only: a report may be made while the run goes on.

Journals are read a record at a time, and of each episode only what the page needs is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from operator import itemgetter
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError

from leap.core import Correction, Episode, Tried
from leap.evaluation import Evaluation
from leap.files import read_at
from leap.loop import best_on_validation
from leap.models.ledger import read_totals
from leap.recipe import Recipe, dump_recipe
from leap.report import words
from leap.report.index import CIRCLES, Brief, Corrections, Index, Taught
from leap.report.model import (
    Comparison,
    CorrectedEpisode,
    CorrectionSummary,
    Cost,
    Failures,
    PolicyScores,
    Report,
    Setup,
    Shown,
    StageTime,
)
from leap.report.sections import read_sections
from leap.runs.directory import Played, RunDirectory, marker
from leap.runs.policies import baselines_of, teacher_acting
from leap.runs.provenance import starts
from leap.runs.table import stage_table
from leap.stats import wilson
from leap.training.losses import Curve, loss_curves
from leap.training.method import method_of

T = TypeVar("T")


@dataclass
class Group:
    """A file of episodes, what the page says about it, those it may show, most wanted first, and corrections by episode and
    step."""

    file: Played
    shown: Shown
    episodes: list[Episode]
    corrections: dict[str, dict[int, Correction]] = field(default_factory=dict)


def collect(
    recipe: Recipe, run: RunDirectory, *, per_group: int, index: Index | None = None
) -> tuple[Report, list[Group]]:
    """Everything the report says, but for the trajectories, and the episodes from which those are taken: of each iteration's
    training episodes, and of all test episodes, at most `per_group`. An index has what was read of the journals before.

    Raises:
        RunError: A file is damaged.
    """
    gone = [str(path.relative_to(run.root)) for path in run.manifest.check()]
    notes = [f"Weights are not there any more, nor what training noted of them: {', '.join(gone)}."] if gone else []
    setup = _setup(recipe)
    source = Source(recipe, run, index or Index())
    source.look(notes)
    policies = [*_students(recipe, run, notes), *_baselines(recipe, run, notes)]
    for policy in policies:
        for split, evaluation in policy.evaluations.items():
            if share := evaluation.overall.shortened:
                prompts = f"{share:.1%} of the prompts of {policy.label} on {split}"
                notes.append(f"{prompts} were too long; their oldest steps were left out.")
    chosen = _chosen(policies, setup.validation)
    comparisons = _comparisons(setup, source, chosen, policies) if chosen else []
    files = source.files(policies, chosen)
    told = [(one, shown) for one, shown in files if one.kind == "episodes" and not one.part]
    told += [(one, shown) for one, shown in files if chosen and one.policy == chosen.name and one.split in setup.test]
    tests = max(1, per_group // max(len(setup.test), 1))
    groups = [source.group(one, shown, tests if one.policy else per_group) for one, shown in told]
    report = Report(
        name=recipe.name,
        setup=setup,
        best=chosen.iteration if chosen else None,
        headline=words.headline(chosen, comparisons, setup, teacher_acting(recipe, 0)) if chosen else [],
        policies=policies,
        comparisons=comparisons,
        corrections=[_summary(source, group) for group in groups if group.shown.role == "rollouts"],
        sections=read_sections(recipe, run, notes),
        costs=[
            Cost(usd=one.cost, **{name: getattr(one, name) for name in Cost.model_fields if name != "usd"})
            for one in read_totals(run.calls)
        ],
        training=[{"iteration": i, **_noted(content)} for i, content in source.markers.items()],
        losses={i: curves for i in range(recipe.iterations + 1) if (curves := source.losses(i))},
        failures=[found for one, shown in files if (found := _failures(shown, source.episodes(one)))],
        stages=_read(run.stages, list[StageTime], notes) or [],
        provenance=_provenance(run.provenance, notes),
        shown=[group.shown for group in groups],
        notes=notes,
        recipe=run.recipe.read_text(encoding="utf-8") if run.recipe.exists() else dump_recipe(recipe),
    )
    return report, groups


_CORRECTORS = {"expert": words.SCRIPT, "self": "the student itself", "search": "search by the student itself"}
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


def _comparisons(setup: Setup, source: Source, chosen: PolicyScores, policies: list[PolicyScores]) -> list[Comparison]:
    found = []
    for split in (split for split in setup.test if split in chosen.evaluations):
        mine = source.solved(chosen, split)
        for other in policies:
            if split in other.evaluations and other is not chosen and (other.role != "student" or other.iteration == 0):
                found.append(words.compare(split, chosen, other, mine, source.solved(other, split)))
    return found


# ---- episodes ------------------------------------------------------------------------------------------------------


class Source:
    """The journals of a run.

    Attributes:
        markers: By i, what the checkpoint of pi_i says of itself: its key and what training noted.
    """

    def __init__(self, recipe: Recipe, run: RunDirectory, index: Index) -> None:
        self.recipe, self.run, self.index = recipe, run, index
        self.markers: dict[int, Mapping[str, JsonValue]] = {}

    def look(self, notes: list[str]) -> None:
        """Reads the markers."""
        files = {i: marker(self.run.checkpoint(i)) for i in range(self.recipe.iterations + 1)}
        found = {i: _read(file, dict[str, JsonValue], notes) for i, file in files.items()}
        self.markers = {i: content for i, content in found.items() if content}

    def files(self, policies: Iterable[PolicyScores], chosen: PolicyScores | None) -> list[tuple[Played, Shown]]:
        """Every journal of episodes, those to train from first, with what a page says of it."""
        labels = {policy.name: policy.label for policy in policies}
        if chosen:
            labels[chosen.name] += " (the chosen one)"
        files = ((one, self._shown(one, labels)) for one in self.run.played_files())
        splits = [self.recipe.environment.validation, *self.recipe.environment.test]
        place = {split: place for place, split in enumerate(splits)}
        return sorted(
            ((one, shown) for one, shown in files if shown.total),
            key=lambda pair: (bool(pair[0].policy), pair[0].iteration < 0, place.get(pair[0].split, 0)),
        )

    def _shown(self, one: Played, labels: Mapping[str, str]) -> Shown:
        recipe, i = self.recipe, one.iteration
        role: Literal["demonstrations", "rollouts", "test", "other"] = "test" if one.policy else "other"
        if one.kind == "episodes":
            acts = self.acts(i)
            role, title = ("rollouts", f"rollouts of {acts}") if i else ("demonstrations", f"demonstrations by {acts}")
        elif one.policy:
            label = labels.get(one.policy) or (words.pi(i) if i >= 0 else one.policy)
            title = f"episodes of {label} on {one.split}"
        else:
            scripts = {"with-state": "the teacher's play of demonstrated tasks", "expert": "the expert's play of the same tasks"}
            title = scripts.get(one.kind) or f"in another world, iteration {i}: {one.split}"
        return Shown(
            title=title + (f", part {one.part}" if one.part else ""),
            role=role,
            iteration=i,
            split=one.split or recipe.environment.train,
            file=one.path.relative_to(self.run.root).as_posix(),
            total=len(self.episodes(one)),
        )

    def acts(self, i: int) -> str:
        """Who acts in the episodes that pi_i is trained from."""
        recipe = self.recipe
        return words.acting(recipe.rollouts.beta_at(i), words.pi(i - 1)) if i else recipe.demonstrations.who

    def episodes(self, one: Played) -> list[Brief]:
        """The episodes of a journal: of a student's evaluation those of pi_i as it is now, for an earlier checkpoint of that
        iteration may have left some in the same file."""
        found, key = self.index.episodes(one.path), self.markers.get(one.iteration, {}).get("key")
        mine = one.kind == "evaluation" and one.iteration >= 0 and key is not None
        return [brief for brief in found if brief.checkpoint == key] if mine else found

    def solved(self, policy: PolicyScores, split: str) -> dict[str, bool]:
        """Whether the policy solved each task; nothing where the episodes on file are not those that were scored."""
        horizon, score = policy.evaluations[split].horizon, policy.evaluations[split].overall
        i = -1 if policy.iteration is None else policy.iteration
        played = self.episodes(Played(self.run.played(policy.name, split), i, "evaluation", policy.name, split, ""))
        solved = {one.task: one.success for one in played if one.horizon == horizon}
        return solved if len(solved) == score.n and sum(solved.values()) == round(score.success * score.n) else {}

    def taught(self, one: Played) -> Corrections:
        """What was made of the episodes of a journal."""
        path = self.run.corrections(one.iteration)
        is_corrected = one.kind == "episodes" and not one.part
        return self.index.corrections(path, self.episodes(one)) if is_corrected else Corrections()

    def group(self, one: Played, shown: Shown, limit: int) -> Group:
        """Some episodes of a journal, whole, with their corrections."""
        briefs = self.episodes(one)
        episodes = [read_at(one.path, Episode, brief.place) for brief in choose(briefs, limit)]
        return Group(one, shown, episodes, self.corrections(one, episodes))

    def corrections(self, one: Played, episodes: Iterable[Episode]) -> dict[str, dict[int, Correction]]:
        """The corrections of some episodes of a journal, by episode and step."""
        of, path = self.taught(one).of, self.run.corrections(one.iteration)
        places = {episode.key: enumerate(of.get(episode.key, Taught()).places) for episode in episodes}
        return {key: {t: read_at(path, Correction, at) for t, at in own if at >= 0} for key, own in places.items()}

    def losses(self, i: int) -> list[Curve]:
        """The losses of pi_i's training, be it under way."""
        if (known := self.markers.get(i, {}).get("losses")) is not None:
            return TypeAdapter(list[Curve]).validate_python(known)
        return loss_curves(self.run.losses(i), len(method_of(self.recipe.training).planned_steps(i)))


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


def _summary(source: Source, group: Group) -> CorrectionSummary:
    """What the teacher made of an iteration's rollouts."""
    episodes, found = source.episodes(group.file), source.taught(group.file)
    corrected = [
        CorrectedEpisode(
            key=one.key, id=one.id, kind=one.kind, success=one.success, steps=one.steps, kept=found.of[one.key].kept
        )
        for one in sorted(episodes, key=lambda one: (one.kind, one.id))
        if one.key in found.of
    ]
    solved = sum(one.success for one in episodes)
    low, high = wilson(solved, len(episodes))
    return CorrectionSummary(
        iteration=group.file.iteration,
        acts=source.acts(group.file.iteration),
        episodes=len(episodes),
        broken_off=sum(one.stop.untold for one in episodes),
        solved=solved,
        low=low,
        high=high,
        rejected=dict(sorted(found.rejected.items())),
        corrected=corrected,
        tried=Tried.over(found.measured),
        **found.counts,
    )


def _failures(shown: Shown, episodes: list[Brief]) -> Failures | None:
    failed = [one for one in episodes if not one.success]
    if not failed or shown.role == "other":
        return None
    return Failures(
        who=shown.title.removeprefix("episodes of ")
        + (f" (iteration {shown.iteration})" if shown.role == "rollouts" else ""),
        n=len(episodes),
        failed=len(failed),
        stops=dict(Counter(one.stop.value for one in failed).most_common()),
        unread=sum(one.unread > 0 for one in failed),
        odd=sum(one.odd > 0 for one in failed),
        circles=sum(one.again >= CIRCLES for one in failed),
        errors=dict(Counter(one.error for one in failed if one.error).most_common(3)),
    )


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
