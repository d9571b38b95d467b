"""The arithmetic of frames in NumPy: what the emitted class computes, bit for bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdlc.codegen.frame.frame import Bytes, Frame
from mdlc.codegen.frame.geometry import Axis, Taps, placement, taps
from mdlc.codegen.frame.spec import COLOUR_BITS, GREY, FrameSpec, matrix

Ints = NDArray[np.int64]
# Positions of regions: fractional bits of a pixel, and of weights.
REGION_BITS = 16
REGION_WEIGHT_BITS = 11


def convert(frame: Frame, spec: FrameSpec, height: int, width: int, order: str) -> Bytes:
    """The network's input, [height, width, channels].

    Args:
        order: its channels: rgb, bgr, rgba, bgra or y.
    """
    fill = np.array(spec.filled(len(order)), np.uint8)
    result = np.broadcast_to(fill, (height, width, len(order))).copy()
    if frame.region is not None:
        lines, inside = _region(frame, spec, height, width)
        result[inside] = _coloured(lines, spec, order)[inside]
        return result
    x, y, w, h = frame.crop or (0, 0, frame.width, frame.height)
    turned = frame.rotation in (90, 270)
    place = placement(spec, (h, w) if turned else (w, h), (width, height))
    left, top = max(place.left, 0), max(place.top, 0)
    columns = min(width - left, place.width + min(place.left, 0))
    rows = min(height - top, place.height + min(place.top, 0))
    found = {}
    for name, (plane, sub) in frame.channels().items():
        x0, x1, y0, y1 = x // sub, -(-(x + w) // sub), y // sub, -(-(y + h) // sub)
        part = np.rot90(plane[y0:y1, x0:x1], -frame.rotation // 90)
        part = part[:, ::-1] if frame.mirror else part
        # Pixels of the first sample before the crop, from either end.
        ends = {"x": (x - x0 * sub, x1 * sub - x - w), "y": (y - y0 * sub, y1 * sub - y - h)}
        across, down = ("y", "x") if turned else ("x", "y")
        across_back = (frame.rotation in (90, 180)) != frame.mirror
        down_back = frame.rotation in (180, 270)
        before = ends[across][across_back], ends[down][down_back]
        lengths = (h, w) if turned else (w, h)
        axes = [
            Axis(length, out, sub, samples, first, skip, count)
            for length, out, samples, first, skip, count in (
                (lengths[0], place.width, part.shape[1], before[0], -min(place.left, 0), columns),
                (lengths[1], place.height, part.shape[0], before[1], -min(place.top, 0), rows),
            )
        ]
        along_rows, along_columns = taps(spec, axes[0], True), taps(spec, axes[1], False)
        found[name] = _resampled(part, along_rows, along_columns, spec)
    result[top : top + rows, left : left + columns] = _coloured(found, spec, order)
    return result


def _resampled(plane: Ints, x: Taps, y: Taps, spec: FrameSpec) -> Ints:
    kernel = spec.kernel
    between = (plane[:, x.index] * x.weight).sum(2)
    if not kernel.floors and kernel.first:
        between += 1 << (kernel.first - 1)
    between >>= kernel.first
    if kernel.bytes_between:
        between = np.clip(between, 0, 255)
    products = between[y.index] * y.weight[:, :, None]
    total: Ints = (products >> 16 if kernel.floors else products).sum(1)
    if kernel.divides:
        count = x.total * y.total
        whole, rest = np.divmod(total, count)
        # OpenCV's own loop for halves rounds them up.
        up = spec.match == "opencv" and x.total == 2 and y.total == 2
        means: Ints = whole + ((2 * rest > count) | ((2 * rest == count) & (up | (whole % 2 == 1))))
        return means
    if kernel.second:
        total = total + (1 << (kernel.second - 1)) >> kernel.second
    return np.clip(total, 0, 255)


def _coloured(lines: dict[str, Ints], spec: FrameSpec, order: str) -> Bytes:
    """Channels as sampled to those of the network, on the last axis."""
    if "U" in lines:
        lines = _from_yuv(lines, spec, grey=order == "y")
    elif "Y" in lines:
        lines = {name: lines["Y"] for name in "RGBY"}
    elif order == "y":
        weights, bits = GREY[spec.match]
        total = np.zeros_like(lines["R"])
        for name, weight in zip("RGB", weights, strict=True):
            total += lines[name] * weight
        lines = {"Y": (total + (1 << (bits - 1))) >> bits}
    opaque = np.full_like(next(iter(lines.values())), 255)
    found = [lines.get(name, opaque) for name in order.upper()]
    return np.stack(found, -1).astype(np.uint8)


def _from_yuv(lines: dict[str, Ints], spec: FrameSpec, grey: bool) -> dict[str, Ints]:
    m = matrix(spec.yuv)
    luma: Ints = m.luma * (lines["Y"] - m.black) + (1 << (COLOUR_BITS - 1))
    u, v = lines["U"] - 128, lines["V"] - 128
    sums = {
        "R": luma + m.red_v * v,
        "G": luma + m.green_u * u + m.green_v * v,
        "B": luma + m.blue_u * u,
    }
    sums = {"Y": luma} if grey else sums
    return {name: np.clip(total >> COLOUR_BITS, 0, 255) for name, total in sums.items()}


def _region(
    frame: Frame, spec: FrameSpec, height: int, width: int
) -> tuple[dict[str, Ints], NDArray[np.bool_]]:
    """Samples at the places of an affine, and which of these lie in the frame."""
    assert frame.region is not None
    xx, xy, x0, yx, yy, y0 = (
        int(np.floor(np.float64(np.float32(v)) * (1 << REGION_BITS) + 0.5)) for v in frame.region
    )
    u, v = 2 * np.arange(width)[None, :] + 1, 2 * np.arange(height)[:, None] + 1
    at_x, at_y = xx * u + xy * v + 2 * x0, yx * u + yy * v + 2 * y0
    pixel = 1 << (REGION_BITS + 1)
    inside = (at_x >= 0) & (at_y >= 0)
    inside &= u < 2 * (frame.region_columns or width)
    inside &= (at_x < frame.width * pixel) & (at_y < frame.height * pixel)
    found = {}
    for name, (plane, sub) in frame.channels().items():
        if spec.resample == "nearest":
            bits = REGION_BITS + sub
            rows = np.clip(at_y >> bits, 0, plane.shape[0] - 1)
            columns = np.clip(at_x >> bits, 0, plane.shape[1] - 1)
            found[name] = plane[rows, columns]
            continue
        bits = REGION_BITS + sub - REGION_WEIGHT_BITS
        one = 1 << REGION_WEIGHT_BITS
        px, py = at_x - (pixel >> 1) * sub >> bits, at_y - (pixel >> 1) * sub >> bits
        a, b = px & one - 1, py & one - 1
        left = np.clip((px >> REGION_WEIGHT_BITS) + np.arange(2)[:, None, None], 0,
                       plane.shape[1] - 1)  # fmt: skip
        top = np.clip((py >> REGION_WEIGHT_BITS) + np.arange(2)[:, None, None], 0,
                      plane.shape[0] - 1)  # fmt: skip
        upper = plane[top[0], left[0]] * (one - a) + plane[top[0], left[1]] * a
        lower = plane[top[1], left[0]] * (one - a) + plane[top[1], left[1]] * a
        total = upper * (one - b) + lower * b
        found[name] = total + (1 << (2 * REGION_WEIGHT_BITS - 1)) >> 2 * REGION_WEIGHT_BITS
    return found, inside
