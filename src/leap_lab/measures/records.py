"""What iter-<i>/measures.json holds. Every figure has n and a 95 % interval; what could not be measured is null and
`notes` says why."""

from __future__ import annotations

from pydantic import Field

from leap.core.record import Record
from leap_lab.measures.figures import Figure


class Leakage(Record):
    """What reasons tell that a student could not have known. Shares of corrections.

    Attributes:
        entities, kept: The reason names an entity that stands nowhere in the student's history; of all corrections, and
            of those that may train.
        hidden, invented: It names such an entity, and the privileged state has it (a leak proper), or does not have it
            either.
        commands: It quotes a command of the privileged plan that the student has neither seen nor could give.
    """

    entities: Figure | None = None
    kept: Figure | None = None
    hidden: Figure | None = None
    invented: Figure | None = None
    commands: Figure | None = None


class Recoverability(Record):
    """What one action of the acting student costs if an optimal player took over, by the planner.

    Attributes:
        solvable: Share of episodes whose task can be done within the horizon.
        loss, loss_max: Mean and largest loss of a step in optimal remaining actions, steps into dead ends left out.
        losses: How many steps lost 0, 1, 2, ... actions.
        dead_ends: Share of steps, taken where the task could be done, after which no sequence of actions does it.
        lost: Share of steps after which the task can no longer be done within the horizon, and before which it could:
            the mean one-step loss in units of success.
        lost_differing, lost_agreeing: The same among steps where the student's action is not, or is, the teacher's.
        largest: The largest one-step loss in units of success, 0 or 1: the observed H.
        negative: Steps after which the plan was shorter than the planner had said; not 0 means it is not optimal.
    """

    solvable: Figure | None = None
    loss: Figure | None = None
    loss_max: int | None = None
    losses: list[int] = Field(default_factory=list)
    dead_ends: Figure | None = None
    lost: Figure | None = None
    lost_differing: Figure | None = None
    lost_agreeing: Figure | None = None
    largest: float | None = None
    negative: int = 0


class CorrectionMeasures(Record):
    """What corrections of one student's own states are like.

    Attributes:
        policy, split, horizon: Who acted (pi_<i>), on which tasks, for how many actions at most.
        episodes, corrected, corrections: Episodes given, those of them that were corrected, and steps corrected.
        kept, rejected: Share of corrections that may train, and of those rejected, by cause.
        leakage: What the reasons tell.
        agreement: Share of corrections, of those that name an action, that name the student's own.
        agreement_by_step: The same for step 0, 1, ...
        distance: Mean L1 distance of the student's and the teacher's actions over the horizon's steps, 0..2; only where
            every step of every episode was corrected.
        recoverability: What the student's actions cost; None where no planner tells.
    """

    policy: str
    split: str
    horizon: int
    episodes: int
    corrected: int
    corrections: int
    kept: Figure | None = None
    rejected: dict[str, Figure] = Field(default_factory=dict)
    leakage: Leakage = Field(default_factory=Leakage)
    agreement: Figure | None = None
    agreement_by_step: list[Figure | None] = Field(default_factory=list)
    distance: Figure | None = None
    recoverability: Recoverability | None = None


class LossSummary(Record):
    """Negative log-likelihood of corrections under pi_<i> (`policy`), in nats.

    Attributes:
        per_answer, per_token: Mean over answers (reason, action and the end of the turn), and over their tokens.
        action: Mean over answers of the action's part alone, given the corrected reason.
        missed: Mean over answers of 1 - probability: at least the total variation to the teacher's action.
        per_step: Mean over episodes of the sum over an episode's answers, per step of the horizon.
        left_out: Answers left out because they are too long for the student.
    """

    policy: str
    per_answer: Figure
    per_token: Figure
    action: Figure
    missed: Figure
    per_step: Figure
    left_out: int = 0


class Likelihood(Record):
    """The realizability gap: corrections of held-out episodes of pi_{i-1} under pi_{i-1} (`before`) and under pi_i
    (`after`), and the mean `change` per answer, of the same answers."""

    before: LossSummary
    after: LossSummary
    change: Figure


class Round(Record):
    """Round j of follow-the-leader: states of pi_{j-1}, in nats per step of the horizon.

    Attributes:
        iteration: j.
        played: Log loss of pi_{j-1}, which had to act before it saw them.
        hindsight: Log loss of pi_i, the leader after i rounds.
    """

    iteration: int
    played: Figure
    hindsight: Figure


class Terms(Record):
    """One reading of J(pi) >= J(pi^E) - T H (epsilon + gamma).

    Attributes:
        epsilon, gamma: Realizability error and average regret, L1 per step.
        total: epsilon + gamma, from which the floor is computed.
        floor: J(pi^E) - T H total. At or below 0 it says nothing.
        floor_low: The same at the pessimistic ends of the intervals.
    """

    epsilon: Figure
    gamma: Figure
    total: Figure
    floor: float
    floor_low: float | None = None


class Bound(Record):
    """The terms of the paper's bound beside what was measured, on the validation split, for pi_0..pi_i.

    Attributes:
        split, horizon: The split of every J, and T.
        teacher: J(pi^E): share of tasks solved when the teacher's own actions are executed, with privilege.
        success: J(pi_i).
        best, best_policy: J and name of the best of pi_0..pi_i, to which the bound applies.
        h, h_observed: H, the largest one-step loss in units of success if one was observed, else 1, always valid.
        actions: epsilon and gamma from the agreement of actions.
        log_loss, rounds: epsilon and gamma from log losses, each turned into L1 by Pinsker's inequality; the losses.
        mean_loss: Mean one-step loss of pi_i, in units of success, where its action is not the teacher's.
        expected: J(pi^E) less the mean number of such steps in an episode of pi_i times mean_loss: what is left of the
            bound for pi_i with means in place of the largest loss and of L1. An account of where success went, no bound.
    """

    split: str
    horizon: int
    teacher: Figure
    success: Figure
    best: Figure
    best_policy: str
    h: float
    h_observed: bool
    actions: Terms | None = None
    log_loss: Terms | None = None
    rounds: list[Round] = Field(default_factory=list)
    mean_loss: Figure | None = None
    expected: float | None = None


class IterationMeasures(Record):
    """Everything measured at iteration i.

    Attributes:
        format: Version of this schema.
        iteration: i.
        teacher, privilege: Name of the teacher that corrected, and its privilege level.
        training: Corrections D_i of pi_{i-1}'s rollouts on training tasks; None for i = 0.
        held_out: Corrections of pi_i's own episodes on validation tasks, on which nothing is ever trained.
        likelihood: The realizability gap, on held-out episodes of pi_{i-1}; None for i = 0.
        success, teacher_value: J(pi_i) and J(pi^E) on the validation split.
        bound: The bound's terms.
        notes: What is missing and why, for people.
    """

    format: int = 1
    iteration: int
    teacher: str = ""
    privilege: int | None = None
    training: CorrectionMeasures | None = None
    held_out: CorrectionMeasures | None = None
    likelihood: Likelihood | None = None
    success: Figure | None = None
    teacher_value: Figure | None = None
    bound: Bound | None = None
    notes: list[str] = Field(default_factory=list)
