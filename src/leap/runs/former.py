"""Recipes as leap 0.1 wrote them into run directories, read as today's."""

from __future__ import annotations

import copy
from typing import Any

from leap.errors import RunError

_OF_MODELS = ("model", "endpoint", "sampling", "by", "state", "limit")
"""What 0.1 wrote of a model teacher into the recipe of every teacher; others read none of it."""


def from_0_1(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a resolved recipe of 0.1 with today's keys, and any other as it is.

    Keys that nothing read are left out. A resolved recipe holds every key, so that one without `policy` is 0.1's.

    Raises:
        RunError: A key that is gone had an effect.
    """
    if "policy" in values or not isinstance(values.get("teacher"), dict) or "attempts" not in values["teacher"]:
        return values
    values = copy.deepcopy(values)
    teacher, baselines = values["teacher"], values.get("baselines", {})
    demonstrations = values.get("demonstrations", {})
    if teacher.pop("attempts") != 3:
        raise _gone("teacher.attempts")
    kind, section = teacher.get("kind"), _section(teacher)
    if demonstrations.get("annotate") is not None:
        asked = {key: section[key] for key in ("model", "endpoint", "sampling") if key in section}
        demonstrations["annotate"] = asked if demonstrations["annotate"] else None
    if kind == "model":
        values["teacher"] = section
    else:
        if kind == "self" and teacher.get("limit") is not None:
            raise _gone("teacher.limit")
        if baselines.get("teacher_model"):
            raise _gone("baselines.teacher_model without teacher.kind: model")
        for key in _OF_MODELS if kind == "self" else (*_OF_MODELS, "verify"):
            teacher.pop(key, None)
    if baselines:
        baselines["react"] = [_section(react) for react in baselines.get("react", ())]
    return values


def _section(values: dict[str, Any]) -> dict[str, Any]:
    """A section that names a model, without what is no option of it any more."""
    section = {**values, "sampling": {k: v for k, v in values.get("sampling", {}).items() if k != "max_reason_tokens"}}
    if str(values.get("model", "")).startswith("hf/"):
        section.pop("endpoint", None)
    return section


def _gone(key: str) -> RunError:
    maker = "pip install leap-agents==0.1.0"
    return RunError(f"this run was made by leap 0.1 and sets {key}, which is gone; go on with that version ({maker}).")
