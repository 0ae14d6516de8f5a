"""Scripted knowledge of SQL tasks: an unprivileged expert, and a teacher that knows the gold statement.

The expert plays from the history alone: it lists the tables, looks up those that the question names, and tries a count
or a whole table.

The teacher knows which tables and columns the gold statement uses, but never gives a statement that names what the
student has not looked up: first SHOW TABLES, then DESC for each table, then (below privilege 50) the innermost
subquery, then the gold statement, then it submits. From 75 on it looks up only tables of which a column was not seen;
at 0 the hidden state does not matter. A statement changes nothing here, so the gold's own reward tells what the
proposal is worth: where it is no 1.0, nothing is proposed.
"""

from __future__ import annotations

import re

from leap.core import Decision, History, PrivilegedState
from leap_worlds.intercode.text import SUBMIT

SHOW = "SHOW TABLES"
_DESC = re.compile(r"^\s*(?:desc|describe|show\s+(?:full\s+)?(?:columns|fields)\s+(?:from|in))\s+[`'\"]?(\w+)", re.IGNORECASE)
_SHOW = re.compile(r"^\s*show\s+tables\b", re.IGNORECASE)
_NAME = re.compile(r"\('(\w+)',\)")
_WORD = re.compile(r"\w+")


class SqlExpert:
    """The unprivileged expert, one per episode."""

    def decide(self, history: History) -> Decision:
        """The next reason and action, from the history alone."""
        tables = tables_seen(history)
        if not tables and SHOW not in history.actions:
            return Decision(reason="I do not know the tables yet, so I list them.", action=SHOW)
        described = columns_seen(history)
        named = [t for t in tables if _is_named(t, history.task.instruction)] or tables[:1]
        for table in named[:3]:
            if table.lower() not in described:
                return Decision(reason=f"The question is about {table}, so I look up its columns.", action=f"DESC {table}")
        if not named:
            return Decision(reason="There are no tables, so nothing can be found out.", action=SUBMIT)
        if any(action.upper().startswith("SELECT") for action in history.actions):
            return Decision(reason="The result is the best answer I can give.", action=SUBMIT)
        if re.search(r"\b(?:how many|number of|count)\b", history.task.instruction, re.IGNORECASE):
            return Decision(reason="The question asks how many, so I count the rows.", action=f"SELECT count(*) FROM {named[0]}")
        columns = [c for c in described[named[0].lower()] if _is_named(c, history.task.instruction)]
        return Decision(
            reason="I select the columns that the question names." if columns else "I look at the whole table.",
            action=f"SELECT {', '.join(columns) or '*'} FROM {named[0]}",
        )


def teach(history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
    """The teacher at the student's state; the module's docstring states the rule.

    Returns:
        None where the gold statement itself does not score.
    """
    if privilege == 0:
        return SqlExpert().decide(history)
    facts = privileged.facts
    if facts["solved"]:
        return Decision(reason="The last result is what the question asks for, so I submit it.", action=SUBMIT)
    if not facts["possible"]:
        return None
    return _look_up(history, facts, privilege) or _answer(history, facts["gold"], privilege)


def looks_up(action: str, history: History, privileged: PrivilegedState) -> bool:
    """Whether a student's action looks up something that the answer needs and that it has not seen yet."""
    if privileged.facts["solved"]:
        return False
    if _SHOW.match(action):
        return not tables_seen(history)
    described = _DESC.match(action)
    needed = {table.lower() for table in needed_tables(privileged.facts)}
    return bool(described) and described.group(1).lower() in needed - columns_seen(history).keys()


def needed_tables(facts: dict) -> list[str]:
    """The tables that the gold statement names, in its order."""
    words = [word.lower() for word in _WORD.findall(facts["gold"])]
    tables = [table for table in facts["tables"] if table.lower() in words]
    return sorted(tables, key=lambda table: words.index(table.lower()))


def tables_seen(history: History) -> list[str]:
    """Tables that a SHOW TABLES listed."""
    found: list[str] = []
    for action, observation in zip(history.actions, history.observations[1:], strict=True):
        if _SHOW.match(action):
            found += [name for name in _NAME.findall(observation.text) if name not in found]
    return found


def columns_seen(history: History) -> dict[str, list[str]]:
    """The columns of the tables that were looked up, by the table's name in lower case."""
    found = {}
    for action, observation in zip(history.actions, history.observations[1:], strict=True):
        described = _DESC.match(action)
        if described and observation.text.startswith("[("):
            found[described.group(1).lower()] = re.findall(r"\('(\w+)', '", observation.text)
    return found


def _look_up(history: History, facts: dict, privilege: int) -> Decision | None:
    failed = history.now.text.startswith("Error")
    shown = "\n".join([history.task.instruction, *(o.text for o in history.observations)]).lower()
    seen = {table.lower() for table in tables_seen(history)}
    needed = needed_tables(facts)
    if not seen and not all(table.lower() in shown for table in needed):
        reason = "I do not know the tables' names yet, so I list them."
        return Decision(reason=f"The names were a guess. {reason}" if failed else reason, action=SHOW)
    for table in needed:
        if table.lower() in columns_seen(history):
            continue
        words = {word.lower() for word in _WORD.findall(facts["gold"])}
        columns = [column.lower() for column in facts["tables"][table] if column.lower() in words]
        if privilege >= 75 and all(re.search(rf"\b{re.escape(column)}\b", shown) for column in columns):
            continue
        before = "A name in the last statement was wrong. " if failed else ""
        return Decision(
            reason=f"{before}The question needs {table}, and I have not seen its columns yet.", action=f"DESC {table}"
        )
    return None


def _answer(history: History, gold: str, privilege: int) -> Decision:
    inner = _subquery(gold) if privilege < 50 else None
    if inner is not None and inner not in history.actions:
        return Decision(reason="The question has a part that can be answered first, so I begin with that.", action=inner)
    if history.now.text.startswith("Error"):
        reason = "The last statement failed; with the columns I have looked up I write it anew."
    elif any(action.upper().lstrip().startswith("SELECT") for action in history.actions) and inner is None:
        reason = "The last result is not yet what the question asks for, so I write the statement anew."
    else:
        reason = "I know the tables and columns that the question needs, so I can write the statement."
    return Decision(reason=reason, action=gold if "\n" not in gold else " ".join(gold.split()))


def _subquery(statement: str) -> str | None:
    """An innermost subquery that stands alone (no alias of the outer statement); None where there is none."""
    for found in re.finditer(r"\(\s*(SELECT\b[^()]*(?:\([^()]*\)[^()]*)*)\)", statement, re.IGNORECASE):
        inner = " ".join(found.group(1).split())
        if not re.search(r"\bT\d+\.", inner) or re.search(r"\bAS T\d+\b", inner, re.IGNORECASE):
            return inner
    return None


def _is_named(name: str, text: str) -> bool:
    """Whether a text speaks of a name: each of its words, or its plural or singular."""
    said = {word.lower().rstrip("s") for word in re.findall(r"[A-Za-z]+", text)}
    words = [word.lower().rstrip("s") for word in re.findall(r"[A-Za-z]+", name.replace("_", " "))]
    return bool(words) and all(word in said for word in words)
