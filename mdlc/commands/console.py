"""What is printed where: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from mdlc.compiler.words import Counting, byte_count

MACHINE_WIDTH = 200

T = TypeVar("T")

__all__ = ["byte_count", "count", "counting", "err", "out", "progress"]


def out() -> Console:
    """For results. A pipe gets no colours and lines of at least 200 columns."""
    width = None if sys.stdout.isatty() else MACHINE_WIDTH
    return Console(file=sys.stdout, highlight=False, markup=False, width=width)


def err() -> Console:
    """For progress and messages."""
    return Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)


class _Left(TextColumn):
    """What is left: counted where there is something to count, else nothing."""

    def __init__(self) -> None:
        super().__init__("", table_column=Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("")
        left = task.time_remaining
        about = "" if left is None else f", {_seconds(left)} left"
        return Text(f"{int(task.completed)}/{int(task.total)}{about}")


def _seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"


@contextmanager
def progress(verbose: bool = False) -> Iterator[Callable[[str], None]]:
    """Gives a function that shows what is being done: on a terminal with a bar and the time that
    is left where that is counted (see Counting), with `verbose` a line each stage, and nothing
    where stderr is a pipe."""
    console = err()
    if verbose:
        said = ""

        def line(text: str) -> None:
            nonlocal said
            stage = text.stage if isinstance(text, Counting) else text
            if stage != said:
                console.print(stage)
            said = stage

        yield line
        return
    if not console.is_terminal:
        yield lambda text: None
        return
    stage = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True))
    columns = (SpinnerColumn(), stage, BarColumn(20), _Left(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, expand=True) as bar:
        task = bar.add_task("starting", total=None)
        current = "starting"

        def show(text: str) -> None:
            nonlocal current, task
            counted = isinstance(text, Counting)
            stage = text.stage if isinstance(text, Counting) else text
            if stage != current:
                bar.remove_task(task)
                task = bar.add_task(stage, total=None)
                current = stage
            if counted:
                bar.update(task, total=text.total, completed=text.done)  # type: ignore[attr-defined]

        yield show


def counting(items: Iterable[T], stage: str, tell: Callable[[str], None]) -> Iterator[T]:
    """The items, of which it is told how many are done."""
    total = len(items) if isinstance(items, Sized) else 0
    for done, item in enumerate(items):
        tell(Counting(stage, done, total) if total else f"{stage} {done + 1}")
        yield item


def count(number: float) -> str:
    """A count for people: 1.2 k, 3.4 M, 5.6 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"
