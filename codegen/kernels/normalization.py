"""InstanceNormalization, LayerNormalization and LRN."""

from __future__ import annotations

import math

from mdlc.codegen.code import C_TYPES, Call, Function, offset, times
from mdlc.codegen.gemm.strides import logical_strides, nest
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.tiles.formula import literal
from mdlc.codegen.tiles.layer_norm import layer_norm_row
from mdlc.codegen.tiles.operands import constants_of, runtime_of
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.instance_normalization import InstanceNormalization
from mdlc.compiler.ops.layer_normalization import LayerNormalization
from mdlc.compiler.ops.lrn import Lrn
from mdlc.compiler.types import Array, DType, Layout

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
const {kind} factor = {narrow}(1.0 / std::sqrt(above + {epsilon!r}));
const {kind} center = {narrow}(mean);
{loop}
{y} = ({x} - center) * factor * {scale} + {bias};
{end}"""


_NAMES = ("all_x", "scale", "bias")


class NormalizationKernel(Kernel):
    """Statistics in double precision, element by element."""

    name = "normalize"
    layer = "Normalization"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        if not isinstance(node.op, InstanceNormalization | LayerNormalization):
            return False
        return node.type.dtype in (DType.F32, DType.F64)

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.size * 6.0

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        return constants_of(node, _NAMES)

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        shape, c_type = node.shape, C_TYPES[node.type.dtype]
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
            kind=c_type,
            narrow=f"static_cast<{c_type}>" if c_type == "float" else "",
        )
        moved = f" + {first}" if first else ""
        head = f"const {c_type}* x = all_x{moved};\n{c_type}* y = all_y{moved};"
        kind = "instance" if isinstance(op, InstanceNormalization) else "layer"
        name = f"{kind}_norm_{'x'.join(map(str, node.type.physical_shape))}"
        name += "_f64" if node.type.dtype is DType.F64 else ""
        return step.function(
            name,
            nest(loops, head, body),
            comment=[op.words],
            inputs=runtime_of(node, _NAMES),
            output="all_y",
            includes=("cmath",),
        )


class LayerNormKernel(Kernel):
    """LayerNormalization on vectors, row by row."""

    name = "normalize_rows"
    layer = "Normalization"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return (
            isinstance(node.op, LayerNormalization)
            and isa.lanes > 1
            and node.op.row(node.shape) >= isa.lanes
            and all(each.type.dtype is isa.dtype for each in (node, *node.inputs))
            and all(each.type.layout is Layout.PLAIN for each in (node, *node.inputs))
        )

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.size * 10.0 / isa.lanes / isa.core.issue_width

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        return constants_of(node, _NAMES)

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, LayerNormalization)
        count = op.row(node.shape)
        rows = math.prod(node.shape[: op.axis])
        x, y = (offset(base, (rows, "i0", count)) for base in ("x", "y"))
        row = layer_norm_row(isa, tail=count % isa.lanes != 0)
        call = Call(row, (x, "scale", "bias", y, count, literal(op.epsilon)))
        name = f"layer_norm_{'x'.join(map(str, node.shape))}"
        name += "" if isa.dtype is DType.F32 else f"_{isa.kind}"
        return step.function(
            name,
            nest([rows], call, shared=True),
            comment=[op.words],
            inputs=("x", *runtime_of(node, _NAMES)[1:]),
        )


class LrnKernel(Kernel):
    """Local response normalisation: a running window over a pixel's channels."""

    name = "lrn"
    layer = "LRN"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, Lrn) and node.type.dtype in (DType.F32, DType.F64)

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.size * 30.0

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, Lrn)
        images, channels, height, width = node.shape
        name = f"lrn{op.size}_{height}x{width}x{channels}"
        after = op.size - op.before
        dtype = node.type.dtype
        scale, bias, power = (literal(v, dtype) for v in (op.alpha / op.size, op.bias, -op.beta))
        factor = f"std::pow({bias} + {scale} * sum, {power})"
        name += "_f64" if dtype is DType.F64 else ""
        text = f"""for (int pixel = 0; pixel < {images * height * width}; ++pixel) {{
for (int c = 0; c < {channels}; ++c) {{
const int first = c < {op.before} ? 0 : c - {op.before};
const int last = c + {after} > {channels} ? {channels} : c + {after};
{C_TYPES[dtype]} sum = {literal(0.0, dtype)};
for (int i = first; i < last; ++i) {{
sum += x[i] * x[i];
}}
y[c] = x[c] * {factor};
}}
x += {channels};
y += {channels};
}}"""
        return step.function(name, text, comment=[op.words], includes=("cmath",))


KERNELS = (LrnKernel(), LayerNormKernel(), NormalizationKernel())
