"""The assembly of an emitted class's microkernels, and their hot loops.

For the tests of the assembly and for benchmarks/mca.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mdlc.codegen.code import Function, Microkernel
from mdlc.codegen.cpp.functions import layer_function
from mdlc.codegen.cpp.kernels_file import includes_of, ordered
from mdlc.codegen.isa.base import Isa, KernelIsa
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.tiles.depthwise import DepthwiseTile
from mdlc.codegen.tiles.gemm_panels import multiply_adds

FMA = re.compile(r"^\t?(?:fmla|vfn?madd\d+ps)\b", re.M)
# How microkernels spell it, in C++ and in assembly.
WRITTEN = re.compile(r"\bvfmaq_\w+\(|\bfma_lane_f16<|\b_mm\d*_fmadd_ps\(|\bfmla ")


@dataclass(frozen=True)
class Probe:
    """A microkernel in a function of its own: its call, and its parameters in C++."""

    microkernel: Microkernel
    arguments: tuple[str | int, ...]
    needs: tuple[Microkernel, ...]
    parameters: str

    def fmas(self, isa: KernelIsa) -> int:
        """Multiply-adds in its assembly where no loop is unrolled: of its loops and around them."""
        name = self.microkernel.name
        on_panels = multiply_adds(name, self.arguments, isa)
        if on_panels is not None:
            return on_panels
        tile = DepthwiseTile.called(name, self.arguments)
        if tile is None:
            return len(WRITTEN.findall(repeated(self.microkernel.text)))
        begun = {pixel for pairs in tile.uses().values() for pixel, _ in pairs}
        return tile.multiply_adds - (len(begun) if isa.bias_last and tile.rows else 0)

    def code(self, number: int) -> str:
        """A function that calls it with these numbers."""
        names = ", ".join(re.findall(r"(\w+)(?:,|$)", self.parameters))
        listed = ", ".join(map(str, self.arguments))
        call = f"{self.microkernel.name}<{listed}>" if listed else self.microkernel.name
        return (
            f"__attribute__((flatten)) void probe{number}({self.parameters}) {{ {call}({names}); }}"
        )


def repeated(text: str) -> str:
    """Assembly as the assembler expands it: .macro, .rept and .if, none of them with another of
    its kind inside.
    """
    text = re.sub(r"^ +", "", text, flags=re.M)  # of raw strings
    for found in re.finditer(r"^\s*\.macro (\w+) ?(.*)\n((?:.*\n)*?)\s*\.endm\n", text, re.M):
        text = _expanded(text, found[1], found[2].split(", "), found[3])
    text = re.sub(r"^\s*\.(?:macro (?:.*\n)*?\s*\.endm|purgem .*)\n", "", text, flags=re.M)
    text = re.sub(
        r"^\s*\.if (.*)\n((?:.*\n)*?)\s*\.endif\n",
        lambda found: _chosen(found[1], found[2]),
        text,
        flags=re.M,
    )
    return re.sub(
        r"^([ \t\"]*)\.rept ([^\n\\]+)([^\n]*\n)(.*?)^[ \t\"]*\.endr[^\n]*\n",
        lambda found: found[4] * int(_value(found[2])),
        text,
        flags=re.M | re.S,
    )


def _expanded(text: str, name: str, parameters: list[str], body: str) -> str:
    """Text with a macro's body wherever it is called."""

    def expand(call: re.Match[str]) -> str:
        values = dict(p.partition("=")[::2] for p in parameters)
        words = re.findall(r'\s*("[^"]*"|[^,]+)', call[1])
        for word, parameter in zip(map(str.strip, words), parameters, strict=False):
            key, equals, value = word.partition("=")
            values[key if equals else parameter.partition("=")[0]] = (value or word).strip('"')
        return re.sub(r"\\(\w+)(?:\\\(\))?", lambda found: values[found[1]], body)

    return re.sub(rf"^\s*{name} (.*)\n", expand, text, flags=re.M)


