"""Which tensors of a float graph become 8-bit integers, and what the integers stand for."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.op import Elementwise
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.clip import Clip
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.softmax import Softmax
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.types import Array, DType
from mdlc.passes.quant_params import QuantParams, single
from mdlc.quantization.calibrate import tensor_keys
from mdlc.quantization.table import CalibrationTable

PRODUCTS = (Conv2D, Dense)
# Inputs of a concat share one scale where none of them is left with fewer than 1 in this many
# of its steps.
COARSEST = 8.0


@dataclass(frozen=True)
class Assignment:
    """What is computed in integers.

    Attributes:
        graph: the float graph.
        keys: names of its float tensors.
        integer: nodes computed in integers; the others stay in float.
        inner: those of them whose output is no tensor of its own: a bound or a table of the
            operator behind them takes it in.
        params: for every tensor that has 8 bits, what they stand for.
        wide: products that are read in float only: their output is that of their accumulators,
            and never has 8 bits.
    """

    graph: Graph
    keys: Mapping[Node, str]
    integer: frozenset[Node]
    inner: frozenset[Node]
    params: Mapping[Node, QuantParams] = field(default_factory=dict)
    wide: frozenset[Node] = frozenset()

    def layer_names(self) -> dict[str, Node]:
        """Integer layers by the name of the tensor that they end in."""
        return {self.keys[node]: node for node in self.graph.order() if self._is_layer(node)}

    def _is_layer(self, node: Node) -> bool:
        return node in self.integer and node not in self.inner and not _moves(node)


def assign(graph: Graph, table: CalibrationTable, keep_float: Collection[str] = ()) -> Assignment:
    """Decides what is computed in integers, and in which scales.

    Products (convolutions, dense layers) always are; sums, means, softmax, functions and movements
    where their inputs are integers anyway.

    Args:
        graph: the float graph, nothing fused.
        keep_float: layers that stay in float, by the tensor that they or their activation make.

    Raises:
        MdlcError: there is no such layer, or the table lacks a tensor.
    """
    keys = tensor_keys(graph)
    users = graph.users()
    kept = _kept(graph, keys, users, keep_float)
    integer = _integer_nodes(graph, users, kept)
    inner = frozenset(node for node in integer if _absorbed(node, users, integer, graph))
    wide = frozenset(
        n for n in integer if is_product(n) and not _read_in_integers(n, users, integer)
    )
    found = Assignment(graph, keys, frozenset(integer), inner, wide=wide)
    return replace(found, params=_params(found, users, table))


def _moves(node: Node) -> bool:
    """Whether a node is right on integers as they are: it moves elements, or the like."""
    types = [source.type for source in node.inputs]
    return bool(types) and node.op.same_scale(types)


def _joins(node: Node) -> bool:
    """Whether a movement takes elements of several tensors, which then share a scale."""
    return len(node.op.moves([source.type for source in node.inputs])) > 1


def is_product(node: Node) -> bool:
    """Whether a node multiplies its input by constant weights, with nothing fused."""
    return (
        isinstance(node.op, PRODUCTS)
        and node.type.dtype is DType.F32
        and all(source.constant is not None for source in node.inputs[1:])
        and node.op.activation is None
        and not getattr(node.op, "residual", False)
    )


def _is_mean(node: Node) -> bool:
    if isinstance(node.op, Reduce):
        return node.op.kind == "mean" and node.op.axes == (2, 3) and node.inputs[0].type.rank == 4
    return isinstance(node.op, AveragePool2D)


def _is_sum(node: Node) -> bool:
    a_b = node.inputs
    return isinstance(node.op, Add) and all(
        s.constant is None and s.shape == node.shape for s in a_b
    )


def _is_softmax(node: Node) -> bool:
    return isinstance(node.op, Softmax) and not node.op.log


def _is_function(node: Node) -> bool:
    """Element-wise, of one tensor and numbers."""
    tensors = {source for source in node.inputs if source.constant is None}
    return (
        isinstance(node.op, Elementwise)
        and len(tensors) == 1
        and all(s.constant is None or single(s) is not None for s in node.inputs)
        and next(iter(tensors)).shape == node.shape
        and next(iter(tensors)).type.dtype is DType.F32
    )


def is_bytes(node: Node) -> bool:
    """The float form of 8-bit inputs."""
    return isinstance(node.op, Cast) and node.inputs[0].type.dtype in (DType.I8, DType.U8)


def _core(node: Node, users: Mapping[Node, list[Node]]) -> bool:
    """Whether a bound behind a node can be its own."""
    return len(users[node]) == 1 and (is_product(node) or _is_sum(node) or _is_mean(node))


def _bounds(node: Node, users: Mapping[Node, list[Node]]) -> bool:
    """Whether a node is a Relu or Clip that the operator before it takes in."""
    return isinstance(node.op, Relu | Clip) and _core(node.inputs[0], users)


def _integer_nodes(
    graph: Graph, users: Mapping[Node, list[Node]], kept: Collection[Node]
) -> set[Node]:
    integer: set[Node] = set()

    def ready(node: Node) -> bool:
        return all(
            source in integer or is_bytes(source)
            for source in node.inputs
            if source.constant is None
        )

    order = graph.order()
    for node in order:
        if node.type.dtype is not DType.F32 or node in kept or node.constant is not None:
            continue
        follows = any(
            is_kind(node) for is_kind in (_is_sum, _is_mean, _is_softmax, _moves, _is_function)
        )
        if is_product(node) or (follows and node.inputs and ready(node)):
            integer.add(node)
    # What comes last keeps its precision: a sigmoid, a mean of scores, the reshape before them.
    for node in reversed(order):
        last = _is_function(node) or _is_mean(node) or _is_softmax(node)
        last = last or isinstance(node.op, Reshape | Transpose)
        if node in integer and last and not _read_in_integers(node, users, integer):
            integer.discard(node)
    return integer


def _read_in_integers(
    node: Node, users: Mapping[Node, list[Node]], integer: Collection[Node]
) -> bool:
    return any(user in integer for user in users[node])


def _absorbed(
    node: Node, users: Mapping[Node, list[Node]], integer: Collection[Node], graph: Graph
) -> bool:
    if node in graph.outputs or len(users[node]) != 1:
        return False
    (user,) = users[node]
    if user not in integer:
        return False
    if _bounds(user, users):
        return True
    return _is_function(node) and _is_function(user) and not _bounds(node, users)


def _kept(
    graph: Graph,
    keys: Mapping[Node, str],
    users: Mapping[Node, list[Node]],
    names: Collection[str],
) -> set[Node]:
    """The nodes of the layers named, activations with what stands before them."""
    by_name = {key: node for node, key in keys.items() if node not in graph.inputs}
    found: set[Node] = set()
    for name in names:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, 1)
            raise MdlcError(
                f"there is no layer {name!r}",
                node="--keep-float",
                hint=f"did you mean {near[0]!r}?" if near else "the report lists them",
            )
        node = by_name[name]
        found.add(node)
        if _bounds(node, users):
            found.add(node.inputs[0])
        found.update(user for user in users[node] if _bounds(user, users))
    return found


def _params(
    found: Assignment, users: Mapping[Node, list[Node]], table: CalibrationTable
) -> dict[Node, QuantParams]:
    """Scales and zero points of all tensors that have 8 bits."""
    params: dict[Node, QuantParams] = {}
    tensors = _quantized_tensors(found)
    same = _Classes()
    ranges = {node: _range(node, found.keys, table) for node in tensors if not is_bytes(node)}
    for node in tensors:
        if is_bytes(node):
            params[node] = QuantParams(1.0, 0, node.inputs[0].type.dtype)
        elif node in found.integer and (given := _given(node, found, params)) is not None:
            params[node] = given
        elif node in found.integer and _moves(node):
            for source in node.inputs:
                if source not in params and _near(source, node, ranges):
                    same.join(source, node)
    for group in same.groups(node for node in tensors if node not in params):
        # Movements add nothing to the range of what they move.
        makers = [n for n in group if n not in found.integer or not _moves(n)] or group
        low = min(ranges[node][0] for node in makers)
        high = max(ranges[node][1] for node in makers)
        params.update(dict.fromkeys(group, params_of_range(low, high)))
    return params


def _quantized_tensors(found: Assignment) -> list[Node]:
    """In order: outputs of integer layers, and what they read of floats."""
    read = {
        source
        for node in found.integer
        for source in node.inputs
        if source.constant is None and source.type.dtype is DType.F32
    }
    return [
        node
        for node in found.graph.order()
        if (node in found.integer or node in read)
        and node not in found.inner
        and node not in found.wide
    ]


def _given(node: Node, found: Assignment, params: Mapping[Node, QuantParams]) -> QuantParams | None:
    """What the integers of a movement or of a shift of 8-bit inputs stand for already.

    (u - 128) / 128 of a byte u is the same byte with the zero point 128 and the scale 1 / 128.
    """
    chain = [node]
    while (source := _only_tensor(chain[-1])) and source in found.inner and _is_function(chain[-1]):
        chain.append(source)
    if source is None or source not in params or params[source].dtype is not DType.U8:
        return None
    x = params[source]
    if _moves(node) and not _joins(node):
        return x
    if not all(_is_function(each) for each in chain):
        return None
    steps = np.arange(256, dtype=np.float32)
    value: Array = ((steps - np.float32(x.zero_point)) * np.float32(x.scale)).astype(np.float32)
    for each in reversed(chain):
        operands = [value if (number := single(s)) is None else number for s in each.inputs]
        with np.errstate(all="ignore"):
            value = np.asarray(each.op.reference(*operands))
    y = value.astype(np.float64)
    scale = (y[-1] - y[0]) / 255
    if not (np.isfinite(y).all() and scale > 0):
        return None
    zero = -y[0] / scale
    if not -0.01 <= zero <= 255.01 or abs(zero - np.rint(zero)) > 0.01:
        return None
    straight = np.abs(y - scale * (steps - np.rint(zero))).max() <= 0.02 * scale
    return QuantParams(float(np.float32(scale)), round(zero), DType.U8) if straight else None


def _only_tensor(node: Node) -> Node | None:
    """The one input of a node that is no constant."""
    sources = {source for source in node.inputs if source.constant is None}
    return next(iter(sources)) if len(sources) == 1 else None


def _near(source: Node, node: Node, ranges: Mapping[Node, tuple[float, float]]) -> bool:
    """Whether an input of a movement loses little in the scale of its output."""
    if not _joins(node):
        return True
    (low, high), (bottom, top) = ranges[source], ranges[node]
    return (top - bottom) <= COARSEST * (high - low)


def _range(node: Node, keys: Mapping[Node, str], table: CalibrationTable) -> tuple[float, float]:
    key = keys[node]
    if key not in table.tensors:
        raise MdlcError(
            f"the calibration table has no tensor {key!r}",
            node="--calibrate",
            hint="it belongs to another model, or was made with other options: calibrate again",
        )
    return table.tensors[key].low, table.tensors[key].high


def params_of_range(low: float, high: float) -> QuantParams:
    """The scale and zero point of i8 that represent a range and 0 exactly."""
    scale = float(np.float32((high - low) / 255))
    if not scale > 0:
        scale = float(np.float32(1 / 255))
    return QuantParams(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)), DType.I8)


class _Classes:
    """Tensors that share a scale."""

    def __init__(self) -> None:
        self._parent: dict[Node, Node] = {}

    def _root(self, node: Node) -> Node:
        while (parent := self._parent.get(node, node)) is not node:
            node = parent
        return node

    def join(self, a: Node, b: Node) -> None:
        self._parent[self._root(a)] = self._root(b)

    def groups(self, nodes: Iterable[Node]) -> list[list[Node]]:
        found: dict[Node, list[Node]] = {}
        for node in nodes:
            found.setdefault(self._root(node), []).append(node)
        return list(found.values())
