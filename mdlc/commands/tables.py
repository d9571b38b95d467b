"""Tables of the command line: for people as wide as the terminal, for programs JSON or CSV."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console

from mdlc.commands.console import err, out
from mdlc.compiler.errors import MdlcError, choose

Command = Callable[..., Any]
GAP = "  "
BAR = 10  # cells of the longest bar
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def plain(value: Any) -> str:
    """A value as it is; nothing where there is none."""
    return "" if value is None else str(value)


@dataclass(frozen=True)
class Column:
    """What a column of a table holds.

    Attributes:
        key: of a row's value, in JSON and in CSV.
        head: above it in a table for people.
        show: makes a cell's text of a value.
        right: numbers stand at the right.
        least: cells that a text may be shortened to; 0 where it is never shortened.
        rank: columns of a rank are left out of a terminal that is too narrow, the highest first;
            0 where a table says nothing without it.
        bar: a bar as long as the value's share of the largest stands beside it on a terminal.
        word: what --sort calls it; the key, if that is empty.
    """

    key: str
    head: str
    show: Callable[[Any], str] = plain
    right: bool = False
    least: int = 0
    rank: int = 0
    bar: bool = False
    word: str = ""


def number(key: str, head: str, show: Callable[[Any], str] = plain, **rest: Any) -> Column:
    """A column of numbers."""
    return Column(key, head, show, right=True, **rest)


Row = Mapping[str, Any]


@dataclass(frozen=True)
class Sheet:
    """A table: its rows have values by the keys of its columns.

    Attributes:
        total: a last row, in tables for people alone.
    """

    columns: tuple[Column, ...]
    rows: Sequence[Row]
    total: Row | None = None

    def sorted(self, key: str | None) -> Sheet:
        """By a column: numbers from the largest, texts from A; rows without a value come last."""
        if key is None:
            return self

        def place(row: Row) -> tuple[bool, Any]:
            value: Any = row.get(key)
            absent = value is None or (isinstance(value, float) and math.isnan(value))
            if absent or isinstance(value, str):
                return absent, value or ""
            return False, -value

        return replace(self, rows=sorted(self.rows, key=place))

    def records(self) -> list[dict[str, Any]]:
        """The rows as plain values by key."""
        return [{c.key: _finite(row.get(c.key)) for c in self.columns} for row in self.rows]


@dataclass
class Form:
    """How a command prints what it found, as the user asked.

    Attributes:
        kind: text, json or csv.
        sort: the column that rows are sorted by.
    """

    kind: str = "text"
    sort: str | None = None
    _headed: bool = field(default=False, init=False)

    @property
    def text(self) -> bool:
        """Whether people read it."""
        return self.kind == "text"

    def show(self, sheet: Sheet, **also: Any) -> None:
        """Prints a table for people or as CSV; JSON is left to `document`.

        Args:
            also: values of columns in front of CSV, where a command prints several tables.
        """
        if self.kind == "text":
            print_sheet(sheet.sorted(self.sort))
        elif self.kind == "csv":
            self._csv(sheet.sorted(self.sort), also)

    def line(self, text: str) -> None:
        """Prints a line for people."""
        if self.kind == "text":
            out().print(text, soft_wrap=True)

    def document(self, value: Any) -> None:
        """Prints what was found as JSON, where that is asked for."""
        if self.kind == "json":
            click.echo(json.dumps(value, indent=2))

    def sorted(self, sheet: Sheet) -> list[dict[str, Any]]:
        """A table's rows for `document`."""
        return sheet.sorted(self.sort).records()

    def _csv(self, sheet: Sheet, also: Mapping[str, Any]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self._headed:
            writer.writerow([*also, *(column.key for column in sheet.columns)])
            self._headed = True
        for record in sheet.records():
            writer.writerow(["" if v is None else v for v in (*also.values(), *record.values())])
        click.echo(text.getvalue(), nl=False)


def prints_table(columns: Sequence[Column] = ()) -> Callable[[Command], Command]:
    """Adds --json, --csv and, for columns that rows may be sorted by, --sort; the command gets
    them as `form`."""
    words = {column.word or column.key: column.key for column in columns}

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def gathered(as_json: bool, as_csv: bool, sort: str | None = None, **given: Any) -> Any:
            if as_json and as_csv:
                raise MdlcError("contradicts --json", node="--csv", hint="give one of the two")
            if sort is not None and sort not in words:
                raise MdlcError(f"there is no column {sort!r}", node="--sort",
                                hint=choose(sort, words))  # fmt: skip
            kind = "json" if as_json else "csv" if as_csv else "text"
            return function(form=Form(kind, None if sort is None else words[sort]), **given)

        command: Command = gathered
        for flag, help in (("csv", "Print CSV: a line for each row."), ("json", "Print JSON.")):
            command = click.option(f"--{flag}", f"as_{flag}", is_flag=True, help=help)(command)
        if words:
            text = f"Sort rows by a column: {', '.join(words)}."
            command = click.option("--sort", metavar="COLUMN", help=text)(command)
        return command

    return decorate


def print_sheet(sheet: Sheet) -> None:
    """Prints a table: in a pipe a line for each row with whole names, on a terminal as wide as
    that is, shortening texts and leaving columns out where it must; it says which."""
    console = out()
    width = console.width if console.is_terminal else None
    lines, hidden = laid_out(sheet, width, console)
    for index, line in enumerate(lines):
        emphasis = index == 0 or (sheet.total is not None and index == len(lines) - 1)
        console.print(line, style="bold" if emphasis else None, soft_wrap=True)
    if hidden:
        heads = ", ".join(column.head for column in hidden)
        err().print(f"(a wider terminal also shows {heads}; --csv has all)", style="dim")


def laid_out(
    sheet: Sheet, width: int | None, console: Console | None = None
) -> tuple[list[str], list[Column]]:
    """The lines of a table, none wider than a terminal, and the columns that there is no room for.

    Args:
        width: cells of the terminal; None where lines may be as long as they are.
        console: whose encoding says whether bars can be drawn.
    """
    draws = width is not None and (console is None or "utf" in console.encoding.lower())
    dots = "…" if draws else ".."
    shown = list(sheet.columns)
    texts = {column.key: _texts(column, sheet, draws) for column in shown}
    whole = {key: max(map(cell_len, cells)) for key, cells in texts.items()}
    hidden: list[Column] = []
    while width is not None:
        least = sum(_least(c, whole[c.key]) for c in shown) + len(GAP) * (len(shown) - 1)
        last = max(shown, key=lambda column: column.rank)
        if least <= width or not last.rank:
            break
        shown.remove(last)
        hidden.append(last)
    widths = {column.key: whole[column.key] for column in shown}
    if width is not None:
        _shrink(shown, widths, width)
    rows = len(sheet.rows) + 1 + (sheet.total is not None)
    lines = [
        GAP.join(_cell(texts[c.key][row], widths[c.key], c.right, dots) for c in shown).rstrip()
        for row in range(rows)
    ]
    return lines, hidden


def _texts(column: Column, sheet: Sheet, draws: bool) -> list[str]:
    """The head and the cells of a column."""
    values = [row.get(column.key) for row in sheet.rows]
    cells = [column.show(v) if v is not None else "" for v in values]
    head = column.head
    if column.bar and draws:
        largest = max((v for v in values if v is not None), default=0) or 1
        wide = max(map(len, cells), default=0)
        drawn = [_bar((v or 0) / largest) for v in values]
        cells = [f"{c.rjust(wide)} {b}" for c, b in zip(cells, drawn, strict=True)]
        head = f"{head.rjust(wide)} {' ' * BAR}"
    total = []
    if sheet.total is not None:
        value = sheet.total.get(column.key)
        total = [value if isinstance(value, str) else "" if value is None else column.show(value)]
        if column.bar and draws:
            total = [f"{total[0]} {' ' * BAR}"]
    return [head, *cells, *total]


def _bar(share: float) -> str:
    """A bar of BAR cells for a share of 1."""
    eighths = round(8 * BAR * min(max(share, 0.0), 1.0))
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(BAR)


def _least(column: Column, whole: int) -> int:
    return min(column.least, whole) if column.least else whole


def _shrink(columns: Sequence[Column], widths: dict[str, int], width: int) -> None:
    """Takes cells from the widest text until all fits, or none can give any."""
    excess = sum(widths.values()) + len(GAP) * (len(columns) - 1) - width
    while excess > 0:
        able = [c for c in columns if widths[c.key] > _least(c, widths[c.key])]
        if not able:
            return
        able.sort(key=lambda column: widths[column.key])
        widths[able[-1].key] -= 1
        excess -= 1


def _cell(text: str, width: int, right: bool, dots: str) -> str:
    if cell_len(text) > width:
        keep = max(width - len(dots), 1)
        # A name tells more at its end: features.12.conv.2.
        head = keep // 3
        text = set_cell_size(text, head).rstrip() + dots + _end(text, keep - head)
    padding = " " * (width - cell_len(text))
    return padding + text if right else text + padding


def _end(text: str, width: int) -> str:
    """As much of a text's end as fits into so many cells."""
    for start in range(len(text)):
        if cell_len(text[start:]) <= width:
            return text[start:]
    return ""


def _finite(value: Any) -> Any:
    """JSON and CSV have no infinities."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
