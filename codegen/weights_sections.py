"""The payload of an encoded weights file, and what `Init` must know to decode it.

Packed arrays that are not encoded come first, at multiples of 4 bytes. Then, for each encoded
layer, at a multiple of 4 bytes:

    float32 table: scales of the channels (int8) or the codebook (clustered)
    where only weights that are not zero are stored: a plane of gaps, the zeros before each;
        after MOST_GAP zeros stands a weight even if it is zero
    planes of bytes: one of each weight (raw has 4, fp16 and bf16 2), low bytes of all weights first

A plane is the bytes themselves, or with Huffman codes: a table of code lengths, then four
streams (see codegen/huffman.py). Indices of B bits are such streams without a table, every code
B bits long. Sizes and counts stand in the emitted source, not in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mdlc.codegen.huffman import code_lengths, coded, coded_bytes, stored_lengths
from mdlc.codegen.weights_encoding import Encoding, Quantised
from mdlc.codegen.weights_layout import Layout
from mdlc.compiler.types import Array

MOST_GAP = 255


@dataclass(frozen=True)
class EncodedWeights:
    """One layer's weights as they stand in the file.

    Attributes:
        data: its section; table: floats in front of it.
        entries: stored weights; fewer than `count` where zeros are left out.
        count: weights; sparse: whether there is a plane of gaps.
        error: norm of the difference to the weights of the model, relative to theirs.
    """

    encoding: Encoding
    layout: Layout
    data: bytes
    table: int
    entries: int
    count: int
    sparse: bool
    error: float


def encode(quantised: Quantised, layout: Layout, error: float) -> EncodedWeights:
    """The section of a layer; Huffman codes and gaps are used where they make it shorter."""
    encoding = quantised.encoding
    codes = quantised.codes.reshape(len(quantised.codes), -1)[:, layout.order]
    plain = replace(encoding, huffman=False)
    chosen, used = [_Plane.of(plane, plain) for plane in codes], plain
    entries, sparse = codes.shape[1], False
    if encoding.huffman:
        dense = [_Plane.of(plane, encoding) for plane in codes]
        if _total(dense) < _total(chosen):
            chosen, used = dense, encoding
        gaps, kept = split_gaps(codes)
        split = [_Plane.of(plane, encoding) for plane in (gaps, *codes[:, kept])]
        if len(kept) and _total(split) < _total(chosen):
            chosen, used, entries, sparse = split, encoding, len(kept), True
    table = quantised.table.astype("<f4")
    data = table.tobytes() + b"".join(plane.data() for plane in chosen)
    return EncodedWeights(used, layout, data, len(table), entries, codes.shape[1], sparse, error)


def _total(planes: Sequence[_Plane]) -> int:
    return sum(plane.nbytes for plane in planes)


def split_gaps(codes: Array) -> tuple[Array, Array]:
    """The zeros before each stored weight, and where the stored weights are.

    A weight that is zero is stored behind MOST_GAP others, so that a gap is one byte.

    Args:
        codes: bytes [planes, weights].
    """
    nonzero = np.flatnonzero(codes.any(axis=0))
    before = np.diff(np.append(-1, nonzero)) - 1
    fillers = before // (MOST_GAP + 1)
    gaps = np.full(len(nonzero) + int(fillers.sum()), MOST_GAP, np.int64)
    gaps[np.cumsum(fillers + 1) - 1] = before % (MOST_GAP + 1)
    kept = np.cumsum(gaps + 1) - 1
    return gaps.astype(np.uint8), kept


@dataclass(frozen=True)
class _Plane:
    symbols: Array
    lengths: Array | None
    stored: bool

    @classmethod
    def of(cls, symbols: Array, encoding: Encoding) -> _Plane:
        if encoding.huffman:
            counts = np.bincount(symbols, minlength=256)
            return cls(symbols, code_lengths(counts) if len(symbols) else None, True)
        if encoding.bits:
            lengths = np.zeros(256, np.int64)
            lengths[: 1 << encoding.bits] = encoding.bits
            return cls(symbols, lengths, False)
        return cls(symbols, None, False)

    @property
    def nbytes(self) -> int:
        if self.lengths is None:
            return len(self.symbols)
        head = len(stored_lengths(self.lengths)) if self.stored else 0
        return head + coded_bytes(self.symbols, self.lengths)

    def data(self) -> bytes:
        if self.lengths is None:
            return self.symbols.astype(np.uint8).tobytes()
        head = stored_lengths(self.lengths) if self.stored else b""
        return head + coded(self.symbols, self.lengths)


@dataclass(frozen=True)
class Section:
    """An encoded layer in the payload: where from, and where to in the decoded weights."""

    step: str
    weights: EncodedWeights
    offset: int
    target: int
    target_bytes: int


@dataclass(frozen=True)
class Stored:
    """An array that stands in the payload as it is: (offset, place in the decoded weights)."""

    offset: int
    target: int
    nbytes: int


@dataclass(frozen=True)
class Payload:
    """What stands where in an encoded file."""

    stored: tuple[Stored, ...]
    sections: tuple[Section, ...]
    nbytes: int


def arrange(
    blobs: Sequence[tuple[str, str, int, int]], encoded: dict[str, EncodedWeights], field: str
) -> Payload:
    """Places arrays and sections.

    Args:
        blobs: step, field, offset in the decoded weights and bytes of every packed array.
        encoded: by step, what stands for its array `field`.
    """
    at = 0
    stored: list[Stored] = []
    for step, name, target, nbytes in blobs:
        if name == field and step in encoded:
            continue
        stored.append(Stored(at, target, nbytes))
        at += -(-nbytes // 4) * 4
    sections = []
    for step, name, target, nbytes in blobs:
        if name == field and step in encoded:
            sections.append(Section(step, encoded[step], at, target, nbytes))
            at += -(-len(encoded[step].data) // 4) * 4
    return Payload(tuple(stored), tuple(sections), at)
