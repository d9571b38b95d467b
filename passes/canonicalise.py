"""One way to say each thing: operators that do nothing go, synonyms become one operator."""

from __future__ import annotations

import math

import numpy as np

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.op import Op
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.batch_normalization import BatchNormalization
from mdlc.compiler.ops.clip import Clip
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.div import Div
from mdlc.compiler.ops.erf import Erf
from mdlc.compiler.ops.gelu import Gelu
from mdlc.compiler.ops.hard_sigmoid import HardSigmoid
from mdlc.compiler.ops.hard_swish import HardSwish
from mdlc.compiler.ops.max import Max
from mdlc.compiler.ops.min import Min
from mdlc.compiler.ops.mish import Mish
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.pow import Pow
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.sigmoid import Sigmoid
from mdlc.compiler.ops.silu import Silu
from mdlc.compiler.ops.softplus import Softplus
from mdlc.compiler.ops.sqrt import Sqrt
from mdlc.compiler.ops.sub import Sub
from mdlc.compiler.ops.tanh import Tanh
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.rewrite import Budget, Const, Decline, Match, Rule, Var, pat, rewrite


def _identity(m: Match) -> Node | Decline:
    """The input itself, where the operator says that it is the output."""
    x = m["x"]
    if x.type.shape != m.root.type.shape or x.type.dtype is not m.root.type.dtype:
        return Decline("the type changes")
    return x if m.root.op.is_identity(x.type) else Decline("elements change or move")


def _reshape_twice(m: Match) -> Node:
    return make(m.root.op, m["x"])


def _transpose_twice(m: Match) -> Node:
    outer, inner = m.root.op, m["inner"].op
    assert isinstance(outer, Transpose)
    assert isinstance(inner, Transpose)
    return make(Transpose(tuple(inner.perm[axis] for axis in outer.perm)), m["x"])


def _transpose_as_reshape(m: Match) -> Node | Decline:
    op = m.root.op
    assert isinstance(op, Transpose)
    moved = [axis for axis in op.perm if m["x"].shape[axis] != 1]
    if moved != sorted(moved):
        return Decline("elements move")
    return make(Reshape(m.root.shape), m["x"])


def _neutral(value: float) -> object:
    def handler(m: Match) -> Node | Decline:
        x, c = m["x"], m.value("c")
        if not np.all(c == value):
            return Decline(f"the constant is not {value}")
        if x.shape != m.root.shape:
            return Decline("the result is broadcast")
        return x

    return handler


def _scalar(m: Match, name: str = "c") -> float | None:
    value = m.value(name)
    first = value.reshape(-1)[0] if value.size else None
    return float(first) if first is not None and np.all(value == first) else None


def _clip_of(kind: str) -> object:
    def handler(m: Match) -> Node | Decline:
        value = _scalar(m)
        if value is None or m["x"].shape != m.root.shape or not m.root.type.dtype.is_float:
            return Decline("not one float bound")
        return make(Clip(low=value) if kind == "max" else Clip(high=value), m["x"])

    return handler


def _bounds(op: Op) -> tuple[float, float]:
    return (0.0, math.inf) if isinstance(op, Relu) else (op.low, op.high)  # type: ignore[attr-defined]


def _clip_twice(m: Match) -> Node:
    (low, high), (inner_low, inner_high) = _bounds(m.root.op), _bounds(m["inner"].op)
    bottom = min(max(inner_low, low), high)
    top = min(max(inner_high, low), high)
    return make(Clip(bottom, top), m["x"])


def _clip_to_relu(m: Match) -> Node:
    return make(Relu(), m["x"])


def _div_to_mul(m: Match) -> Node | Decline:
    c = m.value("c")
    if c.dtype.kind != "f":
        return Decline("a division of integers")
    with np.errstate(all="ignore"):
        inverse = (1 / c.astype(np.float64)).astype(c.dtype)
    tiny = np.finfo(c.dtype).tiny
    if not np.all(np.isfinite(inverse) & (np.abs(inverse) >= tiny) & (np.abs(c) >= tiny)):
        return Decline("the inverse overflows or loses digits")
    return make(Mul(), m["x"], constant(inverse))


def _sub_to_add(m: Match) -> Node | Decline:
    c = m.value("c")
    return make(Add(), m["x"], constant(-c)) if c.dtype.kind == "f" else Decline("integers")


def _hard_sigmoid(m: Match) -> Node | Decline:
    """Clip(x + 3, 0, 6) / 6 is HardSigmoid with slope 1/6."""
    scale, shift = _scalar(m, "scale"), _scalar(m, "shift")
    clip = m["clip"].op
    if scale is None or shift is None or m["x"].shape != m.root.shape:
        return Decline("not scalars, or the result is broadcast")
    low, high = _bounds(clip)
    if low != 0 or high <= 0 or not math.isclose(high * scale, 1, rel_tol=1e-5):
        return Decline("the bounds are not 0 and 1 after scaling")
    return make(HardSigmoid(float(np.float32(scale)), shift * scale), m["x"])


def _hard_swish(m: Match) -> Node | Decline:
    op = m["gate"].op
    assert isinstance(op, HardSigmoid)
    if not math.isclose(op.alpha, 1 / 6, rel_tol=1e-5) or not math.isclose(op.beta, 0.5):
        return Decline("another slope or offset")
    return make(HardSwish(), m["x"])


def _hard_swish_scaled(m: Match) -> Node | Decline:
    """x * Clip(x + 3, 0, 6) * (1 / 6)."""
    scale, shift, clip = _scalar(m, "scale"), _scalar(m, "shift"), m["clip"].op
    if scale is None or shift != 3 or _bounds(clip) != (0, 6):
        return Decline("other constants")
    if m["x"].shape != m.root.shape:
        return Decline("the result is broadcast")
    if not math.isclose(scale, 1 / 6, rel_tol=1e-5):
        return Decline("another scale")
    return make(HardSwish(), m["x"])


