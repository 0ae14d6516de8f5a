"""A wheel, installed outside the checkout, has all that it needs: recipes, studies, prompts, documents, types."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
TINY = [
    "iterations=1",
    "environment.options.generator.games={train: 12, valid: 4, unseen: 4}",
    "environment.train_tasks=8",
    "demonstrations.episodes=8",
    "training.first_steps=3",
    "training.steps=3",
    "student.scratch={layers: 1, width: 32, heads: 2, mlp: 64}",
]


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, without what this test session put into the environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LEAP"))}
    told = kept | {"OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"} | environment
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=told, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy of the files that it needs."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy2(REPOSITORY / name, source)
    for folder in ("src", "docs"):
        shutil.copytree(REPOSITORY / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    built = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", out, source, cwd=out)
    found = sorted(out.glob("*.whl"))
    if not found and "hatchling" in built.stderr and "No matching distribution" in built.stderr:
        pytest.skip("the build backend cannot be had: no package index can be reached")
    assert found, built.stderr
    return found[0]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The `bin` of a clean environment with the wheel in it. Other packages are those of the tests, which an editable
    install of leap is not part of: a path file adds packages, not the path files beside them."""
    folder = tmp_path_factory.mktemp("environment")
    assert not run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder).returncode
    site = next(folder.glob("lib/python*/site-packages"))
    others = {path for path in sys.path if path.endswith("site-packages")} | {sysconfig.get_paths()["purelib"]}
    (site / "others.pth").write_text("\n".join(sorted(others)) + "\n", encoding="utf-8")
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    done = run(*pip, "install", "-q", "--no-deps", "--force-reinstall", wheel, cwd=folder)
    assert not done.returncode, done.stderr
    where = run(python, "-c", "import leap; print(leap.__file__)", cwd=folder)
    assert str(folder) in where.stdout, where
    yield folder / "bin"


def test_the_wheel_holds_data_documents_types_and_its_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    for path in (
        "leap/recipes/quickstart.yaml",
        "leap/recipes/accelerate/fsdp.yaml",
        "leap/recipes/clusters/slurm.sh",
        "leap_lab/recipes/theory.yaml",
        "leap_worlds/alfworld/prompts/dialogue.j2",
        "leap/docs/recipe.md",
        "leap/py.typed",
        "leap_worlds/py.typed",
        "leap_lab/py.typed",
    ):
        assert path in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "License-Expression: MIT" in metadata
    assert "Programming Language :: Python :: 3.13" in metadata
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/")) for name in names)


def test_the_package_indexs_page_has_no_link_into_the_repository(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    page = metadata.partition("\n\n")[2]
    assert page.startswith("# leap")
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert links and all(link.startswith("https://") for link in links), links


def test_help_names_the_documents_and_recipes_are_listed_and_shown(installed: Path, tmp_path: Path) -> None:
    told = run(installed / "leap", "--help", cwd=tmp_path, COLUMNS="300")
    documents = next(line for line in told.stdout.splitlines() if "Documents:" in line).partition("Documents:")[2].strip()
    assert (Path(documents) / "recipe.md").is_file()
    assert "quickstart" in run(installed / "leap", "recipes", cwd=tmp_path).stdout
    shown = run(installed / "leap", "recipes", "show", "quickstart", cwd=tmp_path).stdout
    assert shown == (REPOSITORY / "src/leap/recipes/quickstart.yaml").read_text(encoding="utf-8")


def test_an_installed_leap_runs_the_quickstart_by_name(installed: Path, tmp_path: Path) -> None:
    settings = [part for setting in TINY for part in ("--set", setting)]
    done = run(installed / "leap", "run", "quickstart", *settings, cwd=tmp_path, LEAP_CACHE=str(tmp_path / "cache"))
    assert not done.returncode, done.stderr
    assert (tmp_path / "runs" / "quickstart" / "report" / "index.html").is_file()
    assert "pi_1" in done.stdout


def test_an_installed_leap_runs_a_study(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    done = run(installed / "leap", "study", "theory", "--seeds", "0", "--out", tmp_path / "page", cwd=tmp_path)
    assert not done.returncode, done.stderr
    assert (tmp_path / "page" / "index.html").is_file()


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_other_pythons_can_use_what_needs_no_training_library(version: str, wheel: Path, tmp_path: Path) -> None:
    python = _python(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    assert not run(python, "-m", "venv", tmp_path / "env", cwd=tmp_path).returncode
    done = run(tmp_path / "env/bin/python", "-m", "pip", "install", "-q", wheel, cwd=tmp_path)
    assert not done.returncode, done.stderr
    told = run(tmp_path / "env/bin/leap", "validate", "alfworld", "--split", "valid", "--limit", "3", cwd=tmp_path,
               LEAP_CACHE=str(tmp_path / "cache"))
    assert not told.returncode, told.stderr
    assert "solves 3 of 3" in told.stdout


def _python(version: str) -> Path | None:
    """A Python of that version, on the path or beside this one."""
    beside = sorted(Path(sys.base_prefix).parent.glob(f"{version}*/bin/python{version}"))
    on_path = shutil.which(f"python{version}")
    for candidate in [*beside, *([Path(on_path)] if on_path else [])]:
        if not run(candidate, "-c", "import venv, ssl", cwd=candidate.parent).returncode:
            return candidate
    return None


def test_init_writes_a_package_whose_tests_and_recipe_run(installed: Path, tmp_path: Path) -> None:
    from leap.testing.checkpoints import tiny_checkpoint

    written = run(installed / "leap", "init", "help-desk", cwd=tmp_path)
    assert not written.returncode, written.stderr
    folder, python = tmp_path / "help-desk", installed / "python"
    assert len((folder / "help_desk.py").read_text(encoding="utf-8").splitlines()) <= 80
    pip = (sys.executable, "-m", "pip", "--python", python)
    assert not run(*pip, "install", "-q", "--no-deps", folder, cwd=tmp_path).returncode
    tested = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert not tested.returncode, tested.stdout
    assert "2 of 2" in run(installed / "leap", "validate", "help-desk", "--limit", "2", cwd=folder).stdout

    # From nothing to a report by one command: an open student (its small stand-in), no script, a model as teacher.
    student = tiny_checkpoint(tmp_path / "student", "tools", context=16384)
    small = [f"student.model=hf/{student}", "teacher.model=mock/plan", "environment.options.tickets=6", "iterations=1",
             "environment.train_tasks=4", "student.sampling.max_tokens=24", "training.steps=2", "horizon=3"]  # fmt: skip
    settings = [part for setting in small for part in ("--set", setting)]
    done = run(installed / "leap", "run", "recipe.yaml", *settings, cwd=folder)
    assert not done.returncode, done.stderr
    assert "pi_1" in done.stdout and "expert" not in done.stdout
    assert (folder / "runs" / "help-desk" / "report" / "index.html").is_file()
    corrections = (folder / "runs" / "help-desk" / "iter-1" / "corrections.jsonl").read_text(encoding="utf-8")
    assert '"rejected":null' in corrections and "read_record" in corrections
