"""Which kernel computes a node, and by which schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mdlc.codegen.isa.base import Backend
from mdlc.codegen.kernel import Candidate, Schedule, candidates, seen_by
from mdlc.codegen.plan.schedule_table import Tuned
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node


def choose(
    node: Node,
    backend: Backend,
    wanted: Schedule | None,
    tuned: Tuned,
    *,
    decodable: bool = False,
    room: float = math.inf,
) -> Candidate:
    """The candidate with the schedule that is wanted, or the one that costs least.

    Args:
        decodable: only kernels whose weights can be decoded where they are packed.
        room: how much larger than inputs and sums values inside may become; see Kernel.growth.

    Raises:
        MdlcError: no kernel computes the node, or none has the schedule.
    """
    found = candidates(node, backend)
    if wanted is None and math.isfinite(room):
        seen = seen_by(node, backend)
        found = [c for c in found if c.kernel.growth(node, c.schedule, seen) <= max(room, 1)]
    return pick(node, found, wanted, tuned, decodable=decodable)


def pick(
    node: Node,
    found: Sequence[Candidate],
    wanted: Schedule | None,
    tuned: Tuned,
    *,
    decodable: bool = False,
) -> Candidate:
    """The same among candidates, cheapest first.

    Raises:
        MdlcError: none has the schedule.
    """
    if wanted is None:
        best = tuned.choose(node, found)
        if decodable and not best.kernel.decodable(node, best.schedule):
            return next(c for c in found if c.kernel.decodable(node, c.schedule))
        return best
    for candidate in found:
        if candidate.schedule == wanted:
            return candidate
    raise MdlcError(f"no kernel has the schedule {wanted}", node=f"node {node.name!r}")
