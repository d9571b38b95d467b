"""ONNX Runtime's own operators (com.microsoft) in terms of ONNX's.

Where every form of an operator has one body, it is written as ONNX text; where it depends on
attributes, on inputs that are left out or on constants, it is made for the node.

Source: ONNX Runtime, docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.types import Array

DOMAIN = "com.microsoft"
# The operator set in which the bodies are written.
OPSET = 20

_FIXED = (
    "Gelu (X) => (Y) { Y = Gelu(X) }",
    "BiasGelu (A, B) => (Y) { S = Add(A, B)  Y = Gelu(S) }",
    "QuickGelu <alpha: float = 1.702> (X) => (Y)"
    " { a = Constant<value_float: float = @alpha>()  c = CastLike(a, X)  s = Mul(X, c)"
    "  g = Sigmoid(s)  Y = Mul(X, g) }",
)


class _Builder:
    """Nodes of a body, one after the other; results get names of their own."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def add(self, op_type: str, *inputs: str, outputs: Sequence[str] = (), **more: Any) -> str:
        """A node; returns its first output."""
        names = list(outputs) or [f"t{len(self.nodes)}"]
        attributes = {name: value for name, value in more.items() if value is not None}
        self.nodes.append(onnx.helper.make_node(op_type, list(inputs), names, **attributes))
        return names[0]

    def value(self, array: Array) -> str:
        """A constant."""
        return self.add("Constant", value=onnx.numpy_helper.from_array(np.ascontiguousarray(array)))


def _attributes(proto: onnx.NodeProto) -> dict[str, Any]:
    found = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
    return {k: v.decode("utf-8", "replace") if isinstance(v, bytes) else v
            for k, v in found.items()}  # fmt: skip


def _given(proto: onnx.NodeProto, index: int) -> bool:
    return index < len(proto.input) and bool(proto.input[index])


def _error(proto: onnx.NodeProto, reason: str, hint: str) -> MdlcError:
    name = proto.name or next(filter(None, proto.output), proto.op_type)
    return MdlcError(reason, node=f"node {name!r} ({proto.op_type})", hint=hint)


def _constant(proto: onnx.NodeProto, inputs: Sequence[Node | None], index: int) -> Array:
    node = inputs[index] if index < len(inputs) else None
    if node is None or node.constant is None:
        raise _error(proto, f"input {index} must be a constant", "export the weights as constants")
    return node.constant


_ACTIVATIONS = {"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid", "HardSwish", "Elu",
                "Selu", "Softplus", "Softsign", "Gelu", "ThresholdedRelu"}  # fmt: skip
_PARAMETERS = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Elu": ("alpha",),
               "Selu": ("alpha", "gamma"), "ThresholdedRelu": ("alpha",)}  # fmt: skip


def _fused_conv(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: _Builder) -> None:
    """FusedConv, with an activation and a tensor added in front of it: X, W, B, Z."""
    given = _attributes(proto)
    activation = given.pop("activation", "")
    parameters = list(given.pop("activation_params", []))
    y = b.add("Conv", "X", "W", *(["B"] if _given(proto, 2) else []), **given)
    if _given(proto, 3):
        y = b.add("Add", y, "Z")
    _activate(proto, b, y, activation, parameters)


def _fused_gemm(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: _Builder) -> None:
    given = _attributes(proto)
    names = ("activation", "activation_alpha", "activation_beta", "activation_gamma")
    kind, *parameters = (given.pop(name, None) for name in names)
    y = b.add("Gemm", "X", "W", *(["B"] if _given(proto, 2) else []), **given)
    _activate(proto, b, y, kind or "", [p for p in parameters if p is not None])


def _activate(
    proto: onnx.NodeProto, b: _Builder, y: str, activation: str, parameters: Sequence[float]
) -> None:
    if not activation:
        b.add("Identity", y, outputs=["Y"])
    elif activation not in _ACTIVATIONS:
        raise _error(proto, f"activation {activation!r} is not supported", "export it unfused")
    elif activation == "Clip":
        bounds = [b.value(np.array(p, np.float32)) for p in parameters]
        b.add("Clip", y, *bounds, outputs=["Y"])
    else:
        more = dict(zip(_PARAMETERS.get(activation, ()), parameters, strict=False))
        b.add(activation, y, outputs=["Y"], **more)


