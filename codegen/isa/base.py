"""Instruction sets as data: what a kernel may use and how it is spelled in C++.

A kernel never asks which ISA it is for; it asks for lanes, registers and capabilities, and
spells its tile with the hooks. Adding an instruction set is one file in codegen/isa/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mdlc.codegen.isa.int8 import SCALAR, Integers
from mdlc.compiler.types import DType, TensorType


class Panels(Protocol):
    """How the depth of a product is written in assembly, on panels (tiles/gemm_panels.py).

    Attributes:
        piece: C++ type of 8 bytes of a pixel, without the ending _t; letters: the ending of the
            intrinsics on it; zero: its literal zero.
    """

    @property
    def piece(self) -> str:
        """See above."""

    @property
    def letters(self) -> str:
        """See above."""

    @property
    def zero(self) -> str:
        """See above."""

    def loop(self, rows: int, vectors: int, rest: int, *, loop: bool, bias: bool) -> str:
        """accumulators = start + sum over k of a[k][row] * b[k][channel].

        A C++ statement on accR_V, a, b, trips and, with `bias`, bias.
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
class Isa:
    """A frozen description of an instruction set as seen by kernels of one floating element type.

    Attributes:
        name: the target's name on the command line.
        suffix: the ending of microkernel names.
        description: one line for `mdlc targets`.
        lanes: elements of one vector (1: scalar C++).
        registers: vector registers that a tile may use.
        vector: C++ type of a vector; mask: of a comparison's result.
        header: the header that declares the intrinsics, or "".
        flags: compiler flags, gcc and clang alike.
        guard: macros that a compiler with these flags defines.
        cpu_check: a C++ condition (gcc and clang) that the processor has it, or "".
        triple: GNU triple of the machine it runs on, or "" for any.
        spell: format strings of the hooks. Always: load(p), store(p, v), set1(x), and the
            primitives of compiler/expr.py; `fma`(a, b, c) is a * b + c. Where the ISA has it:
            prefetch(p), a statement that brings a cache line nearer; store_sum(p, v), the store
            that goes best with multiply-adds before and behind it.
        helpers: C++ functions that spellings call, by name; emitted where they are called.
        lane_fma: `v = lane_fma(acc, b, a, lane)`: acc + b * a[lane], where the ISA has it, else
            "": kernels then broadcast from memory. lane_rows: the most vectors a that a tile
            holds beside its sums; an instruction may take lanes of some registers only.
        panels: where the depth of a product is best written in assembly, how
            (tiles/gemm_panels.py); such ISAs copy a product's left side into panels.
        dtype: the element type; element: its C++ type in memory.
        half: the same processor as seen by kernels of half precision, where it computes in it.
        wide: of a half: the float ISA that it converts to and from. `spell` has low(v) then, the
            first float vector of a half's vector, high(v) where there are two, and narrow(low,
            high) or narrow(low), the way back.
        scalar: of a half: elements one by one, computed in float; else the portable ISA is.
        longest_sum: products that are added up in one go, for the sake of precision; longer sums
            are sums of such sums. 0: any number.
        bias_last: whether a bias is added to a sum of products, instead of the products to it:
            roundings are of the size of what has been summed up so far.
        integers: how it computes on 8-bit integers; None: in portable scalar C++.
        from_bytes: how bytes become floats (of a half: see `wide`); None: one by one.
        fma_per_cycle: vector multiply-adds a core of the class starts per cycle.
        loads_per_cycle: vector loads likewise.
        issue_width: instructions started per cycle.
        stream_bytes: what a core reads from main memory per cycle.
        l1_bytes, l2_bytes: data caches of one core, for blocking.
        tuned_as: the ISA whose shipped table of measured schedules holds here, too, because the
            float kernels are the same; "" for its own.
        qemu_cpu: `-cpu` of qemu-user for it where the host cannot run it, or "".
        kernels: the package of its kernel families.
    """

    name: str
    suffix: str
    description: str
    lanes: int
    registers: int
    vector: str
    mask: str
    header: str
    flags: tuple[str, ...]
    triple: str
    spell: Mapping[str, str]
    helpers: Mapping[str, str] = field(default_factory=dict)
    lane_fma: str = ""
    lane_rows: int = 16
    panels: Panels | None = None
    dtype: DType = DType.F32
    element: str = "float"
    half: Isa | None = None
    wide: Isa | None = None
    scalar: Isa | None = None
    longest_sum: int = 0
    bias_last: bool = False
    integers: Integers | None = None
    from_bytes: FromBytes | None = None
    fma_per_cycle: float = 2.0
    loads_per_cycle: float = 2.0
    issue_width: float = 6.0
    stream_bytes: float = 4.0
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024
    tuned_as: str = ""
    qemu_cpu: str = ""
    cpu_flags: frozenset[str] = field(default_factory=frozenset)
    guard: tuple[str, ...] = ()
    cpu_check: str = ""
    kernels: str = "mdlc.codegen.kernels"

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

    def load(self, pointer: object) -> str:
        """A vector read from an unaligned address."""
        return self.op("load", pointer)

    def store(self, pointer: object, value: object) -> str:
        """A statement (without semicolon) writing a vector to an unaligned address."""
        return self.op("store", pointer, value)

    def store_sum(self, pointer: object, value: object) -> str:
        """The same where sums of products are written, multiply-adds before and behind it."""
        return self.op("store_sum" if "store_sum" in self.spell else "store", pointer, value)

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
        assert self.wide is not None
        return [self.op(part, vector) for part in ("low", "high")[: self.lanes // self.wide.lanes]]

    def of(self, types: Iterable[TensorType]) -> Isa:
        """What kernels see that compute on tensors of these types: `half` where all are half."""
        kinds = {each.dtype for each in types if each.dtype.is_float}
        return self.half if self.half and kinds == {DType.F16} else self

    def fma(self, a: object, b: object, c: object) -> str:
        """a * b + c, rounded once where the hardware does."""
        return self.op("fma", a, b, c)

    def fma_lane(self, acc: object, b: object, a: object, lane: int) -> str:
        """acc + b * a[lane]; only where `lane_fma` is set."""
        return self.lane_fma.format(acc, b, a, lane)


def integers_of(isa: Isa) -> Integers:
    """How an ISA computes on 8-bit integers."""
    return isa.integers or SCALAR
