"""Emitted C++ as data: microkernels, the functions of layers, and how types are spelled."""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.compiler.types import DType

C_TYPES = {
    DType.F16: "std::uint16_t",
    DType.F32: "float",
    DType.F64: "double",
    DType.I8: "std::int8_t",
    DType.U8: "std::uint8_t",
    DType.I16: "std::int16_t",
    DType.U16: "std::uint16_t",
    DType.I32: "std::int32_t",
    DType.U32: "std::uint32_t",
    DType.I64: "std::int64_t",
    DType.U64: "std::uint64_t",
    DType.BOOL: "std::uint8_t",
}


@dataclass(frozen=True)
class Microkernel:
    """A function that owns intrinsics, emitted once per (operation, type, tile, ISA).

    Attributes:
        name: also its C++ name, such as gemm_f32_8x12_neon.
        text: the C++ definition with the comment that states formula, tile and packed layout.
        needs: microkernels and helpers that must stand before it.
        includes: standard headers it uses.
    """

    name: str
    text: str
    needs: tuple[Microkernel, ...] = ()
    includes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerCode:
    """The C++ of one layer.

    The layer function is called as `name(weights..., inputs..., output[, scratch])`: first the
    packed arrays by the order of `pack`, then the pointers to the run-time inputs, then the
    output, then scratch memory if the step asked for any. Pointers are const T* or T*.

    Attributes:
        name: C++ name of the layer function, told by geometry (conv1x1_56x56x64_to_128_relu).
        text: its definition (internal linkage). Layers with equal text share one function.
        microkernels: what it calls.
        includes: standard headers it uses.
        parallel: whether it takes the thread pool as its first argument.
        functions: layer functions that it calls; each must stand before it.
    """

    name: str
    text: str
    microkernels: tuple[Microkernel, ...] = ()
    includes: tuple[str, ...] = ()
    parallel: bool = False
    functions: tuple[LayerCode, ...] = ()


def offset(base: str, *loops: tuple[int, str, int], fixed: int = 0) -> str:
    """A pointer expression: base plus variable * step for each loop of more than one trip.

    Args:
        loops: (trips, variable, step).
    """
    terms = [f"{name} * {step}" for trips, name, step in loops if trips > 1 and step]
    text = " + ".join([base, *terms])
    if fixed:
        text += f" + {fixed}" if fixed > 0 else f" - {-fixed}"
    return text
