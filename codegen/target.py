"""Targets by name: how each turns a graph into a plan, a plan into files, and files into a program.

A target of the C++ class is an instruction set (codegen/isa/); Metal brings its own kernels,
emitter and way to run (codegen/metal/).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mdlc.codegen.cpp import emit as emit_cpp
from mdlc.codegen.cpp.kernels_file import endings
from mdlc.codegen.isa.base import Backend, Isa
from mdlc.codegen.isa.host import host_isa
from mdlc.codegen.isa.registry import find_core, isas
from mdlc.codegen.metal import emit_metal, program
from mdlc.codegen.metal import lowering as metal_lowering
from mdlc.codegen.metal.backend import METAL, METAL_FLOAT
from mdlc.codegen.metal.cost import estimate
from mdlc.codegen.plan import lowering
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.run.loaded import LoadedModel
from mdlc.codegen.run.toolchain import find_toolchain
from mdlc.compiler.errors import MdlcError, choose


@dataclass(frozen=True)
class Target:
    """What can be compiled for.

    Attributes:
        backend: the instruction set or GPU; lower, emit: see the modules of those names.
        executable: builds a plan's program, to be called with numpy arrays.
        loaded: the same inside this process; None where that is not possible.
        needs: what builds and what runs its programs here; MdlcError where that is missing.
        embeds: whether the weights may stand in the source; encodes: whether they may be encoded.
        c_api: whether the class for C is an option; it is always there where it is not.
        profiles: whether the class may tell when each layer is done.
        int8: whether it has kernels that compute in 8 bits.
        threads: whether the class may compute on several threads.
        answers: whether the class may answer with more than tensors.
        resizes: whether the class may have several sizes.
        keeps: whether the class may keep states from one inference to the next.
        unpacks: whether its convolutions read bytes; attends: whether it has a layer of attention.
        half: whether it computes in half precision, for which `verify` allows.
        falls_back: whether layers that it lacks can be left to the processor.
        frames: whether the class may take camera frames.
        timed: whether a program's times are those of the target.
        sized: whether its code is C++ alone, built here as on the device.
        estimate: a plan's cost by figures of hardware, for `mdlc explain`: a line for each step
            by name, and lines for the whole network; None where the candidates' cycles say it.
    """

    backend: Backend
    lower: Callable[..., Plan]
    emit: Callable[..., dict[str, bytes]]
    executable: Callable[..., Executable]
    loaded: Callable[..., LoadedModel] | None = field(default=None, kw_only=True)
    needs: Callable[[], tuple[str, str]]
    embeds: bool = True
    encodes: bool = True
    c_api: bool = True
    profiles: bool = True
    int8: bool = True
    threads: bool = True
    resizes: bool = True
    keeps: bool = True
    answers: bool = True
    unpacks: bool = True
    attends: bool = True
    half: bool = False
    falls_back: bool = False
    timed: bool = True
    frames: bool = True
    sized: bool = True
    estimate: Callable[[Plan], tuple[dict[str, str], list[str]]] | None = None

    @property
    def name(self) -> str:
        """As on the command line."""
        return self.backend.name

    def with_core(self, name: str) -> Target:
        """The target whose cost model counts with the figures of a core.

        Raises:
            MdlcError: it has no such core.
        """
        if not isinstance(self.backend, Isa):
            raise MdlcError(
                f"target {self.name} has no cores to choose from",
                node="--core",
                hint="leave it out",
            )
        core = find_core(self.backend, name)
        return replace(self, backend=replace(self.backend, core=core))

    @property
    def emulated(self) -> bool:
        """Whether its programs run in an emulator on this machine.

        Raises:
            MdlcError: they do not run here at all.
        """
        return isinstance(self.backend, Isa) and bool(find_toolchain(self.backend).runner)

    @property
    def narrows(self) -> bool:
        """Whether `--precision fp16` changes what it computes in."""
        return isinstance(self.backend, Isa) and self.backend.half is not None


def _cpp(isa: Isa) -> Target:
    def needs() -> tuple[str, str]:
        found = find_toolchain(isa)
        return found.name, found.runner[0].rsplit("/", 1)[-1] if found.runner else "this machine"

    return Target(isa, lowering.lower, emit_cpp.emit, Executable, needs, loaded=LoadedModel)


def _metal_needs() -> tuple[str, str]:
    if program.find_mac():
        return "xcrun metal", "this machine's GPU"
    return program.find_clang()[0], "a simulator"


def targets() -> dict[str, Target]:
    """All targets by name."""
    found = {name: _cpp(isa) for name, isa in isas().items()}
    for metal in (METAL, METAL_FLOAT):
        found[metal.name] = Target(
            metal,
            metal_lowering.lower,
            emit_metal.emit,
            program.MetalProgram,
            _metal_needs,
            embeds=False,
            encodes=False,
            c_api=False,
            profiles=False,
            int8=False,
            threads=False,
            resizes=False,
            keeps=False,
            answers=False,
            unpacks=False,
            attends=False,
            half=not metal.in_float,
            falls_back=True,
            timed=False,
            frames=False,
            sized=False,
            estimate=estimate,
        )
    return found


# What people call a target whose name they do not know, for the hint.
_CALLED = {
    "aarch64": "arm-neon", "arm": "arm-neon", "arm64": "arm-neon",
    "armv8": "arm-neon", "raspberrypi": "arm-neon",
    "avx": "x86-avx2", "amd64": "x86-avx2", "x86": "x86-avx2", "x86-64": "x86-avx2",
    "x86_64": "x86-avx2",
    "gpu": "metal", "iphone": "ios", "macos": "metal",
    "armv7": "armv7-neon", "armeabi-v7a": "armv7-neon", "armhf": "armv7-neon",
    "arm32": "armv7-neon",
    "wasm": "wasm-simd128", "webassembly": "wasm-simd128", "wasi": "wasm-simd128",
    "emscripten": "wasm-simd128", "browser": "web", "javascript": "web",
    "c++": "generic", "cpp": "generic", "scalar": "generic",
    "cpu": "host", "native": "host",
}  # fmt: skip


# Sets of targets by name, for a class that finds out on the device what it runs on.
_ARM = ("arm-neon", "arm-neon+dotprod", "arm-neon+i8mm")
_X86 = ("x86-avx2", "x86-avx512", "x86-avx512-vnni")
SETS = {
    "android": (*_ARM, "armv7-neon", "x86-avx2", "generic"),
    "ios": (*_ARM, "x86-avx2", "generic"),
    "linux": (*_X86, *_ARM, "armv7-neon", "generic"),
    "windows": (*_X86, *_ARM, "generic"),
    "web": ("wasm-simd128",),
    "all": (*_ARM, "armv7-neon", *_X86, "wasm-simd128", "generic"),
}


def find_targets(names: str) -> tuple[Target, ...]:
    """The targets of one class: names with commas between, among them names of sets.

    Raises:
        MdlcError: there is no such target, or one cannot be in a class with others.
    """
    listed = [word.strip() for word in names.split(",")]
    known = [each for word in listed for each in SETS.get(word, (word,))]
    found = {target.name: target for target in map(find_target, known)}
    if len(found) > 1:
        for target in found.values():
            if not isinstance(target.backend, Isa):
                raise MdlcError(
                    f"target {target.name} is no instruction set, so it has a class of its own",
                    node="--target",
                    hint="compile for it by itself",
                )
    return tuple(found.values())


def file_endings(found: Sequence[Target]) -> tuple[str, ...]:
    """What the names of a class's headers and sources have behind that of the class."""
    isas_of = [target.backend for target in found if isinstance(target.backend, Isa)]
    return endings(*isas_of) if isas_of else (".h", ".cpp")


def find_target(name: str, flag: str = "--target") -> Target:
    """The target of a name; `host` is the best instruction set that this machine runs.

    Args:
        flag: where the name was given.

    Raises:
        MdlcError: there is no such target.
    """
    known = targets()
    if name == "host":
        return known[host_isa(isas().values()).name]
    if name not in known:
        raise MdlcError(
            f"there is no target {name!r}",
            node=flag,
            hint=choose(name, (*known, "host", *SETS), _CALLED.get(name.lower())),
        )
    return known[name]


def target_of(plan: Plan) -> Target:
    """The target that a plan was made for."""
    return targets()[plan.backend.name]
