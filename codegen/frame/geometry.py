"""Where the picture lies in the network's input, and which samples a pixel is made of.

Everything is integers, or single operations of IEEE 754 where a library that is matched computes
in floating point; the emitted text (runtime_templates/cpp/frame.cpp.j2) does the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdlc.codegen.frame.spec import FrameSpec, Kernel

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Placement:
    """The picture, resized to `width` x `height`, with its upper left corner at (left, top) of
    the network's input: negative where `crop` leaves some of it out."""

    width: int
    height: int
    left: int
    top: int


def placement(spec: FrameSpec, picture: tuple[int, int], network: tuple[int, int]) -> Placement:
    """Where a picture goes. Sizes are width, height."""
    (w, h), (W, H) = picture, network
    wide = w * H >= h * W  # wider than the network's input
    if spec.fit == "stretch":
        return Placement(W, H, 0, 0)
    if spec.fit.startswith("letterbox"):
        cornered = spec.fit.endswith("top-left")
        scaled = math.floor if cornered else round  # both of exact quotients
        long, short, to = (w, h, W) if wide else (h, w, H)
        other = max(1, _quotient(short * to, long, scaled is round))
        width, height = (W, other) if wide else (other, H)
        return Placement(
            width, height, 0 if cornered else (W - width) // 2, 0 if cornered else (H - height) // 2
        )
    if wide:
        height = math.floor(H / spec.share)
        width = height * w // h
    else:
        width = math.floor(W / spec.share)
        height = width * h // w
    return Placement(width, height, -_half(width - W), -_half(height - H))


def _quotient(a: int, b: int, nearest: bool) -> int:
    """a / b, rounded down or to the nearest integer, ties to even."""
    q, r = divmod(a, b)
    return q + (nearest and (2 * r > b or (2 * r == b and q % 2 == 1)))


def _half(n: int) -> int:
    """n / 2 to the nearest integer, ties to even."""
    return n // 2 + (n % 2 and n // 2 % 2)


@dataclass(frozen=True)
class Axis:
    """One direction of the picture in one plane.

    Attributes:
        length: pixels of the picture; out: of the resized picture.
        sub: pixels that a sample stands for; samples: how many of them there are.
        before: pixels of the first sample that lie before the picture (of a crop at an odd place).
        skip, count: the pixels of the resized picture that are wanted.
    """

    length: int
    out: int
    sub: int
    samples: int
    before: int
    skip: int
    count: int

    @property
    def den(self) -> int:
        """Positions are numerators over this."""
        return 2 * self.out * self.sub

    def num(self, d: int) -> int:
        """The middle of pixel d, in samples from the edge of the first, times `den`."""
        return (2 * d + 1) * self.length + 2 * self.out * self.before


@dataclass(frozen=True)
class Taps:
    """The samples of each pixel, [count, taps], and their weights."""

    index: Ints
    weight: Ints
    total: int = 1  # of the weights, for means


def taps(spec: FrameSpec, axis: Axis, rows: bool) -> Taps:
    """The samples that make each pixel along an axis.

    Args:
        rows: along the picture's rows, which OpenCV treats otherwise at the border.
    """
    kernel = spec.kernel
    wanted = range(axis.skip, axis.skip + axis.count)
    if kernel.divides:
        return _mean(axis, wanted)
    if spec.resample == "nearest":
        return _nearest(spec.match, axis, wanted)
    if kernel.taps == 0:
        return _antialiased(kernel, axis, wanted)
    found = [_fixed(spec, axis, d, rows) for d in wanted]
    index = np.array([[f[0]] for f in found], np.int64) + np.arange(kernel.taps)
    return Taps(np.clip(index, 0, axis.samples - 1), np.array([f[1] for f in found], np.int64))


