"""The C++ of a chain: loops over bands, each calling its layers on a few rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mdlc.codegen.code import (
    C_TYPES,
    Body,
    Call,
    Function,
    Loop,
    ParallelLoop,
    Parameter,
    Pointer,
    Statement,
    Value,
    Variable,
    body,
    offset,
)
from mdlc.codegen.cpp.functions import layer_function
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import SCRATCH, Step, View
from mdlc.codegen.plan.row_fusion import (
    Bands,
    Chain,
    Part,
    band_step,
    strips,
    window_floats,
    window_rows,
)


@dataclass(frozen=True)
class _Layer:
    """A layer of a chain: its step, and the names of its parameters in the chain's function."""

    step: Step
    number: int

    def fields(self) -> list[Parameter]:
        """The packed arrays."""
        return [replace(each, name=f"{each.name}_{self.number}") for each in self.step.fields]

    @property
    def residual(self) -> bool:
        """Whether it adds another layer's output."""
        return len(self.step.inputs) > 1

    @property
    def row(self) -> int:
        """Floats of an output row."""
        return self.step.output.pitch * self.step.node.shape[3]

    @property
    def input_row(self) -> int:
        """Elements of an input row."""
        return self.step.inputs[0].pitch * self.step.node.inputs[0].shape[3]


def chain_code(steps: Sequence[Step], chain: Chain, isa: Isa) -> Function:
    """One function for all layers of a chain.

    It takes all weights in the order of the layers, then the chain's input, the residuals, the
    windows, the output, and the scratch memory of the layers that need any: see `arguments`.
    """
    layers = [_Layer(step, number) for number, step in enumerate(steps, 1)]
    nodes = [step.node for step in steps]
    bodies = [_bands(layers, run, isa) for run in strips(nodes, chain)]
    last = layers[-1]
    all_ = "all_" if len(bodies) > 1 else ""
    windows = [f"rows_{each.number}" for each in layers[:-1]]
    scratch = [each for each in layers if each.step.scratch is not None]
    parameters = [
        Parameter(f"const {C_TYPES[steps[0].inputs[0].type.dtype]}*", "x"),
        *(Parameter("const float*", f"residual_{e.number}") for e in layers if e.residual),
        *(Parameter("float*", f"{all_}{name}") for name in windows),
        Parameter("float*", "y"),
        *(Parameter(SCRATCH.type, f"{all_}scratch_{each.number}") for each in scratch),
    ]
    text = bodies[0]
    if len(bodies) > 1:
        own: list[Statement] = []
        for each, name, rows in zip(layers, windows, window_rows(nodes, chain), strict=False):
            part = Pointer(f"all_{name}", own=window_floats(each.step, rows))
            own.append(Variable("float*", name, part))
        for each in scratch:
            assert each.step.scratch is not None
            name = f"scratch_{each.number}"
            part = Pointer(f"all_{name}", own=each.step.scratch.type.nbytes // chain.strips)
            own.append(Variable(SCRATCH.type, name, part))
        for strip, inside in enumerate(bodies):
            test = f"if (strip == {strip}) " if strip < len(bodies) - 1 else ""
            own += [f"{'} else ' if strip else ''}{test}{{", *inside]
        text = (ParallelLoop("strip", ((len(bodies), body(own, "}")),)),)
    first, shape = layers[0].step.node.inputs[0].shape, last.step.node.shape
    name = (
        f"bands_{first[2]}x{first[3]}x{first[1]}_to_{shape[2]}x{shape[3]}x{shape[1]}"
        f"_{len(layers)}_layers"
    )
    height = f"{chain.rows} row{'s' if chain.rows > 1 else ''}"
    return Function(
        name,
        tuple(field for each in layers for field in each.fields()),
        tuple(parameters),
        text,
        (
            f"{len(layers)} layers in bands of {height} of the last one's output. Of the tensors",
            "between them only the rows that a band needs exist, in rows_1 and so on.",
        ),
    )


def arguments(steps: Sequence[Step]) -> list[View]:
    """The views that a chain's function takes behind the weights, without scratch memory."""
    residuals = [view for step in steps for view in step.inputs[1:]]
    return [*steps[0].inputs[:1], *residuals, *(step.output for step in steps)]


def _bands(layers: Sequence[_Layer], runs: Sequence[Bands], isa: Isa) -> Body:
    """The bands of a strip."""
    found: list[Statement] = []
    for run in runs:
        inside: list[Statement] = []
        for each, move in zip(layers, run.band.moves, strict=True):
            if move is not None:
                name, row = f"rows_{each.number}", each.row
                size = f"sizeof(float) * {move.rows * row}"
                inside.append(f"std::memmove({name}, {name} + {move.first * row}, {size});")
        for each, part, steps in zip(layers, run.band.parts, run.steps, strict=True):
            if part is not None:
                inside.append(_call(each, len(layers), part, run.count, steps, isa))
        found.append(Loop("band", run.count, tuple(inside)))
    return tuple(found)


def _call(
    layer: _Layer, count: int, part: Part, bands: int, steps: tuple[int, int], isa: Isa
) -> Call:
    """A layer on the rows of a band."""
    function = layer_function(band_step(layer.step, part), isa)
    border = f"{'_top' if part.top else ''}{'_bottom' if part.bottom else ''}"
    function = replace(function, name=function.name + border)
    number = layer.number
    source = "x" if number == 1 else f"rows_{number - 1}"
    target = "y" if number == count else f"rows_{number}"

    def at(base: str, row: int, first: int, step: int) -> Pointer:
        return offset(base, (bands, "band", step * row), fixed=first * row)

    words: list[Value] = [field.name for field in layer.fields()]
    words.append(at(source, layer.input_row, part.source, steps[0]))
    if layer.residual:
        row = layer.step.inputs[1].pitch * layer.step.node.shape[3]
        words.append(at(f"residual_{number}", row, part.target, steps[1]))
    words.append(at(target, layer.row, part.target, steps[1]))
    if SCRATCH in function.parameters:
        words.append(f"scratch_{number}")
    return Call(function, tuple(words))
