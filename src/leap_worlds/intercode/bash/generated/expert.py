"""The unprivileged scripted expert of generated tasks: it knows Bash, and not the rules of this shell.

It reads the request and what the shell shows, and works as a person would who comes from another shell:

* a file that it knows by name alone it looks for folder by folder;
* it puts texts in double quotes, which fall away on the way to this shell: a text of two words falls apart;
* where the whole of a pattern finds nothing it takes the first word of it;
* a folder's files by size it lists with `cd FOLDER && ls`, after which nothing can start any more that is not behind a `cd`;
* when it has copied a file that it had to search for it looks whether the copy is there, though what is printed last
  counts as the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from leap.core import Decision, History
from leap_worlds.intercode.bash.generated import voice
from leap_worlds.intercode.bash.generated.config import Operation, Select
from leap_worlds.intercode.bash.generated.requests import Request, command
from leap_worlds.intercode.text import SUBMIT


class GeneratedExpert:
    """One per episode; plays from the history alone. It reads a task's request in the parts that its words say."""

    def __init__(self, read: Callable[[str], Request]) -> None:
        self._read = read

    def decide(self, history: History) -> Decision:
        """The next reason and action."""
        request = self._read(history.task.id)
        shown = zip(history.actions, (o.text for o in history.observations[1:]), strict=True)
        search, done = _search(request), dict(shown)
        try:
            look = next(search)
            while look in done:
                look = search.send(done[look])
            return Decision(reason=voice.look_reason(request), action=look)
        except StopIteration as ended:
            path: str | None = ended.value
        if path is None:
            return Decision(reason=voice.SAYS["give up"], action=SUBMIT)
        act = command(request, path, '"')
        if act not in done:
            return Decision(reason=voice.act_reason(request), action=act)
        check = f"ls {request.to}"
        searched = request.select not in (Select.TOLD, Select.LISTED)
        if request.operation is Operation.COPY and searched and not done[act] and check not in done:
            return Decision(reason="I look whether the copy is there.", action=check)
        if "OCI runtime" in done[act] and history.actions.count(act) < 2:
            return Decision(reason="It did not start, so I try once more.", action=act)
        return Decision(reason=voice.SAYS["submit"], action=SUBMIT)


def _search(request: Request) -> Generator[str, str, str | None]:
    """Yields looks for the file, is sent what each shows, and returns the file's path; None where it gives up."""
    match request.select:
        case Select.NAMED:  # folder by folder, in the order in which they are listed
            for name in (yield f"ls {request.root}").split():
                if request.name in (yield f"ls {request.root}/{name}").split("\n"):
                    return f"{request.root}/{name}/{request.name}"
            return None
        case Select.MENTIONS:
            for words in dict.fromkeys((request.holds, request.holds.split()[0])):
                found = yield f'grep -l "{words}" {request.root}/*/*'
                if found.startswith("/"):
                    return found.split("\n")[0]
            return None
        case Select.LARGEST | Select.SMALLEST:
            option = "-S" if request.select is Select.LARGEST else "-rS"
            first = (yield f"cd {request.folder} && ls {option}").split("\n")[0]
            return f"{request.folder}/{first}" if "." in first and " " not in first else None
        case Select.LISTED:
            path = (yield f"cat {request.path}").strip()
            return path if path.startswith("/") and " " not in path else None
    return request.path
