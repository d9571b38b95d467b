"""How far a layer may be from its exact value: what rounding costs, and nothing else.

A layer is judged on what it really read, so that errors of layers before it do not count. Its
sums may lose about the square root of their length in units of rounding, relative to the sum of
the terms' magnitudes (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, sections
3.1 and 4.2); other operators lose what a few units in their inputs and in their output make.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mdlc.codegen.kernel import NO_LOSS, Loss
from mdlc.compiler.ir import Node
from mdlc.compiler.op import Elementwise, Op
from mdlc.compiler.types import Array, DType

# Half the distance of two neighbours, relative to them.
UNIT_F32, UNIT_F16 = 2.0**-24, 2.0**-11
# A sum of K terms may lose START + BY_ROOT * sqrt(K) units of the sum of their magnitudes.
START, BY_ROOT = 8.0, 3.0
# Functions on vectors are polynomials that lose a few units.
FUNCTION = 8.0
# Share of integers that may be one step off: the float behind them was near a tie.
TIES = 1e-3
# Below the smallest normal number there are no relative errors: of float, and of half precision.
SMALLEST, SMALLEST_F16 = 2.0**-126, 2.0**-14


def unit(dtype: DType) -> float:
    """The unit of rounding of a floating element type."""
    return UNIT_F16 if dtype is DType.F16 else UNIT_F32


@dataclass(frozen=True)
class Computed:
    """A node in double precision, on what it read.

    Attributes:
        inputs: in double precision.
        slack: how far each of them may be off itself; None where it is what was read.
        exact: the value. before: of a sum, that before its activation; None where it has none.
        u: the unit of rounding. loss: what the algorithm loses besides.
    """

    node: Node
    inputs: Sequence[Array]
    slack: Sequence[Array | None]
    exact: Array
    before: Array | None
    u: float
    loss: Loss = NO_LOSS


def computed(
    node: Node,
    inputs: Sequence[Array],
    slack: Sequence[Array | None] = (),
    *,
    u: float = UNIT_F32,
    loss: Loss = NO_LOSS,
) -> Computed:
    """A node's value for inputs in double precision, and what a tolerance needs to be known."""
    op: Any = node.op
    if not _sums(op) or getattr(op, "activation", None) is None:
        exact, before = np.asarray(op.reference(*inputs)), None
    else:
        plain = replace(op, activation=None)
        before = np.asarray(plain.reference(*inputs[:3], *inputs[3 + op.has_slope :]))
        exact = np.asarray(op.activation.reference(before, *_slope(op, inputs, before)))
    return Computed(node, inputs, slack or (None,) * len(inputs), exact, before, u, loss)


def _sums(op: Any) -> bool:
    return type(op).term_magnitudes is not Op.term_magnitudes


def _slope(op: Any, inputs: Sequence[Array], before: Array) -> tuple[Array, ...]:
    """The activation's operand, of one number per channel: axis 1, or a dense layer's last."""
    if not op.has_slope:
        return ()
    return (inputs[3].reshape((1, -1, *[1] * (before.ndim - 2)) if before.ndim == 4 else -1),)


def tolerance(c: Computed) -> Array:
    """How far from the exact value every element of a floating output may be."""
    op: Any = c.node.op
    with np.errstate(all="ignore"):
        if moved(c.node):
            pairs = zip(c.inputs, c.slack, strict=True)
            kept = [np.zeros_like(x) if s is None and _is_float(x) else x if s is None else s
                    for x, s in pairs]  # fmt: skip
            return np.abs(np.asarray(op.reference(*kept), np.float64)) + c.u * np.abs(c.exact)
        if _sums(op):
            allowed = _sum_tolerance(c)
            if c.before is None:
                return np.asarray(allowed + SMALLEST)
            slope = _slope(op, c.inputs, c.before)
            return _behind(op.activation, slope, c.before, allowed, c.exact, c.u)
        if isinstance(op, Elementwise):
            return _elementwise(op, c.inputs, c.slack, c.exact, c.u)
        return np.full(c.exact.shape, _shaken(c))


