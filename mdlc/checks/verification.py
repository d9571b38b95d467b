"""Comparing an emitted class with ONNX Runtime, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime

from mdlc.checks.compare import Errors, errors
from mdlc.codegen.target import target_of
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.onnx_export import export_onnx
from mdlc.compiler.types import Array
from mdlc.inputs.preprocess import model_values, picture_input

if TYPE_CHECKING:
    from mdlc.api import CompiledModel


@dataclass(frozen=True)
class LayerErrors:
    """A layer against ONNX Runtime, the worst over all inputs.

    Attributes:
        step: the layer's name in the emitted class; for an output of the network, its ONNX name.
        tensor: the ONNX tensor that it was compared with.
        kind: the operator.
        errors: None where ONNX Runtime has no such tensor.
        note: why there is nothing to compare.
    """

    step: str
    tensor: str
    kind: str
    errors: Errors | None
    note: str = ""


@dataclass(frozen=True)
class Verification:
    """The outcome for all layers in order, then for the outputs."""

    layers: tuple[LayerErrors, ...]
    outputs: tuple[LayerErrors, ...]
    runs: int

    @property
    def first_off(self) -> LayerErrors | None:
        """The first layer (or else output) outside its bound."""
        every = (*self.layers, *self.outputs)
        return next((layer for layer in every if layer.errors and not layer.errors.ok), None)

    @property
    def ok(self) -> bool:
        """Whether everything is within its bound."""
        return self.first_off is None


class Reference:
    """ONNX Runtime on the model as trained, with the tensors of all layers as outputs.

    Where weights are encoded, it is the compiled graph with the weights that the device decodes:
    what encoding costs in accuracy is another question (`mdlc compress`).
    """

    def __init__(self, compiled: CompiledModel, tensors: Iterable[str]) -> None:
        """Args:
        tensors: names; those that the model does not have are left out.

        Raises:
            MdlcError: ONNX Runtime does not take the model.
        """
        self._compiled = compiled
        self._own = bool(compiled.plan.encoded)
        model = export_onnx(compiled.graph) if self._own else _as_trained(compiled)
        outputs = [output.name for output in model.graph.output]
        made = {name for node in model.graph.node for name in node.output if name}
        inner = [name for name in dict.fromkeys(tensors) if name in made and name not in outputs]
        for name in inner:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
        self.tensors = (*outputs, *inner)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # Every operator by itself, so that each of its tensors is what the model says.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise _refused(compiled, error) from error

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors for inputs of the preprocessed network."""
        how = self._compiled.how
        values = dict(inputs)
        if how.changes and not self._own:
            picture = picture_input(self._compiled.imported, "--input-format")
            values[picture.name] = model_values(values[picture.name], picture, how)
        try:
            found = self._session.run(list(self.tensors), values)
        except Exception as error:
            raise _refused(self._compiled, error) from error
        return dict(zip(self.tensors, map(np.asarray, found), strict=True))


def _as_trained(compiled: CompiledModel) -> onnx.ModelProto:
    path = compiled.model.path
    model = onnx.ModelProto()
    model.CopyFrom(onnx.load(path) if path else compiled.model.onnx)
    _fix_shapes(model, compiled)
    return model


def _fix_shapes(model: onnx.ModelProto, compiled: CompiledModel) -> None:
    """Writes the shapes that mdlc compiled for over the open dimensions of the inputs."""
    shapes = {node.name: node.shape for node in compiled.imported.inputs}
    for value in model.graph.input:
        if value.name in shapes:
            value.type.tensor_type.shape.Clear()
            for length in shapes[value.name]:
                value.type.tensor_type.shape.dim.add(dim_value=length)


def _refused(compiled: CompiledModel, error: Exception) -> MdlcError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return MdlcError(
        f"ONNX Runtime does not run the model: {lines[0]}", node=compiled.model.file_name
    )


def verify(compiled: CompiledModel, inputs: Iterable[Mapping[str, Array]]) -> Verification:
    """Builds the class, runs it on all inputs and compares every layer.

    Raises:
        MdlcError: it cannot be built or run here, or ONNX Runtime does not take the model.
    """
    steps = compiled.plan.steps
    reference = Reference(compiled, [step.node.name for step in steps])
    worst: dict[str, Errors] = {}
    notes: dict[str, str] = {}
    runs = 0
    executable = compiled.build()
    half = target_of(compiled.plan).half or bool(compiled.plan.half_steps)
    for values in inputs:
        runs += 1
        expected = reference.run(values)
        traced = executable.trace(values)
        results = executable(values)
        for step in steps:
            tensor = expected.get(step.node.name)
            if step.name in compiled.plan.hidden:
                notes[step.name] = "computed in bands with the next layer, never whole in memory"
            elif tensor is None:
                notes[step.name] = "made by mdlc; the model has no such tensor"
            elif tensor.shape != traced[step.name].shape:
                notes[step.name] = (
                    f"now {list(traced[step.name].shape)}, in the model {list(tensor.shape)}"
                )
            else:
                _keep_worst(worst, step.name, errors(traced[step.name], tensor, half=half))
        for name in compiled.graph.output_names:
            found = errors(results[name], expected[name], half=half)
            _keep_worst(worst, f"output {name}", found)
    layers = tuple(
        LayerErrors(
            step.name,
            step.node.name,
            type(step.node.op).__name__,
            worst.get(step.name),
            notes.get(step.name, ""),
        )
        for step in steps
    )
    outputs = tuple(
        LayerErrors(name, name, "output", worst.get(f"output {name}"))
        for name in compiled.graph.output_names
    )
    return Verification(layers, outputs, runs)


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
        found.bound,
    )


def top_classes(values: Array, labels: Sequence[str] | None, count: int = 5) -> list[str]:
    """Lines "score  label" of the largest values of an output that looks like classes."""
    flat = values.reshape(-1).astype(np.float64)
    best = np.argsort(-flat, kind="stable")[:count]
    return [
        f"{flat[i]:10.4f}  {labels[i] if labels and i < len(labels) else f'class {i}'}"
        for i in best
    ]
