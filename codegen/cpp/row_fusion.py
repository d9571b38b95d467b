"""The C++ of a chain: loops over bands, each calling its layers on a few rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mdlc.codegen.code import C_TYPES, LayerCode, offset
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import Step, View
from mdlc.codegen.plan.row_fusion import (
    Bands,
    Chain,
    Part,
    band_step,
    strips,
    window_floats,
    window_rows,
)
from mdlc.codegen.threads import CLOSE, open_parallel, own, resolve
from mdlc.compiler.types import DType


@dataclass(frozen=True)
class _Layer:
    """A layer of a chain: its step, and the names of its parameters in the chain's function."""

    step: Step
    number: int

    def weights(self) -> list[tuple[str, str]]:
        """(C++ type, name) of the packed arrays."""
        return [
            (C_TYPES[DType.from_numpy(array.dtype)], f"{name}_{self.number}")
            for name, array in self.step.weights.items()
        ]

    @property
    def row(self) -> int:
        """Floats of an output row."""
        return self.step.output.pitch * self.step.node.shape[3]

    @property
    def input_row(self) -> int:
        """Elements of an input row."""
        return self.step.inputs[0].pitch * self.step.node.inputs[0].shape[3]


def chain_code(steps: Sequence[Step], chain: Chain, isa: Isa) -> LayerCode:
    """One function for all layers of a chain.

    It takes all weights in the order of the layers, then the chain's input, the residuals, the
    windows, the output, and the scratch memory of the layers that need any: see `arguments`.
    """
    layers = [_Layer(step, number) for number, step in enumerate(steps, 1)]
    helpers: dict[str, LayerCode] = {}
    bodies = [
        "\n".join(_bands(layers, run, isa, helpers))
        for run in strips([s.node for s in steps], chain)
    ]
    last = layers[-1]
    parameters = [f"const {kind}* {name}" for each in layers for kind, name in each.weights()]
    parameters.append(f"const {C_TYPES[steps[0].inputs[0].type.dtype]}* x")
    parameters += [f"const float* residual_{e.number}" for e in layers if len(e.step.inputs) > 1]
    shared = len(bodies) > 1
    arena = [f"rows_{each.number}" for each in layers[:-1]]
    scratch = [f"scratch_{each.number}" for each in layers if each.step.scratch is not None]
    parameters += [f"float* {'all_' * shared}{name}" for name in arena]
    parameters.append("float* y")
    parameters += [f"unsigned char* {'all_' * shared}{name}" for name in scratch]
    if shared:
        windows = window_rows([s.node for s in steps], chain)
        lines = [open_parallel("strip", len(bodies))]
        for each, rows in zip(layers, windows, strict=False):
            name = f"rows_{each.number}"
            lines.append(f"float* {name} = all_{name}{own(window_floats(each.step, rows))};")
        for each in layers:
            if each.step.scratch is not None:
                name = f"scratch_{each.number}"
                nbytes = each.step.scratch.type.nbytes // chain.strips
                lines.append(f"unsigned char* {name} = all_{name}{own(nbytes)};")
        for strip, text in enumerate(bodies):
            condition = f"if (strip == {strip})" if strip < len(bodies) - 1 else ""
            lines.append(f"{'else ' if strip else ''}{condition} {{\n{text}\n}}")
        body = "\n".join([*lines, CLOSE])
    else:
        body = bodies[0]
    first = layers[0].step.node.inputs[0].shape
    shape = last.step.node.shape
    name = (
        f"bands_{first[2]}x{first[3]}x{first[1]}_to_{shape[2]}x{shape[3]}x{shape[1]}"
        f"_{len(layers)}_layers"
    )
    height = f"{chain.rows} row{'s' if chain.rows > 1 else ''}"
    text = (
        f"// {len(layers)} layers in bands of {height} of the last one's output. Of the tensors\n"
        f"// between them only the rows that a band needs exist, in rows_1 and so on.\n"
        f"void {name}({', '.join(parameters)}) {{\n{body}\n}}\n"
    )
    found = tuple(helpers.values())
    return LayerCode(
        name,
        text,
        tuple(dict.fromkeys(m for helper in found for m in helper.microkernels)),
        tuple(dict.fromkeys(header for helper in found for header in helper.includes)),
        functions=found,
    )


def arguments(steps: Sequence[Step]) -> list[View]:
    """The views that a chain's function takes behind the weights, without scratch memory."""
    residuals = [view for step in steps for view in step.inputs[1:]]
    return [steps[0].inputs[0], *residuals, *(step.output for step in steps)]


def _bands(
    layers: Sequence[_Layer], runs: Sequence[Bands], isa: Isa, helpers: dict[str, LayerCode]
) -> list[str]:
    lines = []
    for run in runs:
        body = []
        for each, move in zip(layers, run.band.moves, strict=True):
            if move is not None:
                name, row = f"rows_{each.number}", each.row
                size = f"sizeof(float) * {move.rows * row}"
                body.append(f"std::memmove({name}, {name} + {move.first * row}, {size});")
        for each, part, steps in zip(layers, run.band.parts, run.steps, strict=True):
            if part is not None:
                body.append(_call(each, len(layers), part, run.count, steps, isa, helpers))
        text = "\n".join(body)
        if run.count > 1:
            text = f"for (int band = 0; band < {run.count}; ++band) {{\n{text}\n}}"
        lines.append(text)
    return lines


def _call(
    layer: _Layer,
    count: int,
    part: Part,
    bands: int,
    steps: tuple[int, int],
    isa: Isa,
    helpers: dict[str, LayerCode],
) -> str:
    code = _helper(layer.step, part, isa)
    helpers.setdefault(code.name, code)
    assert helpers[code.name].text == code.text, code.name
    number = layer.number
    source = "x" if number == 1 else f"rows_{number - 1}"
    target = "y" if number == count else f"rows_{number}"

    def at(base: str, row: int, first: int, step: int) -> str:
        return offset(base, (bands, "band", step * row), fixed=first * row)

    words = [name for _, name in layer.weights()]
    words.append(at(source, layer.input_row, part.source, steps[0]))
    if len(layer.step.inputs) > 1:
        row = layer.step.inputs[1].pitch * layer.step.node.shape[3]
        words.append(at(f"residual_{number}", row, part.target, steps[1]))
    words.append(at(target, layer.row, part.target, steps[1]))
    if layer.step.scratch is not None and "unsigned char* scratch" in code.text.split("{", 1)[0]:
        words.append(f"scratch_{number}")
    return f"{code.name}({', '.join(words)});"


def _helper(step: Step, part: Part, isa: Isa) -> LayerCode:
    """A layer's function on the rows of a band, with a name that tells its padding."""
    code = resolve(step.kernel.emit(band_step(step, part), step.seen(isa)), 1)
    border = f"{'_top' if part.top else ''}{'_bottom' if part.bottom else ''}"
    if not border:
        return code
    text = re.sub(rf"\b{re.escape(code.name)}\(", f"{code.name}{border}(", code.text)
    return replace(code, name=code.name + border, text=text)