def _nhwc_conv(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: _Builder) -> None:
    x = inputs[0]
    rank = len(x.shape) if x is not None else 4
    inward = [0, rank - 1, *range(1, rank - 1)]
    outward = [0, *range(2, rank), 1]
    given = _attributes(proto)
    # Filters are channels-last, too, of the group's inputs.
    moved = b.add("Transpose", "X", perm=inward)
    weights = b.add("Transpose", "W", perm=inward)
    y = b.add("Conv", moved, weights, *(["B"] if _given(proto, 2) else []), **given)
    b.add("Transpose", y, outputs=["Y"], perm=outward)


def _fused_matmul(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: _Builder) -> None:
    """FusedMatMul: alpha * A' B', either transposed in its last two axes, or in its batches."""
    given = _attributes(proto)
    sides = []
    for index, (name, side) in enumerate((("X", "A"), ("W", "B"))):
        node = inputs[index]
        rank = len(node.shape) if node is not None else 2
        axes = list(range(rank))
        if given.get(f"transBatch{side}"):
            axes = [*axes[1:-1], 0, axes[-1]]
        if given.get(f"trans{side}") and rank > 1:
            axes[-2:] = axes[:-3:-1]
        sides.append(name if axes == list(range(rank)) else b.add("Transpose", name, perm=axes))
    alpha = given.get("alpha", 1.0)
    if alpha == 1:
        b.add("MatMul", *sides, outputs=["Y"])
        return
    y = b.add("MatMul", *sides)
    b.add("Mul", y, b.add("CastLike", b.value(np.array(alpha, np.float32)), y), outputs=["Y"])


def _fast_gelu(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: _Builder) -> None:
    x = b.add("Add", "X", "W") if _given(proto, 1) else "X"
    b.add("Gelu", x, outputs=["Y"], approximate="tanh")


def _skip_layer_normalization(
    proto: onnx.NodeProto, inputs: Sequence[Node | None], b: _Builder
) -> None:
    """input, skip, gamma, beta, bias: normalises their sum, which is the fourth output."""
    _skip(proto, b, "LayerNormalization", bias=4, beta=_given(proto, 3))


def _skip_simplified(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: _Builder) -> None:
    _skip(proto, b, "RMSNormalization", bias=3, beta=False)


def _skip(proto: onnx.NodeProto, b: _Builder, op_type: str, bias: int, beta: bool) -> None:
    names = ("X", "W", "B", "Z", "V")
    given = _attributes(proto)
    total = b.add("Add", "X", "W", outputs=["s"])
    if _given(proto, bias):
        total = b.add("Add", total, names[bias], outputs=["sum_with_bias"])
    extra = ["Z"] if beta else []
    b.add(op_type, total, "B", *extra, outputs=["Y"], axis=-1, epsilon=given.get("epsilon", 1e-5))
    b.add("Identity", total, outputs=["Y3"])


def _layer_normalization(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: _Builder) -> None:
    given = _attributes(proto)
    names = [name for name, i in (("X", 0), ("W", 1), ("B", 2)) if _given(proto, i)]
    simplified = proto.op_type == "SimplifiedLayerNormalization"
    kind = "RMSNormalization" if simplified else "LayerNormalization"
    outputs = ["Y", "Y1", "Y2"][: len(proto.output)]
    b.add(kind, *names, outputs=outputs[:1] if simplified else outputs,
          axis=given.get("axis", -1), epsilon=given.get("epsilon", 1e-5))  # fmt: skip


def _dynamic_quantize_matmul(
    proto: onnx.NodeProto, inputs: Sequence[Node | None], b: _Builder
) -> None:
    """A, B, b_scale, b_zero_point, bias: A is rounded to 8 bits by its own range."""
    b.add("DynamicQuantizeLinear", "X", outputs=["q", "scale", "zero"])
    sums = b.add("MatMulInteger", "q", "W", "zero", *(["Z"] if _given(proto, 3) else []))
    factor = b.add("Mul", "scale", "B")
    y = b.add("Mul", b.add("Cast", sums, to=onnx.TensorProto.FLOAT), factor)
    b.add("Add", y, "V", outputs=["Y"]) if _given(proto, 4) else b.add("Identity", y, outputs=["Y"])


