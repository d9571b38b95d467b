"""The weights file: a header that says what it belongs to, then aligned, packed arrays.

All numbers are little-endian. The header's 64 bytes:

    0  magic "MDLCWTS\\0"          8  format version (u32)    12  header bytes (u32)
    16 target's name (16 bytes)    32 plan digest (16 bytes)   48  payload bytes (u64)
    56 CRC-32 of the payload       60 CRC-32 of the 60 bytes before

CRC-32 is that of ISO 3309 and zlib. The payload's arrays lie at multiples of 64 bytes, so that
a mapped file can be computed on as it is. Where weights are encoded, the format version is 2 and
the payload is that of codegen/weights/sections.py, which `Init` decodes into memory laid out as
the payload of version 1 is.
"""

from __future__ import annotations

import struct
import zlib

from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.weights.packing_order import FIELD
from mdlc.codegen.weights.sections import Payload, arrange

MAGIC = b"MDLCWTS\0"
VERSION = 1
ENCODED_VERSION = 2
HEADER_BYTES = 64


def version(plan: Plan) -> int:
    """The format of a plan's weights file."""
    return ENCODED_VERSION if plan.encoded else VERSION


def header(plan: Plan, payload: bytes) -> bytes:
    """The 64 bytes in front of the payload."""
    first = struct.pack(
        "<8sII16s16sQI",
        MAGIC,
        version(plan),
        HEADER_BYTES,
        plan.backend.name.encode(),
        plan.digest()[:16],
        len(payload),
        zlib.crc32(payload),
    )
    return first + struct.pack("<I", zlib.crc32(first))


def payload_of(plan: Plan) -> Payload:
    """What stands where in the payload of a plan with encoded weights."""
    blobs = [(b.step, b.field, b.offset, b.nbytes) for b in plan.blobs()]
    numbered = {step.name: step.kernel.numbers for step in plan.layers if step.kernel.numbers}
    return arrange(blobs, dict(plan.encoded), FIELD, numbered)


def payload(plan: Plan) -> bytes:
    """The packed arrays of all layers, in order, aligned; or the encoded payload."""
    data = bytearray(plan.weight_bytes)
    arrays = {
        (step.name, name): array for step in plan.layers for name, array in step.weights.items()
    }
    for blob in plan.blobs():
        array = arrays[blob.step, blob.field]
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        data[blob.offset : blob.offset + blob.nbytes] = little.tobytes()
    return _encoded(plan, bytes(data)) if plan.encoded else bytes(data)


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


def weights_file(plan: Plan) -> bytes:
    """The whole file."""
    body = payload(plan)
    return header(plan, body) + body
