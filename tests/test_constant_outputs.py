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
