"""What an emitted class takes of a device: code, stack, and whether `infer` asks for memory."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mdlc.codegen.cpp.emit import functions_of_layers
from mdlc.codegen.cpp.kernels_file import source_files
from mdlc.codegen.run.call_graph import ENDING, FLAG, Called, CallGraph
from mdlc.codegen.run.toolchain import BUILD_FLAGS, LocalToolchain, find_toolchain
from mdlc.compiler.errors import MdlcError

if TYPE_CHECKING:
    from mdlc.api import CompiledModel

# What gives memory out, as C and C++ call it; of operator new, the names that linkers see.
_ALLOCATES = re.compile(
    r"^(malloc|calloc|realloc|free|aligned_alloc|posix_memalign|mmap|munmap|_Zn[wa]\w*|_Zd[la]\w*)$"
)


@dataclass(frozen=True)
class Footprint:
    """What was measured of a class as the compiler here builds it.

    Attributes:
        compiler: what built it, with its version.
        code_bytes: machine code and constants, without embedded weights; None without a `size`
            tool.
        largest: the layers whose function, with all that it calls, has most machine code, and
            its bytes.
        infer_stack, init_stack: bytes of stack; of functions outside the class nothing.
        deepest: the functions on infer's deepest path; layers: those that it leads through.
        unbounded: functions whose frames have no bound.
        outside: what `infer` calls that is not in the class's sources.
        heap: those of them that give out memory.
    """

    compiler: str
    code_bytes: int | None
    largest: tuple[tuple[str, ...], int]
    infer_stack: int
    init_stack: int
    deepest: tuple[str, ...]
    layers: tuple[str, ...]
    unbounded: tuple[str, ...]
    outside: tuple[str, ...]
    heap: tuple[str, ...]


def footprint(compiled: CompiledModel) -> Footprint:
    """Builds the class's sources with gcc and reads what it reports of them.

    Raises:
        MdlcError: there is no gcc for the target here.
    """
    toolchain = find_toolchain(compiled.plan.isa)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            objects = _objects(compiled, toolchain, Path(scratch), [FLAG])
        except MdlcError as error:
            raise MdlcError(
                f"the stack of a class is measured by gcc 10 or newer, and {error.reason}",
                node=error.node,
                hint="name one in MDLC_CXX",
            ) from error
        reports = [each.with_suffix(ENDING).read_text(errors="replace") for each in objects]
        code = _text_bytes(compiled, objects)
        sizes = _symbol_sizes(compiled, objects)
    graph = CallGraph(reports)
    name = compiled.name
    infer = graph.named(lambda f: _is(f, name, "infer") or _is(f, name, "Decode"))
    init = graph.named(lambda f: _is(f, name, "Init"))
    layers = functions_of_layers(compiled.plans or (compiled.plan,))
    depth, path = max((graph.deepest(each) for each in infer), key=lambda found: found[0])
    reached = graph.reached(infer)
    functions = [graph.functions[title] for title in reached if title in graph.functions]
    outside = sorted({each.symbol for each in functions if each.frame is None})
    by_code = [
        (named, graph.sizes(sizes, graph.named(lambda f, own=own: _called(f) == own)))  # type: ignore[misc]
        for own, named in layers.items()
    ]
    return Footprint(
        f"{toolchain.name} {_version(toolchain)}".strip(),
        code,
        max(by_code, key=lambda found: found[1], default=((), 0)),
        depth,
        max((graph.deepest(each)[0] for each in init), default=0),
        tuple(each.text for each in path),
        next((layers[_called(each)] for each in path if _called(each) in layers), ()),
        tuple(each.text for each in functions if each.unbounded),
        tuple(each for each in outside if not each.startswith("__indirect")),
        tuple(each for each in outside if _ALLOCATES.match(each)),
    )


def _version(toolchain: LocalToolchain) -> str:
    done = subprocess.run(
        [*toolchain.compiler, "-dumpfullversion"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _called(function: Called) -> str:
    """A function's name without namespaces, templates and parameters."""
    head = re.sub(r"<[^<>]*>", "", function.text.partition("(")[0])
    return head.replace("*", " ").split()[-1].rpartition("::")[2] if head.split() else ""


def _is(function: Called, name: str, member: str) -> bool:
    return function.text.partition("(")[0].endswith(f"{name}::{member}")


def code_bytes(compiled: CompiledModel, toolchain: LocalToolchain) -> int | None:
    """Machine code and constants of the emitted source as shipped, by the `size` tool.

    Embedded weights are a source of their own and are not counted.
    """
    if _tool(compiled, "size") is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        return _text_bytes(compiled, _objects(compiled, toolchain, Path(scratch), []))


def _objects(
    compiled: CompiledModel, toolchain: LocalToolchain, folder: Path, flags: Sequence[str]
) -> list[Path]:
    for name, content in compiled.files().items():
        (folder / name).write_bytes(content)
    found = []
    for name in source_files(*(compiled.plans or (compiled.plan,))):
        found.append((folder / name).with_suffix(".o"))
        toolchain.compile([folder / name], found[-1], [*BUILD_FLAGS, *flags, "-c"])
    return found


def _tool(compiled: CompiledModel, name: str) -> str | None:
    triple = compiled.plan.isa.toolchain.triple
    candidates = (f"{triple}-{name}", name, f"llvm-{name}")
    return next((path for each in candidates if (path := shutil.which(each))), None)


def _text_bytes(compiled: CompiledModel, objects: Sequence[Path]) -> int | None:
    tool = _tool(compiled, "size")
    if tool is None:
        return None
    done = subprocess.run([tool, *map(str, objects)], capture_output=True, text=True, check=False)
    found = re.findall(r"^\s*(\d+)\s", done.stdout, re.MULTILINE)
    return sum(map(int, found)) if found else None


def _symbol_sizes(compiled: CompiledModel, objects: Sequence[Path]) -> Mapping[str, int]:
    """Bytes of every function, by symbol; none without an `nm` tool."""
    tool = _tool(compiled, "nm")
    if tool is None:
        return {}
    done = subprocess.run(
        [tool, "-S", *map(str, objects)], capture_output=True, text=True, check=False
    )
    found = re.findall(r"^\w+ (\w+) [TtWwuV] (\S+)$", done.stdout, re.MULTILINE)
    return {symbol: int(nbytes, 16) for nbytes, symbol in found}
