"""`mock/NAME`: scripted answers, with faults on demand, for trying things out with no key, no network and no GPU.

Names that a recipe can use: `mock/first` (takes the first action on offer), `mock/json` (the least that meets the schema),
`mock/plan` (a teacher that reads out the plan it is shown), `mock/prose` (words without any answer), and any of them with
faults, `mock/json?broken=0.2&server_error=0.1`. In Python a script is any function from a `Request` to a text, or to `Calls` of
tools. `leap.testing.server` serves the same over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from leap.core import JsonObject, content_key
from leap.core.message import Message, characters
from leap.envs.answer import ACTION_MARKER
from leap.envs.tools import calls_as_text
from leap.errors import ModelError, RecipeError
from leap.models.base import Completion, Model, Request, Sampling

FAULTS = ("broken", "empty", "truncated", "rate_limit", "server_error", "timeout")
"""Faults on demand. The first three spoil an answer that is paid all the same; the others give none."""


@dataclass(frozen=True, slots=True)
class Calls:
    """An answer that calls tools.

    Attributes:
        calls: Name and arguments of each call; arguments as a text need not be JSON, as those of real models.
        content: Words beside the calls.
    """

    calls: Sequence[tuple[str, JsonObject | str]]
    content: str = ""

    def told(self) -> list[tuple[str, str]]:
        """Name and arguments of each call, as an endpoint sends them."""
        return [(name, given if isinstance(given, str) else json.dumps(given)) for name, given in self.calls]


Script = Callable[[Request], str | Calls]


@dataclass(slots=True)
class Faults:
    """Which calls go wrong, and how.

    Attributes:
        rates: Share of the calls, by kind of fault; all kinds together at most 1.
        seed: Seeds the choice.
        counts: How many calls went wrong so far, by kind.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        unknown = set(self.rates) - set(FAULTS)
        if unknown or not (sum(self.rates.values()) <= 1 + 1e-9 and min(self.rates.values(), default=0) >= 0):  # NaN is none
            kinds = ", ".join(FAULTS)
            raise RecipeError(f"faults of a mock are shares of at most 1 in all, of {kinds}; given: {self.rates}")

    def draw(self, number: int) -> str | None:
        """The fault of the call of that number; None for a good one."""
        draw = random.Random(f"{self.seed} {number}").random()
        for kind, rate in self.rates.items():
            draw -= rate
            if draw < 0:
                self.counts[kind] += 1
                return kind
        return None


