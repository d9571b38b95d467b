"""A dialect: what kernels of one element type may use of an instruction set, and its spelling.

A kernel never asks which instruction set it is for; it asks for lanes, registers and capabilities,
and spells its tile with the hooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mdlc.codegen.code import Microkernel
from mdlc.compiler.types import DType

# Chunks of the depth in one trip of a loop on panels. A chunk is 8 bytes of each pixel.
CHUNKS = 4


class Panels(Protocol):
    """How the depth of a product is written in assembly, on panels (tiles/gemm_panels.py).

    Attributes:
        chunk: C++ type of a pixel's chunk, 8 bytes; quad: of those of four pixels.
    """

    @property
    def chunk(self) -> str:
        """See above."""

    @property
    def quad(self) -> str:
        """See above."""

    @property
    def begun_steps(self) -> int:
        """Steps of the depth before the loop that add to sums begun there."""

    def op(self, hook: str, *operands: object) -> str:
        """The C++ expression of a hook on chunks.

        Hooks are zero(); load(p); load_lane(p, v, lane), v with another element; and
        store_quad(p, q), which stores four pixels' elements side by side.
        """

    def loop(self, rows: int, vectors: int) -> str:
        """accumulators = start + sum over k of a[k][row] * b[k][channel].

        A C++ statement on accR_V, a, b, trips and bias, and on compile-time integers: kLoop,
        whether there is a loop, of `trips` trips; kRest, chunks of the depth behind it; kBias,
        whether sums start from the bias or from 0 (dialects that add it last do neither).
        """

    def accumulators(self, rows: int, vectors: int) -> str:
        """The declaration of accR_V, so that store_row takes those of a row."""

    def declared(self, names: Sequence[str], first: int) -> str:
        """The declaration of vectors in neighbouring registers, from a number on."""

    def load_row(self, pointer: str, step: str | int, names: Sequence[str]) -> str:
        """Neighbouring registers, at most four, = vectors at a pointer.

        The pointer goes on by `step` bytes: an expression, the vectors' size, or "" for none.
        """

    def store_row(self, pointer: str, step: str | int, names: Sequence[str]) -> str:
        """Neighbouring registers are written to a pointer, which goes on likewise."""

    def rest_of(self, chunks: int, rows: int, vectors: int) -> int:
        """Chunks that follow the loop; the loop makes (chunks - rest) // CHUNKS trips."""

    def step_loads(self, vectors: int) -> float:
        """Instructions that load a step of the depth."""


