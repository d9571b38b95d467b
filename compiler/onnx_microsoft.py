"""ONNX Runtime's own operators (com.microsoft) in terms of ONNX's.

Where every form of an operator has one body, it is written as ONNX text; where it depends on
attributes, on inputs that are left out or on constants, it is made for the node.

Source: ONNX Runtime, docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx.parser

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_function_builder import (
    INPUTS,
    OUTPUTS,
    Builder,
    attributes_of,
    constant_at,
    error_at,
    given_at,
)
from mdlc.compiler.onnx_microsoft_attention import (
    attention,
    group_query_attention,
    multi_head_attention,
    quantised_attention,
    rotary_embedding,
)
from mdlc.compiler.types import Array

DOMAIN = "com.microsoft"
# The operator set in which the bodies are written.
OPSET = 20

# And those of operators that came later.
NEWER_OPSET = 23
_NEWER = {"Attention", "RMSNormalization", "RotaryEmbedding"}

_FIXED = (
    "Gelu (X) => (Y) { Y = Gelu(X) }",
    "BiasGelu (A, B) => (Y) { S = Add(A, B)  Y = Gelu(S) }",
    "QuickGelu <alpha: float = 1.702> (X) => (Y)"
    " { a = Constant<value_float: float = @alpha>()  c = CastLike(a, X)  s = Mul(X, c)"
    "  g = Sigmoid(s)  Y = Mul(X, g) }",
)


_ACTIVATIONS = {"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid", "HardSwish", "Elu",
                "Selu", "Softplus", "Softsign", "Gelu", "ThresholdedRelu"}  # fmt: skip
_PARAMETERS = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Elu": ("alpha",),
               "Selu": ("alpha", "gamma"), "ThresholdedRelu": ("alpha",)}  # fmt: skip


def _fused_conv(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: Builder) -> None:
    """FusedConv, with an activation and a tensor added in front of it: X, W, B, Z."""
    given = attributes_of(proto)
    activation = given.pop("activation", "")
    parameters = list(given.pop("activation_params", []))
    y = b.add("Conv", "X", "W", *(["B"] if given_at(proto, 2) else []), **given)
    if given_at(proto, 3):
        y = b.add("Add", y, "Z")
    _activate(proto, b, y, activation, parameters)


def _fused_gemm(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: Builder) -> None:
    given = attributes_of(proto)
    names = ("activation", "activation_alpha", "activation_beta", "activation_gamma")
    kind, *parameters = (given.pop(name, None) for name in names)
    y = b.add("Gemm", "X", "W", *(["B"] if given_at(proto, 2) else []), **given)
    _activate(proto, b, y, kind or "", [p for p in parameters if p is not None])


def _activate(
    proto: onnx.NodeProto, b: Builder, y: str, activation: str, parameters: Sequence[float]
) -> None:
    if not activation:
        b.add("Identity", y, outputs=["Y"])
    elif activation not in _ACTIVATIONS:
        raise error_at(proto, f"activation {activation!r} is not supported", "export it unfused")
    elif activation == "Clip":
        bounds = [b.value(np.array(p, np.float32)) for p in parameters]
        b.add("Clip", y, *bounds, outputs=["Y"])
    else:
        more = dict(zip(_PARAMETERS.get(activation, ()), parameters, strict=False))
        b.add(activation, y, outputs=["Y"], **more)


def _nhwc_conv(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: Builder) -> None:
    x = inputs[0]
    rank = len(x.shape) if x is not None else 4
    inward = [0, rank - 1, *range(1, rank - 1)]
    outward = [0, *range(2, rank), 1]
    given = attributes_of(proto)
    # Filters are channels-last, too, of the group's inputs.
    moved = b.add("Transpose", "X", perm=inward)
    weights = b.add("Transpose", "W", perm=inward)
    y = b.add("Conv", moved, weights, *(["B"] if given_at(proto, 2) else []), **given)
    b.add("Transpose", y, outputs=["Y"], perm=outward)


def _fused_matmul(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: Builder) -> None:
    """FusedMatMul: alpha * A' B', either transposed in its last two axes, or in its batches."""
    given = attributes_of(proto)
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


def _fast_gelu(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: Builder) -> None:
    x = b.add("Add", "X", "W") if given_at(proto, 1) else "X"
    b.add("Gelu", x, outputs=["Y"], approximate="tanh")


def _skip_layer_normalization(
    proto: onnx.NodeProto, inputs: Sequence[Node | None], b: Builder
) -> None:
    """input, skip, gamma, beta, bias: normalises their sum, which is the fourth output."""
    _skip(proto, b, "LayerNormalization", bias=4, beta=given_at(proto, 3))


def _skip_simplified(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: Builder) -> None:
    _skip(proto, b, "RMSNormalization", bias=3, beta=False)


def _skip(proto: onnx.NodeProto, b: Builder, op_type: str, bias: int, beta: bool) -> None:
    names = ("X", "W", "B", "Z", "V")
    given = attributes_of(proto)
    total = b.add("Add", "X", "W", outputs=["s"])
    if given_at(proto, bias):
        total = b.add("Add", total, names[bias], outputs=["sum_with_bias"])
    extra = ["Z"] if beta else []
    b.add(op_type, total, "B", *extra, outputs=["Y"], axis=-1, epsilon=given.get("epsilon", 1e-5))
    b.add("Identity", total, outputs=["Y3"])


def _layer_normalization(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: Builder) -> None:
    given = attributes_of(proto)
    names = [name for name, i in (("X", 0), ("W", 1), ("B", 2)) if given_at(proto, i)]
    simplified = proto.op_type == "SimplifiedLayerNormalization"
    kind = "RMSNormalization" if simplified else "LayerNormalization"
    outputs = ["Y", "Y1", "Y2"][: len(proto.output)]
    b.add(kind, *names, outputs=outputs[:1] if simplified else outputs,
          axis=given.get("axis", -1), epsilon=given.get("epsilon", 1e-5))  # fmt: skip


def _dynamic_quantize_matmul(
    proto: onnx.NodeProto, inputs: Sequence[Node | None], b: Builder
) -> None:
    """A, B, b_scale, b_zero_point, bias: A is rounded to 8 bits by its own range."""
    b.add("DynamicQuantizeLinear", "X", outputs=["q", "scale", "zero"])
    sums = b.add("MatMulInteger", "q", "W", "zero", *(["Z"] if given_at(proto, 3) else []))
    factor = b.add("Mul", "scale", "B")
    y = b.add("Mul", b.add("Cast", sums, to=onnx.TensorProto.FLOAT), factor)
    b.add("Add", y, "V", outputs=["Y"]) if given_at(proto, 4) else b.add(
        "Identity", y, outputs=["Y"]
    )


def _matmul_nbits(proto: onnx.NodeProto, inputs: Sequence[Node | None], b: Builder) -> None:
    """A, B, scales, zero_points, g_idx, bias: weights of a few bits in blocks, decoded here."""
    given = attributes_of(proto)
    depth, columns = int(given.get("K", 0)), int(given.get("N", 0))
    bits, block = int(given.get("bits", 4)), int(given.get("block_size", 0))
    if given_at(proto, 4):
        raise error_at(proto, "weights in another order (g_idx) are not supported",
                     "quantise without act_order")  # fmt: skip
    if bits not in (2, 4, 8) or block < 1 or depth < 1 or columns < 1:
        raise error_at(proto, f"weights of {bits} bits in blocks of {block} are not supported",
                     "quantise to 4 bits")  # fmt: skip
    blocks = -(-depth // block)
    codes = _unpacked(constant_at(proto, inputs, 1), bits, columns, blocks, block)
    scales = constant_at(proto, inputs, 2).astype(np.float32).reshape(columns, blocks, 1)
    if not given_at(proto, 3):
        zeros: Array = np.array(1 << (bits - 1), np.float32)
    else:
        stored = constant_at(proto, inputs, 3)
        if stored.dtype.kind == "f":
            zeros = stored.astype(np.float32).reshape(columns, blocks, 1)
        else:
            zeros = _unpacked(stored, bits, columns, 1, blocks).reshape(columns, blocks, 1)
    weights = (codes - zeros) * scales
    weights = weights.reshape(columns, -1)[:, :depth].T
    kind = inputs[0].type.dtype.numpy if inputs[0] is not None else np.float32
    y = b.add("MatMul", "X", b.value(weights.astype(kind)))
    if given_at(proto, 5):
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


def matmul_integer_to_float(b: Builder) -> None:
    """A, B, a_scale, b_scale, a_zero_point, b_zero_point, bias."""
    zeros = [b.input(i) if b.given(i) else "" for i in (4, 5)]
    while zeros and not zeros[-1]:
        zeros.pop()
    sums = b.add("MatMulInteger", b.input(0), b.input(1), *zeros)
    factor = b.add("Mul", b.input(2), b.input(3))
    y = b.add("Mul", b.add("Cast", sums, to=onnx.TensorProto.FLOAT), factor)
    b.result(0, b.add("Add", y, b.input(6)) if b.given(6) else y)


def nhwc_max_pool(b: Builder) -> None:
    """MaxPool whose channels come last."""
    rank = len(b.node(0).shape)
    given = {key: b.attribute(key, None) for key in
             ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")}  # fmt: skip
    moved = b.add("Transpose", b.input(0), perm=[0, rank - 1, *range(1, rank - 1)])
    y = b.add("MaxPool", moved, **given)
    b.result(0, b.add("Transpose", y, perm=[0, *range(2, rank), 1]))


def embed_layer_normalization(b: Builder) -> None:
    """Rows of three tables, summed and normalised; QEmbedLayerNormalization has them in 8 bits.

    Inputs: ids, segment ids, the three tables, gamma, beta, mask; then position ids, or the
    scales and zero points of tables, gamma and beta. The second output counts the mask.
    """
    quantised = b.node(2).type.dtype.size == 1

    def table(index: int) -> str:
        if not quantised:
            return b.input(index)
        # Scales stand at 8 to 12 and zero points at 13 to 17, in the order of the tables.
        at = index - 2
        return b.add("DequantizeLinear", b.input(index), b.input(8 + at), b.input(13 + at))

    ids = b.node(0)
    batch, rows = ids.shape
    parts = [b.add("Gather", table(2), b.input(0))]
    if b.given(8) and not quantised:
        parts.append(b.add("Gather", table(3), b.input(8)))
    else:
        parts.append(b.add("Gather", table(3), b.value(np.arange(rows, dtype=np.int64)[None])))
    if b.given(1) and b.given(4):
        parts.append(b.add("Gather", table(4), b.input(1)))
    total = parts[0]
    for part in parts[1:]:
        total = b.add("Add", total, part)
    epsilon = b.attribute("epsilon", 1e-12)
    b.result(0, b.add("LayerNormalization", total, table(5), table(6), axis=-1, epsilon=epsilon))
    if b.wants(1):
        if b.given(7):
            whole = b.add("Cast", b.input(7), to=onnx.TensorProto.INT32)
            axes = b.value(np.array([1], np.int64))
            b.result(1, b.add("ReduceSum", whole, axes, keepdims=0))
        else:
            b.result(1, b.value(np.zeros(batch, np.int32)))
    if b.wants(2):
        b.result(2, total)


def dynamic_quantize_lstm(b: Builder) -> None:
    """LSTM with weights in 8 bits, the other way round: inputs 8 to 11 are scales and zero points.

    ONNX Runtime also rounds the input and the state to 8 bits, by their own ranges; here they stay
    float, which is nearer to the network that was quantised.
    """

    def weights(index: int, scale: int) -> str:
        stored, steps = b.constant(index), b.constant(scale).astype(np.float32)
        zeros = b.constant(scale + 1).astype(np.float32)
        count = len(stored)
        steps, zeros = steps.reshape(count, 1, -1), zeros.reshape(count, 1, -1)
        return b.value(np.swapaxes((stored.astype(np.float32) - zeros) * steps, 1, 2))

    others = [b.input(index) if b.given(index) else "" for index in range(3, 8)]
    while others and not others[-1]:
        others.pop()
    names = [b.name() if b.wants(index) else "" for index in range(3)]
    keys = ("activation_alpha", "activation_beta", "activations", "clip", "direction",
            "hidden_size", "input_forget")  # fmt: skip
    given = {key: b.attribute(key, None) for key in keys}
    b.add("LSTM", b.input(0), weights(1, 8), weights(2, 10), *others, outputs=names, **given)
    for index, name in enumerate(names):
        if name:
            b.result(index, name)


_MADE: dict[str, Callable[[onnx.NodeProto, Sequence[Node | None], Builder], None]] = {
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


# Those written against the builder alone.
_BUILT: dict[str, Callable[[Builder], None]] = {
    "Attention": attention,
    "DynamicQuantizeLSTM": dynamic_quantize_lstm,
    "EmbedLayerNormalization": embed_layer_normalization,
    "GroupQueryAttention": group_query_attention,
    "MatMulIntegerToFloat": matmul_integer_to_float,
    "MultiHeadAttention": multi_head_attention,
    "NhwcMaxPool": nhwc_max_pool,
    "QAttention": quantised_attention,
    "QEmbedLayerNormalization": embed_layer_normalization,
    "RotaryEmbedding": rotary_embedding,
}


_TEXTS = {text.split()[0]: text for text in _FIXED}
FUNCTIONS = frozenset((*_TEXTS, *_MADE, *_BUILT))


def microsoft_function(proto: onnx.NodeProto, inputs: Sequence[Node | None]) -> onnx.FunctionProto:
    """The function that an operator of FUNCTIONS stands for.

    Raises:
        MdlcError: it has a form that mdlc does not have.
    """
    if proto.op_type in _TEXTS:
        return _parsed(_TEXTS[proto.op_type])
    builder = Builder(proto, inputs)
    if proto.op_type in _BUILT:
        _BUILT[proto.op_type](builder)
    else:
        _MADE[proto.op_type](proto, inputs, builder)
    newer = any(n.op_type in _NEWER for n in builder.nodes)
    return onnx.helper.make_function(
        DOMAIN,
        proto.op_type,
        INPUTS[: max(6, len(proto.input))],
        OUTPUTS[: max(1, len(proto.output))],
        builder.nodes,
        [onnx.helper.make_opsetid("", NEWER_OPSET if newer else OPSET)],
    )
