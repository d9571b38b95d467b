"""Large pointwise convolutions as products of 8 x 8 matrices, on GPUs that have simdgroup_matrix.

A group of four simdgroups computes 32 pixels of 32 or 64 channels. Texels of a block of the depth
are brought into threadgroup memory, pixel by pixel; filters are read from the weights as they lie
(output channel, input channel), transposed while they are loaded. Sums are in float.

This is a second form of a step that ConvolutionKernel computes: both read the same weights, and
the class asks the device for its family and takes one or the other. Source of the functions: Metal
Shading Language Specification, "SIMD-group Matrix Functions"; of the family (Apple7, the A14 and
the M1): Metal feature set tables.
"""

from __future__ import annotations

import math

import numpy as np

from mdlc.codegen.kernel import Step
from mdlc.codegen.metal.image import LANES
from mdlc.codegen.metal.index import Index
from mdlc.codegen.metal.kernel import ComputeCode, Work, declaration, image_of
from mdlc.codegen.metal.parts import epilogue, suffix, vector_type
from mdlc.codegen.metal.window import Shape

SIDE = 8  # of a matrix
PIXELS = 32  # of a group
SIMDGROUPS, THREADS = 4, 128
DEPTHS = (32, 16, 8)
CHANNELS = (64, 32)
# Below this, groups are too few, or too much of them is copying.
FEWEST_PIXELS, FEWEST_INPUTS = 64, 32


def matrix_form(step: Step) -> ComputeCode | None:
    """The step as matrix products, or None where its shape does not suit them."""
    shape = Shape.of(step.node)
    pointwise = shape.kernel == (1, 1) == shape.stride and shape.groups == 1 and not shape.padded
    if any(view.wide for view in (*step.inputs, step.output)):
        return None
    if not pointwise or step.weights["weights"].dtype != np.float16:
        return None
    channels = next((n for n in CHANNELS if shape.outputs % n == 0), 0)
    block = next((n for n in DEPTHS if shape.inputs % n == 0), 0)
    if not channels or not block or shape.inputs < FEWEST_INPUTS:
        return None
    return _code(step, shape, channels, block) if math.prod(shape.out) >= FEWEST_PIXELS else None


