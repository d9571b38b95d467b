"""Which integers weights become: chosen for the error of the layer's output, not of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.types import Array
from mdlc.quantization.moments import Moments, groups_of
from mdlc.quantization.quantize import Rounding
from mdlc.quantization.weights import LARGEST, QuantizedWeights, along_first

# Added to the diagonal of the second moments, relative to its mean: directions that the
# calibration set never took are not free to be wrong.
DAMPING = 0.01
# Columns whose loss is moved to those behind them at once, as one product.
BLOCK = 128


def corrected(moments: Mapping[str, Moments], *, adaptive: bool = True) -> Rounding:
    """A Rounding that keeps the layers' mean outputs, and with `adaptive` their variance small.

    Bias correction: rounding moves the mean of output m by (W - Wq)[m] E[x], which the bias
    takes back. Source: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and
    Bias Correction", ICCV 2019, section 4.2 (with the means measured).

    Args:
        moments: by layer; layers without are rounded to nearest.
        adaptive: choose integers by `adaptively_rounded`.
    """

    def rounding(key: str, nearest: QuantizedWeights, node: Node) -> QuantizedWeights:
        found = moments.get(key)
        w = node.inputs[1].constant
        if found is None or not found.count or w is None:
            return nearest
        integers, groups = nearest.integers, groups_of(node)
        if adaptive and found.second is not None:
            integers = adaptively_rounded(w, nearest.scales, shrunk(found), groups)
        chosen = QuantizedWeights(integers, nearest.scales, nearest.bias)
        lost = (w - chosen.values).reshape(groups, len(w) // groups, -1).astype(np.float64)
        shift = np.einsum("gmk,gk->gm", lost, found.mean).reshape(-1)
        bias = (nearest.bias.astype(np.float64) + shift).astype(np.float32)
        return QuantizedWeights(integers, nearest.scales, bias)

    return rounding


def shrunk(moments: Moments) -> Array:
    """The covariance, nearer to its diagonal the fewer vectors there were for its size.

    A classifier behind a global mean sees one vector a picture: what 64 of them have in common
    says nothing of the next one.
    """
    covariance = moments.covariance
    assert covariance is not None
    depth = covariance.shape[-1]
    doubt = depth / (depth + moments.count)
    return covariance * np.where(np.eye(depth, dtype=bool), 1.0, 1.0 - doubt)


def adaptively_rounded(weights: Array, scales: Array, covariance: Array, groups: int) -> Array:
    """Integers q that make E|(W - s q)(x - E[x])|^2 small.

    The objective is that of adaptive rounding (M. Nagel et al., "Up or Down? Adaptive Rounding
    for Post-Training Quantization", ICML 2020); it is not solved by gradients but, one column of
    weights after the other, by moving what a column loses to those still open (E. Frantar et
    al., "GPTQ", ICLR 2023), which needs the inverse of the covariance and nothing else.

    Args:
        weights: float [M, ...]. scales: of output channels, [M] or [1].
        covariance: of the vectors that the weights multiply, [G, K, K].

    Returns:
        int8, of the shape of the weights.
    """
    count, depth = len(weights), covariance.shape[-1]
    left = weights.reshape(groups, count // groups, depth).astype(np.float64)
    spread = np.broadcast_to(along_first(scales, 2), (count, 1)).astype(np.float64)
    steps = spread.reshape(groups, count // groups)
    diagonal = np.einsum("gkk->gk", covariance).mean(1)
    diagonal = np.where(diagonal > 0, diagonal, 1.0)
    damped = covariance + (DAMPING * diagonal)[:, None, None] * np.eye(depth)
    # Upper triangular U with U' U = inverse: row k says how column k's loss is spread.
    upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    left = left.copy()
    integers = np.zeros(left.shape, np.int8)
    for start in range(0, depth, BLOCK):
        end = min(start + BLOCK, depth)
        lost = np.zeros((*left.shape[:2], end - start))
        for k in range(start, end):
            column = left[:, :, k]
            chosen = np.clip(np.rint(column / steps), -LARGEST, LARGEST)
            integers[:, :, k] = chosen
            loss = (column - chosen * steps) / upper[:, k, k][:, None]
            left[:, :, k + 1 : end] -= loss[:, :, None] * upper[:, k, None, k + 1 : end]
            lost[:, :, k - start] = loss
        left[:, :, end:] -= lost @ upper[:, start:end, end:]
    return integers.reshape(weights.shape)
