"""ONNX Runtime on the model as it was trained: what a class is seen beside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.onnx_export import export_onnx
from mdlc.compiler.onnx_inputs import reopened
from mdlc.compiler.types import Array
from mdlc.inputs.preprocess import model_values, picture_input

if TYPE_CHECKING:
    from mdlc.api import CompiledModel


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
        # A processor that waits has nothing to wait for here.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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
    model, _ = reopened(model, {node.name: node.shape for node in compiled.imported.inputs})
    _fix_shapes(model, compiled)
    _fix_values(model, compiled.fixed)
    return model


def _fix_values(model: onnx.ModelProto, fixed: Mapping[str, float | Sequence[float]]) -> None:
    """Gives inputs the values that mdlc compiled for, as defaults."""
    for value in model.graph.input:
        if value.name in fixed:
            kind = value.type.tensor_type
            shape = [dim.dim_value or 1 for dim in kind.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            array = np.asarray(fixed[value.name], dtype)
            full = np.broadcast_to(array.reshape(-1), (int(np.prod(shape)),)).reshape(shape)
            model.graph.initializer.append(onnx.numpy_helper.from_array(full, value.name))


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
