"""The mean error of the network's last products, taken back by their biases.

What rounding moves a layer's mean output by adds up from layer to layer. Measured and corrected
in every layer at once it would be taken back many times over; in the last product, behind which
nothing is integer, it is taken back once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.types import Array
from mdlc.quantization.calibrate import Inputs, Runner, batches, probe, tell_seen
from mdlc.quantization.layers import Assignment
from mdlc.quantization.quantize import Quantized


def output_errors(
    quantized: Quantized,
    inputs: Iterable[Inputs],
    runner: Runner,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Array]:
    """What the biases of the last products are to be shifted by, by their keys.

    Args:
        inputs: those that ranges were learned from.
    """
    keys = quantized.assignment.keys
    exact = {node: keys[node] for node in last_products(quantized.assignment)}
    found = {quantized.tensors[key]: key for key in exact.values()}
    if not exact:
        return {}
    run_exact = runner(probe(quantized.assignment.graph, exact))
    run_found = runner(probe(quantized.graph, found))
    errors: dict[str, list[Array]] = {key: [] for key in exact.values()}
    for group in batches(inputs):
        for wanted, given in zip(run_exact(group), run_found(group), strict=True):
            for node, key in exact.items():
                errors[key].append(_means(node, wanted[key]) - _means(node, given[key]))
        seen = len(next(iter(errors.values())))
        tell_seen(progress, "measuring the outputs", seen, inputs)
    return {key: believed(np.stack(errors[key])) for key in found.values()}


def last_products(assignment: Assignment) -> list[Node]:
    """Integer products read in float, and by nothing that leads to integers again."""
    users = assignment.graph.users()
    before: set[Node] = set()
    for node in reversed(assignment.graph.order()):
        if any(user in assignment.integer or user in before for user in users[node]):
            before.add(node)
    return [n for n in assignment.graph.order() if n in assignment.wide and n not in before]


def believed(errors: Array) -> Array:
    """The mean of errors [N, M], shrunk by the share of it that so few measurements make.

    A mean of N has an error of its own, variance / N; what is left of the mean's power beyond
    that is its share that other inputs have too. Source: W. James, C. Stein, "Estimation with
    Quadratic Loss", 1961, in its positive form, with the variance measured.
    """
    mean: Array = errors.mean(0)
    power = float((mean**2).sum())
    if len(errors) < 2 or not power:
        return np.zeros_like(mean)
    chance = float(errors.var(0, ddof=1).sum()) / len(errors)
    return mean * max(0.0, 1.0 - chance / power)


def _means(node: Node, values: Array) -> Array:
    """Means of a product's output channels, [M]."""
    axis = 1 if isinstance(node.op, Conv2D) else values.ndim - 1
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    found: Array = rows.mean(1, dtype=np.float64)
    return found


def shifted(quantized: Quantized, errors: Mapping[str, Array]) -> Quantized:
    """The same integers, with the biases of products shifted, by their keys."""
    shifts = {quantized.tensors[key]: error for key, error in errors.items()}
    fresh_of: dict[Node, Node] = {}

    def visit(old: Node, fresh: Node) -> Node:
        if old in shifts:
            x, w, b = fresh.inputs
            assert b.constant is not None
            bias = (b.constant.astype(np.float64) + shifts[old]).astype(np.float32)
            fresh = fresh.with_inputs([x, w, constant(bias, b.name)])
        fresh_of[old] = fresh
        return fresh

    graph = quantized.graph.rebuild(visit)
    tensors = {key: fresh_of.get(node, node) for key, node in quantized.tensors.items()}
    return replace(quantized, graph=graph, tensors=tensors)
