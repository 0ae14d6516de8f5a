"""InterCode Python: MBPP's 974 tasks, one interpreter per episode."""
