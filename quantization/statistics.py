"""Statistics of a tensor over many inputs, in memory that does not grow with their number."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array

# Bins on each side of zero. The range in use fills at least half of them, so a step of an 8-bit
# range spans 8 bins or more.
BINS = 4096


@dataclass
class Histogram:
    """Counts of the values of a tensor in bins of one width, zero being a border.

    The width is a power of two. It doubles, and bins merge in pairs, whenever a value lies
    outside: what has been counted stays exact, and memory stays the same. Exact zeros are
    counted apart, because every quantisation represents them and a ReLU makes many.

    Attributes:
        width: of a bin; 0 until a value other than zero has been seen.
        counts: of the bins, int64 [2 * BINS]; bin i holds (i - BINS) * width and up.
        zeros: exact zeros.
        low, high: smallest and largest value.
    """

    width: float = 0.0
    counts: Array = field(default_factory=lambda: np.zeros(2 * BINS, np.int64))
    zeros: int = 0
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: Array) -> None:
        """Counts all elements.

        Raises:
            ValueError: one is NaN or infinite.
        """
        flat = values.reshape(-1).astype(np.float32, copy=False)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("a value is NaN or infinite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        peak = max(-low, high)
        if peak > 0:
            self._widen(peak)
            used = flat[flat != 0] if low <= 0 <= high else flat
            self.zeros += flat.size - used.size
            # Scaling by a power of two is exact, so a value's bin does not depend on rounding.
            index = np.floor(used * np.float32(1 / self.width)).astype(np.int32)
            index += BINS
            self.counts += np.bincount(index, minlength=2 * BINS)
        else:
            self.zeros += flat.size

    def _widen(self, peak: float) -> None:
        """Makes room for magnitudes up to `peak`."""
        if not self.width:
            # Denormal peaks share the smallest width whose reciprocal is finite in float32.
            self.width = 2.0 ** max(math.floor(math.log2(peak / BINS)), -120)
        while peak >= BINS * self.width:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.zeros_like(self.counts)
            self.counts[BINS // 2 : BINS // 2 + BINS] = merged
            self.width *= 2

    @property
    def total(self) -> int:
        """Number of elements seen."""
        return int(self.counts.sum()) + self.zeros

    def centres(self) -> tuple[Array, Array]:
        """The middles (float64) and the counts of the bins from the first to the last in use.

        The outermost middles are kept within the smallest and largest value. Without zeros.
        """
        used = np.flatnonzero(self.counts)
        if not used.size:
            return np.zeros(0), np.zeros(0, np.int64)
        first, last = int(used[0]), int(used[-1]) + 1
        middles = (np.arange(first, last) - BINS + 0.5) * self.width
        return np.clip(middles, self.low, self.high), self.counts[first:last]

    def coarse(self, bins: int = 64) -> tuple[float, float, list[int]]:
        """The range and the counts, zeros included, in few bins: for a plot."""
        if not self.total or self.high <= self.low:
            return self.low, self.high, [self.total]
        middles, counts = self.centres()
        edges = np.linspace(self.low, self.high, bins + 1)
        found, _ = np.histogram(middles, edges, weights=counts)
        if self.zeros:
            at = int(np.clip(np.searchsorted(edges, 0.0, "right") - 1, 0, bins - 1))
            found[at] += self.zeros
        return self.low, self.high, [round(x) for x in found]


@dataclass
class Statistics:
    """What calibration learns of one tensor.

    Attributes:
        histogram: of all elements.
        runs: inputs of the network seen.
        peaks: of an image, the largest magnitude of every channel [C].
    """

    histogram: Histogram = field(default_factory=Histogram)
    runs: int = 0
    peaks: Array | None = None

    def add(self, values: Array, name: str) -> None:
        """Takes in the tensor's values for one more input of the network.

        Raises:
            MdlcError: one is NaN or infinite.
        """
        try:
            self.histogram.add(values)
        except ValueError:
            raise MdlcError(
                "the network computes NaN or infinity from the calibration set",
                node=f"tensor {name!r}",
                hint="check the inputs and their normalisation (--mean, --std)",
            ) from None
        self.runs += 1
        if values.ndim == 4:
            found = np.maximum(values.max((0, 2, 3)), -values.min((0, 2, 3)))
            self.peaks = found if self.peaks is None else np.maximum(self.peaks, found)
