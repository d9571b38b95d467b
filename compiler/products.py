"""What products with constant weights (convolutions and dense layers) say of their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.op import Elementwise, constant_result
from mdlc.compiler.types import Array
from mdlc.compiler.values import Values


def activated(activation: Elementwise | None, found: Values, rest: Sequence[Values]) -> Values:
    """Behind the fused activation.

    Args:
        rest: of the inputs behind the bias, of which a binary activation reads the first.
    """
    if activation is None:
        return found
    slope = (rest[0].of(len(found.most)),) if activation.arity == 2 else ()
    return replace(activation.bounded(found, *slope), sums=(found, *found.sums))


def constant_sums(weights: Array, bias: Array, x: Array) -> Array:
    """The sums [M] of filters that read nothing but channels that are the same everywhere.

    Args:
        weights: [M, C / groups, taps].
        x: the value of every input channel, [C] or, grouped, [M, 1]; NaN where it varies.

    Returns:
        float32, NaN for filters that read a channel that varies.
    """
    taps = weights.astype(np.float64)
    known = ~np.isnan(x)
    varies = (np.any(taps != 0, axis=2) & ~known).any(1)
    fixed = (taps.sum(2) * np.where(known, x, 0)).sum(1) + bias
    return np.where(varies, np.nan, fixed).astype(np.float32)


def activated_constant(activation: Elementwise | None, found: Array, rest: Sequence[Node]) -> Array:
    """Constant channels behind the fused activation; unknown where its operand is."""
    if activation is not None:
        slope = [node.constant for node in rest[: activation.arity - 1]]
        if any(value is None for value in slope):
            return np.full(len(found), np.nan)
        found = constant_result(activation, [found, *(s for s in slope if s is not None)])
    return np.asarray(found, np.float64)
