"""InstanceNormalization and LayerNormalization: a group of threads for each set of statistics."""

from __future__ import annotations

import math

import numpy as np

from mdlc.codegen.code import LayerCode
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.image import LANES
from mdlc.codegen.metal.index import Index
from mdlc.codegen.metal.kernel import (
    ComputeCode,
    ComputeKernel,
    Work,
    declaration,
    image_of,
    stored,
)
from mdlc.codegen.metal.kernels.reduce import GROUP, group_arguments, tree
from mdlc.codegen.metal.parts import constant, vector_type, vectors
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.instance_normalization import InstanceNormalization
from mdlc.compiler.ops.layer_normalization import LayerNormalization
from mdlc.compiler.types import Array, DType


class NormalizationKernel(ComputeKernel):
    """The mean first, then the variance around it, in float."""

    name = "normalize"
    layer = "Normalization"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        op = node.op
        if not isinstance(op, InstanceNormalization | LayerNormalization) or not stored(node):
            return False
        if node.type.dtype not in (DType.F32, DType.F16):
            return False
        if any(source.constant is None for source in node.inputs[1:]):
            return False
        if isinstance(op, LayerNormalization):
            return 1 <= node.type.rank - op.axis <= 3
        # Channels last: the statistics are of each lane by itself.
        return node.type.physical_axis(1) == node.type.rank - 1

    def pack(self, node: Node, schedule: Schedule, metal: Metal) -> dict[str, Array]:
        if isinstance(node.op, InstanceNormalization):
            return {"scale": vectors(constant(node, 1)), "bias": vectors(constant(node, 2))}
        packed = {}
        for name, index in (("scale", 1), ("bias", 2)):
            value = constant(node, index)
            rows = value.reshape(-1, value.shape[-1])
            over = -rows.shape[1] % LANES
            packed[name] = np.pad(rows, ((0, 0), (0, over))).reshape(-1).astype(np.float32)
        return packed

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node, op = step.node, step.node.op
        x, y = image_of(step.inputs[0]), image_of(step.output)
        by_channel = isinstance(op, InstanceNormalization)
        lengths = (x.height, x.width)
        if isinstance(op, LayerNormalization):
            inside = node.type.rank - op.axis
            slices = x.slices
            total = math.prod(node.shape[op.axis :])
            height = x.height if inside >= 3 else 1
            width = x.width if inside >= 2 else 1
            groups = (x.width // width, x.height // height, x.images)
            image = Index("group.z", x.images)
            scale_at = None
        else:
            slices = 1
            height, width = lengths
            total = height * width
            groups = (1, 1, x.layers)
            image = Index("group.z", x.layers) // x.slices
            scale_at = Index("group.z", x.layers) % x.slices
        count = height * width * slices
        i = Index("i", count)
        slice_ = i % slices if not by_channel else Index("group.z", x.layers) % x.slices
        column = (i // slices) % width if width > 1 else Index("group.x", groups[0])
        row = i // (slices * width) if height > 1 else Index("group.y", groups[1])
        at = f"uint2({column}, {row})"
        read = [f"float4 value = float4(x.read({at}, {x.layer(image, slice_)}));"]
        deviate = ["value -= mean;"]
        if not by_channel and x.channels % LANES:
            lanes = "xyzw"[x.channels % LANES :]
            zero = f"float{len(lanes)}(0.0f)" if len(lanes) > 1 else "0.0f"
            clear = f"value.{lanes} = {zero};"
            if slices > 1:
                clear = f"if ({slice_} == {slices - 1}) {{\n{clear}\n}}"
            read.append(clear)
            deviate.append(clear)
        loop = f"for (uint i = lane; i < {count}; i += {GROUP}) {{"
        inverse = f"{1.0 / total!r}f"
        joined = "shared[0]" if by_channel else "float4(dot(shared[0], float4(1.0f)))"
        types = {name: vector_type(array) for name, array in step.weights.items()}
        place = scale_at if scale_at is not None else i
        scale, bias = (f"float4({name}[{place}])" for name in ("scale", "bias"))
        lines = [
            "float4 sum = float4(0.0f);", loop, *read, "sum += value;", "}",
            *tree("{a} + {b}", "shared", "sum"),
            f"const float4 mean = {joined} * {inverse};",
            "threadgroup_barrier(mem_flags::mem_threadgroup);",
            "float4 squares = float4(0.0f);", loop, *read, *deviate, "squares += value * value;",
            "}",
            *tree("{a} + {b}", "shared", "squares"),
            f"const float4 factor = rsqrt({joined} * {inverse} + {float(op.epsilon)!r}f);",  # type: ignore[attr-defined]
            loop, *read,
            f"y.write({y.element}4((value - mean) * factor * {scale} + {bias}), {at}, "
            f"{y.layer(image, slice_)});",
            "}",
        ]  # fmt: skip
        kind = "instance" if by_channel else "layer"
        name = f"{kind}_norm_{x.label}" + ("" if by_channel else f"_{total}")
        head = declaration(
            [(x.element, "read", "x"), (y.element, "write", "y")],
            [(f"device const {types[key]}", key) for key in step.weights],
            extra=group_arguments(lines),
            position=False,
        )
        comment = f"{op.words}"
        body = "\n".join(lines)
        return ComputeCode(
            name,
            comment,
            head,
            body,
            grid=(groups[0] * GROUP, groups[1], groups[2]),
            group=(GROUP, 1, 1),
            shared_bytes=GROUP * 16,
            work=Work(0, 4 * node.type.size),
        )


KERNELS = (NormalizationKernel(),)
