"""Writes docs/recipe.md from the recipe's schema and the shipped recipes (tests/docs/test_recipe_reference.py compares)."""

from __future__ import annotations

import json
import pkgutil
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from leap import registry
from leap.config import Section
from leap.demonstrations.sources import DemonstrationConfig
from leap.models.base import EndpointConfig
from leap.policies.base import PolicyConfig
from leap.recipe import ExecutorConfig, Recipe
from leap.registry import Registry
from leap.teachers.config import TeacherConfig
from leap.training.config import TrainingSettings

INTRO = """# Recipe reference

Every key of a recipe: its type, default and meaning. Made from the schema by `python docs/make_recipe_reference.py`.
Unknown keys are errors. `leap run RECIPE --set KEY=VALUE` replaces a value by its dotted key.
"""

UNSET = """## Keys that no shipped recipe sets, and why they stay

The schema has {options} options (a section that stands in several places counts once). The recipes and studies that ship, that of
`leap init` included, set {set} of them. The other {unset}:

| keys | why they stay |
|---|---|"""

GONE = """## Keys of earlier versions

What was their default always holds. A recipe that says so is still valid; a run that was made with another value goes on
with the version that made it.

| key | always |
|---|---|"""

SOURCES = Path(__file__).parents[1] / "src"

KINDS: dict[str, tuple[Registry, str, type[Section]]] = {
    "policy": (registry.policy, "kind", PolicyConfig),
    "demonstrations": (registry.demonstration, "from", DemonstrationConfig),
    "teacher": (registry.teacher, "kind", TeacherConfig),
    "training": (registry.method, "method", TrainingSettings),
    "executor": (registry.executor, "kind", ExecutorConfig),
}
"""Sections whose keys are those of the thing that they name: where these are, the key that names one, what all have."""

SHIPPED = re.compile(r"leap(_worlds)?\.(?!testing)")
"""Where a thing that ships is defined; tests may have registered others."""

_PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENVIRONMENTS = {
    name: pkgutil.resolve_name(where) for name, where in sorted(_PROJECT["entry-points"]["leap.environments"].items())
}
"""The environments of this tree, be they installed or not."""

