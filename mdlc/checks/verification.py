"""Judging an emitted class layer by layer, against the model in double precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from mdlc.checks.changed import changed_tensors
from mdlc.checks.compare import Errors, errors, relative_error
from mdlc.checks.local import BLAS, Local, last_of_name
from mdlc.checks.reference import Reference
from mdlc.checks.rounding import UNIT_F16, UNIT_F32, unit
from mdlc.codegen.kernel import NO_LOSS, Loss
from mdlc.codegen.run.executable import Executable, Trace
from mdlc.codegen.target import target_of
from mdlc.compiler.interpreter import evaluate
from mdlc.compiler.ir import Count, Node
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array, DType
from mdlc.inputs.preprocess import model_values, picture_input, preprocess

if TYPE_CHECKING:
    from mdlc.api import CompiledModel


# Of its largest value: ONNX Runtime's distance from the exact value at which one asks which
# operator is read differently there.
SUSPICIOUS = 1e-4
# What ONNX Runtime's own rounding may be, in units of what is allowed here.
OTHERS = 4.0
# ONNX Runtime's functions (sigmoid, tanh, erf) are right to so many units of 1, not of the result.
ABSOLUTE = 8.0
# A layer beyond its bound is right all the same where it is as close as ONNX Runtime, if that is
# as close as this.
CLOSE = 1e-5


@dataclass(frozen=True)
class LayerErrors:
    """A layer of the emitted class, the worst over all inputs.

    Attributes:
        step: the layer's name in the emitted class; for an output of the network, its ONNX name.
        tensor: the ONNX tensor that it stands for.
        kind: the operator.
        errors: its distance from the exact value, computed in double precision from the model as
            imported; None where the model has no such tensor.
        runtime: the same of ONNX Runtime, as a share of the tensor's largest value.
        excess: the largest difference from the exact result of what the layer read, in parts of
            what rounding may cost there; above 1 is wrong.
        fault: what is wrong; "" if nothing is.
        note: why there is nothing to compare.
    """

    step: str
    tensor: str
    kind: str
    errors: Errors | None
    runtime: float | None
    excess: float
    fault: str = ""
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.fault

    @property
    def verdict(self) -> str:
        """What it is judged by, in a few words."""
        if self.fault:
            return f"OFF: {self.fault}"
        if self.note:
            return self.note
        if self.excess > 1:
            return "ok: as close as ONNX Runtime"
        return "ok"


@dataclass(frozen=True)
class Verification:
    """The outcome for all layers in order, then for the outputs."""

    layers: tuple[LayerErrors, ...]
    outputs: tuple[LayerErrors, ...]
    runs: int

    @property
    def first_off(self) -> LayerErrors | None:
        """The first layer (or else output) that is wrong."""
        return next((each for each in (*self.layers, *self.outputs) if not each.ok), None)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.first_off is None


def verify(
    compiled: CompiledModel,
    inputs: Iterable[Mapping[str, Array]],
    executable: Executable | None = None,
) -> Verification:
    """Runs the class at one size on all inputs and judges every layer; see `judge`.

    Args:
        executable: the class; None: it is built.

    Raises:
        MdlcError: it cannot be built or run here, or ONNX Runtime does not take the model.
    """
    return judge(compiled, runs(compiled, inputs, executable or compiled.build()))


def traces(
    executable: Executable, inputs: Iterable[Mapping[str, Array]]
) -> Iterator[tuple[Mapping[str, Array], Trace]]:
    """What every inference read, states among it, and left behind; one after the other, so that
    large networks need the memory of one, but for those with states, whose steps are one run."""
    if not executable.plan.states:
        for values in inputs:
            yield values, executable.trace_many([values])[0]
        return
    frames = list(inputs)
    for values, trace in zip(frames, executable.trace_many(frames), strict=True):
        yield {**values, **trace.before}, trace


def runs(
    compiled: CompiledModel, inputs: Iterable[Mapping[str, Array]], executable: Executable
) -> Iterator[Run]:
    """Runs the class on all inputs; with states, they are the steps of a sequence.

    Args:
        executable: the class, at the sizes of the inputs among others.
    """
    for values, trace in traces(executable, inputs):
        yield Run(values, trace.layers, {**trace.results, **trace.after})


@dataclass(frozen=True)
class Run:
    """One inference of an emitted class.

    Attributes:
        inputs: by ONNX name, with the states that it found.
        traced: outputs of the layers that exist whole, by step name.
        results: by ONNX name, with the states that it left.
    """

    inputs: Mapping[str, Array]
    traced: Mapping[str, Array]
    results: Mapping[str, Array]


def judge(compiled: CompiledModel, runs: Iterable[Run]) -> Verification:
    """Whether runs of an emitted class are right, in three comparisons in double precision.

    Each judges an operator on what it read, so that errors do not add up and nothing that is
    chaotic (a rounded value near a tie, the largest of equals) is taken for a fault:

    1. every layer of the class, on what the class gave it;
    2. every tensor that the passes left, on the model's exact tensors: they changed nothing;
    3. every operator as it was imported, on the tensors of ONNX Runtime, where that is away from
       the exact values: it is read as it is meant.

    Raises:
        MdlcError: ONNX Runtime does not take the model.
    """
    return Judge(compiled)(runs)


@dataclass(frozen=True)
class _Known:
    """What follows from inputs alone.

    Attributes:
        expected: the exact tensors of the model by name. runtime: those of ONNX Runtime.
        faults: of passes and of the import, by layer.
    """

    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]
    runtime: Mapping[str, Array]
    faults: Mapping[str, str]


class Judge:
    """`judge` for many runs of one class; what follows from inputs alone is kept to the next."""

    def __init__(self, compiled: CompiledModel) -> None:
        """Raises MdlcError where ONNX Runtime does not take the model."""
        self.compiled = compiled
        self.plan = compiled.plan
        self.model = (
            compiled.graph if self.plan.encoded else preprocess(compiled.imported, compiled.how)
        )
        self.named = last_of_name(self.model)
        own = last_of_name(compiled.graph)
        self.last = set(own.values())
        # GPU plans have nodes of their own, under the names of the graph's.
        inside = set(compiled.graph.order())
        self.steps = {
            step.node if step.node in inside else own[step.node.name]: step
            for step in self.plan.steps
            if step.node in inside or step.node.name in own
        }
        self.reference = Reference(compiled, [step.node.name for step in self.plan.steps])
        self.half = target_of(self.plan).half
        steps = () if self.half else self.plan.half_steps
        self.in_half = {step.node for step in steps}
        self._last: _Known | None = None

    def __call__(self, runs: Iterable[Run]) -> Verification:
        """See `judge`."""
        layers = _Layers(self)
        count = 0
        for run in runs:
            count += 1
            with threadpool_limits(1, BLAS):
                layers.add(run, self._known(run.inputs))
        return layers.found(count)

    def _known(self, inputs: Mapping[str, Array]) -> _Known:
        if self._last is None or self._last.inputs is not inputs:
            exact = evaluate(self.model, inputs, double=True)
            expected = {name: exact[node] for name, node in self.named.items()}
            runtime = self.reference.run(inputs)
            faults = self._passes(inputs, exact)
            suspicious = any(
                relative_error(value, expected[name]) > SUSPICIOUS
                for name, value in runtime.items()
                if name in expected and value.shape == expected[name].shape
            )
            if suspicious and not self.plan.encoded:
                faults = {**self._import(inputs), **faults}
            self._last = _Known(inputs, expected, runtime, faults)
        return self._last

    def unit(self, node: Node) -> float:
        """The unit of rounding that a node of the compiled graph computes in."""
        half = self.half or node in self.in_half or node.type.dtype is DType.F16
        return UNIT_F16 if half else UNIT_F32

    def loss(self, node: Node) -> Loss:
        """What the algorithm of a node loses besides."""
        step = self.steps.get(node)
        if step is None:
            return NO_LOSS
        return step.kernel.loss(step.node, step.schedule, step.seen(self.plan.backend))

    def _passes(self, inputs: Mapping[str, Array], exact: Mapping[Node, Array]) -> dict[str, str]:
        """Faults of passes, by layer."""
        faults: dict[str, str] = {}
        if self.model is self.compiled.graph:
            return faults
        graph = self.compiled.graph
        keys = {
            node: f"output {name}"
            for name, node in zip(graph.output_names, graph.outputs, strict=True)
        }
        keys |= {node: step.name for node, step in self.steps.items()}
        unit = self.unit
        for found in changed_tensors(
            self.model, exact, graph, inputs, lambda n: OTHERS * unit(n), keys.__contains__
        ):
            faults.setdefault(
                keys[found.node],
                f"the passes changed the tensor: relative error {found.relative:.3g}",
            )
        return faults

    def _import(self, inputs: Mapping[str, Array]) -> dict[str, str]:
        """The first fault of the import, by layer."""
        graph, how = self.compiled.imported, self.compiled.how
        values = dict(inputs)
        if how.changes:
            picture = picture_input(graph, "--input-format")
            values[picture.name] = model_values(values[picture.name], picture, how)
        nodes = last_of_name(graph)
        found = Reference(self.compiled, list(nodes)).run(inputs)
        given = {
            node: found[name]
            for name, node in nodes.items()
            if name in found
            and found[name].shape == node.shape
            and _kind(found[name]) == node.type.dtype.numpy.kind
        }
        local = Local(graph, values, given, lambda node: OTHERS * unit(node.type.dtype))
        order = [node for node in graph.order() if node in given]
        steps = {step.node.name: step.name for step in self.plan.steps}
        for node in order:
            floor = 0.0
            if isinstance(node.op, Elementwise) and node.op.arity == 1:
                floor = ABSOLUTE * unit(node.type.dtype)
            if local.judge(node, given[node], floor)[0] <= 1:
                continue
            key = steps.get(node.name, f"output {self.compiled.graph.output_names[0]}")
            what = f"{node.name!r} ({type(node.op).__name__})"
            return {key: f"ONNX Runtime computes {what} differently"}
        return {}


class _Layers:
    """What is known of all layers after some runs."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.compiled, self.plan, self.steps = judge.compiled, judge.plan, judge.steps
        self.last = judge.last
        self.worst: dict[str, Errors] = {}
        self.runtime: dict[str, float] = {}
        self.excess: dict[str, float] = {}
        self.faults: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self.kept: Mapping[str, Array] = {}

    def add(self, run: Run, known: _Known) -> None:
        """Takes one more run into account."""
        expected, runtime = known.expected, dict(known.runtime)
        for count in self.compiled.imported.counts:
            self._count(count, run, runtime)
        for name, value in runtime.items():
            if name in expected and value.shape == expected[name].shape:
                apart = relative_error(value, expected[name])
                self.runtime[name] = max(self.runtime.get(name, 0.0), apart)
        self._class(run, expected)
        self._states(run)
        for key, fault in known.faults.items():
            self.faults.setdefault(key, fault)

    def _count(self, count: Count, run: Run, runtime: dict[str, Array]) -> None:
        """Gives ONNX Runtime's result the length that the class's has, behind what counts."""
        own, other = count.cut(run.results), runtime[count.output]
        if own.shape != other.shape:
            self.faults.setdefault(
                f"output {count.output}",
                f"{list(own.shape)} count, {list(other.shape)} in ONNX Runtime",
            )
            return
        padded = run.results[count.output].copy()
        count.cut({count.output: padded, count.name: run.results[count.name]})[...] = other
        runtime[count.output] = padded

    def _class(self, run: Run, expected: Mapping[str, Array]) -> None:
        graph = self.compiled.graph
        given = {
            node: run.traced[step.name]
            for node, step in self.steps.items()
            if step.name in run.traced
        }
        local = Local(graph, run.inputs, given, self.judge.unit, self.judge.loss)
        for node, step in self.steps.items():
            if node not in given:
                self.notes[step.name] = "never whole in memory: judged through what reads it"
                continue
            found, tensor = given[node], expected.get(node.name)
            self._judged(step.name, found, local, node)
            if tensor is None or node not in self.last:
                self.notes[step.name] = "ok; the model has no such tensor"
            elif tensor.shape != found.shape or _kind(tensor) != _kind(found):
                self.notes[step.name] = (
                    f"ok; now {list(found.shape)}, in the model {list(tensor.shape)}"
                )
            else:
                _keep_worst(self.worst, step.name, errors(found, tensor))
        for name, node in zip(graph.output_names, graph.outputs, strict=True):
            key, result = f"output {name}", run.results[name]
            if node in given and _kind(given[node]) == _kind(result):
                if not np.array_equal(result, given[node], equal_nan=_kind(result) == "f"):
                    self.faults.setdefault(key, "it is not what its layer computed")
            else:
                self._judged(key, result, local, node)
            if name in expected and expected[name].shape == result.shape:
                _keep_worst(self.worst, key, errors(result, expected[name]))

    def _states(self, run: Run) -> None:
        """The first step of a sequence finds zeros, every other what the one before left."""
        for result, name in self.compiled.graph.states:
            found = run.inputs[name]
            left = self.kept.get(result, np.zeros_like(found))
            if not np.array_equal(found, left, equal_nan=_kind(found) == "f"):
                self.faults.setdefault(f"output {result}", f"the next {name!r} is another")
        self.kept = run.results

    def _judged(self, key: str, found: Array, local: Local, node: Node) -> None:
        excess, exact = local.judge(node, found)
        self.excess[key] = max(self.excess.get(key, 0.0), excess)
        if excess <= 1:
            return
        apart = errors(found, exact)
        closest = self.runtime.get(node.name)
        if closest is not None and closest <= CLOSE and apart.max_rel <= 2 * closest:
            return
        self.faults.setdefault(
            key, f"relative error {apart.max_rel:.3g} in this layer, {excess:.3g} times its bound"
        )

    def found(self, runs: int) -> Verification:
        """The outcome."""

        def layer(key: str, step: str, tensor: str, kind: str) -> LayerErrors:
            seen = key in self.excess or key in self.worst
            return LayerErrors(
                step,
                tensor,
                kind,
                self.worst.get(key),
                self.runtime.get(tensor),
                self.excess.get(key, 0.0),
                self.faults.get(key, ""),
                self.notes.get(key, "" if seen else "not looked at"),
            )

        layers = tuple(
            layer(step.name, step.name, step.node.name, type(step.node.op).__name__)
            for step in self.plan.steps
        )
        outputs = tuple(
            layer(f"output {name}", name, name, "output")
            for name in self.compiled.graph.output_names
        )
        return Verification(layers, outputs, runs)


def _kind(value: Array) -> str:
    return value.dtype.kind


def _keep_worst(worst: dict[str, Errors], name: str, found: Errors) -> None:
    before = worst.get(name)
    if before is None:
        worst[name] = found
        return
    worst[name] = Errors(
        max(before.max_abs, found.max_abs),
        max(before.max_rel, found.max_rel),
        max(before.max_ulp, found.max_ulp),
        min(before.snr_db, found.snr_db),
    )
