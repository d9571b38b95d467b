"""Which texture every tensor lies in, from which slice on, and whether it is one of floats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mdlc.codegen.kernel import View
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.bounds import may_overflow
from mdlc.codegen.metal.image import LANES, Image
from mdlc.codegen.plan.views import Memory
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.types import DType


class Textures(Memory):
    """Textures; offsets and pitches in slices, so that views begin and end on slices.

    Attributes:
        made: name and whole view of every texture made so far.
    """

    def __init__(self, aliases: set[Node], wide: set[Node], labels: Mapping[Node, str]) -> None:
        """
        Args:
            aliases: nodes that share their input's texture; wide: those in textures of floats.
            labels: what textures are called after the nodes that are made in them.
        """
        self._aliases, self._wide, self._labels = aliases, wide, labels
        self.made: list[tuple[str, View]] = []

    def fresh(self, node: Node, *, shared: bool = False) -> View:
        """See Memory."""
        slices = Image.of(node.type).slices
        view = View(len(self.made), 0, node.type, slices, node in self._wide)
        self.made.append((self._labels[node], view))
        return view

    def is_alias(self, node: Node) -> bool:
        """See Memory."""
        return node in self._aliases

    def alias(self, node: Node, source: View) -> View:
        """See Memory."""
        return replace(source, type=node.type)

    def concat_offsets(self, concat: Node) -> list[int] | None:
        """Channels beside each other, all but the last of which end on a slice."""
        assert isinstance(concat.op, Concat)
        axis, sources = concat.op.axis, concat.inputs
        along = concat.type.physical_axis(axis) == concat.type.rank - 1
        if not along or any(source.shape[axis] % LANES for source in sources[:-1]):
            return None
        slices = [-(-source.shape[axis] // LANES) for source in sources]
        return [sum(slices[:i]) for i in range(len(slices))]

    def fits(self, source: Node, concat: Node) -> bool:
        """Kernels read and write any slices."""
        return True

    def inside(self, node: Node, concat: Node, whole: View, offset: int) -> View:
        """See Memory."""
        return replace(whole, offset=offset, type=node.type)

    def slice(self, node: Node, whole: View) -> View | None:
        """A range of channels that begins and ends on slices."""
        assert isinstance(node.op, Slice)
        found = node.op.single_range(node.inputs[0].shape)
        if found is None:
            return None
        axis, start = found
        source = node.inputs[0].type
        end = start + node.shape[axis]
        on_slices = start % LANES == 0 and (end % LANES == 0 or end == source.shape[axis])
        if source.physical_axis(axis) != source.rank - 1 or not on_slices:
            return None
        return replace(whole, offset=whole.offset + start // LANES, type=node.type)


def stored_in_float(order: Sequence[Node], metal: Metal) -> set[Node]:
    """Nodes that are stored in float: all that are no integers, or those that half cannot hold."""
    found: set[Node] = set()
    for node in order:
        kept = node.op.keeps_magnitude([source.type for source in node.inputs])
        carried = kept and not found.isdisjoint(node.inputs)
        every = metal.in_float and node.type.dtype in (DType.F32, DType.F16)
        if every or carried or may_overflow(node):
            found.add(node)
    return found