WHY = {
    "Other servers than OpenAI's need an address and a key, slow ones and rate limits the rest; shipped recipes call OpenAI's.": (
        "teacher.endpoint.base_url teacher.endpoint.api_key_env teacher.endpoint.timeout "
        "teacher.endpoint.retries teacher.endpoint.concurrency"
    ),
    "For traces of one's own, and for exports that trainers read: a method that needs tokens has them kept.": (
        "teacher.endpoint.tokens"
    ),
    "Some servers cut long prompts silently instead of refusing them.": "teacher.limit",
    "What may be done about leaks (docs/teachers.md).": "teacher.drop_leaks",
    "How much search tries, how far, and by whom it goes on (docs/teachers.md).": (
        "teacher.temperature teacher.roll_in teacher.depth teacher.rolls teacher.discount teacher.stage_steps"
    ),
    "The cap for models without a price.": "budget.tokens",
    "`budget.usd` needs the price of each model, and no shipped table can know all.": (
        "prices.NAME.input prices.NAME.output prices.NAME.cached_input prices.NAME.cache_write"
    ),
    "The paper's baselines by models: each costs more than the corrections.": (
        "baselines.teacher_model baselines.react.examples"
    ),
    "What `leap calls` can show may be secret, or large.": "calls.keep calls.most_mb",
    "For a teacher that is known to work.": "calls.self_test",
    "D_0 from a file.": "demonstrations.path",
    "A student from random weights that is its own teacher in hindsight.": "demonstrations.in_hindsight",
    "For an environment of one's own that still fails now and then.": "environment.error_share",
    "Whole attempts cost a game each, many times the evaluation (docs/measures.md).": "measures.attempts measures.attempted",
    "For an endpoint that never answers some of the prompts.": "lost_share",
    "The seams for a registered policy (a vote) and executor (a cluster).": "policy.kind executor.kind",
    "Best-of-N needs a run whose value model chooses, so no recipe can ship with it (docs/value.md).": (
        "policy.n policy.value policy.iteration policy.labels policy.temperature policy.votes"
    ),
    "Pairs without a teacher, for whom no recipe has been measured yet (docs/methods.md).": (
        "training.pairs training.pair_answers training.pair_margin"
    ),
    "How a value model is made, where `leap value` is asked for one (docs/value.md).": (
        "value.temperature value.rolls value.start value.votes"
    ),
    "How many processes of a machine work: the machine says.": "executor.workers",
    "A Slurm cluster's own matters (docs/scale.md); `clusters/slurm.sh` beside the recipes sets what most need.": (
        "executor.partition executor.time executor.gpus executor.cpus executor.memory executor.setup executor.options "
        "executor.cluster executor.jobs executor.idle executor.attempts executor.poll"
    ),
    "A cluster, and what its workers are given, are whoever's that runs the recipe.": (
        "executor.address executor.workers executor.cpus_per_worker executor.gpus_per_worker executor.resources "
        "executor.generators.number executor.generators.cpus executor.generators.gpus executor.generators.resources "
        "executor.max_restarts executor.max_task_retries executor.min_ranks executor.wait executor.grows "
        "executor.storage_path executor.runtime_env"
    ),
    "A teacher's weights on the GPUs of a cluster, which are whoever's that runs the recipe (docs/scale.md).": (
        "teacher.serve.kind teacher.serve.replicas teacher.serve.gpus teacher.serve.port "
        "teacher.serve.timeout teacher.serve.options"
    ),
    "Long episodes: memory grows with the longest prompt.": "student.scratch.max_tokens",
    "For models that can think before they answer; none that ships with a recipe does.": "student.prompt.thinking",
    "Greedy evaluation of a student that samples in rollouts.": "student.evaluation_temperature",
    "A server that generates for the student depends on the machine, not on the experiment (docs/engines.md).": (
        "student.engine.base_url student.engine.model student.engine.api_key_env "
        "student.engine.timeout student.engine.devices student.engine.keep"
    ),
    "QLoRA, for GPUs of 24 GB.": "training.quantize",
    "Of `distill`: whom, what and how much it teaches (docs/methods.md); the study compares its divergences.": (
        "training.teacher training.ema training.alpha training.on training.top_k training.clip training.balance training.weight "
        "training.ce_weight training.disagree training.gated training.contrast training.ratio"
    ),
    "Of `distill`, when it is worth while.": "training.margin training.retire",
    "Another course of DAgger's beta than the study `on-policy` takes: that of Guided-OPD.": "rollouts.cosine",
    "Wherever a group keeps its curves.": "training.logging",
    "A machine of several GPUs: `--set training.processes=auto`.": "training.processes training.accelerate",
    "The RPO term, which the study `methods` tried and found of no help there (its log is on file).": (
        "training.sft_weight"
    ),
    "Where the official data and the database server are on this machine.": (
        "alfworld: path webshop: path intercode-bash: path intercode-sql: path intercode-sql: database"
    ),
    "What an environment of another framework is made with, and where in it things are (interop.md).": (
        "gymnasium: id gymnasium: make gymnasium: observation gymnasium: admissible gymnasium: actions "
        "openenv: tasks openenv: instruction openenv: privileged openenv: solved_at "
        "verifiers: taskset verifiers: taskset_options verifiers: env_options verifiers: shuffle "
        "openenv: url openenv: reset openenv: observation openenv: admissible "
        "textarena: game textarena: game_options textarena: actions"
    ),
    "For `leap data alfworld --set`: a run plays what is there.": "alfworld: release",
    "Worlds without hopeless states, to tell what these cost; part of a generated set's name.": (
        "alfworld: generator.traps"
    ),
    "Beside `asked_attributes`, how much is asked; part of a catalogue's name.": "webshop: generator.asked_options",
    "Published figures differ by these (docs/webshop.md): 1,000 products, other prices, the reference's reward and lists.": (
        "webshop: seed webshop: reward webshop: candidates"
    ),
    "What recipes set for Bash, for the two environments beside it that no shipped recipe plays.": (
        "intercode-python: sandbox intercode-python: image intercode-python: time_limit "
        "intercode-sql: time_limit intercode-sql: observation_limit intercode-sql: rows_shown"
    ),
    "Two parts of one environment.": "mixture: parts.NAME.environment",
    "What a user's own task folders and machine need (docs/tasks.md).": (
        "tasks: split.seed tasks: split.globs tasks: split.file tasks: split.test tasks: memory_mb tasks: storage_mb tasks: cpus "
        "tasks: services tasks: host_env tasks: box_usd_per_hour"
    ),
}
"""Why keys that no shipped recipe sets stay all the same, and which these are. Each such key must stand here, and no other."""


