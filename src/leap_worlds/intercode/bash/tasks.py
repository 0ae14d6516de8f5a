"""A Bash task, and those of NL2Bash whose golds tell of the moment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BashTask:
    """One task."""

    file_system: int | str  # 1 to 4; the name of a generated one
    index: int  # upstream's index within the file system
    query: str
    gold: str  # the command that does what is asked

    @property
    def id(self) -> str:
        """fs_1/0 and so on."""
        return f"fs_{self.file_system}/{self.index}"

    @property
    def kind(self) -> str:
        """The group that results are reported by: the file system."""
        return f"fs_{self.file_system}"


NOT_REPEATABLE = {
    "fs_1/30": "counts the files below /, those of the processes of the moment in /proc among them",
    "fs_1/55": "searches /proc and /sys too, which differ from moment to moment",
    "fs_2/36": "df: free space changes between the two runs",
    "fs_2/42": "the gold writes the time of day",
    "fs_2/49": "the gold downloads from the network",
    "fs_2/52": "the host name's address in /etc/hosts",
    "fs_3/2": "changed within the last hour: depends on when the image was made",
    "fs_3/3": "read within the last hour: depends on what was read before",
    "fs_3/33": "ls -al of a path that the quoting cuts: lists the root with its times",
    "fs_3/44": "df: free space changes between the two runs",
    "fs_3/50": "df: free space changes between the two runs",
    "fs_4/0": "the build number of the host's kernel",
    "fs_4/1": "dig: the network, and the time of day in its answer",
    "fs_4/4": "env: the host name",
    "fs_4/5": "pstree: the processes of the moment",
    "fs_4/12": "dig: the network",
    "fs_4/16": "df: the file system of the box",
    "fs_4/25": "the load average of the moment",
}
"""Golds that depend on the clock, on free space, on the network or on the host, by cause. Most still score 1.0 against
themselves; where one does not, this is why. Their observations differ from those published."""