@dataclass(frozen=True)
class FromBytes:
    """How vectors of floats are made of bytes.

    Attributes:
        count: bytes read at once.
        lines: statements in terms of {0}, the address; values: the vectors of floats, in order.
    """

    count: int
    lines: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Dialect:
    """One element type's part of an instruction set.

    Attributes:
        suffix: the ending of microkernel names.
        lanes: elements of one vector (1: scalar C++).
        registers: vector registers that a tile may use.
        vector: C++ type of a vector; mask: of a comparison's result.
        spell: format strings of the hooks. Always: load(p), store(p, v), set1(x), and the
            primitives of compiler/expr.py; `fma`(a, b, c) is a * b + c. Where the ISA has it:
            prefetch(p), a statement that brings a cache line nearer; store_sum(p, v), the store
            that goes best with multiply-adds before and behind it; hold(), before which no
            load from behind it is moved, where compilers load so far ahead that they spill;
            zip_low(a, b) and zip_high(a, b), the elements of the first and of the second halves
            in turns.
        helpers: C++ functions that spellings call, by hook; see `needs`.
        dtype: the element type; element: its C++ type in memory.
        lane_fma: `v = lane_fma(acc, b, a, lane)`: acc + b * a[lane], where the ISA has it, else
            "": kernels then broadcast from memory. lane_rows: the most vectors a that a tile
            holds beside its sums; an instruction may take lanes of some registers only.
        panels: where the depth of a product is best written in assembly, how
            (tiles/gemm_panels.py); such ISAs copy a product's left side into panels.
        as_float: of a half: the float dialect that it converts to and from. `spell` has low(v)
            then, the first float vector of a half's vector, high(v) where there are two, and
            narrow(low, high) or narrow(low), the way back.
        scalar: of a half: elements one by one, computed in float; else plain C++ does.
        longest_sum: products that are added up in one go, for the sake of precision; longer sums
            are sums of such sums. 0: any number.
        bias_last: whether a bias is added to a sum of products, instead of the products to it:
            roundings are of the size of what has been summed up so far.
        from_bytes: how bytes become floats (of a half: see `as_float`); None: one by one.
    """

    suffix: str
    lanes: int
    registers: int
    vector: str
    mask: str
    spell: Mapping[str, str]
    helpers: Mapping[str, Microkernel] = field(default_factory=dict)
    dtype: DType = DType.F32
    element: str = "float"
    lane_fma: str = ""
    lane_rows: int = 16
    panels: Panels | None = None
    as_float: Dialect | None = None
    scalar: Dialect | None = None
    longest_sum: int = 0
    bias_last: bool = False
    from_bytes: FromBytes | None = None

    @property
    def kind(self) -> str:
        """The element type in the names of microkernels: f32 or f16."""
        return self.dtype.value

    @property
    def bytes(self) -> int:
        """Bytes of an element."""
        return self.dtype.size

    def arguments(self, read: Iterable[str], written: str = "y") -> list[str]:
        """Parameters of a function: arrays of elements that it reads, then the one it writes."""
        return [*(f"const {self.element}* {name}" for name in read), f"{self.element}* {written}"]

    def op(self, hook: str, *operands: object) -> str:
        """The C++ expression of a hook on operands."""
        return self.spell[hook].format(*operands)

    def needs(self, *hooks: str) -> list[Microkernel]:
        """The functions that spellings of hooks call: what a microkernel that uses them needs."""
        return [self.helpers[hook] for hook in hooks if hook in self.helpers]

    def load(self, pointer: object) -> str:
        """A vector read from an unaligned address."""
        return self.op("load", pointer)

    def store(self, pointer: object, value: object) -> str:
        """A statement (without semicolon) writing a vector to an unaligned address."""
        return self.op("store", pointer, value)

    def store_sum(self, pointer: object, value: object) -> str:
        """The same where sums of products are written, multiply-adds before and behind it."""
        return self.op("store_sum" if "store_sum" in self.spell else "store", pointer, value)

    @property
    def hold(self) -> str:
        """A statement behind which loads stay that stand behind it, or ""."""
        return f"{self.spell['hold']};" if "hold" in self.spell else ""

    def set1(self, scalar: object) -> str:
        """A vector with all lanes equal to a scalar expression."""
        return self.op("set1", scalar)

    def broadcast(self, base: object, index: object) -> str:
        """A vector with all lanes equal to base[index]."""
        if "broadcast" in self.spell:
            return self.op("broadcast", base, index)
        return self.set1(f"({base})[{index}]")

    def item(self, base: str, index: str) -> str:
        """The value of base[index] as a float."""
        return self.scalar.load(f"{base} + {index}") if self.scalar else f"{base}[{index}]"

    def set_item(self, base: str, index: str, value: str) -> str:
        """A statement (without semicolon) that writes a float to base[index]."""
        if self.scalar:
            return self.scalar.store(f"{base} + {index}", value)
        return f"{base}[{index}] = {value}"

    def widened(self, vector: str) -> list[str]:
        """The float vectors of a half's vector."""
        assert self.as_float is not None
        count = self.lanes // self.as_float.lanes
        return [self.op(part, vector) for part in ("low", "high")[:count]]

    def fma(self, a: object, b: object, c: object) -> str:
        """a * b + c, rounded once where the hardware does."""
        return self.op("fma", a, b, c)

    def fma_lane(self, acc: object, b: object, a: object, lane: int) -> str:
        """acc + b * a[lane]; only where `lane_fma` is set."""
        return self.lane_fma.format(acc, b, a, lane)
