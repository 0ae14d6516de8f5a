"""Runs: the stages of a recipe in a run directory, what they leave there, and what is made of it."""