def _matmul_nbits(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: _Builder) -> None:
    """A, B, scales, zero_points, g_idx, bias: weights of a few bits in blocks, decoded here."""
    given = _attributes(proto)
    depth, columns = int(given.get("K", 0)), int(given.get("N", 0))
    bits, block = int(given.get("bits", 4)), int(given.get("block_size", 0))
    if _given(proto, 4):
        raise _error(proto, "weights in another order (g_idx) are not supported",
                     "quantise without act_order")  # fmt: skip
    if bits not in (2, 4, 8) or block < 1 or depth < 1 or columns < 1:
        raise _error(proto, f"weights of {bits} bits in blocks of {block} are not supported",
                     "quantise to 4 bits")  # fmt: skip
    blocks = -(-depth // block)
    codes = _unpacked(_constant(proto, inputs, 1), bits, columns, blocks, block)
    scales = _constant(proto, inputs, 2).astype(np.float32).reshape(columns, blocks, 1)
    if not _given(proto, 3):
        zeros: Array = np.array(1 << (bits - 1), np.float32)
    else:
        stored = _constant(proto, inputs, 3)
        if stored.dtype.kind == "f":
            zeros = stored.astype(np.float32).reshape(columns, blocks, 1)
        else:
            zeros = _unpacked(stored, bits, columns, 1, blocks).reshape(columns, blocks, 1)
    weights = (codes - zeros) * scales
    weights = weights.reshape(columns, -1)[:, :depth].T
    kind = inputs[0].type.dtype.numpy if inputs[0] is not None else np.float32
    y = b.add("MatMul", "X", b.value(weights.astype(kind)))
    if _given(proto, 5):
        b.add("Add", y, "U", outputs=["Y"])
    else:
        b.add("Identity", y, outputs=["Y"])


def _unpacked(stored: Array, bits: int, columns: int, blocks: int, length: int) -> Array:
    """Codes of some bits, several a byte from the lowest on: [columns, blocks, length]."""
    per_byte = 8 // bits
    size = -(-length // per_byte)
    data = stored.view(np.uint8).reshape(columns, blocks, size)
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    codes = (data[..., None] >> shifts) & ((1 << bits) - 1)
    return codes.reshape(columns, blocks, -1)[..., :length].astype(np.float32)


_MADE: dict[str, Callable[[onnx.NodeProto, Sequence[Node | None], _Builder], None]] = {
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "NhwcConv": _nhwc_conv,
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "FastGelu": _fast_gelu,
    "SkipLayerNormalization": _skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": _skip_simplified,
    "LayerNormalization": _layer_normalization,
    "SimplifiedLayerNormalization": _layer_normalization,
    "DynamicQuantizeMatMul": _dynamic_quantize_matmul,
    "MatMulNBits": _matmul_nbits,
}


def _parsed(text: str) -> onnx.FunctionProto:
    head = f'<domain: "{DOMAIN}", opset_import: ["": {OPSET}]>'
    return onnx.parser.parse_function(f"{head} {text}")


_TEXTS = {text.split()[0]: text for text in _FIXED}
FUNCTIONS = frozenset((*_TEXTS, *_MADE))


def microsoft_function(proto: onnx.NodeProto, inputs: Sequence[Node | None]) -> onnx.FunctionProto:
    """The function that an operator of FUNCTIONS stands for.

    Raises:
        MdlcError: it has a form that mdlc does not have.
    """
    if proto.op_type in _TEXTS:
        return _parsed(_TEXTS[proto.op_type])
    builder = _Builder()
    _MADE[proto.op_type](proto, inputs, builder)
    opset = 23 if any(n.op_type == "RMSNormalization" for n in builder.nodes) else OPSET
    return onnx.helper.make_function(
        DOMAIN,
        proto.op_type,
        ["X", "W", "B", "Z", "V", "U"][: max(6, len(proto.input))],
        ["Y", "Y1", "Y2", "Y3"][: max(1, len(proto.output))],
        builder.nodes,
        [onnx.helper.make_opsetid("", opset)],
    )
