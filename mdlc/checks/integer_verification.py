"""Verifying a class that computes in 8 bits: integers are equal or they are wrong.

Every layer of the emitted class is compared with the reference interpreter on what it read:
integers must be the same, floats within what rounding may cost. What the integers stand
for is compared with the tensor of the trained model: how much precision was spent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from mdlc.checks.local import BLAS, Local
from mdlc.checks.reference import Reference
from mdlc.checks.rounding import UNIT_F32
from mdlc.checks.verification import traces
from mdlc.codegen.kernel import NO_LOSS, Loss
from mdlc.codegen.run.executable import Executable
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.dequantize_linear import DequantizeLinear
from mdlc.compiler.ops.quantize_linear import QuantizeLinear
from mdlc.compiler.types import Array, DType
from mdlc.passes.quant_params import QuantParams
from mdlc.precision.calibration_set import top_classes_of

if TYPE_CHECKING:
    from mdlc.api import CompiledModel

BYTES = (DType.I8, DType.U8)


@dataclass(frozen=True)
class IntegerLayer:
    """A layer of the emitted class.

    Attributes:
        step: its name in the class. tensor: the ONNX tensor. kind: operator. dtype: of the output.
        elements: compared, over all inputs. differing: integers that are not the reference's;
            for floats, elements of runs outside their bound.
        steps_off: integers that are one step or more off the model's own, where the model has
            integers; None where it does not.
        worst_step: the largest such distance.
        snr_db: of what the output stands for against the trained model; None where it has no
            such tensor.
    """

    step: str
    tensor: str
    kind: str
    dtype: str
    elements: int
    differing: int
    steps_off: int | None
    worst_step: int
    snr_db: float | None


@dataclass(frozen=True)
class IntegerVerification:
    """All layers whose output exists whole (see codegen/plan/row_fusion.py), in order."""

    layers: tuple[IntegerLayer, ...]
    runs: int

    @property
    def first_off(self) -> IntegerLayer | None:
        """The first layer that is not what the reference computes."""
        return next((layer for layer in self.layers if layer.differing), None)


@dataclass(frozen=True)
class Accuracy:
    """Answers of the emitted class and of the trained model.

    Attributes:
        agree: share of equal answers.
        found, trained: top-1 of the two; None without labels.
        runs: inputs counted.
    """

    agree: float
    found: float | None
    trained: float | None
    runs: int


def computes_in_bytes(compiled: CompiledModel) -> bool:
    """Whether the class rounds floats to 8 bits, or computes on 8-bit inputs as they are."""
    return any(
        isinstance(step.node.op, QuantizeLinear | DequantizeLinear) for step in compiled.plan.steps
    )


def integer_layers(
    compiled: CompiledModel,
    inputs: Iterable[Mapping[str, Array]],
    executable: Executable | None = None,
) -> IntegerVerification:
    """Compares every layer of the class at one size, over all inputs.

    Args:
        executable: the class; None: it is built.

    Raises:
        MdlcError: it cannot be built or run here, or ONNX Runtime does not take the model.
    """
    steps = compiled.plan.steps
    params = tensor_scales(compiled)
    reference = Reference(compiled, [step.node.name for step in steps])
    executable = executable or compiled.build()
    visible = {step.node: step for step in steps if step.name not in compiled.plan.hidden}
    tallies = {step.name: _Tally() for step in visible.values()}

    def loss(node: Node) -> Loss:
        step = visible.get(node)
        return (
            step.kernel.loss(node, step.schedule, step.seen(compiled.plan.isa)) if step else NO_LOSS
        )

    runs = 0
    for values, trace in traces(executable, inputs):
        runs += 1
        trained = reference.run(values)
        layers = trace.layers
        given = {step.node: layers[step.name] for step in steps if step.name in layers}
        with threadpool_limits(1, BLAS):
            local = Local(compiled.graph, values, given, lambda node: UNIT_F32, loss)
            for node, step in visible.items():
                tallies[step.name].add(
                    given[node],
                    local,
                    node,
                    trained.get(node.name),
                    params.get(node.name),
                )
    found = tuple(
        tallies[step.name].layer(step.name, step.node.name, step.node.op, step.node.type.dtype)
        for step in visible.values()
    )
    return IntegerVerification(found, runs)


def tensor_scales(compiled: CompiledModel) -> dict[str, QuantParams]:
    """What the integers of 8-bit tensors stand for, by name, as far as the graph says so."""
    found: dict[str, QuantParams] = {}
    low = compiled.low_precision
    if low is not None and low.quantized is not None:
        assignment = low.quantized.assignment
        found.update((node.name, params) for node, params in assignment.params.items())
    for node in compiled.graph.order():
        if not isinstance(node.op, QuantizeLinear | DequantizeLinear):
            continue
        scale, zero = (source.constant for source in node.inputs[1:])
        if scale is None or zero is None or scale.shape != () or zero.dtype.itemsize > 1:
            continue
        named = node if isinstance(node.op, QuantizeLinear) else node.inputs[0]
        found.setdefault(
            named.name, QuantParams(float(scale), int(zero), DType.from_numpy(zero.dtype))
        )
    return found


class _Tally:
    """What is counted of a layer."""

    def __init__(self) -> None:
        self.elements = self.differing = self.worst = 0
        self.off: int | None = None
        self.signal = self.noise = 0.0
        self.compared = False

    def add(
        self,
        found: Array,
        local: Local,
        node: Node,
        trained: Array | None,
        params: QuantParams | None,
    ) -> None:
        self.elements += found.size
        if found.dtype.kind == "f":
            self.differing += 0 if local.judge(node, found)[0] <= 1 else found.size
        else:
            self.differing += int((found != local.exact(node)).sum())
        if trained is None or trained.size != found.size:
            return
        trained = trained.reshape(found.shape)
        if trained.dtype.kind != "f":
            apart = np.abs(found.astype(np.int64) - trained.astype(np.int64))
            self.off = (self.off or 0) + int((apart > 0).sum())
            self.worst = max(self.worst, int(apart.max(initial=0)))
            return
        real = found.astype(np.float64)
        if found.dtype.kind != "f":
            if params is None or DType.from_numpy(found.dtype) is not params.dtype:
                return
            real = (real - params.zero_point) * params.scale
        self.compared = True
        self.signal += float((trained.astype(np.float64) ** 2).sum())
        self.noise += float(((real - trained) ** 2).sum())

    def layer(self, step: str, tensor: str, op: object, dtype: DType) -> IntegerLayer:
        snr: float | None = None
        if self.compared:
            snr = math.inf if not self.noise else -math.inf
            if self.noise and self.signal:
                snr = 10 * math.log10(self.signal / self.noise)
        return IntegerLayer(
            step, tensor, type(op).__name__, dtype.value, self.elements, self.differing, self.off,
            self.worst, snr,
        )  # fmt: skip


def accuracy(
    compiled: CompiledModel,
    inputs: Iterable[Mapping[str, Array]],
    labels: Sequence[int] | None,
    at_once: int = 32,
) -> Accuracy:
    """Top-1 of the emitted class and of the trained model in ONNX Runtime.

    Args:
        labels: the right classes, as the network counts them.

    Raises:
        MdlcError: the class keeps a state, so that its answers are not those of single inputs; or
            it cannot be built or run here, or ONNX Runtime does not take the model.
    """
    if compiled.plan.states:
        raise MdlcError("answers are counted of single inputs", node="--quantized",
                        hint="leave out --state")  # fmt: skip
    executable = compiled.build()
    reference = Reference(compiled, ())
    found: list[int] = []
    trained: list[int] = []
    for group in _groups(inputs, at_once):
        found += top_classes_of(executable.run_many(group))
        trained += top_classes_of(reference.run(frame) for frame in group)
    count = max(len(found), 1)

    def share(a: Sequence[int], b: Sequence[int]) -> float:
        return sum(x == y for x, y in zip(a, b, strict=True)) / count

    return Accuracy(
        share(found, trained),
        None if labels is None else share(found, labels),
        None if labels is None else share(trained, labels),
        len(found),
    )


def _groups(
    inputs: Iterable[Mapping[str, Array]], size: int
) -> Iterator[list[Mapping[str, Array]]]:
    group: list[Mapping[str, Array]] = []
    for frame in inputs:
        group.append(frame)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
