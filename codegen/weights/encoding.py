"""How weights are stored: as they are, in half precision, as 8-bit residues or as shared values.

    raw           float32
    fp16          IEEE half precision, rounded to nearest even
    bf16          the upper half of float32, likewise: its range, with 8 bits of precision
    int8          a whole number of 8 bits times a scale of the output channel, or of the layer
                  where its weights are such numbers already (networks that were 8-bit once)
    int4 to int7  the same with fewer values; for Huffman codes, which get shorter by it
    clustered:B   an index of B bits into a codebook of the layer
    ...+huffman   the bytes of these entropy-coded, and only the gaps between weights that are not
                  zero where that is shorter

Codebooks are those of k-means started on values evenly spaced from the smallest to the largest
weight (Han, Mao and Dally, "Deep Compression", arXiv 1510.00149, sections 3 and 4, as are gaps and
Huffman codes). Weights that are exactly zero stay so, in every encoding.

Everything is storage: the arithmetic of the emitted class stays float32.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array

VALUES = ("raw", "fp16", "bf16", "int8", "clustered", "int7", "int6", "int5", "int4")
_HINT = (
    "choose raw, fp16, bf16, int8 or clustered:BITS (2 to 8), with +huffman or not, "
    "int4+huffman to int7+huffman, or auto"
)
# A grid is taken if no weight is farther from it than this share of its step.
_OFF_GRID = 1e-3
_MAX_ROUNDS = 60
# Codebooks of very large layers are found on a sample of this many weights.
_SAMPLE = 1 << 20


@dataclass(frozen=True, order=True)
class Encoding:
    """How the weights of a layer are stored.

    Attributes:
        values: one of VALUES.
        bits: of an index into the codebook; 0 for the others.
        huffman: whether codes are entropy-coded.
    """

    values: str = "raw"
    bits: int = 0
    huffman: bool = False

    def __str__(self) -> str:
        bits = f":{self.bits}" if self.bits else ""
        return f"{self.values}{bits}{'+huffman' if self.huffman else ''}"

    @property
    def integer(self) -> int:
        """Bits of whole numbers with a scale; 0 for other values."""
        return int(self.values[3:]) if self.values.startswith("int") else 0


RAW = Encoding()


def parse_encoding(text: str) -> Encoding:
    """An encoding from its spelling.

    Raises:
        MdlcError: it is none.
    """
    match = re.fullmatch(r"(raw|fp16|bf16|int[4-8]|clustered:([2-8]))(\+huffman)?", text)
    if match is None or (match[1][:3] == "int" and match[1] != "int8" and not match[3]):
        raise MdlcError(f"{text!r} is not an encoding", node="--weights-encoding", hint=_HINT)
    values = match[1].partition(":")[0]
    return Encoding(values, int(match[2] or 0), match[3] is not None)


@dataclass(frozen=True)
class Quantised:
    """Weights as codes.

    Attributes:
        codes: bytes [planes, ...] of every weight, the low byte first; all zero for zero.
        table: float32 scales of the output channels or values of the codebook; maybe empty.
        decoded: the float32 weights that a decoder gets back.
        lowest: of whole numbers, what a byte of its low 8 bits stands for at least.
    """

    encoding: Encoding
    codes: Array
    table: Array
    decoded: Array
    lowest: int = -128

    def error(self, weights: Array) -> float:
        """The norm of the difference relative to that of the weights."""
        norm = float(np.linalg.norm(weights.astype(np.float64)))
        return float(np.linalg.norm((self.decoded - weights).astype(np.float64))) / (norm or 1.0)


def quantise(weights: Array, channels: Array, encoding: Encoding, layer: str) -> Quantised:
    """The codes of a layer's weights.

    Args:
        weights: float32.
        channels: the output channel of every weight, for scales.
        layer: its name, for messages.

    Raises:
        MdlcError: a weight is not finite, or too large for half precision.
    """
    weights = np.ascontiguousarray(weights, np.float32)
    if encoding.values == "raw":
        return Quantised(encoding, _planes(weights, 4), np.zeros(0, np.float32), weights)
    if not np.isfinite(weights).all():
        raise MdlcError(
            "a weight is not finite", node=f"layer {layer!r}", hint="use the encoding raw"
        )
    if encoding.values == "fp16":
        return _half(weights, encoding, layer)
    if encoding.values == "bf16":
        return _upper(weights, encoding)
    if encoding.integer:
        return _integers(weights, channels, encoding)
    return _clustered(weights, encoding)


def _planes(values: Array, count: int) -> Array:
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    data = np.frombuffer(little.tobytes(), np.uint8).reshape(*values.shape, count)
    return np.moveaxis(data, -1, 0)


def _half(weights: Array, encoding: Encoding, layer: str) -> Quantised:
    with np.errstate(over="ignore"):
        half = weights.astype(np.float16)
    if not np.isfinite(half).all():
        raise MdlcError(
            f"a weight of {np.abs(weights).max():g} is beyond half precision (65504)",
            node=f"layer {layer!r}",
            hint="use another encoding",
        )
    empty = np.zeros(0, np.float32)
    return Quantised(encoding, _planes(half, 2), empty, half.astype(np.float32))


def _upper(weights: Array, encoding: Encoding) -> Quantised:
    bits = weights.view(np.uint32).astype(np.uint64)
    upper = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    # A weight just below infinity would round to it.
    upper = np.where(upper & 0x7FFF == 0x7F80, upper - 1, upper).astype(np.uint16)
    decoded = (upper.astype(np.uint32) << 16).view(np.float32)
    return Quantised(encoding, _planes(upper, 2), np.zeros(0, np.float32), decoded)


def _integers(weights: Array, channels: Array, encoding: Encoding) -> Quantised:
    step = grid_step(weights) if encoding.integer == 8 else None
    if step is not None:
        numbers = np.rint(weights / step).astype(np.int16)
        codes = (numbers & 0xFF).astype(np.uint8)
        decoded = numbers.astype(np.float32) * step
        lowest = min(int(numbers.min()), 0)
        return Quantised(encoding, codes[None], np.array([step]), decoded, lowest)
    most = np.float32((1 << (encoding.integer - 1)) - 1)
    largest = np.zeros(int(channels.max()) + 1, np.float32)
    np.maximum.at(largest, channels.reshape(-1), np.abs(weights).reshape(-1))
    scales = np.maximum(largest / most, np.finfo(np.float32).tiny).astype(np.float32)
    own = scales[channels]
    residues = np.clip(np.rint(weights / own), -most, most).astype(np.int8)
    decoded = residues.astype(np.float32) * own
    return Quantised(encoding, residues.view(np.uint8)[None], scales, decoded)


def grid_step(weights: Array) -> np.float32 | None:
    """The step of which all weights are multiples, 0 and they within 256 of them; None if none."""
    distinct = np.unique(weights.reshape(-1))
    if not 3 <= len(distinct) <= 256:
        return None
    distinct = distinct.astype(np.float64)
    step = float(np.diff(distinct).min())
    numbers = np.rint(distinct / step)
    if max(numbers.max(), 0) - min(numbers.min(), 0) > 255:
        return None
    step = float((distinct * numbers).sum() / (numbers**2).sum())  # least squares
    off = np.abs(np.float32(step) * numbers - distinct).max()
    return np.float32(step) if off <= _OFF_GRID * step else None


def _clustered(weights: Array, encoding: Encoding) -> Quantised:
    flat = weights.reshape(-1)
    distinct = np.unique(flat + np.float32(0))  # -0 is 0
    most = 1 << encoding.bits
    zero = bool(np.any(distinct == 0))
    if len(distinct) <= most:
        book = distinct
    else:
        others = flat[flat != 0]
        book = kmeans(others, most - 1 if zero else most)
        book = np.unique(np.append(book, np.float32(0))) if zero else book
    edges = (book[1:].astype(np.float64) + book[:-1]) / 2
    nearest = np.searchsorted(edges, flat.astype(np.float64), side="left")
    if zero:  # index 0 means zero
        at = int(np.flatnonzero(book == 0)[0])
        nearest[flat == 0] = at
        moved = np.arange(len(book))
        moved[:at] += 1
        moved[at] = 0
        nearest = moved[nearest]
        book = np.concatenate([book[at : at + 1], book[:at], book[at + 1 :]])
    codes = nearest.astype(np.uint8).reshape(weights.shape)
    return Quantised(encoding, codes[None], book, book[codes])


def kmeans(values: Array, clusters: int) -> Array:
    """Centroids of one-dimensional k-means (Lloyd's), ascending, from an even start.

    Clusters that lose all their values are left out.
    """
    if len(values) > _SAMPLE:
        values = np.random.default_rng(0).choice(values, _SAMPLE, replace=False)
    values = np.sort(values.astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    centroids = np.linspace(values[0], values[-1], clusters)
    for _ in range(_MAX_ROUNDS):
        edges = np.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2, side="left")
        bounds = np.concatenate([[0], edges, [len(values)]])
        counts = np.diff(bounds)
        means = np.diff(sums[bounds])[counts > 0] / counts[counts > 0]
        if len(means) == len(centroids) and np.array_equal(means, centroids):
            break
        centroids = means
    return np.asarray(np.unique(centroids.astype(np.float32)))
