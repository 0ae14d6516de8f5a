"""Task folders in Harbor's format as an environment: a terminal, a hidden solution and hidden tests."""
