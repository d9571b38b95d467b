"""How one packing of a layer's weights becomes another: the same values in another order.

A class for several instruction sets has a layer's weights in its file once; what another variant
reads is copied from there by `Init`. Which element goes where is not described by the kernels: it
is found by packing random weights both ways and looking for each value of the one in the other.
What is found is kept only if it makes exactly the packed weights of the network.

The order is told as loops, most often one nest for the full panels and one for the last. Where
panels of one width lie across those of another, the weights go through the model's order.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, replace

import numpy as np

from mdlc.codegen.isa.base import Backend
from mdlc.codegen.kernel import Step
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.types import Array

# Loops of a nest, and nests of an array: more is no regular packing.
MAX_LOOPS = 6
_MAX_NESTS = 48
# Constants with fewer elements are not weights whose order matters.
_FEW = 256
# Packings with random weights by which an element is known: about 50 random bits.
_DRAWS = {1: 7, 2: 7, 4: 2, 8: 2}


@dataclass(frozen=True)
class Loop:
    """One loop of a nest: how often, and how far it goes each time, in bytes."""

    count: int
    target: int
    source: int


@dataclass(frozen=True)
class Nest:
    """Loops around a copy of `unit` bytes, the outermost first; places in bytes."""

    target: int
    source: int
    unit: int
    loops: tuple[Loop, ...]

    def reversed(self) -> Nest:
        """The copy back."""
        loops = tuple(Loop(each.count, each.source, each.target) for each in self.loops)
        return Nest(self.source, self.target, self.unit, loops)


@dataclass(frozen=True)
class Repacking:
    """How one packed array becomes another; what is copied nowhere is zero.

    Attributes:
        unpack: copies into memory of `between` bytes in the model's order, from which `pack` then
            copies; none where it copies from the packed array itself.
    """

    pack: tuple[Nest, ...]
    unpack: tuple[Nest, ...] = ()
    between: int = 0

    def applied(self, kept: Array, made: int) -> bytes:
        """The `made` bytes that the copies make of a packed array."""
        source = kept.reshape(-1).view(np.uint8)
        if self.unpack:
            source = _copied(self.unpack, source, self.between)
        return _copied(self.pack, source, made).tobytes()


@dataclass(frozen=True)
class Packed:
    """One packed array of a step: what is repacked, or what it is repacked from."""

    step: Step
    backend: Backend
    field: str

    @property
    def array(self) -> Array:
        """The array itself."""
        return self.step.weights[self.field]

    @property
    def key(self) -> object:
        """What the order of its weights depends on."""
        step = self.step
        inputs = [(str(source.type), source.constant is None) for source in step.node.inputs]
        return str(
            (type(step.kernel), step.node.op, inputs, step.schedule, self.backend.name, self.field)
        )


Known = MutableMapping[object, Repacking | None]


def repacking(source: Packed, target: Packed, known: Known) -> Repacking | None:
    """The copies that make one packed array of another.

    None where it is not the same values in a regular order: other arithmetic (Winograd's against
    plain weights), another type, or zeros that are left out.

    Args:
        known: what was found for other layers; equal ones are not looked at again.
    """
    kept, made = source.array, target.array
    if kept.dtype != made.dtype or made.size < _FEW:
        return None
    key = source.key, target.key
    if key not in known:
        known[key] = _found(source, target)
    found = known[key]
    if found is None or found.applied(kept, made.nbytes) != made.tobytes():
        return None
    return found


def _found(source: Packed, target: Packed) -> Repacking | None:
    size = source.array.itemsize
    try:
        had, wanted = _keys(source), _keys(target)
        direct = _copies(had, wanted, size)
        if direct is not None:
            return Repacking(direct)
        weights = [_weights(packed.step.node) for packed in (source, target)]
        if weights[0] != weights[1] or len(weights[0]) != 1:
            return None
        between = _keys_of(
            (_random_weights(source.step.node, draw)[weights[0][0][0]] for draw in _draws(size)),
            source.array.dtype,
        )
    except MdlcError:  # random weights may be more than sums of 32 bits hold
        return None
    unpack, pack = _copies(between, had, size), _copies(between, wanted, size)
    if unpack is None or pack is None:
        return None
    return Repacking(pack, tuple(nest.reversed() for nest in unpack), len(between) * size)


def _copies(had: Array, wanted: Array, size: int) -> tuple[Nest, ...] | None:
    """The copies by which elements with these keys become those, or None."""
    places = np.flatnonzero(wanted)
    if not len(places):
        return None
    order = np.argsort(had, kind="stable")
    looked = np.argsort(wanted[places], kind="stable")  # ascending keys are found faster
    at = np.searchsorted(had[order], wanted[places[looked]])
    found = np.empty(len(places), np.int64)
    found[looked] = order[np.minimum(at, len(order) - 1)]
    if not np.array_equal(had[found], wanted[places]):
        return None
    return nests_of(places, found, size)


def _copied(nests: tuple[Nest, ...], source: Array, nbytes: int) -> Array:
    """Bytes after the copies."""
    made = np.zeros(nbytes, np.uint8)
    for nest in nests:
        to = np.full(1, nest.target)
        come = np.full(1, nest.source)
        for loop in (*nest.loops, Loop(nest.unit, 1, 1)):
            steps = np.arange(loop.count)
            to = (to[:, None] + steps * loop.target).reshape(-1)
            come = (come[:, None] + steps * loop.source).reshape(-1)
        made[to] = source[come]
    return made


def _weights(node: Node) -> list[tuple[int, tuple[int, ...]]]:
    """Numbers of the inputs that are weights, and their shapes."""
    return [
        (number, each.shape)
        for number, each in enumerate(source.constant for source in node.inputs)
        if each is not None and each.ndim > 1 and each.size >= _FEW
    ]


def _draws(size: int) -> range:
    return range(_DRAWS[size])


def _keys(packed: Packed) -> Array:
    """A number for every element of a packed array, the same wherever a weight stands; 0 for what
    is none."""
    step, backend = packed.step, packed.backend

    def packings() -> Iterator[Array]:
        for draw in _draws(packed.array.itemsize):
            weights = _random_weights(step.node, draw)
            inputs = [
                constant(weights[number], source.name) if number in weights else source
                for number, source in enumerate(step.node.inputs)
            ]
            node = replace(step.node, inputs=tuple(inputs))
            yield step.kernel.pack(node, step.schedule, step.seen(backend))[packed.field]

    return _keys_of(packings(), packed.array.dtype)


def _keys_of(packings: Iterator[Array], dtype: np.dtype) -> Array:
    keys, weight = np.zeros(1, np.uint64), np.zeros(1, np.bool_)
    for draw, packing in enumerate(packings):
        values = np.ascontiguousarray(packing, dtype).reshape(-1)
        weight = weight | (values != 0)
        bits = values.view(f"u{values.itemsize}").astype(np.uint64)
        keys = (keys ^ (bits + np.uint64(draw + 1))) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return np.where(weight, keys | np.uint64(1), np.uint64(0))


def _random_weights(node: Node, draw: int) -> dict[int, Array]:
    """Other weights in the places of a node's: of the same types, and none of them zero."""
    random = np.random.default_rng(draw)
    found = {}
    for number, shape in _weights(node):
        dtype = node.inputs[number].constant.dtype  # type: ignore[union-attr]
        if dtype.kind == "f":
            found[number] = random.standard_normal(shape).astype(dtype)
            continue
        values = random.integers(1, min(np.iinfo(dtype).max, 127), shape, endpoint=True)
        sign = random.choice([-1, 1], shape) if dtype.kind == "i" else 1
        found[number] = (values * sign).astype(dtype)
    return found


