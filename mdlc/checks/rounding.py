"""How far a layer may be from its exact value: what rounding costs, and nothing else.

A layer is judged on what it really read, so that errors of layers before it do not count. Its
sums may lose about the square root of their length in units of rounding, relative to the sum of
the terms' magnitudes (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, sections
3.1 and 4.2); other operators lose what a few units in their inputs and in their output make.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array, DType

# Half the distance of two neighbours, relative to them.
UNIT_F32, UNIT_F16 = 2.0**-24, 2.0**-11
# A sum of K terms may lose START + BY_ROOT * sqrt(K) units of the sum of their magnitudes.
START, BY_ROOT = 8.0, 3.0
# Functions on vectors are polynomials that lose a few units.
FUNCTION = 8.0
# Share of integers that may be one step off: the float behind them was near a tie.
TIES = 1e-3
# Below the smallest normal number there are no relative errors.
SMALLEST = 2.0**-126


def unit(dtype: DType) -> float:
    """The unit of rounding of a floating element type."""
    return UNIT_F16 if dtype is DType.F16 else UNIT_F32


def tolerance(
    node: Node,
    inputs: Sequence[Array],
    slack: Sequence[Array | None],
    exact: Array,
    *,
    u: float,
    loss: float = 0.0,
) -> Array:
    """How far from `exact` every element of a floating output may be.

    Args:
        inputs: what the node read, in double precision.
        slack: how far each of them may be off itself; None where it is what was read.
        exact: the node's value for the inputs.
        u: the unit of rounding.
        loss: what the algorithm loses besides, of the largest sum of magnitudes.
    """
    op: Any = node.op
    with np.errstate(all="ignore"):
        if moved(node):
            pairs = zip(inputs, slack, strict=True)
            kept = [np.zeros_like(x) if s is None and _is_float(x) else x if s is None else s
                    for x, s in pairs]  # fmt: skip
            return np.abs(np.asarray(op.reference(*kept), np.float64)) + u * np.abs(exact)
        length = _length(node)
        factor = (START + BY_ROOT * math.sqrt(length)) * u
        widened = [
            x if s is None else np.abs(x) + s / factor for x, s in zip(inputs, slack, strict=True)
        ]
        terms = op.term_magnitudes(*widened)
        if terms is not None:
            allowed = factor * terms
            if loss:  # of the largest sum of the same filter
                channels = tuple(i for i in range(terms.ndim) if i != 1)
                allowed = allowed + loss * np.max(terms, axis=channels, keepdims=True, initial=0.0)
            if getattr(op, "activation", None) is None:
                return np.asarray(allowed + SMALLEST)
            return _behind_activation(op, inputs, exact, allowed, u)
        if isinstance(op, Elementwise):
            return _elementwise(op, inputs, slack, exact, u)
        return _shaken(op, inputs, slack, exact, u, length)


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


def _behind_activation(op: Any, inputs: Sequence[Array], exact: Array, allowed: Array,
                       u: float) -> Array:  # fmt: skip
    """What errors before an activation are behind it."""
    before = replace(op, activation=None).reference(*inputs[:3], *inputs[3 + op.has_slope :])
    operands: tuple[Array, ...] = ()
    if op.has_slope:
        # The slope has one number per channel: axis 1, or the last one of a dense layer.
        channels = (1, -1, *[1] * (before.ndim - 2)) if before.ndim == 4 else (-1,)
        operands = (inputs[3].reshape(channels),)
    up, down = (op.activation.reference(before + d, *operands) for d in (allowed, -allowed))
    response = np.maximum(np.abs(up - exact), np.abs(down - exact))
    return np.asarray(response + FUNCTION * u * np.abs(exact) + SMALLEST)


def _elementwise(op: Elementwise, inputs: Sequence[Array], slack: Sequence[Array | None],
                 exact: Array, u: float) -> Array:  # fmt: skip
    total = FUNCTION * u * np.abs(exact) + SMALLEST
    for index, (x, s) in enumerate(zip(inputs, slack, strict=True)):
        if not _is_float(x):
            continue
        # Numbers below the smallest normal one may count as that or as zero.
        error = 2 * u * np.abs(x) + SMALLEST + (0.0 if s is None else s)
        for sign in (1, -1):
            changed = [*inputs[:index], x + sign * error, *inputs[index + 1 :]]
            response = np.abs(np.asarray(op.reference(*changed), np.float64) - exact)
            total = np.fmax(total, FUNCTION * u * np.abs(exact) + len(inputs) * response)
    return np.asarray(total)


def _shaken(op: Any, inputs: Sequence[Array], slack: Sequence[Array | None], exact: Array,
            u: float, length: float) -> Array:  # fmt: skip
    """Of any other operator: what small random changes of its inputs make, anywhere."""
    generator = np.random.default_rng(0)
    factor = START + BY_ROOT * math.sqrt(length)
    most = factor * u * float(np.max(np.abs(exact[np.isfinite(exact)]), initial=0.0))
    for _ in range(2):
        changed = []
        for x, s in zip(inputs, slack, strict=True):
            if not _is_float(x):
                changed.append(x)
                continue
            error = factor * u * np.abs(x) + (0.0 if s is None else s)
            changed.append(x + error * generator.choice([-1.0, 1.0], x.shape))
        response = np.abs(np.asarray(op.reference(*changed), np.float64) - exact)
        most = max(most, 2 * float(np.max(response[np.isfinite(response)], initial=0.0)))
    return np.full(exact.shape, most + SMALLEST)


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
    a, b = found.astype(np.float64), exact.astype(np.float64)
    largest = float(np.finfo(found.dtype).max) if found.dtype.kind == "f" else math.inf
    with np.errstate(all="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        same |= (np.sign(a) == np.sign(b)) & (np.abs(a) >= largest) & (np.abs(b) >= largest)
        parts = np.where(same, 0.0, np.abs(a - b) / allowed)
    return float(np.max(np.nan_to_num(parts, nan=math.inf, posinf=math.inf)))
