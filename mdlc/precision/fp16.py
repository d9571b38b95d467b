"""From a float graph to one in half precision: which layers, and why the others stay in float."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mdlc.codegen.isa.base import Backend
from mdlc.codegen.kernel import candidates
from mdlc.codegen.plan.views import is_alias
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.op import Elementwise
from mdlc.inputs.preprocess import Preprocess
from mdlc.passes.fp32_to_fp16 import LARGEST, Narrowed, fp32_to_fp16
from mdlc.passes.pipeline import run_passes
from mdlc.passes.value_bounds import Peak, value_bounds
from mdlc.pipeline import FRONT
from mdlc.precision.native import CalibrationSet, native
from mdlc.quantization.calibrate import calibrate, tensor_keys

# What inputs may exceed those of the calibration set by.
HEADROOM = 2.0


def computes(node: Node, backend: Backend) -> bool:
    """Whether a target computes a node, or need not."""
    if is_alias(node):
        return True
    try:
        return bool(candidates(node, backend))
    except MdlcError:
        return False


@dataclass
class HalfPrecision:
    """The pass that narrows, and what came of it.

    Attributes:
        backend: the target.
        imported: the preprocessed network, for calibration. inputs: its calibration set, if any.
        narrowed: the layers in half precision, and those kept in float with the reason.
        grounds: by layer, why it may be taken to stay inside the range.
        room: by layer, how many times its values fit into the range.
        alike: of the network at another size, on whose inputs ranges were measured.
    """

    backend: Backend
    imported: Graph
    how: Preprocess
    source: Path | None
    tell: Callable[[str], None]
    narrowed: Narrowed | None = None
    grounds: dict[str, str] = field(default_factory=dict)
    room: dict[str, float] = field(default_factory=dict)
    alike: HalfPrecision | None = None

    def fp32_to_fp16(self, graph: Graph) -> Graph:
        """The pass.

        Raises:
            MdlcError: the calibration set is bad.
        """
        peaks, measured = value_bounds(graph), self._measured
        self.narrowed = fp32_to_fp16(
            graph,
            lambda node: computes(node, self.backend),
            lambda node: self._outside(node, peaks, measured),
        )
        return self.narrowed.graph

    def _outside(
        self, node: Node, peaks: Mapping[Node, Peak], measured: Mapping[str, float]
    ) -> str:
        """Why a node may leave the range, or ""; notes why it may be taken to stay inside."""
        grounds, largest = "proven", 1.0
        for tensor in (node, *(s for s in node.inputs if s in peaks)):
            peak = peaks.get(tensor)
            if peak is not None:
                known = measured.get(tensor.name, peak.likely / HEADROOM) * HEADROOM
                largest = max(largest, min(peak.proven, known))
            if peak is None or peak.proven <= LARGEST:
                continue
            whose = "values" if tensor is node else f"values of {tensor.name!r}"
            if tensor.name in measured:
                grounds = "measured"
                if not measured[tensor.name] * HEADROOM <= LARGEST:
                    return f"{whose} of {measured[tensor.name]:.3g} in the calibration set"
            else:
                grounds = "estimated" if grounds == "proven" else grounds
                if not peak.likely <= LARGEST:
                    return f"{whose} estimated at up to {peak.likely:.3g}"
        self.grounds[node.name], self.room[node.name] = grounds, LARGEST / largest
        return ""

    @cached_property
    def _measured(self) -> dict[str, float]:
        """The largest magnitude that led to each tensor of the calibration set, by its name.

        A layer's own sums count, which activations cut.
        """
        if self.alike is not None:
            return self.alike._measured
        if self.source is None:
            return {}
        if not self.source.exists():
            raise MdlcError(
                "there is no such file or folder", node=str(self.source), hint="check the path"
            )
        if self.source.suffix.lower() == ".json":
            raise MdlcError(
                "a calibration table has the ranges that 8 bits take, not the largest values",
                node="--calibrate",
                hint="give the pictures or an NPZ file",
            )
        graph = run_passes(self.imported, FRONT)[-1].graph
        inputs = CalibrationSet(graph, self.how, self.source)
        statistics = calibrate(graph, inputs, native, self.tell)
        found: dict[Node, float] = {}
        for node, key in tensor_keys(graph).items():
            here = statistics[key].histogram
            own = max(abs(here.low), abs(here.high))
            sources = [found.get(source, 0.0) for source in node.inputs]
            found[node] = max([own, *sources]) if isinstance(node.op, Elementwise) else own
        return {node.name: peak for node, peak in found.items() if node.name}
