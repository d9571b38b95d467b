"""InstanceNormalization, LayerNormalization and LRN."""

from __future__ import annotations

import math

from mdlc.codegen.code import Function, times
from mdlc.codegen.gemm.strides import logical_strides, nest
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.tiles.formula import literal
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.instance_normalization import InstanceNormalization
from mdlc.compiler.ops.layer_normalization import LayerNormalization
from mdlc.compiler.ops.lrn import Lrn
from mdlc.compiler.types import Array, DType

_NORMALIZE = """\
double sum = 0.0;
double squares = 0.0;
{loop}
const double value = {x};
sum += value;
squares += value * value;
{end}
const double mean = sum / {count};
const double variance = squares / {count} - mean * mean;
const double above = variance > 0.0 ? variance : 0.0;
const float factor = static_cast<float>(1.0 / std::sqrt(above + {epsilon!r}));
const float center = static_cast<float>(mean);
{loop}
{y} = ({x} - center) * factor * {scale} + {bias};
{end}"""


class NormalizationKernel(Kernel):
    """Statistics in double precision, element by element."""

    name = "normalize"
    layer = "Normalization"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        if not isinstance(node.op, InstanceNormalization | LayerNormalization):
            return False
        constants = all(source.constant is not None for source in node.inputs[1:])
        return constants and node.type.dtype is DType.F32

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.size * 6.0

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        scale, bias = node.inputs[1].constant, node.inputs[2].constant
        assert scale is not None
        assert bias is not None
        return {"scale": scale, "bias": bias}

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        shape = node.shape
        strides = logical_strides(step.output)
        if isinstance(op, InstanceNormalization):
            loops = [shape[0], shape[1]]
            spatial = [d for d in zip(shape[2:], strides[2:], strict=True) if d[0] > 1]
            first = " + ".join(
                [times(strides[0], "i0")] * (shape[0] > 1)
                + [times(strides[1], "i1")] * (shape[1] > 1)
            )
            count = math.prod(shape[2:])
            scale, bias = ("scale[i1]", "bias[i1]") if shape[1] > 1 else ("scale[0]", "bias[0]")
            opened = [
                f"for (int j{k} = 0; j{k} < {n}; ++j{k}) {{" for k, (n, _) in enumerate(spatial)
            ]
            index = " + ".join(times(s, f"j{k}") for k, (_, s) in enumerate(spatial)) or "0"
        else:
            assert isinstance(op, LayerNormalization)
            count = op.row(shape)
            loops = [math.prod(shape[: op.axis])]
            first = f"i0 * {count}" if loops[0] > 1 else ""
            scale, bias = "scale[j0]", "bias[j0]"
            opened = [f"for (int j0 = 0; j0 < {count}; ++j0) {{"]
            index = "j0"
        body = _NORMALIZE.format(
            loop="\n".join(opened),
            end="}" * len(opened),
            x=f"x[{index}]",
            y=f"y[{index}]",
            count=f"{count}.0",
            epsilon=op.epsilon,
            scale=scale,
            bias=bias,
        )
        offset = f" + {first}" if first else ""
        head = f"const float* x = all_x{offset};\nfloat* y = all_y{offset};"
        kind = "instance" if isinstance(op, InstanceNormalization) else "layer"
        name = f"{kind}_norm_{'x'.join(map(str, node.type.physical_shape))}"
        return step.function(
            name,
            nest(loops, head, body),
            comment=[op.words],
            inputs=("all_x",),
            output="all_y",
            includes=("cmath",),
        )


class LrnKernel(Kernel):
    """Local response normalisation: a running window over a pixel's channels."""

    name = "lrn"
    layer = "LRN"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, Lrn) and node.type.dtype is DType.F32

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.size * 30.0

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, Lrn)
        images, channels, height, width = node.shape
        name = f"lrn{op.size}_{height}x{width}x{channels}"
        after = op.size - op.before
        scale = literal(op.alpha / op.size)
        power = f"std::pow({literal(op.bias)} + {scale} * sum, {literal(-op.beta)})"
        text = f"""for (int pixel = 0; pixel < {images * height * width}; ++pixel) {{
for (int c = 0; c < {channels}; ++c) {{
const int first = c < {op.before} ? 0 : c - {op.before};
const int last = c + {after} > {channels} ? {channels} : c + {after};
float sum = 0.0F;
for (int i = first; i < last; ++i) {{
sum += x[i] * x[i];
}}
y[c] = x[c] * {power};
}}
x += {channels};
y += {channels};
}}"""
        return step.function(name, text, comment=[op.words], includes=("cmath",))


KERNELS = (LrnKernel(), NormalizationKernel())
