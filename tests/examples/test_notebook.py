"""The notebook runs as a reader runs it: own environment, own teacher function, a run, tables and a plot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs_and_its_student_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    install = pytest.importorskip("ipykernel.kernelspec").install
    install(prefix=str(tmp_path), kernel_name="leap-test")  # of this very Python
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(notebook, timeout=800, kernel_name="leap-test").execute()
    results = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in results), "no plot"
    import leap

    (run,) = tmp_path.glob("*/dark-house")
    with pytest.raises(leap.errors.RunError, match="Import the module that registers it"):
        leap.open(run)  # the notebook's teacher is registered in the notebook alone
    leap.teacher("seer")(lambda ask: None)
    scores: Any = leap.open(run).evaluations().df().set_index(["policy", "split"])["success"]
    assert scores["pi_2", "test"] > scores["pi_0", "test"]


def test_the_notebook_is_kept_with_its_results_and_without_a_machines_paths() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "image/png" in text and "pi_2" in text
    assert sys.prefix not in text and "site-packages" not in text
