"""What the emitted files of every target say alike: the manual, ports in the manifest, literals."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Mapping, Sequence

from mdlc.codegen.answer.code import AnswerCode
from mdlc.codegen.code import C_TYPES
from mdlc.codegen.cpp.format import COLUMNS, format_cpp
from mdlc.codegen.plan.plan import Plan, Port, State
from mdlc.codegen.tiles.stored import STORED_NAMES
from mdlc.compiler.types import DType, Layout, TensorType
from mdlc.compiler.words import counted

MAT_TYPES = {
    DType.F32: "kFloat32",
    DType.F16: "kFloat16",
    DType.U8: "kUint8",
    DType.I8: "kInt8",
    DType.I32: "kInt32",
    DType.I64: "kInt64",
    DType.BOOL: "kBool",
    DType.F64: "kFloat64",
    DType.I16: "kInt16",
    DType.U16: "kUint16",
    DType.U32: "kUint32",
    DType.U64: "kUint64",
    **{each: f"k{name}" for each, name in STORED_NAMES.items()},
}


def mat_types_of(plan: Plan) -> list[str]:
    """The element types that a Mat of a class may have; those only stored where it has them."""
    used = {port.type.dtype for port in (*plan.inputs, *plan.outputs)}
    return [name for each, name in MAT_TYPES.items() if not each.is_stored or each in used]


# Where lines of the comment at the top of a header are broken.
_MANUAL_WIDTH = 82
_EXAMPLE_WIDTH = 95


def manual(rows: Sequence[tuple[str, str]], plan: Plan, notes: Mapping[str, str]) -> list[str]:
    """The table at the top of a header.

    Args:
        rows: labels and texts, which those of the inputs and outputs follow.
        notes: on the expected input and on outputs, by name.
    """
    table = list(rows)
    for port in plan.inputs:
        table.append(("input", f"{_described(port)}; {notes.get(port.name) or _OWN_VALUES}"))
    for port in plan.outputs:
        note = f"; {notes[port.name]}" if port.name in notes else ""
        table.append(("output", f"{_described(port)}{note}"))
    if plan.also:
        table.append(("sizes", "inputs of these sizes are taken, the rest is kBadInput; the above "
                      "and the layers below are those of the first"))  # fmt: skip
        for variant in plan.sizes:
            ports = (variant.inputs, variant.outputs)
            shapes = (", ".join(shape_text(port.type) for port in each) for each in ports)
            dims = (", ".join(" x ".join(map(str, p.dims)) for p in each) for each in ports)
            table.append(("", f"{' -> '.join(shapes)} (Mats {' -> '.join(dims)})"))
    for state in plan.states:
        kind = state.view.type
        table.append(
            (
                "state",
                f"{quoted(state.name)}: {_element(kind.dtype)} {shape_text(kind)}, kept inside; "
                f"zero after Init and Reset, then what the model calls {quoted(state.result)}",
            )
        )
    return comment_table(table)


def comment_table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Labels and texts as the lines of a table."""
    lines = []
    for label, text in rows:
        wrapped = textwrap.wrap(text, _MANUAL_WIDTH, break_long_words=False, break_on_hyphens=False)
        for number, line in enumerate(wrapped or [""]):
            lines.append(f"{'' if number else label:<11}{line}".rstrip())
    return lines


_OWN_VALUES = "the values that the model takes: mdlc adds no normalisation"


def _described(port: Port) -> str:
    onnx_name = "" if port.name == port.identifier else f" ({quoted(port.name)} in the model)"
    mat = " x ".join(map(str, port.dims))
    return (
        f"{port.identifier}{onnx_name}: {_element(port.type.dtype)} {shape_text(port.type)}, "
        f"in memory {memory_order(port.type)}; a Mat of {mat}"
    )


def _element(dtype: DType) -> str:
    """An element type as an app engineer says it."""
    special = {DType.F16: "half (its bits as uint16_t)", DType.BOOL: "bool (a byte, 0 or 1)"}
    if dtype.is_stored:
        name = STORED_NAMES[dtype].lower()
        if dtype.bits < 8:
            return f"{name} (one in the lowest {dtype.bits} bits of each byte, the others 0)"
        return f"{name} (its bits as {C_TYPES[dtype].removeprefix('std::')})"
    return special.get(dtype, C_TYPES[dtype].removeprefix("std::"))


def shape_text(tensor: TensorType) -> str:
    """The ONNX shape: 1x3x224x224; a scalar's is "scalar"."""
    return "x".join(map(str, tensor.shape)) or "scalar"


# A plain tensor whose last axis is no longer than this, and whose others are, is one of pixels.
_FEW_CHANNELS = 4


