"""What is asked for: a request in parts, its words, the command that fulfils it, how to come to know it, and why."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import NamedTuple

from leap_worlds.intercode.bash.generated.config import LONE, BashFamilyConfig, Lexicon, Operation, Select
from leap_worlds.intercode.bash.generated.trees import Tree
from leap_worlds.intercode.bash.tasks import BashTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a request says, and no more: none of it is hidden from whoever reads the words. Empty is what it does not say."""

    operation: Operation
    root: str  # the folder at the root
    select: Select | None = None  # how the file is named; None where the operation is about no file to be found
    path: str = ""  # the file, where it is told; the note that names it, where it is listed
    name: str = ""  # the file's name, where that is all that is told
    holds: str = ""  # what the file holds, where that is all that is told
    folder: str = ""  # where the file is, where files are counted, or where one is made
    to: str = ""  # the folder to move or copy to
    new: str = ""  # the new name
    text: str = ""  # the text to append, to write or to look for; the word to replace
    by: str = ""  # the word to put in its place
    ending: str = ""  # of the files to count


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedTask(BashTask):
    """One task of a generated family."""

    request: Request  # what the query says, in parts
    path: str  # the file that it is about; empty where it is about none
    look: str | None  # a command that tells what the query does not; None where it tells all that the gold names

    @property
    def id(self) -> str:
        """train-017/3 and so on."""
        return f"{self.file_system}/{self.index}"

    @property
    def kind(self) -> str:
        """The group that results are reported by: how the request names its file."""
        return str(self.request.select or "none")


class Way(NamedTuple):
    """How a file may be named."""

    words: tuple[str, ...]  # the ways to say it
    look: str | None = None  # the command by which who knows the shell's rules finds the file
    reason: str = ""  # why to look so


WAYS = {
    Select.TOLD: Way(("the file {path}", "{path}", "the file at {path}")),
    Select.NAMED: Way(
        (
            "the file {name}, which is somewhere below {root},",
            "{name}, wherever it is in {root},",
            "the file called {name} in one of the folders of {root}",
        ),
        "find {root} -name {name}",
        "I know its name alone, so I search for it.",
    ),
    Select.MENTIONS: Way(
        (
            "the file below {root} that mentions {holds}",
            "the one file in the folders of {root} with {holds} in it",
            "whichever file of {root} has the words {holds}",
        ),
        "grep -l {holds} {root}/*/*",
        "I know what it holds, so I search the files.",
    ),
    Select.LARGEST: Way(
        ("the largest file of {folder}", "the file in {folder} that takes most space", "the biggest file in {folder}"),
        "ls -S {folder} | head -n 1",
        "I list the folder by size, the largest first.",
    ),
    Select.SMALLEST: Way(
        ("the smallest file of {folder}", "the file in {folder} that takes least space", "the tiniest file in {folder}"),
        "ls -rS {folder} | head -n 1",
        "I list the folder by size, the smallest first.",
    ),
    Select.LISTED: Way(
        (
            "the file that {path} names",
            "the file whose path is written in {path}",
            "the file with the path that stands in {path}",
        ),
        "cat {path}",
        "I read the file that names it.",
    ),
}


class Ask(NamedTuple):
    """What may be asked for."""

    words: tuple[str, ...]  # the ways to ask
    command: str  # what does it
    act: str  # what it does, as "I ..." goes on


