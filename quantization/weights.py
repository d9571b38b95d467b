"""Weights as 8-bit integers: symmetric, with a scale for every output channel or for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdlc.compiler.types import Array

# The smallest integer, -128, stays unused: ranges are symmetric, and products of two such
# numbers do not saturate the pairwise sums of some instruction sets.
LARGEST = 127
# A bias in units of the accumulator stays below this, which leaves as much to the products.
LARGEST_BIAS = 2.0**30


@dataclass(frozen=True)
class QuantizedWeights:
    """Integers and what they stand for.

    Attributes:
        integers: int8, of the shape of the weights [M, ...].
        scales: float32 [M], or [1] where all channels share one.
        bias: float32 [M], perhaps corrected.
    """

    integers: Array
    scales: Array
    bias: Array

    @property
    def values(self) -> Array:
        """The weights that the integers stand for, float32."""
        return self.integers * along_first(self.scales, self.integers.ndim)


def along_first(scales: Array, rank: int) -> Array:
    """Scales of output channels, to be broadcast against weights [M, ...]."""
    return scales.reshape(-1, *[1] * (rank - 1))


def weight_scales(
    weights: Array, bias: Array, input_scale: float, *, per_tensor: bool = False
) -> Array:
    """Scales that give the largest weight of a channel (or of all) the integer 127.

    A channel whose weights are tiny beside its bias gets a larger one: the bias is counted in
    steps of input_scale * scale, and must fit 32 bits.

    Args:
        weights: float [M, ...]. bias: float [M].
        input_scale: of the layer's input.

    Returns:
        float32 [M], or [1] with `per_tensor`; all positive.
    """
    largest = np.abs(weights.reshape(len(weights), -1).astype(np.float64)).max(1, initial=0)
    needed = np.abs(bias.astype(np.float64)) / (input_scale * LARGEST_BIAS)
    scales = np.maximum(largest / LARGEST, needed)
    if per_tensor:
        scales = scales.max(keepdims=True, initial=0)
    # A channel without weights computes its bias, whatever the scale.
    return np.where(scales > 0, scales, 1 / LARGEST).astype(np.float32)


def rounded_weights(weights: Array, scales: Array) -> Array:
    """The nearest integers, int8."""
    steps = weights / along_first(scales, weights.ndim)
    return np.clip(np.rint(steps), -LARGEST, LARGEST).astype(np.int8)
