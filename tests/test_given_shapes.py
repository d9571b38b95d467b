"""--shape: other sizes than a model fixes, and dimensions whose name is none."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.onnx_import import import_model


def _model(dims: list[int | str], *, flat: bool = False) -> onnx.ModelProto:
    """A fully convolutional network, or one that ends in a matrix for one size."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
             helper.make_node("MaxPool", ["c"], ["p" if flat else "y"], kernel_shape=[2, 2],
                              strides=[2, 2])]  # fmt: skip
    inner: list[int | str] = [1, 4, *dims[2:]]
    result: list[int | str] = [1, 4, *(d // 2 if isinstance(d, int) else d for d in dims[2:])]
    if flat:
        weights["m"] = rng.normal(size=(4 * 8 * 8, 5)).astype(np.float32)
        nodes += [helper.make_node("Flatten", ["p"], ["f"]),
                  helper.make_node("MatMul", ["f", "m"], ["y"])]  # fmt: skip
        result = [1, 5]
    graph = helper.make_graph(
        nodes,
        "sizes",
        [helper.make_tensor_value_info("x", 1, dims)],
        [helper.make_tensor_value_info("y", 1, result)],
        [onnx.numpy_helper.from_array(v, k) for k, v in weights.items()],
        value_info=[helper.make_tensor_value_info("c", 1, inner)],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@given(st.integers(1, 2), st.integers(2, 40), st.integers(2, 40), st.sampled_from([16, "?", "H"]))
def test_sizes_that_the_model_does_not_have(
    images: int, height: int, width: int, fixed: int | str
) -> None:
    columns: int | str = "W" if fixed == "H" else fixed
    model = _model([1, 3, fixed, columns])
    shape = (images, 3, height, width)
    graph = import_model(model, shapes={"x": shape})
    x = {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    # The same network, whose dimensions are open from the start.
    session = onnxruntime.InferenceSession(
        _model(["a", 3, "b", "c"]).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, x)
    np.testing.assert_allclose(run(graph, x)["y"], expected, 1e-4, 1e-5)


@pytest.mark.parametrize("name", ["?", "None", "-1", "", "*", "-"])
def test_names_that_are_none(name: str) -> None:
    graph = import_model(_model([name, 3, name, name]), shapes={"x": (1, 3, 8, 10)})
    assert graph.outputs[0].shape == (1, 4, 4, 5)


def test_dimensions_of_one_name_have_one_size() -> None:
    with pytest.raises(MdlcError, match="--shape gives 10 for 'size', which is 8 elsewhere"):
        import_model(_model([1, 3, "size", "size"]), shapes={"x": (1, 3, 8, 10)})


def test_a_network_for_one_size_only() -> None:
    model = _model([1, 3, 16, 16], flat=True)
    assert import_model(model, shapes={"x": (1, 3, 16, 16)}).outputs[0].shape == (1, 5)
    with pytest.raises(MdlcError) as caught:
        import_model(model, shapes={"x": (1, 3, 20, 16)})
    assert "--shape gives 20 for dimension 2 of input 'x', which the model fixes at 16" in str(
        caught.value
    )
    with pytest.raises(MdlcError, match="for dimension 1 of input 'x'"):
        import_model(model, shapes={"x": (1, 4, 16, 16)})