def _gelu(m: Match) -> Node | Decline:
    """x * (1 + erf(x / sqrt(2))) / 2, as exporters without the operator spell it."""
    inner, one, half = (_scalar(m, name) for name in ("inner", "one", "half"))
    if m["x"].shape != m.root.shape or one != 1 or half != 0.5:
        return Decline("other constants, or the result is broadcast")
    if inner is None or not math.isclose(inner, math.sqrt(0.5), rel_tol=1e-5):
        return Decline("erf of another multiple")
    return make(Gelu(), m["x"])


def _pow(m: Match) -> Node | Decline:
    exponent, x = _scalar(m), m["x"]
    if not x.type.dtype.is_float or x.shape != m.root.shape:
        return Decline("not floats of one shape")
    if exponent == 1:
        return x
    if exponent == 2:
        return make(Mul(), x, x)
    if exponent == 0.5:
        return make(Sqrt(), x)
    return Decline("another exponent")


def _batch_norm(m: Match) -> Node:
    """A normalisation with constant statistics is a product and a sum per channel."""
    op = m.root.op
    assert isinstance(op, BatchNormalization)
    factor, shift = op.scale_shift(*(m.value(name) for name in ("s", "b", "mean", "var")))
    shape = (-1,) + (1,) * (m["x"].type.rank - 2)
    factor, shift = (v.reshape(shape).astype(m.root.type.dtype.numpy) for v in (factor, shift))
    return make(Add(), make(Mul(), m["x"], constant(factor)), constant(shift))


def _keepdims(m: Match) -> Node | Decline:
    """A reduction that drops axes is one that keeps them, reshaped: layouts stay alive."""
    op = m.root.op
    assert isinstance(op, Reduce)
    if op.keepdims or m["x"].type.rank != 4:
        return Decline("axes are kept already, or the rank is not 4")
    return make(Reshape(m.root.shape), make(Reduce(op.kind, op.axes), m["x"]))


_X, _C = Var("x"), Const("c")
_CLIPS = (Clip, Relu)
_CDF = pat(Add, pat(Erf, pat(Mul, _X, Const("inner"))), Const("one"))
_PLUS_3 = pat(_CLIPS, pat(Add, _X, Const("shift")), bind="clip")

RULES = (
    Rule("identity", pat(Op, _X), _identity),
    Rule("reshape_twice", pat(Reshape, pat(Reshape, _X, shared=True)), _reshape_twice),
    Rule(
        "transpose_twice",
        pat(Transpose, pat(Transpose, _X, bind="inner", shared=True)),
        _transpose_twice,
    ),
    Rule("transpose_as_reshape", pat(Transpose, _X), _transpose_as_reshape),
    Rule("add_0", pat(Add, _X, _C), _neutral(0)),  # type: ignore[arg-type]
    Rule("mul_1", pat(Mul, _X, _C), _neutral(1)),  # type: ignore[arg-type]
    Rule("sub_0", pat(Sub, _X, _C), _neutral(0)),  # type: ignore[arg-type]
    Rule("div_1", pat(Div, _X, _C), _neutral(1)),  # type: ignore[arg-type]
    Rule("div_to_mul", pat(Div, _X, _C), _div_to_mul),
    Rule("sub_to_add", pat(Sub, _X, _C), _sub_to_add),
    Rule("min_to_clip", pat(Min, _X, _C), _clip_of("min")),  # type: ignore[arg-type]
    Rule("max_to_clip", pat(Max, _X, _C), _clip_of("max")),  # type: ignore[arg-type]
    Rule("clip_twice", pat(_CLIPS, pat(_CLIPS, _X, bind="inner")), _clip_twice),
    Rule(
        "clip_to_relu",
        pat(Clip, _X, where=lambda n: _bounds(n.op) == (0.0, math.inf)),
        _clip_to_relu,
    ),
    Rule("hard_sigmoid", pat(Mul, _PLUS_3, Const("scale")), _hard_sigmoid),
    Rule("hard_swish", pat(Mul, _X, pat(HardSigmoid, _X, bind="gate")), _hard_swish),
    Rule(
        "hard_swish_scaled",
        pat(Mul, pat(Mul, _X, _PLUS_3), Const("scale")),
        _hard_swish_scaled,
    ),
    Rule(
        "hard_swish_scaled_first",
        pat(Mul, pat(Mul, _X, Const("scale")), _PLUS_3),
        _hard_swish_scaled,
    ),
    Rule("silu", pat(Mul, _X, pat(Sigmoid, _X)), lambda m: make(Silu(), m["x"])),
    Rule("mish", pat(Mul, _X, pat(Tanh, pat(Softplus, _X))), lambda m: make(Mish(), m["x"])),
    Rule("gelu", pat(Mul, pat(Mul, _X, _CDF), Const("half")), _gelu),
    Rule("gelu_half_first", pat(Mul, pat(Mul, _X, Const("half")), _CDF), _gelu),
    Rule("gelu_half_inside", pat(Mul, _X, pat(Mul, _CDF, Const("half"))), _gelu),
    Rule("pow", pat(Pow, _X, _C), _pow),
    Rule("keepdims", pat(Reduce, _X), _keepdims),
)
BATCH_NORM = Rule(
    "batch_norm_alone",
    pat(BatchNormalization, _X, Const("s"), Const("b"), Const("mean"), Const("var")),
    _batch_norm,
)


def canonicalise(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """Applies RULES."""
    return rewrite(graph, RULES, budget)


def lower_batch_norm(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """Turns the normalisations that no neighbour took into a product and a sum."""
    return rewrite(graph, (BATCH_NORM,), budget)
