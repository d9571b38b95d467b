"""Element-wise layers of 8-bit integers: to and from floats, sums, and functions by table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlc.codegen.code import C_TYPES, Call, Function, Microkernel, Value
from mdlc.codegen.gemm.loops_int8 import READS_PAST
from mdlc.codegen.gemm.strides import Dim, joined, logical_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa, int8_of
from mdlc.codegen.isa.int8 import SCALAR as SCALAR_INT8
from mdlc.codegen.isa.int8 import scalar_bound
from mdlc.codegen.isa.int8_result import OutputStage
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.tiles.operands import constants_of, runtime_of
from mdlc.codegen.tiles.plain import input_view
from mdlc.compiler.fixed_point import limits, sum_multipliers
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.dequantize_linear import DequantizeLinear
from mdlc.compiler.ops.lookup import Lookup
from mdlc.compiler.ops.quantize_linear import QuantizeLinear
from mdlc.compiler.ops.quantized_add import QuantizedAdd
from mdlc.compiler.ops.requantize import Requantize
from mdlc.compiler.types import Array, DType

BYTES = (DType.I8, DType.U8)


def _loops(step: Step, extra: Sequence[Sequence[int]] = ()) -> list[Dim]:
    """Loops over all elements: strides of the inputs, of `extra` operands, and of the output."""
    strides = [logical_strides(view) for view in step.inputs]
    shape = step.node.shape
    operands = [*strides, *extra, logical_strides(step.output)]
    return joined(shape, operands, len(operands) - 1) or [Dim(1, (1,) * len(operands))]


def _shape_name(node: Node) -> str:
    return "x".join(map(str, node.type.physical_shape)) or "scalar"


class _Rows(Kernel):
    """What element-wise kernels share: rows of contiguous elements inside loops."""

    layer = "QuantizedEltwise"
    pitched_input = True
    pitched_output = True
    reads_past = READS_PAST

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        lanes = isa.lanes if isa.int8 else 1
        return node.type.size / lanes * (3 + len(node.inputs))

    @staticmethod
    def _emit(step: Step, name: str, dims: Sequence[Dim], call: Call,
              inputs: Sequence[str] = ("x",)) -> Function:  # fmt: skip
        loops = nest([dim.count for dim in dims], call, shared=True)
        return step.function(name, loops, comment=[step.node.op.words], inputs=inputs)


class Quantize(_Rows):
    """Floats to bytes (16 bits one by one), by constant scales."""

    name = "quantize"
    layer = "Quantization"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return (
            isinstance(node.op, QuantizeLinear | DequantizeLinear)
            and node.inputs[0].constant is None
            and all(source.constant is not None for source in node.inputs[1:])
            and node.op.block == 0
            and not any(each.type.dtype.is_stored for each in (node, node.inputs[0]))
        )

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        scale, zero = node.inputs[1].constant, node.inputs[2].constant
        assert scale is not None
        assert zero is not None
        packed: dict[str, Array] = {"scale": scale.reshape(-1).astype(np.float32)}
        if not np.all(zero == zero.flat[0]):
            packed["zeros"] = zero.reshape(-1).astype(np.int32)
        return packed

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, QuantizeLinear | DequantizeLinear)
        quantizes = isinstance(op, QuantizeLinear)
        zero = node.inputs[2].constant
        assert zero is not None
        apart = not np.all(zero == zero.flat[0])
        per_axis = node.inputs[1].type.size > 1
        along = [0] * node.type.rank
        if per_axis:
            along[op.axis] = 1
        dims = _loops(step, [along])
        inner = dims[-1]
        bytes_ = node.type.dtype if quantizes else node.inputs[0].type.dtype
        vector = (
            isa.int8 is not None
            and bytes_ in BYTES
            and not apart
            and inner.strides[0] == inner.strides[2] == 1
            and inner.strides[1] in (0, 1)
        )
        source, target = node.inputs[0].type.dtype, node.type.dtype
        row = (_quantize_row if quantizes else _dequantize_row)(
            isa if vector else isa.portable, source, target, vector and inner.strides[1] == 1
        )
        outer = dims[:-1] if vector else dims
        scale = pointer("scale", outer, 1)
        arguments: list[Value] = [
            pointer("x", outer, 0),
            scale if inner.strides[1] and vector else f"*({scale})",
        ]
        if apart:
            zeros = f"*({pointer('zeros', outer, 1)})"
            arguments.append(zeros)
        else:
            arguments.append(str(int(zero.flat[0])))
        arguments.append(pointer("y", outer, 2))
        count = inner.count if vector else 1
        verb = "quantize" if quantizes else "dequantize"
        name = f"{verb}_{_shape_name(node)}_{source.value}_{target.value}"
        return self._emit(step, name, outer, Call(row, tuple(arguments), (count,)))


def _row_loop(lanes: int, vectors: int, body: str, scalar: str) -> str:
    """Loops over kCount elements: `body` on vectors at i, `scalar` on those left."""
    step = lanes * vectors
    if step == 1:
        return f"for (int i = 0; i < kCount; ++i) {{\n{scalar}\n}}"
    # gcc for 32 bits warns of what the loop behind would do if the first one went on for ever.
    return (
        f"constexpr int kTail = kCount / {step} * {step};\n"
        f"for (int i = 0; i < kTail; i += {step}) {{\n{body}\n}}\n"
        f"for (int i = kTail; i < kCount; ++i) {{\n{scalar}\n}}"
    )


def _quantize_row(isa: KernelIsa, source: DType, target: DType, per_element: bool) -> Microkernel:
    int8 = isa.int8 or SCALAR_INT8
    low, high = limits(target)
    kind, c_type = target.value, C_TYPES[target]
    name = f"quantize_row{'_v' if per_element else ''}_{kind}_{isa.suffix}"
    stage = OutputStage(DType.F32, target, low=low, high=high)
    at = "[i]" if per_element else ""
    scalar = f"y[i] = quantize_{kind}(x[i], scale{at}, zero);"
    body, needs = "", [_quantize_one(target)]
    if isa.int8:
        lines, vectors = [], int8.rows_at_once
        for v in range(vectors):
            where = f"i + {v * isa.lanes}" if v else "i"
            step = isa.load(f"scale + {where}") if per_element else isa.set1("scale")
            value = isa.op("div", isa.load(f"x + {where}"), step)
            value = int8.spell["at_least"].format(value, isa.set1("lower"))
            value = isa.op("min", value, isa.set1("upper"))
            lines.append(f"const auto v{v} = {int8.spell['to_int'].format(value)};")
        stored, helpers = int8.store_bytes(
            [f"v{v}" for v in range(vectors)], "y + i", stage, 0, zero="zero"
        )
        body, needs = "\n".join([*lines, *stored]), needs + helpers
    declared = "const float* scale" if per_element else "float scale"
    bounds = (
        f"const float lower = static_cast<float>({low} - zero);\n"
        f"const float upper = static_cast<float>({high} - zero);\n"
        if isa.int8
        else ""
    )
    vectors = int8.rows_at_once if isa.int8 else 1
    loop = _row_loop(isa.lanes if isa.int8 else 1, vectors, body, scalar)
    text = (
        f"// y[i] = saturate(round_half_even(x[i] / scale{at}) + zero).\n"
        f"template <int kCount>\n"
        f"inline void {name}(const float* x, {declared}, int zero, {c_type}* y) {{\n"
        f"{bounds}{loop}\n}}\n"
    )
    return Microkernel(name, text, tuple(dict.fromkeys(needs)))


def _quantize_one(target: DType) -> Microkernel:
    low, high = limits(target)
    name, c_type = f"quantize_{target.value}", C_TYPES[target]
    text = f"""\
