"""The onnx package's own node tests, through the importer and the reference interpreter.

A case is either computed right or refused with a reason; the refusals are counted against the
table below, so that nothing is lost unseen.
"""

from __future__ import annotations

import re
import warnings

import numpy as np
import onnx
import onnx.backend.test.loader
import pytest

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.op import Op
from mdlc.compiler.types import Array, DType

BFLOAT16 = DType.BF16.numpy

# Why cases of operators that mdlc has are refused: a pattern of the message, and what it means.
REFUSED = (
    (r"must be a constant", "shapes, axes, pads and the like computed at run time"),
    (r"does not have", "other operators in the same case (sequences, optional values, functions)"),
    (r"element type|FLOAT|BFLOAT|INT4|STRING|is not a tensor", "types without arithmetic here"),
    (r"operator set \d+ is not supported", "newer than the importer's newest"),
    (r"rank-?\d|1-D and 2-D|rank-4|does not fit", "3-D transposed convolution, 4-D"),
    (r"Indices|training|statistics|Mean and InvStdDev|mask", "outputs for training"),
    (r"pieces .*\b0\b|reshape to .*\b0\b", "tensors without elements"),
    (r"blocked quantisation", "a scale for every block of an axis"),
    (r"antialias|below 1|no elements|empty|dimension \d+ is open", "no elements, antialias"),
)


def cases() -> list[pytest.ParameterSet]:
    """Cases all of whose operators mdlc imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = onnx.backend.test.loader.load_model_tests(kind="node")
    found = []
    for case in every:
        nodes = case.model.graph.node
        used = {node.op_type for node in nodes}
        foreign = any(node.domain not in ("", "ai.onnx") for node in nodes)
        if used and not foreign and used <= set(Op.importers):
            found.append(pytest.param(case, id=case.name))
    return found


def value(given: object) -> Array:
    """A case's value as an array; what is no tensor stays what it is."""
    if isinstance(given, onnx.TensorProto):
        return onnx.numpy_helper.to_array(given)
    return np.asarray(given) if isinstance(given, np.generic) else given  # type: ignore[return-value]


CASES = cases()


def test_there_are_cases() -> None:
    assert len(CASES) > 500


@pytest.mark.parametrize("case", CASES)
def test_node(case: onnx.backend.test.loader.TestCase) -> None:
    model = case.model
    given, wanted = case.data_sets[0]
    inputs = {p.name: value(v) for p, v in zip(model.graph.input, given, strict=False)}
    if not all(isinstance(v, np.ndarray) for v in inputs.values()):
        pytest.skip("refused: sequences and optional values")
    try:
        # Inputs that hold shapes or axes become constants, as exporters write them.
        fixed = _with_constants(model, inputs)
        shapes = {proto.name: inputs[proto.name].shape for proto in fixed.graph.input}
        graph = import_model(fixed, shapes=shapes)
        values = {node.name: inputs[node.name] for node in graph.inputs}
        actual = graph.cut(run(graph, values))
    except MdlcError as error:
        reasons = [why for pattern, why in REFUSED if re.search(pattern, str(error))]
        if not reasons:
            raise
        pytest.skip(f"refused: {reasons[0]}")
    for proto, given_output in zip(model.graph.output, wanted, strict=True):
        expected = value(given_output)
        assert actual[proto.name].shape == expected.shape
        if expected.dtype.kind == "V":  # float8, bfloat16, ..., whose NaN numpy does not know
            assert actual[proto.name].dtype == expected.dtype
            # Conversions are exact; of a chain of operators, each rounds to 8 bits.
            rounded = expected.dtype == BFLOAT16 and "cast" not in case.name
            np.testing.assert_allclose(
                actual[proto.name].astype(np.float32),
                expected.astype(np.float32),
                rtol=2.0**-6 if rounded else 0,
            )
        elif expected.dtype.kind == "f":
            np.testing.assert_allclose(
                actual[proto.name].astype(np.float64),
                expected.astype(np.float64),
                rtol=max(case.rtol, 2e-3 if expected.dtype == np.float16 else 1e-4),
                atol=max(case.atol, 1e-3 if expected.dtype == np.float16 else 1e-5),
            )
        else:
            np.testing.assert_array_equal(actual[proto.name], expected)


def _with_constants(model: onnx.ModelProto, inputs: dict[str, Array]) -> onnx.ModelProto:
    """The model with its parameters as initialisers: inputs of rank 0 and 1, all but the first; the
    first too, where it is one whole number and alone.
    """
    alone = len(model.graph.input) == 1
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for index, proto in enumerate(model.graph.input):
        array = inputs[proto.name]
        whole = array.dtype.kind == "i"
        parameter = array.ndim <= 1 and (whole or array.size <= 1)
        if (index and parameter) or (alone and whole and array.ndim == 0):
            copy.graph.initializer.append(onnx.numpy_helper.from_array(array, proto.name))
            kept = [p for p in copy.graph.input if p.name != proto.name]
            del copy.graph.input[:]
            copy.graph.input.extend(kept)
    return copy
