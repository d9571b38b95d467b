"""Constants as outputs of a network, and as output and operand at once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import mdlc
from tests.targets import require


@pytest.mark.parametrize("target", ["generic", "x86-avx2", "metal+fp32"])
@pytest.mark.parametrize("shape", [(1, 4, 8, 6), (1, 4, 1, 1)])
@pytest.mark.parametrize("operand", [False, True])
def test_a_constant_is_an_output(target: str, shape: tuple[int, ...], operand: bool) -> None:
    if not target.startswith("metal"):  # a simulator runs those everywhere
        require(target)
    generator = np.random.default_rng(1)
    x = generator.standard_normal((1, 4, 8, 6)).astype(np.float32)
    c = generator.standard_normal(shape).astype(np.float32)
    inner = ("Mul", ["x", "c"]) if operand else ("Relu", ["x"])
    floats = onnx.TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(*inner, ["y"])],
            "g",
            [helper.make_tensor_value_info("x", floats, x.shape)],
            [helper.make_tensor_value_info(name, floats, None) for name in ("y", "c")],
            [numpy_helper.from_array(c, "c")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )
    found = mdlc.compile(model, target, name="Net").build()({"x": x})
    np.testing.assert_allclose(found["y"], x * c if operand else np.maximum(x, 0), rtol=1e-6)
    np.testing.assert_array_equal(found["c"], c)


def _sliced(outputs: tuple[str, ...]) -> onnx.ModelProto:
    """y is x[:, 4:4], z is relu(x)."""
    floats = onnx.TensorProto.FLOAT
    four = numpy_helper.from_array(np.array([4]), "four")
    one = numpy_helper.from_array(np.array([1]), "one")
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Slice", ["x", "four", "four", "one"], ["y"]),
                helper.make_node("Relu", ["x"], ["z"]),
            ],
            "g",
            [helper.make_tensor_value_info("x", floats, (2, 4, 5))],
            [helper.make_tensor_value_info(name, floats, None) for name in outputs],
            [four, one],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )


@pytest.mark.parametrize("outputs", [("y",), ("z", "y")])
@pytest.mark.parametrize("target", ["generic", "arm-neon"])
def test_an_output_without_elements(target: str, outputs: tuple[str, ...]) -> None:
    require(target)
    x = np.random.default_rng(2).standard_normal((2, 4, 5)).astype(np.float32)
    found = mdlc.compile(_sliced(outputs), target, name="Net").build()({"x": x})
    assert found["y"].shape == (2, 0, 5)
    np.testing.assert_array_equal(found.get("z", np.maximum(x, 0)), np.maximum(x, 0))


def test_metal_has_no_textures_without_elements() -> None:
    with pytest.raises(mdlc.MdlcError, match=r"output 'y': Metal has no texture"):
        mdlc.compile(_sliced(("y", "z")), "metal")
