"""The official cases of the onnx package: models, inputs and the outputs that are expected."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from mdlc.compiler.types import Array

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "light")
# Operators behind which there is no one right value, or no tensor.
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
           "RandomUniformLike"}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One model with its data sets.

    Attributes:
        kind: one of KINDS.
        frames: for each data set, inputs and expected outputs by name.
    """

    name: str
    kind: str
    model: onnx.ModelProto
    frames: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
    rtol: float
    atol: float

    @property
    def outside(self) -> str:
        """Why no compiler of tensors is asked for it; empty where it is."""
        nodes = list(_all_nodes(self.model.graph))
        kinds = {
            str(value.type.WhichOneof("value"))
            for value in (*self.model.graph.input, *self.model.graph.output)
        }
        if kinds & {"sequence_type", "map_type"}:
            return "sequences"
        if "optional_type" in kinds:
            return "optional"
        if "sparse_tensor_type" in kinds:
            return "sparse tensors"
        if any("training" in node.domain for node in nodes) or self._trains(nodes):
            return "training"
        if any(node.op_type in _RANDOM for node in nodes):
            return "random"
        if any(node.op_type == "ImageDecoder" for node in nodes):
            return "image codecs"
        if any(node.op_type.startswith(("String", "Regex", "TfIdf")) for node in nodes):
            return "strings"
        strings = any(
            value.type.tensor_type.elem_type == onnx.TensorProto.STRING
            for value in (*self.model.graph.input, *self.model.graph.output)
        )
        return "strings" if strings else ""

    def _trains(self, nodes: Sequence[onnx.NodeProto]) -> bool:
        modes = [a.i for n in nodes for a in n.attribute if a.name == "training_mode"]
        if any(modes):
            return True
        names = {n.input[2] for n in nodes if n.op_type == "Dropout" and len(n.input) > 2}
        given = {k: v for inputs, _ in self.frames for k, v in inputs.items()}
        given |= {t.name: onnx.numpy_helper.to_array(t) for t in self.model.graph.initializer}
        return any(name in given and bool(np.all(given[name])) for name in names)


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g)


def official_cases(kinds: Sequence[str] = KINDS) -> Iterator[Case]:
    """All cases, in the package's order."""
    for kind in kinds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = load_model_tests(kind="real" if kind == "light" else kind)
        for case in found:
            model, frames = (
                (case.model, case.data_sets or ()) if kind == "node" else _from_files(case)
            )
            weights = {tensor.name for tensor in model.graph.initializer}
            inputs = [value for value in model.graph.input if value.name not in weights]
            named = [
                (_named(inputs, given), _named(model.graph.output, wanted))
                for given, wanted in frames
            ]
            yield Case(case.name, kind, model, named, case.rtol, case.atol)


def _named(values: Sequence[onnx.ValueInfoProto], given: Sequence[Any]) -> dict[str, Any]:
    return {p.name: _value(v) for p, v in zip(values, given, strict=False)}


def _value(given: Any) -> Any:
    """A case's value as an array; what is no tensor stays what it is."""
    if isinstance(given, onnx.TensorProto):
        return onnx.numpy_helper.to_array(given)
    return np.asarray(given) if isinstance(given, np.generic | float | int) else given


def _from_files(case: Any) -> tuple[onnx.ModelProto, list[tuple[list[Any], list[Any]]]]:
    """Model and data of a case that is kept in files."""
    if case.url:  # a light model: its weights are made by operators, its input is a ramp
        path = Path(onnx.__file__).parent.parent / case.url
        model = onnx.load(path)
        weights = {tensor.name for tensor in model.graph.initializer}  # listed as inputs, too
        given = [
            Runner.generate_dummy_data(x, seed=0, name=case.model_name, random=False)
            for x in model.graph.input
            if x.name not in weights
        ]
        wanted = onnx.load_tensor(path.with_name(f"{path.stem}_output_0.pb"))
        return model, [(given, [wanted])]
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    frames = []
    for data in sorted(folder.glob("test_data_set*")):
        frames.append((_values(data, "input", model.graph.input),
                       _values(data, "output", model.graph.output)))  # fmt: skip
    return model, frames


def _values(folder: Path, stem: str, protos: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    found: list[Any] = []
    for index, proto in enumerate(protos):
        path = folder / f"{stem}_{index}.pb"
        if not path.exists():
            break
        if proto.type.WhichOneof("value") == "tensor_type":
            found.append(onnx.load_tensor(path))
        else:
            found.append(path)  # no tensor: the case is outside
    return found


def difference(case: Case, name: str, actual: Array, expected: Array) -> str:
    """What is wrong with an output by the measure of the package's runner; empty: nothing."""
    if actual.shape != expected.shape:
        return f"{name}: shape {list(actual.shape)}, not {list(expected.shape)}"
    if actual.dtype != expected.dtype:
        return f"{name}: {actual.dtype}, not {expected.dtype}"
    rtol = case.rtol
    if actual.dtype.name == "bfloat16":
        rtol = max(rtol, 2**-6)
    if actual.dtype.kind not in "fiub":
        actual, expected = actual.astype(np.float32), expected.astype(np.float32)
    if actual.dtype.kind == "b":
        near = actual == expected
    else:
        near = np.isclose(actual, expected, rtol=rtol, atol=case.atol, equal_nan=True)
    if np.all(near):
        return ""
    at = int(np.flatnonzero(~np.asarray(near).reshape(-1))[0])
    got, wanted = actual.reshape(-1)[at], expected.reshape(-1)[at]
    count = int(np.size(near) - np.count_nonzero(near))
    return f"{name}: {got} instead of {wanted} at {at}, {count} of {np.size(near)} differ"