ASKS = {
    Operation.DELETE: Ask(("Delete {it}.", "Remove {it} for good.", "Get rid of {it}."), "rm {file}", "delete it"),
    Operation.MOVE: Ask(
        ("Move {it} to {to}.", "Put {it} into {to} instead of where it is.", "Shift {it} over to {to}."),
        "mv {file} {to}",
        "move it",
    ),
    Operation.COPY: Ask(
        ("Copy {it} to {to}.", "Put a copy of {it} into {to}.", "Duplicate {it} in {to}."), "cp {file} {to}", "copy it"
    ),
    Operation.RENAME: Ask(
        (
            "Rename {it} to {new}, in its folder.",
            "Give {it} the name {new} and leave it in its folder.",
            "Let {it} be called {new}, where it is.",
        ),
        "mv {file} {beside}/{new}",
        "rename it",
    ),
    Operation.APPEND: Ask(
        ("Append the line {text} to {it}.", "Add a last line {text} to {it}.", "Write {text} at the end of {it}."),
        "echo {text} >> {file}",
        "append the line",
    ),
    Operation.REPLACE: Ask(
        ("Replace {text} by {by} in {it}.", "Put {by} for each {text} in {it}.", "Change {text} to {by} all over {it}."),
        "sed -i {swap} {file}",
        "replace the word",
    ),
    Operation.LINES: Ask(
        (
            "How many lines does {it} have? Print the number alone.",
            "Count the lines of {it} and print nothing but the number.",
            "Tell the number of lines in {it}, only the number.",
        ),
        "wc -l < {file}",
        "count its lines",
    ),
    Operation.HITS: Ask(
        (
            "How many lines with {text} are in {it}?",
            "Count the lines that have {text} in {it}.",
            "Tell in how many lines {text} stands in {it}.",
        ),
        "grep -c {text} {file}",
        "count the lines with it",
    ),
    Operation.FIRST: Ask(
        ("Print the first line of {it}.", "What is the first line of {it}?", "Show the top line of {it}."),
        "head -n 1 {file}",
        "print its first line",
    ),
    Operation.LAST: Ask(
        ("Print the last line of {it}.", "What is the last line of {it}?", "Show the bottom line of {it}."),
        "tail -n 1 {file}",
        "print its last line",
    ),
    Operation.COUNT: Ask(
        (
            "How many {ending} files are in {folder}?",
            "Count the files that end in {ending} in {folder}.",
            "Tell the number of {ending} files of {folder}.",
        ),
        "find {folder} -name {pattern} | wc -l",
        "count the files",
    ),
    Operation.CREATE: Ask(
        (
            "Make the file {new} in {folder} with the text {text}.",
            "Create {new} in {folder}; it should hold the line {text}.",
            "Write {text} into a new file {new} in {folder}.",
        ),
        "echo {text} > {folder}/{new}",
        "make the file",
    ),
}


def _parts(request: Request, quote: str = "'") -> dict[str, str]:
    """A request's parts as they stand in its words and in commands: texts in quotes."""
    parts = {name: str(value) for name, value in asdict(request).items()}
    quoted = {name: f"{quote}{parts[name]}{quote}" for name in ("holds", "text", "by")}
    return parts | quoted | {"ending": f".{request.ending}"}


def say(request: Request, select: int, ask: int) -> str:
    """A request in words, by one of the ways of naming the file and one of the ways of asking."""
    parts = _parts(request)
    targets = WAYS[request.select].words if request.select else ("",)
    it = targets[select % len(targets)].format(**parts)
    asks = ASKS[request.operation].words
    words = asks[ask % len(asks)].format(it=it, **parts)
    return words.replace(",.", ".").replace(",?", "?").replace(",,", ",")


def look_command(request: Request) -> str | None:
    """The command by which who knows the shell's rules finds the file; None where the request tells all."""
    look = WAYS[request.select].look if request.select else None
    return look and look.format(**_parts(request))


def command(request: Request, path: str, quote: str = "'") -> str:
    """The command that does what is asked to the file, with the given quotes."""
    return ASKS[request.operation].command.format(
        **_parts(request, quote),
        file=path,
        beside=path.rpartition("/")[0],
        swap=f"{quote}s/{request.text}/{request.by}/g{quote}",
        pattern=f"{quote}*.{request.ending}{quote}",
    )


