"""Element-wise operators with broadcasting: grid position, bounds check, read, compute, write."""

from __future__ import annotations

import math

import numpy as np

from mdlc.codegen.code import LayerCode
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.metal import msl
from mdlc.codegen.metal.access import read, slice_of, thread_position
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.image import LANES, Image, element
from mdlc.codegen.metal.index import Index, flat
from mdlc.codegen.metal.kernel import (
    ComputeCode,
    ComputeKernel,
    Work,
    declaration,
    group_for,
    guard,
    image_of,
    layer,
    stored,
)
from mdlc.codegen.tiles.formula import stem
from mdlc.compiler.expr import primitives_of
from mdlc.compiler.ir import Node
from mdlc.compiler.op import Elementwise
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.types import Array, DType, TensorType

_BYTES = frozenset({DType.U8, DType.I8})


def packed_constant(source: Node, node: Node) -> Array:
    """A constant operand as [images, height, width, slices, 4], axes of one value of length 1."""
    constant = source.constant
    assert constant is not None
    layout = node.type.layout
    shape = (1,) * (len(node.shape) - constant.ndim) + constant.shape
    tensor = TensorType(shape, source.type.dtype, layout)
    physical = tensor.to_physical(constant.reshape(shape))
    whole = (1,) * (3 - min(len(shape), 3)) + physical.shape
    lead = math.prod(node.type.physical_shape[:-3])
    values = physical.reshape(-1 if len(shape) > 3 else 1, *whole[-3:])
    if values.shape[0] not in (1, lead):
        head = np.broadcast_to(physical, (*node.type.physical_shape[:-3], *physical.shape[-3:]))
        values = head.reshape(lead, *physical.shape[-3:])
    channels = values.shape[-1]
    if channels == 1:
        values = np.repeat(values, LANES, axis=-1)
    over = -values.shape[-1] % LANES
    values = np.pad(values, [(0, 0)] * 3 + [(0, over)])
    return values.reshape(*values.shape[:3], -1, LANES)


def as_buffer(values: Array, metal: Metal) -> Array:
    """Constants as the kernel reads them: int, half, or float.

    Float where the target computes in it, or half would lose too much.
    """
    if element(DType.from_numpy(values.dtype)) == "int":
        return values.astype(np.int32)
    exact = metal.in_float and values.dtype.kind == "f"
    return values.astype(np.float16 if fits_half(values) and not exact else np.float32)


def fits_half(values: Array) -> bool:
    """Whether half holds all of the values, to its precision."""
    magnitude = np.abs(values[np.isfinite(values) & (values != 0)].astype(np.float64))
    return not magnitude.size or bool(magnitude.max() < 6e4 and magnitude.min() > 6e-5)


BUFFER_TYPES = {np.dtype(np.float16): "half4", np.dtype(np.float32): "float4",
                np.dtype(np.int32): "int4"}  # fmt: skip


def element_names(node: Node, name: str = "") -> list[str]:
    """Names of the operands of a node: a and b, or x, or x0, x1, ..."""
    count = len(node.inputs)
    if count == 1:
        return ["x"]
    return ["a", "b"] if count == 2 else [f"x{i}" for i in range(count)]


