"""Pictures by the thousand through an emitted class: a table that grows, and can be continued.

A table is a file of JSON lines: first what it is of, then a record for each picture and variant.
What is in it is not computed again, so an interrupted run goes on, and tables of shards are merged
by reading all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdlc.api import CompiledModel
from mdlc.checks.metrics import Metric, Record
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.words import Counting


@dataclass(frozen=True)
class Shard:
    """One of several parts of a set: number `index` of `count`, from 1."""

    index: int = 1
    count: int = 1

    def of(self, pictures: Sequence[Path]) -> list[Path]:
        """The pictures of this part."""
        return list(pictures[self.index - 1 :: self.count])


def parse_shard(text: str) -> Shard:
    """3/16 as a shard.

    Raises:
        MdlcError: it is not of that form.
    """
    first, _, last = text.partition("/")
    if first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last):
        return Shard(int(first), int(last))
    raise MdlcError(f"{text!r} is not a shard", node="--shard", hint="write --shard 3/16")


@dataclass
class Table:
    """Records by variant and file.

    Attributes:
        about: what it is of: model, metric, labels.
        records: what is known. path: where it grows; None: nowhere.
    """

    about: Mapping[str, Any]
    records: dict[str, dict[str, Record]] = field(default_factory=dict)
    path: Path | None = None

    def read(self, path: Path) -> None:
        """Adds the records of a file; a last line that was cut off is left out.

        Raises:
            MdlcError: it cannot be read, or is of something else.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise MdlcError("is not a readable table", node=str(path)) from None
        entries = list(_entries(lines))
        if not entries or entries[0] != {"about": dict(self.about)}:
            raise MdlcError(
                "is a table of another model, metric or set of labels",
                node=str(path),
                hint="name another table, or remove it",
            )
        for entry in entries[1:]:
            self.records.setdefault(entry["variant"], {})[entry["file"]] = entry["record"]

    def begin(self) -> None:
        """Continues the file, or begins it."""
        assert self.path is not None
        if self.path.exists():
            self.read(self.path)
            return
        self._append({"about": dict(self.about)})

    def add(self, variant: str, file: str, record: Record) -> None:
        """Keeps a record."""
        self.records.setdefault(variant, {})[file] = record
        if self.path is not None:
            self._append({"variant": variant, "file": file, "record": record})

    def _append(self, entry: Mapping[str, Any]) -> None:
        assert self.path is not None
        try:
            with self.path.open("ab+") as file:
                # A line that was cut off is ended, so that the next one stands alone.
                if file.tell() > 0:
                    file.seek(-1, 2)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
                file.write((json.dumps(entry, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise MdlcError(f"cannot be written: {error.strerror}", node=str(self.path)) from None


def _entries(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def evaluate(
    variants: Mapping[str, CompiledModel],
    metric: Metric,
    pictures: Sequence[Path],
    table: Table,
    *,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, dict[str, float]]:
    """Figures of each variant over the pictures.

    Args:
        variants: the same network compiled otherwise, by name.
        pictures: what is wanted; what the table has is not computed.
        jobs: programs that run at a time, each a process of its own.
        progress: told how many pictures are done.

    Raises:
        MdlcError: a picture cannot be read, or a program fails.
    """
    missing = {
        name: [each for each in pictures if each.name not in table.records.get(name, {})]
        for name in variants
    }
    programs = {name: variants[name].build() for name, wanted in missing.items() if wanted}
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {
            pool.submit(metric.record, variants[name], programs[name], each): (name, each.name)
            for name, wanted in missing.items()
            for each in wanted
        }
        total = len(pictures) * len(variants)
        try:
            for done, work in enumerate(as_completed(waiting), total - len(waiting) + 1):
                table.add(*waiting[work], work.result())
                progress(Counting("measuring pictures", done, total))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return {
        name: metric.total({p.name: table.records[name][p.name] for p in pictures})
        for name in variants
    }
