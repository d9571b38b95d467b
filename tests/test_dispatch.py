"""What a class does on a processor: computes with what it has, or says that it lacks something."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from mdlc.codegen.isa.cpu_features import features_of
from mdlc.codegen.isa.registry import isas
from tests.emitted_code import DRIVERS, block_model, build, compile_to, require, sources

OK, UNSUPPORTED_CPU = 0, -12
# Bits of AT_HWCAP and AT_HWCAP2.
FPHP, ASIMDHP, ASIMDDP = 1 << 9, 1 << 10, 1 << 20
I8MM = 1 << 13


def _qemu(cpu: str) -> list[str]:
    return [require("qemu-aarch64"), "-L", "/usr/aarch64-linux-gnu", "-cpu", cpu]


def _build(folder: Path, target: str, flags: Sequence[str] = ()) -> Path:
    compile_to(folder, block_model(), target)
    files = [*sources(folder), DRIVERS / "processor.cpp"]
    return build(folder, require("aarch64-linux-gnu-g++"), files, ("-O1", *flags))


def _said(program: Path, cpu: str, *arguments: object) -> str:
    command = [*_qemu(cpu), program, program.parent / "Block.weights", *arguments]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_instruction_set_asks_for_what_it_needs() -> None:
    for isa in isas().values():
        found = features_of(isa.toolchain.cpu_flags)
        assert len(found) == len(isa.toolchain.cpu_flags)
        assert all(isa.toolchain.triple.startswith(feature.machine) for feature in found)


@pytest.mark.parametrize(
    ("target", "able", "unable"),
    [
        ("arm-neon", ("cortex-a53",), ()),
        ("arm-neon+dotprod", ("cortex-a76", "max"), ("cortex-a53", "cortex-a72")),
        ("arm-neon+fp16", ("neoverse-n1",), ("cortex-a72",)),
        ("arm-neon+i8mm", ("max",), ("cortex-a53", "neoverse-n1")),
    ],
)
def test_a_processor_that_lacks_instructions_is_refused(
    target: str, able: Sequence[str], unable: Sequence[str], tmp_path: Path
) -> None:
    program = _build(tmp_path, target)
    assert {_said(program, cpu) for cpu in able} == {f"{OK} {target}"}
    for cpu in unable:
        assert _said(program, cpu).startswith(f"{UNSUPPORTED_CPU} ")


def test_each_feature_counts(tmp_path: Path) -> None:
    """A processor may have any of them without the others."""
    program = _build(tmp_path, "arm-neon+i8mm", ("-DPRETEND",))
    all_but_one = ((ASIMDDP, 0), (~ASIMDDP & 0xFFFFFFFF, I8MM), (0, 0))
    for first, second in all_but_one:
        assert _said(program, "max", first, second).startswith(f"{UNSUPPORTED_CPU} ")
    assert _said(program, "max", ASIMDDP, I8MM) == f"{OK} arm-neon+i8mm"
    half = tmp_path / "half"
    program = _build(half, "arm-neon+fp16", ("-DPRETEND",))
    assert _said(program, "max", FPHP, 0).startswith(f"{UNSUPPORTED_CPU} ")
    assert _said(program, "max", FPHP | ASIMDHP, 0) == f"{OK} arm-neon+fp16"


def test_sources_need_no_flags_of_an_instruction_set(tmp_path: Path) -> None:
    """Nothing but the layers is compiled for it: neither the class nor the standard library's."""
    compile_to(tmp_path, block_model(), "x86-avx512")
    objdump = require("objdump")
    if shutil.which("g++") is None or "x86-64" not in subprocess.getoutput(f"{objdump} --help"):
        pytest.skip("needs g++ and objdump for x86-64")
    for source in sources(tmp_path):
        command = ["g++", "-std=c++17", "-O1", "-c", str(source), "-o", str(tmp_path / "code.o")]
        assert subprocess.run(command, capture_output=True).returncode == 0
        command = [objdump, "-d", "--no-show-raw-insn", "-C", str(tmp_path / "code.o")]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        function, wide = "", set()
        for line in text.splitlines():
            function = line if line.endswith(">:") else function
            if "%ymm" in line or "%zmm" in line:
                wide.add(function)
        assert bool(wide) == (source.name == "Block_x86_avx512.cpp")
        assert all("Block_internal::x86_avx512::" in function for function in wide)