class ElementwiseKernel(ComputeKernel):
    """Every operator with a formula."""

    name = "elementwise"
    layer = "Eltwise"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        op = node.op
        if not isinstance(op, Elementwise) or not stored(node):
            return False
        if any(element(source.type.dtype) is None for source in node.inputs):
            return False
        if isinstance(op, Cast):
            return True
        expr = msl.formula(op)
        kinds = {source.type.dtype for source in node.inputs}
        if kinds & _BYTES and not primitives_of(expr) <= msl._EXACT:
            return False
        if any(element(kind) == "int" for kind in kinds):
            return msl.integral(expr)
        return True

    def pack(self, node: Node, schedule: Schedule, metal: Metal) -> dict[str, Array]:
        packed = {}
        for i, source in enumerate(node.inputs):
            if source.constant is not None and source.type.size > 1:
                values = packed_constant(source, node)
                packed[f"operand{i}"] = as_buffer(values, metal)
        return packed

    def _calculated(self, node: Node) -> str:
        """The vector type in which the formula is computed."""
        op = node.op
        assert isinstance(op, Elementwise)
        kinds = [s.type.dtype for s in node.inputs if s.type.dtype is not DType.BOOL]
        if kinds and all(element(kind) == "int" for kind in kinds):
            return "int4"
        vector = msl.precision(msl.formula(op))
        for source in node.inputs:
            value = source.constant
            if vector == "half4" and value is not None and not fits_half(value):
                vector = "float4"
        return vector

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node, op = step.node, step.node.op
        assert isinstance(op, Elementwise)
        own = image_of(step.output)
        vector = self._calculated(node)
        if vector == "half4" and any(view.wide for view in (*step.inputs, step.output)):
            vector = "float4"
        names = element_names(node)
        at = thread_position(own)
        logical = own.logical(at)
        views = iter(step.inputs)
        textures: list[tuple[str, str, str]] = []
        buffers: list[tuple[str, str]] = []
        values: list[str] = []
        lines: list[str] = []
        rank = len(node.shape)
        for i, (name, source) in enumerate(zip(names, node.inputs, strict=True)):
            boolean = source.type.dtype is DType.BOOL
            if source.constant is not None and source.type.size == 1:
                number = float(source.constant.reshape(-1)[0])
                text = msl.literal(number, "half4" if boolean else vector)
            elif source.constant is not None:
                array = step.weights[f"operand{i}"]
                kind = BUFFER_TYPES[array.dtype]
                buffers.append((f"device const {kind}", f"{name}_values"))
                lines.append(f"const {kind} {name} = {name}_values[{self._where(array, own)}];")
                text = name if kind == vector or boolean else f"{vector}({name})"
            else:
                image = image_of(next(views))
                textures.append((image.element, "read", name))
                picked = self._operand(logical, source.type, rank)
                got = read(name, image, image.position(picked), own)
                lines.append(f"const {image.element}4 {name}_value = {got};")
                text = f"{name}_value"
                if f"{image.element}4" != vector and not boolean:
                    text = f"{vector}({text})"
            if boolean and type(op).__name__ != "Cast":
                text = f"({text} != half4(0.0h))"
            values.append(text)
        expr = msl.formula(op)
        spelled = msl.spell(expr, vector, values)
        lines += spelled.statements
        lines.append(f"y.write({self._result(node, own, expr, vector, spelled.result)}, "
                     f"position.xy, {layer(own)});")  # fmt: skip
        if msl.risky(expr) and own.channels % LANES:
            lines = self._finite(lines, own)
        textures.append((own.element, "write", "y"))
        grid = (own.width, own.height, own.layers)
        name = f"{stem(op)}_{own.label}"
        shapes = ", ".join(str(list(source.shape)) for source in node.inputs)
        head = declaration(textures, buffers)
        comment = f"y = {stem(op)}({shapes}), element by element."
        body = guard(grid) + "\n".join(lines)
        operations = max(1, len(spelled.statements) + 1) * node.type.size
        half = vector == "half4"
        work = Work(operations if half else 0, 0 if half else operations)
        return ComputeCode(name, comment, head, body, grid=grid, group=group_for(grid), work=work)

    @staticmethod
    def _operand(logical: list[Index], source: TensorType, rank: int) -> list[Index]:
        own = logical[rank - source.rank :]
        return [
            Index.of(0) if length == 1 else index
            for index, length in zip(own, source.shape, strict=True)
        ]

    @staticmethod
    def _where(array: Array, own: Image) -> Index:
        """The vector of a packed constant that a thread needs."""
        at = thread_position(own)[:3]
        indices = [
            index if length > 1 else Index.of(0)
            for index, length in zip(at, array.shape[:3], strict=True)
        ]
        slice_ = slice_of(own) if array.shape[3] > 1 else Index.of(0)
        return flat([*indices, slice_], array.shape[:4])

    @staticmethod
    def _result(node: Node, own: Image, expr: object, vector: str, text: str) -> str:
        target = f"{own.element}4"
        kind = getattr(expr, "kind", "")
        boolean = node.inputs and all(s.type.dtype is DType.BOOL for s in node.inputs)
        if node.type.dtype is DType.BOOL:
            if kind not in msl.MASKS and type(node.op).__name__ == "Cast":
                text = f"{text} != {vector}(0)"
            return f"select(half4(0.0h), half4(1.0h), {text})"
        if kind in msl.MASKS or (boolean and not isinstance(node.op, Cast)):
            return f"select({target}(0), {target}(1), {text})"
        if node.type.dtype in _BYTES and isinstance(node.op, Cast) and vector != "int4":
            text = f"trunc({text})"
        return text if vector == target else f"{target}({text})"

    @staticmethod
    def _finite(lines: list[str], own: Image) -> list[str]:
        """Zeros in the lanes behind the last channel, where the formula may be infinite."""
        last = lines[-1]
        start, end = last.index("(") + 1, last.index(", position.xy")
        lanes = "xyzw"[own.channels % LANES :]
        kind = own.element
        zero = f"{kind}{len(lanes)}(0)" if len(lanes) > 1 else f"{kind}(0)"
        at = slice_of(own)
        clear = f"value.{lanes} = {zero};"
        if own.slices > 1:
            clear = f"if ({at.factor} == {own.slices - 1}) {{\n{clear}\n}}"
        return [
            *lines[:-1],
            f"{kind}4 value = {last[start:end]};",
            clear,
            f"y.write(value{last[end:]}",
        ]


KERNELS = (ElementwiseKernel(),)
