"""Calibration: the graph is run over a set of inputs, and what its tensors hold is counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.types import Array, DType
from mdlc.compiler.words import Counting
from mdlc.passes.lower_quantized import lower_quantized
from mdlc.quantization.statistics import Statistics

Inputs = Mapping[str, Array]
# What evaluates a graph: given the graph, a function from some inputs to as many outputs by name.
Run = Callable[[Sequence[Inputs]], Sequence[Mapping[str, Array]]]
Runner = Callable[[Graph], Run]

# Inputs evaluated at once; memory is that of all tensors for so many.
AT_ONCE = 4
NO_SET = "give a folder of pictures, or an NPZ file with the network's inputs"


def interpreted(graph: Graph) -> Run:
    """The reference interpreter as a Runner, integers being integers: right, and slow."""
    lowered = lower_quantized(graph)
    return lambda many: [run(lowered, inputs) for inputs in many]


def tensor_keys(graph: Graph) -> dict[Node, str]:
    """A name of its own for every float tensor of a graph that inputs decide.

    The ONNX name where there is one; what passes made without a name is called after its
    operator. Later ones of the same name get a number. The same graph gives the same names.
    """
    keys: dict[Node, str] = {}
    taken: set[str] = set()
    for node in graph.order():
        if node.constant is not None or node.type.dtype is not DType.F32 or not node.type.size:
            continue
        stem = node.name or type(node.op).__name__.lower()
        key = stem
        for number in itertools.count(2):
            if key not in taken:
                break
            key = f"{stem}#{number}"
        taken.add(key)
        keys[node] = key
    return keys


def probe(graph: Graph, nodes: Mapping[Node, str]) -> Graph:
    """The network with the given tensors as its outputs, under the given names."""
    return Graph(graph.inputs, tuple(nodes), tuple(nodes.values()), graph.name)


def batches(inputs: Iterable[Inputs], size: int = AT_ONCE) -> Iterable[list[Inputs]]:
    """The inputs in groups of `size`, the last perhaps smaller."""
    source = iter(inputs)
    while group := list(itertools.islice(source, size)):
        yield group


def tell_seen(
    progress: Callable[[str], None] | None, stage: str, seen: int, inputs: Iterable[Inputs]
) -> None:
    """Says how many of a set of inputs are done, where anyone listens."""
    if progress is not None:
        known = isinstance(inputs, Sized)
        counts = Counting(stage, seen, len(inputs)) if known else f"{stage}: {seen} inputs seen"  # type: ignore[arg-type]
        progress(counts)


def calibrate(
    graph: Graph,
    inputs: Iterable[Inputs],
    runner: Runner = interpreted,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Statistics]:
    """Statistics of every float tensor over a set of inputs, by the keys of `tensor_keys`.

    Inputs are taken a few at a time, and nothing of them is kept but counts.

    Args:
        inputs: values of the graph's inputs by name.
        runner: what evaluates a graph.
        progress: called with a few words as inputs are done.

    Raises:
        MdlcError: the set is empty, holds zeros only, or holds or leads to NaN or infinity.
    """
    keys = tensor_keys(graph)
    given = {node: key for node, key in keys.items() if node in graph.inputs}
    inner = {node: key for node, key in keys.items() if node not in given}
    statistics = {key: Statistics() for key in keys.values()}
    run_many = runner(probe(graph, inner))
    seen, zeros = 0, True
    for group in batches(inputs):
        for frame in group:
            seen += 1
            zeros &= _checked(frame, seen)
        for frame, found in zip(group, run_many(group), strict=True):
            for node, key in given.items():
                statistics[key].add(frame[node.name], key)
            for key in inner.values():
                statistics[key].add(found[key], key)
        tell_seen(progress, "calibrating", seen, inputs)
    if not seen:
        raise MdlcError("the calibration set is empty", node="--calibrate", hint=NO_SET)
    if zeros:
        raise MdlcError(
            "the calibration set contains only zeros",
            node="--calibrate",
            hint="ranges must come from values such as the network will see",
        )
    return statistics


def _checked(frame: Inputs, number: int) -> bool:
    """Whether an input is zero throughout; raises MdlcError where it holds NaN or infinity."""
    for name, value in frame.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise MdlcError(
                f"input {name!r} of number {number} of the calibration set holds NaN or infinity",
                node="--calibrate",
                hint="leave it out",
            )
    return not any(value.any() for value in frame.values())
