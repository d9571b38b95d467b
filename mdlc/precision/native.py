"""Evaluating graphs fast: compiled for this machine and run, as many inputs as there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.run.toolchain import find_toolchain
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph
from mdlc.compiler.types import Array
from mdlc.passes.pipeline import run_passes
from mdlc.pipeline import AFTER_QUANTIZATION
from mdlc.precision.calibration_set import InputSet
from mdlc.quantization.calibrate import Run, interpreted


def native(graph: Graph) -> Run:
    """A quantization.calibrate.Runner: the emitted class on the best target that runs here.

    Without a C++ compiler the reference interpreter does it, some hundred times slower.

    Args:
        graph: as it is before or after quantisation, nothing fused, no layouts assigned.
    """
    isa = find_isa("host")
    try:
        toolchain = find_toolchain(isa)
    except MdlcError:
        return interpreted(graph)
    ready = run_passes(graph, AFTER_QUANTIZATION)[-1].graph
    ready = replace(ready, states=())  # inputs and outputs as others
    executable = Executable(lower(ready, isa, "Probe"), toolchain=toolchain)

    def run(many: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        return executable.run_many(many)

    return run


class CalibrationSet(InputSet):
    """Inputs with the states that a float network has by then: steps of one sequence."""

    def __iter__(self) -> Iterator[Mapping[str, Array]]:
        """The inputs and states; see InputSet."""
        if not self.graph.states:
            yield from super().__iter__()
            return
        run = native(self.graph)
        kept = {
            source.name: np.zeros(source.shape, source.type.dtype.numpy)
            for _, source in self.graph.state_pairs
        }
        for frame in super().__iter__():
            yield {**frame, **kept}
            (found,) = run([{**frame, **kept}])
            kept = {name: found[result] for result, name in self.graph.states}
