"""The C++ of a row-fused group: loops over bands, each calling its layers on a few rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mdlc.codegen.code import (
    C_TYPES,
    Body,
    Call,
    Function,
    Loop,
    ParallelLoop,
    Pointer,
    Statement,
    Value,
    Variable,
    body,
)
from mdlc.codegen.cpp.functions import layer_function
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import SCRATCH, Step, View
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.plan.row_fusion import (
    Bands,
    Part,
    RowGroup,
    band_step,
    strips,
    window_floats,
    window_rows,
)
from mdlc.compiler.words import counted


@dataclass(frozen=True)
class _Layer:
    """A layer of a group.

    Attributes:
        struct: C++ type of the layer.
        source, target, residual, scratch: variables that point to memory.
    """

    step: Step
    struct: str
    source: Pointer
    target: Pointer
    residual: Pointer | None
    scratch: Pointer | None

    @property
    def row(self) -> int:
        """Floats of an output row."""
        return self.step.output.pitch * self.step.node.shape[3]

    @property
    def input_row(self) -> int:
        """Elements of an input row."""
        return self.step.inputs[0].pitch * self.step.node.inputs[0].shape[3]


class _Pointers:
    """Variables for the memory that the layers of a group read and write, each named once."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = set(taken)
        self._names: dict[Pointer, str] = {}
        self.variables: list[Variable] = []

    def named(self, stem: str, memory: Pointer, view: View | None = None) -> Pointer:
        """A variable that points to memory, of a view's elements or else of bytes."""
        if memory not in self._names:
            name, number = stem, 1
            while name in self._taken:
                number += 1
                name = f"{stem}_{number}"
            self._taken.add(name)
            self._names[memory] = name
            kind = C_TYPES[view.type.dtype] if view else "unsigned char"
            self.variables.append(Variable(f"{kind}*", name, memory))
        return Pointer(self._names[memory])


def row_group_code(
    plan: Plan, group: RowGroup, structs: Mapping[str, str], at: Callable[..., str]
) -> Function:
    """The member function that computes all layers of a group.

    Args:
        structs: C++ types of the layers; at: a C++ pointer to a view in the arena, of the type of
            its elements unless another one is given.
    """
    steps = [plan.steps[i] for i in group.indices]
    nodes = [step.node for step in steps]
    several = group.strips > 1
    windows = [window_floats(s, r) for s, r in zip(steps, window_rows(nodes, group), strict=False)]
    layers: list[_Layer] = []
    pointers = _Pointers({step.name for step in plan.steps})
    source = pointers.named("source", Pointer(at(steps[0].inputs[0])), steps[0].inputs[0])
    for number, step in enumerate(steps):
        own = windows[number] if several and number < len(windows) else 0
        scratch = None
        if step.scratch is not None:
            nbytes = step.scratch.type.nbytes // group.strips
            memory = Pointer(at(step.scratch, "unsigned char"), own=nbytes if several else 0)
            scratch = pointers.named("scratch", memory)
        residual = None
        if len(step.inputs) > 1:
            added = step.inputs[1]
            residual = pointers.named(f"{step.name}_residual", Pointer(at(added)), added)
        layers.append(
            _Layer(
                step,
                structs[step.name],
                layers[-1].target if layers else source,
                pointers.named(f"{step.name}_rows", Pointer(at(step.output), own=own), step.output),
                residual,
                scratch,
            )
        )
    bodies = [_bands(layers, run, plan.isa) for run in strips(nodes, group)]
    text = bodies[0]
    if several:
        inside: list[Statement] = []
        for strip, bands in enumerate(bodies):
            test = f"if (strip == {strip}) " if strip < len(bodies) - 1 else ""
            inside += [f"{'} else ' if strip else ''}{test}{{", *bands]
        inside = [*pointers.variables, *inside, "}"]
        text = (ParallelLoop("strip", ((len(bodies), body(inside)),)),)
    else:
        text = (*pointers.variables, *text)
    height = counted(group.rows, "row")
    return Function(
        f"{steps[0].name}_to_{steps[-1].name}",
        (),
        (),
        text,
        (
            f"{len(steps)} layers in bands of {height} of the last one's output. Of the tensors",
            "between them only the rows that a band needs exist.",
        ),
        owner=plan.name,
    )


def _bands(layers: Sequence[_Layer], runs: Sequence[Bands], isa: Isa) -> Body:
    """The bands of a strip."""
    found: list[Statement] = []
    for run in runs:
        inside: list[Statement] = []
        for each, move in zip(layers, run.band.moves, strict=True):
            if move is not None:
                size = f"sizeof(float) * {move.rows * each.row}"
                kept = each.target + move.first * each.row
                inside.append(Call("std::memmove", (each.target, kept, size)))
        for each, part, steps in zip(layers, run.band.parts, run.steps, strict=True):
            if part is not None:
                inside.append(_call(each, part, run.count, steps, isa))
        found.append(Loop("band", run.count, tuple(inside)))
    return tuple(found)


def _call(layer: _Layer, part: Part, bands: int, steps: tuple[int, int], isa: Isa) -> Call:
    """A layer on the rows of a band."""
    function = layer_function(band_step(layer.step, part), isa)
    border = f"{'_top' if part.top else ''}{'_bottom' if part.bottom else ''}"
    function = replace(function, name=function.name + border, struct=layer.struct)

    def at(base: Pointer, row: int, first: int, step: int) -> Pointer:
        moved = base + first * row
        return moved.plus("band", step * row) if bands > 1 else moved

    words: list[Value] = [at(layer.source, layer.input_row, part.source, steps[0])]
    if layer.residual is not None:
        row = layer.step.inputs[1].pitch * layer.step.node.shape[3]
        words.append(at(layer.residual, row, part.target, steps[1]))
    words.append(at(layer.target, layer.row, part.target, steps[1]))
    if SCRATCH in function.parameters:
        assert layer.scratch is not None
        words.append(layer.scratch)
    return Call(function, tuple(words), layer=layer.step.name)
