"""Writes docs/recipe.md from the recipe's schema, so that the two cannot differ (a test compares them)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel

from leap.envs.mixture import MixtureConfig
from leap.recipe import Recipe
from leap.training.config import DPOConfig, KTOConfig, SFTConfig
from leap_worlds.alfworld.env import AlfworldConfig
from leap_worlds.alfworld.generator import GeneratorConfig
from leap_worlds.webshop.env import WebshopConfig

INTRO = """# Recipe reference

Every key of a recipe: its type, default and meaning. Made from the schema by `python docs/make_recipe_reference.py`.
Unknown keys are errors. `leap run RECIPE --set KEY=VALUE` replaces a value by its dotted key.
"""


def section(title: str, model: type[BaseModel], prefix: str = "") -> list[str]:
    """A table of a model's own keys, then one of each model within it."""
    lines = [f"## {title}", "", "| key | type | default | meaning |", "|---|---|---|---|"]
    inner: list[tuple[str, type[BaseModel]]] = []
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        nested, name = _model_in(field.annotation), field.alias or name
        if nested is not None:
            inner.append((f"{prefix}{name}{'.NAME' if get_origin(field.annotation) is dict else ''}", nested))
        lines.append(
            f"| `{prefix}{name}` | {_type(schema['properties'][name], schema)} | {_default(field)} | {field.description or ''} |"
        )
    lines.append("")
    for name, nested in inner:
        lines += section(f"`{name}`", nested, f"{name}.")
        if nested is SFTConfig and name == "training":
            lines += preference_section()
    return lines


def preference_section() -> list[str]:
    """What DPO and KTO add to `training`, or have other defaults for."""
    lines = ["## `training` with `method: dpo`, `kto`, `sft+dpo` or `sft+kto`", ""]
    lines += ["Keys that differ from those above; `training.sft` takes all of those above, for pi_0 and for `sft+...`.", ""]
    lines += ["| key | type | default: dpo | kto | meaning |", "|---|---|---|---|---|"]
    for name in {**KTOConfig.model_fields, **DPOConfig.model_fields}:
        known, *both = (method.model_fields.get(name) for method in (SFTConfig, DPOConfig, KTOConfig))
        if name == "method" or (known and all(one and one.default == known.default for one in both)):
            continue
        dpo, kto = (_default(one) if one else "no such key" for one in both)
        method = KTOConfig if both[1] else DPOConfig
        schema = method.model_json_schema()
        kind = _type(schema["properties"][name], schema)
        lines.append(f"| `training.{name}` | {kind} | {dpo} | {kto} | {method.model_fields[name].description or ''} |")
    return [*lines, ""]


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
    lines = [INTRO, *section("Recipe", Recipe)]
    lines += section("`environment.options` of alfworld", AlfworldConfig, "environment.options.")
    lines += ["", "What the generator's keys mean in detail:", "", "```", (GeneratorConfig.__doc__ or "").strip(), "```", ""]
    lines += section("`environment.options` of webshop", WebshopConfig, "environment.options.")
    lines += section("`environment.options` of mixture", MixtureConfig, "environment.options.")
    return "\n".join(lines)


if __name__ == "__main__":
    Path(__file__).with_name("recipe.md").write_text(render(), encoding="utf-8")
