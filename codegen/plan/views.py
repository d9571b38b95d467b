"""What lies in what: tensors that are views of memory made for another.

Reshapes, layout conversions and transposes that move no bytes are views of their input; the inputs
of a concat are views of its output; slices are views of their input. `assign_views` decides that
for any kind of memory; `Memory` says where a kind of memory allows it: a buffer of the C++ class
(`Buffers`), or a texture (codegen/metal/views.py).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mdlc.codegen.kernel import Candidate, View, row_length
from mdlc.codegen.plan.plan import ALIGNMENT
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.convert_layout import ConvertLayout
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.types import TensorType


class Memory(ABC):
    """A kind of memory that tensors lie in."""

    @abstractmethod
    def fresh(self, node: Node, *, shared: bool = False) -> View:
        """The view of a tensor in memory made for it; `shared`: and for a concat's inputs."""

    @abstractmethod
    def is_alias(self, node: Node) -> bool:
        """Whether a node without a kernel has the very memory of its first input."""

    @abstractmethod
    def alias(self, node: Node, source: View) -> View:
        """The view of such a node."""

    @abstractmethod
    def concat_offsets(self, concat: Node) -> list[int] | None:
        """Where each input begins in a concat's memory; None where inputs cannot lie in it."""

    @abstractmethod
    def fits(self, source: Node, concat: Node) -> bool:
        """Whether a concat's input may lie in it, for all that write and read it."""

    @abstractmethod
    def inside(self, node: Node, concat: Node, whole: View, offset: int) -> View:
        """The view of a concat's input, from an offset on."""

    @abstractmethod
    def slice(self, node: Node, whole: View) -> View | None:
        """The view of a Slice in its input's memory, or None where it must be computed."""


def assign_views(
    order: Sequence[Node], choice: Mapping[Node, Candidate], memory: Memory
) -> dict[Node, View]:
    """A view for every node.

    Args:
        choice: how nodes are computed; those without are inputs, constants and aliases.
    """
    concats = _inside_concats(order, choice, memory)
    views: dict[Node, View] = {}
    for node in order:
        if node in views:  # a concat whose memory was made for its first input
            continue
        if node in concats:
            concat, offset = concats[node]
            if concat not in views:
                views[concat] = memory.fresh(concat, shared=True)
            views[node] = memory.inside(node, concat, views[concat], offset)
        elif node in choice:
            sliced = isinstance(node.op, Slice) and node.inputs[0] in views
            view = memory.slice(node, views[node.inputs[0]]) if sliced else None
            views[node] = view or memory.fresh(node)
        elif memory.is_alias(node):
            views[node] = memory.alias(node, views[node.inputs[0]])
        else:
            views[node] = memory.fresh(node)
    return views


def _inside_concats(
    order: Sequence[Node], choice: Mapping[Node, Candidate], memory: Memory
) -> dict[Node, tuple[Node, int]]:
    """Nodes that write straight into a concat's memory: the concat and the offset.

    A concat is a view only if all its inputs are: each computed by a step of its own and part of
    no other concat.
    """
    inside: dict[Node, tuple[Node, int]] = {}
    for concat in order:
        sources = concat.inputs
        if not isinstance(concat.op, Concat) or concat not in choice:
            continue
        offsets = memory.concat_offsets(concat)
        if offsets is None or len(set(sources)) < len(sources):
            continue
        if all(
            source in choice
            and source not in inside
            and not isinstance(source.op, Concat | Slice)
            and memory.fits(source, concat)
            for source in sources
        ):
            for source, offset in zip(sources, offsets, strict=True):
                inside[source] = (concat, offset)
    return inside


def views_its_inputs(node: Node, views: Mapping[Node, View]) -> bool:
    """Whether a Concat or Slice shares its input's buffer, so that there is nothing to compute."""
    return (
        isinstance(node.op, Concat | Slice)
        and node.inputs[0] in views
        and views[node].buffer == views[node.inputs[0]].buffer
    )


def is_alias(node: Node) -> bool:
    """Whether the output has the very bytes of the first input, so that no code is needed."""
    if isinstance(node.op, Reshape):
        return _row_major(node.inputs[0].type) and _row_major(node.type)
    if isinstance(node.op, ConvertLayout):
        return _memory_axes(node.inputs[0].type) == _memory_axes(node.type)
    if isinstance(node.op, Transpose):
        return _memory_axes(node.inputs[0].type) == _memory_axes(node.type, node.op.perm)
    return False


def _memory_axes(tensor: TensorType, perm: Sequence[int] | None = None) -> list[int]:
    """Axes in memory order, those of length 1 left out; `perm` renames them."""
    axes = [a for a in tensor.layout.axes(tensor.rank) if tensor.shape[a] != 1]
    return axes if perm is None else [perm[a] for a in axes]


