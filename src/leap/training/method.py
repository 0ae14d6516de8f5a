"""What a training method is. To add one, derive from `Method` and register the class (see `leap.registry`).

Imports no training library, so that recipes are read at once; a method's module should import them where it trains.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from leap import registry
from leap.core import Correction, Episode, PrivilegedState, Task
from leap.datasets import PreferenceRow, Row
from leap.errors import RunError
from leap.policies.rendering import Renderer
from leap.training.config import TrainingSettings
from leap.training.losses import Curve

if TYPE_CHECKING:
    from leap.recipe import Recipe
    from leap.teachers.prompts import PrivilegedRenderer

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""

C = TypeVar("C", bound=TrainingSettings)


def quiet(done: int, total: int, loss: float) -> None:
    """Shows no progress."""


def unnoticed(state: Path) -> None:
    """Takes no notice of a state."""


def diverged(step: int, sign: str) -> RunError:
    """What to say of a training that has gone astray, as `sign` shows. Nothing of it is kept but states from before."""
    return RunError(
        f"the training diverged at step {step}: {sign}. pi_i is not made, and what it started from stays as it was. Set a "
        "lower training.lr (muon: also training.muon_lr) or training.max_grad_norm, in a run of another name."
    )


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training did.

    Attributes:
        rows: Rows in the union (preference methods: pairs), of which `too_long` exceed max_tokens and are left out.
        tokens: Tokens computed, prompts included; `answer_tokens` of them bore loss.
        loss: Mean loss over the last tenth of the steps: of SFT, nats per answer token.
        seconds: Wall-clock time.
        rewards: Of preference methods, over the same steps: mean implicit rewards of the chosen and the rejected, their
            margin, and the share of pairs in which the chosen has more.
        losses: The curve of the loss, as far as the method tells it.
        first: What the SFT before a preference tuning did.
        figures: What a method measured of itself, as JSON, for a section of the report.
    """

    steps: int
    rows: int
    too_long: int
    tokens: int
    answer_tokens: int
    loss: float
    seconds: float
    rewards: dict[str, float] = field(default_factory=dict)
    losses: Curve = field(default_factory=list)
    first: TrainingResult | None = None
    figures: dict[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """For JSON, without the curves."""
        values, optional = asdict(self), ("rewards", "figures")
        told: dict[str, object] = {key: value for key, value in values.items() if value or key not in optional}
        del told["losses"], told["first"]
        if self.first is not None:
            told["first"] = self.first.as_dict()
        return told

    @property
    def curves(self) -> list[Curve]:
        """The losses of each part of the method, as far as it tells them."""
        return [part for part in (self.first.losses if self.first else [], self.losses) if part]


@dataclass(frozen=True, slots=True)
class Job:
    """A training to be done, in each of the processes that take part.

    Attributes:
        iteration: i of pi_i.
        start: Checkpoint directory or hub name of pi_{i-1}, or of the base; see `Method.starts_from`.
        out: Where to leave the trained checkpoint; only rank 0 writes.
        work: Folder for what an interrupted training goes on from.
        seed: Seed of the order of the rows.
        on_step: Called after each step; a method's parts count for themselves.
        on_state: Called by every process with the folder of each state that is saved; a function of a module.
    """

    iteration: int
    start: str
    out: Path
    work: Path
    seed: int
    on_step: Progress = quiet
    on_state: Callable[[Path], None] = unnoticed


@dataclass(frozen=True, slots=True)
class Collected:
    """What a run has collected when pi_i is to be trained. Everything is read when it is asked for.

    Attributes:
        iteration: i.
        rows, pairs: D_j as rows, and its corrections over the student's own answers, by j.
        episodes, corrections: Those of iteration j, rejected ones included, by j; episodes of 0 are the demonstrations.
        states: The privileged state before each step of an episode, from a replay of it.
        renderer, privileged: Make the student's prompts, without and with the privileged state in them.
        with_privilege: Of pi_j and so many validation tasks: the share that it solves, the share that it solves with the
            privileged state in its prompt, and how many tasks that were.
        plans_after: Of an episode and one of its steps: for each admissible action how many are left on the plan behind it, None
            where none leads to the goal.
        names_in: Of a task and a text: the things that it names.
        first: The first j of which there is a D_j: 0, or 1 where there are no demonstrations.
    """

    iteration: int
    rows: Callable[[int], list[Row]]
    pairs: Callable[[int], list[PreferenceRow]]
    episodes: Callable[[int], Iterable[Episode]]
    corrections: Callable[[int], Iterable[Correction]]
    states: Callable[[Episode], Sequence[PrivilegedState]]
    renderer: Renderer
    privileged: PrivilegedRenderer
    with_privilege: Callable[[int, int], tuple[float, float, int]]
    plans_after: Callable[[Episode, int], Mapping[str, int | None]]
    names_in: Callable[[Task, str], Iterable[str]]
    first: int = 0

    def union(self) -> list[Row]:
        """The union of D_0..D_i; rows of one episode stand together."""
        return [row for j in range(self.first, self.iteration + 1) for row in self.rows(j)]


class Method(ABC, Generic[C]):
    """How pi_i is made of pi_{i-1} (or the base) and what has been collected.

    Class attributes:
        Config: Its settings, the section `training` of a recipe.
        packages: What training imports that may be missing, beside what every student needs.
    """

    name: ClassVar[str]
    Config: ClassVar[type[TrainingSettings]]
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: C) -> None:
        self.config = config

    def check(self, recipe: Recipe) -> None:
        """Looks for what training needs on this machine, beside packages, before anything is spent.

        Raises:
            LeapError: It is not here, or does not fit.
        """

    def starts_from(self, i: int) -> Literal["base", "previous"]:
        """Where the training of pi_i starts: from the base, or from pi_{i-1}."""
        return "base" if i == 0 else "previous"

    def reads(self, i: int) -> Sequence[int]:
        """Which D_j the training of pi_i depends on, of those that there are."""
        return range(i + 1)

    def settings(self, i: int) -> dict[str, object]:
        """The settings that the weights of pi_i depend on: those of two recipes that agree in them can be shared."""
        return self.config.deciding()

    def planned_steps(self, i: int) -> Mapping[str, int | None]:
        """Optimizer steps of pi_i's training, by kind of step (`train`: of SFT); None where that depends on the rows."""
        return {"train": self.config.steps}

    def rows(self, collected: Collected) -> Any:
        """What pi_i is trained on, in whatever form `train` takes; with several processes it is sent to each."""
        return collected.union()

    def fingerprint(self, rows: Any) -> list[str]:
        """Keys of what is in the rows beyond the D_j on file, for the checkpoint's own key."""
        return []

    @abstractmethod
    def train(self, rows: Any, job: Job) -> TrainingResult:
        """Trains pi_i and leaves it in `job.out`.

        Raises:
            PrerequisiteError: A package or the checkpoint is missing.
            RecipeError: The settings do not fit the number of processes.
            RunError: No row can be used.
        """


def method_of(config: TrainingSettings) -> Method[Any]:
    """The method of a recipe's section `training`."""
    return registry.method.get(config.method)(config)
