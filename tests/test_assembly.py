"""The assembly of every product and depthwise microkernel of six networks, on every ISA.

The innermost loop does its multiply-adds and nothing on the stack: no spilled accumulator, no
call. Networks are standard ones (benchmarks/networks.py), so these are the tiles that matter.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import mdlc
from benchmarks.networks import NETWORKS
from mdlc.codegen.emit_cpp import _ordered
from mdlc.codegen.isa import Isa, find_isa
from mdlc.codegen.kernel import LayerCode, Microkernel
from mdlc.codegen.threads import resolve

VECTOR_ISAS = ("arm-neon", "x86-avx2", "x86-avx512")
_FMA = re.compile(r"\t(?:fmla|vfn?madd\d+ps)\b")
_STACK = re.compile(r"\[sp\b|\(%r[sb]p|%r[sb]p\)")
_CALL = re.compile(r"\t(?:bl|call|callq)\s")


@dataclass(frozen=True)
class Probe:
    """A microkernel in a function of its own: its text, template arguments and parameters."""

    microkernel: Microkernel
    numbers: str
    parameters: str

    @property
    def fmas(self) -> int:
        """Multiply-adds of one step: accumulators, or (depthwise) uses of one filter row."""
        return len(set(re.findall(r"\bacc\d+(?:_\d+)?\b", self.microkernel.text)))

    def code(self, number: int) -> str:
        names = ", ".join(re.findall(r"(\w+)(?:,|$)", self.parameters))
        call = f"{self.microkernel.name}<{self.numbers}>" if self.numbers else self.microkernel.name
        return f"void probe{number}({self.parameters}) {{ {call}({names}); }}"


def probes(codes: list[LayerCode]) -> Iterator[Probe]:
    """The tiles that layers call, each with the numbers of one call."""
    seen = set()
    for code in codes:
        for found in re.finditer(r"\b((?:gemm|conv|dwconv)\w*)(?:<([\d, -]+)>)?\(", code.text):
            known = {m.name: m for m in code.microkernels}
            if found[1] in seen or found[1] not in known:
                continue
            seen.add(found[1])
            text = known[found[1]].text
            signature = re.search(rf"inline void {found[1]}\(([^)]*)\)", text)
            assert signature
            yield Probe(known[found[1]], found[2] or "", signature[1])


@cache
def layers(target: str) -> list[LayerCode]:
    codes = []
    for make_model in NETWORKS.values():
        plan = mdlc.compile(make_model(), target, name="Net").plan
        codes += [resolve(step.kernel.emit(step, plan.isa), 1) for step in plan.steps]
    return codes


def assembly(isa: Isa, found: list[Probe], compiler: list[str], folder: Path) -> dict[int, str]:
    """The text of every probe's function."""
    codes = [LayerCode("", "", (probe.microkernel,)) for probe in found]
    parts = ["#include <cstring>", f"#include <{isa.header}>", "namespace {"]
    parts += [m.text for m in _ordered(codes)]
    parts += ["}", 'extern "C" {', *(p.code(i) for i, p in enumerate(found)), "}"]
    source, target = folder / "probes.cpp", folder / "probes.s"
    source.write_text("\n".join(parts))
    command = [*compiler, "-std=c++17", "-O2", *isa.flags, "-S", str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    functions = re.split(r"^probe(\d+):", target.read_text(), flags=re.M)
    return {
        int(number): re.split(r"\.size\s+probe|-- End function", text)[0]
        for number, text in zip(functions[1::2], functions[2::2], strict=True)
    }


def innermost_loops(text: str) -> list[str]:
    """Stretches from a label to a branch back to it, with no other branch target between."""
    lines = text.splitlines()
    where = {m[1]: i for i, line in enumerate(lines) if (m := re.match(r"(\.?\w+):", line))}
    found = []
    for end, line in enumerate(lines):
        branch = re.match(r"\t(?:b\.\w+|b|cbn?z|tbn?z|j\w+)\s+.*?(\.?\w+)\s*$", line)
        start = where.get(branch[1].rstrip("b")) if branch else None
        if start is None and branch and branch[1] == "1b":
            start = max((i for i in range(end) if lines[i].strip() == "1:"), default=None)
        if start is not None and start < end:
            body = lines[start + 1 : end + 1]
            if not any(re.match(r"\.?L\w+:", other) for other in body):
                found.append("\n".join(body))
    return found


def compilers(target: str) -> list[list[str]]:
    if target == "arm-neon":
        known = [["clang++", "--target=aarch64-linux-gnu"], ["aarch64-linux-gnu-g++"]]
    else:
        known = [["g++"], ["clang++"]]
    return [command for command in known if shutil.which(command[0])]


# gcc 12 reloads weights of these from the stack: tiles read in place, of many accumulators.
SPILLS_WITH_GCC = re.compile(r"^(conv2d|conv|gemm)_(?!.*panels).*_neon$|^dwconv.*_neon$")


@pytest.mark.parametrize("compiler", ["clang++", "g++"])
@pytest.mark.parametrize("target", VECTOR_ISAS)
def test_hot_loops_have_multiply_adds_and_no_stack(
    target: str, compiler: str, tmp_path: Path
) -> None:
    command = [c for c in compilers(target) if c[0].endswith(compiler)]
    if not command:
        pytest.skip(f"needs {compiler} for {target}")
    isa = find_isa(target)
    found = list(probes(layers(target)))
    assert len(found) >= 15
    checked = 0
    for number, text in assembly(isa, found, command[0], tmp_path).items():
        probe = found[number]
        if compiler == "g++" and SPILLS_WITH_GCC.match(probe.microkernel.name):
            continue
        hot = [loop for loop in innermost_loops(text) if _FMA.search(loop)]
        assert hot or _FMA.search(text), probe.microkernel.name
        for loop in hot:
            checked += 1
            fmas = len(_FMA.findall(loop))
            assert fmas % probe.fmas == 0 or probe.microkernel.name.startswith("dw"), (
                f"{probe.microkernel.name}: {fmas} multiply-adds on {probe.fmas} accumulators"
            )
            assert not _STACK.search(loop), f"{probe.microkernel.name} uses the stack:\n{loop}"
            assert not _CALL.search(loop), probe.microkernel.name
    assert checked >= 10
