"""Measured schedules: a table by layer that replaces the cost model's choice.

A table is a JSON file for one target, made by `mdlc tune` and meant to be committed. A layer's
key is readable text: operator with attributes, types of its operands (constants marked), type of
its output. No names, no values, no machine: layers of equal geometry share an entry, in whatever
network they stand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from mdlc.codegen.isa.base import Backend, Isa
from mdlc.codegen.isa.cores import Core, is_core
from mdlc.codegen.kernel import Candidate
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import DType

FORMAT = 1
# Percent of weights that are zero from which on a layer is told apart by them.
_FEWEST_ZEROS = 20
_AGAIN = "make it anew with `mdlc tune`"


def layer_key(node: Node) -> str:
    """What a layer's schedules are chosen by, as text.

    Pitches are no part of it: where a tensor lies is decided after the schedules. Of sparse
    weights it tells the share of zeros, to a tenth. A convolution of bytes has the key of one of
    floats, as its copy of the input takes the same time by any schedule.
    """
    if isinstance(node.op, Conv2D) and node.inputs[0].type.dtype is DType.U8:
        x = node.inputs[0]
        x = replace(x, op=Input(x.shape), inputs=(), type=replace(x.type, dtype=node.type.dtype))
        node = replace(node, op=replace(node.op, shift=()), inputs=(x, *node.inputs[1:]))
    operands = ", ".join(
        f"{'const ' if source.constant is not None else ''}{source.type}{_zeros(source)}"
        for source in node.inputs
    )
    return f"{node.op}({operands}) -> {node.type}"


def _zeros(source: Node) -> str:
    value = source.constant
    if value is None or value.ndim < 2 or value.dtype.kind != "f" or not value.size:
        return ""
    tenths = int(10 * (1 - np.count_nonzero(value) / value.size))
    return f" {10 * tenths} % zeros" if 10 * tenths >= _FEWEST_ZEROS else ""


@dataclass(frozen=True)
class ScheduleTable:
    """Measured costs of schedules on one target.

    Attributes:
        target: the ISA's name.
        metric: what the costs are, such as nanoseconds.
        processor: the model of the processor that was measured, as it calls itself.
        compiler: what built the programs.
        layers: by layer_key, the costs by the schedule's text.
        core: the core that was measured (codegen/isa/cores.py), or the one that stands for all of
            the target's where none was named; "" in tables older than cores.
    """

    target: str
    metric: str
    processor: str
    compiler: str
    layers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    core: str = ""

    def with_layer(self, key: str, costs: Mapping[str, float]) -> ScheduleTable:
        """The table with one layer measured anew."""
        return replace(self, layers={**self.layers, key: dict(costs)})

    def to_json(self) -> bytes:
        """The file: layers sorted by key, schedules by cost, one a line."""
        layers = {
            key: dict(sorted(costs.items(), key=lambda item: (item[1], item[0])))
            for key, costs in sorted(self.layers.items())
        }
        content = {
            "format": FORMAT,
            "target": self.target,
            "metric": self.metric,
            "processor": self.processor,
            "compiler": self.compiler,
            "core": self.core,
            "layers": layers,
        }
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def read_table(path: Path, target: str) -> ScheduleTable:
    """The table in a file.

    Raises:
        MdlcError: it cannot be read, is damaged, or is for another target.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MdlcError("there is no such file", node=str(path), hint="check the path") from None
    except OSError as error:
        raise MdlcError(f"cannot be read ({error.strerror})", node=str(path)) from error
    return parse_table(data, target, str(path))


