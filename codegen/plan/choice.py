"""Which kernel computes a node, and by which schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mdlc.codegen.isa.base import Backend
from mdlc.codegen.kernel import Candidate, Schedule, Step, candidates, seen_by
from mdlc.codegen.plan.schedule_table import Tuned
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.types import Array

# A packing of its own, for one of several sizes of a network, must save a cycle of every inference
# for so many bytes that it adds to the weights, which are read from storage and kept in memory; and
# a share of the layer's cycles, which estimates are no nearer to.
BYTES_A_CYCLE = 8
WORTH_PACKING = 0.03


def choose(
    node: Node,
    backend: Backend,
    wanted: Schedule | None,
    tuned: Tuned,
    *,
    room: float = math.inf,
    alike: Step | None = None,
) -> Candidate:
    """The candidate with the schedule that is wanted, or the one that costs least.

    Args:
        room: how much larger than inputs and sums values inside may become; see Kernel.growth.
        alike: the layer at another size, whose packed weights had better be shared.

    Raises:
        MdlcError: no kernel computes the node, or none has the schedule.
    """
    found = candidates(node, backend)
    if wanted is None and math.isfinite(room):
        seen = seen_by(node, backend)
        found = [c for c in found if c.kernel.growth(node, c.schedule, seen) <= max(room, 1)]
    best = pick(node, found, wanted, tuned)
    if alike is None or wanted is not None:
        return best
    own = best.kernel.pack(node, best.schedule, seen_by(node, backend))
    nbytes = sum(array.nbytes for array in own.values())
    spare = max(nbytes / BYTES_A_CYCLE, WORTH_PACKING * best.cycles)
    within = [each for each in found if each.cycles <= best.cycles + spare]
    return sharing(node, within, alike, backend) or best


def sharing(
    node: Node,
    found: Sequence[Candidate],
    alike: Step,
    backend: Backend,
) -> Candidate | None:
    """The first candidate that packs the node's constants as another layer has them."""
    seen = seen_by(node, backend)
    for each in found:
        if each.kernel.layer == alike.kernel.layer and same_arrays(
            each.kernel.pack(node, each.schedule, seen), alike.weights
        ):
            return each
    return None


def same_arrays(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    """Whether packed weights are equal: fields in order, types and values."""
    return list(one) == list(other) and all(
        array.dtype == other[name].dtype and np.array_equal(array, other[name])
        for name, array in one.items()
    )


def pick(
    node: Node,
    found: Sequence[Candidate],
    wanted: Schedule | None,
    tuned: Tuned,
) -> Candidate:
    """The same among candidates, cheapest first.

    Raises:
        MdlcError: none has the schedule.
    """
    if wanted is None:
        return tuned.choose(node, found)
    for candidate in found:
        if candidate.schedule == wanted:
            return candidate
    raise MdlcError(f"no kernel has the schedule {wanted}", node=f"node {node.name!r}")
