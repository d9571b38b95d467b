"""MatMul of two tensors, either of which may be a constant."""

from __future__ import annotations

import numpy as np

from mdlc.codegen.code import LayerCode
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.metal.access import thread_position
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.image import LANES, Image
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
from mdlc.codegen.metal.parts import stored_filters, vector_type
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.types import Array, DType, Layout, TensorType


class MatMulKernel(ComputeKernel):
    """A thread computes four columns of a row: four elements of the left side at a time."""

    name = "matmul"
    layer = "MatMul"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        plain = all(source.type.layout is Layout.PLAIN for source in (node, *node.inputs))
        floats = node.type.dtype in (DType.F32, DType.F16)
        return isinstance(node.op, MatMul) and stored(node) and plain and floats

    def cost(self, node: Node, schedule: Schedule, metal: Metal) -> float:
        return node.op.cost([s.type for s in node.inputs], node.type).macs / 128

    def pack(self, node: Node, schedule: Schedule, metal: Metal) -> dict[str, Array]:
        packed = {}
        for name, source in zip("ab", node.inputs, strict=True):
            if source.constant is not None:
                value = source.constant
                over = [(0, 0)] * (value.ndim - 1) + [(0, -value.shape[-1] % LANES)]
                packed[f"{name}_values"] = stored_filters(np.pad(value, over).reshape(-1), metal)
        return packed

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node = step.node
        own = image_of(step.output)
        left, right = node.inputs
        depth = left.shape[-1]
        logical = own.logical(thread_position(own))
        views = iter(step.inputs)
        textures: list[tuple[str, str, str]] = []
        buffers: list[tuple[str, str]] = []
        spelled = []
        for name, source in zip("ab", (left, right), strict=True):
            constant = source.constant is not None
            image = Image.of(source.type) if constant else image_of(next(views))
            if constant:
                kind = vector_type(step.weights[f"{name}_values"])
                buffers.append((f"device const {kind}", f"{name}_values"))
            else:
                textures.append((image.element, "read", name))
            spelled.append((name, image, constant, self._batch(logical, source.type)))
        textures.append((own.element, "write", "y"))

        def texel(side: int, row: Index, slice_: Index) -> str:
            name, image, constant, batch = spelled[side]
            at = image.position([*batch, row, Index.of(0)])
            if constant:
                place = flat([*at[:3], slice_], (*image.extent[:3], image.slices))
                return f"float4({name}_values[{place}])"
            return f"float4({name}.read(uint2({at[2]}, {at[1]}), {image.layer(at[0], slice_)}))"

        row = logical[-2]
        columns = Index("position.z", own.layers) % own.slices
        whole, rest = divmod(depth, LANES)
        lines = ["float4 sum = float4(0.0f);"]

        def four(k: Index, lanes: int, name: str) -> list[str]:
            found = [f"const float4 {name} = {texel(0, row, k)};"]
            for lane in range(lanes):
                value = texel(1, k * LANES + lane, columns)
                found.append(f"sum = fma({value}, float4({name}.{'xyzw'[lane]}), sum);")
            return found

        if whole:
            k = Index("k", whole) if whole > 1 else Index.of(0)
            products = four(k, LANES, "part")
            loop = whole > 1
            lines += [f"for (uint k = 0; k < {whole}; ++k) {{"] if loop else ["{"]
            lines += [*products, "}"]
        if rest:
            lines += four(Index.of(whole), rest, "last")
        lines.append(f"y.write({own.element}4(sum), position.xy, {layer(own)});")
        grid = (own.width, own.height, own.layers)
        name = f"matmul_{own.label}_by_{depth}"
        head = declaration(textures, buffers)
        comment = f"y[m][n] = sum of a[m][k] * b[k][n] over {depth} k."
        body = guard(grid) + "\n".join(lines)
        macs = node.op.cost([s.type for s in node.inputs], node.type).macs
        return ComputeCode(
            name,
            comment,
            head,
            body,
            grid=grid,
            group=group_for(grid),
            work=Work(0, macs, registers=48),
        )

    @staticmethod
    def _batch(logical: list[Index], source: TensorType) -> list[Index]:
        """Indices of the axes in front of the matrices, broadcast."""
        lead = source.rank - 2
        own = logical[len(logical) - 2 - lead : len(logical) - 2]
        return [
            Index.of(0) if n == 1 else index for index, n in zip(own, source.shape, strict=False)
        ]


KERNELS = (MatMulKernel(),)
