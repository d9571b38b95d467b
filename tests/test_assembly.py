"""The assembly of every product and depthwise microkernel of six networks, on every ISA.

A microkernel has the multiply-adds that its tile needs, none twice and none left out, and its
innermost loops use nothing on the stack: no spilled accumulator, no call. Networks are standard
ones (benchmarks/networks.py), so these are the tiles that matter.
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
from mdlc.compiler.types import DType

VECTOR_ISAS = ("arm-neon", "arm-neon+fp16", "x86-avx2", "x86-avx512")
_STACK = re.compile(r"\[sp\b|\(%r[sb]p|%r[sb]p\)")
_CALL = re.compile(r"\t(?:bl|call|callq)\s")
# The only tiles that spill: products of halves that are read in place, built by gcc 12. A
# multiply-add of halves takes its lane from v0 to v15 alone, and gcc runs out of those sixteen.
# Their bound: accesses to the stack in an innermost loop per multiply-add.
_SPILLING = {"g++": re.compile(r"(?:gemm|conv|conv2d)_(?!.*panels).*f16_.*_neon")}
_SPILLS_PER_FMA = 0.7


@cache
def layers(target: str) -> list[Function]:
    codes = []
    precision = "fp16" if find_isa(target).half else "fp32"
    for make_model in NETWORKS.values():
        compiled = mdlc.compile(make_model(), target, name="Net", precision=precision)
        codes += assembly.layers(compiled.plan)
    return codes


@pytest.mark.parametrize("compiler", ["clang++", "g++"])
@pytest.mark.parametrize("target", VECTOR_ISAS)
def test_exact_multiply_adds_and_no_stack(target: str, compiler: str, tmp_path: Path) -> None:
    command = [c for c in assembly.compilers(target) if c[0].endswith(compiler)]
    if not command:
        pytest.skip(f"needs {compiler} for {target}")
    isa = find_isa(target)
    found = list(assembly.probes(layers(target)))
    assert len(found) >= 15
    kinds = {dtype.value: seen for dtype, seen in isa.seen.items()}
    texts = assembly.assembly(isa, found, command[0], tmp_path, ["-fno-unroll-loops"])
    loops = 0
    for number, text in texts.items():
        probe, name = found[number], found[number].microkernel.name
        seen = kinds["f16" if "_f16_" in name else "f32"]
        assert len(FMA.findall(text)) == probe.fmas(seen), f"{name}<{probe.arguments}>"
        for loop in (each for each in assembly.innermost_loops(text) if FMA.search(each)):
            loops += 1
            spilling = compiler in _SPILLING and _SPILLING[compiler].match(name)
            allowed = _SPILLS_PER_FMA * len(FMA.findall(loop)) if spilling else 0
            assert len(_STACK.findall(loop)) <= allowed, f"{name} uses the stack:\n{loop}"
            assert not _CALL.search(loop), name
    assert loops >= len(found) // 2


def test_depthwise_tiles_are_counted_one_by_one() -> None:
    probes = [p for p in assembly.probes(layers("arm-neon")) if p.microkernel.name[:2] == "dw"]
    assert len(probes) > 2 * len({p.microkernel.name for p in probes})
    # 3 rows of a 3x3 filter on 16 pixels, the first column of which lies outside.
    assert {p.fmas(find_isa("arm-neon").seen[DType.F32]) for p in probes} >= {3 * (16 * 3 - 1)}
