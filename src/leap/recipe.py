"""A recipe: one YAML file that states a whole experiment. Every key is typed and documented; unknown keys are errors."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, JsonValue, SerializeAsAny, model_validator

from leap import registry
from leap.config import Options, Section, by_kind, default_config
from leap.demonstrations.sources import DemonstrationConfig, TutorDemonstrationConfig
from leap.errors import LeapError, RecipeError
from leap.models.base import Sampling
from leap.models.calls import CallsSection
from leap.models.engine import EngineConfig
from leap.models.ledger import Budget
from leap.models.prices import Price
from leap.models.providers import ModelConfig, provider_of
from leap.models.scratch import ScratchConfig
from leap.policies.base import PolicyConfig
from leap.policies.rendering import PromptConfig
from leap.teachers.config import LEVELS, TeacherConfig
from leap.training.config import TrainingSettings
from leap.value.config import ValueConfig

_MOST_VALUES = 100_000  # of a file: a thousand times those of any recipe


class ExecutorConfig(Section):
    """Base of an executor's options: where the work of a run is done. It changes no episode and no correction."""

    kind: str = Field(default="local", description="Registered executor; local works on this machine.")


def _best_of(section: object) -> object:
    """`{best_of: 8, value: RUN}` is short for `{kind: best-of, n: 8, value: RUN}`."""
    if isinstance(section, Mapping) and "best_of" in section and "kind" not in section:
        return {"kind": "best-of", **{"n" if key == "best_of" else key: one for key, one in section.items()}}
    return section


# Sections whose other keys depend on the kind of thing that they name.
PolicySection = Annotated[
    SerializeAsAny[PolicyConfig], by_kind(registry.policy, PolicyConfig, default="plain"), BeforeValidator(_best_of)
]
DemonstrationSection = Annotated[
    SerializeAsAny[DemonstrationConfig], by_kind(registry.demonstration, DemonstrationConfig, key="from", default="tutor")
]
TeacherSection = Annotated[SerializeAsAny[TeacherConfig], by_kind(registry.teacher, TeacherConfig, default="expert")]
TrainingSection = Annotated[
    SerializeAsAny[TrainingSettings], by_kind(registry.method, TrainingSettings, key="method", default="sft")
]
ExecutorSection = Annotated[SerializeAsAny[ExecutorConfig], by_kind(registry.executor, ExecutorConfig, default="local")]


class EnvironmentSection(Section):
    """Which world, and which of its tasks serve for what."""

    gone: ClassVar[dict[str, object]] = {"train_kinds": None}

    name: str = Field(description="Registered environment, for example alfworld.")
    options: Options = Field(default_factory=dict, description="The environment's own options.")
    train: str = Field(default="train", description="Split of demonstrations and rollouts.")
    validation: str = Field(default="valid", description="Split on which the best iteration is chosen.")
    test: list[str] = Field(default_factory=lambda: ["unseen"], description="Splits that are only ever reported.")
    train_tasks: int | None = Field(
        default=None, ge=1, description="Tasks rolled out per iteration, a fresh sample for each; all by default."
    )
    validation_tasks: int | None = Field(default=None, ge=1, description="Validation tasks; all by default.")
    test_tasks: int | None = Field(default=None, ge=1, description="Tasks of each test split; all by default.")
    error_share: float = Field(
        default=0.05, ge=0, le=1, description="Share of episodes that may end by an error of the environment's own code."
    )


