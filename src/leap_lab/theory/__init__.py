"""LEAP in worlds so small that every term of J(pi) >= J(pi^E) - T H (epsilon + gamma) is a sum that can be written out.

Nothing here is sampled or estimated. `world` holds the worlds, `exact` the sums and the privileged teacher, `run`
Algorithm 1 with the exact minimiser on the aggregate, `report` the study's page.
"""