def nests_of(places: Array, found: Array, size: int) -> tuple[Nest, ...] | None:
    """Element found[i] goes to places[i], told as loops; None where there are too many."""
    nests: list[Nest] = []
    first = 0
    while first < len(places):
        if len(nests) == _MAX_NESTS:
            return None
        loops = list(_loops(places[first:], found[first:]))
        target, source = int(places[first]), int(found[first])
        first += int(np.prod([loop.count for loop in loops], dtype=np.int64))
        unit = 1
        if loops and loops[-1].target == loops[-1].source == 1:  # neighbours that stay neighbours
            unit = loops.pop().count
        scaled = tuple(Loop(each.count, each.target * size, each.source * size) for each in loops)
        nests.append(Nest(target * size, source * size, unit * size, scaled))
    return tuple(nests)


def _loops(places: Array, found: Array) -> Iterator[Loop]:
    """The loops, outermost first, of as many elements from the first on as one nest can have."""
    inner: list[Loop] = []
    while len(places) > 1 and len(inner) < MAX_LOOPS:
        target, source = int(places[1] - places[0]), int(found[1] - found[0])
        even = (np.diff(places) == target) & (np.diff(found) == source)
        stops = np.flatnonzero(~even)
        count = int(stops[0]) + 1 if len(stops) else len(places)
        inner.append(Loop(count, target, source))
        blocks = len(places) // count
        inside = np.append(even, False)[: blocks * count].reshape(blocks, count)[:, :-1].all(1)
        broken = np.flatnonzero(~inside)
        blocks = int(broken[0]) if len(broken) else blocks
        places, found = (each[: blocks * count : count] for each in (places, found))
    return reversed(inner)
