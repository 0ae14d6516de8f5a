"""A study: one YAML file that states a claim and the experiment that tests it. Unknown keys are errors.

A study of the loop is a base recipe, arms that each change some of its keys, seeds, what is compared with what, and the
plots. On another base recipe (`LoopStudy.on`) it is the same experiment without what its `budget` says of its own.
Whoever acted is named `ARM/POLICY`: an arm's name, or `*` for each arm, then `pi_0`, `pi_1`, ..., `best` (chosen on
validation tasks), `last`, `expert`, `teacher` (who corrects in the arm, acting at the arm's own privilege), `teacher-0`,
..., `react` (the first model of baselines.react) or another baseline's folder. Who was not evaluated is left out.
`ARM/POLICY@KIND` is the same on tasks of that kind alone; in a mixture a kind is a part.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, JsonValue, field_validator, model_validator

from leap import registry
from leap.config import Section, under_kind
from leap.errors import RecipeError, suggest
from leap.recipe import Recipe, load_recipe, put, read_mapping, resolved
from leap.recipes import find_recipe
from leap.teachers.config import TeacherConfig

FOLDER = Path(__file__).parents[1] / "recipes"
"""Holds the studies that come with leap."""
_NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._+-]*$"
_POLICY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(@.+)?")

Changes = dict[str, JsonValue]
"""Values of a recipe by dotted key; each replaces what stands there, as `--set` does."""


class Ref(NamedTuple):
    """Who acted: an arm of the study, and a policy of it."""

    arm: str
    policy: str

    def __str__(self) -> str:
        return f"{self.arm}/{self.policy}"


class Axis(Section):
    """A key of the recipe that takes several values; each value is an arm, or one of each arm there is."""

    key: str = Field(description="Dotted key of the recipe, for example teacher.privilege.")
    values: list[JsonValue] = Field(min_length=1, description="What it is set to, in turn.")
    label: str = Field(default="", description="Name of the axis in plots; the key if empty.")


class Contrast(Section):
    """Two policies compared on the same tasks and seeds."""

    policy: str = Field(description="ARM/POLICY the sentence is about; `*` for each arm but the other's.")
    against: str = Field(description="ARM/POLICY it is compared with; `*` for the same arm.")


class IterationsPlot(Section):
    """Success by iteration, one line per arm, seeds as points."""

    kind: Literal["iterations"]
    arms: list[str] = Field(default_factory=list, description="Arms drawn; all if empty.")
    lines: list[str] = Field(default_factory=list, description="ARM/POLICY drawn as horizontal lines.")

    @property
    def patterns(self) -> list[str]:
        """ARM/POLICY of what is drawn besides every pi_i."""
        return self.lines


class PoliciesPlot(Section):
    """Success of some policies side by side, seeds as points."""

    kind: Literal["policies"]
    show: list[str] = Field(default_factory=list, description="ARM/POLICY drawn, in order; all of the table's if empty.")

    @property
    def patterns(self) -> list[str]:
        """ARM/POLICY of what is drawn."""
        return self.show


class AxisPlot(Section):
    """Success along the study's axis, one line per policy, seeds as points."""

    kind: Literal["axis"]
    policies: list[str] = Field(min_length=1, description="Policies drawn, for example best and teacher.")
    gap: bool = Field(default=False, description="Draw the realizability gap below (needs measures.held_out).")

    @property
    def patterns(self) -> list[str]:
        """ARM/POLICY of what is drawn."""
        return [f"*/{policy}" for policy in self.policies]


Plot = Annotated[IterationsPlot | PoliciesPlot | AxisPlot, Field(discriminator="kind")]


class _Study(Section):
    name: str = Field(description="The study's name.", pattern=r"^[a-z0-9][a-z0-9-]*$")
    claim: str = Field(description="The paper's claim, in one sentence.")
    hypothesis: str = Field(description="What this experiment would have to show, in one sentence.")
    notes: list[str] = Field(default_factory=list, description="What a reader must know of the set-up, told on the page.")
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1, description="Seeds of the whole experiment.")

    @field_validator("seeds")
    @classmethod
    def _counts_each_once(cls, seeds: list[int]) -> list[int]:
        if len({*seeds}) < len(seeds):
            raise ValueError("a seed stands there twice; the same runs would be counted as others")
        return seeds

    @field_validator("name")
    @classmethod
    def _is_no_command(cls, name: str) -> str:
        if name == "list":
            raise ValueError("`list` lists the studies; choose another name")
        return name


