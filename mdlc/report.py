"""A compiled network in figures."""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.codegen.plan.arena import lower_bound
from mdlc.codegen.plan.plan import Plan


@dataclass(frozen=True)
class LayerReport:
    """One layer: names in the emitted class and in the model, and what it costs.

    Attributes:
        cycles: as estimated on one core.
        weight_bytes: packed, without alignment.
    """

    name: str
    tensor: str
    op: str
    output: str
    kernel: str
    schedule: str
    macs: int
    cycles: float
    weight_bytes: int


@dataclass(frozen=True)
class Report:
    """The whole network; arena_lower_bound is what any placement needs at least."""

    name: str
    target: str
    layers: tuple[LayerReport, ...]
    macs: int
    arena_bytes: int
    arena_lower_bound: int
    weight_bytes: int

    def __str__(self) -> str:
        """A table of the layers under a line of totals."""
        head = ("layer", "output", "kernel", "schedule", "MAC", "weights")
        rows = [
            (y.name, y.output, y.kernel, y.schedule, str(y.macs), str(y.weight_bytes))
            for y in self.layers
        ]
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        lines = [
            f"{self.name} for {self.target}: {len(self.layers)} layers, {self.macs} MAC, "
            f"weights {self.weight_bytes} bytes, arena {self.arena_bytes} bytes "
            f"(at least {self.arena_lower_bound})"
        ]
        for row in (head, *rows):
            cells = [
                text.rjust(width) if i >= 4 else text.ljust(width)
                for i, (text, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def report_of(plan: Plan) -> Report:
    """The figures of a plan."""
    layers = tuple(
        LayerReport(
            step.name,
            step.node.name,
            str(step.node.op),
            str(step.node.type),
            step.kernel.name,
            str(step.schedule),
            step.node.op.cost([s.type for s in step.node.inputs], step.node.type).macs,
            step.cycles(plan.backend),
            sum(array.nbytes for array in step.weights.values()),
        )
        for step in plan.steps
    )
    return Report(
        plan.name,
        plan.backend.name,
        layers,
        plan.macs,
        plan.working_bytes,
        lower_bound(plan.buffers),
        plan.weight_bytes,
    )
