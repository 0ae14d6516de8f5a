"""Privilege levels. Imports nothing, so that recipes are read at once."""

LEVELS = (0, 25, 50, 75, 100)
"""Those that have a prompt for model teachers (paper, ablation of privileged information)."""
