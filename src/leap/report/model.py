"""What a report holds: the JSON twin's schema. Trajectories are not in it; the run's own journals have them in full."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

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
    first: str = "behaviour cloning"


class PolicyScores(Record):
    """One policy's evaluations.

    Attributes:
        name: As in the run directory: pi_2, expert, teacher-0.
        label: As written on the page.
        short: The label where there is little room.
        role: Which part it plays; the page colours by it.
        iteration: i of pi_i.
        privilege: Privilege level of a teacher.
        evaluations: By split.
    """

    name: str
    label: str
    short: str
    role: Literal["student", "expert", "teacher", "other"]
    iteration: int | None = None
    privilege: int | None = None
    evaluations: dict[str, Evaluation] = Field(default_factory=dict)


class Comparison(Record):
    """The chosen student against another policy on one test split.

    Attributes:
        split: The test split.
        policy, against: Names of the two.
        difference: Difference of the two success rates.
        relation: "clearly" where the two 95 % intervals do not overlap.
        tasks: Tasks both played; the next two are counted on these.
        only_policy, only_against: Tasks that one of them alone solved.
        p: Two-sided exact sign test on those (McNemar); None if the episodes are not on file.
        words: All this as a sentence.
    """

    split: str
    policy: str
    against: str
    difference: float
    relation: Relation
    tasks: int = 0
    only_policy: int = 0
    only_against: int = 0
    p: float | None = None
    words: str = ""


class CorrectedEpisode(Record):
    """An episode that was corrected."""

    key: str
    id: str
    kind: str
    success: bool
    steps: int
    kept: int


class CorrectionSummary(Record):
    """What the teacher made of one iteration's rollouts.

    Attributes:
        iteration: i; the episodes are those of pi_{i-1} on the training tasks.
        episodes: Episodes rolled out.
        solved: Solved ones among them.
        low, high: 95 % Wilson interval of the share solved.
        corrections: Steps corrected.
        kept: Corrections that may train.
        kept_same: Kept ones that repeat the student's own action.
        rejected: The others, by cause.
        acted: Corrections that name an action.
        agreed: Those among them that name the student's own action.
        leaked: Corrections whose reason names what the student had not seen.
        corrected: The episodes corrected.
    """

    iteration: int
    episodes: int
    solved: int
    low: float
    high: float
    corrections: int = 0
    kept: int = 0
    kept_same: int = 0
    rejected: dict[str, int] = Field(default_factory=dict)
    acted: int = 0
    agreed: int = 0
    leaked: int = 0
    corrected: list[CorrectedEpisode] = Field(default_factory=list)


class StageTime(Record):
    """A finished stage: how long it took, and its other figures."""

    stage: str
    iteration: int
    what: str
    seconds: float
    figures: dict[str, Any] = Field(default_factory=dict)


class Cost(Record):
    """What a stage paid for one model, by the run's ledger.

    Attributes:
        stage: The stage of the loop that paid.
        model: `provider/model`.
        calls: Paid calls.
        failed: Calls that failed after all retries.
        tokens_in, tokens_out: Tokens read and written.
        tokens_cached: How many of those read came from the provider's cache.
        usd: Price, in US dollars.
    """

    stage: str
    model: str
    calls: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    usd: float = 0.0


class Shown(Record):
    """Which episodes of a file the page shows.

    Attributes:
        title: The group's title.
        role: Where they come from.
        iteration: The iteration whose folder holds them.
        split: Their split.
        file: Where all of them are, relative to the run directory.
        total: Episodes in the file.
        keys: Keys of those shown.
    """

    title: str
    role: Literal["demonstrations", "rollouts", "test"]
    iteration: int
    split: str
    file: str
    total: int
    keys: list[str] = Field(default_factory=list)


class Report(Record):
    """Everything the page says, for programs.

    Attributes:
        format: Version of this schema.
        name: The run's name.
        setup: Conditions of all numbers.
        best: i of the pi_i that did best on the validation split; None if none has been evaluated there.
        headline: The result in sentences.
        policies: All that were evaluated: students by i, then baselines.
        comparisons: The best student against the others, on each test split.
        corrections: By iteration.
        sections: What the sections of other packages say, by their names.
        costs: By stage and model; empty where nothing was paid.
        training: By iteration, what training noted of itself.
        stages: Finished stages in the order they finished.
        provenance: Versions and machine of each start.
        shown: Which trajectories the page shows.
        notes: What is missing or could not be shown, for people.
        recipe: The resolved recipe as YAML.
    """

    format: int = 3
    name: str
    setup: Setup
    best: int | None = None
    headline: list[str] = Field(default_factory=list)
    policies: list[PolicyScores] = Field(default_factory=list)
    comparisons: list[Comparison] = Field(default_factory=list)
    corrections: list[CorrectionSummary] = Field(default_factory=list)
    sections: dict[str, Any] = Field(default_factory=dict)
    costs: list[Cost] = Field(default_factory=list)
    training: list[dict[str, Any]] = Field(default_factory=list)
    stages: list[StageTime] = Field(default_factory=list)
    provenance: list[dict[str, Any]] = Field(default_factory=list)
    shown: list[Shown] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    recipe: str = ""

    def policy(self, name: str) -> PolicyScores | None:
        """Returns the policy of that name."""
        return next((policy for policy in self.policies if policy.name == name), None)

    def evaluated(self, split: str) -> list[PolicyScores]:
        """Returns the policies that were evaluated on a split."""
        return [policy for policy in self.policies if split in policy.evaluations]

    @property
    def costs_total(self) -> Cost:
        """The sum of all costs."""
        numbers = ("calls", "failed", "tokens_in", "tokens_out", "tokens_cached", "usd")
        sums = {name: sum(getattr(one, name) for one in self.costs) for name in numbers}
        return Cost(stage="total", model="", **sums)

    @property
    def compared(self) -> list[PolicyScores]:
        """The policies of the comparison: the best student, pi_0, the baselines."""
        best = [policy for policy in self.policies if policy.iteration is not None and policy.iteration == self.best]
        return best + [p for p in self.policies if p not in best and (p.role != "student" or p.iteration == 0)]

    @property
    def splits(self) -> list[str]:
        """The splits that anything was evaluated on: validation first, then the test splits in the recipe's order."""
        seen = {split for policy in self.policies for split in policy.evaluations}
        return [split for split in dict.fromkeys((self.setup.validation, *self.setup.test)) if split in seen]

    @property
    def scored(self) -> list[str]:
        """Those of them on which scores have parts (a shop's, say): there the score says more than success alone."""
        return [
            split for split in self.splits if any(p.evaluations[split].overall.parts for p in self.evaluated(split))
        ]
