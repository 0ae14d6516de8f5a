"""Reference solutions as lists of commands, where they are lists: what a teacher may say of them, command by command."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

_OPENS = {"if": "fi", "for": "done", "while": "done", "until": "done", "select": "done", "case": "esac", "{": "}"}
_TIED = re.compile(
    r"(?:export|declare|local|readonly|typeset|unset|source|alias|shopt|trap|exec|exit|return|eval|shift|read|wait|pushd|popd|set)\b"
    r"|\.\s|function\s|[A-Za-z_][\w-]*\s*\(\)|[A-Za-z_]\w*(?:\[[^]]*\])?\+?=\S*\s*(?:$|[;&|\n])"
)
"""What does nothing but change the shell that it runs in: what follows depends on it."""
_SET = re.compile(r"set\s+[-+][euxo]+(?:\s+(?:pipefail|errexit|nounset|xtrace))?")
_OWN_PLACE = re.compile(r"\$(?:0\b|\{0|BASH_SOURCE|\{BASH_SOURCE)|\$[1-9@*#]|\$\{[1-9@*]")
_HEREDOC = re.compile(r"<<(-?)[ \t]*(?:'([^'\n]+)'|\"([^\"\n]+)\"|\\?([A-Za-z_]\w*))")


@dataclass(frozen=True)
class Command:
    """One command of a script, and the comment that stands above it."""

    text: str
    comment: str = ""

    @property
    def program(self) -> str:
        """The program that it begins with."""
        line = self.text.splitlines()[0]
        try:
            words = shlex.split(line)
        except ValueError:  # a quote that is closed on another line
            words = line.split()
        return next((word for word in words if not re.match(r"\w+=", word)), "")


def unrolled(script: str) -> tuple[Command, ...] | None:
    """The commands of a script, each of which can be run in a shell of its own in turn; None where it is no such list: where
    commands share variables, functions or options, or the script asks where it lies."""
    pieces = _pieces(script)
    if pieces is None or _OWN_PLACE.search(script):
        return None
    commands: list[Command] = []
    comments: list[str] = []
    for text, bare in pieces:
        stripped = text.strip()
        if bare.strip() and not _SET.fullmatch(bare.strip()):
            if _TIED.match(_without_brackets(bare).strip()):
                return None
            commands.append(Command(text.strip("\n"), " ".join(comments)))
            comments = []
        elif stripped.startswith("#") and not stripped.startswith("#!"):
            comments.append(stripped.lstrip("# "))
        else:
            comments = []
    return tuple(commands) or None


def _pieces(script: str) -> list[tuple[str, str]] | None:
    """The script's lines, those that belong together as one: quotes, here-documents, continued lines, loops and the like. Each
    with what is bare of it, without quoted texts, comments and documents. None where the last one does not end."""
    pieces: list[tuple[str, str]] = []
    begun = at = 0
    bare, quote = "", ""
    documents: list[tuple[str, bool]] = []
    while at < len(script):
        letter = script[at]
        if quote:
            at += 2 if letter == "\\" and quote == '"' else 1
            quote = "" if letter == quote else quote
        elif letter == "\\":
            bare += "" if script.startswith("\\\n", at) else "_"
            at += 2
        elif letter in "'\"":
            quote, bare, at = letter, bare + "_", at + 1
        elif letter == "#" and (not bare or bare[-1] in " \t\n;&|("):
            at = script.find("\n", at) if "\n" in script[at:] else len(script)
        elif script.startswith("<<<", at):
            bare, at = f"{bare}<<<", at + 3
        elif found := _HEREDOC.match(script, at):
            documents.append((found[2] or found[3] or found[4], bool(found[1])))
            bare, at = f"{bare}_", found.end()
        elif letter == "\n":
            at = _past(script, at + 1, documents)
            documents = []
            if _ends(bare):
                pieces.append((script[begun:at].removesuffix("\n"), bare))
                begun, bare = at, ""
            else:
                bare += "\n"
        else:
            bare, at = bare + letter, at + 1
    if quote or documents or not _ends(bare):
        return None
    return [*pieces, (script[begun:], bare)]


def _past(script: str, at: int, documents: list[tuple[str, bool]]) -> int:
    """Where the here-documents that begin at a place end."""
    for end, tabs in documents:
        while at < len(script):
            stop = script.find("\n", at)
            stop = len(script) if stop < 0 else stop
            line, at = script[at:stop], min(stop + 1, len(script))
            if (line.lstrip("\t") if tabs else line) == end:
                break
    return at


def _ends(bare: str) -> bool:
    """Whether a command is complete at the end of this line."""
    if bare.rstrip().endswith(("&&", "||", "|")):
        return False
    words = re.split(r"[\s;&|()]+", bare)
    if "case" in words:  # its patterns have a bracket that nothing opens
        return words.count("case") <= words.count("esac")
    opened = sum(word in _OPENS for word in words) - sum(word in _OPENS.values() for word in words)
    return opened <= 0 and bare.count("(") <= bare.count(")")


def _without_brackets(bare: str) -> str:
    """A text without what stands in brackets with a dollar or an equals sign before them."""
    before = None
    while before != bare:
        before, bare = bare, re.sub(r"(?<=[$=])\([^()]*\)", "_", bare)
    return bare
