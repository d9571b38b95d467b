"""Normalisation in front of the network, against NumPy, Pillow and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.types import DType
from mdlc.inputs.pictures import load_inputs, load_npz, load_picture, random_inputs
from mdlc.inputs.preprocess import (
    Preprocess,
    model_values,
    parse_numbers,
    picture_input,
    preprocess,
)

MEAN, STD = (123.0, 117.0, 104.0), (58.0, 57.0, 59.0)


def passthrough(shape: tuple[int, ...], elem_type: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """A network that hands its input through, so that its output shows what came in."""
    dims = list(shape)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "passthrough",
        [helper.make_tensor_value_info("x", elem_type, dims)],
        [helper.make_tensor_value_info("y", elem_type, dims)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def graph_of(shape: tuple[int, ...], elem_type: int = TensorProto.FLOAT) -> Graph:
    return import_model(passthrough(shape, elem_type))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("input_format", "order", "picks"),
    [
        ("rgb8", "rgb", (0, 1, 2)),
        ("rgb8", "bgr", (2, 1, 0)),
        ("bgr8", "rgb", (2, 1, 0)),
        ("bgr8", "bgr", (0, 1, 2)),
        ("rgba8", "rgb", (0, 1, 2)),
        ("rgba8", "bgr", (2, 1, 0)),
        ("gray8", "rgb", (0, 0, 0)),
    ],
)
def test_byte_formats(
    channels_last: bool, input_format: str, order: str, picks: tuple[int, ...]
) -> None:
    shape = (1, 5, 6, 3) if channels_last else (1, 3, 5, 6)
    graph = graph_of(shape)
    how = Preprocess(input_format, MEAN, STD, order)
    front = preprocess(graph, how)
    (node,) = front.inputs
    given = {"rgba8": 4, "gray8": 1}.get(input_format, 3)
    assert node.name == "x"
    assert node.shape == (1, 5, 6, given)
    assert node.type.dtype is DType.U8

    pixels = np.random.default_rng(3).integers(0, 256, node.shape).astype(np.uint8)
    picked = np.stack([pixels[..., p] for p in picks], axis=-1).astype(np.float64)
    expected = (picked - np.array(MEAN)) / np.array(STD)
    if not channels_last:
        expected = np.moveaxis(expected, -1, 1)
    np.testing.assert_allclose(run(front, {"x": pixels})["y"], expected, rtol=1e-6, atol=1e-6)
    values = model_values(pixels, picture_input(graph, "test"), how)
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6)


def test_float_keeps_the_shape() -> None:
    front = preprocess(graph_of((1, 3, 5, 6)), Preprocess("float", MEAN, STD))
    (node,) = front.inputs
    assert (node.shape, node.type.dtype) == ((1, 3, 5, 6), DType.F32)
    x = np.random.default_rng(3).uniform(0, 255, node.shape).astype(np.float32)
    expected = (x - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    np.testing.assert_allclose(run(front, {"x": x})["y"], expected, rtol=1e-5, atol=1e-5)


def test_half_precision_network_takes_bytes() -> None:
    front = preprocess(graph_of((1, 3, 2, 2), TensorProto.FLOAT16), Preprocess("rgb8", (1.0,)))
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    result = run(front, {"x": pixels})["y"]
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, np.moveaxis(pixels.astype(np.float16) - 1, -1, 1))


def test_network_of_bytes_reorders_only() -> None:
    front = preprocess(graph_of((1, 2, 2, 3), TensorProto.UINT8), Preprocess("bgr8"))
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    np.testing.assert_array_equal(run(front, {"x": pixels})["y"], pixels[..., ::-1])


def test_nothing_asked_nothing_changed() -> None:
    graph = graph_of((1, 3, 5, 6))
    assert preprocess(graph, Preprocess()) is graph
    assert preprocess(graph, Preprocess("float")) is graph


@pytest.mark.parametrize(
    ("shape", "elem_type", "options", "told"),
    [
        ((1, 3, 5, 6), TensorProto.FLOAT, {"input_format": "yuv"}, "there is no input format"),
        ((1, 3, 5, 6), TensorProto.FLOAT, {"channel_order": "brg"}, "channel order"),
        ((1, 3, 5, 6), TensorProto.FLOAT, {"std": (0.0,)}, "is zero"),
        ((1, 3, 5, 6), TensorProto.FLOAT, {"mean": (float("nan"),)}, "not finite"),
        ((1, 3, 5, 6), TensorProto.FLOAT, {"mean": (1.0, 2.0)}, "2 values for 3 channels"),
        ((1, 1, 5, 6), TensorProto.FLOAT, {"input_format": "rgb8"}, "give it gray8"),
        ((1, 4, 5, 6), TensorProto.FLOAT, {"input_format": "gray8"}, "give it rgba8"),
        ((1, 10), TensorProto.FLOAT, {"input_format": "rgb8"}, "no input is a picture"),
        ((1, 5, 6, 3), TensorProto.UINT8, {"mean": (1.0,)}, "leave them out"),
        (
            (1, 5, 6, 3),
            TensorProto.UINT8,
            {"input_format": "rgb8", "std": (2.0,)},
            "leave them out",
        ),
    ],
)
def test_errors(
    shape: tuple[int, ...], elem_type: int, options: dict[str, object], told: str
) -> None:
    with pytest.raises(MdlcError, match=told):
        preprocess(graph_of(shape, elem_type), Preprocess(**options))


def test_numbers() -> None:
    assert parse_numbers(None, "--mean") == ()
    assert parse_numbers("1, 2.5,3", "--mean") == (1.0, 2.5, 3.0)
    assert parse_numbers(7, "--mean") == (7.0,)
    assert parse_numbers([1, 2], "--mean") == (1.0, 2.0)
    with pytest.raises(MdlcError, match="--mean: 'a,b' is not a list"):
        parse_numbers("a,b", "--mean")


def test_picture_is_resized_and_ordered(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(pixels).save(path)
    resized = np.asarray(Image.fromarray(pixels).resize((6, 5), Image.Resampling.BILINEAR))

    graph = graph_of((1, 3, 5, 6))
    plain = load_picture(path, picture_input(graph, "test"), Preprocess())
    np.testing.assert_array_equal(plain, np.moveaxis(resized, -1, 0)[None].astype(np.float32))
    assert plain.dtype == np.float32
    swapped = load_picture(path, picture_input(graph, "test"), Preprocess(channel_order="bgr"))
    np.testing.assert_array_equal(swapped, plain[:, ::-1])

    how = Preprocess("bgr8")
    bgr = load_inputs(path, preprocess(graph, how), how, "--input")["x"]
    np.testing.assert_array_equal(bgr, resized[None, ..., ::-1])


def test_digit_is_recognised_by_onnx_runtime() -> None:
    examples = Path(__file__).parent.parent / "examples"
    model = examples / "digits_mobilenet.onnx"
    graph = import_model(model)
    how = Preprocess("gray8", (128.0,), (64.0,))
    front = preprocess(graph, how)
    values = load_inputs(examples / "digit.png", front, how, "--input")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    picture = picture_input(graph, "test")
    (expected,) = session.run(None, {"image": model_values(values["image"], picture, how)})
    assert expected.argmax() == 7
    np.testing.assert_allclose(run(front, values)["logits"], expected, rtol=1e-4, atol=1e-4)


def test_npz(tmp_path: Path) -> None:
    graph = graph_of((1, 3, 5, 6))
    x = np.random.default_rng(0).standard_normal((1, 3, 5, 6))
    np.savez(tmp_path / "x.npz", anything=x)
    np.save(tmp_path / "x.npy", x)
    for name in ("x.npz", "x.npy"):
        found = load_npz(tmp_path / name, graph)
        np.testing.assert_array_equal(found["x"], x.astype(np.float32))


def test_bad_inputs(tmp_path: Path) -> None:
    graph, how = graph_of((1, 3, 5, 6)), Preprocess()
    (tmp_path / "bad.npz").write_bytes(b"PK")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    np.savez(tmp_path / "shape.npz", x=np.zeros((1, 3, 5, 5)))
    np.savez(tmp_path / "text.npz", x=np.full((1, 3, 5, 6), "a"))
    for name, told in {
        "bad.npz": "not a readable NPZ file",
        "bad.png": "not a readable picture",
        "two.npz": "no value for input 'x'",
        "shape.npz": r"\[1, 3, 5, 5\], not \[1, 3, 5, 6\]",
        "text.npz": "values, not f32",
        "absent.png": "no such file",
        "absent.npz": "no such file",
    }.items():
        with pytest.raises(MdlcError, match=told):
            load_inputs(tmp_path / name, graph, how, "--input")


def test_random_inputs_are_the_same_for_a_seed() -> None:
    graph, how = graph_of((1, 3, 5, 6)), Preprocess("rgb8")
    front = preprocess(graph, how)
    first, again, other = (random_inputs(front, how, seed)["x"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.uint8
    assert (first != other).any()
