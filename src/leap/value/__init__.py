"""Value models: what an action is worth at a history, learnt from tries, and what it is used for."""
