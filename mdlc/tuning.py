"""Measuring the schedules of layers into a table that later compilations choose by."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import Candidate, Schedule, Step, candidates
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.plan.schedule_table import ScheduleTable, Tuned, layer_key, read_table
from mdlc.codegen.run.measure import Machine, Measurement, Program
from mdlc.compiler.errors import MdlcError
from mdlc.output import write_file

# Candidates of a layer. Counting in an emulator takes long, and the cost model comes near counts.
TOP, TOP_COUNTED = 8, 4
REPEATS = 25
# A candidate that the cost model puts further behind its favourite is left out.
_FURTHEST = 2.0
# Programs built at once; each holds the weights of all its candidates.
_MAX_JOBS = 8


@dataclass(frozen=True)
class Layer:
    """A layer with a choice of schedules.

    Attributes:
        step: one of its occurrences.
        found: its candidates, cheapest by the cost model first.
        count: how often it stands in the networks.
    """

    key: str
    step: Step
    found: tuple[Candidate, ...]
    count: int

    @property
    def cycles(self) -> float:
        """Estimated, of all occurrences."""
        return self.found[0].cycles * self.count

    def worth_measuring(self, top: int) -> list[Candidate]:
        """The `top` cheapest by the cost model (all for 0), and the best of each other algorithm.

        Unless all are asked for, those far behind the cheapest are left out.
        """
        if not top:
            return list(self.found)
        kept: list[Candidate] = []
        algorithms: set[Schedule] = set()
        for candidate in self.found:
            if candidate.cycles > _FURTHEST * self.found[0].cycles:
                break
            algorithm = replace(candidate.schedule, tile=(), block=())
            if len(kept) < top or algorithm not in algorithms:
                kept.append(candidate)
            algorithms.add(algorithm)
        return kept


def layers_of(plans: Iterable[Plan]) -> list[Layer]:
    """The distinct layers of networks, at all their sizes, that have a choice, the most expensive
    first."""
    found: dict[str, Layer] = {}
    for plan in (variant for each in plans for variant in each.sizes):
        for step in plan.steps:
            key = layer_key(step.node)
            if key in found:
                found[key] = replace(found[key], count=found[key].count + 1)
                continue
            ways = tuple(candidates(step.node, plan.backend))
            if len(ways) > 1:
                found[key] = Layer(key, step, ways, 1)
    return sorted(found.values(), key=lambda layer: (-layer.cycles, layer.key))


def suited_top(machine: Machine) -> int:
    """How many candidates of a layer a machine measures in acceptable time."""
    return TOP_COUNTED if machine.emulated else TOP


class Progress(Protocol):
    """Told before each group of layers, and at the end."""

    def __call__(self, done: int, total: int, text: str) -> None:
        """`done` of `total` layers are in the table; `text` is the layer's key."""


@dataclass(frozen=True)
class Change:
    """A layer for which the table chooses otherwise than the cost model.

    Attributes:
        count: occurrences of the layer.
        model, model_cost: the cost model's favourite and what it was measured to cost.
        best, best_cost: the cheapest that was measured.
    """

    key: str
    count: int
    model: str
    model_cost: float
    best: str
    best_cost: float


@dataclass(frozen=True)
class Tuning:
    """What a run of `tune` did.

    Attributes:
        measured, kept, left: layers measured now, found in the table, and left for another run.
        changes: where the table differs from the cost model, the largest gain first.
        model_total, best_total: cost of all known layers by the model's choice and the table's.
    """

    table: ScheduleTable | None
    measured: int
    kept: int
    left: int
    changes: tuple[Change, ...]
    model_total: float
    best_total: float