class StudentSection(Section):
    """Who learns, how it is asked and how it answers."""

    model: str = Field(
        default="scratch",
        description="`scratch`, or `hf/PATH-or-name` of a causal LM with a chat template: a folder, a GGUF file, a Hub name.",
    )
    scratch: ScratchConfig = Field(default_factory=ScratchConfig, description="Size of a scratch student.")
    prompt: PromptConfig = Field(default_factory=PromptConfig, description="How it is asked.")
    sampling: Sampling = Field(default_factory=Sampling, description="How its answers are drawn.")
    evaluation_temperature: float | None = Field(
        default=None, ge=0, description="Temperature at evaluation; as above if null."
    )
    decoding: Literal["free", "constrained"] = Field(
        default="free", description="constrained: admissible actions only."
    )
    batch: int = Field(default=64, ge=1, description="Episodes played at once.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Weights' type in rollouts."
    )
    engine: EngineConfig = Field(default_factory=EngineConfig, description="What generates its answers.")

    @model_validator(mode="after")
    def _can_be_trained(self) -> Self:
        if self.from_scratch:
            if self.prompt.thinking != "off":
                raise ValueError("prompt.thinking: a scratch student knows of no thinking; leave it off")
            return self
        try:
            trainable = provider_of(self.model).weights
        except LeapError as error:
            raise ValueError(f"student.model {self.model!r} is neither `scratch` nor a model: {error}") from error
        if not trainable:
            raise ValueError(f"student.model {self.model!r}: training needs its weights; use hf/PATH-or-name or scratch")
        return self

    @property
    def from_scratch(self) -> bool:
        """Whether it starts from random weights."""
        return self.model == "scratch"

    @property
    def temperature_at_evaluation(self) -> float:
        """The temperature of its answers then."""
        return self.sampling.temperature if self.evaluation_temperature is None else self.evaluation_temperature

    @property
    def base(self) -> str:
        """Checkpoint directory or hub name of a student that does not start from random weights."""
        return self.model.partition("/")[2]

    def opened_as(self, checkpoint: str) -> str:
        """Name under which a checkpoint of this student is opened as a model, `provider/path`."""
        return f"{'hf' if self.from_scratch else self.model.partition('/')[0]}/{checkpoint}"

    def longest_prompt(self, context: int) -> int:
        """Tokens that a prompt may have, where the model's context has so many.

        Raises:
            RecipeError: An answer would leave no room for a prompt.
        """
        room = context - self.sampling.max_tokens
        if room < 1:
            raise RecipeError(
                f"student.sampling.max_tokens: {self.sampling.max_tokens} leaves no room for a prompt in the context of "
                f"{self.model}, which has {context} tokens."
            )
        return min(room, self.prompt.max_tokens or room)


class RolloutSection(Section):
    """Who acts in rollouts: pi_{i-1}, or a mixture with the environment's teacher (DAgger's beta, Ross et al. 2011)."""

    gone: ClassVar[dict[str, object]] = {"privilege": None}

    beta: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability, at each step of iteration 1, that the environment's teacher acts in place of the student; "
        "1: it acts alone.",
    )
    decay: float = Field(default=1.0, ge=0, le=1, description="beta_i = beta * decay^(i - 1).")
    cosine: int | None = Field(
        default=None,
        ge=2,
        exclude_if=lambda end: end is None,
        description="In place of decay: beta_i falls along half a cosine, to 0 in this iteration and from then on (Guided-OPD).",
    )
    tokens: Literal["auto"] | bool = Field(
        default="auto",
        description="Whether episodes keep each answer's tokens as sampled, with their log-probabilities, some 12 bytes a token; "
        "auto: where the method trains on them.",
    )

    def beta_at(self, i: int) -> float:
        """beta_i, i from 1."""
        if self.cosine is None:
            return self.beta * self.decay ** (i - 1)
        return self.beta * (1 + math.cos(math.pi * min(1, (i - 1) / (self.cosine - 1)))) / 2

    @model_validator(mode="after")
    def _falls_in_one_way(self) -> Self:
        if self.cosine is not None and self.decay != 1:
            raise ValueError("cosine: beta falls by decay or along a cosine, not both")
        return self


class ReActSection(ModelConfig):
    """A model that plays without fine-tuning, from examples of the expert's."""

    gone: ClassVar[dict[str, object]] = {"limit": None}

    examples: int = Field(default=2, ge=0, description="Worked examples in the prompt, of the same task type where possible.")


class BaselineSection(Section):
    """Who else is evaluated, beside the expert and the teachers."""

    react: list[ReActSection] = Field(default_factory=list, description="Models prompted in the ReAct way.")
    teacher_model: bool = Field(
        default=False, description="The model teacher plays itself, without the privileged state and with it."
    )


class MeasureSection(Section):
    """What is measured of each pi_i beside its success: leakage and realizability, whole attempts (docs/measures.md)."""

    held_out: int | None = Field(
        default=None, ge=1, description="Validation episodes of each pi_i that are corrected to measure on; none if null."
    )
    attempts: int = Field(
        default=0,
        ge=0,
        description="Whole attempts of each pi_i at some validation tasks, for pass@1 to pass@attempts; none if 0.",
    )
    attempted: int = Field(default=50, ge=1, description="Validation tasks that are attempted so.")


