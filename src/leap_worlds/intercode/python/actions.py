"""From an action to the code that is run, and the reward. Source: princeton-nlp/intercode, `PythonEnv`."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Mapping, Sequence

_FUNCTION = re.compile(r"def (\w+)\s*\(")
_LONGEST = 50_000


def prepared(action: str) -> str:
    """The code of an action: a definition as it stands, anything else printed unless it assigns, prints, imports or asserts.

    Raises:
        SyntaxError, ValueError: It is no Python.
    """
    if action.strip().startswith("def "):
        return action
    if len(action) > _LONGEST:
        raise ValueError("the code is too long")
    try:
        nodes = list(ast.walk(ast.parse(action.strip())))
    except (RecursionError, MemoryError) as error:
        raise ValueError(f"too deeply nested: {error}") from error
    said = any(
        isinstance(node, ast.Assign | ast.Import)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print")
        for node in nodes
    )
    return action if said or action.strip().startswith("assert") else f"print({action})"


def function_name(code: str) -> str | None:
    """The first function that a piece of code defines."""
    found = _FUNCTION.search(code)
    return found.group(1) if found else None


def submitted_name(action: str, before: list[str]) -> str | None:
    """The function that is submitted: the one named, else that of the last definition. None where there is none.

    Upstream raises where none is named.
    """
    words = action.split()
    if len(words) > 1:
        return words[1].split("(")[0] if words[1].split("(")[0].isidentifier() else None
    return next((name for code in reversed(before) if (name := function_name(code))), None)


class _Calls(ast.NodeTransformer):
    """Takes the calls out of a test: those of functions that Python itself does not have, or that the gold defines."""

    def __init__(self, defined: Sequence[str]) -> None:
        self.calls: list[str] = []
        self._defined = defined

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name is None or (hasattr(builtins, name) and name not in self._defined):
            return self.generic_visit(node)
        self.calls.append(ast.unparse(node))
        return ast.parse(f"values[{len(self.calls) - 1}]", mode="eval").body


def taken_apart(test: str, gold: str) -> tuple[str, str]:
    """A test as the tuple of its calls, for the student's interpreter, and as what it asks of their `values`, for another."""
    calls = _Calls(_FUNCTION.findall(gold))
    rest = ast.unparse(calls.visit(ast.parse(test)))
    return f"({''.join(f'{call}, ' for call in calls.calls)})", rest


def reward(student: Mapping[str, object], gold: Mapping[str, object]) -> float:
    """The share of tests in which the student's function and the gold gave the same, an error included."""
    return sum(student[test] == gold[test] for test in gold) / len(gold) if gold else 0.0


def defining(gold: str) -> str:
    """The gold as an action that is run as it stands: one that upstream would print gets an assignment."""
    try:
        return gold if prepared(gold) == gold else f"{gold}\n_ = None"
    except (SyntaxError, ValueError):
        return gold
