"""Encoding a plan's weights: one encoding for all layers, or the best for a size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import Step
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.plan.weights_file import HEADER_BYTES, payload_of
from mdlc.codegen.weights.encoding import RAW, Encoding, Quantised, quantise
from mdlc.codegen.weights.packing_order import (
    FIELD,
    has_weights,
    output_channels,
    trace_layout,
    with_weights,
)
from mdlc.codegen.weights.sections import EncodedWeights, encode, encode_numbers
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.types import Array

# What `auto` chooses from: without Huffman codes everything is longer.
CANDIDATES = (
    Encoding("raw", huffman=True),
    Encoding("fp16", huffman=True),
    *(Encoding(f"int{bits}", huffman=True) for bits in (8, 7, 6, 5)),
    *(Encoding("clustered", bits, True) for bits in range(8, 1, -1)),
)


def encode_plan(plan: Plan, encoding: Encoding | Mapping[str, Encoding]) -> Plan:
    """The plan with the weights of convolutions and dense layers encoded.

    Args:
        encoding: of all layers, or by step name (those not named stay raw).

    Biases, tables and other constants stay as they are. A layer whose packing is irregular
    stays raw.

    Raises:
        MdlcError: a weight does not fit the encoding.
    """
    chosen = {}
    for step in plan.steps:
        own = encoding if isinstance(encoding, Encoding) else encoding.get(step.name, RAW)
        if has_weights(step) and own != RAW:
            found = _candidate(step, plan.isa, own)
            if found is not None:
                chosen[step.name] = found
    return _with(plan, chosen)


def encode_to_size(plan: Plan, most: int) -> Plan:
    """The plan with an encoding for each layer such that the file is at most `most` bytes.

    From the exact encoding of every layer on, the layer with the least further squared error
    (relative to its weights) for each byte saved is encoded more coarsely, until the size is met.

    Raises:
        MdlcError: no choice meets the size.
    """
    layers = [step for step in plan.steps if has_weights(step)]
    hulls = {step.name: _hull(step, plan.isa) for step in layers}
    hulls = {name: hull for name, hull in hulls.items() if hull}
    at = dict.fromkeys(hulls, 0)

    def chosen() -> dict[str, _Candidate]:
        return {name: hulls[name][index] for name, index in at.items()}

    def size() -> int:
        encoded = {name: c.weights for name, c in chosen().items()}
        return HEADER_BYTES + payload_of(replace(plan, encoded=encoded)).nbytes

    moves = sorted(
        (slope, name, index)
        for name, hull in hulls.items()
        for index, slope in enumerate(_slopes(hull))
    )
    now = size()
    for _, name, index in moves:
        if now <= most:
            break
        hull = hulls[name]
        at[name] = index + 1
        now -= _padded(hull[index]) - _padded(hull[index + 1])
    if now > most:
        raise MdlcError(
            f"the weights take {now} bytes in the smallest encoding, not {most}",
            node="--max-size",
            hint="prune channels first (mdlc compress --prune-channels)",
        )
    return _with(plan, chosen())


def transform_at_init(plan: Plan, most: float) -> Plan:
    """The plan with filters in its file instead of their transforms, which `Init` computes then.

    As few layers as make the file at most `most` bytes, those first that save most; all that save
    any where none suffice.
    """
    encoded: dict[str, EncodedWeights] = {}
    size = HEADER_BYTES + plan.weight_bytes
    found = [(_saved(step, plan.isa), step) for step in plan.steps if _weights_of(step) is not None]
    for saved, step in sorted(found, key=lambda each: -each[0]):
        if size <= most or saved <= 0:
            break
        weights = step.node.inputs[1].constant
        assert weights is not None
        encoding = Encoding("fp16") if weights.dtype == np.float16 else RAW
        quantised = quantise(weights, output_channels(step.node), encoding, step.name)
        layout = trace_layout(step, plan.isa, by_channel=False)
        assert layout is not None
        encoded[step.name] = encode(quantised, layout, 0.0)
        size -= saved
    return replace(plan, encoded=encoded)


def _weights_of(step: Step) -> Array | None:
    """The weights that a step packs, if it is a layer whose weights can be encoded."""
    if len(step.node.inputs) < 2 or FIELD not in step.weights:
        return None
    return step.node.inputs[1].constant


def _saved(step: Step, isa: Isa) -> int:
    """Bytes that the filters are shorter than their transforms; 0 where there are none."""
    weights = _weights_of(step)
    if weights is None or step.kernel.transformed(step.node, step.schedule, step.seen(isa)) is None:
        return 0
    return step.weights[FIELD].nbytes - -(-weights.nbytes // 4) * 4


@dataclass(frozen=True)
class _Candidate:
    quantised: Quantised
    weights: EncodedWeights

    @property
    def loss(self) -> float:
        return self.weights.error**2


def _padded(candidate: _Candidate) -> int:
    numbers = candidate.weights.numbers
    lengths = [len(candidate.weights.data), len(numbers.data) if numbers else 0]
    return sum(-(-length // 4) * 4 for length in lengths)


def _weights(step: Step) -> Array:
    value = step.node.inputs[1].constant
    assert value is not None
    return value


def _candidate(step: Step, isa: Isa, encoding: Encoding) -> _Candidate | None:
    weights = _weights(step)
    found = quantise(weights, output_channels(step.node), encoding, step.name)
    by_channel = encoding.integer > 0 and len(found.table) > 1
    layout = trace_layout(step, isa, by_channel=by_channel)
    if layout is None:
        return None
    numbers = step.weights.get(step.kernel.numbers) if encoding.huffman else None
    coded = encode_numbers(numbers) if numbers is not None else None
    return _Candidate(found, encode(found, layout, found.error(weights), coded))


def _hull(step: Step, isa: Isa) -> list[_Candidate]:
    """Candidates from the most exact on, each better for its size than a mixture of others."""
    found: list[_Candidate] = []
    for encoding in CANDIDATES:
        try:
            candidate = _candidate(step, isa, encoding)
        except MdlcError:  # beyond half precision, say; raw always is possible
            continue
        if candidate is not None:
            found.append(candidate)
    found.sort(key=lambda c: (c.loss, _padded(c)))
    hull: list[_Candidate] = []
    for candidate in found:
        if hull and _padded(candidate) >= _padded(hull[-1]):
            continue
        hull.append(candidate)
        while len(hull) > 2 and _slope(hull[-3], hull[-2]) >= _slope(hull[-2], hull[-1]):
            del hull[-2]
    return hull


def _slope(finer: _Candidate, coarser: _Candidate) -> float:
    """Loss for each byte saved."""
    return (coarser.loss - finer.loss) / (_padded(finer) - _padded(coarser))


def _slopes(hull: list[_Candidate]) -> Iterator[float]:
    for finer, coarser in pairwise(hull):
        yield _slope(finer, coarser)


def _with(plan: Plan, chosen: Mapping[str, _Candidate]) -> Plan:
    """The plan on the weights that the device will decode."""
    changed = {
        step.node: with_weights(step.node, chosen[step.name].quantised.decoded)
        for step in plan.steps
        if step.name in chosen
    }
    graph, moved = _rebuilt(plan.graph, changed)
    steps = []
    for step in plan.steps:
        node = moved[step.node]
        weights = step.weights
        if step.name in chosen:
            decoded = chosen[step.name].quantised.decoded
            weights = step.kernel.repack(step.node, decoded, step.schedule, step.seen(plan.isa))
        steps.append(replace(step, node=node, weights=weights))
    encoded = {name: candidate.weights for name, candidate in chosen.items()}
    return replace(plan, graph=graph, steps=tuple(steps), encoded=encoded)


def _rebuilt(graph: Graph, changed: Mapping[Node, Node]) -> tuple[Graph, dict[Node, Node]]:
    """The graph with other weights, and the new node for every old one."""
    done: dict[Node, Node] = {}
    for node in graph.order():
        inputs = [done[source] for source in node.inputs]
        if node in changed:
            inputs[1] = changed[node].inputs[1]
        done[node] = node if tuple(inputs) == node.inputs else replace(node, inputs=tuple(inputs))
    outputs = tuple(done[node] for node in graph.outputs)
    return graph.with_outputs(outputs), done


def worst_and_mean(plan: Plan) -> tuple[str, float, float]:
    """The layer whose weights changed most, its error, and the mean over layers; see `encode`."""
    errors = {name: weights.error for name, weights in plan.encoded.items()}
    if not errors:
        return "", 0.0, 0.0
    worst = max(errors, key=errors.__getitem__)
    return worst, errors[worst], float(np.mean(list(errors.values())))
