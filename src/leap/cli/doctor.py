"""`leap doctor`: what is here and what is missing, with the command that mends it."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table

from leap import __version__, registry
from leap.errors import LeapError
from leap.paths import cache_dir

EXTRAS = {
    "train": ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers"),
    "alfworld": ("alfworld", "textworld"),
    "webshop": ("numpy", "msgspec", "rapidfuzz", "gdown"),
    "intercode": ("scikit-learn", "scipy", "PyMySQL"),
}


def print_doctor() -> None:
    """Prints the findings."""
    console = Console()
    console.print(f"leap {__version__}, Python {platform.python_version()}, {platform.platform()}")
    console.print(f"CPU cores: {os.cpu_count()}, {_accelerator()}")
    cache = cache_dir()
    free = shutil.disk_usage(_existing(cache)).free / 2**30
    console.print(f"cache: {cache} ({free:.0f} GiB free)")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("extra", "package", "version", "to mend"):
        table.add_column(column)
    for extra, packages in EXTRAS.items():
        for package in packages:
            found = _version(package)
            table.add_row(extra, package, found or "missing", "" if found else f"pip install 'leap-agents[{extra}]'")
    console.print(table)
    console.print("environments: " + (", ".join(registry.environment.names()) or "none registered"))
    console.print(f"ALFWorld data: {_alfworld_data()}")
    console.print(f"WebShop data: {_webshop_data()}")
    for line in _sandboxes():
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _sandboxes() -> list[str]:
    """One line for each sandbox: what it offers here, or what bars it and the remedy."""
    from leap_worlds.sandbox import available_sandboxes, sandbox_provider

    lines = []
    for name in available_sandboxes():
        try:
            provider = sandbox_provider(name)
            probe = provider.probe()
            provider.close()
        except (LeapError, ImportError) as error:
            lines.append(f"sandbox {name}: no: {error}")
            continue
        lines.append(f"sandbox {name}: {'works' if probe.ok else 'no'}: {probe.detail}")
        lines += [f"  note: {warning}" for warning in probe.warnings]
    return lines


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _accelerator() -> str:
    if find_spec("torch") is None:
        return "PyTorch is not installed"
    import torch

    if torch.cuda.is_available():
        return f"GPU: {torch.cuda.get_device_name(0)} ({torch.cuda.mem_get_info(0)[1] / 2**30:.0f} GiB)"
    return "no GPU: training and generation run on the CPU"


def _alfworld_data() -> str:
    from leap_worlds.alfworld.data import OfficialData

    if "ALFWORLD_DATA" not in os.environ:
        return "$ALFWORLD_DATA is not set; generated games need none"
    try:
        data = OfficialData(None)
        return f"{data.root}: " + ", ".join(f"{split} {len(data.entries(split))}" for split in data.splits())
    except LeapError as error:
        return str(error)


def _webshop_data() -> str:
    try:
        from leap_worlds.webshop.env import data_folder, find_files

        return str(find_files(data_folder(), None).products.parent)
    except (ImportError, LeapError) as error:
        return str(error)
