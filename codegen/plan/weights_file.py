"""The weights file: a header that says what it belongs to, then aligned, packed arrays.

All numbers are little-endian. The header's 64 bytes:

    0  magic "MDLCWTS\\0"          8  format version (u32)    12  header bytes (u32)
    16 target's name (16 bytes)    32 plan digest (16 bytes)   48  payload bytes (u64)
    56 CRC-32 of the payload       60 CRC-32 of the 60 bytes before

CRC-32 is that of ISO 3309 and zlib. The payload's arrays lie at multiples of 64 bytes, so that
a mapped file can be computed on as it is. Where weights are encoded, the format version is 2 and
the payload is that of codegen/weights/sections.py, which `Init` decodes into memory laid out as
the payload of version 1 is.

The file of a class for several instruction sets has the arrays of the first, as its own class would
have them, then those of the others that are not there already and cannot be copied from one that is
(see codegen/weights/repack.py); target and digest are of all.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mdlc.codegen.plan.plan import ALIGNMENT, Plan
from mdlc.codegen.weights.packing_order import FIELD
from mdlc.codegen.weights.repack import Known, Packed, Repacking, repacking
from mdlc.codegen.weights.sections import Payload, arrange
from mdlc.compiler.types import Array

MAGIC = b"MDLCWTS\0"
VERSION = 1
ENCODED_VERSION = 2
HEADER_BYTES = 64


def version(plan: Plan) -> int:
    """The format of a plan's weights file."""
    return ENCODED_VERSION if plan.encoded else VERSION


@dataclass(frozen=True)
class Copied:
    """A packed array that `Init` makes of one in the file.

    Attributes:
        target: where it lies in the memory of its plan's copied arrays; nbytes: of it.
        source: where the other lies in memory of the file's arrays.
    """

    target: int
    nbytes: int
    source: int
    how: Repacking


@dataclass(frozen=True)
class Placed:
    """Where the packed arrays of a class's plans lie in memory, and in a file without encodings.

    Attributes:
        offsets: for each plan, by step and array; nbytes: of all together.
        copied: for each plan, those that are not in the file, likewise.
    """

    offsets: tuple[Mapping[tuple[str, str], int], ...]
    nbytes: int
    copied: tuple[Mapping[tuple[str, str], Copied], ...]

    def copied_bytes(self, number: int) -> int:
        """Memory of a plan's copied arrays."""
        ends = (copied.target + copied.nbytes for copied in self.copied[number].values())
        return _aligned(max(ends, default=0))


def placed(plans: Sequence[Plan], *, keep_all: bool = False) -> Placed:
    """The first plan's arrays as Plan.blobs has them, then what others have besides.

    Args:
        keep_all: all arrays are in the file, those as well that others can be copied to.
    """
    first = plans[0]
    offsets = [{(blob.step, blob.field): blob.offset for blob in first.blobs()}]
    kept: dict[bytes, int] = {}
    sources: dict[tuple[str, str], list[tuple[int, Packed]]] = {}
    for step in first.layers:
        for name in step.weights:
            offset = offsets[0][step.name, name]
            kept.setdefault(_known_by(step.weights[name]), offset)
            sources[step.name, name] = [(offset, Packed(step, first.backend, name))]
    copies: list[dict[tuple[str, str], Copied]] = [{}]
    end = first.weight_bytes
    found: Known = {}
    for plan in plans[1:]:
        own: dict[tuple[str, str], int] = {}
        made: dict[tuple[str, str], Copied] = {}
        filled = 0
        for step in plan.layers:
            for name, array in step.weights.items():
                at, digest = (step.name, name), _known_by(array)
                packed = Packed(step, plan.backend, name)
                had = sources.setdefault(at, [])
                if digest not in kept:
                    copy = None if keep_all else _copied_from(had, packed, filled, found)
                    if copy is not None:
                        made[at] = copy
                        filled += _aligned(array.nbytes)
                        continue
                    kept[digest] = end
                    had.append((end, packed))
                    end += _aligned(array.nbytes)
                own[at] = kept[digest]
        offsets.append(own)
        copies.append(made)
    return Placed(tuple(offsets), end, tuple(copies))


def _copied_from(
    had: Sequence[tuple[int, Packed]], packed: Packed, target: int, known: Known
) -> Copied | None:
    """How an array is made of one of those of its layer that are in the file, if it can be."""
    for offset, other in had:
        how = repacking(other, packed, known)
        if how is not None:
            return Copied(target, packed.array.nbytes, offset, how)
    return None


def _known_by(array: Array) -> bytes:
    return hashlib.sha256(array.dtype.str.encode() + _little(array)).digest()


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def digest(plans: Sequence[Plan], where: Placed) -> bytes:
    """The 16 bytes by which a class knows its own file."""
    first, *others = (plan.digest() for plan in plans)
    if not others:
        return first[:16]
    return hashlib.sha256(b"".join((first, *others, str(where.nbytes).encode()))).digest()[:16]


def stored_bytes(plans: Sequence[Plan], where: Placed) -> int:
    """The length of a class's weights file, or of what is embedded."""
    first = plans[0]
    return HEADER_BYTES + (payload_of(first).nbytes if first.encoded else where.nbytes)


def header(plans: Sequence[Plan], where: Placed, payload: bytes) -> bytes:
    """The 64 bytes in front of the payload."""
    plan = plans[0]
    first = struct.pack(
        "<8sII16s16sQI",
        MAGIC,
        version(plan),
        HEADER_BYTES,
        plan.backend.name.encode(),
        digest(plans, where),
        len(payload),
        zlib.crc32(payload),
    )
    return first + struct.pack("<I", zlib.crc32(first))


def payload_of(plan: Plan) -> Payload:
    """What stands where in the payload of a plan with encoded weights."""
    blobs = [(b.step, b.field, b.offset, b.nbytes) for b in plan.blobs()]
    numbered = {step.name: step.kernel.numbers for step in plan.layers if step.kernel.numbers}
    return arrange(blobs, dict(plan.encoded), FIELD, numbered)


def payload(plans: Sequence[Plan], where: Placed) -> bytes:
    """The packed arrays of all layers, in order, aligned; or the encoded payload."""
    data = bytearray(where.nbytes)
    for plan, offsets in zip(plans, where.offsets, strict=True):
        arrays = _arrays(plan)
        for key, offset in offsets.items():
            data[offset : offset + arrays[key].nbytes] = _little(arrays[key])
    return _encoded(plans[0], bytes(data)) if plans[0].encoded else bytes(data)


def _arrays(plan: Plan) -> dict[tuple[str, str], Array]:
    """The packed arrays of all layers."""
    return {(step.name, name): a for step in plan.layers for name, a in step.weights.items()}


def _little(array: Array) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _encoded(plan: Plan, decoded: bytes) -> bytes:
    found = payload_of(plan)
    data = bytearray(found.nbytes)
    for part in found.stored:
        data[part.offset : part.offset + part.nbytes] = decoded[
            part.target : part.target + part.nbytes
        ]
    for section in found.sections:
        coded = section.weights.data
        data[section.offset : section.offset + len(coded)] = coded
    for piece in found.numbers:
        data[piece.offset : piece.offset + len(piece.numbers.data)] = piece.numbers.data
    return bytes(data)


def weights_file(plans: Sequence[Plan], where: Placed | None = None) -> bytes:
    """The whole file of a class; plans: of all its instruction sets."""
    where = where or placed(plans)
    body = payload(plans, where)
    return header(plans, where, body) + body