def parse_table(data: bytes, target: str, where: str) -> ScheduleTable:
    """A table from a file's bytes; `where` names the file in messages.

    Raises:
        MdlcError: it is damaged, or for another target.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):  # ValueError also for what is not UTF-8
        raise MdlcError(
            "is not a table of schedules: it is not JSON", node=where, hint=_AGAIN
        ) from None
    if not isinstance(content, dict) or "layers" not in content or "format" not in content:
        raise MdlcError("is not a table of schedules", node=where, hint=_AGAIN)
    if content["format"] != FORMAT:
        raise MdlcError(f"has format {content['format']!r}, not {FORMAT}", node=where, hint=_AGAIN)
    head = [content.get(name) for name in ("target", "metric", "processor", "compiler")]
    texts = [text for text in head if isinstance(text, str)]
    if len(texts) < len(head):
        raise MdlcError(
            "is damaged: target, metric, processor or compiler is missing", node=where, hint=_AGAIN
        )
    if texts[0] != target:
        raise MdlcError(
            f"is a table for {texts[0]}, not for {target}",
            node=where,
            hint="name the table of this target, or another --target",
        )
    _, metric, processor, compiler = texts
    core = content.get("core", "")
    if not isinstance(core, str):
        raise MdlcError("is damaged: its core is not a text", node=where, hint=_AGAIN)
    layers = _layers(content["layers"], where)
    return ScheduleTable(target, metric, processor, compiler, layers, core)


def _layers(content: Any, where: str) -> dict[str, dict[str, float]]:
    if not isinstance(content, dict):
        raise MdlcError("is damaged: its layers are not a JSON object", node=where, hint=_AGAIN)
    for key, costs in content.items():
        if not isinstance(costs, dict) or not costs:
            raise MdlcError(f"is damaged: no schedules for {key}", node=where, hint=_AGAIN)
        for schedule, cost in costs.items():
            number = isinstance(cost, int | float) and not isinstance(cost, bool)
            if not number or not math.isfinite(cost) or cost < 0:
                raise MdlcError(
                    f"is damaged: {cost!r} is not a cost (of {schedule!r} for {key})",
                    node=where,
                    hint=_AGAIN,
                )
    return content


@dataclass(frozen=True)
class Entry:
    """What a table says of a layer.

    Attributes:
        table: where it stands; source: the table's name, for people.
        costs: by the schedule's text.
    """

    table: ScheduleTable
    source: str
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Tuned:
    """The tables that a compilation uses, the first that knows a layer deciding.

    Attributes:
        tables: with their names.
        shipped: whether they came with mdlc: entries that its kernels have outgrown are passed
            over then, and an error in tables that the user named.
    """

    tables: tuple[tuple[str, ScheduleTable], ...] = ()
    shipped: bool = False

    def entry(self, node: Node, found: Sequence[Candidate]) -> Entry | None:
        """What is known of a layer whose candidates are `found`, cheapest first.

        A shipped entry is outgrown where it has a schedule that is no candidate any more, or
        lacks the cost model's favourite, which was among those measured once.

        Raises:
            MdlcError: a table that the user named has a schedule that is no candidate.
        """
        key = layer_key(node)
        known = {str(candidate.schedule) for candidate in found}
        for source, table in self.tables:
            costs = table.layers.get(key)
            if costs is None:
                continue
            stale = [schedule for schedule in costs if schedule not in known]
            if self.shipped and (stale or str(found[0].schedule) not in costs):
                continue
            if stale:
                raise MdlcError(
                    f"no kernel has the schedule {stale[0]!r} for {key} any more",
                    node=source,
                    hint=_AGAIN,
                )
            return Entry(table, source, costs)
        return None

    def choose(self, node: Node, found: Sequence[Candidate]) -> Candidate:
        """The candidate that was measured to cost least, else the first.

        Raises:
            MdlcError: see `entry`.
        """
        entry = self.entry(node, found)
        if entry is None:
            return found[0]
        measured = [c for c in found if str(c.schedule) in entry.costs]
        return min(measured, key=lambda candidate: entry.costs[str(candidate.schedule)])


def read_tables(paths: Sequence[Path], backend: Backend) -> Tuned:
    """Tables that the user names; of two that know a layer, the later one decides.

    Raises:
        MdlcError: one cannot be read, is damaged, or is for another target or core.
    """
    tables = tuple((str(path), read_table(path, backend.name)) for path in reversed(paths))
    for where, table in tables:
        if is_core(table.core) and not _applies(table, backend):
            raise MdlcError(
                f"was measured on core {table.core}, not on {_core(backend).name}",
                node=where,
                hint="name the table of this core, or another --core",
            )
    return Tuned(tables)


def _core(backend: Backend) -> Core:
    assert isinstance(backend, Isa)
    return backend.core


def _applies(table: ScheduleTable, backend: Backend) -> bool:
    """Whether a table tells of the core that was asked for: of any, where none was."""
    return not isinstance(backend, Isa) or backend.core.general or table.core == backend.core.name


def shipped_tables(backend: Backend) -> Tuned:
    """The table that comes with mdlc for a target or the one it is tuned as, if there is one.

    Where a core was asked for, only if it was measured on that core.
    """
    target = backend.tuned_as or backend.name
    file = resources.files("mdlc.codegen.plan").joinpath("tuned", f"{target}.json")
    if not file.is_file():
        return Tuned(shipped=True)
    name = f"mdlc's {file.name}"
    table = parse_table(file.read_bytes(), target, name)
    return Tuned(((name, table),) if _applies(table, backend) else (), shipped=True)
