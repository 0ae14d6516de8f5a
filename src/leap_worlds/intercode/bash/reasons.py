"""What the scripted teacher says, in the first person and without a word that a student could not have thought."""

from __future__ import annotations

from leap_worlds.intercode.bash.pipeline import program

_DOES = {
    "find": "let find list what fits the request",
    "grep": "keep the lines that match",
    "egrep": "keep the lines that match",
    "awk": "take the fields I need from each line",
    "sed": "edit each line",
    "cut": "cut out the fields I need",
    "sort": "sort the lines",
    "uniq": "put equal lines together, which have to be sorted for that",
    "wc": "count",
    "head": "keep the first lines",
    "tail": "keep the last lines",
    "xargs": "hand the names on to a command as arguments",
    "tr": "replace or delete single characters",
    "tee": "write the lines to a file and print them at once",
    "md5sum": "take checksums",
    "ls": "list what is there",
    "cat": "print the contents",
    "tac": "print the lines from the last to the first",
    "rev": "turn each line around",
    "nl": "number the lines",
    "paste": "join the lines",
    "column": "set the lines as a table",
    "comm": "compare the two sorted lists",
    "join": "join the two sorted files",
    "diff": "compare the two",
    "du": "measure how much space things take",
    "df": "ask for the free space",
    "od": "dump the bytes",
    "tree": "draw the tree of folders",
    "tar": "work on the archive with tar",
    "gzip": "compress with gzip",
    "zcat": "print what is compressed",
    "cpio": "copy the listed files with cpio",
    "rm": "remove what the request names",
    "mv": "move what the request names",
    "ln": "make the link",
    "mkdir": "make the folders",
    "touch": "make the files",
    "curl": "download it",
    "echo": "print the text",
    "seq": "print the numbers",
    "env": "list the environment's variables",
    "cd": "go to the folder",
    "split": "split it into pieces",
    "sh": "run the lines as commands",
}


def does(command: str) -> str:
    """What the last stage of a pipeline does, as "I ..." goes on."""
    name = program(command)
    return _DOES.get(name, f"use {name}" if name.isalnum() else "run the command that the request describes")


def stage(command: str, number: int, last: bool) -> str:
    """For a stage of a pipeline; `number` counts from 0."""
    if number == 0 and last:
        return f"One command can do this: I {does(command)}."
    if number == 0:
        return f"I build the pipeline up stage by stage and begin with what it works on: I {does(command)}."
    end = " That should be the answer." if last else ""
    return f"The stages so far print what I need to go on, so next I {does(command)}.{end}"


def whole(command: str) -> str:
    """For all stages at once."""
    return f"I know which stages this needs and put them together at once; the last of them lets me {does(command)}."


SUBMIT = "What I printed last answers the request, and the files are as asked, so I submit."
SUBMIT_AT_LAST = "This is my last action, and only what is submitted counts, so I submit."
SUBMIT_LOST = "Further commands would only change more than the request asks for, so I submit what stands there now."
LEAVE_LOST_FOLDER = (
    "Everything behind cd is taken as the folder's name, so I am in a folder that does not exist and nothing can start "
    "there; I go back to / and use full paths."
)
MEND_QUOTES = (
    "Double quotes do not survive on the way to this shell, so a quoted text with a blank falls apart; single quotes "
    "do, so I give the same command with those."
)
MEND_MALFORMED = "The command could not be read: its quotes do not balance. I give it again with single quotes in pairs."
STAY_SILENT = (
    "The files are as the request asks. What is printed last counts as my answer, and this request asks for no output, so I "
    "end on a command that prints nothing."
)
UNDO_NEW = "An earlier command of mine left something behind that the request does not ask for, so I remove it."
UNDO_CHANGE = "An earlier command of mine changed something that the request does not ask for, so I bring it back from git."
AGAIN = "I have looked at other things since; what is printed last counts, so I print the answer once more."


def look(first: bool) -> str:
    """For a look around before acting."""
    if first:
        return "Before I write the command I look at what is there, so that I name and match the right things."
    return "I have not seen yet what the command has to name, so I look there first."


def own(command: str) -> str:
    """For a student's command that needs no change and came without a reason."""
    return f"To get on with the request I {does(command)}."
