"""Attention in one layer: both products, the softmax between them, and how heads are cut.

Exporters write softmax(q k' * scale + mask) v as two products of tensors that reshapes, slices
and transposes have cut into heads, the scale anywhere in front of the softmax. What cuts heads is
a view of what a linear layer gave (compiler/ops/attention.py), so all of it becomes one node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.op import LayoutRule, Op
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.attention import Attention, Strided
from mdlc.compiler.ops.div import Div
from mdlc.compiler.ops.expand import Expand
from mdlc.compiler.ops.input import Input
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.softmax import Softmax
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.rewrite import Budget
from mdlc.compiler.types import Array, DType
from mdlc.passes.layout import TO_CHANNELS_FIRST, TO_CHANNELS_LAST

OnlyUser = Callable[[Node], Node | None]


def fuse_attention(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """Makes one node of every attention in float32 whose scores nothing else reads."""
    users, outputs = graph.users(), set(graph.outputs)

    def only_user(node: Node) -> Node | None:
        found = users[node]
        return found[0] if len(found) == 1 and node not in outputs else None

    found: dict[Node, _Found] = {}
    for node in graph.order():
        if budget is not None and budget.left == 0:
            break
        match = _match(node, only_user)
        if match is not None:
            found[match.root] = match
            if budget is not None:
                budget.spend()
    fresh: dict[Node, Node] = {}
    turned: dict[Node, Node] = {}

    def source(view: _View) -> Node:
        node = fresh[view.source]
        if view.channels_last and view.source not in turned:
            turned[view.source] = make(Transpose(TO_CHANNELS_LAST), node)
        return turned[view.source] if view.channels_last else node

    def visit(old: Node, new: Node) -> Node:
        if old in found:
            match = found[old]
            sources = [source(view) for view in match.views]
            name = "" if match.behind else old.name
            new = make(match.op, *sources, name=name, origin=match.origin)
            for op in match.behind:
                new = make(op, new, name=old.name if op is match.behind[-1] else "")
        fresh[old] = new
        return new

    return graph.rebuild(visit) if found else graph


@dataclass(frozen=True)
class _Found:
    """What stands for `root`: an operator on views of the old graph, and what moves its output."""

    root: Node
    op: Attention
    views: tuple[_View, ...]
    behind: tuple[Op, ...]
    origin: str


@dataclass(frozen=True)
class _View:
    """factor * a strided view of a tensor.

    `array` has its shape and strides, an element being a byte: NumPy knows which reshapes of a
    view are views. Nothing reads or writes it. `channels_last`: of the tensor with its channels
    last, which is how one of rank 4 lies in memory as a rule.
    """

    source: Node
    array: Array
    factor: float = 1.0
    channels_last: bool = False

    @property
    def strided(self) -> Strided:
        """The same as an operand has it; steps of axes of one entry are 0."""
        array, base = self.array, self.array
        while isinstance(base.base, np.ndarray):
            base = base.base
        axes = zip(array.shape, array.strides, strict=True)
        steps = tuple(0 if count == 1 else step for count, step in axes)
        return Strided(array.ctypes.data - base.ctypes.data, steps)


def _whole(node: Node, *, channels_last: bool = False) -> _View:
    if not channels_last:
        return _View(node, np.empty(node.shape, np.uint8))  # addresses: no memory is touched
    turned = np.empty([node.shape[axis] for axis in TO_CHANNELS_LAST], np.uint8)
    return _View(node, turned.transpose(TO_CHANNELS_FIRST), channels_last=True)


def _moved(array: Array, node: Node, rank: int) -> Array | None:
    """What an operator that moves elements makes of a view; None where it is none any more.

    Axes of heads that cannot be joined stay apart: a view may have more of them than its node, of
    which only the last two axes then count.

    Args:
        rank: of the operand.
    """
    op, shape = node.op, node.shape
    if array.ndim != rank:
        swapped = (*range(rank - 2), rank - 1, rank - 2)
        if isinstance(op, Transpose) and op.perm == swapped:
            return array.swapaxes(-1, -2)
    elif isinstance(op, Transpose):
        return array.transpose(op.perm)
    elif isinstance(op, Slice) and min(op.steps, default=1) > 0:
        cuts = zip(op.starts, op.lengths, op.steps, strict=True)
        return array[tuple(slice(first, first + n * step, step) for first, n, step in cuts)]
    elif isinstance(op, Expand):
        return np.broadcast_to(array, shape)
    if not isinstance(op, Reshape):
        return None
    cut = _reshaped(array, shape)
    # The product cuts heads again as its output is cut.
    return (
        array if cut is None and array.ndim > len(shape) and array.shape[-2:] == shape[-2:] else cut
    )


def _reshaped(array: Array, shape: Sequence[int]) -> Array | None:
    view = array.view()
    try:
        view.shape = tuple(shape)
    except AttributeError:  # elements would have to move
        return None
    return view


def _views(node: Node) -> list[_View]:
    """A tensor as a view of the one furthest up that it is a view of; itself, at worst."""
    chain = [node]
    while True:
        scaled = _scaled(chain[-1])
        if scaled is not None:
            chain.append(scaled[1])
        elif isinstance(chain[-1].op, Transpose | Slice | Expand | Reshape):
            chain.append(chain[-1].inputs[0])
        else:
            break
    chain.reverse()
    if not _channels_last(chain[0]):
        return [_replayed(_whole(chain[0]), chain), _whole(node)]
    turned = _replayed(_whole(chain[0], channels_last=True), chain)
    return [turned, _replayed(_whole(chain[min(1, len(chain) - 1)]), chain[1:]), _whole(node)]


def _replayed(found: _View, chain: Sequence[Node]) -> _View:
    """A view of the first of some nodes, of which each moves or scales the one before."""
    for each, source in zip(chain[1:], chain, strict=False):
        scaled = _scaled(each)
        if scaled is not None:
            found = replace(found, factor=found.factor * scaled[0])
            continue
        array = _moved(found.array, each, source.type.rank)
        found = _whole(each) if array is None else replace(found, array=array)
    node = chain[-1] if chain else found.source
    return found if found.array.shape[-2:] == node.shape[-2:] else _whole(node)


def _channels_last(node: Node) -> bool:
    """Whether a tensor may come to lie in another order than its indices."""
    return (
        node.type.rank == 4
        and not isinstance(node.op, Input)
        and node.op.layout_rule is not LayoutRule.BARRIER
    )


def _scaled(node: Node) -> tuple[float, Node] | None:
    """(factor, x) of a node that is a tensor of its shape times one number."""
    if not isinstance(node.op, Mul | Div):
        return None
    sides = [node.inputs] if isinstance(node.op, Div) else [node.inputs, node.inputs[::-1]]
    for x, other in sides:
        value = other.constant
        if value is None or x.shape != node.shape or not value.size:
            continue
        number = float(value.reshape(-1)[0])
        if (value == number).all() and math.isfinite(number) and number:
            return (1 / number if isinstance(node.op, Div) else number), x
    return None


def _match(product: Node, only_user: OnlyUser) -> _Found | None:
    """The attention whose second product a node is."""
    if not isinstance(product.op, MatMul) or product.type.dtype is not DType.F32:
        return None
    mix = _mix(product, only_user)
    if mix is None or 0 in product.shape:
        return None
    softmax, values, turned = mix
    op = softmax.op
    if not isinstance(op, Softmax) or op.log or op.axis != softmax.type.rank - 1:
        return None
    scores = _scores(softmax.inputs[0], only_user)
    if scores is None:
        return None
    root, batch, perm, behind = (_turned_output if turned else _output)(product, only_user)
    left, right = scores.product.inputs
    rows, keys = softmax.shape[-2:]
    depth, columns = left.shape[-1], product.shape[-2 if turned else -1]
    heads = scores.product.shape[:-2]

    def operand(
        node: Node, heads: Sequence[int], shape: Sequence[int], *, keys: bool = False,
        swapped: bool = False, scaled: bool = False,
    ) -> _View | None:  # fmt: skip
        """Where a product's operand lies; None where it is no view that the layer can read.

        Args:
            heads, shape: of the operand beside the product; swapped: its last axes lie in turn.
            keys: whether either of the last axes may touch; scaled: whether a factor may stay.
        """
        for view in _views(node):
            if view.factor != 1.0 and not scaled:
                continue
            array = view.array.swapaxes(-1, -2) if swapped else view.array
            if array.ndim <= len(heads) + 2:
                array = np.broadcast_to(array, (*heads, *shape))
            cut = _reshaped(array, (*batch, *shape))
            if cut is None:
                continue
            found = replace(view, array=cut)
            ends = found.strided.strides[-2 if keys else -1 :]
            counts = shape[-len(ends) :]
            if any(step == 1 or n == 1 for step, n in zip(ends, counts, strict=True)):
                return found
        return None

    views = [
        operand(left, heads, (rows, depth), scaled=True),
        operand(right, heads, (keys, depth), keys=True, swapped=True, scaled=True),
        operand(values, product.shape[:-2], (keys, columns), swapped=turned),
        *(operand(mask, inside, (rows, keys)) for mask, inside in scores.masks),
    ]
    known = [view for view in views if view is not None]
    if len(known) < len(views):
        return None
    lie = [_with_step(each, keys=i == 1) for i, each in enumerate(known)]
    scale = scores.factor * known[0].factor * known[1].factor
    made = Attention(
        tuple(batch), rows, keys, depth, columns, float(np.float32(scale)),
        lie[0], lie[1], lie[2], tuple(lie[3:]), perm,
    )  # fmt: skip
    return _Found(root, made, tuple(known), behind, product.origin)


def _mix(product: Node, only_user: OnlyUser) -> tuple[Node, Node, bool] | None:
    """(softmax, values, turned) of shares times values, or of both transposed in turn."""
    a, b = product.inputs
    for node, values, turned in ((a, b, False), (b, a, True)):
        found = node
        while isinstance(found.op, Reshape | Transpose | Softmax) and only_user(found):
            if isinstance(found.op, Softmax):
                whole = math.prod(found.shape[:-2]) == math.prod(product.shape[:-2])
                return (found, values, turned) if whole else None
            inner = found.inputs[0]
            if isinstance(found.op, Transpose):
                swap = (*range(inner.type.rank - 2), inner.type.rank - 1, inner.type.rank - 2)
                if not turned or node is not found or found.op.perm != swap:
                    break
            elif inner.shape[-2:] != found.shape[-2:]:
                break
            found = inner
        if turned and not isinstance(node.op, Transpose):
            return None
    return None


def _with_step(view: _View, *, keys: bool) -> Strided:
    """Where a view lies; the step of an innermost axis of one entry is 1."""
    strided = view.strided
    steps = list(strided.strides)
    if view.array.shape[-1] == 1:
        steps[-1] = 1
    elif keys and view.array.shape[-2] == 1 and 1 not in steps[-2:]:
        steps[-2] = 1
    return Strided(strided.offset, tuple(steps))


@dataclass(frozen=True)
class _Scores:
    """factor * product + masks, each mask with the shape of the heads where it is added."""

    product: Node
    factor: float
    masks: tuple[tuple[Node, tuple[int, ...]], ...]


def _scores(node: Node, only_user: OnlyUser) -> _Scores | None:
    """What a softmax is of, from it up to the product, all of it read by nothing else."""
    factor, masks = 1.0, []
    while not isinstance(node.op, MatMul):
        if only_user(node) is None:
            return None
        if (scaled := _scaled(node)) is not None:
            factor, node = factor * scaled[0], scaled[1]
        elif isinstance(node.op, Reshape) and node.shape[-2:] == node.inputs[0].shape[-2:]:
            node = node.inputs[0]
        elif isinstance(node.op, Add) and factor == 1.0 and (summands := _summands(node)):
            masks.append((summands[1], node.shape[:-2]))
            node = summands[0]
        else:
            return None
    return None if only_user(node) is None else _Scores(node, factor, tuple(masks))


def _summands(node: Node) -> tuple[Node, Node] | None:
    """(scores, mask) of a sum: the one that leads to a product, and the other."""
    for one, other in (node.inputs, node.inputs[::-1]):
        found = one
        while isinstance(found.op, Mul | Div | Add | Reshape) and found.inputs:
            found = next((x for x in found.inputs if x.constant is None), found.inputs[0])
        if isinstance(found.op, MatMul) and one.shape == node.shape:
            return one, other
    return None


# The node that is made instead, the axes of heads, the order of the attention's output, and what
# moves it behind that.
_Output = tuple[Node, tuple[int, ...], tuple[int, ...], tuple[Op, ...]]


def _output(product: Node, only_user: OnlyUser) -> _Output:
    """A transpose behind the product, after heads are cut again perhaps, is part of it."""
    user = only_user(product)
    node = product
    if user is not None and isinstance(user.op, Reshape) and user.shape[-2:] == product.shape[-2:]:
        node, user = user, only_user(user)
    last = node.type.rank - 1
    if user is not None and isinstance(user.op, Transpose) and user.op.perm[-1] == last:
        return user, node.shape[:-2], user.op.perm, ()
    return product, product.shape[:-2], tuple(range(product.type.rank)), ()


def _turned_output(product: Node, only_user: OnlyUser) -> _Output:
    """Of [heads, columns, rows]: a picture of channels, or the transpose of what is made."""
    rank, user = product.type.rank, only_user(product)
    order = tuple(range(rank))
    if rank == 4 and user is not None and isinstance(user.op, Reshape) and user.type.rank == 4:
        images, heads, columns, rows = product.shape
        n, channels, height, width = user.shape
        if (n, channels, height * width) == (images, heads * columns, rows):
            behind = Reshape((n, height, width, channels)), Transpose(TO_CHANNELS_FIRST)
            return user, (images, heads), (0, 2, 1, 3), behind
    swap = Transpose((*order[:-2], rank - 1, rank - 2))
    return product, product.shape[:-2], order, (swap,)