def _chosen(condition: str, text: str) -> str:
    """The branch of an .if that the assembler takes."""
    branches = re.split(r"^\s*\.else(?:if (.*))?\n", text, flags=re.M)
    for test, branch in zip([condition, *branches[1::2]], branches[::2], strict=True):
        if test is None or _value(test):
            return branch
    return ""


def _value(expression: str) -> int:
    """Of a constant expression of the assembler: numbers, + - / & and brackets."""
    assert re.fullmatch(r"[\d\s()+/&-]+", expression), expression
    return int(eval(expression.replace("/", "//")))


def layers(plan: Plan) -> list[Function]:
    """The function of every step."""
    return [layer_function(step, plan.isa) for step in plan.steps]


def probes(codes: Iterable[Function]) -> Iterator[Probe]:
    """The tiles that layers call, each with the numbers of one call."""
    seen = set()
    for code in codes:
        for call in code.calls:
            tile = call.function
            assert isinstance(tile, Microkernel)
            if not re.match("gemm|conv|dwconv", tile.name):
                continue
            arguments = tuple(
                each.name if isinstance(each, Microkernel) else each
                for each in call.template_arguments
            )
            depthwise = DepthwiseTile.called(tile.name, arguments)
            kind = tile.name, arguments if "_panels_" in tile.name else depthwise
            if kind in seen:
                continue
            seen.add(kind)
            signature = re.search(rf"void {tile.name}\(([^)]*)\)", tile.text)
            assert signature
            yield Probe(tile, arguments, call.microkernels, signature[1])


def assembly(
    isa: Isa, found: list[Probe], compiler: list[str], folder: Path, flags: Sequence[str] = ()
) -> dict[int, str]:
    """The text of every probe's function, by its index.

    Args:
        flags: further ones for the compiler.
    """
    tiles = dict.fromkeys(each for probe in found for each in probe.needs)
    codes = [Function("", (), (), (), needs=tuple(tiles))]
    kernels = ordered(codes)
    parts = [
        "#include <cstdint>",
        "#include <cstring>",
        *(f"#include <{header}>" for header in sorted(includes_of((), kernels))),
        f"#include <{isa.toolchain.header}>",
        "namespace {",
    ]
    # A probe is to hold its kernel's text.
    parts += [m.text.replace("__attribute__((noinline))", "inline") for m in kernels]
    parts += ["}", 'extern "C" {', *(p.code(i) for i, p in enumerate(found)), "}"]
    source, target = folder / "probes.cpp", folder / "probes.s"
    source.write_text("\n".join(parts))
    command = [
        *compiler,
        "-std=c++17",
        "-O2",
        *isa.toolchain.flags,
        *flags,
        "-S",
        str(source),
        "-o",
        str(target),
    ]
    subprocess.run(command, check=True)
    functions = re.split(r"^probe(\d+):", target.read_text(), flags=re.M)
    return {
        int(number): repeated(re.split(r"\.size\s+probe|-- End function", text)[0])
        for number, text in zip(functions[1::2], functions[2::2], strict=True)
    }


def innermost_loops(text: str) -> list[str]:
    """Stretches from a label to a branch back to it, with no other branch target between."""
    lines = text.splitlines()
    where = {m[1]: i for i, line in enumerate(lines) if (m := re.match(r"(\.?\w+):", line))}
    found = []
    for end, line in enumerate(lines):
        branch = re.match(r"\t?(?:b\.?\w*|cbn?z|tbn?z|j\w+)\s+.*?(\.?\w+)\s*$", line)
        start = where.get(branch[1].rstrip("b")) if branch else None
        if start is None and branch and branch[1] == "1b":
            start = max((i for i in range(end) if lines[i].strip() == "1:"), default=None)
        if start is not None and start < end:
            body = lines[start + 1 : end + 1]
            if not any(re.match(r"\.?L\w+:", other) for other in body):
                found.append("\n".join(body))
    return found


def compilers(target: str) -> list[list[str]]:
    """The commands on this machine that compile for a target."""
    if target.startswith("arm-neon"):
        known = [["clang++", "--target=aarch64-linux-gnu"], ["aarch64-linux-gnu-g++"]]
    else:
        known = [["g++"], ["clang++"]]
    return [command for command in known if shutil.which(command[0])]
