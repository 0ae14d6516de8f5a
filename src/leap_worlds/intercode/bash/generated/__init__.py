"""Bash tasks and file systems of leap's own, in InterCode's schema: for students that begin at random weights."""