_told: set[tuple[str, type[Section]]] = set()
"""Sections within sections that are on the page already: kinds of a thing have some in common."""


def section(
    title: str, model: type[Section], prefix: str = "", told: Mapping[str, FieldInfo] | None = None
) -> list[str]:
    """A table of a model's own keys, then one of each model within it.

    Args:
        title: Its heading.
        model: The model.
        prefix: Stands before each key.
        told: Keys that have been told; those of the model that are no different are left out.
    """
    inner: list[tuple[str, type[Section]]] = []
    schema, rows = model.model_json_schema(), []
    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        if told and attribute in told and _default(told[attribute]) == _default(field):
            continue
        kinds = not prefix and name in KINDS
        nested = None if kinds else _model_in(field)
        if nested is not None and nested is not Section:
            inner.append((prefix + _step(name, field), nested))
        kind = "mapping" if kinds or field.annotation is Section else _type(schema["properties"][name], schema)
        rows.append(f"| `{prefix}{name}` | {kind} | {_default(field)} | {field.description or ''} |")
    lines = [f"## {title}", "", "| key | type | default | meaning |", "|---|---|---|---|", *rows, ""] if rows else []
    for name, nested in inner:
        if (name, nested) not in _told:
            _told.add((name, nested))
            lines += section(f"`{name}`", nested, f"{name}.")
    if model is Recipe:
        for name in KINDS:
            lines += kind_sections(name)
    return lines


def kind_sections(name: str) -> list[str]:
    """The keys of a section that every kind has, then what each of leap's own kinds has beside them or otherwise."""
    kinds, key, base = KINDS[name]
    lines = section(f"`{name}`: every {kinds.noun}", base, f"{name}.")
    for kind, config in _configs(name):
        attribute = next((one for one, field in config.model_fields.items() if field.alias == key), key)
        told = {**base.model_fields, attribute: config.model_fields[attribute]}
        lines += section(f"`{name}` with `{key}: {kind}`", config, f"{name}.", told)
    return lines


def sections(prefix: str = "", model: type[Section] = Recipe) -> Iterator[tuple[str, type[Section]]]:
    """All sections of recipes, each with what stands before its keys: `alfworld: ` before an environment's options."""
    yield prefix, model
    for attribute, field in model.model_fields.items():
        for inner in _inner(prefix, field.alias or attribute, field):
            yield from sections(*inner)


def _inner(prefix: str, name: str, field: FieldInfo) -> list[tuple[str, type[Section]]]:
    """The sections that a key may hold; none where it holds a value."""
    if not prefix and name in KINDS:
        return [(f"{name}.", config) for _, config in _configs(name)]
    if prefix + name == "environment.options":
        return [(f"{one}: ", world.Config) for one, world in ENVIRONMENTS.items()]
    nested = _model_in(field)
    return (
        [] if nested is None else [(f"{prefix}{_step(name, field)}.", EndpointConfig if nested is Section else nested)]
    )


def options() -> Iterator[tuple[tuple[type, str], str]]:
    """All values that can be set: the class that has the field first and its name, which are one for sections that stand in
    several places, and the key."""
    for prefix, model in sections():
        for attribute, field in model.model_fields.items():
            name = field.alias or attribute
            if not _inner(prefix, name, field):
                first = next(one for one in reversed(model.__mro__) if attribute in getattr(one, "model_fields", ()))
                yield (first, attribute), prefix + name


