"""--also: tensors inside the network that are outputs as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import mdlc
from mdlc.compiler.errors import MdlcError
from mdlc.inputs.sources import read_model, with_outputs
from tests.emitted_code import block_model, image, require


def _expected(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return dict(
        zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True)
    )


@pytest.mark.parametrize("target", ["generic", "x86-avx2", "metal"])
def test_every_tensor_may_be_an_output(target: str) -> None:
    """All of them at once: nothing is fused over what is wanted."""
    require("g++")
    model = block_model()
    tensors = [output for node in model.graph.node for output in node.output]
    compiled = mdlc.compile(model, target, also=tensors)
    expected = _expected(with_outputs(read_model(model), tensors).onnx, {"image": image(3)})
    found = compiled.build()({"image": image(3)})
    assert set(found) == set(expected) == {*tensors}
    for name, value in expected.items():
        bound = (2e-2 if target == "metal" else 1e-5) * max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(found[name], value, atol=bound, rtol=0, err_msg=name)


def test_a_node_stands_for_its_first_output_and_an_output_is_one_already() -> None:
    model = block_model()
    node = model.graph.node[0]
    node.name = "the first"
    compiled = mdlc.compile(model, "generic", also=["the first", model.graph.output[0].name])
    names = [port.name for port in compiled.plan.outputs]
    assert names == [model.graph.output[0].name, node.output[0]]
    assert "--also 'the first'" in compiled.files()[f"{compiled.name}.h"].decode()


def test_external_data_is_read(tmp_path: Path) -> None:
    model = block_model()
    onnx.save_model(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data",
        size_threshold=0,
    )  # fmt: skip
    name = model.graph.node[0].output[0]
    compiled = mdlc.compile(tmp_path / "m.onnx", "generic", also=name)
    assert compiled.plan.outputs[-1].name == name


def test_what_there_is_not_is_told() -> None:
    with pytest.raises(MdlcError, match="has no tensor or node 'nothing'") as caught:
        mdlc.compile(block_model(), "generic", also="nothing")
    assert caught.value.node == "--also"
