"""How the emitted class asks a processor, and its operating system, for what it has.

The names are those of Linux's /proc/cpuinfo, by which a Toolchain says what an instruction set
needs. Adding a feature is one entry here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class CpuFeature:
    """A feature of processors.

    Attributes:
        name: as in /proc/cpuinfo; machine: the processor family, the first word of a triple.
    """

    name: str
    machine: str

    @property
    def constant(self) -> str:
        """The C++ constant that stands for it: kAvx512Vnni."""
        return "k" + "".join(part.capitalize() for part in self.name.split("_"))


@dataclass(frozen=True)
class ArmFeature(CpuFeature):
    """A feature of AArch64, which only the operating system tells.

    Attributes:
        word, bit: of what getauxval gives for AT_HWCAP (0) or AT_HWCAP2 (1), on Linux.
        sysctl: on Apple's systems; windows: the number that IsProcessorFeaturePresent takes.
        macro: defined by a compiler that is told of it; it decides on other systems.
    """

    word: int
    bit: int
    sysctl: str
    windows: int
    macro: str


@dataclass(frozen=True)
class X86Feature(CpuFeature):
    """A feature of x86-64.

    Attributes:
        leaf, register, bit: of the instruction CPUID.
        state: bits of XCR0, by which the operating system says that it keeps the registers.
    """

    leaf: int
    register: str
    bit: int
    state: int


def _arm(name: str, word: int, bit: int, sysctl: str, windows: int, macro: str) -> ArmFeature:
    return ArmFeature(name, "aarch64", word, bit, f"hw.optional.arm.FEAT_{sysctl}", windows, macro)


def _x86(name: str, leaf: int, register: str, bit: int, state: int) -> X86Feature:
    return X86Feature(name, "x86_64", leaf, register, bit, state)


# SSE and AVX registers; with those of AVX-512: masks, upper halves, registers 16 to 31.
_YMM, _ZMM = 0x06, 0xE6
# Linux's arch/arm64/include/uapi/asm/hwcap.h, Apple's "Determining Instruction Set
# Characteristics", Windows' winnt.h; Intel's manual, volume 2A, CPUID, and volume 1, 13.3.
FEATURES = {
    feature.name: feature
    for feature in (
        _arm("fphp", 0, 9, "FP16", 67, "__ARM_FEATURE_FP16_SCALAR_ARITHMETIC"),
        _arm("asimdhp", 0, 10, "FP16", 67, "__ARM_FEATURE_FP16_VECTOR_ARITHMETIC"),
        _arm("asimddp", 0, 20, "DotProd", 43, "__ARM_FEATURE_DOTPROD"),
        _arm("i8mm", 1, 13, "I8MM", 66, "__ARM_FEATURE_MATMUL_INT8"),
        _arm("bf16", 1, 14, "BF16", 68, "__ARM_FEATURE_BF16_VECTOR_ARITHMETIC"),
        _x86("fma", 1, "ecx", 12, _YMM),
        _x86("f16c", 1, "ecx", 29, _YMM),
        _x86("avx2", 7, "ebx", 5, _YMM),
        _x86("avx512f", 7, "ebx", 16, _ZMM),
        _x86("avx512dq", 7, "ebx", 17, _ZMM),
        _x86("avx512bw", 7, "ebx", 30, _ZMM),
        _x86("avx512vl", 7, "ebx", 31, _ZMM),
        _x86("avx512_vnni", 7, "ecx", 11, _ZMM),
    )
}


def features_of(names: Iterable[str]) -> list[CpuFeature]:
    """The features of these names, in the order of FEATURES."""
    asked = set(names)
    unknown = asked - FEATURES.keys()
    assert not unknown, f"codegen/isa/cpu_features.py does not know {sorted(unknown)}"
    return [feature for feature in FEATURES.values() if feature.name in asked]
