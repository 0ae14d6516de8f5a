"""The paper's claims as experiments: a study is data (leap_lab/recipes/NAME.yaml), `leap study NAME` runs and reports it."""
