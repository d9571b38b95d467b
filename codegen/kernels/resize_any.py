"""Resize of any rank, layout and element type, element by element in plain C++."""

from __future__ import annotations

import itertools
import math

import numpy as np

from mdlc.codegen.code import C_TYPES, Function, advanced, times
from mdlc.codegen.gemm.strides import Dim, logical_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.tiles.formula import element_literal
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.resize import Resize
from mdlc.compiler.types import Array, DType

_MAX_TAPS = 64  # of a pixel: cubic along three axes


def _axes(node: Node) -> list[int]:
    """The logical axes that are resized, in memory order."""
    op, x = node.op, node.inputs[0].type
    assert isinstance(op, Resize)
    return [a for a in x.layout.axes(x.rank) if not op.untouched(a, x.shape[a])]


def _taps(node: Node, axis: int) -> tuple[Array, Array]:
    """Indices and weights along an axis; index -1 where the result is the extrapolation value."""
    op = node.op
    assert isinstance(op, Resize)
    indices, weights = op.taps(axis, node.inputs[0].shape[axis])
    return np.where(weights.sum(1, keepdims=True) == 0, -1, indices), weights


def _per_pixel(node: Node) -> int:
    """The taps of an element."""
    return math.prod(int(_taps(node, axis)[0].shape[1]) for axis in _axes(node))


class ResizeAnyKernel(Kernel):
    """What the vectors of kernels/resize.py do not do; integers are rounded and saturated."""

    name = "resize_any"
    layer = "Interpolation"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        # Halves are bits here.
        if not isinstance(node.op, Resize) or node.type.dtype is DType.F16:
            return False
        return _per_pixel(node) <= _MAX_TAPS

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.size * 4.0 * _per_pixel(node)

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        packed: dict[str, Array] = {}
        for axis in _axes(node):
            indices, weights = _taps(node, axis)
            packed[f"index{axis}"] = indices.astype(np.int32).reshape(-1)
            if weights.shape[1] > 1:
                dtype = np.float64 if node.type.dtype is DType.F64 else np.float32
                packed[f"weight{axis}"] = weights.astype(dtype).reshape(-1)
        return packed

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, Resize)
        source = node.inputs[0].type
        of, own = logical_strides(step.inputs[0]), logical_strides(step.output)
        axes = _axes(node)
        order = source.layout.axes(source.rank)
        # The innermost axis, where it is not resized, is a loop around sums of known elements.
        inner = [] if not order or order[-1] in axes else [order[-1]]
        loops = [axis for axis in order if axis not in inner]
        dims = [Dim(node.shape[a], (0 if a in axes else of[a], own[a])) for a in loops]
        count = node.shape[inner[0]] if inner else 1
        variable = {axis: f"i{position}" for position, axis in enumerate(loops)}
        taps = {axis: _taps(node, axis) for axis in axes}
        lines = [f"const {C_TYPES[source.dtype]}* from = {pointer('x', dims, 0)};",
                 f"{C_TYPES[source.dtype]}* to = {pointer('y', dims, 1)};"]  # fmt: skip
        outside = []
        for axis in axes:
            width = taps[axis][0].shape[1]
            row = times(width, variable[axis]) if node.shape[axis] > 1 else ""
            for t in range(width):
                place = advanced(row, t) if row else str(t)
                lines.append(f"const int at{axis}_{t} = index{axis}[{place}];")
                if width > 1:
                    kind = "double" if source.dtype is DType.F64 else "float"
                    lines.append(f"const {kind} w{axis}_{t} = weight{axis}[{place}];")
            if (taps[axis][0] < 0).any():
                outside.append(f"at{axis}_0 < 0")
        channel = "c" if count > 1 else ""
        to = "to[c]" if channel else "*to"
        body = self._sum(node, axes, taps, of, channel)
        if outside:
            value = element_literal(op.extrapolation, source.dtype)
            body = f"{to} = ({' || '.join(outside)}) ? {value} : {body};"
        else:
            body = f"{to} = {body};"
        lines.append(f"for (int c = 0; c < {count}; ++c) {{\n{body}\n}}" if count > 1 else body)
        limits = () if math.isfinite(op.extrapolation) else ("limits",)
        shape = "x".join(map(str, source.physical_shape))
        target = "x".join(map(str, node.type.physical_shape))
        return step.function(
            f"resize_{op.mode}_{shape}_to_{target}_{source.dtype.value}",
            nest([dim.count for dim in dims], "\n".join(lines), shared=True),
            comment=[op.words],
            includes=("cmath", "cstdint", *limits),
        )

    @staticmethod
    def _sum(
        node: Node,
        axes: list[int],
        taps: dict[int, tuple[Array, Array]],
        of: tuple[int, ...],
        channel: str,
    ) -> str:
        """The weighted sum of a pixel's taps (of a channel), in the element type."""
        dtype = node.type.dtype
        terms = []
        for choice in itertools.product(*(range(taps[a][0].shape[1]) for a in axes)):
            pairs = list(zip(axes, choice, strict=True))
            place = " + ".join(
                [
                    *(f"at{a}_{t}" + (f" * {of[a]}" if of[a] != 1 else "") for a, t in pairs),
                    *([channel] if channel else []),
                ]
            )
            factors = [f"w{a}_{t}" for a, t in pairs if taps[a][0].shape[1] > 1]
            value = f"from[{place or 0}]"
            if factors and dtype not in (DType.F32, DType.F64):
                value = f"static_cast<float>({value})"
            terms.append(" * ".join([*factors, value]))
        total = " + ".join(terms)
        if len(terms) == 1 or dtype.is_float:
            return total
        info = np.iinfo(dtype.numpy)
        low, high = f"{info.min}.0F", f"{info.max}.0F"
        kind = C_TYPES[dtype]
        return f"static_cast<{kind}>(std::fmin(std::fmax(std::nearbyint({total}), {low}), {high}))"


KERNELS = (ResizeAnyKernel(),)
