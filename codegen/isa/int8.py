"""What kernels of 8-bit integers may use of an instruction set, and how it is spelled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mdlc.codegen.code import Microkernel, advanced
from mdlc.codegen.isa.int8_panels import BytePanels
from mdlc.codegen.isa.int8_result import OutputStage
from mdlc.compiler.fixed_point import limits
from mdlc.compiler.types import Array, DType


class StoreBytes(Protocol):
    """Spells the storing of one row of rescaled vectors as bytes."""

    def __call__(
        self, values: Sequence[str], where: str, stage: OutputStage, part: int, zero: str = "kZero"
    ) -> tuple[list[str], list[Microkernel]]:
        """Statements, and helpers they need.

        Args:
            part: lanes of the last vector that are stored (0: all).
            zero: the zero point's name, where it is not folded into the numbers.
        """


class StoreSums(Protocol):
    """Spells the storing of one row of rescaled vectors, bounded and added to other bytes."""

    def __call__(
        self, values: Sequence[str], other: str, where: str, stage: OutputStage, part: int
    ) -> tuple[list[str], list[Microkernel]]:
        """Statements, which may declare names, and helpers they need.

        Args:
            other: where the bytes that are added begin; no more of them are read than are stored.
            finish: with an addition.
            part: lanes of the last vector that are stored (0: all).
        """


class AddBytes(Protocol):
    """Spells (a[i] * kMa + b[i] * kMb + kStart) >> kShift of two rows of bytes."""

    def __call__(self, kind: DType) -> tuple[list[str], list[str]]:
        """Statements, and the names of the vectors of i32 that they leave."""


class DepthLoop(ABC):
    """accR_V = bias + sum over the depth of a[R][k] * b[k][V], where that is assembly.

    Attributes:
        unit: what runs of the depth are rounded up to.
        panels: the same on panels, where that is of use.
    """

    unit: int
    panels: BytePanels | None = None

    def tag(self, run: int) -> str:
        """What tells texts for whole trips of 16 apart, in names of functions."""
        return ("_shortest", "_short")[run // 16] if run < 32 else ""

    @abstractmethod
    def code(
        self,
        rows: int,
        vectors: int,
        run: int,
        taps: int,
        fields: int,
        stage: OutputStage,
        flip: bool,
    ) -> str:
        """Statements that declare and set the accumulators, for a run inside loops over taps.

        Args:
            fields: vectors of i32 in `scale` for each vector of channels, the bias first.
            flip: whether activations are of the other sign.
        """

    @abstractmethod
    def fits(self, rows: int, vectors: int) -> bool:
        """Whether there are registers for a tile."""

    @abstractmethod
    def instructions(self, rows: int, vectors: int) -> float:
        """Instructions of 16 elements of the depth."""

    def products(self, rows: int, vectors: int) -> float:
        """Products among them, of which a core may start fewer than of other instructions."""
        return 0.0

    @abstractmethod
    def split(self, run: int) -> list[int]:
        """A run cut into groups, each packed as [channel][group]."""


@dataclass(frozen=True)
class Taps:
    """The window of a depthwise convolution: rows and columns of the filter, across steps."""

    rows: int
    columns: int
    stride: int
    dilation: int


class DepthwiseForm(ABC):
    """How an ISA multiplies the taps of a block of channels.

    Attributes:
        name: in names of functions. channels: of the block. vectors: accumulators of a pixel.
        load: a vector of i32, as a format string.
        keeps_scale: whether what rescaling needs stays in registers.
        vector: C++ type of that.
        rows_together: rows of the filter that one product sums up in a lane.
    """

    name: str
    load: str
    keeps_scale: bool = True
    vector: str = "auto"
    rows_together: int
    channels: int
    vectors: int

    def order(self) -> list[int]:
        """Channel of every lane, vector by vector."""
        return list(range(self.channels))

    def pack(self, weights: Array) -> Array:
        """Weights [channels, rows, columns] (int8) as the tile reads them.

        Returns:
            [column][group][lane][row of the group], flat, padded with zeros.
        """
        channels, rows, columns = weights.shape
        groups = -(-rows // self.rows_together)
        padded = np.zeros((self.channels, groups * self.rows_together, columns), np.int8)
        padded[:channels, :rows] = weights
        ordered = padded[self.order()].reshape(self.channels, groups, self.rows_together, columns)
        return np.ascontiguousarray(ordered.transpose(3, 1, 0, 2)).reshape(-1)

    @abstractmethod
    def load_weights(self, taps: Taps) -> Iterator[str]:
        """Statements before the pixels: weights and other constants."""

    @abstractmethod
    def load_column(self, column: int, rows: Sequence[str], flip: bool) -> Iterator[str]:
        """Statements that load one input column from its rows' addresses.

        `flip`: activations are of the type that the form does not multiply as it is.
        """

    @abstractmethod
    def multiply(self, pixel: int, column: int, tap: int, taps: Taps) -> Iterator[str]:
        """Statements that add an input column times a column of weights to a pixel's sums."""

    @abstractmethod
    def instructions(self, taps: Taps) -> tuple[float, float]:
        """Instructions of loading a column, and of multiplying it."""

    def load_scale(self, stage: OutputStage, part: int, int8: Int8) -> Iterator[str]:
        """Statements before the pixels that load what rescaling needs."""
        fields = int8.used_fields(stage)
        lanes = self.channels // self.vectors
        for v in range(self.vectors):
            for index, name in enumerate(fields):
                used = not part or v * lanes < part
                if name == "bias" or (self.keeps_scale and used):
                    offset = (v * len(fields) + index) * lanes
                    where = advanced("scale", offset)
                    yield f"const auto {name}{v} = {self.load.format(where)};"

    def rescaled(
        self, pixel: int, vectors: int, rescale: Microkernel, stage: OutputStage, int8: Int8
    ) -> tuple[list[str], list[str]]:
        """Statements that rescale the first sums of a pixel, and the names of the results.

        What rescaling needs is read again, unless the form keeps it.
        """
        fields, lanes = int8.used_fields(stage), self.channels // self.vectors
        lines = []
        for v in range(vectors):
            read = ", ".join(
                f"{name}{v}"
                if self.keeps_scale
                else self.load.format(advanced("scale", (v * len(fields) + index) * lanes))
                for index, name in enumerate(fields)
                if name != "bias"
            )
            lines.append(f"const {self.vector} z{v} = {rescale.name}(acc{pixel}_{v}, {read});")
        return lines, [f"z{v}" for v in range(vectors)]

    def stage(
        self, pixel: int, where: str, stage: OutputStage, part: int, int8: Int8
    ) -> tuple[list[str], list[Microkernel]]:
        """Statements that rescale and store a pixel's sums; `part`: of the channels (0: all)."""
        rescale, lanes = int8.rescaler(stage), self.channels // self.vectors
        used = -(-part // lanes) if part else self.vectors
        lines, values = self.rescaled(pixel, used, rescale, stage, int8)
        stored, needs = int8.store_bytes(values, where, stage, part % lanes)
        return [*lines, *stored], [rescale, *needs]


def _no_sum(kind: DType) -> tuple[list[str], list[str]]:
    raise NotImplementedError


@dataclass(frozen=True)
class Int8:
    """Sums of products of 8-bit integers in vectors of 32-bit lanes, one lane a channel.

    Attributes:
        vector: C++ type of a vector of i32; it has the lanes of a vector of floats.
        group: neighbouring elements of the depth that one dot product sums up in a lane.
        element: what the activations must be: i8 or u8 (those of the other type are flipped:
            x ^ 0x80, the bias makes up for it), i16 (they are first copied and widened), or None:
            either.
        broadcast: `a = broadcast(p)`, a group of activations at p, in every lane.
        flip: `flip(a)`: every byte ^ 0x80.
        load_w: `w = load_w(p)`: a vector's weights.
        dot: `dot(acc, w, a)`, an expression.
        load, store, set1: of vectors of i32.
        fields, shift_left_fields: the per-channel vectors that rescaling reads, behind the bias;
            see `pack_fields`.
        rescale, shift_left_rescale: helper functions (acc, fields...).
        store_bytes: see StoreBytes. store_sums: see StoreSums. add_bytes: see AddBytes.
        table_row: y[i] = table[x[i]] for kCount bytes, where there is more than a loop.
        rows_at_once: vectors of i32 that are best stored as bytes together.
        dots_per_fma: dot products that a core starts for every multiply-add of floats.
        dot_instructions: instructions of one.
        finish_instructions: of rescaling and storing one vector.
        spell: further hooks. load_i8(p), load_u8(p): a vector of i32 from as many bytes;
            add, sub, to_float, to_int (nearest, halves to even), at_least(v, low): floats, NaN
            becoming low; store_part(p, v, count): the first lanes of a vector of i32; byte
            vectors of `byte_lanes`, for i8 and u8: bytes_i8, load_bytes_i8(p),
            put_bytes_i8(p, v), max_i8(a, b).
        helpers: functions that the hooks call.
        depth_loop: see DepthLoop; `group` and `dot` then mean nothing.
        flips_in_copy: whether a product's activations are flipped in a copy of the input, not in
            the loop.
        adds_in_16_bits: whether products are added before they are widened.
        narrowing_adds_zero_point: whether storing makes use of that of OutputStage.
        depthwise: forms of depthwise convolutions, the one of most channels first.
    """

    vector: str
    group: int
    element: DType | None
    broadcast: str
    load_w: str
    dot: str
    load: str
    store: str
    set1: str
    fields: tuple[str, ...]
    rescale: Microkernel
    store_bytes: StoreBytes
    store_sums: StoreSums
    add_bytes: AddBytes = _no_sum
    table_row: Microkernel | None = None
    rows_at_once: int = 1
    flip: str = ""
    shift_left_fields: tuple[str, ...] = ()
    shift_left_rescale: Microkernel | None = None
    dots_per_fma: float = 1.0
    dot_instructions: float = 1.0
    requantize_instructions: float = 8.0
    spell: Mapping[str, str] = field(default_factory=dict)
    byte_lanes: int = 1
    depthwise: tuple[DepthwiseForm, ...] = ()
    depth_loop: DepthLoop | None = None
    adds_in_16_bits: bool = False
    narrowing_adds_zero_point: bool = False
    flips_in_copy: bool = False
    helpers: tuple[Microkernel, ...] = ()

    @property
    def unit(self) -> int:
        """What runs of the depth are rounded up to."""
        return self.depth_loop.unit if self.depth_loop else self.group

    def split(self, run: int) -> list[int]:
        """A run cut into groups, each packed as [channel][group]."""
        return self.depth_loop.split(run) if self.depth_loop else [self.group] * (run // self.group)

    @property
    def widens(self) -> bool:
        """Whether activations are copied and widened first."""
        return self.element is DType.I16

    def copies(self, source: DType) -> bool:
        """Whether a product needs a copy of activations of a type."""
        return self.widens or (self.flips_in_copy and self.flips(source))

    def flips(self, source: DType) -> bool:
        """Whether activations of a type are flipped."""
        return self.element in (DType.I8, DType.U8) and self.element is not source

    def used_fields(self, stage: OutputStage) -> tuple[str, ...]:
        """The per-channel vectors of a product, bias first."""
        if stage.int32_output:
            return ("bias",)
        return ("bias", *(self.shift_left_fields if stage.shift_left else self.fields))

    def rescaler(self, stage: OutputStage) -> Microkernel:
        """The function that rescales a vector."""
        found = self.shift_left_rescale if stage.shift_left else self.rescale
        assert found is not None
        return found


def least_shift(fields: Sequence[str]) -> int:
    """The shift that a product needs for no shift up: 1 must be left behind its upper half.

    Where the rest of the shift is a multiplication by a power of two, which must fit a signed
    number, 2 must be left.
    """
    return 34 if "power" in fields else 33


# Factors of 2^26 and more saturate whatever they multiply but zero, and so does this shift.
SATURATING_SHIFT = 4


def needs_shift_left(shift: Array, int8: Int8) -> bool:
    """Whether accumulators must be shifted up before the upper half of a product is taken."""
    return bool(int8.shift_left_fields) and bool(np.any(shift < least_shift(int8.fields)))


def pack_fields(
    fields: Sequence[str], bias: Array, multiplier: Array, shift: Array, zero: int, lanes: int
) -> Array:
    """Per-channel numbers as [vector][field][lanes] of int32, padded with zeros.

    Fields: bias; multiplier; shift: n of rescale; rounding and right: to add to the upper half
    of the product (the zero point included) and the shift right after it; down: 31 - n, a
    rounding shift; power: 2^(32 - right); left: how far to shift up before; left_power: 2^left;
    limit: the largest number that may be.
    """
    shift = np.maximum(shift, SATURATING_SHIFT) if "left_power" in fields else shift
    shifts_left = "left" in fields or "left_power" in fields
    left = np.maximum(least_shift(fields) - shift, 0) if shifts_left else np.zeros_like(shift)
    right = shift + left - 32
    up = np.maximum(right, 1).astype(np.int64)
    values = {
        "bias": bias,
        "multiplier": multiplier,
        "shift": shift,
        "rounding": (np.int64(1) << (up - 1)) + (np.int64(zero) << up),
        "right": right,
        "down": 31 - shift - left,
        "power": np.int64(1) << (32 - up),
        "left": left,
        "left_power": np.int64(1) << left.astype(np.int64),
        "limit": (np.int64(2**31 - 1) >> left.astype(np.int64)),
    }
    padding = -bias.size % lanes
    rows = [np.pad(values[name].astype(np.int64), (0, padding)) for name in fields]
    packed = np.stack(rows).reshape(len(fields), -1, lanes).transpose(1, 0, 2)
    assert packed.min(initial=0) >= -(2**31)
    assert packed.max(initial=0) < 2**31
    return np.ascontiguousarray(packed, np.int32).reshape(-1)


_SCALAR_RESCALE = """\
// floor((total * multiplier + 2^(shift - 1)) / 2^shift), the product in 64 bits; beyond 2^30 any
// result is out of all bounds.
inline std::int32_t rescale_i32_generic(std::int32_t total, std::int32_t multiplier,
                                        std::int32_t shift) {
  const std::int64_t product = static_cast<std::int64_t>(total) * multiplier;
  const std::int64_t result = (product + (std::int64_t{1} << (shift - 1))) >> shift;
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  return static_cast<std::int32_t>(result > kMost ? kMost : result < -kMost ? -kMost : result);
}
"""


def _scalar_store(
    values: Sequence[str], where: str, stage: OutputStage, part: int, zero: str = "kZero"
) -> tuple[list[str], list[Microkernel]]:
    bits, kind = limits(stage.target), "u8" if stage.target is DType.U8 else "i8"
    low = f"{stage.prefix}Low" if stage.bounded[0] else str(bits[0])
    high = f"{stage.prefix}High" if stage.bounded[1] else str(bits[1])
    lines = []
    for v, value in enumerate(values):
        call = f"bound_{kind}({value}, {zero}, {low}, {high})"
        lines.append(f"*({advanced(where, v)}) = {call};")
    return lines, [scalar_bound(kind)]


# The constant that a sum starts with: rounding, and all zero points.
SUM_START = "(1 << (kShift - 1)) + kSumZero * (1 << kShift) - kZero * kMa - kOtherZero * kMb"


def _scalar_sums(
    values: Sequence[str], other: str, where: str, stage: OutputStage, part: int
) -> tuple[list[str], list[Microkernel]]:
    added = stage.addition
    assert added is not None
    bound = scalar_bound(stage.target.value)
    lines = [f"constexpr int kStart = {SUM_START};"]
    for v, value in enumerate(values):
        first = f"{bound.name}({value}, kZero, kLow, kHigh)"
        second = f"*({advanced(other, v)})"
        lines.append(f"const std::int32_t sum{v} = "
                     f"({first} * kMa + {second} * kMb + kStart) >> kShift;")  # fmt: skip
    names = [f"sum{v}" for v in range(len(values))]
    stored, needs = _scalar_store(names, where, added.result, part, zero="0")
    return lines + stored, [bound, *needs]


def scalar_bound(kind: str) -> Microkernel:
    """A rescaled number plus the zero point, inside bounds."""
    c_type = f"std::{'u' if kind == 'u8' else ''}int8_t"
    text = f"""\
// value + zero inside [low, high]; |value| is below 2^31 - 255 or saturates anyway.
inline {c_type} bound_{kind}(std::int32_t value, int zero, int low, int high) {{
  if (value < low - zero) return static_cast<{c_type}>(low);
  if (value > high - zero) return static_cast<{c_type}>(high);
  return static_cast<{c_type}>(value + zero);
}}
"""
    return Microkernel(f"bound_{kind}", text)


def scalar_rescale() -> Microkernel:
    """The portable rescaling, of any factor."""
    return Microkernel("rescale_i32_generic", _SCALAR_RESCALE)


SCALAR = Int8(
    vector="std::int32_t",
    group=1,
    element=None,
    broadcast="*({0})",
    load_w="*({0})",
    dot="({0} + {1} * {2})",
    load="*({0})",
    store="*({0}) = {1}",
    set1="{0}",
    fields=("multiplier", "shift"),
    rescale=scalar_rescale(),
    store_bytes=_scalar_store,
    store_sums=_scalar_sums,
    requantize_instructions=10.0,
)
