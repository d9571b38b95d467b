"""A camera's frame in NumPy: planes as Android, iOS and files give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """Where some channels of a format lie.

    Attributes:
        plane: index of the plane; step: bytes from pixel to pixel.
        channels: what lies there, by the byte in a pixel: R, G, B, A, Y, U or V.
        sub: 2 where the plane has a sample for 2x2 pixels.
        wide: samples are 16 bits, little-endian, of which the upper ones count.
    """

    plane: int
    step: int
    channels: tuple[tuple[str, int], ...]
    sub: int = 1
    wide: bool = False


def _packed(order: str) -> tuple[Source, ...]:
    return (Source(0, len(order), tuple((name, at) for at, name in enumerate(order))),)


def _planar(u: int, v: int) -> tuple[Source, ...]:
    luma = Source(0, 1, (("Y", 0),))
    return luma, Source(u, 1, (("U", 0),), 2), Source(v, 1, (("V", 0),), 2)


# Formats by name; the numbers are those of the emitted Frame::Format.
FORMATS: dict[str, tuple[Source, ...]] = {
    "NV12": (Source(0, 1, (("Y", 0),)), Source(1, 2, (("U", 0), ("V", 1)), 2)),
    "NV21": (Source(0, 1, (("Y", 0),)), Source(1, 2, (("V", 0), ("U", 1)), 2)),
    "I420": _planar(1, 2),
    "YUV_420_888": _planar(1, 2),
    "P010": (Source(0, 2, (("Y", 0),), 1, True), Source(1, 4, (("U", 0), ("V", 2)), 2, True)),
    "BGRA": _packed("BGRA"),
    "RGBA": _packed("RGBA"),
    "RGB": _packed("RGB"),
    "BGR": _packed("BGR"),
    "GRAY": _packed("Y"),
}


@dataclass(frozen=True)
class Frame:
    """A frame and how to look at it.

    Attributes:
        planes: bytes of each plane, from its first pixel on; strides: bytes from row to row.
        steps: bytes from pixel to pixel of each plane, for YUV_420_888; empty: the format's.
        rotation: degrees clockwise that make the picture upright: 0, 90, 180 or 270.
        mirror: left and right are exchanged, after the rotation.
        crop: x, y, width, height in the frame as it lies in memory; None: all of it.
        region: six numbers of an affine from the network's pixels to the frame's (see Transform
            in the emitted header), instead of all three.
        region_columns: how many columns of the input it fills, the others are fill; 0: all.
    """

    format: str
    width: int
    height: int
    planes: tuple[Bytes, ...]
    strides: tuple[int, ...]
    steps: tuple[int, ...] = ()
    rotation: int = 0
    mirror: bool = False
    crop: tuple[int, int, int, int] | None = None
    region: tuple[float, ...] | None = None
    region_columns: int = 0

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where its channels lie."""
        return FORMATS[self.format]

    def step(self, source: Source) -> int:
        """Bytes from pixel to pixel."""
        return self.steps[source.plane] if self.steps else source.step

    def channels(self) -> dict[str, tuple[NDArray[np.int64], int]]:
        """Every channel as an array of 8-bit values, with how many pixels a sample stands for."""
        found: dict[str, tuple[NDArray[np.int64], int]] = {}
        for source in self.sources:
            height, width = -(-self.height // source.sub), -(-self.width // source.sub)
            data, step = self.planes[source.plane], self.step(source)
            rows = np.arange(height)[:, None] * self.strides[source.plane]
            for name, at in source.channels:
                places = rows + np.arange(width)[None, :] * step + at
                values = data[places].astype(np.int64)
                if source.wide:
                    values += data[places + 1].astype(np.int64) << 8
                    values = np.minimum(values + 128 >> 8, 255)
                found[name] = values, source.sub
        return found


def of_pixels(pixels: Bytes, **how: Any) -> Frame:
    """A picture, [height, width, 1 | 3 | 4], as a GRAY, RGB or RGBA frame."""
    height, width, count = pixels.shape
    name = {1: "GRAY", 3: "RGB", 4: "RGBA"}[count]
    return Frame(name, width, height, (np.ascontiguousarray(pixels).ravel(),),
                 (width * count,), **how)  # fmt: skip


def luma_sizes(format_name: str, width: int, height: int) -> Sequence[tuple[int, int]]:
    """Bytes of a row without padding, and rows, of each plane of a format."""
    found: dict[int, tuple[int, int]] = {}
    for source in FORMATS[format_name]:
        found[source.plane] = -(-width // source.sub) * source.step, -(-height // source.sub)
    return [found[plane] for plane in sorted(found)]