def draw_request(config: BashFamilyConfig, tree: Tree, rng: random.Random) -> tuple[Request, str]:
    """A request about a file system, and the path of the file that it is about (empty where it is about none)."""
    while True:
        operation = rng.choice(config.operations)
        select = None if operation in LONE else rng.choice(config.select)
        found = _target(config, select, tree, rng) if select else ({}, "")
        if found is None:
            continue
        told, path = found
        more = _details(config, operation, tree, path, rng)
        if more is not None:
            return Request(operation=operation, select=select, root=tree.root, **(told | more)), path


def _target(
    config: BashFamilyConfig, select: Select, tree: Tree, rng: random.Random
) -> tuple[dict[str, str], str] | None:
    """Draws a file: what the request tells of it, and its path; None where the draw does not fit."""
    if select is Select.TOLD:
        path = rng.choice(list(tree.files))
        return {"path": path}, path
    if select is Select.NAMED:
        path = rng.choice(list(tree.files))
        return {"name": _name(path)}, path
    if select is Select.MENTIONS:
        return _mentioned(config, tree, rng)
    if select in (Select.LARGEST, Select.SMALLEST):
        folder = rng.choice(tree.folders)
        by_size = sorted(tree.inside(folder), key=tree.size, reverse=select is Select.LARGEST)
        if len(by_size) < 2 or tree.size(by_size[0]) == tree.size(by_size[1]):
            return None
        return {"folder": folder}, by_size[0]
    notes = [path for path, lines in tree.files.items() if lines[0] in tree.files]
    note = rng.choice(notes) if notes else None
    return ({"path": note}, tree.files[note][0]) if note is not None else None


def _mentioned(config: BashFamilyConfig, tree: Tree, rng: random.Random) -> tuple[dict[str, str], str] | None:
    """Words that one file alone holds; of two of them, the first is in other files too."""
    if rng.random() >= config.two_words:
        alone = [(word, found[0]) for word in config.lexicon.rare if len(found := tree.holders(word)) == 1]
        if not alone:
            return None
        word, path = rng.choice(alone)
        return {"holds": word}, path
    path = rng.choice(list(tree.files))
    words = rng.choice(tree.files[path]).split()
    if len(words) < 2:
        return None
    start = rng.randrange(len(words) - 1)
    text = " ".join(words[start : start + 2])
    if len(tree.holders(text)) != 1 or len(tree.holders(words[start])) < 2:
        return None
    return {"holds": text}, path


def _details(
    config: BashFamilyConfig, operation: Operation, tree: Tree, path: str, rng: random.Random
) -> dict[str, str] | None:
    """Draws what else the request tells; None where the draw does not fit."""
    lexicon = config.lexicon
    here = path.rpartition("/")[0]
    words = rng.sample(lexicon.words, 2 if rng.random() < config.two_words else 1)
    match operation:
        case Operation.MOVE | Operation.COPY:
            return {"to": rng.choice([folder for folder in tree.folders if folder != here])}
        case Operation.RENAME:
            return {"new": _new_name(lexicon, tree, rng)}
        case Operation.APPEND:
            return {"text": " ".join(words)}
        case Operation.REPLACE:
            line = rng.choice(tree.files[path]).split()
            text = rng.choice(line)
            return {"text": text, "by": words[0]} if len(line) > 1 and words[0] != text else None
        case Operation.HITS:
            line = rng.choice(tree.files[path]).split()
            if len(line) < 2:
                return None
            start = rng.randrange(len(line) - 1)
            return {"text": " ".join(line[start : start + len(words)])}
        case Operation.COUNT:
            folder = rng.choice(tree.folders)
            there = [_name(p).split(".")[1] for p in tree.inside(folder)]
            return {"folder": folder, "ending": rng.choice([*there, *lexicon.endings[:1]])}
        case Operation.CREATE:
            return {"folder": rng.choice(tree.folders), "new": _new_name(lexicon, tree, rng), "text": " ".join(words)}
    return {}


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _new_name(lexicon: Lexicon, tree: Tree, rng: random.Random) -> str:
    used = {_name(path).split(".")[0] for path in tree.files}
    return f"{rng.choice([stem for stem in lexicon.stems if stem not in used])}.{rng.choice(lexicon.endings)}"