def memory_order(tensor: TensorType) -> str:
    """How a tensor's elements follow each other in memory, in words."""
    lengths = [length for length in tensor.physical_shape if length != 1]
    if len(lengths) <= 1:
        return counted(tensor.size, "value")
    if tensor.rank != 4:
        return f"{'x'.join(map(str, tensor.physical_shape))} as in ONNX, the last axis contiguous"
    images, *image = tensor.physical_shape
    shape = [length for length in image if length != 1]
    nhwc = tensor.layout is Layout.NHWC
    if len(shape) == 3 and (nhwc or shape[2] <= _FEW_CHANNELS < min(shape[:2])):
        # Plain where the network's own inputs and outputs have channels last.
        side = "channels" if nhwc else "values"
        one = f"{shape[0]} rows of {shape[1]} pixels, each {shape[2]} {side} side by side"
    elif len(shape) == 3:
        one = f"{shape[0]} planes one after the other, each {shape[1]} rows of {shape[2]} values"
    elif len(shape) == 2 and nhwc and image[2] > 1:
        one = f"{shape[0]} pixels, each {shape[1]} channels side by side"
    elif len(shape) == 2:
        one = f"{shape[0]} rows of {shape[1]} values"
    else:
        one = counted(tensor.size // images, "value")
    return one if images == 1 else f"{images} images one after the other, each {one}"


def example(plan: Plan, weights: str, answer: AnswerCode | None = None) -> list[str]:
    """A program that uses the class, in lines; it compiles as it stands.

    Args:
        answer: what the class makes of its outputs.
        weights: what `Init` is given, as C++.
    """
    ports = plan.inputs if answer else (*plan.inputs, *plan.outputs)
    name = plan.name
    body = []
    given = []
    for port in ports:
        if port is plan.frame_port:
            body += frame_lines(name)
            given.append("frame")
            continue
        given.append(f"{port.identifier}_mat")
        data = f"{port.identifier}_data"
        dims = ", ".join(map(str, port.dims))
        kind = f"{name}::Mat::{MAT_TYPES[port.type.dtype]}"
        body.append(f"std::vector<{C_TYPES[port.type.dtype]}> {data}({port.type.size});")
        body.append(f"{name}::Mat {port.identifier}_mat({data}.data(), {dims}, {kind});")
    shown = []
    if answer is not None:
        body.append(f"{name}::{answer.type} answer;")
        body += [line.format(name=name) for line in answer.prepare]
        given.append("answer")
        lines = [line.format(name=name) for line in answer.shown]
        shown = [f"if (error == {name}::kOk) {{", *lines, "}"]
    mats = ", ".join(given)
    text = "\n".join(
        [
            "#include <cstdint>",
            "#include <cstdio>",
            "#include <vector>",
            "",
            f'#include "{name}.h"',
            "",
            "int main() {",
            *body,
            f"{name} network;",
            f"int error = network.Init({weights});",
            f"if (error == {name}::kOk) error = network.infer({mats});",
            *shown,
            f"if (error != {name}::kOk) std::puts({name}::ErrorText(error));",
            f"return error == {name}::kOk ? 0 : 1;",
            "}",
        ]
    )
    return format_cpp(text, columns=_EXAMPLE_WIDTH).splitlines()


def frame_lines(name: str) -> list[str]:
    """Lines of an example that make a camera's frame."""
    return [
        "std::vector<unsigned char> nv21(1920 * 1080 * 3 / 2);  // from the camera",
        f"{name}::Frame frame = {name}::Frame::NV21(nv21.data(), 1920, nv21.data() + 1920 * 1080, "
        "1920, 1920, 1080);",
        "frame.rotation = 90;",
    ]


def quoted(name: str) -> str:
    """An ONNX name inside a comment: printable, and never broken into two lines."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return f'"{"".join(shown)}"'.replace(" ", _NO_BREAK)


# Lines are not broken here. (A comment's line must not end with a name's backslash.)
_NO_BREAK = "\N{NO-BREAK SPACE}"


def wrap(text: str, width: int) -> list[str]:
    """A text in lines of at most `width`, words being whole."""
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace(_NO_BREAK, " ") for line in lines]


def comment(text: str, indent: int = 2) -> str:
    """A documentation comment of any length, its lines no longer than those of emitted code."""
    margin = f"{' ' * indent}/// "
    return "\n".join(f"{margin}{line}" for line in wrap(text, COLUMNS - len(margin)))


def port_entry(port: Port) -> dict[str, object]:
    """An input or output in the manifest."""
    height, width, channels = port.dims
    return {
        "name": port.name,
        "parameter": port.identifier,
        "shape": list(port.type.shape),
        "dtype": port.type.dtype.value,
        "layout": port.type.layout.value,
        "memory": memory_order(port.type),
        "mat": {"height": height, "width": width, "channels": channels},
    }


def state_entry(state: State) -> dict[str, object]:
    """A state in the manifest."""
    kind = state.view.type
    return {
        "name": state.name,
        "result": state.result,
        "shape": list(kind.shape),
        "dtype": kind.dtype.value,
    }


def file_entries(files: Mapping[str, bytes]) -> dict[str, object]:
    """The emitted files in the manifest, by name."""
    return {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(files.items())
    }


def stacked(port: Port) -> tuple[int, int]:
    """Rows of a port's Mat, and bytes of each."""
    height, width, channels = port.dims
    return height, width * channels * port.type.dtype.size


def bytes_literal(data: bytes) -> str:
    """Bytes as the elements of a C++ array."""
    return ", ".join(str(byte) for byte in data)
