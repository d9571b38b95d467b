"""Candidates of a layer, built into one program and measured.

The program is an emitted class whose layers are all the same layer, once by each schedule, so
that what is measured is what will be shipped (but for a first one of one element, behind which
the clock starts). Before every run, a buffer of several times the second cache is walked and the
inputs are written anew: weights come from beyond the second cache, as in a network larger than
it, and inputs lie where the layer before would have left them. Rounds interleave the candidates;
medians are kept.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from mdlc.codegen.code import C_TYPES
from mdlc.codegen.cpp.class_text import MAT_TYPES
from mdlc.codegen.cpp.emit import emit
from mdlc.codegen.cpp.format import format_cpp
from mdlc.codegen.cpp.kernels_file import endings, source_files
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import Schedule, Step, View
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.plan.plan import ALIGNMENT, Plan
from mdlc.codegen.run import cache_model, instruction_counts
from mdlc.codegen.run.executable import PRIVATE_INFO, failure
from mdlc.codegen.run.qemu_plugins import Reading, build, readings, watch
from mdlc.codegen.run.toolchain import BUILD_FLAGS, LocalToolchain, find_toolchain, program_words
from mdlc.codegen.templates import render
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.types import Array, DType, TensorType

# A program that runs longer than this has hung.
_PATIENCE_S = 600
_SEED = 1
# Readings of the clock in a row at a program's start, which show what one takes.
_READINGS = 16
# What a line of 64 bytes costs, in instructions of a core that starts two per cycle and moves 8
# bytes per cycle from memory, 32 from the second cache, half of it behind arithmetic. Latency is
# taken to be hidden by prefetching.
_L1_MISS, _L2_MISS = 2, 8


@dataclass(frozen=True)
class Machine:
    """Where programs are measured.

    Attributes:
        toolchain: what builds them, and the command in front of them.
        push: the command that copies a file, {} standing for its path; None where the runner sees
            this machine's files.
        static: whether programs bring their libraries along, for machines that lack them; and in
            an emulator, so that no function is looked up while instructions are counted.
    """

    toolchain: LocalToolchain
    push: tuple[str, ...] | None = None
    static: bool = False

    @property
    def emulated(self) -> bool:
        """Whether instructions are counted in qemu, as its times say nothing."""
        runner = self.toolchain.runner
        return bool(runner) and _is_qemu(runner[0])

    @property
    def metric(self) -> str:
        """What costs are, as tables name it."""
        if not self.emulated:
            return "nanoseconds"
        cores = ", ".join(core.name for core in cache_model.CORES)
        return f"instructions + {_L1_MISS} L1 misses + {_L2_MISS} L2 misses (mean of {cores})"


def find_machine(isa: Isa, runner: str | None = None, push: str | None = None) -> Machine:
    """This machine or its emulator, or what a command prefix reaches.

    Args:
        runner: the prefix, such as "ssh phone"; programs are then linked statically, so that they
            need nothing there.
        push: the command that copies a file; programs then run as `RUNNER ./tuner ...`, in
            whatever folder the runner starts.

    Raises:
        MdlcError: nothing here builds or runs programs for the ISA, or a command cannot be read.
    """
    if push is not None and runner is None:
        raise MdlcError("only works with --runner", node="--push")
    if runner is None:
        machine = Machine(find_toolchain(isa))
        return replace(machine, static=machine.emulated)
    copying = None if push is None else program_words(push, "--push")
    if copying is not None and not any("{}" in word for word in copying):
        raise MdlcError(
            f"{push!r} has no {{}} where the file's name goes",
            node="--push",
            hint="write --push 'scp {} phone:'",
        )
    words = program_words(runner, "--runner")
    if any(_is_qemu(word) for word in (words[1:] if push is None else words)):
        raise MdlcError(
            "instructions can only be counted in a qemu that this machine runs itself",
            node="--runner",
            hint="begin with qemu, and leave out --push",
        )
    return Machine(find_toolchain(isa, words), copying, static=True)


def _is_qemu(word: str) -> bool:
    return Path(word).name.startswith("qemu-")


@dataclass(frozen=True)
class Measurement:
    """Costs in the order of the schedules, and the processor as it calls itself."""

    costs: tuple[float, ...]
    processor: str


class Program:
    """A program that measures one layer by several schedules."""

    def __init__(
        self, step: Step, isa: Isa, schedules: Sequence[Schedule], machine: Machine, folder: Path
    ) -> None:
        """Builds it in an empty folder.

        Args:
            step: the layer in its network, where it has pitches.

        Raises:
            MdlcError: it does not compile.
        """
        self.machine = machine
        self.isa = isa
        self.folder = folder
        graph, values = copies(step.node, len(schedules))
        chosen = {f"c{i}": schedule for i, schedule in enumerate(schedules)}
        self.plan = _spread(lower(graph, isa, "Candidates", schedules=chosen, row_groups=()), step)
        assert [copy.schedule for copy in self.plan.steps[1:]] == list(schedules)
        self._build(values)

    def _build(self, values: Sequence[Array]) -> None:
        plan = self.plan
        text = render(
            "cpp/tuner.cpp.j2",
            plan=plan,
            name=plan.name,
            mat_types=MAT_TYPES,
            c_types=C_TYPES,
            others_bytes=4 * self.isa.core.l2_bytes,
            readings=_READINGS,
            spread=list(zip(plan.inputs, _row_steps(plan), strict=True)),
        )
        files = emit(plan, PRIVATE_INFO, instrument=True)
        for ending in endings(plan.isa):
            (self.folder / f"{plan.name}{ending}").write_bytes(files[f"{plan.name}{ending}"])
        (self.folder / "tuner.cpp").write_text(format_cpp(text))
        (self.folder / "tuner.weights").write_bytes(files[f"{plan.name}.weights"])
        frames = [
            port.type.to_physical(value).tobytes()
            for port, value in zip(plan.inputs, values, strict=True)
        ]
        (self.folder / "tuner.input").write_bytes(b"".join(frames))
        flags = [
            *BUILD_FLAGS,
            *(["-static"] if self.machine.static else []),
        ]
        sources = [self.folder / name for name in (*source_files(plan), "tuner.cpp")]
        self.machine.toolchain.compile(sources, self.folder / "tuner", flags)

    def run(self, rounds: int) -> Measurement:
        """Measures every schedule `rounds` times, after a round that warms up.

        Raises:
            MdlcError: the program, or what runs it, fails.
        """
        files = [self.folder / name for name in ("tuner", "tuner.weights", "tuner.input")]
        if self.machine.push is None:
            words = [str(file) for file in files]
        else:
            for file in files:
                _run([word.replace("{}", str(file)) for word in self.machine.push])
            words = [f"./{files[0].name}", *(file.name for file in files[1:])]
        runner = list(self.machine.toolchain.runner)
        if self.machine.emulated:
            return self._counted(words, runner)
        lines = _run([*runner, *words, str(rounds + 1)]).splitlines()
        try:
            costs = tuple(float(line) for line in lines[1:])
        except ValueError:
            costs = ()
        if len(costs) != len(self.plan.steps) - 1:
            raise MdlcError(
                "the measuring program printed something other than figures",
                node=" ".join(runner) or None,
            )
        return Measurement(tuple(_rounded(cost) for cost in costs), lines[0].strip())

    def _counted(self, words: list[str], runner: list[str]) -> Measurement:
        """Costs by plugins of qemu: instructions are exact, so that one round is enough."""
        try:
            caches = ",".join([str(build(cache_model.PLUGIN)), *cache_model.options()])
            qemu = [runner[0], "-plugin", caches, *runner[1:]]
            lines = watch(instruction_counts.PLUGIN, qemu, [*words, "1"])
        except (OSError, subprocess.CalledProcessError) as error:
            raise MdlcError(f"cannot be run with plugins ({error})", node=runner[0]) from error
        counts = readings(lines, instruction_counts.WORD)
        misses = readings(lines, cache_model.WORD)
        at = [_cost(*pair) for pair in zip(counts, misses, strict=False)]
        count = len(self.plan.steps)
        if len(at) < _READINGS + 2 * count:
            raise MdlcError("the plugins saw too few readings of the clock", node=runner[0])
        clock = min(later - earlier for earlier, later in pairwise(at[:_READINGS]))
        # Each layer ends with a reading and, after its preparations, the next starts with one.
        at = at[_READINGS : _READINGS + 2 * count]
        costs = (at[2 * i] - at[2 * i - 1] - clock for i in range(1, count))
        return Measurement(tuple(round(cost) for cost in costs), f"{_emulated_cpu(runner)} in qemu")


def _emulated_cpu(runner: Sequence[str]) -> str:
    """What qemu was told to emulate; it takes all it knows where it was not told."""
    return dict(pairwise(runner)).get("-cpu", "max")


def _cost(counts: Reading, caches: Reading) -> float:
    """The metric of emulated machines."""
    cores = cache_model.traffic(caches).misses.values()
    missed = sum(_L1_MISS * core.l1 + _L2_MISS * core.l2 for core in cores)
    return counts[instruction_counts.CLASSES.index("all")] + missed / len(cores)


def _rounded(nanoseconds: float) -> float:
    """Three digits: more would be noise, and ties go to the cost model's order."""
    rounded = float(f"{nanoseconds:.3g}")
    return int(rounded) if rounded >= 100 else rounded


