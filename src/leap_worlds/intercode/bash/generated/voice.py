"""What expert and teacher say on generated tasks (short, in the first person, with nothing that only a teacher knows),
and every word that a student of these tasks meets, in the forms in which a scratch tokenizer should keep it whole."""

from __future__ import annotations

from itertools import chain

from leap_worlds.intercode.bash.generated.config import Lexicon, Select
from leap_worlds.intercode.bash.generated.requests import ASKS, WAYS, Request

SAYS = {
    "submit": "All is done, so I submit.",
    "give up": "More would only do harm, so I submit.",
    "again": "What is printed last counts, so I do it once more.",
    "silent": "All is done, so the last thing prints nothing.",
    "cd": "Behind cd stands more than a folder, so I go back.",
    "quotes": "Double quotes fall away here, so I take single ones.",
    "malformed": "The quotes do not balance, so I mend them.",
    "undo": "Something is not as asked, so I undo it all.",
}
"""By the teacher's rule."""

_KNOWS = "I know all I need, so I"
_SEES = "I see which file it is, so I"
_NUMBERS = 40
_COMMANDS = (
    " find -name rm mv cp sed -i 's/amber/azure/g' wc -l < > >> grep -c -l -r head -n 1 tail -n 1 ls -S -rS cat echo cd / && * | "
    "submit true git stash -uq"
)
_SHOWN = (
    "/bin/bash: line 1: cannot remove '': No such file or directory ls: cannot access cannot stat '': OCI runtime exec "
    "failed: exec failed: unable to start container process: chdir to cwd (\"\") set in config.json failed: no such "
    "file or directory: unknown\r\n grep: rm: mv: cp: cat: sed: can't read : Is a directory missing operand Command "
    "timed out Malformed command skipped are the same file A new shell is open at /. (no output) command not found"
)


def look_reason(request: Request) -> str:
    """For the command that finds the file."""
    assert request.select is not None
    return WAYS[request.select].reason


def act_reason(request: Request) -> str:
    """For the command that does what is asked."""
    known = request.select in (None, Select.TOLD)
    return f"{_KNOWS if known else _SEES} {ASKS[request.operation].act}."


def names(lexicon: Lexicon) -> list[str]:
    """Names of files and folders, each to be one token: `/depot`, `/notes`, `apple.txt`."""
    folders = [f"/{word}" for word in (*lexicon.roots, *lexicon.folders)]
    return folders + [f"{stem}.{ending}" for stem in lexicon.stems for ending in lexicon.endings]


def vocabulary(lexicon: Lexicon) -> list[str]:
    """Texts that hold those words."""
    texts = {
        form for word in chain(*lexicon) for form in (f" {word}", f"/{word}", f"'{word}'", f"\n{word}\n", f".{word}")
    }
    texts |= {form for name in names(lexicon) for form in (f" {name}", f"\n{name}", f"/{name}")}
    texts |= {f"\n{number}\n" for number in range(_NUMBERS)} | {f" {number}" for number in range(_NUMBERS)}
    asked = chain.from_iterable(said.words for said in (*ASKS.values(), *WAYS.values()))
    texts |= {text.replace("{", " ").replace("}", " ") for text in asked}
    texts |= {f" {said}" for said in SAYS.values()} | {f" {way.reason}" for way in WAYS.values() if way.reason}
    texts |= {f" {start} {ask.act}." for start in (_KNOWS, _SEES) for ask in ASKS.values()}
    return sorted(texts | {_COMMANDS, _SHOWN})
