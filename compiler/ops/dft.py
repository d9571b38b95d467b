"""DFT, STFT and MelWeightMatrix: Fourier transforms as products with constant matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op, normalize_axis
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.gather import Gather
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.types import Array

# Rows and columns of a transform's matrix.
LONGEST = 1 << 14


def transform_matrix(
    length: int, given: int, parts: int, *, inverse: bool = False, onesided: bool = False
) -> Array:
    """The matrix [outputs, given * parts] of a transform of `length`, in double precision.

    Args:
        given: how many numbers there are (the rest are 0, those beyond what counts are not read).
        parts: 1: they are real; 2: real and imaginary parts in turn.
        onesided: forward, only the first half of the result; inverse, only the first half is
            given, and the result is real.

    Returns:
        Outputs are real and imaginary parts in turn, or real ones.
    """
    numbers = np.eye(given, dtype=np.complex128)
    units = (1, 1j)[:parts]
    rows = np.stack([numbers * unit for unit in units], 1).reshape(given * parts, given)
    if inverse and onesided:
        return np.ascontiguousarray(np.fft.irfft(rows, length, axis=1).T)
    found = (np.fft.ifft if inverse else np.fft.fft)(rows, length, axis=1)
    if onesided:
        found = found[:, : length // 2 + 1]
    both = np.stack([found.real, found.imag], -1)
    return np.ascontiguousarray(both.reshape(given * parts, -1).T)


@dataclass(frozen=True)
class DFT(Op):
    """Imported as movements and a Dense.

    Sources: ONNX specification, operators DFT, STFT and MelWeightMatrix.
    """

    onnx: ClassVar[tuple[str, ...]] = ("DFT", "STFT", "MelWeightMatrix")

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        made: Node = {"DFT": cls._dft, "STFT": cls._stft}.get(n.op_type, cls._mel)(n)
        return made

    @classmethod
    def _dft(cls, n: OnnxNode) -> Node:
        x = n.input(0)
        rank = len(x.shape)
        inverse, onesided = bool(n.attr("inverse", 0)), bool(n.attr("onesided", 0))
        if rank < 2 or x.shape[-1] not in (1, 2):
            raise n.error(f"{x.type} is not of real or complex numbers")
        given = n.optional_const(2) if n.opset >= 20 else None
        axis = n.attr("axis", 1) if n.opset < 20 else -2 if given is None else int(given.item())
        axis = normalize_axis(axis, rank)
        if axis == rank - 1:
            raise n.error(f"axis {axis} is that of real and imaginary parts")
        length = n.optional_const(1)
        default = 2 * (x.shape[axis] - 1) if inverse and onesided else x.shape[axis]
        size = default if length is None else int(length.item())
        # The axis goes to where its numbers are contiguous, and back.
        order = [a for a in range(rank) if a not in (axis, rank - 1)] + [axis, rank - 1]
        moved = n.make(Transpose(tuple(order)), x)
        y = cls._transformed(n, moved, size, inverse, onesided)
        return n.make(Transpose(tuple(int(a) for a in np.argsort(order))), y)

    @classmethod
    def _transformed(
        cls, n: OnnxNode, x: Node, size: int, inverse: bool = False, onesided: bool = False
    ) -> Node:
        """The transform over the last axis but one; the last one has the parts."""
        (*outer, count, parts) = x.shape
        if not 1 <= size <= LONGEST:
            raise n.error(f"transforms of {size} numbers are not supported",
                          hint=f"at most {LONGEST} are")  # fmt: skip
        most = size // 2 + 1 if inverse and onesided else size
        used = min(count, most)
        if used < count:
            x = n.make(Slice.along(x.shape, len(outer), 0, used), x)
        weights = transform_matrix(size, used, parts, inverse=inverse, onesided=onesided)
        flat = n.make(Reshape((*outer, used * parts)), x)
        kind = x.type.dtype.numpy
        bias = constant(np.zeros(len(weights), kind))
        y = n.make(Dense(), flat, constant(weights.astype(kind)), bias)
        results = 1 if inverse and onesided else 2
        return n.make(Reshape((*outer, len(weights) // results, results)), y)

    @classmethod
    def _stft(cls, n: OnnxNode) -> Node:
        x, window = n.input(0), n.optional(2)
        if len(x.shape) == 2:
            x = n.make(Reshape((*x.shape, 1)), x)
        if len(x.shape) != 3:
            raise n.error(f"{x.type} is not a batch of signals")
        step, given = int(n.const(1).item()), n.optional_const(3)
        if given is not None:
            length = int(given.item())
        else:
            length = x.shape[1] if window is None else window.shape[0]
        if step < 1 or not 1 <= length <= x.shape[1]:
            raise n.error(f"frames of {length}, {step} apart, do not fit {x.type}")
        count = (x.shape[1] - length) // step + 1
        places = np.arange(count)[:, None] * step + np.arange(length)
        frames = n.make(Gather(1), x, constant(places.astype(np.int64)))
        if window is not None:
            frames = n.make(Mul(), frames, n.make(Reshape((length, 1)), window))
        return cls._transformed(n, frames, length, onesided=bool(n.attr("onesided", 1)))

    @staticmethod
    def _mel(n: OnnxNode) -> Node:
        bins, size, rate = (int(n.const(i).item()) for i in range(3))
        edges = [float(n.const(i).item()) for i in (3, 4)]
        if bins < 1 or size < 1 or rate < 1:
            raise n.error(f"{bins} bins of a transform of {size} at {rate} Hz make no sense")
        low, high = (2595 * np.log10(1 + edge / 700) for edge in edges)
        mel = low + np.arange(bins + 2) * ((high - low) / (bins + 2))
        hertz = 700 * (10 ** (mel / 2595) - 1)
        points = ((size + 1) * hertz // rate).astype(int)
        rows = size // 2 + 1
        if points.min() < 0 or points.max() >= rows:
            raise n.error(f"edges {edges} Hz are outside a transform of {size} at {rate} Hz")
        found = np.zeros((rows, bins))
        for column in range(bins):
            left, centre, right = points[column : column + 3]
            place = np.arange(rows)
            rising = (place >= left) & (place <= centre) if centre > left else place == centre
            slope = (place - left) / max(centre - left, 1) if centre > left else 1.0
            found[:, column] = np.where(rising, slope, 0)
            if right > centre:
                falling = (place >= centre) & (place < right)
                found[:, column] = np.where(
                    falling, (right - place) / (right - centre), found[:, column]
                )
        kind = n.attr("output_datatype", 1)
        types = {1: np.float32, 10: np.float16, 11: np.float64, 6: np.int32, 7: np.int64}
        if kind not in types:
            raise n.error(f"output_datatype {kind} is not supported")
        return constant(found.astype(types[kind]), n.outputs[0])
