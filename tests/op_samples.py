"""Every operator's samples as pytest parameters, and as one-node ONNX models."""

from __future__ import annotations

import onnx
import pytest

import mdlc.compiler.ops
from mdlc.compiler.op import OnnxForm, Op, Sample
from mdlc.compiler.types import Array

assert mdlc.compiler.ops  # imported for its side effect: the registry is filled
OPSET = 21


def sampled_ops() -> list[type[Op]]:
    return [cls for _, cls in sorted(Op.registry.items()) if cls.samples()]


def samples() -> list[pytest.ParameterSet]:
    found = []
    for cls in sampled_ops():
        for index, sample in enumerate(cls.samples()):
            label = sample.label or str(index)
            found.append(pytest.param(sample, id=f"{cls.__name__}-{label}"))
    return found


def onnx_model(sample: Sample, form: OnnxForm, opset: int = OPSET) -> onnx.ModelProto:
    """A model of one node named `node` with inputs x0.. and the output y."""
    name, attributes, extra = form
    inputs = [f"x{i}" for i in range(len(sample.inputs))]
    initializers = [
        onnx.numpy_helper.from_array(value, f"c{i}")
        for i, value in enumerate(extra)
        if value is not None
    ]
    names = inputs + ["" if value is None else f"c{i}" for i, value in enumerate(extra)]
    while names and not names[-1]:
        names.pop()
    node = onnx.helper.make_node(name, names, ["y"], name="node", **attributes)

    def value_info(name: str, value: Array) -> onnx.ValueInfoProto:
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        return onnx.helper.make_tensor_value_info(name, kind, value.shape)

    reference = sample.op.reference(*sample.inputs)
    variable = [i for i in range(len(inputs)) if i not in sample.constant]
    initializers += [
        onnx.numpy_helper.from_array(sample.inputs[i].copy(), inputs[i]) for i in sample.constant
    ]
    graph = onnx.helper.make_graph(
        [node],
        "sample",
        [value_info(inputs[i], sample.inputs[i]) for i in variable],
        [value_info("y", reference)],
        initializers,
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=9
    )


def feeds(sample: Sample) -> dict[str, Array]:
    return {f"x{i}": v for i, v in enumerate(sample.inputs) if i not in sample.constant}