def _code(step: Step, shape: Shape, channels: int, block: int) -> ComputeCode:
    node = step.node
    x, y = image_of(step.inputs[0]), image_of(step.output)
    pixels = y.width * y.height
    tiles = -(-pixels // PIXELS)
    rows, columns = PIXELS // SIDE, channels // SIMDGROUPS // SIDE
    residual = bool(getattr(node.op, "residual", False))
    image = Index("group.z", y.images)
    mine = channels // SIMDGROUPS  # channels of a simdgroup
    depth = shape.inputs
    lines = [
        f"const uint first = group.x * {PIXELS}u;",
        f"const uint channel = group.y * {channels}u;",
        "threadgroup half4* texels = (threadgroup half4*)shared;",
        "threadgroup const half* tile = (threadgroup const half*)shared;",
        f"device const half* w = (device const half*)weights + (channel + part * {mine}u) * "
        f"{depth}u;",
    ]
    lines += [
        f"simdgroup_float8x8 sum{r}{c} = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);"
        for r in range(rows)
        for c in range(columns)
    ]
    slices = block // LANES
    slice_ = Index("k", shape.inputs) // LANES + Index("i", PIXELS * slices) % slices
    lines += [
        f"for (uint k = 0; k < {depth}; k += {block}) {{",
        f"for (uint i = lane; i < {PIXELS * slices}; i += {THREADS}) {{",
        f"const uint pixel = first + i / {slices};",
        "half4 texel = half4(0.0h);",
        f"if (pixel < {pixels}) {{",
        f"texel = x.read({_spot('pixel', y.width)}, {x.layer(image, slice_)});",
        "}",
        "texels[i] = texel;",
        "}",
        "threadgroup_barrier(mem_flags::mem_threadgroup);",
        f"for (uint j = 0; j < {block}; j += {SIDE}) {{" if block > SIDE else "{",
        "simdgroup_half8x8 filters;",
    ]
    j = " + j" if block > SIDE else ""
    for r in range(rows):
        start = f"tile + {r * SIDE * block}{j}" if r else f"tile{j}"
        lines += [f"simdgroup_half8x8 tile{r};", f"simdgroup_load(tile{r}, {start}, {block});"]
    for c in range(columns):
        start = f"w + {c * SIDE * depth} + k{j}" if c else f"w + k{j}"
        lines.append(f"simdgroup_load(filters, {start}, {depth}, ulong2(0, 0), true);")
        lines += [
            f"simdgroup_multiply_accumulate(sum{r}{c}, tile{r}, filters, sum{r}{c});"
            for r in range(rows)
        ]
    lines += ["}", "threadgroup_barrier(mem_flags::mem_threadgroup);", "}"]
    lines.append("threadgroup float* sums = (threadgroup float*)shared;")
    lines += [
        f"simdgroup_store(sum{r}{c}, sums + {r * SIDE * channels + c * SIDE} + part * {mine}u, "
        f"{channels});"
        for r in range(rows)
        for c in range(columns)
    ]
    per_pixel = channels // LANES
    slice_ = Index("slice", y.slices)
    kinds = {name: vector_type(array) for name, array in step.weights.items()}
    lines += [
        "threadgroup_barrier(mem_flags::mem_threadgroup);",
        f"for (uint i = lane; i < {PIXELS * per_pixel}; i += {THREADS}) {{",
        f"const uint pixel = first + i / {per_pixel};",
        f"if (pixel < {pixels}) {{",
        f"const uint slice = channel / {LANES} + i % {per_pixel};",
        f"const uint2 at = {_spot('pixel', y.width)};",
        "float4 sum = shared[i] + float4(bias[slice]);",
    ]
    if "slope" in kinds:
        lines.append("const float4 slope = float4(slopes[slice]);")
    read = ""
    if residual:
        read = f"residual.read(at, {image_of(step.inputs[-1]).layer(image, slice_)})"
    after, value = epilogue(node, step, "", read, "float4")
    lines += [*after, f"y.write(half4({value}), at, {y.layer(image, slice_)});", "}", "}"]
    textures = [("half", "read", "x")]
    textures += [("half", "read", "residual")] if residual else []
    textures.append(("half", "write", "y"))
    buffers = [
        (f"device const {kinds['weights']}", "weights"),
        (f"device const {kinds['bias']}", "bias"),
    ]
    if "slope" in kinds:
        buffers.append((f"device const {kinds['slope']}", "slopes"))
    extra = [
        "threadgroup float4* shared [[threadgroup(0)]]",
        "uint lane [[thread_index_in_threadgroup]]",
        "uint part [[simdgroup_index_in_threadgroup]]",
        "uint3 group [[threadgroup_position_in_grid]]",
    ]
    name = f"matrix_{y.height}x{y.width}x{shape.inputs}_to_{shape.outputs}{suffix(node)}"
    groups = (tiles, y.channels // channels, y.images)
    head = declaration(textures, buffers, extra=extra, position=False)
    comment = (
        f"y[o] = weights[o][i] * x[i] + bias[o] and what is fused: {PIXELS} x {channels} pixels "
        f"by channels a group,\nas products of 8 x 8 matrices."
    )
    body = "\n".join(lines)
    fmas = tiles * PIXELS * y.images * shape.outputs * depth
    return ComputeCode(
        name,
        comment,
        head,
        body,
        grid=(groups[0] * THREADS, groups[1], groups[2]),
        group=(THREADS, 1, 1),
        shared_bytes=max(PIXELS * channels * 4, PIXELS * block * 2),
        # A matrix is two 32-bit registers in each lane.
        work=Work(0, fmas, 4 * rows * columns + 2 * (rows + 1) + 24),
    )


def _spot(pixel: str, width: int) -> str:
    return f"uint2({pixel} % {width}, {pixel} / {width})"
