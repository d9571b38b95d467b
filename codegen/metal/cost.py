"""What kernels cost on Apple's GPUs, estimated from published peaks.

Times are roofline bounds: the longest of arithmetic at the peak rate, memory traffic at the peak
bandwidth, and the time to start a dispatch, each with the occupancy that the grid allows. No GPU
was measured; the figures compare kernels and networks with each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mdlc.codegen.kernel import Step, View
from mdlc.codegen.metal.kernel import FULL_REGISTERS, ComputeCode, image_of
from mdlc.codegen.metal.split import MetalPlan
from mdlc.codegen.plan.plan import Plan


@dataclass(frozen=True)
class Gpu:
    """A GPU by its published figures.

    Attributes:
        cores: shader cores; half_tflops, float_tflops: peak rates, two for a multiply-add.
        gbytes: memory bandwidth in 1e9 bytes a second.
        sources: where the figures are from.
    """

    name: str
    cores: int
    half_tflops: float
    float_tflops: float
    gbytes: float
    sources: str


# Peaks are clock x multiply-adds a cycle x 2. Half precision is twice as fast as float on the
# PowerVR cores of the A10, as fast on the M1 (philipturner, "metal-benchmarks": 128 of either a
# core and cycle) and, as far as is known, on the A15, which is of the family after the M1's.
GPUS = (
    Gpu("A10", 6, 0.69, 0.346, 25.6,
        "Wikipedia, 'Apple A10' (PowerVR GT7600 Plus, 6 cores at 900 MHz; LPDDR4); a core of that "
        "series has 32 float and 64 half multiply-adds a cycle; 25.6 GB/s is LPDDR4-3200, 64 bits"),
    Gpu("A15", 5, 1.713, 1.713, 34.1,
        "AskGeek and CPU-Monkey, 'Apple A15 Bionic' (5 cores, 1338 MHz, 1.713 TFLOPS in float, "
        "LPDDR4X-4266 with 34.1 GB/s)"),
    Gpu("M1", 8, 2.617, 2.617, 68.25,
        "azhirnov, 'cpu-gpu-arch', Apple-M1 (8 cores, 1278 MHz, 1024 multiply-adds a cycle in "
        "float or half); Wikipedia, 'Apple M1' (LPDDR4X-4266, 128 bits: 68.25 GB/s)"),
)  # fmt: skip

# Seconds to start a dispatch of one command buffer; an assumption, not a measurement.
DISPATCH_SECONDS = 2e-6
# Threads that keep a core busy, and the threadgroup memory that it shares among them: as found by
# public reverse engineering of the M1 (see kernel.FULL_REGISTERS).
CORE_THREADS = 1024
CORE_SHARED_BYTES = 60 * 1024


@dataclass(frozen=True)
class KernelCost:
    """Figures of one dispatch."""

    name: str
    kernel: str
    half_fmas: int
    float_fmas: int
    read_bytes: int
    written_bytes: int
    threads: int
    group: tuple[int, int, int]
    occupancy: float
    seconds: dict[str, float]
    matrix: str = ""

    def to_json(self) -> dict[str, object]:
        """For the manifest."""
        return {
            "layer": self.name,
            "kernel": self.kernel,
            "half_fmas": self.half_fmas,
            "float_fmas": self.float_fmas,
            "read_bytes": self.read_bytes,
            "written_bytes": self.written_bytes,
            "threads": self.threads,
            "group": list(self.group),
            "occupancy": round(self.occupancy, 3),
            **({"simdgroup_matrix": self.matrix} if self.matrix else {}),
            "microseconds": {gpu: round(s * 1e6, 2) for gpu, s in self.seconds.items()},
        }


def _bytes(view: View) -> int:
    return image_of(view).nbytes


def occupancy(code: ComputeCode) -> float:
    """Share of a core's threads that registers and threadgroup memory leave."""
    limits = [1.0, FULL_REGISTERS / max(code.work.registers, 1)]
    if code.shared_bytes:
        group = math.prod(code.group)
        limits.append(CORE_SHARED_BYTES // code.shared_bytes * group / CORE_THREADS)
    return min(limits)


def seconds(code: ComputeCode, moved: int, gpu: Gpu) -> float:
    """The roofline time of a dispatch that moves so many bytes."""
    threads = math.prod(code.grid)
    busy = min(1.0, threads / (gpu.cores * CORE_THREADS / 4)) * max(occupancy(code), 0.25)
    work = 2 * code.work.half_fmas / gpu.half_tflops + 2 * code.work.float_fmas / gpu.float_tflops
    return max(work / 1e12 / busy, moved / (gpu.gbytes * 1e9)) + DISPATCH_SECONDS


# Share of the peak that the plain form of a product and that of 8 x 8 matrices reach on the M1:
# 0.35 and 0.75 of 2.6 TFLOPS are reported for kernels of either kind (FL33TW00D, "wgpu-mm").
PLAIN_SHARE, MATRIX_SHARE = 0.35, 0.75


def matrix_pays(step: Step, code: ComputeCode) -> bool:
    """Whether the form of a step for simdgroup_matrix is the faster one, on a GPU that has it."""
    form = code.matrix
    if form is None:
        return False
    gpu = GPUS[-1]
    times = []
    for each, share in ((code, PLAIN_SHARE), (form, MATRIX_SHARE)):
        reachable = replace(gpu, float_tflops=gpu.float_tflops * share)
        times.append(seconds(each, _moved(step), reachable))
    return times[1] < times[0]


def _moved(step: Step) -> int:
    read = sum(_bytes(view) for view in step.inputs)
    return read + sum(array.nbytes for array in step.weights.values()) + _bytes(step.output)


def kernel_cost(step: Step, code: ComputeCode) -> KernelCost:
    """Figures of a step's dispatch, every texture and weight counted once."""
    read = sum(_bytes(view) for view in step.inputs)
    read += sum(array.nbytes for array in step.weights.values())
    written = _bytes(step.output)
    return KernelCost(
        step.name,
        code.name,
        code.work.half_fmas,
        code.work.float_fmas,
        read,
        written,
        math.prod(code.grid),
        code.group,
        occupancy(code),
        {gpu.name: seconds(code, read + written, gpu) for gpu in GPUS},
        code.matrix.name if code.matrix else "",
    )


def network_report(
    plan: MetalPlan, codes: Sequence[ComputeCode], ends: Sequence[ComputeCode]
) -> dict[str, object]:
    """All kernels and their sum, for the manifest."""
    costs = [kernel_cost(step, code) for step, code in zip(plan.steps, codes, strict=True)]
    views = [each.port.view for each in (*plan.reads, *plan.writes)]
    total = {
        gpu.name: sum(cost.seconds[gpu.name] for cost in costs)
        + sum(seconds(code, 2 * _bytes(view), gpu) for view, code in zip(views, ends, strict=True))
        for gpu in GPUS
    }
    return {
        "note": "roofline estimates from published peaks; nothing was measured",
        "sources": {gpu.name: gpu.sources for gpu in GPUS},
        "milliseconds": {gpu: round(s * 1e3, 4) for gpu, s in total.items()},
        "half_fmas": sum(cost.half_fmas for cost in costs),
        "float_fmas": sum(cost.float_fmas for cost in costs),
        "read_bytes": sum(cost.read_bytes for cost in costs),
        "written_bytes": sum(cost.written_bytes for cost in costs),
        "kernels": [cost.to_json() for cost in costs],
    }


def estimate(plan: Plan) -> tuple[dict[str, str], list[str]]:
    """For `mdlc explain`: a line for each step by name, and lines for the whole network."""
    lines = {}
    totals = dict.fromkeys((gpu.name for gpu in GPUS), 0.0)
    half = float_ = 0
    for step in plan.steps:
        code = step.kernel.emit(step, plan.backend)
        assert isinstance(code, ComputeCode)
        cost = kernel_cost(step, code)
        half += cost.half_fmas
        float_ += cost.float_fmas
        times = []
        for gpu, spent in cost.seconds.items():
            totals[gpu] += spent
            times.append(f"{gpu} {spent * 1e6:.1f} us")
        lines[step.name] = (
            f"{cost.threads} threads, occupancy {cost.occupancy:.2f}, {cost.half_fmas} half and "
            f"{cost.float_fmas} float FMA, {cost.read_bytes} bytes read, {cost.written_bytes} "
            f"written; at least {', '.join(times)}"
        )
    whole = ", ".join(f"{gpu} {spent * 1e3:.3f} ms" for gpu, spent in totals.items())
    return lines, [
        f"the whole network: {half / 1e6:.2f} M half and {float_ / 1e6:.2f} M float FMA; at least "
        f"{whole}",
        "(from published peaks, nothing was measured; the manifest names the sources)",
    ]
