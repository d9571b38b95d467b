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
have them, then those of the others that are not there already; target and digest are of all.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mdlc.codegen.plan.plan import ALIGNMENT, Plan
from mdlc.codegen.weights.packing_order import FIELD
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
class Placed:
    """Where the packed arrays of a class's plans lie in memory, and in a file without encodings.

    Attributes:
        offsets: for each plan, by step and array; nbytes: of all together.
    """

    offsets: tuple[Mapping[tuple[str, str], int], ...]
    nbytes: int


def placed(plans: Sequence[Plan]) -> Placed:
    """The first plan's arrays as Plan.blobs has them, then what others have besides."""
    found: list[dict[tuple[str, str], int]] = []
    known: dict[bytes, int] = {}
    end = plans[0].weight_bytes
    for plan in plans:
        own: dict[tuple[str, str], int] = {}
        arrays = _arrays(plan)
        for blob in plan.blobs():
            key = hashlib.sha256(
                blob.dtype.encode() + _little(arrays[blob.step, blob.field])
            ).digest()
            if plan is plans[0]:
                known.setdefault(key, blob.offset)
                own[blob.step, blob.field] = blob.offset
                continue
            if key not in known:
                known[key] = end
                end += -(-blob.nbytes // ALIGNMENT) * ALIGNMENT
            own[blob.step, blob.field] = known[key]
        found.append(own)
    return Placed(tuple(found), end)


def digest(plans: Sequence[Plan]) -> bytes:
    """The 16 bytes by which a class knows its own file."""
    first, *others = (plan.digest() for plan in plans)
    return hashlib.sha256(b"".join((first, *others))).digest()[:16] if others else first[:16]


def stored_bytes(plans: Sequence[Plan]) -> int:
    """The length of a class's weights file, or of what is embedded."""
    first = plans[0]
    body = payload_of(first).nbytes if first.encoded else placed(plans).nbytes
    return HEADER_BYTES + body


def header(plan: Plan, payload: bytes, others: Sequence[Plan] = ()) -> bytes:
    """The 64 bytes in front of the payload."""
    first = struct.pack(
        "<8sII16s16sQI",
        MAGIC,
        version(plan),
        HEADER_BYTES,
        plan.backend.name.encode(),
        digest((plan, *others)),
        len(payload),
        zlib.crc32(payload),
    )
    return first + struct.pack("<I", zlib.crc32(first))


def payload_of(plan: Plan) -> Payload:
    """What stands where in the payload of a plan with encoded weights."""
    blobs = [(b.step, b.field, b.offset, b.nbytes) for b in plan.blobs()]
    numbered = {step.name: step.kernel.numbers for step in plan.layers if step.kernel.numbers}
    return arrange(blobs, dict(plan.encoded), FIELD, numbered)


def payload(plan: Plan, others: Sequence[Plan] = ()) -> bytes:
    """The packed arrays of all layers, in order, aligned; or the encoded payload."""
    plans = (plan, *others)
    found = placed(plans)
    data = bytearray(found.nbytes)
    for each, offsets in zip(plans, found.offsets, strict=True):
        for key, array in _arrays(each).items():
            data[offsets[key] : offsets[key] + array.nbytes] = _little(array)
    return _encoded(plan, bytes(data)) if plan.encoded else bytes(data)


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


def weights_file(plan: Plan, others: Sequence[Plan] = ()) -> bytes:
    """The whole file; others: plans of the same class for other instruction sets."""
    body = payload(plan, others)
    return header(plan, body, others) + body