def _run(command: Sequence[str]) -> str:
    """A command's output.

    Raises:
        MdlcError: it cannot be started, fails or hangs.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S
        )
    except OSError as error:
        raise MdlcError(f"cannot be run ({error.strerror})", node=command[0]) from error
    except subprocess.TimeoutExpired:
        raise MdlcError(f"did not finish within {_PATIENCE_S} s", node=command[0]) from None
    if done.returncode:
        raise MdlcError(f"failed: {failure(done)}", node=command[0])
    return done.stdout


def copies(node: Node, count: int) -> tuple[Graph, list[Array]]:
    """A network of `count` copies of a layer on the same random inputs, and the inputs' values.

    A layer of one element stands in front of the copies, which are called c0, c1 and so on. The
    inputs are outputs, too, so that no copy computes over one. Floating-point constants are
    random: a table must not depend on the values of one network's weights. Zeros stay, as sparse
    layers are told by how many they have.
    """
    random = np.random.default_rng(_SEED)
    fresh: dict[Node, Node] = {}
    values: list[Array] = []
    for source in node.inputs:
        if source in fresh:
            continue
        value = source.constant
        if value is None or source.type.dtype.is_float:
            value = _random(source.type, random)
        if source.constant is not None:
            value = np.where(source.constant == 0, source.constant, value)
            fresh[source] = replace(constant(value), type=source.type)
            continue
        made = graph_input(f"x{len(values)}", source.type.shape, source.type.dtype)
        fresh[source] = replace(made, type=source.type)
        values.append(value)
    inputs = tuple(made for made in fresh.values() if made.constant is None)
    operands = tuple(fresh[source] for source in node.inputs)
    start = graph_input("start", (1,), DType.F32)
    values.append(_random(start.type, random))
    layers = (replace(node, inputs=operands, name=f"c{i}") for i in range(count))
    outputs = (make(Relu(), start, name="first"), *layers, *inputs)
    names = tuple(f"y{i}" for i in range(len(outputs)))
    return Graph((*inputs, start), outputs, names, "candidates"), values


def _spread(plan: Plan, step: Step) -> Plan:
    """The plan of a step's copies with the pitches that the step has in its network.

    All of them honour pitches, or the plan stays as it is. Nothing shares memory here, as every
    tensor is an input or output of the network.
    """
    layers = plan.steps[1:]
    sources = [source for source in step.node.inputs if source.constant is None]
    kernels = {layer.kernel for layer in layers}
    if len(sources) != len(step.inputs) or not all(
        kernel.pitched_input and kernel.pitched_output for kernel in kernels
    ):
        return plan
    pitches = {
        copy.buffer: view.pitch for copy, view in zip(layers[0].inputs, step.inputs, strict=True)
    }
    pitches |= {layer.output.buffer: step.output.pitch for layer in layers}

    def spread(view: View) -> View:
        return replace(view, pitch=pitches[view.buffer])

    steps = tuple(
        replace(layer, inputs=tuple(map(spread, layer.inputs)), output=spread(layer.output))
        for layer in layers
    )
    sizes = [buffer.nbytes for buffer in plan.buffers]
    for view in (view for layer in steps for view in (*layer.inputs, layer.output)):
        sizes[view.buffer] = view.rows * view.pitch * view.type.dtype.size
    starts = list(accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0))
    buffers = tuple(
        replace(buffer, nbytes=size, offset=start)
        for buffer, size, start in zip(plan.buffers, sizes, starts[:-1], strict=True)
    )
    return replace(plan, steps=(plan.steps[0], *steps), buffers=buffers, arena_bytes=starts[-1])


def _row_steps(plan: Plan) -> list[int]:
    """Bytes from one innermost row to the next of each input, as the layers see it."""
    pitches = {view.buffer: view.pitch for step in plan.steps for view in step.inputs}
    return [pitches[port.view.buffer] * port.type.dtype.size for port in plan.inputs]


def _random(kind: TensorType, random: np.random.Generator) -> Array:
    """Values of ordinary magnitude: none is denormal."""
    dtype = kind.dtype.numpy
    if kind.dtype.is_float:
        return random.uniform(-1, 1, kind.shape).astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, kind.shape).astype(dtype)
    return random.integers(0, 100, kind.shape).astype(dtype)
