"""The emitted text of frames: what the header declares, and the functions behind it."""

from __future__ import annotations

import math

from mdlc.codegen.frame.frame import FORMATS
from mdlc.codegen.frame.reference import REGION_BITS, REGION_WEIGHT_BITS
from mdlc.codegen.frame.spec import (
    COLOUR_BITS,
    GREY,
    LONGEST_SIDE,
    MOST_MEAN_PIXELS,
    FrameSpec,
    matrix,
)
from mdlc.codegen.templates import render

# Elements that are summed at once: a few hundred stay in the first-level cache.
_CHUNK = 256
# Lines are as long as whole vectors of bytes.
_VECTOR = 64
# Elements of an inner loop: vectors of bytes on AVX2, a divisor of usual sizes.
_LANES = 32
# Rows of a picture that are kept: all that Pillow's filters see while it shrinks by up to 15.
_ROWS = 32
_BYTES = {"std::uint8_t": 1, "std::int16_t": 2, "std::int32_t": 4, "std::uint32_t": 4}

# What the class and its source declare for frames.
FRAME_MEMBERS = frozenset(
    """
    Crop Frame Transform Layers frame frames kFrameCrop kFrameData kFrameFormat kFrameRegion
    kFrameRotation kFrameSize kFrameStride TransformTo
    """.split()  # noqa: SIM905
)


def _line(height: int, width: int) -> int:
    return -(-max(height, width) // _VECTOR) * _VECTOR


def _rows(spec: FrameSpec) -> int:
    kernel = spec.kernel
    if kernel.taps:
        return kernel.taps
    return 2 if kernel.support < 1 else _ROWS


def _weights(spec: FrameSpec, line: int) -> int:
    """Most weights of all pixels of a line, of full planes and of those of half the size."""
    support = spec.kernel.support
    most = math.ceil(2 * support * LONGEST_SIDE)
    return most + most // 2 + 2 * math.ceil(2 * support + 2) * line


def pad_bytes(spec: FrameSpec, height: int, width: int) -> int:
    """Bytes of working memory that a frame is converted in."""
    line, kernel, rows = _line(height, width), spec.kernel, _rows(spec)
    if kernel.taps:
        tables = 2 * 2 * line * kernel.taps * 4
    else:
        tables = (2 * line + 2 * (line + 1) + _weights(spec, line)) * 4
    between = _between(line, rows) * _BYTES[kernel.between]
    gathered = 4 * kernel.taps * line * _BYTES[kernel.between]
    lines = 4 * line * 4 + gathered + 7 * line
    total = tables + 3 * rows * 4 + between + lines + LONGEST_SIDE + _CHUNK + 8
    return -(-total // _VECTOR) * _VECTOR


def _between(line: int, rows: int) -> int:
    """Elements between the two sums: lines that are kept, or a row of a frame."""
    return max(rows * 4 * line, 4 * LONGEST_SIDE)


def _half(bits: int) -> int:
    return 1 << (bits - 1)


def declarations(height: int, width: int) -> str:
    """What the class declares."""
    packed = [(n, s[0].step) for n, s in FORMATS.items() if len(s) == 1]
    return render(
        "cpp/frame.h.j2",
        height=height,
        width=width,
        formats=[f"k{name}" for name in FORMATS],
        packed=packed,
    )


def functions(name: str, spec: FrameSpec, height: int, width: int, order: str) -> str:
    """The functions that read a frame, of the class's internal namespace.

    Args:
        name: the class. order: channels of the network's input: rgb, bgr, rgba or y.
    """
    line, rows, kernel = _line(height, width), _rows(spec), spec.kernel
    grey, grey_bits = GREY[spec.match]
    return render(
        "cpp/frame.cpp.j2",
        name=name,
        spec=spec,
        kernel=kernel,
        summary=summary(spec),
        height=height,
        width=width,
        channels=len(order),
        order=[{"r": "red", "g": "green", "b": "blue"}.get(c, c) for c in order],
        line=line,
        ring=rows,
        chunk=_CHUNK,
        vector=_LANES,
        longest=LONGEST_SIDE,
        most_mean=MOST_MEAN_PIXELS,
        between=kernel.between,
        weight="std::int16_t" if kernel.floors else "std::int32_t",
        between_size=_between(line, rows),
        sum="std::uint32_t" if kernel.divides else "std::int32_t",
        weights=_weights(spec, line),
        pad_bytes=pad_bytes(spec, height, width),
        matrix=matrix(spec.yuv),
        colour_bits=COLOUR_BITS,
        grey=grey,
        grey_bits=grey_bits,
        fill=spec.filled(len(order)),
        fills=spec.fit.startswith("letterbox"),
        fit=spec.fit.partition(":")[0],
        cornered=spec.fit.endswith("top-left"),
        kept_height=math.floor(height / spec.share),
        kept_width=math.floor(width / spec.share),
        region_bits=REGION_BITS,
        region_weight_bits=REGION_WEIGHT_BITS,
        nearest_note={"pillow": ", by steps that are added up, as Pillow does"}.get(spec.match, ""),
        half=_half,
    )


def summary(spec: FrameSpec) -> str:
    """How a frame becomes the network's input, in a sentence."""
    fits = {
        "letterbox": "the whole picture in the middle",
        "letterbox:top-left": "the whole picture in the upper left corner",
        "crop": "the middle of the picture",
        "stretch": "the picture stretched",
    }
    fit = fits.get(spec.fit) or f"the middle of the picture, {spec.share:g} of its shorter side"
    who = {"pillow": "Pillow", "opencv": "OpenCV", "tf": "TensorFlow"}[spec.match]
    filled = f", filled with {', '.join(map(str, spec.fill))}" if "letterbox" in spec.fit else ""
    return f"Frames: {fit}{filled}; {spec.resample} as {who} does; YUV is {spec.yuv}."
