"""What quantisation does to every layer, and which layers to keep in float."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.compiler.interpreter import evaluate
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.types import Array
from mdlc.passes.lower_quantized import lower_quantized
from mdlc.quantization.calibrate import Inputs, Runner, batches, probe
from mdlc.quantization.layers import is_product
from mdlc.quantization.quantize import Quantized
from mdlc.quantization.table import CalibrationTable, TensorRange

# Inputs that the figures are measured on.
INPUTS = 8
OWN_INPUTS = 2


@dataclass(frozen=True)
class LayerReport:
    """One layer in 8 bits.

    Attributes:
        name: of the tensor that it ends in: what --keep-float takes.
        kind: operator.
        snr_db: of its output in the quantised network, with all that came before it.
        own_snr_db: with the float network's values as its input: what the layer itself loses.
        range: of the output, with its histogram.
        scale, zero: what an integer of the output stands for; 0 where it has 32 bits.
        macs: multiply-adds that would be float ones.
        weight_bytes: by which the weights would grow in float.
    """

    name: str
    kind: str
    snr_db: float
    own_snr_db: float
    range: TensorRange
    scale: float
    zero: int
    macs: int
    weight_bytes: int

    @property
    def clipped(self) -> float:
        """Share of the calibration set's elements outside the range."""
        return self.range.clipped


class _Noise:
    """Power of a signal and of its error, summed."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def add(self, found: Array, wanted: Array) -> None:
        exact = wanted.astype(np.float64)
        self.signal += float((exact**2).sum())
        self.noise += float(((found.astype(np.float64) - exact) ** 2).sum())

    @property
    def snr_db(self) -> float:
        if not self.noise:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


def layer_reports(
    quantized: Quantized,
    table: CalibrationTable,
    inputs: Iterable[Inputs],
    runner: Runner,
    progress: Callable[[str], None] | None = None,
) -> list[LayerReport]:
    """Figures of all integer layers, the one that loses most by itself first.

    Args:
        inputs: the first INPUTS of them are used.
    """
    assignment = quantized.assignment
    names = assignment.layer_names()
    source = assignment.graph
    taken: list[Inputs] = []
    for frame in inputs:
        taken.append(frame)
        if len(taken) == INPUTS:
            break
    if progress is not None:
        progress("measuring every layer")
    whole = _whole_noise(source, quantized, names, taken, runner)
    own = own_noise(quantized, taken[:OWN_INPUTS])
    cores = {name: _core(node, assignment.inner) for name, node in names.items()}
    reports = []
    for name, node in names.items():
        core, params = cores[name], assignment.params.get(node)
        types = [s.type for s in core.inputs]
        weights = sum(s.type.size for s in core.inputs[1:2]) if is_product(core) else 0
        reports.append(
            LayerReport(
                name,
                type(core.op).__name__,
                whole[name].snr_db,
                own[name],
                table.tensors[name],
                0.0 if params is None else params.scale,
                0 if params is None else params.zero_point,
                core.op.cost(types, core.type).macs if is_product(core) else 0,
                3 * weights,
            )
        )
    return sorted(reports, key=lambda report: (report.own_snr_db, report.name))


def _core(node: Node, inner: Iterable[Node]) -> Node:
    """The operator that a bound or a table stands behind."""
    while node.inputs and node.inputs[0] in inner:
        node = node.inputs[0]
    return node


def _whole_noise(
    source: Graph,
    quantized: Quantized,
    names: Mapping[str, Node],
    inputs: Sequence[Inputs],
    runner: Runner,
) -> dict[str, _Noise]:
    exact = runner(probe(source, {node: name for name, node in names.items()}))
    rounded = runner(probe(quantized.graph, {quantized.tensors[name]: name for name in names}))
    noise = {name: _Noise() for name in names}
    for group in batches(inputs):
        for found, wanted in zip(rounded(group), exact(group), strict=True):
            for name in names:
                noise[name].add(found[name], wanted[name])
    return noise


def own_noise(quantized: Quantized, inputs: Sequence[Inputs]) -> dict[str, float]:
    """SNR (dB) of every layer with the float network's values, rounded, as its input.

    In the reference interpreter, layer by layer.
    """
    assignment = quantized.assignment
    names = assignment.layer_names()
    lowered = lower_quantized(
        probe(quantized.graph, {quantized.tensors[name]: name for name in names})
    )
    ends = dict(zip(lowered.output_names, lowered.outputs, strict=True))
    noise = {name: _Noise() for name in names}
    for frame in inputs:
        exact = evaluate(assignment.graph, frame)
        # What the tensors of the integer graph would be, had nothing been lost before them.
        given: dict[Node, Array] = {}
        by_name = {key: exact[node] for node, key in assignment.keys.items()}
        for name, node in ends.items():
            integers = node.inputs[0]
            scale, zero = (s.constant for s in node.inputs[1:])
            assert scale is not None
            assert zero is not None
            if zero.dtype != np.int32:  # accumulators, which no layer reads
                given[integers] = _rounded(by_name[name], scale, zero)
        for name, node in ends.items():
            found = node.op.reference(
                _evaluated(node.inputs[0], given, frame),
                *(s.constant for s in node.inputs[1:]),  # type: ignore[arg-type]
            )
            noise[name].add(found, by_name[name])
    return {name: found.snr_db for name, found in noise.items()}


def _rounded(value: Array, scale: Array, zero: Array) -> Array:
    from mdlc.compiler.ops.quantize_linear import QuantizeLinear

    return QuantizeLinear().reference(value.astype(np.float32), scale, zero)


def _evaluated(root: Node, given: Mapping[Node, Array], frame: Inputs) -> Array:
    """A node computed from the nearest tensors given before it."""
    values: dict[Node, Array] = {}
    pending = [root]
    while pending:
        node = pending[-1]
        if node in values:
            pending.pop()
            continue
        if node is not root and node in given:
            values[node] = given[node]
        elif node.constant is not None:
            values[node] = node.constant
        elif not node.inputs:
            values[node] = frame[node.name]
        else:
            missing = [source for source in node.inputs if source not in values]
            if missing:
                pending += missing
                continue
            values[node] = node.op.reference(*(values[source] for source in node.inputs))
        pending.pop()
    return values[root]
