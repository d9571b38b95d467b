"""Why every layer is computed the way it is: the candidates, and what decided between them."""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.api import CompiledModel
from mdlc.codegen.cpp.layer_text import operation
from mdlc.codegen.kernel import candidates
from mdlc.compiler.errors import MdlcError

BY_MODEL = "the cost model"


@dataclass(frozen=True)
class Way:
    """A candidate.

    Attributes:
        cycles: estimated, on one core.
        measured: what a table says, in the table's metric; None where it says nothing.
        won: whether it is what the class does.
    """

    kernel: str
    schedule: str
    cycles: float
    measured: float | None
    won: bool


@dataclass(frozen=True)
class Explanation:
    """A layer.

    Attributes:
        name, tensor: in the class and in the model.
        op, output: as text.
        macs: multiply-adds.
        chosen_by: the cost model or a table; metric: what the table's figures are.
        bands: the row-fused group that it is in, in words, or "".
        precision: why it is in integers or float, where that was decided by cost, or "".
        ways: the candidates, the cheapest by the cost model first.
    """

    name: str
    tensor: str
    op: str
    output: str
    macs: int
    chosen_by: str
    metric: str | None
    bands: str
    precision: Precision | None
    ways: tuple[Way, ...]

    @property
    def winner(self) -> Way | None:
        """What the class does; None where that is no candidate by itself."""
        return next((way for way in self.ways if way.won), None)


@dataclass(frozen=True)
class Precision:
    """What a layer computes in, and why.

    Attributes:
        where: float, half precision or 8 bits; reason: in words.
        integer, in_float: estimated cycles, where they decided.
    """

    where: str
    reason: str = ""
    integer: float | None = None
    in_float: float | None = None


def explained(compiled: CompiledModel, wanted: str | None = None) -> list[Explanation]:
    """All layers in order, or those of a name in the class or in the model.

    Raises:
        MdlcError: there is none of that name.
    """
    plan, backend, tuned = compiled.plan, compiled.plan.backend, compiled.tuned
    found = []
    for index, step in enumerate(plan.steps):
        node = step.node
        if wanted is not None and wanted not in (step.name, node.name):
            continue
        ways = candidates(node, backend)
        entry = tuned.entry(node, ways)
        costs = entry.costs if entry else {}
        found.append(
            Explanation(
                step.name,
                node.name,
                operation(step),
                str(node.type),
                node.op.cost([source.type for source in node.inputs], node.type).macs,
                f"{entry.source} ({entry.table.processor})" if entry else BY_MODEL,
                entry.table.metric if entry else None,
                plan.bands(index),
                _precision(compiled, node.name),
                tuple(
                    Way(
                        way.kernel.name,
                        str(way.schedule),
                        way.cycles,
                        costs.get(str(way.schedule)),
                        way.kernel is step.kernel and way.schedule == step.schedule,
                    )
                    for way in ways
                ),
            )
        )
    if not found and wanted is not None:
        some = ", ".join(step.name for step in plan.steps[:5])
        raise MdlcError(
            f"there is no layer {wanted!r}",
            node="--layer",
            hint=f"layers are {some}, ...; see `mdlc inspect`",
        )
    return found


def _precision(compiled: CompiledModel, tensor: str) -> Precision | None:
    half = compiled.half_precision
    if half is not None and half.narrowed is not None:
        if tensor in half.narrowed.kept:
            return Precision("float", f"{half.narrowed.kept[tensor]} do not fit half precision")
        if tensor in half.grounds:
            return Precision("half precision", f"its range is {half.grounds[tensor]}")
    low = compiled.low_precision
    if low is None or low.placement is None or tensor not in low.placement.cycles:
        return None
    cycles = low.placement.cycles[tensor]
    where = "float" if tensor in low.placement.in_float else "8 bits"
    return Precision(where, "", cycles.integer, cycles.in_float)