def spoiled(kind: str | None, text: str) -> tuple[str, bool]:
    """An answer with a fault in its text, and whether it counts as cut off.

    Args:
        kind: "broken" damages JSON or any text in the middle, "truncated" ends it early, "empty" leaves nothing.
        text: The good answer.
    """
    match kind:
        case "empty":
            return "", False
        case "truncated":
            return text[: len(text) // 2], True
        case "broken":
            half = len(text) // 2
            return text[:half] + '"}, oops [' + text[half:], False
        case _:
            return text, False


class MockModel(Model):
    """A scripted model in this process.

    Args:
        script: Makes the answers.
        name: Its name after `mock/`.
        sampling: Answers are cut off after `max_tokens`, at four characters a token.
        faults: What goes wrong.
        delay: Seconds per call.
        concurrency: Conversations held at once.
    """

    constrains = True

    def __init__(
        self,
        script: Script,
        *,
        name: str = "script",
        sampling: Sampling | None = None,
        faults: Faults | None = None,
        delay: float = 0.0,
        concurrency: int = 16,
    ) -> None:
        self.name = f"mock/{name}"
        self.concurrency = concurrency
        self.calls = 0
        self.faults = faults or Faults()
        self._script, self._delay = script, delay
        self._max_tokens = sampling.max_tokens if sampling else 1 << 30

    async def complete(self, request: Request) -> Completion:
        """Answers a request by the script, unless a fault is due."""
        self.calls += 1
        fault = self.faults.draw(self.calls)
        await asyncio.sleep(self._delay)
        if fault in ("rate_limit", "server_error", "timeout"):
            raise ModelError(f"{self.name}: {fault} on demand")
        said = self._script(request)
        text = said if isinstance(said, str) else calls_as_text(said.content, said.told())
        return clipped(*spoiled(fault, text), request.messages, self._max_tokens).before(request.stop)


def clipped(text: str, truncated: bool, messages: Sequence[Message], max_tokens: int) -> Completion:
    """A scripted text as a completion, at four characters a token."""
    if len(text) > 4 * max_tokens:
        text, truncated = text[: 4 * max_tokens], True
    return Completion(text, -(-characters(messages) // 4), -(-len(text) // 4), truncated=truncated)


# ---- scripts ---------------------------------------------------------------------------------------------------------


def first_choice(request: Request) -> str | Calls:
    """Takes the first action on offer: the first tool with the least arguments, else the first action of the constraint or of
    the list in the prompt, else looks around."""
    if request.tools:
        tool = request.tools[0]["function"]
        return Calls([(tool["name"], least_value(tool["parameters"]))], "It is the first.")
    choices = request.choices or re.findall(r"^\s*[-*]\s+(.+)$", request.messages[-1]["content"], re.MULTILINE)
    return f"REASON: It is the first.\n{ACTION_MARKER} {choices[0] if choices else 'look'}"


def least_json(request: Request) -> str:
    """The smallest value that meets the schema; an empty object without one."""
    return json.dumps(least_value(request.schema or {"type": "object"}))


def prose(request: Request) -> str:
    """Words that answer nothing."""
    return "I am sorry, but I would rather talk about the weather, which is fine today."


_PLAN = re.compile(r"(?m)^Optimal actions: (.+)$")
_STEPS = re.compile(r"(?:Correct|for) every timestep from (\d+) to (\d+)|(?:Correct only|only for) timesteps? ([\d, ]+)")


def steps_asked(request: Request) -> list[int]:
    """The timesteps that a teacher's prompt asks about together; none where it asks about the present one."""
    found = _STEPS.search(str(request.messages[-1]["content"]))
    if found is None:
        return []
    first, last, some = found.groups()
    return [int(t) for t in re.findall(r"\d+", some)] if some else list(range(int(first), int(last) + 1))


def read_plan(request: Request) -> str:
    """Corrects by reading out the plan that stands in the prompt's privileged state behind `Optimal actions:`, with `; `
    between its actions: the first of them for one step, one after the other for a whole attempt. The least JSON where there
    is no plan."""
    found = _PLAN.findall(str(request.messages[-1]["content"]))
    if not found:
        return least_json(request)
    plan = found[-1].split("; ")

    def correction(t: int) -> JsonObject:
        action = plan[min(t, len(plan) - 1)]
        return {"leave_as_it_is": False, "corrected_reason": "It is next in the plan.", "corrected_action": action}

    if steps := steps_asked(request):
        return json.dumps({"trajectory": {f"timestep_{t}": correction(t) for t in steps}, "summary": ""})
    return json.dumps(correction(0))


SCRIPTS: dict[str, Script] = {"first": first_choice, "json": least_json, "plan": read_plan, "prose": prose}
"""Scripts by the name a recipe gives them."""


def mock_model(name: str, sampling: Sampling, *, concurrency: int = 16) -> MockModel:
    """Makes the model that `mock/NAME` names.

    Raises:
        RecipeError: There is no such script or fault.
    """
    script, _, query = name.partition("?")
    if script not in SCRIPTS:
        raise RecipeError(f"there is no mock/{script}; there are: {', '.join(f'mock/{known}' for known in SCRIPTS)}.")
    try:
        rates = {kind: float(share) for kind, share in parse_qsl(query, strict_parsing=True)} if query else {}
    except ValueError as error:
        raise RecipeError(f"mock/{name}: faults look like ?broken=0.1&timeout=0.05") from error
    faults = Faults(rates, seed=int(content_key("mock", name), 16))
    return MockModel(SCRIPTS[script], name=name, sampling=sampling, faults=faults, concurrency=concurrency)


def least_value(schema: JsonObject, root: JsonObject | None = None, *, text: str = "mock") -> Any:
    """The smallest value that meets a schema, its texts being `text`; references are into `root`, by default itself."""
    least = partial(least_value, root=root or schema, text=text)
    if "$ref" in schema:
        found: Any = root or schema
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return least(found)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return least(schema[key][0])
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            known = schema.get("properties", {})
            return {name: least(known.get(name, {})) for name in schema.get("required", [])}
        case "array":
            return [least(schema.get("items", {}))] * schema.get("minItems", 0)
        case "string":
            return text
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
    return None
