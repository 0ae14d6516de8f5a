"""Constrained decoding of JSON: answers that keep to a schema of objects, truth values and texts, as those that teachers ask for.

What the schema fixes is forced, and the model writes the rest: `true` or `false`, and texts up to their closing quote. A text for
which tokens do not suffice is cut off and not closed, for it might have said something else.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from enum import Enum
from functools import cached_property
from itertools import groupby

from leap.models.base import Schema
from leap.models.constraint import ActionGrammar


class Free(Enum):
    """What the model writes itself."""

    TRUTH = "true or false"
    TEXT = "a text and its closing quote"


def pieces_of(schema: Schema) -> list[str | Free]:
    """What an answer consists of, one behind the other: what is fixed, and what is free.

    Raises:
        ValueError: The schema has values of other kinds.
    """
    definitions = schema.get("$defs", {})

    def of(one: Schema) -> Iterator[str | Free]:
        one = definitions[one["$ref"].rpartition("/")[2]] if "$ref" in one else one
        kind, properties = one.get("type"), one.get("properties", {})
        if kind == "boolean":
            yield Free.TRUTH
        elif kind == "string" and one.keys() == {"type"}:
            yield from ('"', Free.TEXT)
        elif kind == "object" and one.get("required") == list(properties):
            for number, (name, inner) in enumerate(properties.items()):
                yield f"{', ' if number else '{'}{json.dumps(name)}: "
                yield from of(inner)
            yield "}" if properties else "{}"
        else:
            raise ValueError(f"{one} is neither an object, a truth value nor a text")

    runs = groupby(of(schema), lambda piece: isinstance(piece, str))
    return [piece for fixed, run in runs for piece in (["".join(map(str, run))] if fixed else run)]


class JsonConstraint:
    """Follows one answer as it is generated and says which tokens may come next; see `ActionConstraint`.

    A model that thinks first thinks as it likes, and is held to the schema behind that.

    Args:
        grammar: Of the model's tokenizer.
        schema: What the answer keeps to.
        thinking: As of the request.

    Raises:
        ValueError: The schema, or the model's form of an answer, is none that can be held to.
    """

    thought = 0

    def __init__(self, grammar: ActionGrammar, schema: Schema, thinking: bool | None = None) -> None:
        self._grammar, self._chat, self._thinking = grammar, grammar.chat, thinking
        turn = self._chat.turn(thinking)
        if "<|channel|>" in turn.opening:
            raise ValueError("an answer in channels does not begin with JSON")
        opening = self._chat.text(turn.opening.strip()) if thinking is not False else []
        self._opening = opening if len(opening) == 1 else []
        self._thinks = bool(turn.begun)
        self._pieces = deque(pieces_of(schema))
        self._generated: list[int] = []
        self._forced: list[int] = []
        self._free: Free | None = None
        self._next()

    @property
    def complete(self) -> bool:
        """Whether what was generated is a whole answer, even if no token is left to end the turn with."""
        return not self._thinks and self._free is None and not self._forced

    def allowed(self) -> list[int] | None:
        """Tokens that may come next; None for any that are not `forbidden`."""
        if self._thinks or self._free is Free.TEXT:
            return None
        if self._free is Free.TRUTH:
            return [tokens[0] for tokens in self._words]
        if not self._forced:
            return [self._chat.end_of_turn]
        return [self._forced[0], *([] if self._generated else self._opening)]

    def forbidden(self) -> list[int]:
        """Tokens that may not come next, where `allowed` does not say which may."""
        return self._chat.ends if self._thinks else self._grammar.not_in_json

    def advance(self, token: int) -> None:
        """Takes in the token that was chosen."""
        first = not self._generated
        self._generated.append(token)
        if self._thinks:
            self._thinks = self._chat.answering(self._generated, self._thinking) is None
            return
        if first and token in self._opening:
            self._thinks = True
            return
        if self._forced:
            self._forced.pop(0)
        elif self._free is Free.TRUTH:
            self._forced = next(tokens[1:] for tokens in self._words if tokens[0] == token)
            self._free = None
        elif token == self._grammar.quote:
            self._free = None
        if not self._forced and self._free is None:
            self._next()

    def _next(self) -> None:
        """Goes on to the next piece, if there is one."""
        match self._pieces.popleft() if self._pieces else "":
            case Free() as free:
                self._free = free
            case fixed:
                self._forced = self._chat.text(fixed)

    @cached_property
    def _words(self) -> list[list[int]]:
        return [self._chat.text(word) for word in ("true", "false")]
