"""DequantizeLinear, operator, QuantizeLinear: the three become one operator on integers.

The pairs of QuantizeLinear and DequantizeLinear say which tensors have 8 bits and what they
stand for; where an operator stands between them, it is computed in integers. What has no such
form stays: the integers are widened, the operator computes in float, the result is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.fixed_point import limits
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.op import Elementwise
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.clip import Clip
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.dequantize_linear import DequantizeLinear
from mdlc.compiler.ops.lookup import Lookup
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.ops.quantize_linear import QuantizeLinear
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.rewrite import Budget, Event
from mdlc.compiler.types import Array, DType
from mdlc.passes.integer_forms import accumulated, lower_core
from mdlc.passes.quant_params import (
    Declined,
    Quantized,
    QuantParams,
    bounds,
    converted,
    params_from,
    params_of,
    single,
    widened,
)

# A function of one tensor is tabulated if it has at most this many operators.
LARGEST_FUNCTION = 8


def lower_quantized(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """Integer operators wherever an operator stands between 8-bit tensors.

    Weights that are still read in float afterwards are widened now.
    """
    graph = _weights_in_place(graph)
    lowering = _Lowering(graph, budget or Budget())
    return _widen_constants(graph.rebuild(lowering.visit))


def _weights_in_place(graph: Graph) -> Graph:
    """Weights as products want them: rearranged now, and biases beside them.

    Exporters transpose a matrix behind its DequantizeLinear, and add the bias of a MatMul.
    """
    users = graph.users()

    def visit(old: Node, fresh: Node) -> Node:
        if isinstance(fresh.op, Transpose | Reshape):
            return _rearranged(fresh)
        if isinstance(fresh.op, Add):
            for product, bias in (fresh.inputs, fresh.inputs[::-1]):
                alone = any(
                    len(users[source]) == 1 and isinstance(source.op, MatMul)
                    for source in old.inputs
                )
                if alone and (dense := _with_bias(product, bias, fresh)) is not None:
                    return dense
        return fresh

    return graph.rebuild(visit)


def _rearranged(node: Node) -> Node:
    """A Transpose or Reshape of widened constants, as widened constants."""
    source, op = node.inputs[0], node.op
    if not isinstance(source.op, DequantizeLinear) or source.inputs[0].constant is None:
        return node
    if source.op.block:  # neither axis nor order may change
        return node
    axis, values = source.op.axis, source.inputs[0].constant
    if source.inputs[1].shape != ():
        if isinstance(op, Transpose):
            axis = op.perm.index(axis)
        elif axis or node.shape[:1] != values.shape[:1]:
            return node
    moved = constant(op.reference(values), source.inputs[0].name)
    return make(DequantizeLinear(axis), moved, *source.inputs[1:], name=node.name)


def _with_bias(product: Node, bias: Node, whole: Node) -> Node | None:
    """MatMul and Add as Dense, where both have constants."""
    if not isinstance(product.op, MatMul) or product.shape != whole.shape:
        return None
    x, w = product.inputs
    b = widened(bias)
    if b is None or w.type.rank != 2 or not isinstance(w.op, DequantizeLinear):
        return None
    if b.shape[:-1] not in ((), (1,)) or b.size not in (1, whole.shape[-1]) or widened(w) is None:
        return None
    turned = _rearranged(make(Transpose((1, 0)), w))
    spread = np.broadcast_to(b.reshape(-1), (whole.shape[-1],)).astype(np.float32)
    return make(
        Dense(), x, turned, constant(spread, bias.name), name=whole.name, origin=product.origin
    )


def _widen_constants(graph: Graph) -> Graph:
    def visit(old: Node, fresh: Node) -> Node:
        value = widened(fresh) if isinstance(fresh.op, DequantizeLinear) else None
        return fresh if value is None else constant(value, fresh.name)

    return graph.rebuild(visit)


def _origin(node: Node) -> str:
    """The origin of a float layer, that of its product where bounds follow it."""
    while isinstance(node.op, Relu | Clip):
        node = node.inputs[0]
    return node.origin


class _Lowering:
    def __init__(self, graph: Graph, budget: Budget) -> None:
        self._readers = graph.users()
        self._users = {node: len(users) for node, users in self._readers.items()}
        for node in graph.outputs:
            self._users[node] += 1
        self._budget = budget
        self._seen: set[Node] = set()

    def visit(self, old: Node, fresh: Node) -> Node:
        """An integer operator in place of a QuantizeLinear, where there is one."""
        if isinstance(fresh.op, QuantizeLinear) and self._budget.left != 0:
            wanted = params_from(*fresh.inputs)
            if wanted is not None and fresh.inputs[0].type.dtype is DType.F32:
                try:
                    result = self._lowered(old.inputs[0], fresh.inputs[0], wanted)
                except (Declined, MdlcError) as error:
                    self._budget.note(Event("lower_quantized", old.name, False, str(error)))
                else:
                    self._budget.spend()
                    self._budget.note(Event("lower_quantized", old.name, True))
                    if result in self._seen:  # the same integers under another name
                        return result
                    fresh = replace(
                        result,
                        name=old.name or result.name,
                        origin=result.origin or _origin(fresh.inputs[0]),
                    )
        if isinstance(fresh.op, Conv2D | Dense | MatMul) and self._budget.left != 0:
            fresh = self._in_32_bits(old, fresh)
        self._seen.add(fresh)
        return fresh

    def _in_32_bits(self, old: Node, fresh: Node) -> Node:
        """A product of integers whose value is read in float: its accumulators, widened."""
        if any(self._is_rounded(user) for user in self._readers[old]):
            return fresh
        try:
            result = accumulated(fresh)
        except (Declined, MdlcError):
            return fresh
        self._budget.spend()
        return replace(result, name=fresh.name, origin=result.origin or fresh.origin)

    def _is_rounded(self, node: Node) -> bool:
        """Whether a reader of a product makes 8-bit integers of it, perhaps with bounds."""
        if isinstance(node.op, Relu | Clip):
            return any(isinstance(user.op, QuantizeLinear) for user in self._readers[node])
        return isinstance(node.op, QuantizeLinear)

    def _lowered(self, old: Node, fresh: Node, y: QuantParams) -> Node:
        """The integers of `fresh`, a float tensor that only a QuantizeLinear may read."""
        x = params_of(fresh)
        if x is not None:
            return converted(Quantized(fresh.inputs[0], x), y)
        low, high = limits(y.dtype)
        if isinstance(fresh.op, Relu | Clip) and self._alone(old):
            core = fresh.inputs[0]
            if params_of(core) is None and self._alone(old.inputs[0]):
                bottom, top = bounds(fresh, y)
                try:
                    return lower_core(core, y, max(low, bottom), min(high, top))
                except Declined as error:
                    if not isinstance(core.op, Elementwise):
                        raise
                    reason = error
        if self._alone(old):
            try:
                return lower_core(fresh, y, low, high)
            except Declined as error:
                if not isinstance(fresh.op, Elementwise):
                    raise
                reason = error
            try:
                return self._tabulated(old, fresh, y)
            except Declined as error:
                raise Declined(f"{reason}; {error}") from None
        raise Declined("others read the value in float")

    def _alone(self, old: Node) -> bool:
        return self._users[old] == 1

    def _tabulated(self, old: Node, fresh: Node, y: QuantParams) -> Node:
        """A table, where element-wise operators compute a function of one 8-bit tensor."""
        inside: dict[Node, int] = {old: 0}
        new_of = {old: fresh}
        leaves: set[Node] = set()
        pending = [old]
        while pending:
            node = pending.pop()
            for before, after in zip(node.inputs, new_of[node].inputs, strict=True):
                if after.constant is not None:
                    if single(after) is None:
                        raise Declined("an operand is a tensor of constants")
                elif params_of(after) is not None:
                    leaves.add(after)
                elif isinstance(after.op, Elementwise) and after.type.dtype is DType.F32:
                    if before not in inside:
                        inside[before] = 0
                        new_of[before] = after
                        pending.append(before)
                    inside[before] += 1
                else:
                    raise Declined(f"an operand comes from {type(after.op).__name__}")
        if len(leaves) != 1 or len(inside) > LARGEST_FUNCTION:
            raise Declined("it is not a short function of one 8-bit tensor")
        if any(count != self._users[node] for node, count in inside.items() if node is not old):
            raise Declined("others read a value on the way")
        (leaf,) = leaves
        if leaf.shape != fresh.shape:
            raise Declined("its operand is broadcast")
        x = params_of(leaf)
        assert x is not None
        table = y_table(fresh, leaf, x, y)
        first, _ = limits(x.dtype)
        same = x.dtype is y.dtype and np.array_equal(table, np.arange(256) + first)
        source = leaf.inputs[0]
        return source if same else make(Lookup(), source, constant(table))


def y_table(root: Node, leaf: Node, x: QuantParams, y: QuantParams) -> Array:
    """The 256 values of a function of one tensor, from the nodes that compute it in float."""
    first, last = limits(x.dtype)
    every = np.arange(first, last + 1).astype(x.dtype.numpy)
    values: dict[Node, Array] = {
        leaf: DequantizeLinear().reference(every, *(c.constant for c in x.constants()))  # type: ignore[arg-type]
    }

    def value(node: Node) -> Array:
        number = single(node)
        if number is not None:
            return number
        if node not in values:
            with np.errstate(all="ignore"):
                found = node.op.reference(*(value(source) for source in node.inputs))
            values[node] = np.asarray(found)
        return values[node]

    scale, zero = (c.constant for c in y.constants())
    return QuantizeLinear().reference(value(root), scale, zero)  # type: ignore[arg-type]


def reasons(budget: Budget) -> Mapping[str, str]:
    """Why tensors stayed in float, by name, from a traced budget."""
    return {event.node: event.reason for event in budget.events if not event.fired}