// saturate(round_half_even(x / scale) + zero); a NaN becomes the lower bound.
inline {c_type} {name}(float x, float scale, int zero) {{
  const float lower = static_cast<float>({low} - zero);
  const float upper = static_cast<float>({high} - zero);
  const float steps = x / scale;
  const float inside = steps > lower ? (steps < upper ? steps : upper) : lower;
  return static_cast<{c_type}>(static_cast<int>(std::nearbyint(inside)) + zero);
}}
"""
    return Microkernel(name, text, includes=("cmath",))


def _dequantize_row(isa: KernelIsa, source: DType, target: DType, per_element: bool) -> Microkernel:
    int8 = isa.int8 or SCALAR_INT8
    name = f"dequantize_row{'_v' if per_element else ''}_{source.value}_{isa.suffix}"
    at = "[i]" if per_element else ""
    scalar = f"y[i] = static_cast<float>(x[i] - zero) * scale{at};"
    body = ""
    if isa.int8:
        step = isa.load("scale + i") if per_element else isa.set1("scale")
        spell = int8.spell
        value = spell[f"load_{source.value}"].format("x + i")
        value = spell["sub"].format(value, int8.set1.format("zero"))
        value = isa.op("mul", spell["to_float"].format(value), step)
        body = f"{isa.store('y + i', value)};"
    declared = "const float* scale" if per_element else "float scale"
    loop = _row_loop(isa.lanes if isa.int8 else 1, 1, body, scalar)
    text = (
        f"// y[i] = (x[i] - zero) * scale{at}.\ntemplate <int kCount>\n"
        f"inline void {name}(const {C_TYPES[source]}* x, {declared}, int zero, float* y) {{\n"
        f"{loop}\n}}\n"
    )
    return Microkernel(name, text, int8.helpers if isa.int8 else ())


_OPERANDS = ("x0", "x1")


class ByteAdd(_Rows):
    """The sum of two tensors of bytes."""

    name = "quantized_add"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, QuantizedAdd)

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        """A constant operand, with room behind it as arena memory has."""
        return {
            name: np.concatenate([value.reshape(-1), np.zeros(READS_PAST, value.dtype)])
            for name, value in constants_of(node, _OPERANDS).items()
        }

    def in_place(self, node: Node) -> Sequence[int]:
        return [
            i
            for i, source in enumerate(node.inputs)
            if source.type == node.type and source.constant is None
        ]

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, QuantizedAdd)
        views = [input_view(step, index) for index in range(len(node.inputs))]
        strides = [logical_strides(view) for view in (*views, step.output)]
        dims = joined(node.shape, strides, 2) or [Dim(1, (1, 1, 1))]
        inner = dims[-1]
        kinds = node.inputs[0].type.dtype, node.inputs[1].type.dtype
        vector = isa.int8 is not None and inner.strides == (1, 1, 1) and kinds[0] is kinds[1]
        outer = dims[:-1] if vector else dims
        stage = OutputStage(kinds[0], op.dtype, op.y_zero, op.low, op.high)
        row = _add_row(isa if vector else isa.portable, kinds, stage)
        ma, mb, shift = sum_multipliers(op.a_scale, op.b_scale)
        start = (1 << (shift - 1)) - op.a_zero * ma - op.b_zero * mb
        numbers = [inner.count if vector else 1, ma, mb, start, shift, *stage.parameters.values()]
        pointers = [pointer(name, outer, i) for i, name in enumerate(("x0", "x1", "y"))]
        call = Call(row, tuple(pointers), tuple(numbers))
        name = f"qadd_{_shape_name(node)}"
        return self._emit(step, name, outer, call, runtime_of(node, _OPERANDS))


def _add_row(isa: KernelIsa, kinds: tuple[DType, DType], stage: OutputStage) -> Microkernel:
    int8 = isa.int8 or SCALAR_INT8
    mixed = f"{kinds[1].value}" if kinds[0] is not kinds[1] else ""
    name = f"add_row{stage.suffix}{mixed}_{isa.suffix}"
    low, high = stage.bounded
    bits = limits(stage.target)
    bounds = ("kLow" if low else str(bits[0])), ("kHigh" if high else str(bits[1]))
    bound = scalar_bound(stage.target.value)
    scalar = (
        "const std::int32_t total = (a[i] * kMa + b[i] * kMb + kStart) >> kShift;\n"
        f"y[i] = {bound.name}(total, kZero, {bounds[0]}, {bounds[1]});"
    )
    body, needs, count = "", [bound], 1
    if isa.int8:
        lines, values = int8.add_bytes(kinds[0])
        stored, helpers = int8.store_bytes(values, "y + i", stage, 0)
        body, needs, count = "\n".join([*lines, *stored]), needs + helpers, len(values)
    loop = _row_loop(isa.lanes if isa.int8 else 1, count, body, scalar)
    parameters = ["kCount", "kMa", "kMb", "kStart", "kShift", *stage.parameters]
    formula = stage.formula("").replace("rescale()", "((a[i] kMa + b[i] kMb + kStart) >> kShift)")
    text = (
        f"// y[i] = {formula}.\n"
        f"template <{', '.join(f'int {p}' for p in parameters)}>\n"
        f"inline void {name}(const {C_TYPES[kinds[0]]}* a, const {C_TYPES[kinds[1]]}* b, "
        f"{C_TYPES[stage.target]}* y) {{\n{loop}\n}}\n"
    )
    return Microkernel(name, text, tuple(dict.fromkeys(needs)))


class ByteTable(_Rows):
    """A function of one byte: its table is packed with the weights."""

    name = "lookup"
    layer = "Table"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        if isinstance(node.op, Lookup):
            return node.inputs[0].constant is None and node.inputs[1].constant is not None
        return isinstance(node.op, Requantize)

    def in_place(self, node: Node) -> Sequence[int]:
        return [0] if node.inputs[0].type == node.type else []

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        """The table by the byte's bits, read as an unsigned number."""
        low, high = limits(node.inputs[0].type.dtype)
        every = np.arange(low, high + 1).astype(node.inputs[0].type.dtype.numpy)
        extra = [source.constant for source in node.inputs[1:] if source.constant is not None]
        values = node.op.reference(every, *extra)
        return {"table": np.roll(values, low)}

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node = step.node
        dims = _loops(step)
        inner = dims[-1]
        found = int8_of(isa)
        vector = found.table_row is not None and inner.strides == (1, 1)
        outer = dims[:-1] if vector else dims
        row = found.table_row if vector and found.table_row else _TABLE_ROW
        arguments = ("table", pointer("x", outer, 0), pointer("y", outer, 1))
        call = Call(row, arguments, (inner.count if vector else 1,))
        name = f"table_{_shape_name(node)}_{node.inputs[0].type.dtype.value}{node.type.dtype.value}"
        return self._emit(step, name, outer, call)


_TABLE_ROW = Microkernel(
    "table_row",
    """\
// y[i] = table[x[i]], x[i] read as an unsigned byte.
template <int kCount, typename X, typename Y>
inline void table_row(const Y* table, const X* x, Y* y) {
  for (int i = 0; i < kCount; ++i) y[i] = table[static_cast<unsigned char>(x[i])];
}
""",
)

KERNELS = (Quantize(), ByteAdd(), ByteTable())