def _nearest(match: str, axis: Axis, wanted: range) -> Taps:
    if match == "pillow":
        # Pillow adds up the step (ImagingScaleAffine).
        step = np.float64(axis.length) / np.float64(axis.out)
        steps = np.full(wanted.stop, step)
        steps[0] = step * 0.5
        pixel = np.add.accumulate(steps)[wanted.start :].astype(np.int64)
    elif match == "opencv":
        step = np.float64(1) / (np.float64(axis.out) / np.float64(axis.length))
        pixel = np.floor(np.arange(wanted.start, wanted.stop) * step).astype(np.int64)
    else:
        pixel = np.array([(2 * d + 1) * axis.length // (2 * axis.out) for d in wanted], np.int64)
    index = (np.minimum(pixel, axis.length - 1) + axis.before) // axis.sub
    return Taps(index[:, None], np.ones((len(index), 1), np.int64))


def _mean(axis: Axis, wanted: range) -> Taps:
    """Each sample by its share in the pixel's area."""
    unit = math.gcd(math.gcd(axis.sub * axis.out, axis.before * axis.out), axis.length)
    found = []
    for d in wanted:
        start, stop = d * axis.length, (d + 1) * axis.length
        weights = {}
        first = (start // axis.out + axis.before) // axis.sub
        last = ((stop - 1) // axis.out + axis.before) // axis.sub
        for i in range(first, last + 1):
            low = max((i * axis.sub - axis.before) * axis.out, start)
            high = min(((i + 1) * axis.sub - axis.before) * axis.out, stop)
            weights[i] = (high - low) // unit
        found.append(weights)
    return _padded(found, axis, axis.length // unit)


def _antialiased(kernel: Kernel, axis: Axis, wanted: range) -> Taps:
    """Pillow's filters, which widen as the picture shrinks (libImaging/Resample.c)."""
    t = 4 * max(axis.length, axis.out * axis.sub)  # where a triangle ends
    reach = int(kernel.support * t)
    found = []
    for d in wanted:
        num = 2 * axis.num(d)
        low = max(0, (num - reach - axis.den) // (2 * axis.den))
        high = min(axis.samples, (num + reach + axis.den) // (2 * axis.den) + 1)
        raw = [_filter(kernel, (2 * i + 1) * axis.den - num, t) for i in range(low, high)]
        total = sum(raw)
        found.append({low + k: _rounded(w / total, kernel.bits) for k, w in enumerate(raw) if w})
    return _padded(found, axis)


def _filter(kernel: Kernel, at: int, t: int) -> int:
    """A filter's value at `at` / t, times a factor of its own."""
    if kernel.support == 0.5:
        return int(-t < 2 * at <= t)
    at = abs(at)
    if kernel.support == 1:
        return max(t - at, 0)
    if at < t:
        return (3 * at - 5 * t) * at * at + 2 * t**3
    return -(((at - 5 * t) * at + 8 * t * t) * at - 4 * t**3) if at < 2 * t else 0


def _rounded(value: float, bits: int) -> int:
    """A weight as an integer, halves away from zero."""
    return int(value * 2**bits + (0.5 if value >= 0 else -0.5))


def _fixed(spec: FrameSpec, axis: Axis, d: int, rows: bool) -> tuple[int, list[int]]:
    """The first sample of a pixel, which may lie outside, and the weights from there on."""
    num, den = 2 * axis.num(d) - axis.den, 2 * axis.den
    cubic, bits = spec.resample == "bicubic", spec.kernel.bits
    if spec.match == "opencv":
        at = np.float32(np.float64(num) / np.float64(den))
        first = int(np.floor(at))
        part = np.float32(at - np.float32(first))
        if cubic:
            return first - 1, [int(np.rint(w * np.float32(1 << bits))) for w in _cubic(part)]
        if rows and first < 0:
            first, part = 0, np.float32(0)
        if rows and first >= axis.samples - 1:
            first, part = axis.samples - 1, np.float32(0)
        both = np.float32(1) - part, part
        return first, [int(np.rint(w * np.float32(1 << bits))) for w in both]
    first, r = divmod(num, den)
    if not cubic:
        share = ((2 * r << bits) + den) // (2 * den)
        return first, [(1 << bits) - share, share]
    raw = [
        -(r**3) + 2 * r * r * den - r * den * den,
        3 * r**3 - 5 * r * r * den + 2 * den**3,
        -3 * r**3 + 4 * r * r * den + r * den * den,
        r**3 - r * r * den,
    ]
    inside = [w if 0 <= first - 1 + k < axis.samples else 0 for k, w in enumerate(raw)]
    total = sum(inside)
    return first - 1, [_rounded(w / total, bits) for w in inside]


def _cubic(x: np.float32) -> list[np.float32]:
    """OpenCV's cubic weights in single precision, operation by operation (interpolateCubic)."""
    a, one = np.float32(-0.75), np.float32(1)
    after, rest = np.float32(x + one), np.float32(one - x)
    c0 = ((a * after - 5 * a) * after + 8 * a) * after - 4 * a
    c1 = ((a + 2) * x - (a + 3)) * x * x + one
    c2 = ((a + 2) * rest - (a + 3)) * rest * rest + one
    return [np.float32(c0), np.float32(c1), np.float32(c2), np.float32(one - c0 - c1 - c2)]


def _padded(found: list[dict[int, int]], axis: Axis, total: int = 1) -> Taps:
    most = max(len(weights) for weights in found)
    index, weight = np.zeros((2, len(found), most), np.int64)
    for row, weights in enumerate(found):
        index[row, : len(weights)] = list(weights)
        weight[row, : len(weights)] = list(weights.values())
    return Taps(index, weight, total)
