"""The unprivileged scripted expert of generated tasks: it knows Bash, and not the rules of this shell.

It reads the request and what the shell shows, and works as a person would who comes from another shell:

* a file that it knows by name alone it looks for folder by folder;
* it puts texts in double quotes, which fall away on the way to this shell: a text of two words falls apart;
* where the whole of a pattern finds nothing it takes the first word of it;
* a folder's files by size it lists with `cd FOLDER && ls`, after which nothing can start any more that is not behind a `cd`;
* when it has copied a file that it had to search for it looks whether the copy is there, though what is printed last counts
  as the answer.
"""

from __future__ import annotations

from collections.abc import Callable

from leap.core import Decision, History
from leap_worlds.intercode.bash.generated import voice
from leap_worlds.intercode.bash.generated.config import Operation, Select
from leap_worlds.intercode.bash.generated.requests import Request, command
from leap_worlds.intercode.text import SUBMIT


class GeneratedExpert:
    """One per episode; plays from the history alone.

    Args:
        read: The request of a task, in the parts that its words say.
    """

    def __init__(self, read: Callable[[str], Request]) -> None:
        self._read = read

    def decide(self, history: History) -> Decision:
        """The next reason and action."""
        request = self._read(history.task.id)
        shown = list(zip(history.actions, (o.text for o in history.observations[1:]), strict=True))
        path, look = _find(request, shown)
        if look is not None:
            return Decision(reason=voice.look_reason(request), action=look)
        if path is None:
            return Decision(reason=voice.SAYS["give up"], action=SUBMIT)
        act = command(request, path, '"')
        done = dict(shown)
        if act not in done:
            return Decision(reason=voice.act_reason(request), action=act)
        check = f"ls {request.to}"
        searched = request.select not in (Select.TOLD, Select.LISTED)
        if request.operation is Operation.COPY and searched and not done[act] and check not in done:
            return Decision(reason="I look whether the copy is there.", action=check)
        if "OCI runtime" in done[act] and history.actions.count(act) < 2:
            return Decision(reason="It did not start, so I try once more.", action=act)
        return Decision(reason=voice.SAYS["submit"], action=SUBMIT)


def _find(request: Request, shown: list[tuple[str, str]]) -> tuple[str | None, str | None]:
    """The file, or the next look for it; neither where it gave up. (A path that is empty: no file is to be found.)"""
    done = dict(shown)
    match request.select:
        case None:
            return "", None
        case Select.TOLD:
            return request.path, None
        case Select.NAMED:
            return _by_name(request, done)
        case Select.MENTIONS:
            words = request.holds.split()
            looks = [f'grep -l "{request.holds}" {request.root}/*/*', f'grep -l "{words[0]}" {request.root}/*/*']
            for look in dict.fromkeys(looks):
                if look not in done:
                    return None, look
                if done[look].startswith("/"):
                    return done[look].split("\n")[0], None
            return None, None
        case Select.LARGEST | Select.SMALLEST:
            option = "-S" if request.select is Select.LARGEST else "-rS"
            look = f"cd {request.folder} && ls {option}"
            if look not in done:
                return None, look
            first = done[look].split("\n")[0]
            return (f"{request.folder}/{first}", None) if "." in first and " " not in first else (None, None)
        case Select.LISTED:
            look = f"cat {request.path}"
            if look not in done:
                return None, look
            path = done[look].strip()
            return (path, None) if path.startswith("/") and " " not in path else (None, None)


def _by_name(request: Request, done: dict[str, str]) -> tuple[str | None, str | None]:
    """Folder by folder, in the order in which they are listed."""
    listing = f"ls {request.root}"
    if listing not in done:
        return None, listing
    for name in done[listing].split():
        look = f"ls {request.root}/{name}"
        if look not in done:
            return None, look
        if request.name in done[look].split("\n"):
            return f"{request.root}/{name}/{request.name}", None
    return None, None
