"""The unprivileged scripted baseline of InterCode Bash: a few kinds of request by their words, after a look around.

It knows the shell and reads the request; of the tasks' golds it knows nothing. Its rules are those that a person would
write down first: count, list, search, checksum, remove and measure, on the path and the pattern that the request names.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from leap.core import Decision, History
from leap_worlds.intercode.bash import reasons
from leap_worlds.intercode.bash.sight import first_look
from leap_worlds.intercode.text import SUBMIT

_PATTERN = re.compile(r"['\"`]?(\*\.\w+|\*\w+\*?)['\"`]?")
_SUFFIX = re.compile(
    r"['\"]?(?<![\w/])\.(\w{1,5})\b['\"]? |\b(php|java|py|c|txt|html|sh|log|doc|gz|sql|json) files?\b", re.IGNORECASE
)
_QUOTED = re.compile(r"['\"]([^'\"/*]+)['\"]")
_PATH = re.compile(r"(?<![\w.])~?/[\w./+-]*[\w+-]|(?<![\w.])/(?=\s|$)")


class BashExpert:
    """One per episode; plays from the history alone."""

    def decide(self, history: History) -> Decision:
        """The next reason and action."""
        look = first_look(history)
        if look is not None:
            return Decision(reason=reasons.look(first=True), action=look)
        command = guess(history.task.instruction)
        if command is not None and command not in history.actions:
            return Decision(reason=reasons.stage(command, 0, last=True), action=command)
        return Decision(reason=reasons.SUBMIT, action=SUBMIT)


def guess(request: str) -> str | None:
    """A command for a request, by its words; None for one of another kind."""
    paths = _PATH.findall(request)
    path = paths[0] if paths else "."
    pattern = _pattern(request)
    name = f" -name '{pattern}'" if pattern else ""
    quoted = [text for text in _QUOTED.findall(request) if text != pattern]
    files = f"find {path} -type f{name}"
    for words, make in _RULES:
        if re.search(words, request, re.IGNORECASE):
            return make(path, files, name, quoted)
    return None


def _pattern(request: str) -> str | None:
    if found := _PATTERN.search(request):
        return found.group(1)
    if found := _SUFFIX.search(request):
        return f"*.{found.group(1) or found.group(2).lower()}"
    return None


_RULES: tuple[tuple[str, Callable[[str, str, str, list[str]], str]], ...] = (
    (r"\bmd5\s?sums? of (?:the )?(?:md5|sorted)|sort\w* .*md5", lambda p, f, n, q: f"{f} | sort | xargs md5sum | md5sum"),
    (r"\bmd5", lambda p, f, n, q: f"{f} -exec md5sum {{}} +"),
    (r"\bcount\w* .*\blines?\b|\bnumber of lines|\blines of\b", lambda p, f, n, q: f"{f} | xargs cat | wc -l"),
    (r"\bcount\w*\b|\bnumber of\b", lambda p, f, n, q: f"{f} | wc -l"),
    (r"\b(?:remove|delete)s? .*\bempty (?:director|folder)", lambda p, f, n, q: f"find {p} -type d -empty -delete"),
    (r"\b(?:remove|delete)s? .*\bempty", lambda p, f, n, q: f"find {p} -type f -empty -delete"),
    (r"\b(?:remove|delete)s?\b", lambda p, f, n, q: f"{f} -delete" if n else f"ls -la {p}"),
    (r"\b(?:largest|biggest)\b", lambda p, f, n, q: f"{f} -exec ls -s {{}} + | sort -nr | head -5"),
    (r"\bsmallest\b", lambda p, f, n, q: f"{f} -exec ls -s {{}} + | sort -n | head -5"),
    (r"\bdisk usage|\bspace used", lambda p, f, n, q: f"du -sh {p}"),
    (r"\bempty\b|\b0 bytes|\bzero.length", lambda p, f, n, q: f"find {p} -empty"),
    (r"\bcontain\w*\b|\bsearch for\b.*\bin\b", lambda p, f, n, q: f"{f} | xargs grep -l '{q[0]}'" if q else f),
    (r"\bfirst line", lambda p, f, n, q: f"head -n 1 {p}"),
    (r"\btree\b", lambda p, f, n, q: f"tree {p}"),
    (r"\bdirector\w+|\bfolders?\b(?=.*\bnot\b.*\bsub)", lambda p, f, n, q: f"find {p} -maxdepth 1 -type d"),
    (r"\b(?:find|list|print|search)\w*\b", lambda p, f, n, q: f"find {p}{n}" if n else f"ls {p}"),
)
