"""The sources of a class: which there are, and the two that hold its kernels.

NAME.h is for the app, NAME.cpp for the curious: Init and infer, which is the table of contents.
The functions of layers and the microkernels that they call stand in a file for each instruction
set, NAME_arm_neon.cpp, in a namespace of its own; NAME_internal.h declares them to NAME.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mdlc.codegen.code import Function, Microkernel
from mdlc.codegen.cpp.format import format_cpp
from mdlc.codegen.cpp.functions import Functions
from mdlc.codegen.frame.text import functions as frame_functions
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.templates import render


def namespace(isa: Isa) -> str:
    """The C++ namespace of an instruction set's kernels: arm_neon_dotprod."""
    return re.sub(r"[^0-9A-Za-z]+", "_", isa.name)


def endings(*isas: Isa) -> tuple[str, ...]:
    """What the names of a class's headers and sources have behind the name of the class."""
    return ".h", "_internal.h", ".cpp", *(f"_{namespace(isa)}.cpp" for isa in isas)


def source_files(*plans: Plan) -> tuple[str, ...]:
    """The names of the files that a compiler is given; plans: of one class."""
    found = endings(*(plan.isa for plan in plans))
    return tuple(plans[0].name + each for each in found if each.endswith(".cpp"))


def guard(isa: Isa) -> str:
    """The preprocessor's condition that the machine is an instruction set's; "" for any."""
    return " && ".join(f"defined({macro})" for macro in isa.toolchain.guard)


def using(name: str, isa: Isa) -> list[str]:
    """The statements by which a member function sees everything internal."""
    internal = f"{name}_internal"
    return [f"using namespace {each};" for each in (internal, f"{internal}::{namespace(isa)}")]


def kernels_file(plan: Plan, version: str, functions: Functions, condition: str) -> bytes:
    """The layers of a plan and their microkernels.

    Args:
        version: of mdlc; functions: of all steps and row-fused groups.
        condition: of the preprocessor, where the class has other machines' layers, too.
    """
    microkernels = ordered(functions.defined)
    text = render(
        "cpp/kernels.cpp.j2",
        name=plan.name,
        isa=plan.isa,
        version=version,
        namespace=namespace(plan.isa),
        condition=condition,
        functions=functions.texts,
        microkernels=[microkernel.text for microkernel in microkernels],
        frames=_frames(plan),
        includes=sorted(includes_of(functions.defined, microkernels)),
    )
    return format_cpp(text).encode()


def _frames(plan: Plan) -> str:
    """The functions that read a camera's frame; "" for classes that take none."""
    port, frame = plan.frame_port, plan.frame
    if port is None or frame is None:
        return ""
    height, width, _ = port.dims
    return frame_functions(plan.name, frame.spec, height, width, frame.order)


def ordered(codes: Sequence[Function]) -> list[Microkernel]:
    """Every microkernel once, each after what it needs."""
    seen: dict[str, Microkernel] = {}

    def visit(microkernel: Microkernel) -> None:
        known = seen.get(microkernel.name)
        if known is not None:
            assert known.text == microkernel.text, f"two microkernels are called {microkernel.name}"
            return
        for need in microkernel.needs:
            visit(need)
        seen[microkernel.name] = microkernel

    for code in codes:
        for microkernel in code.microkernels:
            visit(microkernel)
    return list(seen.values())


def includes_of(codes: Sequence[Function], microkernels: Sequence[Microkernel]) -> set[str]:
    """The standard headers that functions and microkernels use."""
    found: set[str] = set()
    for code in codes:
        found.update(*(each.includes for each in (code, *code.functions)))
    for microkernel in microkernels:
        found.update(microkernel.includes)
    return found - {"cstddef", "cstdint", "cstring"}
