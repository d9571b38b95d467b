"""From a float graph to one in 8 bits: calibration, rounding, the budget of accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mdlc.codegen.isa.base import Backend
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph
from mdlc.compiler.types import Array
from mdlc.inputs.preprocess import Preprocess
from mdlc.precision.calibration_set import InputSet, labelled, top_classes_of
from mdlc.precision.native import CalibrationSet, native
from mdlc.precision.placement import cheapest
from mdlc.precision.quantize import Quantize
from mdlc.quantization.budget import Choice, keep_fewest
from mdlc.quantization.calibrate import batches, calibrate, tensor_keys
from mdlc.quantization.equalise import equalise
from mdlc.quantization.layers import assign, is_product
from mdlc.quantization.moments import Moments, layer_moments
from mdlc.quantization.output_bias import output_errors, shifted
from mdlc.quantization.placement import Placement
from mdlc.quantization.quantize import Quantized, Rounding, quantize
from mdlc.quantization.report import INPUTS, LayerReport, layer_reports, own_noise
from mdlc.quantization.rounding import corrected
from mdlc.quantization.table import CalibrationTable, load_table, make_table

Progress = Callable[[str], None]
# Inferences in one call of a built program, when accuracy is counted.
COUNTED_AT_ONCE = 32


@dataclass
class LowPrecision:
    """The pass that quantises, and what came of it.

    Attributes:
        options: what was asked.
        inputs: the calibration set; None where a table was given.
        table: ranges. quantized: the graph with pairs, and what became of its tensors.
        choice: what --accuracy-drop kept in float; None where it was not asked.
        placement: what the target computes faster in float; None where that was not asked.
        alike: of the network at another size, whose ranges, layers in float and integer weights
            are taken over.
    """

    options: Quantize
    how: Preprocess
    backend: Backend
    tell: Progress
    inputs: InputSet | None = None
    table: CalibrationTable | None = None
    quantized: Quantized | None = None
    choice: Choice | None = None
    placement: Placement | None = None
    alike: LowPrecision | None = None
    _moments: Mapping[str, Moments] = field(default_factory=dict)
    _peaks: Mapping[str, Array] | None = None
    _kept: tuple[str, ...] = ()
    _biases: Mapping[str, Array] = field(default_factory=dict)

    def quantize(self, graph: Graph) -> Graph:
        """The pass: the graph with its tensors in 8 bits.

        Raises:
            MdlcError: the calibration set or table is bad, the budget cannot be kept, or nothing
                can be computed in 8 bits.
        """
        options, path = self.options, self.options.path
        if self.alike is not None:
            return self._as_at_other_size(graph, self.alike)
        if options.equalise:
            graph = self._equalised(graph)
        if options.from_table:
            assert path is not None
            self.table = load_table(path)
        else:
            self.inputs = self._input_set(graph)
            statistics = calibrate(graph, self.inputs, native, self.tell)
            self.table = make_table(statistics, options.calibration)
            if options.rounding != "nearest":
                whole = assign(graph, self.table, options.keep_float)
                self._moments = layer_moments(graph, whole, self.inputs, native, progress=self.tell)
        kept = list(options.keep_float)
        if options.placement == "cost":
            kept += self._faster_in_float(graph)
        if options.accuracy_drop is not None:
            self.choice = self._inside_budget(graph, options.accuracy_drop, kept)
            kept += self.choice.kept
        self._kept = tuple(kept)
        self.quantized = self._quantized(graph, kept)
        if not self.quantized.tensors:
            raise MdlcError(
                "no layer of this network can be computed in 8 bits",
                node="--quantize",
                hint="convolutions and dense layers with constant weights can",
            )
        if self._moments:
            assert self.inputs is not None
            self._biases = output_errors(self.quantized, self.inputs, native, self.tell)
            self.quantized = shifted(self.quantized, self._biases)
        return self.quantized.graph

    def _as_at_other_size(self, graph: Graph, other: LowPrecision) -> Graph:
        """The graph with the ranges and integer weights that it has at another size."""
        self.inputs, self.table, self._kept = other.inputs, other.table, other._kept
        self.choice, self.placement, self._moments = other.choice, other.placement, other._moments
        if self.options.equalise:
            graph = self._balanced(graph, other._peaks)
        self.quantized = shifted(self._quantized(graph, self._kept), other._biases)
        return self.quantized.graph

    def _input_set(self, graph: Graph) -> InputSet:
        path = self.options.path
        if path is not None and not path.exists():
            raise MdlcError(
                "there is no such file or folder", node=str(path), hint="check the path"
            )
        return CalibrationSet(graph, self.how, self.options.source)

    def _equalised(self, graph: Graph) -> Graph:
        """Weights with a scale a channel leave the values to be balanced, one that they share
        the weights."""
        if not (self.options.per_tensor or self.options.from_table):
            statistics = calibrate(graph, self._input_set(graph), native, self.tell)
            self._peaks = {
                key: found
                for key in tensor_keys(graph).values()
                if (found := statistics[key].peaks) is not None
            }
        return self._balanced(graph, self._peaks)

    def _balanced(self, graph: Graph, peaks: Mapping[str, Array] | None) -> Graph:
        if peaks is None:
            return equalise(graph)
        keys = tensor_keys(graph).items()
        return equalise(graph, {node: peaks[key] for node, key in keys if key in peaks})

    def _quantized(self, graph: Graph, keep_float: Sequence[str]) -> Quantized:
        assert self.table is not None
        adaptive = self.options.rounding == "adaptive"
        rounding: Rounding | None = (
            corrected(self._moments, adaptive=adaptive) if self._moments else None
        )
        return quantize(
            assign(graph, self.table, keep_float),
            per_tensor=self.options.per_tensor,
            rounding=rounding,
        )

    def _faster_in_float(self, graph: Graph) -> tuple[str, ...]:
        """Layers by what they cost on the target.

        Raises:
            MdlcError: all of them are faster in float.
        """
        assert self.table is not None
        self.tell(f"placing layers for {self.backend.name}")
        whole = assign(graph, self.table, self.options.keep_float)
        self.placement = found = cheapest(whole, self.backend)
        products = [node for node in whole.integer if is_product(node)]
        left = assign(graph, self.table, [*self.options.keep_float, *found.in_float])
        if products and not any(node in left.integer for node in products):
            raise MdlcError(
                f"every layer is estimated to be faster in float on {self.backend.name}",
                node="--quantize",
                hint="choose a target with dot products of bytes, or --placement everywhere for "
                "small weights",
            )
        return found.in_float

    def _inside_budget(self, graph: Graph, allowed: float, asked: list[str]) -> Choice:
        assert self.inputs is not None
        if self.options.labels is not None:
            counted = labelled(self.inputs, Path(self.options.labels))
            frames: Sequence[Mapping[str, Array]] = [frame for frame, _ in counted]
            right = [label for _, label in counted]
            exact = answers(graph, frames)
        else:
            frames = list(self.inputs)
            right = exact = answers(graph, frames)
        before = share(exact, right)

        def measure(kept: Sequence[str]) -> float:
            found = answers(self._quantized(graph, [*asked, *kept]).graph, frames)
            return 100 * (before - share(found, right))

        whole = self._quantized(graph, asked)
        noise = own_noise(whole, frames[:2])
        ranking = sorted(noise, key=lambda name: (noise[name], name))
        return keep_fewest(ranking, measure, allowed, self.tell)

    def reports(self) -> list[LayerReport]:
        """Figures of all layers, the worst first.

        Raises:
            MdlcError: there is no calibration set to measure on, but a table.
        """
        assert self.quantized is not None
        assert self.table is not None
        if self.inputs is None:
            raise MdlcError(
                "a report needs inputs to measure on",
                node="--quantization-report",
                hint="give --calibrate the pictures instead of a table",
            )
        taken = []
        for frame in self.inputs:
            taken.append(frame)
            if len(taken) == INPUTS:
                break
        return layer_reports(self.quantized, self.table, taken, native, self.tell)


def answers(graph: Graph, frames: Iterable[Mapping[str, Array]]) -> list[int]:
    """The network's class for every input, from the emitted class on this machine."""
    run = native(graph)
    found: list[int] = []
    for group in batches(frames, COUNTED_AT_ONCE):
        found += top_classes_of(run(group))
    return found


def share(found: Sequence[int], right: Sequence[int]) -> float:
    """The share of answers that are right."""
    return sum(a == b for a, b in zip(found, right, strict=True)) / max(len(right), 1)