def keys_set() -> set[str]:
    """The keys that a shipped recipe or study sets, in the form of `options`."""
    found: set[str] = set()
    for path in (*(SOURCES / "leap/recipes").glob("*.yaml"), SOURCES / "leap/cli/starter/recipe.yaml.j2"):
        found |= set(_set(yaml.safe_load(re.sub(r"{{.*?}}", "own", path.read_text(encoding="utf-8")))))
    for path in (SOURCES / "leap_lab/recipes").glob("*.yaml"):
        study = yaml.safe_load(path.read_text(encoding="utf-8"))
        arms = [change for part in ("arms", "budget") for change in study.get(part, {}).values()]
        for changes in (study.get("settings", {}), *arms, *({axis["key"]: None} for axis in study.get("axes", ()))):
            found |= {
                key.replace("environment.options.", "mixture: ") for key in changes
            }  # `one-model` alone has options
    return found


def _set(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys of a recipe and of the sections within it."""
    for name, value in values.items():
        key = prefix + name
        yield key
        if key == "environment.options":
            yield from _set(value, f"{values['name']}: ")
        elif key == "mixture: parts":
            for part, told in value.items():
                yield from (f"mixture: parts.NAME.{one}" for one in told)
                yield from _set(told.get("options", {}), f"{told.get('environment', part)}: ")
        elif isinstance(value, Mapping):
            yield from _set(value, f"{key}.")


def unset() -> tuple[int, list[str]]:
    """How many options there are, and the shortest key of each that no shipped recipe sets."""
    keys: dict[tuple[type, str], list[str]] = {}
    for option, key in options():
        keys.setdefault(option, []).append(key)
    given = keys_set()
    return len(keys), [min(all_, key=_rank) for all_ in keys.values() if given.isdisjoint(all_)]


def defended() -> list[tuple[list[str], str]]:
    """The keys of each reason in `WHY`; `alfworld:` and the key behind it are one."""
    return [(re.findall(r"(?:[\w-]+: )?[\w.]+", keys), why) for why, keys in WHY.items()]


def _rank(key: str) -> tuple[bool, int, str]:
    return (not key.startswith("teacher."), len(key), key)


def _configs(name: str) -> list[tuple[str, type[Section]]]:
    """The settings of leap's own kinds of a section, by the kinds' names."""
    kinds, _, base = KINDS[name]
    own = (kind for kind, where in kinds.where().items() if SHIPPED.match(where))
    return [(kind, getattr(kinds.get(kind), "Config", base)) for kind in own]


def _step(name: str, field: FieldInfo) -> str:
    return f"{name}.NAME" if get_origin(field.annotation) is dict and _model_in(field) else name


def _model_in(field: FieldInfo) -> type[Section] | None:
    candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, Section)), None)


def _type(schema: dict[str, Any], root: dict[str, Any]) -> str:
    if "$ref" in schema:
        return "mapping"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(option, root) for option in schema["anyOf"]))
    kind = schema.get("type", "any")
    return {"null": "null", "array": "list", "object": "mapping"}.get(kind, str(kind))


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    return f"`{_as_yaml(value)}`" if value is not None else "null"


def _as_yaml(value: Any) -> str:
    told = to_jsonable_python(value)
    return told if isinstance(told, str) else json.dumps(told)


def render() -> str:
    """The whole page."""
    _told.clear()
    number, bare = unset()
    lines = [INTRO, *section("Recipe", Recipe)]
    lines += section("`endpoint` beside a `model` of openai, vllm or mock; hf has none", EndpointConfig, "endpoint.")
    for name, world in ENVIRONMENTS.items():
        lines += section(f"`environment.options` of {name}", world.Config, "environment.options.")
    lines.append(UNSET.format(options=number, set=number - len(bare), unset=len(bare)))
    lines += [f"| {', '.join(f'`{key}`' for key in keys)} | {why} |" for keys, why in defended()]
    lines += ["", GONE]
    lines += sorted(
        {f"| `{prefix}{key}` | `{_as_yaml(was)}` |" for prefix, one in sections() for key, was in one.gone.items()}
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("recipe.md").write_text(render(), encoding="utf-8")
