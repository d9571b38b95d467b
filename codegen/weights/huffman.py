"""Canonical Huffman codes of byte symbols, written as four interleaved streams of bits.

Code lengths come from package-merge (Larmore and Hirschberg, "A Fast Algorithm for Optimal
Length-Limited Huffman Codes", J. ACM 37(3), 1990) and are at most LONGEST, so that a decoder needs
one lookup a symbol in a table that stays in the first cache. A table is stored as its code
lengths alone. Symbol i goes to stream i mod STREAMS: the decoder works on all of them at once, so
that no lookup waits for the one before it.

Bits fill bytes from the least significant on; a code's first bit comes first.
"""

from __future__ import annotations

import struct

import numpy as np

from mdlc.compiler.types import Array

LONGEST = 11
STREAMS = 4


def code_lengths(counts: Array, longest: int = LONGEST) -> Array:
    """Lengths [256] of an optimal prefix code, 0 for symbols that do not occur.

    The code is complete: where only one symbol occurs, a neighbour gets a code as well.

    Args:
        counts: how often each of the 256 symbols occurs; at least one does.
    """
    counts = np.asarray(counts, np.int64).copy()
    used = np.flatnonzero(counts)
    if len(used) == 1:
        neighbour = int(used[0]) ^ 1
        used = np.sort(np.append(used, neighbour))
    leaves: list[tuple[int, tuple[int, ...]]] = sorted((int(counts[s]), (int(s),)) for s in used)
    packages = list(leaves)
    for _ in range(longest - 1):
        pairs = zip(packages[::2], packages[1::2], strict=False)
        merged = [(a[0] + b[0], a[1] + b[1]) for a, b in pairs]
        packages = sorted(leaves + merged, key=lambda package: package[0])
    lengths = np.zeros(256, np.int64)
    for _, symbols in packages[: 2 * len(leaves) - 2]:
        for symbol in symbols:
            lengths[symbol] += 1
    return lengths


def canonical_codes(lengths: Array) -> Array:
    """The codes [256] of given lengths, their bits reversed as they are written.

    Codes of one length are consecutive in the order of their symbols, shorter ones first.
    """
    codes = np.zeros(256, np.int64)
    code = 0
    for length in range(1, LONGEST + 1):
        code <<= 1
        for symbol in np.flatnonzero(lengths == length):
            codes[symbol] = int(f"{code:0{length}b}"[::-1], 2)
            code += 1
    return codes


def stored_lengths(lengths: Array) -> bytes:
    """A table in the file: first symbol, number of symbols less one, and 4 bits a length."""
    used = np.flatnonzero(lengths)
    first, last = int(used[0]), int(used[-1])
    nibbles = lengths[first : last + 1].astype(np.uint8)
    nibbles = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8))
    return bytes([first, last - first]) + (nibbles[::2] | nibbles[1::2] << 4).tobytes()


def coded(symbols: Array, lengths: Array) -> bytes:
    """Symbols as four streams, behind the bytes of each (4 u32)."""
    codes = canonical_codes(lengths)
    streams = [_bits(codes[part], lengths[part]) for part in _interleaved(symbols)]
    return struct.pack("<4I", *map(len, streams)) + b"".join(streams)


def coded_bytes(symbols: Array, lengths: Array) -> int:
    """The length of what `coded` makes."""
    sums = [int(lengths[part].sum()) for part in _interleaved(symbols)]
    return 4 * STREAMS + sum(-(-bits // 8) for bits in sums)


def _interleaved(symbols: Array) -> list[Array]:
    return [symbols[first::STREAMS] for first in range(STREAMS)]


def _bits(codes: Array, lengths: Array) -> bytes:
    """Codes one behind the other."""
    if not len(codes):
        return b""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    shifted = codes << (starts & 7)
    total = -(-int(ends[-1]) // 8)
    data = np.zeros(total + 3)
    for byte in range(3):  # a code touches three bytes at most; their bits do not overlap
        part = (shifted >> 8 * byte) & 0xFF
        data += np.bincount((starts >> 3) + byte, part, minlength=total + 3)
    return data[:total].astype(np.uint8).tobytes()
