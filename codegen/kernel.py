"""What a kernel is: how one family of layers is matched, scheduled, packed and emitted."""

from __future__ import annotations

import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, Generic, TypeVar

import numpy as np

from mdlc.codegen.code import C_TYPES, Function, LayerCode, Microkernel, Parameter, Statement, body
from mdlc.codegen.isa.base import Backend, KernelIsa
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.types import Array, DType, TensorType

B = TypeVar("B")


@dataclass(frozen=True)
class Loss:
    """What an algorithm may lose besides plain sums' rounding.

    Attributes:
        share: of the largest sum of the terms' magnitudes.
        apart: that of the same filter; False where sums of several filters meet on the way.
    """

    share: float = 0.0
    apart: bool = True


NO_LOSS = Loss()


@dataclass(frozen=True)
class TransformedFilters:
    """How a kernel packs G g G' of every filter g instead of g.

    With a stride every phase of a filter, taps `stride` apart, is transformed on its own and is a
    part of the products' depth. Elements of G g G' are packed row by row, but those of the last
    column behind all others, and each as [blocks of channels][depth][channels of a block]. Phases
    that lack a last tap are not packed where it alone counts, in the last row and column.

    Attributes:
        matrix, scales: G is diag(scales) matrix, [size, taps of a phase], where sums of matrix g
            are exact; kernel: taps of g along an axis.
        full: phases of an axis, from the first, that are packed in the last row and column.
        depths: packed depth of elements in neither, in the last row, in the last column, in both.
        blocks: (number, channels) of equal blocks of output channels, in order.
    """

    matrix: tuple[tuple[float, ...], ...]
    scales: tuple[float, ...]
    kernel: int
    stride: int
    full: int
    depths: tuple[int, int, int, int]
    blocks: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Schedule:
    """How a kernel computes a layer; frozen, and chosen by cost.

    Attributes:
        algorithm: short name, as printed by `mdlc explain`.
        tile: register tile, in the kernel's own terms (pixels x channels for convolutions).
        block: cache block, likewise; () where the kernel does not block.
        panels: whether a product's left side is copied into panels first (tiles/gemm_panels.py).
    """

    algorithm: str
    tile: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    panels: bool = False

    def __str__(self) -> str:
        """The fields that differ from their defaults; tuned tables name schedules by this text."""
        words = [self.algorithm]
        for each in fields(self)[1:]:
            value = getattr(self, each.name)
            if value == each.default:
                continue
            text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
            label = () if each.name == "tile" else (each.name,)
            words += label if value is True else (*label, text)
        return " ".join(words)


@dataclass(frozen=True)
class View:
    """Where a tensor lies in the arena.

    Attributes:
        buffer: index of the buffer in Plan.buffers.
        offset: bytes from the buffer's start.
        type: the tensor's type.
        pitch: elements from one innermost row (last physical axis) to the next; equal to that
            axis's length where the tensor is dense. A channel slice of an NHWC buffer has the
            buffer's channel count.
        wide: whether elements are floats where the target would keep halves (Metal).
    """

    buffer: int
    offset: int
    type: TensorType
    pitch: int
    wide: bool = False

    @property
    def dense(self) -> bool:
        """Whether the elements are contiguous."""
        return self.pitch == row_length(self.type) or self.rows == 1

    @property
    def rows(self) -> int:
        """Number of innermost rows."""
        return math.prod(self.type.physical_shape[:-1])

    @staticmethod
    def of(tensor: TensorType, buffer: int) -> View:
        """A dense tensor at the start of a buffer."""
        return View(buffer, 0, tensor, row_length(tensor))


def row_length(tensor: TensorType) -> int:
    """Length of the innermost physical axis; 1 for a scalar."""
    return tensor.physical_shape[-1] if tensor.rank else 1


@dataclass(frozen=True)
class Step:
    """One layer of the plan.

    Attributes:
        name: C++ identifier, unique in the plan (from the ONNX name).
        inputs: views of the run-time inputs (constants are in `weights`), in node order.
        output: view of the result.
        weights: packed arrays by field name, as `Kernel.pack` gave them.
        scratch: view of the scratch memory (u8), or None.
    """

    name: str
    node: Node
    kernel: AnyKernel[Any]
    schedule: Schedule
    inputs: tuple[View, ...]
    output: View
    weights: Mapping[str, Array] = field(default_factory=dict)
    scratch: View | None = None

    def seen(self, backend: Backend) -> Any:
        """The backend as its kernel sees it."""
        return seen_by(self.node, backend)

    def cycles(self, backend: Backend) -> float:
        """Estimated cycles on one core."""
        return self.kernel.cost(self.node, self.schedule, self.seen(backend))

    @property
    def fields(self) -> tuple[Parameter, ...]:
        """The packed arrays as parameters."""
        return tuple(
            Parameter(f"const {C_TYPES[DType.from_numpy(array.dtype)]}*", name)
            for name, array in self.weights.items()
        )

    def function(
        self,
        name: str,
        *statements: Statement | Sequence[Statement],
        comment: Sequence[str],
        inputs: Sequence[str] = ("x",),
        output: str = "y",
        scratch: bool = False,
        needs: Sequence[Microkernel] = (),
        includes: Sequence[str] = (),
    ) -> Function:
        """The layer's function: takes its packed arrays, the run-time inputs and the output.

        Args:
            inputs, output: C++ names of the pointers to run-time inputs, and to the output.
            scratch: whether it takes `unsigned char* scratch` behind them.
        """
        parameters = [
            Parameter(f"const {C_TYPES[view.type.dtype]}*", source)
            for source, view in zip(inputs, self.inputs, strict=True)
        ]
        # A compiler may compute several elements at once where it need not look for overlaps.
        apart = all(view.buffer != self.output.buffer for view in self.inputs)
        kind = f"{C_TYPES[self.output.type.dtype]}*{' __restrict' if apart else ''}"
        parameters.append(Parameter(kind, output))
        parameters += [SCRATCH] if scratch else []
        return Function(
            name,
            self.fields,
            tuple(parameters),
            body(*statements),
            tuple(comment),
            tuple(dict.fromkeys(needs)),
            tuple(includes),
        )

    def with_views(self, inputs: Sequence[View], output: View) -> Step:
        """The same step on other memory."""
        return replace(self, inputs=tuple(inputs), output=output)


