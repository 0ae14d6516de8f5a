"""Every word that a student of generated tasks meets, in the forms in which a scratch tokenizer should keep it whole."""

from __future__ import annotations

from itertools import chain

from leap_worlds.intercode.bash.generated import voice
from leap_worlds.intercode.bash.generated.config import Lexicon
from leap_worlds.intercode.bash.generated.requests import ASKS, TARGETS

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
    texts |= {text.replace("{", " ").replace("}", " ") for texts in (ASKS, TARGETS) for said in texts.values() for text in said}
    texts |= {f" {said}" for said in voice.SAYS.values()}
    texts |= {f" {said}" for said in voice.spoken()}
    return sorted(texts | {_COMMANDS, _SHOWN})