class LoopStudy(_Study):
    """An experiment with the loop."""

    kind: Literal["loop"] = Field(default="loop", description="loop.")
    recipe: str = Field(description="The base recipe: the name of one that comes with leap, or a path relative to this file.")
    settings: Changes = Field(default_factory=dict, description="What every arm changes of it, by dotted key.")
    arms: dict[Annotated[str, Field(pattern=_NAME)], Changes] = Field(
        default_factory=dict, description="What each arm changes beyond that."
    )
    budget: dict[str, Changes] = Field(
        default_factory=dict,
        description="What an arm (`*`: each) changes besides, on this file's base recipe alone: numbers of steps and tasks, "
        "learning rates. Another base recipe states its own.",
    )
    budgets: dict[str, dict[str, Changes]] = Field(
        default_factory=dict, description="The same for other base recipes (`--recipe`), by their names."
    )
    axes: list[Axis] = Field(default_factory=list, description="Keys that take several values; arms are all combinations.")
    split: str = Field(default="unseen", description="The test split of every number; nothing is chosen on it.")
    table: list[str] = Field(default_factory=lambda: ["*/best"], description="ARM/POLICY in the table.")
    compare: list[Contrast] = Field(default_factory=list, description="Paired comparisons; the first is the hypothesis's.")
    plots: list[Plot] = Field(min_length=1, description="What is drawn.")

    def changes(self) -> dict[str, Changes]:
        """Returns what each arm changes of the base recipe, by the arm's name: all combinations of arms and axes."""
        combinations = list(itertools.product(*(axis.values for axis in self.axes)))  # one, empty, without axes
        made: dict[str, Changes] = {}
        for name, own in (self.arms or {"": {}}).items():
            for values in combinations:
                along = {axis.key: value for axis, value in zip(self.axes, values, strict=True)}
                changes = self.settings | self.budget.get("*", {}) | own | self.budget.get(name, {}) | along
                made[" ".join([*([name] if name else []), *map(str, values)])] = changes
        return made

    def on(self, recipe: Path, split: str | None = None) -> LoopStudy:
        """Returns this experiment on another base recipe, for example one with an 8B model.

        Args:
            recipe: The base recipe's file.
            split: The test split of every number; by default the study's own, or the recipe's last where it has no such.

        Raises:
            RecipeError: The recipe cannot be read, or has no such test split.
        """
        base = load_recipe(recipe)
        tests = base.environment.test
        chosen = split or (self.split if self.split in tests else tests[-1] if tests else None)
        if chosen not in tests:
            raise RecipeError(f"{recipe}: split {chosen!r} is not among environment.test ({', '.join(tests) or 'empty'})")
        note = f"On {recipe.name} instead of {Path(self.recipe).name}: numbers in the notes above are of the latter."
        return self.model_copy(
            update={
                "name": f"{self.name}-{recipe.stem.lower()}",
                "recipe": str(recipe.absolute()),
                "notes": [*self.notes, note],
                "split": chosen,
                "budget": self.budgets.get(recipe.stem, {}),
            }
        )

    def refs(self, pattern: str) -> list[Ref]:
        """Returns the policies that `ARM/POLICY` names."""
        arm, _, policy = pattern.rpartition("/")
        return [Ref(one, policy) for one in self.changes() if arm in (one, "*")]

    def contrasts(self) -> list[tuple[Ref, Ref]]:
        """Returns every pair to compare."""
        return [
            (first, second)
            for one in self.compare
            for first in self.refs(one.policy)
            for second in self.refs(one.against)
            if first != second and (first.arm == second.arm or not one.against.startswith("*/"))
        ]

    def shown(self) -> list[Ref]:
        """Returns the table's rows: what the file names, and whatever else is compared or drawn."""
        patterns = [*self.table, *(pattern for plot in self.plots for pattern in plot.patterns)]
        found = [ref for pattern in patterns for ref in self.refs(pattern)]
        return list(dict.fromkeys([*found, *itertools.chain.from_iterable(self.contrasts())]))

    @model_validator(mode="after")
    def _names_what_there_is(self) -> LoopStudy:
        arms = self.changes()
        if "" in arms:
            raise ValueError("give arms or axes: there is nothing that varies")
        named = [name for budget in (self.budget, *self.budgets.values()) for name in budget]
        if strange := [name for name in named if name not in {"*", *self.arms}]:
            raise ValueError(f"budget: there is no arm {strange[0]!r}; there are {', '.join(self.arms) or 'axes alone'}")
        compared = [pattern for one in self.compare for pattern in (one.policy, one.against)]
        for pattern in [*self.table, *compared, *(pattern for plot in self.plots for pattern in plot.patterns)]:
            arm, slash, policy = pattern.rpartition("/")
            if not slash or not _POLICY.fullmatch(policy):
                raise ValueError(f"{pattern!r} is not of the form ARM/POLICY")
            if arm not in ("*", *arms):
                raise ValueError(f"{pattern!r}: there is no arm {arm!r}; there are {', '.join(arms)}")
        for plot in self.plots:
            if isinstance(plot, AxisPlot) and (len(self.axes) != 1 or self.arms):
                raise ValueError("a plot of kind axis needs exactly one axis and no other arms")
            unknown = [arm for arm in plot.arms if arm not in arms] if isinstance(plot, IterationsPlot) else []
            if unknown:
                raise ValueError(f"plots: there is no arm {unknown[0]!r}; there are {', '.join(arms)}")
        return self