SCRATCH = Parameter("unsigned char*", "scratch")


class AnyKernel(ABC, Generic[B]):
    """One kernel family of a backend, which it sees as a B.

    Attributes:
        name: as printed by `mdlc explain`.
        layer: the C++ struct of its layers (Convolution, Pooling, ...).
        pitched_input, pitched_output: whether `emit` honours View.pitch there. Only then may
            the planner place the tensor inside a concat's buffer or read it as a channel slice.
        numbers: the packed array of 16-bit numbers that Huffman codes may shorten, or "".
        reads_past: bytes behind its inputs that it may read (and not use).
        banded: whether the weights that `pack` made for a Conv2D serve it on fewer rows, too.
    """

    name: str
    layer: str
    pitched_input: bool = False
    pitched_output: bool = False
    numbers: str = ""
    reads_past: int = 0
    banded: bool = False

    @abstractmethod
    def matches(self, node: Node, isa: B) -> bool:
        """Whether this kernel computes the node."""

    def schedules(self, node: Node, isa: B) -> Sequence[Schedule]:
        """The candidates, never empty for a node that matches."""
        return (Schedule(self.name),)

    @abstractmethod
    def cost(self, node: Node, schedule: Schedule, isa: B) -> float:
        """Estimated cycles on one core."""

    def pack(self, node: Node, schedule: Schedule, isa: B) -> dict[str, Array]:
        """The node's constants as the kernel reads them, by field name, in call order."""
        return {}

    def repack(self, node: Node, weights: Array, schedule: Schedule, isa: B) -> dict[str, Array]:
        """What `pack` gives, with other weights in the places of the node's own.

        Kernels that leave zeros out leave out those of the node, whatever `weights` has there.
        """
        inputs = list(node.inputs)
        inputs[1] = constant(np.ascontiguousarray(weights, np.float32), node.inputs[1].name)
        return self.pack(replace(node, inputs=tuple(inputs)), schedule, isa)

    def loss(self, node: Node, schedule: Schedule, isa: B) -> Loss:
        """What its algorithm may lose besides plain sums' rounding."""
        return NO_LOSS

    def growth(self, node: Node, schedule: Schedule, isa: B) -> float:
        """How much larger than its inputs and its sums' magnitudes values inside may become."""
        return 1.0

    def transformed(self, node: Node, schedule: Schedule, isa: B) -> TransformedFilters | None:
        """How `weights` is a transform of the node's filters; None: it is them in another order."""
        return None

    def scratch(self, node: Node, schedule: Schedule, isa: B) -> int:
        """Bytes of scratch memory that a run on one thread needs."""
        return 0

    def thread_scratch(self, node: Node, schedule: Schedule, isa: B) -> int:
        """Bytes behind those that each further thread needs (see codegen/threads.py)."""
        return 0

    def in_place(self, node: Node) -> Sequence[int]:
        """Indices (in node.inputs) of inputs that the output may overwrite."""
        return ()

    @abstractmethod
    def emit(self, step: Step, isa: B) -> LayerCode:
        """The code of a layer; of the C++ targets, what Step.function gives."""


class Kernel(AnyKernel[KernelIsa]):
    """One kernel family in C++; a file in codegen/kernels/ that defines KERNELS."""


@cache
def kernels(package_name: str = "mdlc.codegen.kernels") -> tuple[AnyKernel[Any], ...]:
    """All kernels of a package, in the order of their files."""
    found: list[AnyKernel[Any]] = []
    package = importlib.import_module(package_name)
    for module in pkgutil.iter_modules(package.__path__):
        loaded = importlib.import_module(f"{package.__name__}.{module.name}")
        found.extend(getattr(loaded, "KERNELS", ()))
    return tuple(found)


def seen_by(node: Node, backend: Backend) -> Any:
    """A backend as the kernel of a node sees it: an ISA in the dialect of its element type."""
    return backend.of((node.type, *(source.type for source in node.inputs)))


@dataclass(frozen=True)
class Candidate:
    """A way to compute a node, with its estimated cycles."""

    kernel: AnyKernel[Any]
    schedule: Schedule
    cycles: float


def candidates(node: Node, backend: Backend) -> list[Candidate]:
    """All ways to compute a node, cheapest first (ties in the order of the kernels' files).

    Raises:
        MdlcError: no kernel of the backend computes it.
    """
    seen = seen_by(node, backend)
    found = [
        Candidate(kernel, schedule, kernel.cost(node, schedule, seen))
        for kernel in kernels(backend.kernels)
        if kernel.matches(node, seen)
        for schedule in kernel.schedules(node, seen)
    ]
    if not found:
        operands = ", ".join(str(source.type) for source in node.inputs)
        raise MdlcError(
            f"target {backend.name} has no kernel for {type(node.op).__name__} on ({operands})",
            node=f"node {node.name!r}",
        )
    return sorted(found, key=lambda candidate: candidate.cycles)
