"""The payload of an encoded weights file, and what `Init` must know to decode it.

Packed arrays that are not encoded come first, at multiples of 4 bytes. Then, for each encoded
layer, at a multiple of 4 bytes:

    float32 table: scales of the channels (int8) or the codebook (clustered)
    where only weights that are not zero are stored: a plane of gaps, the zeros before each;
        after MAX_GAP zeros stands a weight even if it is zero
    planes of bytes: one of each weight (raw has 4, fp16 and bf16 2), low bytes of all weights first

and for the 16-bit numbers of a sparse layer two planes of their differences, the low bytes first.

A plane is the bytes themselves, or with Huffman codes: a table of code lengths, then four
streams (see codegen/weights/huffman.py). Indices of B bits are such streams without a table, every
code B bits long. Sizes and counts stand in the emitted source, not in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mdlc.codegen.weights.encoding import Encoding, Quantised
from mdlc.codegen.weights.huffman import code_lengths, coded, coded_bytes, stored_lengths
from mdlc.codegen.weights.packing_order import Layout
from mdlc.compiler.types import Array

MAX_GAP = 255
# Planes of raw weights that are never coded: of trained weights they are noise.
_NOISE = 2


@dataclass(frozen=True)
class EncodedNumbers:
    """16-bit numbers as differences, in Huffman codes.

    Attributes:
        data: as it stands in the file; count: numbers; limit: none is as large.
    """

    data: bytes
    count: int
    limit: int


def encode_numbers(numbers: Array) -> EncodedNumbers | None:
    """Numbers that mostly ascend a little; None where codes are no shorter."""
    if not len(numbers):
        return None
    values = numbers.astype(np.int64)
    steps = (values - np.concatenate([[0], values[:-1]])) & 0xFFFF
    huffman = Encoding("raw", huffman=True)
    planes = [_Plane.of(part.astype(np.uint8), huffman) for part in (steps & 0xFF, steps >> 8)]
    if _total(planes) >= 2 * len(numbers):
        return None
    data = b"".join(plane.data() for plane in planes)
    return EncodedNumbers(data, len(numbers), int(numbers.max()) + 1)


@dataclass(frozen=True)
class EncodedWeights:
    """One layer's weights as they stand in the file.

    Attributes:
        data: its section; table: floats in front of it.
        entries: stored weights; fewer than `count` where zeros are left out.
        count: weights; sparse: whether there is a plane of gaps.
        error: norm of the difference to the weights of the model, relative to theirs.
        lowest: see Quantised; plain: a bit for every plane that is not coded.
        numbers: of the layer, where they are coded.
    """

    encoding: Encoding
    layout: Layout
    data: bytes
    table: int
    entries: int
    count: int
    sparse: bool
    error: float
    lowest: int = -128
    plain: int = 0
    numbers: EncodedNumbers | None = None


def encode(
    quantised: Quantised, layout: Layout, error: float, numbers: EncodedNumbers | None = None
) -> EncodedWeights:
    """The section of a layer; Huffman codes and gaps are used where they make it shorter."""
    encoding = quantised.encoding
    codes = quantised.codes.reshape(len(quantised.codes), -1)[:, layout.order]
    plain = replace(encoding, huffman=False)
    chosen, used = [_Plane.of(plane, plain) for plane in codes], plain
    entries, sparse = codes.shape[1], False
    if encoding.huffman:
        dense = _coded(codes, encoding)
        if _total(dense) < _total(chosen):
            chosen, used = dense, encoding
        gaps, kept = split_gaps(codes)
        split = [_Plane.of(gaps, encoding), *_coded(codes[:, kept], encoding)]
        if len(kept) and _total(split) < _total(chosen):
            chosen, used, entries, sparse = split, encoding, len(kept), True
    table = quantised.table.astype("<f4")
    data = table.tobytes() + b"".join(plane.data() for plane in chosen)
    uncoded = 0
    if used.huffman:
        planes = chosen[-len(codes) :]
        uncoded = sum(1 << i for i, plane in enumerate(planes) if plane.lengths is None)
    return EncodedWeights(
        used, layout, data, len(table), entries, codes.shape[1], sparse, error,
        quantised.lowest, uncoded, numbers,
    )  # fmt: skip


def _coded(planes: Array, encoding: Encoding) -> list[_Plane]:
    """Planes in Huffman codes, those excepted that are no shorter so."""
    found = []
    for number, symbols in enumerate(planes):
        plain = _Plane(symbols, None, False)
        coded_ = _Plane.of(symbols, encoding)
        noise = encoding.values == "raw" and number < _NOISE
        found.append(plain if noise or coded_.nbytes >= plain.nbytes else coded_)
    return found


def _total(planes: Sequence[_Plane]) -> int:
    return sum(plane.nbytes for plane in planes)


def split_gaps(codes: Array) -> tuple[Array, Array]:
    """The zeros before each stored weight, and where the stored weights are.

    A weight that is zero is stored behind MAX_GAP others, so that a gap is one byte.

    Args:
        codes: bytes [planes, weights].
    """
    nonzero = np.flatnonzero(codes.any(axis=0))
    before = np.diff(np.append(-1, nonzero)) - 1
    fillers = before // (MAX_GAP + 1)
    gaps = np.full(len(nonzero) + int(fillers.sum()), MAX_GAP, np.int64)
    gaps[np.cumsum(fillers + 1) - 1] = before % (MAX_GAP + 1)
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
class NumbersSection:
    """A layer's numbers in the payload: where from, and where to."""

    step: str
    numbers: EncodedNumbers
    offset: int
    target: int


@dataclass(frozen=True)
class Payload:
    """What stands where in an encoded file."""

    stored: tuple[Stored, ...]
    sections: tuple[Section, ...]
    numbers: tuple[NumbersSection, ...]
    nbytes: int


def arrange(
    blobs: Sequence[tuple[str, str, int, int]],
    encoded: dict[str, EncodedWeights],
    field: str,
    numbered: dict[str, str],
) -> Payload:
    """Places arrays and sections.

    Args:
        blobs: step, field, offset in the decoded weights and bytes of every packed array.
        encoded: by step, what stands for its array `field`.
        numbered: by step, the array that its encoded numbers stand for.
    """
    at = 0
    stored: list[Stored] = []
    coded_numbers = {
        step: numbers for step, e in encoded.items() if (numbers := e.numbers) is not None
    }
    for step, name, target, nbytes in blobs:
        if name == field and step in encoded:
            continue
        if step in coded_numbers and numbered.get(step) == name:
            continue
        stored.append(Stored(at, target, nbytes))
        at += -(-nbytes // 4) * 4
    sections = []
    for step, name, target, nbytes in blobs:
        if name == field and step in encoded:
            sections.append(Section(step, encoded[step], at, target, nbytes))
            at += -(-len(encoded[step].data) // 4) * 4
    numbers_sections = []
    for step, name, target, _ in blobs:
        if step in coded_numbers and numbered.get(step) == name:
            numbers_sections.append(NumbersSection(step, coded_numbers[step], at, target))
            at += -(-len(coded_numbers[step].data) // 4) * 4
    return Payload(tuple(stored), tuple(sections), tuple(numbers_sections), at)