def excess_of(c: Computed, found: Array, floor: float = 0.0) -> float:
    """The largest difference of a node's output, in parts of what is allowed; see `excess`.

    Cheap bounds come first: they are below `tolerance`, and most elements are within them.

    Args:
        floor: allowed besides, whatever the value.
    """
    op: Any = c.node.op
    exact = c.exact
    if exact.dtype.kind != "f":
        return excess(found, exact, None)
    if _sums(op) and c.before is None:
        return excess(found, exact, tolerance(c) + floor)
    with np.errstate(all="ignore"):
        apart = np.abs(found - exact)
        if _sums(op):
            near = FUNCTION * c.u * np.abs(exact) + (SMALLEST + floor)
        else:
            near = 2 * c.u * np.abs(exact) + floor
        far = np.flatnonzero(~(apart <= near))
        if not far.size:
            return 0.0
        if not (_sums(op) or isinstance(op, Elementwise)) and not moved(c.node):
            least, most = _common(c) + SMALLEST + floor, float(np.max(apart))
            if most <= least:
                return most / least
        if 2 * far.size > exact.size or moved(c.node):
            return excess(found, exact, tolerance(c) + floor)

    def some(x: Array) -> Array:
        return np.broadcast_to(x, exact.shape).reshape(-1)[far]

    if c.before is not None:
        slope = tuple(map(some, _slope(op, c.inputs, exact)))
        with np.errstate(all="ignore"):
            allowed = _behind(
                op.activation, slope, some(c.before), some(_sum_tolerance(c)), some(exact), c.u
            )
    elif isinstance(op, Elementwise):
        inputs = [some(x) for x in c.inputs]
        slack = [None if s is None else some(s) for s in c.slack]
        with np.errstate(all="ignore"):
            allowed = _elementwise(op, inputs, slack, some(exact), c.u)
    else:
        return excess(found, exact, tolerance(c) + floor)
    return excess(some(found), some(exact), allowed + floor)


def moved(node: Node) -> bool:
    """Whether every element of the output is one of the inputs'."""
    return bool(node.op.moves([source.type for source in node.inputs]))


def _is_float(x: Array) -> bool:
    return x.dtype.kind == "f"


def _length(node: Node) -> float:
    """How many terms are added for an element of the output."""
    types = [source.type for source in node.inputs]
    size = max(node.type.size, 1)
    macs = node.op.cost(types, node.type).macs / size
    return max(macs, max((t.size for t in types), default=1) / size, 1.0)


def _factor(c: Computed) -> float:
    """What a sum may lose, of the sum of its terms' magnitudes."""
    return (START + BY_ROOT * math.sqrt(_length(c.node))) * c.u


# Products of magnitudes below it do not overflow single precision.
_NO_OVERFLOW = 1e37


def _sum_tolerance(c: Computed) -> Array:
    """How far a sum may be off, before an activation."""
    factor = _factor(c)
    widened = [
        x if s is None else np.abs(x) + s / factor for x, s in zip(c.inputs, c.slack, strict=True)
    ]
    # A few digits of the magnitudes are enough.
    reach = [float(np.max(np.abs(x), initial=1.0)) for x in widened]
    if math.prod(reach) * _length(c.node) < _NO_OVERFLOW:
        widened = [x.astype(np.float32) if _is_float(x) else x for x in widened]
    terms = c.node.op.term_magnitudes(*widened)
    assert terms is not None
    allowed = np.multiply(terms, factor, dtype=np.float64)
    if c.loss.share:
        channels = tuple(i for i in range(terms.ndim) if i != 1 or not c.loss.apart)
        allowed += c.loss.share * np.max(terms, axis=channels, keepdims=True, initial=0.0)
    return allowed


def _behind(activation: Elementwise, slope: tuple[Array, ...], before: Array, allowed: Array,
            exact: Array, u: float) -> Array:  # fmt: skip
    """What errors before an activation are behind it."""
    up, down = (activation.reference(before + d, *slope) for d in (allowed, -allowed))
    response = np.maximum(np.abs(up - exact), np.abs(down - exact))
    return np.asarray(response + _rounded(activation, (before, *slope), exact, u))


