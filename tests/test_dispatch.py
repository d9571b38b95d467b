"""What a class does on a processor: computes with what it has, or says that it lacks something."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import mdlc
from mdlc.codegen.isa.cpu_features import features_of
from mdlc.codegen.isa.registry import isas
from mdlc.codegen.target import SETS, find_targets
from mdlc.compiler.errors import MdlcError
from tests.emitted_code import (
    DRIVERS,
    NO_RUNTIME,
    WARNINGS,
    block_model,
    build,
    compile_to,
    image,
    require,
    run,
    sources,
)

OK, UNSUPPORTED_CPU, UNKNOWN_TARGET = 0, -12, -21
ARM = ("arm-neon", "arm-neon+dotprod", "arm-neon+i8mm")
# Bits of AT_HWCAP and AT_HWCAP2.
FPHP, ASIMDHP, ASIMDDP = 1 << 9, 1 << 10, 1 << 20
I8MM = 1 << 13


def _qemu(cpu: str) -> list[str]:
    return [require("qemu-aarch64"), "-L", "/usr/aarch64-linux-gnu", "-cpu", cpu]


def _build(folder: Path, target: str, flags: Sequence[str] = ()) -> Path:
    compile_to(folder, block_model(), target)
    files = [*sources(folder), DRIVERS / "processor.cpp"]
    return build(folder, require("aarch64-linux-gnu-g++"), files, ("-O1", *flags))


def _in_bytes() -> mdlc.Quantize:
    """Every layer in 8 bits."""
    frames = [{"image": image(seed)} for seed in range(4)]
    return mdlc.Quantize(frames, rounding="nearest", placement="everywhere")


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
        assert _said(program, cpu).split()[0] == str(UNSUPPORTED_CPU)


def test_each_feature_counts(tmp_path: Path) -> None:
    """A processor may have any of them without the others."""
    program = _build(tmp_path, "arm-neon+i8mm", ("-DPRETEND",))
    all_but_one = ((ASIMDDP, 0), (~ASIMDDP & 0xFFFFFFFF, I8MM), (0, 0))
    for first, second in all_but_one:
        assert _said(program, "max", first, second).split()[0] == str(UNSUPPORTED_CPU)
    assert _said(program, "max", ASIMDDP, I8MM) == f"{OK} arm-neon+i8mm"
    half = tmp_path / "half"
    program = _build(half, "arm-neon+fp16", ("-DPRETEND",))
    assert _said(program, "max", FPHP, 0).split()[0] == str(UNSUPPORTED_CPU)
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


def test_the_fastest_that_the_processor_has_is_taken(tmp_path: Path) -> None:
    compiled = mdlc.compile(
        block_model(), ",".join(ARM), name="Block", quantize=_in_bytes(), threads=2
    )
    compiled.write(tmp_path)
    files = [*sources(tmp_path), DRIVERS / "processor.cpp"]
    program = build(tmp_path, require("aarch64-linux-gnu-g++"), files, ("-O1", "-pthread"))
    cycles = {
        plan.isa.name: sum(step.cycles(plan.isa) for step in plan.steps) for plan in compiled.plans
    }
    assert cycles[ARM[1]] < cycles[ARM[0]]
    best = {"cortex-a53": ARM[0], "cortex-a72": ARM[0], "cortex-a76": ARM[1]}
    for cpu, target in {**best, "max": min(cycles, key=lambda name: cycles[name])}.items():
        assert _said(program, cpu) == f"{OK} {target}"


def test_a_target_that_is_asked_for_is_taken_or_refused(tmp_path: Path) -> None:
    compile_to(tmp_path, block_model(), ",".join(ARM), quantize=_in_bytes())
    files = [*sources(tmp_path), DRIVERS / "processor.cpp"]
    flags = ("-O1", "-DPRETEND", "-DCHOOSES")
    program = build(tmp_path, require("aarch64-linux-gnu-g++"), files, flags)
    everything = (ASIMDDP, I8MM)
    for target in ARM:
        assert _said(program, "max", *everything, target) == f"{OK} {target}"
    assert _said(program, "max", ASIMDDP, 0, ARM[2]).split()[0] == str(UNSUPPORTED_CPU)
    assert _said(program, "max", *everything, "x86-avx2").split()[0] == str(UNKNOWN_TARGET)
    assert _said(program, "max", 0, I8MM) == f"{OK} {ARM[0]}"  # i8mm needs dot products, too


def test_every_variant_computes_the_same_integers() -> None:
    require("qemu-aarch64")
    compiled = mdlc.compile(block_model(), ",".join(ARM), name="Block", quantize=_in_bytes())
    frame = {"image": image(7)}
    answers = [each.build()(frame)["logits"].tobytes() for each in compiled.by_target()]
    assert len(set(answers)) == 1
    kernels = {step.kernel.name for each in compiled.plans for step in each.steps}
    assert len({str([s.schedule for s in each.steps]) for each in compiled.plans}) > 1, kernels


def test_one_class_for_several_machines(tmp_path: Path) -> None:
    """Each compiler takes what is for its machine, without warnings, also in one unit."""
    compile_to(tmp_path, block_model(), "android", threads=2)
    (tmp_path / "unit.cpp").write_text(
        "".join(f'#include "{source.name}"\n' for source in sources(tmp_path))
    )
    triple = "aarch64-linux-gnu"
    commands = ([require("g++")], [require(f"{triple}-g++")], [require("clang++")],
                [require("clang++"), f"--target={triple}"])  # fmt: skip
    for command in commands:
        flags = ["-std=c++17", "-O1", *WARNINGS, *NO_RUNTIME, "-c", "unit.cpp", "-o", "unit.o"]
        done = subprocess.run([*command, *flags], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), command
    files = [*sources(tmp_path), DRIVERS / "processor.cpp"]
    weights = tmp_path / "Block.weights"
    here = run(build(tmp_path, require("g++"), files, ("-O1", "-pthread")), weights)
    assert here.strip() in {f"{OK} {target}" for target in SETS["android"]}


def test_variants_that_are_the_same_are_emitted_once() -> None:
    """In float, dot products of bytes change nothing."""
    several = mdlc.compile(block_model(), ",".join(ARM), name="Block").files()
    alone = mdlc.compile(block_model(), ARM[0], name="Block").files()
    assert several["Block.cpp"].count(b"conv3x3s2") == alone["Block.cpp"].count(b"conv3x3s2")
    assert b"dwconv" not in several["Block_arm_neon_i8mm.cpp"]
    assert len(several["Block.weights"]) == len(alone["Block.weights"])


@pytest.mark.parametrize(
    ("target", "options", "reason"),
    [
        ("arm-neon,metal", {}, "metal is no instruction set"),
        ("arm-neon,nothing", {}, "there is no target 'nothing'"),
        ("android", {"precision": "fp16"}, "has one graph"),
        ("arm-neon,arm-neon+dotprod", {"weights_encoding": "fp16"}, "packed for one target"),
        ("arm-neon,arm-neon+dotprod", {"core": "cortex-a55"}, "a core is one target's"),
    ],
)
def test_what_several_targets_cannot_be_asked(
    target: str, options: dict[str, str], reason: str
) -> None:
    with pytest.raises(MdlcError, match=reason):
        mdlc.compile(block_model(), target, **options)


def test_sets_name_targets() -> None:
    for name, listed in SETS.items():
        assert [target.name for target in find_targets(name)] == list(listed)
    assert [target.name for target in find_targets("android, arm-neon")] == list(SETS["android"])
