"""What kernels are written for: an instruction set in its parts, and how a kernel sees it.

Adding an instruction set is one file in codegen/isa/; adding a core is one entry in
codegen/isa/cores.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from mdlc.codegen.isa.cores import Core
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.isa.int8 import SCALAR as SCALAR_INT8
from mdlc.codegen.isa.int8 import Int8
from mdlc.codegen.isa.scalar import SCALAR
from mdlc.compiler.types import DType, TensorType


@dataclass(frozen=True)
class Backend:
    """What a plan is made for.

    Attributes:
        name: the target's name on the command line.
        description: one line for `mdlc targets`.
        kernels: the package of its kernel families.
        tuned_as: the target whose shipped table of measured schedules holds here, too, because
            the float kernels are the same; "" for its own.
    """

    name: str
    description: str
    kernels: str
    tuned_as: str = field(default="", kw_only=True)

    def of(self, types: Iterable[TensorType]) -> Any:
        """What its kernels see that compute on tensors of these types."""
        return self


@dataclass(frozen=True)
class Toolchain:
    """What compilers, emulators and processors call an instruction set.

    Attributes:
        triple: GNU triple of the machine it runs on, or "" for any.
        header: the header that declares the intrinsics, or "".
        declares: a function of it that older compilers lack, or "".
        prelude: what the preprocessor must be told in front of it.
        flags: compiler flags, gcc and clang alike, for a whole program. The files of a class need
            none: their functions say themselves what they are compiled for.
        required: flags without which its files do not compile, where no function can ask for the
            instruction set by itself.
        clang: what clang's attribute `target` calls the same, where that is another word.
        guard: macros that a compiler for the machine defines.
        cpu_flags: features that the processor must have, as Linux names them; those that are in
            codegen/isa/cpu_features.py.
        emulator: what runs its programs where the host does not: "qemu", qemu-user of the
            triple's machine, or "node", an engine of WebAssembly with WASI.
        qemu_cpu: `-cpu` of qemu-user.
    """

    triple: str = ""
    header: str = ""
    declares: str = ""
    prelude: str = ""
    flags: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    clang: str = ""
    guard: tuple[str, ...] = ()
    cpu_flags: frozenset[str] = frozenset()
    emulator: str = "qemu"
    qemu_cpu: str = ""

    @property
    def gcc_target(self) -> str:
        """What gcc's `#pragma GCC target` takes, or "" where there is nothing to tell."""
        return ",".join(flag.removeprefix("-m") for flag in self.flags)

    @property
    def clang_target(self) -> str:
        """What clang's attribute `target` takes, likewise."""
        return self.clang or self.gcc_target


@dataclass(frozen=True)
class Isa(Backend):
    """An instruction set: the parts that its variants share or replace.

    Attributes:
        dialects: by element type; always F32, and F16 where it computes in half precision.
        core: the core whose caches and rates the cost model counts with.
        toolchain: what builds and runs its programs.
        int8: how it computes on 8-bit integers; None: in portable scalar C++.
    """

    kernels: str = field(default="mdlc.codegen.kernels", kw_only=True)
    dialects: Mapping[DType, Dialect]
    core: Core
    toolchain: Toolchain = Toolchain()
    int8: Int8 | None = None

    @property
    def f32(self) -> Dialect:
        """The dialect of float32."""
        return self.dialects[DType.F32]

    @property
    def half(self) -> Dialect | None:
        """The dialect of half precision, where it computes in it."""
        return self.dialects.get(DType.F16)

    @property
    def helpers(self) -> dict[str, str]:
        """The text of the helper functions of all dialects, by name."""
        found = [each for dialect in self.dialects.values() for each in dialect.helpers.values()]
        return {each.name: each.text for each in found}

    def of(self, types: Iterable[TensorType]) -> KernelIsa:
        """The ISA as kernels see it: in half precision where all floating tensors are half."""
        kinds = {each.dtype for each in types if each.dtype.is_float}
        halves = DType.F16 in self.dialects and kinds == {DType.F16}
        return self.seen[DType.F16 if halves else DType.F32]

    @cached_property
    def seen(self) -> Mapping[DType, KernelIsa]:
        """How kernels see it, by element type."""
        return {
            dtype: _seen(dialect, self.core, self.int8, self.half)
            for dtype, dialect in self.dialects.items()
        }


@dataclass(frozen=True, kw_only=True)
class KernelIsa(Dialect):
    """An instruction set as one kernel sees it: the dialect of its element type, and the rest.

    Attributes:
        core, int8: see Isa. half: the dialect of half precision, for conversions.
    """

    core: Core
    int8: Int8 | None
    half: Dialect | None

    @cached_property
    def portable(self) -> KernelIsa:
        """Plain C++ on the same core, for what its vectors do not do."""
        return _seen(SCALAR, self.core, None, self.half)

    @property
    def fma_per_cycle(self) -> float:
        """Vector multiply-adds that the core starts per cycle."""
        return self.core.per_cycle(self.core.fma_per_cycle, self.lanes * self.bytes)

    @property
    def dots_per_cycle(self) -> float:
        """Dot products of 8-bit integers likewise."""
        return self.fma_per_cycle * int8_of(self).dots_per_fma

    @property
    def loads_per_cycle(self) -> float:
        """Vector loads likewise."""
        return self.core.per_cycle(self.core.loads_per_cycle, self.lanes * self.bytes)


def _seen(dialect: Dialect, core: Core, int8: Int8 | None, half: Dialect | None) -> KernelIsa:
    parts = {each.name: getattr(dialect, each.name) for each in fields(Dialect)}
    return KernelIsa(**parts, core=core, int8=int8, half=half)


def int8_of(isa: KernelIsa) -> Int8:
    """How an ISA computes on 8-bit integers."""
    return isa.int8 or SCALAR_INT8
