"""A Metal class, built and run: on the simulator, or on a Mac's own GPU where there is one."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import platformdirs

from mdlc.codegen.code import C_TYPES
from mdlc.codegen.cpp.class_text import MAT_TYPES
from mdlc.codegen.cpp.format import format_cpp
from mdlc.codegen.isa.host import host_cpu_flags, host_isa
from mdlc.codegen.isa.registry import isas
from mdlc.codegen.kernel import View
from mdlc.codegen.metal.emit_metal import emit, pictured
from mdlc.codegen.metal.kernel import image_of
from mdlc.codegen.metal.source import call_arguments, read_kernels, without_attributes
from mdlc.codegen.metal.split import MetalPlan
from mdlc.codegen.plan import weights_file
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.run.executable import PRIVATE_INFO, Executable, Trace
from mdlc.codegen.run.toolchain import BUILD_FLAGS, LocalToolchain, program_words
from mdlc.codegen.templates import render
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array

# What textures hold, by their elements.
_HELD = {"half": np.float16, "float": np.float32, "int": np.int32}

# The kernels' own unit: no lax conversions, every load and store reported.
SHIM_FLAGS = (
    "-std=c++17",
    "-O2",
    "-ffp-contract=off",
    "-flax-vector-conversions=none",
    "-fsanitize-coverage=bb,trace-loads,trace-stores",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-user-defined-literals",
    "-Wno-duplicate-decl-specifier",
    "-Wno-unused-const-variable",
    "-Wno-unused-function",
)


def find_clang() -> tuple[str, ...]:
    """The command of a clang, whose extensions the simulator needs.

    `MDLC_CXX_METAL` names another.

    Raises:
        MdlcError: there is none.
    """
    wanted = os.environ.get("MDLC_CXX_METAL")
    if wanted:
        return program_words(wanted, "MDLC_CXX_METAL")
    if shutil.which("clang++"):
        return ("clang++",)
    raise MdlcError(
        "running metal on this machine needs clang++, with which the GPU is simulated",
        node="--target",
        hint="install clang, or name one in MDLC_CXX_METAL",
    )


@dataclass(frozen=True)
class Mac:
    """What a Mac builds and runs the real thing with.

    Attributes:
        metal_cpp: the folder of metal-cpp.
    """

    metal_cpp: Path


def find_mac() -> Mac | None:
    """The tools of a Mac whose GPU can be used, or None.

    metal-cpp is no part of Xcode: `MDLC_METAL_CPP` says where it lies.
    """
    folder = os.environ.get("MDLC_METAL_CPP")
    if platform.system() != "Darwin" or not folder or not shutil.which("xcrun"):
        return None
    found = subprocess.run(["xcrun", "--find", "metal"], capture_output=True, check=False)
    return Mac(Path(folder)) if found.returncode == 0 else None


@cache
def _half_arguments(clang: tuple[str, ...]) -> tuple[str, ...]:
    """What lets functions take and return halves: a flag of clang 16 and older, later the rule."""
    flag = ("-Xclang", "-fallow-half-arguments-and-returns")
    command = [*clang, *flag, "-x", "c++", "-fsyntax-only", os.devnull]
    done = subprocess.run(command, capture_output=True, check=False)
    return () if done.returncode else flag


def half_flags() -> tuple[str, ...]:
    """Instructions of this machine that convert half precision, where it has them."""
    return ("-mf16c", "-mavx2", "-mfma") if {"f16c", "avx2", "fma"} <= host_cpu_flags() else ()


def check_source(text: str, file: str, *, flags: Sequence[str] = ()) -> None:
    """Compiles a .metal text as the simulator does, without running it.

    Raises:
        MdlcError: it is no valid Metal, or there is no clang.
    """
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "simulated.cpp").write_text(simulated(text, Path(file).stem))
        compile_kernels(find_clang(), Path(scratch), Path(scratch) / "simulated.o", flags)


def simulated(text: str, name: str) -> str:
    """The unit that hands the kernels of a file to the simulator."""
    kernels = [
        {
            "name": kernel.name,
            "arguments": call_arguments(kernel),
            "waits": kernel.waits,
            "textures": kernel.count("texture"),
            "buffers": kernel.count("buffer"),
        }
        for kernel in read_kernels(text, f"{name}.metal")
    ]
    return render(
        "metal/simulated.cpp.j2", name=name, kernels=kernels, text=without_attributes(text)
    )


def compile_kernels(
    clang: Sequence[str], folder: Path, output: Path, flags: Sequence[str] = ()
) -> None:
    """Compiles simulated.cpp of a folder.

    Raises:
        MdlcError: clang rejects the text; the message has its first complaint.
    """
    with as_file(files("mdlc.runtime_templates").joinpath("metal/shim")) as shim:
        command = [
            *clang,
            *SHIM_FLAGS,
            *_half_arguments(tuple(clang)),
            *half_flags(),
            *flags,
            "-isystem",
            str(shim),
            f"-I{folder}",
        ]
        command += ["-c", str(folder / "simulated.cpp"), "-o", str(output)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if "error" in line]
        first = (complaints or done.stderr.splitlines() or ["no message"])[0]
        raise MdlcError(f"clang rejects the kernels: {first}", node="metal")


class MetalProgram(Executable):
    """A plan's Metal class as a program of its own, on the simulator or on a Mac's GPU."""

    def __init__(
        self, plan: MetalPlan, *, flags: Sequence[str] = (), directory: Path | None = None
    ) -> None:
        """Builds the program.

        Raises:
            MdlcError: there is no clang, or the text does not compile.
        """
        self.plan: MetalPlan = plan
        self.mac = find_mac()
        clang = ("xcrun", "clang++") if self.mac else find_clang()
        label = "Metal" if self.mac else "the Metal simulator (clang++)"
        self.toolchain = LocalToolchain(clang, (), label)
        processor = host_isa(isas().values())
        emitted = emit(plan, PRIVATE_INFO, instrument=True, processor=processor)
        ours = [name for name in emitted if name.endswith(".cpp") and name != f"{plan.name}_c.cpp"]
        self._class_sources = (*ours, "runner.cpp")
        metal = emitted[f"{plan.name}.metal"].decode()
        if not self.mac:
            emitted["simulated.cpp"] = simulated(metal, plan.name).encode()
        emitted["runner.cpp"] = format_cpp(self._runner()).encode()
        digest = hashlib.sha256()
        for name, data in sorted(emitted.items()):
            digest.update(name.encode() + hashlib.sha256(data).digest())
        digest.update(_shim_digest())
        digest.update(repr((clang, flags, half_flags(), SHIM_FLAGS, BUILD_FLAGS)).encode())
        root = directory or Path(platformdirs.user_cache_dir("mdlc")) / "build"
        self.directory = root / digest.hexdigest()[:24]
        self.program = self.directory / "runner"
        if not self.program.exists():
            self._build(emitted, flags)

    def _runner(self) -> str:
        plan = self.plan
        blobs = plan.blobs()
        return render(
            "metal/runner.cpp.j2",
            plan=plan,
            name=plan.name,
            mat_types=MAT_TYPES,
            c_types=C_TYPES,
            traced=[_part(step.output) for step in plan.steps],
            simulated=self.mac is None,
            pieces=[(weights_file.HEADER_BYTES + blob.offset, blob.nbytes) for blob in blobs],
            weights_length=weights_file.HEADER_BYTES + plan.weight_bytes + 1,
            picture=pictured(plan),
        )

    def _build(self, files_: Mapping[str, bytes], flags: Sequence[str]) -> None:
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.directory.parent) as scratch:
            folder = Path(scratch) / "files"
            folder.mkdir()
            for name, data in files_.items():
                (folder / name).write_bytes(data)
            if self.mac:
                self._link_on_mac(self.mac, folder, flags)
            else:
                self._link(folder, flags)
            try:
                folder.rename(self.directory)
            except OSError:
                if not self.program.exists():  # another process may have built it meanwhile
                    raise

    def _link(self, folder: Path, flags: Sequence[str]) -> None:
        compile_kernels(self.toolchain.compiler, folder, folder / "simulated.o")
        own = ["-std=c++17", "-O2", "-pthread", *half_flags(), *flags]
        with as_file(files("mdlc.runtime_templates").joinpath("metal/shim")) as shim:
            sources = [*self._sources(folder), folder / "simulated.o"]
            self.toolchain.compile(sources, folder / "runner", [*own, "-isystem", str(shim)])

    def _link_on_mac(self, mac: Mac, folder: Path, flags: Sequence[str]) -> None:
        name = self.plan.name
        air, library = folder / f"{name}.air", folder / f"{name}.metallib"
        for command in (
            ["xcrun", "metal", "-c", str(folder / f"{name}.metal"), "-o", str(air)],
            ["xcrun", "metallib", str(air), "-o", str(library)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise MdlcError(f"xcrun failed: {done.stderr.strip()[:300]}", node=f"{name}.metal")
        frameworks = [w for f in ("Foundation", "Metal", "QuartzCore") for w in ("-framework", f)]
        own = ["-std=c++17", "-O2", f"-I{mac.metal_cpp}", *flags, *frameworks]
        self.toolchain.compile(self._sources(folder), folder / "runner", own)

    def _sources(self, folder: Path) -> list[Path]:
        return [folder / name for name in self._class_sources]

    def _traced(self, data: bytes, at: int, plan: Plan) -> tuple[Trace, int]:
        results = {}
        for step in plan.steps:
            kind = step.output.type
            held = np.dtype(_HELD[image_of(step.output).element])
            raw = np.frombuffer(data, held, kind.size, at)
            results[step.name] = kind.to_logical(raw.astype(kind.dtype.numpy))
            at += kind.size * held.itemsize
        return Trace(results), at

    def picture(self, bgra: Array) -> dict[str, Array]:
        """One inference on a picture as a camera gives it.

        Args:
            bgra: uint8 [height, width, 4].
        """
        size = np.array([bgra.shape[1], bgra.shape[0]], np.uint32)
        data, _ = self._run("picture", 1, size.tobytes() + np.ascontiguousarray(bgra).tobytes())
        return self._unpack(data, self.plan)

    def _arguments(self) -> list[str]:
        return [str(self.directory / f"{self.plan.name}.metallib")] if self.mac else []


def _part(view: View) -> tuple[int, ...]:
    """Texture, images, height, width, channels, first slice and pitch of a view."""
    image = image_of(view)
    return (view.buffer, *image.extent, image.first, image.pitch)


def _shim_digest() -> bytes:
    digest = hashlib.sha256()
    shim = files("mdlc.runtime_templates").joinpath("metal/shim")
    for part in ("metal_stdlib", "device.h", "simulator.h", "checks.h", "Metal/Metal.hpp",
                 "Foundation/Foundation.hpp"):  # fmt: skip
        digest.update(shim.joinpath(part).read_bytes())
    return digest.digest()
