"""QuantizeLinear and DequantizeLinear, element by element: scales at run time, blocks, any type."""

from __future__ import annotations

from mdlc.codegen.code import C_TYPES, Function, Microkernel
from mdlc.codegen.gemm.strides import Dim, logical_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.tiles.operands import constants_of, runtime_of
from mdlc.codegen.tiles.plain import input_view
from mdlc.codegen.tiles.stored import argument, from_stored, to_stored
from mdlc.compiler.fixed_point import limits
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.dequantize_linear import DequantizeLinear
from mdlc.compiler.ops.quantize_linear import EIGHT_BIT_FLOATS, FLOATS, QuantizeLinear
from mdlc.compiler.types import Array, DType

_NAMES = ("x", "scale", "zero")
_QUANTIZE = Microkernel(
    "quantize_to_integer",
    """\
// saturate(round_half_even(x / scale) + zero) in [low, high]; a NaN becomes the lower bound.
inline int quantize_to_integer(float x, float scale, int zero, int low, int high) {
  const float lower = static_cast<float>(low - zero);
  const float upper = static_cast<float>(high - zero);
  const float steps = x / scale;
  const float inside = steps > lower ? (steps < upper ? steps : upper) : lower;
  return static_cast<int>(std::nearbyint(inside)) + zero;
}
""",
    includes=("cmath",),
)


class QuantizeAny(Kernel):
    """What the vector kernel of constant scales does not do."""

    name = "quantize_any"
    layer = "Quantization"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, QuantizeLinear | DequantizeLinear)

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.size * 20.0

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        return constants_of(node, _NAMES)

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, QuantizeLinear | DequantizeLinear)
        views = [input_view(step, index) for index in range(len(node.inputs))]
        x, scale, _ = (logical_strides(view) for view in views)
        # Axes in the order of the output's memory.
        order = node.type.layout.axes(node.type.rank)
        own = logical_strides(step.output)
        dims = [Dim(node.shape[axis], (x[axis], own[axis])) for axis in order]
        along = self._along(op, scale, order, node.shape)
        helpers: list[Microkernel] = []
        values = {}
        for name, source, at in zip(
            _NAMES, node.inputs, (str(pointer("x", dims, 0)), along, along), strict=True
        ):
            place = at if name == "x" else name + at
            values[name] = f"*({place})"
            if source.type.dtype.is_stored:
                helpers.append(from_stored(source.type.dtype))
                values[name] = f"{helpers[-1].name}({values[name]})"
        result = self._value(op, node, values, helpers)
        shape = "x".join(map(str, node.type.physical_shape)) or "scalar"
        verb = "quantize" if isinstance(op, QuantizeLinear) else "dequantize"
        kinds = f"{node.inputs[0].type.dtype.value}_{node.type.dtype.value}"
        blocks = f"_blocks_of_{op.block}" if op.block else ""
        return step.function(
            f"{verb}_any_{shape}_{kinds}{blocks}",
            nest(
                [dim.count for dim in dims],
                f"*({pointer('y', dims, 1)}) = {result};",
                shared=True,
            ),
            comment=[op.words],
            inputs=runtime_of(node, _NAMES),
            needs=tuple(dict.fromkeys(helpers)),
            includes=("cstdint",),
        )

    @staticmethod
    def _along(
        op: QuantizeLinear | DequantizeLinear,
        strides: tuple[int, ...],
        order: tuple[int, ...],
        shape: tuple[int, ...],
    ) -> str:
        """How far an element's scale lies behind the first."""
        if not strides:
            return ""
        found = []
        for level, axis in enumerate(order):
            if shape[axis] == 1 or (len(strides) == 1 and axis != op.axis):
                continue
            step = strides[0] if len(strides) == 1 else strides[axis]
            index = f"i{level}"
            if op.block and axis == op.axis:
                index = f"i{level} / {op.block}"
            found.append(f" + {index}{f' * {step}' if step != 1 else ''}")
        return "".join(found)

    @staticmethod
    def _value(
        op: QuantizeLinear | DequantizeLinear,
        node: Node,
        values: dict[str, str],
        helpers: list[Microkernel],
    ) -> str:
        """The result for one element, as C++."""
        x, scale, zero = (values[name] for name in _NAMES)
        kind = node.type.dtype
        if isinstance(op, DequantizeLinear):
            source = node.inputs[0].type.dtype
            if source in FLOATS:
                return f"({x} - {zero}) * {scale}"
            steps = f"{x} - {zero}"
            if source is DType.I32:
                wide = f"static_cast<std::int64_t>({x}) - {zero}"
                steps = f"static_cast<std::int32_t>({wide})"
            return f"static_cast<float>({steps}) * {scale}"
        if kind in FLOATS:
            helpers.append(to_stored(kind, op.saturate))
            steps = f"{x} / {scale}" if kind in EIGHT_BIT_FLOATS else f"{x} / {scale} + {zero}"
            return f"{helpers[-1].name}({argument(kind, steps)})"
        helpers.append(_QUANTIZE)
        low, high = limits(kind)
        whole = f"quantize_to_integer({x}, {scale}, {zero}, {low}, {high})"
        if kind.is_stored:
            helpers.append(to_stored(kind))
            return f"{helpers[-1].name}({whole})"
        return f"static_cast<{C_TYPES[kind]}>({whole})"


KERNELS = (QuantizeAny(),)