class SearchWorld(Section):
    """A family of tabular worlds (leap_lab.theory.world); the study's seeds draw the places' probabilities."""

    name: str = Field(description="Name of the family.")
    rooms: int = Field(default=6, ge=2, le=7, description="Places where the thing may be.")
    horizon: int = Field(default=4, ge=1, le=12, description="T.")
    answer: float = Field(ge=0, le=1, description="Probability that asking for the place is answered.")
    slip: float = Field(default=0.1, ge=0, lt=1, description="Probability that an action has no effect.")
    concentration: float = Field(gt=0, description="Dirichlet's parameter of the places' probabilities; small: peaked.")


class TheoryStudy(_Study):
    """The bound in worlds small enough to compute it exactly (leap_lab.theory)."""

    kind: Literal["theory"] = Field(description="theory.")
    worlds: list[SearchWorld] = Field(min_length=1, description="Families of worlds.")
    iterations: int = Field(default=8, ge=1, description="N, rounds of follow-the-leader.")
    levels: list[Annotated[int, Field(ge=0, le=100)]] = Field(
        default=[0, 25, 50, 75, 100], min_length=1, description="Privilege levels of the expert, in percent."
    )
    losses: list[Literal["l1", "log", "forward", "reverse"]] = Field(
        default=["l1", "log"],
        min_length=1,
        description="What students minimise: the bound's loss, SFT's, or forward or reverse KL to the expert.",
    )
    floor: float = Field(
        default=0.01, gt=0, lt=1, description="Of forward and reverse: the expert's probability of any action whatever."
    )


Study = LoopStudy | TheoryStudy


def available_studies() -> dict[str, Path]:
    """Returns the files of the studies that come with leap, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def find_study(name: str) -> Path:
    """Returns the file of a study, given by its name or its path.

    Raises:
        RecipeError: There is no such study.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    found = available_studies()
    if name not in found:
        raise RecipeError(f"there is no study {name!r}.{suggest(name, found)} There are: {', '.join(sorted(found))}.")
    return found[name]


def load_study(path: Path) -> Study:
    """Reads a study.

    Raises:
        RecipeError: The file is missing, is not YAML, or does not state a valid study.
    """
    values = read_mapping(path, "study")
    model = TheoryStudy if values.get("kind") == "theory" else LoopStudy
    return model.from_values(values, f"study {path}")


def base_recipe(study: LoopStudy, path: Path) -> Recipe:
    """Returns a study's base recipe; a relative path is looked for beside the study's own file.

    Raises:
        RecipeError: There is no such file and no recipe of that name.
    """
    return load_recipe(find_recipe(study.recipe, beside=path.parent))


def arm_recipe(study: LoopStudy, base: Recipe, arm: str, seed: int, overrides: Mapping[str, object]) -> Recipe:
    """Returns the recipe of one arm and seed: the base recipe, the arm's changes, and what a user overrides.

    Raises:
        RecipeError: They make no valid recipe.
    """
    values = base.model_dump(mode="json")
    changes = {**study.changes()[arm], **overrides}
    method = changes.get("training.method")
    if method is not None and method != values["training"]["method"]:
        # What the section says holds as far as the other method has such keys.
        config = registry.method.get(str(method)).Config
        values["training"] = config.in_place_of(values["training"]) | {"method": method}
    if (kind := changes.get("teacher.kind")) is not None:
        values["teacher"] = under_kind(registry.teacher, TeacherConfig, values["teacher"], str(kind))
    for key, value in changes.items():
        put(values, key, copy.deepcopy(value))
    values |= {"name": f"{study.name}-{run_name(arm, seed)}", "seed": seed}
    recipe = resolved(values, f"arm {arm!r} of study {study.name}")
    if study.split not in recipe.environment.test:
        raise RecipeError(f"arm {arm!r} of study {study.name}: split {study.split!r} is not among environment.test")
    return recipe


def run_name(arm: str, seed: int) -> str:
    """Returns the run directory's name."""
    return f"{re.sub(r'[^A-Za-z0-9._]+', '-', arm)}-{seed}"
