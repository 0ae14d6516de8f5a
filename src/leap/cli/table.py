"""Tables of texts on the terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    bold: Collection[int] = (),
    width: int = 120,
) -> None:
    """Prints a table.

    Args:
        columns: Their heads.
        rows: For each row a text of each column.
        right: Columns of figures.
        bold: Numbers of the rows that stand out.
        width: How wide it is where there is no terminal.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for number, row in enumerate(rows):
        table.add_row(*row, style="bold" if number in bold else "")
    Console(width=None if Console().is_terminal else width).print(table)
