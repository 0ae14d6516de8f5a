"""InterCode: Bash, SQL and Python as interactive tasks (Yang et al. 2023, arXiv 2306.14898), without Docker if need be."""
