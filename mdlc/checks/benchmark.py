"""Timing an emitted class, layer by layer, against the measured peak of a core."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlc.checks.footprint import code_bytes
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.plan.sizes import size_text
from mdlc.codegen.run.executable import zeros
from mdlc.codegen.run.peak import peak_source
from mdlc.codegen.run.toolchain import BUILD_FLAGS, LocalToolchain
from mdlc.codegen.target import target_of
from mdlc.compiler.errors import MdlcError

if TYPE_CHECKING:
    from mdlc.api import CompiledModel


# Where layers' times and that of whole inferences differ by more than this share, it is said.
ODD = 0.1


@dataclass(frozen=True)
class LayerTime:
    """One layer: median microseconds, multiply-adds, GFLOP/s (two for a multiply-add)."""

    name: str
    kernel: str
    schedule: str
    output: str
    microseconds: float
    macs: int
    gflops: float


@dataclass(frozen=True)
class Benchmark:
    """The timings of a network on one thread.

    Attributes:
        microseconds: median of whole inferences, copying in and out included.
        peak_gflops: of one core with the target's instructions, measured in the same run.
        emulated: the times are those of an emulator, and say nothing about real hardware.
        code_bytes: machine code and constants of the emitted source, without the weights; None
            where no `size` tool is installed.
        sizes: medians of whole inferences at the class's other sizes.
    """

    name: str
    target: str
    compiler: str
    emulated: bool
    repeats: int
    microseconds: float
    macs: int
    gflops: float
    peak_gflops: float
    arena_bytes: int
    weight_bytes: int
    code_bytes: int | None
    layers: tuple[LayerTime, ...]
    sizes: tuple[tuple[str, float], ...] = ()

    @property
    def layer_sum(self) -> float:
        """Microseconds of all layers."""
        return sum(layer.microseconds for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def benchmark(compiled: CompiledModel, repeats: int) -> Benchmark:
    """Builds the class and times `repeats` inferences on zeros.

    Raises:
        MdlcError: it cannot be built or run here.
    """
    plan = compiled.plan
    if not target_of(plan).timed:
        raise MdlcError(
            f"target {plan.backend.name} runs on a simulator here, so its times say nothing",
            node="--target",
            hint="`mdlc explain` has estimates",
        )
    executable = compiled.build()
    toolchain = executable.toolchain
    peak = measure_peak(plan.isa, toolchain)
    timing = executable.time(repeats)
    layers = []
    for unit in plan.units():
        steps = [plan.steps[index] for index in unit]
        step = steps[-1]
        nanoseconds = sum(timing.layers[each.name] for each in steps)
        macs = sum(
            each.node.op.cost([s.type for s in each.node.inputs], each.node.type).macs
            for each in steps
        )
        group = plan.row_group_of(unit[0])
        layers.append(
            LayerTime(
                step.name if group is None else f"{steps[0].name} to {step.name}",
                step.kernel.name if group is None else "row-fused group",
                str(step.schedule) if group is None else f"bands of {group.rows}",
                str(step.node.type),
                nanoseconds / 1e3,
                macs,
                _gflops(macs, nanoseconds),
            )
        )
    return Benchmark(
        plan.name,
        plan.isa.name,
        toolchain.name,
        bool(toolchain.runner),
        repeats,
        timing.total / 1e3,
        plan.macs,
        _gflops(plan.macs, timing.total),
        peak,
        plan.working_bytes,
        plan.weight_bytes,
        code_bytes(compiled, toolchain),
        tuple(layers),
        tuple(
            (size_text(each), executable.time(repeats, zeros(each)).total / 1e3)
            for each in plan.also
        ),
    )


def notes(found: Benchmark) -> list[str]:
    """What a reader of the figures would wonder about."""
    said = []
    if any(layer.gflops > found.peak_gflops for layer in found.layers):
        said.append(
            "more than 100 % of the peak: multiply-adds are counted as the convolution is "
            "defined; Winograd's and Strassen's algorithms need fewer"
        )
    summed = found.layer_sum
    if abs(found.microseconds - summed) > ODD * found.microseconds:
        said.append(
            f"the layers sum up to {summed / 1e3:.3f} ms, a whole inference takes "
            f"{found.microseconds / 1e3:.3f} ms: the difference is copying in and out, reading "
            "the clock, and caches that are warm in one and not in the other"
        )
    return said


def _gflops(macs: int, nanoseconds: float) -> float:
    return 2 * macs / nanoseconds if nanoseconds else 0.0


def measure_peak(isa: Isa, toolchain: LocalToolchain) -> float:
    """GFLOP/s of one core with the ISA's multiply-adds."""
    with tempfile.TemporaryDirectory() as scratch:
        source, program = Path(scratch) / "peak.cpp", Path(scratch) / "peak"
        source.write_text(peak_source(isa))
        toolchain.compile([source], program, [*BUILD_FLAGS, *isa.toolchain.flags])
        done = subprocess.run(
            [*toolchain.runner, str(program)], capture_output=True, text=True, check=False
        )
    try:
        return float(done.stdout)
    except ValueError:
        raise MdlcError(f"the measurement of {isa.name}'s peak failed") from None
