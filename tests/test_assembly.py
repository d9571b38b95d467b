"""The assembly of every product and depthwise microkernel of six networks, on every ISA.

The innermost loop does its multiply-adds and nothing on the stack: no spilled accumulator, no
call. Networks are standard ones (benchmarks/networks.py), so these are the tiles that matter.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

import mdlc
from benchmarks import assembly
from benchmarks.assembly import FMA
from benchmarks.networks import NETWORKS
from mdlc.codegen.code import Function
from mdlc.codegen.isa.registry import find_isa

VECTOR_ISAS = ("arm-neon", "arm-neon+fp16", "x86-avx2", "x86-avx512")
_STACK = re.compile(r"\[sp\b|\(%r[sb]p|%r[sb]p\)")
_CALL = re.compile(r"\t(?:bl|call|callq)\s")


@cache
def layers(target: str) -> list[Function]:
    codes = []
    precision = "fp16" if find_isa(target).half else "fp32"
    for make_model in NETWORKS.values():
        compiled = mdlc.compile(make_model(), target, name="Net", precision=precision)
        codes += assembly.layers(compiled.plan)
    return codes


# gcc 12 reloads weights of these from the stack: tiles read in place, of many accumulators.
SPILLS_WITH_GCC = re.compile(r"^(conv2d|conv|gemm)_(?!.*panels).*_neon$|^dwconv.*_neon$")


@pytest.mark.parametrize("compiler", ["clang++", "g++"])
@pytest.mark.parametrize("target", VECTOR_ISAS)
def test_hot_loops_have_multiply_adds_and_no_stack(
    target: str, compiler: str, tmp_path: Path
) -> None:
    command = [c for c in assembly.compilers(target) if c[0].endswith(compiler)]
    if not command:
        pytest.skip(f"needs {compiler} for {target}")
    isa = find_isa(target)
    found = list(assembly.probes(layers(target)))
    assert len(found) >= 15
    checked = 0
    for number, text in assembly.assembly(isa, found, command[0], tmp_path).items():
        probe = found[number]
        if compiler == "g++" and SPILLS_WITH_GCC.match(probe.microkernel.name):
            continue
        hot = [loop for loop in assembly.innermost_loops(text) if FMA.search(loop)]
        assert hot or FMA.search(text), probe.microkernel.name
        for loop in hot:
            checked += 1
            fmas = len(FMA.findall(loop))
            assert fmas % probe.fmas == 0 or probe.microkernel.name.startswith("dw"), (
                f"{probe.microkernel.name}: {fmas} multiply-adds on {probe.fmas} accumulators"
            )
            assert not _STACK.search(loop), f"{probe.microkernel.name} uses the stack:\n{loop}"
            assert not _CALL.search(loop), probe.microkernel.name
    assert checked >= 10
