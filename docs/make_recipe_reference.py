"""Writes docs/recipe.md from the recipe's schema, so that the two cannot differ (a test compares them)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from leap import registry
from leap.config import Section
from leap.demonstrations.sources import DemonstrationConfig
from leap.envs.mixture import MixtureConfig
from leap.models.base import EndpointConfig
from leap.policies.config import PolicyConfig
from leap.recipe import ExecutorConfig, Recipe
from leap.registry import Registry
from leap.teachers.config import TeacherConfig
from leap.training.config import TrainingSettings
from leap_worlds.alfworld.env import AlfworldConfig
from leap_worlds.alfworld.generator import GeneratorConfig
from leap_worlds.webshop.env import WebshopConfig

INTRO = """# Recipe reference

Every key of a recipe: its type, default and meaning. Made from the schema by `python docs/make_recipe_reference.py`.
Unknown keys are errors. `leap run RECIPE --set KEY=VALUE` replaces a value by its dotted key.
"""


KINDS: dict[str, tuple[Registry, str, type[BaseModel]]] = {
    "policy": (registry.policy, "kind", PolicyConfig),
    "demonstrations": (registry.demonstration, "from", DemonstrationConfig),
    "teacher": (registry.teacher, "kind", TeacherConfig),
    "training": (registry.method, "method", TrainingSettings),
    "executor": (registry.executor, "kind", ExecutorConfig),
}
"""Sections whose keys are those of the thing that they name: where these are, the key that names one, what all have."""


_told: set[tuple[str, type[BaseModel]]] = set()
"""Sections within sections that are on the page already: kinds of a thing have some in common."""


def section(title: str, model: type[BaseModel], prefix: str = "", told: Mapping[str, FieldInfo] | None = None) -> list[str]:
    """A table of a model's own keys, then one of each model within it.

    Args:
        title: Its heading.
        model: The model.
        prefix: Stands before each key.
        told: Keys that have been told; those of the model that are no different are left out.
    """
    inner: list[tuple[str, type[BaseModel]]] = []
    schema, rows = model.model_json_schema(), []
    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        if told and attribute in told and _default(told[attribute]) == _default(field):
            continue
        kinds = not prefix and name in KINDS
        nested = None if kinds else _model_in(field.annotation)
        if nested is not None and nested is not Section:
            inner.append((f"{prefix}{name}{'.NAME' if get_origin(field.annotation) is dict else ''}", nested))
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
    for kind in (kind for kind, where in kinds.where().items() if where.startswith("leap.")):
        config = getattr(kinds.get(kind), "Config", base)
        attribute = next((one for one, field in config.model_fields.items() if field.alias == key), key)
        told = {**base.model_fields, attribute: config.model_fields[attribute]}
        lines += section(f"`{name}` with `{key}: {kind}`", config, f"{name}.", told)
    return lines


def _model_in(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


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
    return f"`{value}`" if value is not None else "null"


def render() -> str:
    """The whole page."""
    _told.clear()
    lines = [INTRO, *section("Recipe", Recipe)]
    lines += section("`endpoint` beside a `model` of openai, vllm or mock; hf has none", EndpointConfig, "endpoint.")
    lines += section("`environment.options` of alfworld", AlfworldConfig, "environment.options.")
    lines += ["", "What the generator's keys mean in detail:", "", "```", (GeneratorConfig.__doc__ or "").strip(), "```", ""]
    lines += section("`environment.options` of webshop", WebshopConfig, "environment.options.")
    lines += section("`environment.options` of mixture", MixtureConfig, "environment.options.")
    return "\n".join(lines)


if __name__ == "__main__":
    Path(__file__).with_name("recipe.md").write_text(render(), encoding="utf-8")