class Recipe(Section):
    """A whole experiment."""

    name: str = Field(
        description="Name of the run; its directory under runs/.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="The one source of randomness.")
    iterations: int = Field(default=3, ge=0, description="N, the number of LEAP iterations after behaviour cloning.")
    horizon: int = Field(default=30, ge=1, description="Largest number of actions per episode.")
    evaluation_horizon: int | None = Field(default=None, ge=1, description="The same at evaluation; as above if null.")
    environment: EnvironmentSection
    student: StudentSection = Field(default_factory=StudentSection)
    policy: PolicySection = Field(default_factory=PolicyConfig, description="How the student decides on an action.")
    demonstrations: DemonstrationSection = Field(
        default_factory=TutorDemonstrationConfig, description="D_0: what pi_0 is cloned from, if anything."
    )
    rollouts: RolloutSection = Field(default_factory=RolloutSection)
    teacher: TeacherSection = Field(
        default_factory=default_config(registry.teacher, "expert"), description="Who corrects, with how much privilege, and what."
    )
    training: TrainingSection = Field(
        default_factory=default_config(registry.method, "sft"), description="The method and its settings."
    )
    baselines: BaselineSection = Field(default_factory=BaselineSection)
    measures: MeasureSection = Field(default_factory=MeasureSection)
    value: ValueConfig = Field(
        default_factory=ValueConfig, description="Value models of the students, where `leap value` makes any."
    )
    lost_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of a stage's episodes that may be lost to failed calls of a model; where more are, the stage ends and "
        "the same command tries these again.",
    )
    executor: ExecutorSection = Field(
        default_factory=default_config(registry.executor, "local"), description="Where episodes are played and corrected."
    )
    budget: Budget = Field(default_factory=Budget, description="The most that paid models may cost.")
    calls: CallsSection = Field(
        default_factory=CallsSection, description="What is kept of calls for people, and the self-test of a teacher."
    )
    prices: dict[str, Price] = Field(
        default_factory=dict, description="USD per million tokens by `provider/model`, over the shipped table."
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> Recipe:
        env = self.environment
        if env.validation in env.test:
            raise ValueError(
                f"validation split {env.validation!r} is also a test split; models may not be chosen on it"
            )
        if env.train in env.test:
            raise ValueError(f"training split {env.train!r} is also a test split; test tasks may not be trained on")
        if env.train == env.validation:
            raise ValueError(f"training and validation are both {env.train!r}; choose models on other tasks")
        react = [section.model for section in self.baselines.react]
        for key, names in (("environment.test", env.test), ("baselines.react", react)):
            if len({*names}) < len(names):
                raise ValueError(f"{key}: one of {', '.join(names)} stands there twice; it would be measured once")
        self.training.check(self)
        if self.demonstrations.none and self.student.from_scratch:
            raise ValueError("demonstrations.from: none needs a student that can already speak; scratch learns from them")
        for key in ("with_state", "in_hindsight"):
            if getattr(self.demonstrations, key, 0) not in (0, *LEVELS):
                raise ValueError(f"demonstrations.{key}: prompts know {', '.join(map(str, LEVELS))}")
        if self.baselines.teacher_model and not self.teacher.models:
            raise ValueError("baselines.teacher_model needs teacher.kind: model")
        if getattr(self.teacher, "serve", None) is not None and self.executor.kind != "ray":
            raise ValueError("teacher.serve is done on the cluster of executor.kind: ray; set that, or leave it out")
        return self

    @property
    def models(self) -> list[ModelConfig]:
        """The models that take part beside the student, so that calls may be paid for."""
        return [*self.teacher.models, *self.demonstrations.models, *self.baselines.react]

    @property
    def keeps_tokens(self) -> bool:
        """Whether rollouts keep the tokens of answers as sampled."""
        return self.training.needs_tokens if self.rollouts.tokens == "auto" else self.rollouts.tokens

    def engine_settings(self) -> dict[str, Any]:
        """What an engine of the student must be told of it."""
        lora = self.training.lora
        return {"dtype": self.student.dtype, "batch": self.student.batch, "lora_rank": lora and lora.rank}

    @property
    def test_horizon(self) -> int:
        """The horizon at evaluation."""
        return self.evaluation_horizon or self.horizon


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Reads a recipe from a YAML file, `dotted.key=value` settings in place of its own.

    Raises:
        RecipeError: The file is missing, is not YAML, or does not state a valid experiment.
    """
    return resolved(read_mapping(path, "recipe"), f"recipe {path}", overrides or ())


def resolved(values: dict[str, object], where: str, overrides: Iterable[str] = ()) -> Recipe:
    """Makes a recipe of keys and values, which overrides change; `where` names them in messages.

    Raises:
        RecipeError: They do not state a valid experiment.
    """
    for override in overrides:
        apply_setting(values, override)
    values = {key: value if key == "environment" else _placed(value) for key, value in values.items()}
    return Recipe.from_values(values, where)


def _placed(values: object, key: str = "") -> object:
    """The same with the whole path of each model that is a folder or file here: from another folder its name may mean another."""
    if isinstance(values, dict):
        return {name: _placed(value, str(name)) for name, value in values.items()}
    if isinstance(values, list):
        return [_placed(value) for value in values]
    provider, _, path = values.partition("/") if key == "model" and isinstance(values, str) else ("", "", "")
    return f"{provider}/{Path(path).resolve()}" if provider in ("hf", "vllm") and path and Path(path).exists() else values


def read_mapping(path: Path, what: str) -> dict[str, object]:
    """Reads a YAML file of keys and values; `what` says in messages what it is.

    Raises:
        RecipeError: It is missing, is not UTF-8 text or YAML, or is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot read the {what} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the {what} {path} is not UTF-8 text") from error
    values = _from_yaml(text, f"the {what} {path} is")
    if not isinstance(values, dict):
        raise RecipeError(f"the {what} {path} must be a mapping of keys to values")
    return values


def _from_yaml(text: str, what: str) -> Any:
    """The value that a text in YAML states; `what` is the beginning of the sentence that refuses it."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise RecipeError(f"{what} not valid YAML: it is nested too deeply, or a value stands within itself") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no date, or an integer of thousands of digits
        raise RecipeError(f"{what} not valid YAML: {' '.join(str(error).split())}") from error


def _size(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """How many values a node states, those of its aliases each time that they are named."""
    if node not in known:
        within = chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
        known[node] = 1 + sum(_size(one, known) for one in within if isinstance(one, yaml.Node))
    return known[node]


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, for which a key that stands twice in a mapping is an error, and so are aliases of aliases that
    would fill the memory."""

    def construct_document(self, node: yaml.Node) -> Any:
        if (size := _size(node, {})) > _MOST_VALUES:
            raise yaml.constructor.ConstructorError(None, None, f"with its aliases written out it states {size:,} values")
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in lines:
                    twice = f"key {key.value!r} stands in line {lines[key.value]} and again in line {line}"
                    raise yaml.constructor.ConstructorError(None, None, twice)
                lines[key.value] = line
        return super().construct_mapping(node, deep)


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def apply_setting(values: dict[str, object], setting: str) -> None:
    """Puts a `dotted.key=value` setting into nested mappings; the value is YAML. The one form of `--set` in every command.

    Raises:
        RecipeError: It is not of that form, or a part of its key already holds something that is no mapping.
    """
    put(values, *parse_setting(setting))


def parse_setting(setting: str) -> tuple[str, JsonValue]:
    """Returns the dotted key and the value of a `dotted.key=value` setting.

    Raises:
        RecipeError: It is not of that form.
    """
    key, found, value = setting.partition("=")
    if not found or not key.strip():
        raise RecipeError(f"override {setting!r} is not of the form dotted.key=value")
    return key.strip(), _from_yaml(value, f"override {setting!r:.200}: the value is")


def put(values: dict[str, object], key: str, value: object) -> None:
    """Puts a value into nested mappings.

    Raises:
        RecipeError: A part of the dotted key already holds something that is no mapping.
    """
    *path, last = key.split(".")
    for part in path:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"override of {key}: {part!r} is not a mapping")
        values = inner
    values[last] = value