def _rounded(op: Elementwise, inputs: Sequence[Array], exact: Array, u: float) -> Array:
    """What an operator's own roundings cost.

    A factor below the smallest normal number may count as zero (the sigmoid's tail in SiLU), so
    that the product with x is off by as much times x.
    """
    smallest = SMALLEST_F16 if u == UNIT_F16 else SMALLEST
    size = np.abs(inputs[0]) if op.arity == 1 and _is_float(inputs[0]) else np.float64(1.0)
    factor = np.where(np.isfinite(size), np.fmax(size, 1.0), 1.0)
    allowed = FUNCTION * u * np.abs(exact) + smallest * factor
    at = op.rounded_at(*inputs)
    return np.asarray(allowed if at is None else allowed + FUNCTION * u * at)


def _elementwise(op: Elementwise, inputs: Sequence[Array], slack: Sequence[Array | None],
                 exact: Array, u: float) -> Array:  # fmt: skip
    rounded = total = _rounded(op, inputs, exact, u)
    for index, (x, s) in enumerate(zip(inputs, slack, strict=True)):
        if not _is_float(x):
            continue
        # Numbers below the smallest normal one may count as that or as zero.
        error = 2 * u * np.abs(x) + SMALLEST + (0.0 if s is None else s)
        for sign in (1, -1):
            changed = [*inputs[:index], x + sign * error, *inputs[index + 1 :]]
            response = np.abs(np.asarray(op.reference(*changed), np.float64) - exact)
            total = np.fmax(total, rounded + len(inputs) * response)
    return np.asarray(total)


def _common(c: Computed) -> float:
    """What any element may be off by, of an operator of which only the largest value is known."""
    return _factor(c) * float(np.max(np.abs(c.exact[np.isfinite(c.exact)]), initial=0.0))


def _shaken(c: Computed) -> float:
    """Of any other operator: what small random changes of its inputs make, anywhere."""
    generator = np.random.default_rng(0)
    factor, most = _factor(c), _common(c)
    for _ in range(2):
        changed = []
        for x, s in zip(c.inputs, c.slack, strict=True):
            if not _is_float(x):
                changed.append(x)
                continue
            error = factor * np.abs(x) + (0.0 if s is None else s)
            changed.append(x + np.copysign(error, generator.random(x.shape, np.float32) - 0.5))
        response = np.abs(np.asarray(c.node.op.reference(*changed), np.float64) - c.exact)
        most = max(most, 2 * float(np.max(response[np.isfinite(response)], initial=0.0)))
    return most + SMALLEST


def excess(found: Array, exact: Array, allowed: Array | None) -> float:
    """The largest difference in parts of what is allowed; above 1 is wrong.

    NaN is right for NaN, and an infinity for itself or for what single precision cannot hold.

    Args:
        allowed: of floats: see `tolerance`. Integers may be one step off in a few elements.
    """
    if not exact.size:
        return 0.0
    if exact.dtype.kind != "f" or allowed is None:
        apart = np.abs(found.astype(np.float64) - exact.astype(np.float64))
        off = int((apart > 0).sum())
        if apart.max() > 1:
            return math.inf
        return off / max(TIES * exact.size, 1.0)
    with np.errstate(all="ignore"):
        parts = np.abs(found - exact)
        parts /= allowed
        if math.isfinite(most := float(np.max(parts))):
            return most
        a, b = found.astype(np.float64), exact.astype(np.float64)
        largest = float(np.finfo(found.dtype).max) if found.dtype.kind == "f" else math.inf
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        same |= (np.sign(a) == np.sign(b)) & (np.abs(a) >= largest) & (np.abs(b) >= largest)
        parts = np.where(same, 0.0, parts)
    return float(np.max(np.nan_to_num(parts, nan=math.inf, posinf=math.inf)))
