"""Resize: every output texel a weighted sum of input texels, found in tables."""

from __future__ import annotations

import numpy as np

from mdlc.codegen.code import LayerCode
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.image import Image
from mdlc.codegen.metal.index import Index
from mdlc.codegen.metal.kernel import (
    ComputeCode,
    ComputeKernel,
    Work,
    declaration,
    group_for,
    guard,
    image_of,
    layer,
    place,
    stored,
)
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.resize import Resize
from mdlc.compiler.types import Array, DType


class ResizeKernel(ComputeKernel):
    """Nearest, linear and cubic along height and width."""

    name = "resize"
    layer = "Interpolation"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        op = node.op
        if not isinstance(op, Resize) or not stored(node) or len(node.shape) != 4:
            return False
        if node.type.dtype not in (DType.F32, DType.F16):
            return False
        if op.extrapolation and op.coordinates == "tf_crop_and_resize":
            return False
        return all(op.untouched(axis, node.inputs[0].shape[axis]) for axis in (0, 1))

    @staticmethod
    def _taps(node: Node) -> list[tuple[Array, Array]]:
        """Indices and weights [out, taps] along height and width, in the layout's order."""
        op = node.op
        assert isinstance(op, Resize)
        found = []
        for axis in (2, 3):
            length = node.inputs[0].shape[axis]
            if op.untouched(axis, length):
                found.append((np.arange(length)[:, None], np.ones((length, 1))))
            else:
                found.append(op.taps(axis, length))
        return found

    def cost(self, node: Node, schedule: Schedule, metal: Metal) -> float:
        (_, wy), (_, wx) = self._taps(node)
        image = Image.of(node.type)
        taps = int(wy.shape[1]) * int(wx.shape[1])
        return image.layers * image.height * image.width * taps / 32

    def pack(self, node: Node, schedule: Schedule, metal: Metal) -> dict[str, Array]:
        packed: dict[str, Array] = {}
        for name, (indices, weights) in zip(("row", "column"), self._taps(node), strict=True):
            packed[f"{name}s"] = indices.astype(np.int32).reshape(-1)
            if weights.shape[1] > 1 or np.any(weights != 1):
                packed[f"{name}_weights"] = weights.astype(np.float32).reshape(-1)
        return packed

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node = step.node
        x, y = image_of(step.inputs[0]), image_of(step.output)
        (_, wy), (_, wx) = self._taps(node)
        ty, tx = wy.shape[1], wx.shape[1]
        image, slice_ = place(y)
        grid = (y.width, y.height, y.layers)
        buffers = [
            (f"device const {'int' if name in ('rows', 'columns') else 'float'}", name)
            for name in step.weights
        ]
        row = Index("position.y", y.height) * ty + Index("ty", ty)
        column = Index("position.x", y.width) * tx + Index("tx", tx)
        at = f"uint2(uint(columns[{column}]), uint(rows[{row}]))"
        texel = f"x.read({at}, {x.layer(image, slice_)})"
        factors = [
            f"{name}_weights[{index}]"
            for name, index in (("row", row), ("column", column))
            if f"{name}_weights" in step.weights
        ]
        lines = []
        if not factors:
            value = texel if x.element == y.element else f"{y.element}4({texel})"
            lines.append(f"y.write({value}, position.xy, {layer(y)});")
        else:
            lines.append("float4 sum = float4(0.0f);")
            ends = []
            for name, count in (("ty", ty), ("tx", tx)):
                if count > 1:
                    lines.append(f"for (uint {name} = 0; {name} < {count}; ++{name}) {{")
                    ends.append("}")
            lines.append(f"sum += float4({texel}) * ({' * '.join(factors)});")
            lines += [*ends, f"y.write({y.element}4(sum), position.xy, {layer(y)});"]
        textures = [(x.element, "read", "x"), (y.element, "write", "y")]
        name = f"resize{ty}x{tx}_{x.height}x{x.width}x{x.channels}_to_{y.height}x{y.width}"
        comment = f"{node.op.words}: {ty}x{tx} taps."
        head = declaration(textures, buffers)
        body = guard(grid) + "\n".join(lines)
        work = Work(0, ty * tx * node.type.size if factors else 0)
        return ComputeCode(name, comment, head, body, grid=grid, group=group_for(grid), work=work)


KERNELS = (ResizeKernel(),)
