"""Doors: leap's environments in other frameworks, and theirs in leap. Each is one file that imports one peer, and one extra."""