def _row_major(tensor: TensorType) -> bool:
    """Whether memory order is the logical order."""
    axes = _memory_axes(tensor)
    return axes == sorted(axes)


class Buffers(Memory):
    """Buffers of the C++ class's arena; offsets in bytes, and pitches where kernels honour them.

    Attributes:
        sizes: name and bytes of every buffer made so far.
    """

    def __init__(
        self, graph: Graph, choice: Mapping[Node, Candidate], labels: Mapping[Node, str]
    ) -> None:
        """Of a graph whose nodes are computed by the kernels of `choice`.

        Args:
            labels: what buffers are called after the nodes that are made in them.
        """
        self._labels = labels
        self._users, self._outputs, self._choice = graph.users(), set(graph.outputs), choice
        self.sizes: list[tuple[str, int]] = []

    def fresh(self, node: Node, *, shared: bool = False) -> View:
        """See Memory."""
        view = View.of(node.type, len(self.sizes))
        if node in self._choice and not shared and (pitch := self._pitch(node)):
            view = replace(view, pitch=pitch)
        nbytes = view.rows * view.pitch * node.type.dtype.size
        self.sizes.append((self._labels[node], nbytes))
        return view

    def is_alias(self, node: Node) -> bool:
        """See Memory."""
        return is_alias(node)

    def alias(self, node: Node, source: View) -> View:
        """See Memory."""
        return replace(source, type=node.type, pitch=row_length(node.type))

    def concat_offsets(self, concat: Node) -> list[int] | None:
        """Pieces one behind the other, or channels beside each other."""
        axis, shape = _concat_axis(concat), concat.type.physical_shape
        if not _contiguous(concat) and axis != len(shape) - 1:
            return None
        inner = math.prod(shape[axis + 1 :]) * concat.type.dtype.size
        lengths = [source.type.physical_shape[axis] * inner for source in concat.inputs]
        return [sum(lengths[:i]) for i in range(len(lengths))]

    def fits(self, source: Node, concat: Node) -> bool:
        """Unless pieces are contiguous, kernels that write and read them must honour a pitch."""
        if _contiguous(concat):
            return True
        readers = [user for user in self._users[source] if user is not concat]
        writes = self._choice[source].kernel.pitched_output
        return source not in self._outputs and writes and self._honoured(readers)

    def inside(self, node: Node, concat: Node, whole: View, offset: int) -> View:
        """See Memory."""
        pitch = row_length(node.type) if _contiguous(concat) else whole.pitch
        return View(whole.buffer, offset, node.type, pitch)

    def slice(self, node: Node, whole: View) -> View | None:
        """A contiguous range of the input, or a range of its channels."""
        assert isinstance(node.op, Slice)
        found = node.op.single_range(node.inputs[0].shape)
        if found is None:
            return None
        logical_axis, start = found
        source = node.inputs[0].type
        axis, shape = source.physical_axis(logical_axis), source.physical_shape
        size = source.dtype.size
        if math.prod(shape[:axis]) == 1 and whole.dense:
            offset = whole.offset + start * math.prod(shape[axis + 1 :]) * size
            return View(whole.buffer, offset, node.type, row_length(node.type))
        readable = node not in self._outputs and self._honoured(self._users[node])
        if axis != len(shape) - 1 or not readable:
            return None
        return View(whole.buffer, whole.offset + start * size, node.type, whole.pitch)

    def _honoured(self, readers: Sequence[Node]) -> bool:
        """Whether all readers honour a pitch of their input."""
        return all(
            user in self._choice
            and self._choice[user].kernel.pitched_input
            and not isinstance(user.op, Concat | Slice)
            for user in readers
        )

    def _pitch(self, node: Node) -> int:
        """The pitch of a tensor whose pixels had better lie a cache line further apart, or 0."""
        length, size = row_length(node.type), node.type.dtype.size
        writes = self._choice[node].kernel.pitched_output
        if (
            length * size % CONFLICT_BYTES
            or node.type.rank != 4
            or node in self._outputs
            or not (writes and self._honoured(self._users[node]))
        ):
            return 0
        return length + ALIGNMENT // size if math.prod(node.type.physical_shape[:-1]) > 1 else 0


# Pixels this many bytes apart, or a multiple, meet in a few sets of a first-level cache (32 KiB in
# 8 ways has 4 KiB a way, and in 4 ways 8 KiB), where a tile's pixels drive each other out.
CONFLICT_BYTES = 2048


def _concat_axis(node: Node) -> int:
    assert isinstance(node.op, Concat)
    return node.type.physical_axis(node.op.axis)


def _contiguous(concat: Node) -> bool:
    """Whether a concat's inputs lie one behind the other."""
    return math.prod(concat.type.physical_shape[: _concat_axis(concat)]) == 1