def tune(
    layers: Sequence[Layer],
    isa: Isa,
    path: Path,
    machine: Machine,
    *,
    top: int | None = None,
    repeats: int = REPEATS,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> Tuning:
    """Measures what a table lacks, and writes it after every layer.

    Programs are built several at once, and measured one at a time where time is the measure.

    Args:
        layers: in the order to measure them in.
        path: the table; one that is there is continued.
        top: candidates of a layer, see Layer.worth_measuring; None for a number that suits the
            machine.
        repeats: measurements of each candidate, of which the median counts.
        seconds: no further layers are begun after so long.

    Raises:
        MdlcError: the table is damaged or was measured otherwise, or a program fails.
    """
    began = time.monotonic()
    tell = progress or (lambda done, total, text: None)
    table = _continued(path, isa, machine)
    few = suited_top(machine) if top is None else top
    wanted = {layer.key: layer.worth_measuring(few) for layer in layers}
    missing = [layer for layer in layers if not _known(table, layer, wanted[layer.key])]
    kept = len(layers) - len(missing)
    measured = 0
    jobs = min(os.cpu_count() or 1, _MAX_JOBS)
    for start in range(0, len(missing), jobs):
        if seconds is not None and time.monotonic() - began > seconds:
            break
        group = missing[start : start + jobs]
        tell(kept + measured, len(layers), group[0].key)
        ways = [wanted[layer.key] for layer in group]
        for layer, found in _measured(group, ways, isa, machine, repeats):
            table = _with(table, layer, wanted[layer.key], found, isa, machine, path)
            write_file(path, table.to_json())
            measured += 1
            tell(kept + measured, len(layers), layer.key)
    left = len(missing) - measured
    return _summary(table, layers, measured, kept, left)


def _continued(path: Path, isa: Isa, machine: Machine) -> ScheduleTable | None:
    """The table that is there already, if it was measured in the same way."""
    if not path.exists():
        return None
    try:
        table = read_table(path, isa.name)
    except MdlcError as error:
        raise MdlcError(
            error.reason, node=error.node, hint="remove it, or name another --table"
        ) from error
    for what, there, here in (
        ("metric", table.metric, machine.metric),
        ("compiler", table.compiler, machine.toolchain.name),
        ("core", table.core or isa.core.name, isa.core.name),
    ):
        if there != here:
            raise _mixed(path, what, there, here)
    return table


def _mixed(path: Path, what: str, there: str, here: str) -> MdlcError:
    return MdlcError(
        f"was measured with the {what} {there!r}, not {here!r}",
        node=str(path),
        hint="name another --table",
    )


def _known(table: ScheduleTable | None, layer: Layer, wanted: Sequence[Candidate]) -> bool:
    """Whether all that is wanted was measured, and nothing that is no candidate any more.

    Else the layer is measured anew as a whole: figures of different runs are not compared.
    """
    costs = set(table.layers.get(layer.key, ())) if table else set()
    return {str(c.schedule) for c in wanted} <= costs <= {str(c.schedule) for c in layer.found}


def _measured(
    group: Sequence[Layer],
    ways: Sequence[Sequence[Candidate]],
    isa: Isa,
    machine: Machine,
    repeats: int,
) -> Iterator[tuple[Layer, Measurement]]:
    """Each layer of a group with its figures."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(len(group)))
        folders = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mdlc-tune-")))
            for _ in group
        ]

        def build(layer: Layer, found: Sequence[Candidate], folder: Path) -> Program:
            chosen = [candidate.schedule for candidate in found]
            return Program(layer.step, isa, chosen, machine, folder)

        programs = list(pool.map(build, group, ways, folders))
        # Counts do not mind what else runs; times do.
        results = (pool.map if machine.emulated else map)(
            lambda program: program.run(repeats), programs
        )
        yield from zip(group, results, strict=True)


def _with(
    table: ScheduleTable | None,
    layer: Layer,
    wanted: Sequence[Candidate],
    found: Measurement,
    isa: Isa,
    machine: Machine,
    path: Path,
) -> ScheduleTable:
    if table is None:
        table = ScheduleTable(
            isa.name,
            machine.metric,
            found.processor,
            machine.toolchain.name,
            core=isa.core.name,
        )
    if table.processor != found.processor:
        raise _mixed(path, "processor", table.processor, found.processor)
    costs = zip((str(candidate.schedule) for candidate in wanted), found.costs, strict=True)
    return table.with_layer(layer.key, dict(costs))


def _summary(
    table: ScheduleTable | None, layers: Sequence[Layer], measured: int, kept: int, left: int
) -> Tuning:
    changes = []
    model_total = best_total = 0.0
    tuned = Tuned((("", table),) if table else (), shipped=True)
    for layer in layers:
        entry = tuned.entry(layer.step.node, layer.found)
        if entry is None:
            continue
        model = str(layer.found[0].schedule)
        best = str(tuned.choose(layer.step.node, layer.found).schedule)
        model_cost, best_cost = entry.costs[model], entry.costs[best]
        model_total += layer.count * model_cost
        best_total += layer.count * best_cost
        if best != model:
            changes.append(Change(layer.key, layer.count, model, model_cost, best, best_cost))
    changes.sort(key=lambda change: -change.count * (change.model_cost - change.best_cost))
    return Tuning(table, measured, kept, left, tuple(changes), model_total, best_total)
