"""What is printed where: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

MACHINE_WIDTH = 200


def out() -> Console:
    """For results. A pipe gets no colours and lines of at least 200 columns."""
    width = None if sys.stdout.isatty() else MACHINE_WIDTH
    return Console(file=sys.stdout, highlight=False, markup=False, width=width)


def err() -> Console:
    """For progress and messages."""
    return Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress(verbose: bool = False) -> Iterator[Callable[[str], None]]:
    """Gives a function that shows what is being done: a spinner on a terminal, with `verbose`
    a line each, and nothing where stderr is a pipe."""
    console = err()
    if verbose:
        yield lambda text: console.print(text)
    elif console.is_terminal:
        with console.status("starting") as status:
            yield lambda text: status.update(text)
    else:
        yield lambda text: None


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table; those in `right` hold numbers."""
    made = Table(header_style="bold", box=None)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def count(number: float) -> str:
    """A count for people: 1.2 k, 3.4 M, 5.6 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def byte_count(number: int) -> str:
    """Bytes for people: 12 B, 1.2 KiB, 3.4 MiB."""
    if number < 1024:
        return f"{number} B"
    return f"{number / 1024:.1f} KiB" if number < 1 << 20 else f"{number / (1 << 20):.2f} MiB"
