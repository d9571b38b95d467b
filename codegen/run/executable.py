"""The emitted class, built and run: takes and returns numpy arrays."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from mdlc.codegen.code import C_TYPES
from mdlc.codegen.cpp.class_text import MAT_TYPES
from mdlc.codegen.cpp.emit import Info, answer_code, emit, picture_size
from mdlc.codegen.cpp.format import format_cpp
from mdlc.codegen.cpp.kernels_file import source_files
from mdlc.codegen.frame.frame import Frame
from mdlc.codegen.kernel import View
from mdlc.codegen.plan.plan import Plan, Port
from mdlc.codegen.plan.sizes import size_text
from mdlc.codegen.run.frames import TRANSFORM_BYTES, FrameRun, pack_frame
from mdlc.codegen.run.toolchain import BUILD_FLAGS, LocalToolchain, find_toolchain
from mdlc.codegen.templates import render
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array, TensorType

PRIVATE_INFO = Info("model", "0" * 64, "mdlc", "0")


@dataclass(frozen=True)
class Timing:
    """Nanoseconds of one inference.

    Attributes:
        layers: by step name, medians; total: median of whole inferences.
    """

    layers: dict[str, float]
    total: float


@dataclass(frozen=True)
class Trace:
    """What one inference left behind, as logical arrays.

    Attributes:
        layers: outputs by step name; but for hidden layers, whose output is never whole in memory
            (see codegen/plan/row_fusion.py).
        before: states by the names of the inputs that they are; after: by those of the outputs.
        results: the outputs by ONNX name.
    """

    layers: Mapping[str, Array]
    before: Mapping[str, Array] = field(default_factory=dict)
    after: Mapping[str, Array] = field(default_factory=dict)
    results: Mapping[str, Array] = field(default_factory=dict)


class Executable:
    """A plan's class as a program of its own, run natively or in an emulator.

    Every call starts the program anew, so a crash of emitted code is an error here and not the
    end of the caller. Programs are kept in the user's cache folder by the digest of their text.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        flags: Sequence[str] = (),
        toolchain: LocalToolchain | None = None,
        directory: Path | None = None,
        plans: Sequence[Plan] = (),
    ) -> None:
        """Builds the program.

        Args:
            plans: of a class for several instruction sets, all; `plan` is the one that it computes
                with here.
            flags: further compiler flags (sanitizers).
            toolchain: instead of the one found for the plan's ISA.
            directory: where to build, instead of the cache.

        Raises:
            MdlcError: there is no compiler or emulator, or the text does not compile.
        """
        self.plan = plan
        self.toolchain = toolchain or find_toolchain(plan.isa)
        self._plans = tuple(plans) or (plan,)
        files = program_files(plan, self._plans)
        all_flags = [*BUILD_FLAGS, *flags]
        all_flags += ["-pthread"] if plan.threads > 1 else []
        digest = hashlib.sha256()
        for name, data in sorted(files.items()):
            digest.update(name.encode() + hashlib.sha256(data).digest())
        digest.update(repr((self.toolchain.compiler, all_flags)).encode())
        root = directory or Path(platformdirs.user_cache_dir("mdlc")) / "build"
        self.directory = root / digest.hexdigest()[:24]
        self.program = self.directory / "runner"
        if not self.program.exists():
            self._build(files, all_flags)

    def _build(self, files: Mapping[str, bytes], flags: Sequence[str]) -> None:
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.directory.parent) as scratch:
            folder = Path(scratch) / "files"
            folder.mkdir()
            for name, data in files.items():
                (folder / name).write_bytes(data)
            sources = [folder / name for name in (*source_files(*self._plans), "runner.cpp")]
            self.toolchain.compile(sources, folder / "runner", flags)
            try:
                folder.rename(self.directory)
            except OSError:
                if not self.program.exists():  # another process may have built it meanwhile
                    raise

    def __call__(
        self, inputs: Mapping[str, Array] | None = None, **named: Array
    ) -> dict[str, Array]:
        """One inference.

        Args:
            inputs: logical arrays by ONNX input name (or as keyword arguments).

        Returns:
            Logical arrays by ONNX output name.

        Raises:
            MdlcError: an input is missing or does not fit, or the program fails.
        """
        if inputs is not None and not isinstance(inputs, Mapping):
            first = self.plan.inputs[0].name
            raise MdlcError(
                f"takes a mapping of inputs by name, not {type(inputs).__name__}",
                node=self.plan.name,
                hint=f"write executable({{{first!r}: array}})",
            )
        return self.run_many([{**(inputs or {}), **named}])[0]

    def run_many(self, frames: Iterable[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Inferences one after the other in one process, states kept from each to the next."""
        given = list(frames)
        data, _ = self._run("run", len(given), b"".join(map(self._pack, given)))
        results, at = [], 0
        for frame in given:
            plan = self._variant(frame)
            size = sum(port.type.nbytes for port in plan.outputs)
            results.append(self._unpack(data[at : at + size], plan))
            at += size
        return results

    def answer(self, inputs: Mapping[str, Array]) -> Any:
        """What the class makes of one inference, in pixels of the network's picture.

        Returns:
            the bytes of the emitted struct as a NumPy record, or a mask's labels as an array of
            the network's height and width.

        Raises:
            MdlcError: see __call__.
            ValueError: the class gives tensors alone.
        """
        code = answer_code(self.plan)
        if code is None:
            raise ValueError("the class was compiled without an answer")
        data, _ = self._run("answer", 1, self._pack(inputs))
        if code.type == "Mask":
            return np.frombuffer(data, np.uint8).reshape(picture_size(self.plan))
        return np.frombuffer(data, code.dtype)[0]

    def answer_frame(self, frame: Frame, inputs: Mapping[str, Array] | None = None) -> Any:
        """What the class makes of a camera's frame, in pixels of the frame; see `answer`.

        Args:
            frame: what the input that takes frames gets. inputs: the other inputs' values.
        """
        code = answer_code(self.plan)
        if code is None:
            raise ValueError("the class was compiled without an answer")
        data, _ = self._run("answer-frame", 1, self.packed_frames([frame], inputs or {}))
        if code.type == "Mask":
            return np.frombuffer(data, np.uint8).reshape(frame.height, frame.width)
        return np.frombuffer(data, code.dtype)[0]

    def run_frames(
        self, frames: Sequence[Frame], inputs: Mapping[str, Array] | None = None
    ) -> list[FrameRun]:
        """Inferences on camera frames, one after the other in one process.

        Args:
            frames: what the input that takes frames gets. inputs: the other inputs' values.

        Raises:
            MdlcError: the class takes no frames, or refuses one.
        """
        port = self._frame_port()
        data, _ = self._run("frames", len(frames), self.packed_frames(frames, inputs or {}))
        nbytes = port.type.nbytes
        head = nbytes + TRANSFORM_BYTES
        size = head + sum(p.type.nbytes for p in self.plan.outputs)
        results = []
        for part in (data[index * size : (index + 1) * size] for index in range(len(frames))):
            raw = np.frombuffer(part, port.type.dtype.numpy, port.type.size)
            transform = np.frombuffer(part[nbytes:head], np.float32).reshape(2, 3)
            results.append(
                FrameRun(port.type.to_logical(raw), transform, self._unpack(part[head:], self.plan))
            )
        return results

    def time_reading(self, frame: Frame, repeats: int = 20) -> float:
        """Nanoseconds until a frame is in the network's input, the median."""
        _, text = self._run("reading", repeats, self.packed_frames([frame], {}))
        return float(text)

    def _frame_port(self) -> Port:
        if self.plan.frame_port is None:
            raise MdlcError("the class takes no frames", node=self.plan.name, hint="use --frame")
        return self.plan.frame_port

    def packed_frames(self, frames: Sequence[Frame], inputs: Mapping[str, Array]) -> bytes:
        """Frames as the program reads them, each followed by the other inputs."""
        port = self._frame_port()
        zeros = np.zeros(port.type.shape, port.type.dtype.numpy)
        rest = self._pack({**inputs, port.name: zeros}, without=port.name)
        return b"".join(pack_frame(frame) + rest for frame in frames)

    def trace(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every layer's output (logical) of one inference, by step name; see Trace."""
        return dict(self.trace_many([inputs])[0].layers)

    def trace_many(self, frames: Iterable[Mapping[str, Array]]) -> list[Trace]:
        """What every one of some inferences left behind; states are kept from each to the next."""
        given = list(frames)
        data, _ = self._run("trace", len(given), b"".join(map(self._pack, given)))
        found, at = [], 0
        for frame in given:
            plan = self._variant(frame)
            trace, at = self._traced(data, at, plan)
            outputs = sum(port.type.nbytes for port in plan.outputs)
            results = self._unpack(data[at : at + outputs], plan)
            found.append(replace(trace, results=results))
            at += outputs
        return found

    def _traced(self, data: bytes, at: int, plan: Plan) -> tuple[Trace, int]:
        """Layers and states in what a traced run wrote from a position on; where they end."""

        def read(kind: TensorType) -> Array:
            nonlocal at
            raw = np.frombuffer(data, kind.dtype.numpy, kind.size, at)
            at += kind.nbytes
            return kind.to_logical(raw)

        shown = [step for step in plan.steps if step.name not in plan.hidden]
        trace = Trace(
            before={state.name: read(state.view.type) for state in plan.states},
            layers={step.name: read(step.output.type) for step in shown},
            after={state.result: read(state.view.type) for state in plan.states},
        )
        return trace, at

    def time(self, repeats: int = 50, inputs: Mapping[str, Array] | None = None) -> Timing:
        """Medians over `repeats` inferences, on zeros unless inputs are given."""
        if inputs is None:
            inputs = zeros(self.plan)
        plan = self._variant(inputs)
        _, text = self._run("time", repeats, self._pack(inputs))
        numbers = [float(word) for word in text.split()]
        names = [step.name for step in plan.steps]
        return Timing(dict(zip(names, numbers[:-1], strict=True)), numbers[-1])

    def _pack(self, frame: Mapping[str, Array], without: str | None = None) -> bytes:
        plan = self._variant(frame)
        parts = []
        if self.plan.also:  # the runner is told which variant it is
            parts.append(np.uint32(self.plan.sizes.index(plan)).tobytes())
        for port in plan.inputs:
            if port.name == without:
                continue
            value = checked(port, frame[port.name])
            parts.append(port.type.to_physical(value).tobytes())
        unknown = set(frame) - {port.name for port in plan.inputs}
        if unknown:
            raise MdlcError(f"the network has no input {sorted(unknown)[0]!r}")
        return b"".join(parts)

    def _variant(self, frame: Mapping[str, Array]) -> Plan:
        """The variant of the class whose inputs have these shapes; a lone one in any case."""
        for port in self.plan.inputs:
            if port.name not in frame:
                raise MdlcError(f"no value for input {port.name!r}")
        if not self.plan.also:
            return self.plan
        for plan in self.plan.sizes:
            if all(np.shape(frame[port.name]) == port.type.shape for port in plan.inputs):
                return plan
        shapes = ", ".join("x".join(map(str, np.shape(frame[p.name]))) for p in self.plan.inputs)
        listed = "; ".join(size_text(plan) for plan in self.plan.sizes)
        raise MdlcError(f"the class has no size {shapes}", hint=f"its sizes are {listed}")

    def _unpack(self, data: bytes, plan: Plan) -> dict[str, Array]:
        results, at = {}, 0
        for port in plan.outputs:
            raw = np.frombuffer(data, port.type.dtype.numpy, port.type.size, at)
            results[port.name] = port.type.to_logical(raw)
            at += port.type.nbytes
        return results

    def _arguments(self) -> list[str]:
        """Further arguments of the program."""
        return []

    def _run(self, mode: str, count: int, data: bytes) -> tuple[bytes, str]:
        with tempfile.TemporaryDirectory() as scratch:
            source, target = Path(scratch) / "in.raw", Path(scratch) / "out.raw"
            source.write_bytes(data)
            weights = self.directory / f"{self.plan.name}.weights"
            command = [*self.toolchain.runner, str(self.program), mode, str(count)]
            command += [str(weights), str(source), str(target), *self._arguments()]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise MdlcError(f"the built program failed: {failure(done)}", node=self.plan.name)
            return (target.read_bytes() if target.exists() else b""), done.stdout


def program_files(plan: Plan, plans: Sequence[Plan] = ()) -> dict[str, bytes]:
    """The emitted class, instrumented, and runner.cpp, which runs it on raw frames.

    Args:
        plans: of a class for several instruction sets, all.
    """
    first, *others = plans or (plan,)
    files = emit(first, PRIVATE_INFO, instrument=True, others=others)
    ports = zip(*((*each.inputs, *each.outputs) for each in plan.sizes), strict=True)
    runner = format_cpp(
        render(
            "cpp/runner.cpp.j2",
            plan=plan,
            target=plan.isa.name if others else "",
            name=plan.name,
            mat_types=MAT_TYPES,
            c_types=C_TYPES,
            answer=answer_code(plan),
            picture=picture_size(plan),
            frame=_frame(plan),
            traced=[
                [
                    (0, 0, 0, 0) if step.name in each.hidden else _traced(each, step.output)
                    for step in each.steps
                ]
                for each in plan.sizes
            ],
            ports=list(ports),
            kept=[_traced(plan, state.view) for state in plan.states],
        )
    )
    return files | {"runner.cpp": runner.encode()}


def checked(port: Port, given: Any) -> Array:
    """An input as it is.

    Raises:
        MdlcError: it has another shape or type.
    """
    value = np.asarray(given)
    if value.shape != port.type.shape or value.dtype != port.type.dtype.numpy:
        wanted = port.type.dtype.numpy.name
        raise MdlcError(
            f"input {port.name!r} is {value.dtype} {list(value.shape)}, not {port.type}",
            hint=f"convert it with .astype({wanted!r})"
            if value.shape == port.type.shape
            else f"give an array of shape {list(port.type.shape)}",
        )
    return value


def zeros(plan: Plan) -> dict[str, Array]:
    """Inputs of a plan that are zero throughout."""
    return {p.name: np.zeros(p.type.shape, p.type.dtype.numpy) for p in plan.inputs}


def _frame(plan: Plan) -> dict[str, object] | None:
    """Where the input that takes frames lies in the arena."""
    port = plan.frame_port
    if port is None:
        return None
    offset, _, _, _ = _traced(plan, port.view)
    return {"port": port.identifier, "offset": offset, "nbytes": port.type.nbytes}


def _traced(plan: Plan, view: View) -> tuple[int, int, int, int]:
    """Offset in the arena, rows, bytes of a row, bytes from row to row."""
    buffer = plan.buffers[view.buffer]
    size = view.type.dtype.size
    row = view.type.physical_shape[-1] if view.type.rank else 1
    return buffer.offset + view.offset, view.rows, row * size, view.pitch * size


def failure(done: subprocess.CompletedProcess[str]) -> str:
    """Why a program failed: its signal, or the end of what it said."""
    if done.returncode < 0:
        return signal.Signals(-done.returncode).name
    text = re.sub(r"\s+", " ", done.stderr).strip()
    return text[-600:] or f"exit code {done.returncode}"
