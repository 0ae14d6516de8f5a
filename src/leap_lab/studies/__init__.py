"""The paper's claims as experiments: a study is data (recipes/studies/NAME.yaml), `leap study NAME` runs and reports it."""
