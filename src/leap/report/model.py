"""What a report holds: the JSON twin's schema. Trajectories are not in it; the run's own journals have them in full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from leap.core import Tried
from leap.core.record import Record
from leap.evaluation import Evaluation

Relation = Literal["clearly above", "above", "level", "below", "clearly below"]


class Setup(Record):
    """The conditions under which every number of the report was obtained; `first` says what pi_0 is."""

    environment: str
    model: str
    method: str
    renderer: str
    decoding: str
    temperature: float
    evaluation_temperature: float
    seed: int
    iterations: int
    horizon: int
    evaluation_horizon: int
    train: str
    validation: str
    test: list[str]
    teacher: str
    privilege: int
    corrected: str
    first: str


class PolicyScores(Record):
    """One policy's evaluations, by split. It has a name in the run directory (pi_2, expert, teacher-0), and on the page a label
    and a short one; the page colours by its role."""

    name: str
    label: str
    short: str
    role: Literal["student", "expert", "teacher", "other"]
    iteration: int | None = None
    privilege: int | None = None
    evaluations: dict[str, Evaluation]


class Comparison(Record):
    """The chosen student against another policy on one test split.

    Attributes:
        difference: Difference of the two success rates.
        relation: "clearly" where the two 95 % intervals do not overlap.
        tasks: Tasks both played; `only_policy` and `only_against` are those that one of them alone solved.
        p: Two-sided exact sign test on those (McNemar); None if the episodes are not on file.
        words: All this as a sentence.
    """

    split: str
    policy: str
    against: str
    difference: float
    relation: Relation
    tasks: int
    only_policy: int
    only_against: int
    p: float | None
    words: str = ""


@dataclass(frozen=True, slots=True)  # a tenth of a record in memory: a report may hold thousands
class CorrectedEpisode:
    """An episode that was corrected, and how many of its corrections were kept."""

    key: str
    id: str
    kind: str
    success: bool
    steps: int
    kept: int


class CorrectionSummary(Record):
    """What the teacher made of one iteration's rollouts on the training tasks.

    Attributes:
        acts: Who acted in them, in words: pi_{i-1}, the environment's scripted teacher, or both.
        broken_off: Episodes that an error of a model or of the environment ended.
        low, high: 95 % Wilson interval of the share of episodes solved.
        corrections: Steps corrected.
        kept: Corrections that may train; `kept_same` of them repeat the action that was taken.
        rejected: The others, by cause.
        acted: Corrections that name an action; `agreed` of them name the one that was taken.
        leaked: Corrections whose reason names what the student had not seen.
        tried: What trying came to, where the teacher tries things.
    """

    iteration: int
    acts: str
    episodes: int
    broken_off: int
    solved: int
    low: float
    high: float
    corrections: int
    kept: int
    kept_same: int
    rejected: dict[str, int]
    acted: int
    agreed: int
    leaked: int
    tried: Tried | None = None
    corrected: list[CorrectedEpisode]


class Failures(Record):
    """Why the episodes of a journal failed.

    Attributes:
        who: Whose episodes, on which split.
        n, failed: How many there are, and how many of them failed.
        stops: The failed ones by how they ended.
        unread, odd, circles: Failed ones with an answer in which no action could be read, with an action that was not admissible,
            and that took an action several times where it had been taken before.
        errors: The most frequent errors that ended them.
    """

    who: str
    n: int
    failed: int
    stops: dict[str, int]
    unread: int
    odd: int
    circles: int
    errors: dict[str, int]


class StageTime(Record):
    """A finished stage: how long it took, and its other figures, which `stages.json` has beside the rest."""

    stage: str
    iteration: int
    what: str
    seconds: float
    figures: dict[str, JsonValue]

    @model_validator(mode="before")
    @classmethod
    def _gather_figures(cls, values: object) -> object:
        if not isinstance(values, Mapping):
            return values
        own = {key: value for key, value in values.items() if key in cls.model_fields}
        return {"figures": {key: value for key, value in values.items() if key not in own}} | own


class Cost(Record):
    """What a stage paid for one model (`provider/model`), by the run's ledger.

    Attributes:
        failed: Calls that failed after all retries; `calls` are the paid ones.
        tokens_cached: How many of the tokens read came from the provider's cache.
    """

    stage: str
    model: str
    calls: int
    failed: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    usd: float


class Shown(Record):
    """Which episodes of a file the page shows: those of `keys`, out of `total`. The file is relative to the run directory."""

    title: str
    role: Literal["demonstrations", "rollouts", "test", "other"]
    iteration: int
    split: str
    file: str
    total: int
    keys: list[str] = Field(default_factory=list)


class Report(Record):
    """Everything the page says, for programs.

    Attributes:
        best: i of the pi_i that did best on the validation split; None if none has been evaluated there.
        headline: The result in sentences.
        policies: All that were evaluated: students by i, then baselines.
        sections: What the sections of other packages say, by their names.
        training: By iteration, what training noted of itself.
        losses: Curves of (step, loss) by iteration: of each part of the method one.
        provenance: Versions and machine of each start.
        notes: What is missing or could not be shown, for people.
    """

    format: int = 4
    name: str
    setup: Setup
    best: int | None
    headline: list[str]
    policies: list[PolicyScores]
    comparisons: list[Comparison]
    corrections: list[CorrectionSummary]
    sections: dict[str, object]
    costs: list[Cost]
    training: list[dict[str, JsonValue]]
    losses: dict[int, list[list[tuple[int, float]]]]
    failures: list[Failures]
    stages: list[StageTime]
    provenance: list[dict[str, object]]
    shown: list[Shown]
    notes: list[str]
    recipe: str

    def evaluated(self, split: str) -> list[PolicyScores]:
        """Returns the policies that were evaluated on a split."""
        return [policy for policy in self.policies if split in policy.evaluations]

    @property
    def chosen(self) -> PolicyScores | None:
        """The best student."""
        return next((p for p in self.policies if p.iteration is not None and p.iteration == self.best), None)

    @property
    def compared(self) -> list[PolicyScores]:
        """The policies of the comparison: the best student, pi_0, the baselines."""
        best = [self.chosen] if self.chosen else []
        return best + [p for p in self.policies if p not in best and (p.role != "student" or p.iteration == 0)]

    @property
    def costs_total(self) -> Cost:
        """The sum of all costs."""
        numbers = Cost.model_fields.keys() - {"stage", "model"}
        sums = {name: sum(getattr(one, name) for one in self.costs) for name in numbers}
        return Cost(stage="total", model="", **sums)

    @property
    def splits(self) -> list[str]:
        """The splits that anything was evaluated on: validation first, then the test splits in the recipe's order."""
        return [split for split in dict.fromkeys((self.setup.validation, *self.setup.test)) if self.evaluated(split)]

    @property
    def scored(self) -> list[str]:
        """Those of them on which scores have parts (a shop's, say): there the score says more than success alone."""
        return [s for s in self.splits if any(p.evaluations[s].overall.parts for p in self.evaluated(s))]
