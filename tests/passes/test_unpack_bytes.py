"""Pictures whose bytes the first convolution reads."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

import mdlc
from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.target import targets
from mdlc.compiler.onnx_import import import_model
from mdlc.inputs.preprocess import Preprocess, model_values, picture_input, preprocess
from mdlc.passes.unpack_bytes import unpack_bytes
from mdlc.pipeline import optimise, stages
from tests.onnx_models import model, node, value, weight
from tests.passes.ir import check, graph, operators, same_values
from tests.targets import TARGETS, require

WEIGHTS = "%w: f32[4,3,3,3] = Random(1)\n%b: f32[4] = Random(2)\n"
CONV = "%y: f32[1,4,6,6] = Conv2D(pads=(1, 1, 1, 1))(%{x}, %w, %b)\nreturn y=%y"
SHIFT = "%c: f32[3,1,1] = Random(3)\n%s: f32[1,3,6,6] = Add()(%f, %c)\n"


def test_cast() -> None:
    check(
        unpack_bytes,
        '%x: u8[1,3,6,6] = Input() "x"\n'
        + WEIGHTS
        + "%f: f32[1,3,6,6] = Cast(dtype='f32')(%x)\n"
        + CONV.format(x="f"),
        '%x: u8[1,3,6,6] = Input() "x"\n' + WEIGHTS + CONV.format(x="x"),
    )


def test_cast_and_sum() -> None:
    before = graph(
        '%x: u8[1,3,6,6] = Input() "x"\n'
        + WEIGHTS
        + "%f: f32[1,3,6,6] = Cast(dtype='f32')(%x)\n"
        + SHIFT
        + CONV.format(x="s")
    )
    after = unpack_bytes(before)
    assert operators(after) == ["Conv2D"]
    same_values(before, after, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("pick", "shape", "rest"),
    [
        ("", "1,6,6,3", ["Transpose", "Conv2D"]),
        ("%i: i64[3] = Constant([2, 1, 0])\n", "1,6,6,3", ["Transpose", "Conv2D"]),
        ("%i: i64[3] = Constant([2, 0, 1])\n", "1,6,6,4", ["Transpose", "Slice", "Conv2D"]),
        ("%i: i64[3] = Constant([1, -1, 2])\n", "1,6,6,4", ["Transpose", "Slice", "Conv2D"]),
        ("%i: i64[3] = Constant([0, 1, 3])\n", "1,6,6,4", ["Gather", "Transpose", "Conv2D"]),
        ("%i: i64[3] = Constant([0, 0, 0])\n", "1,6,6,1", ["Gather", "Transpose", "Conv2D"]),
    ],
)
def test_channels_last(pick: str, shape: str, rest: list[str]) -> None:
    picked = "%g: u8[1,6,6,3] = Gather(axis=3)(%x, %i)\n" if pick else ""
    before = graph(
        f'%x: u8[{shape}] = Input() "x"\n'
        + WEIGHTS
        + pick
        + picked
        + f"%h: f32[1,6,6,3] = Cast(dtype='f32')(%{'g' if pick else 'x'})\n"
        + "%f: f32[1,3,6,6] = Transpose((0, 3, 1, 2))(%h)\n"
        + SHIFT
        + CONV.format(x="s")
    )
    after = unpack_bytes(before)
    assert operators(after) == rest
    same_values(before, after, atol=1e-3)


@pytest.mark.parametrize(
    "body",
    [
        # Another reader of the floats; other summands; other numbers than bytes; groups.
        "%f: f32[1,3,6,6] = Cast(dtype='f32')(%x)\n%y: f32[1,4,6,6] = Conv2D(pads=(1, 1, 1, 1))"
        "(%f, %w, %b)\nreturn y=%y, z=%f",
        "%f: f32[1,3,6,6] = Cast(dtype='f32')(%x)\n%c: f32[6,1] = Random(3)\n"
        "%s: f32[1,3,6,6] = Add()(%f, %c)\n" + CONV.format(x="s"),
        "%h: i32[1,3,6,6] = Cast(dtype='i32')(%x)\n%f: f32[1,3,6,6] = Cast(dtype='f32')(%h)\n"
        + CONV.format(x="f"),
        "%v: f32[3,1,3,3] = Random(4)\n%d: f32[3] = Random(5)\n"
        "%f: f32[1,3,6,6] = Cast(dtype='f32')(%x)\n"
        "%y: f32[1,3,4,4] = Conv2D(groups=3)(%f, %v, %d)\nreturn y=%y",
    ],
)
def test_what_stays(body: str) -> None:
    before = graph('%x: u8[1,3,6,6] = Input() "x"\n' + WEIGHTS + body)
    after = unpack_bytes(before)
    assert "Cast" in operators(after)
    same_values(before, after)


def test_targets_that_cannot() -> None:
    text = (
        '%x: u8[1,3,6,6] = Input() "x"\n'
        + WEIGHTS
        + "%f: f32[1,3,6,6] = Cast(dtype='f32')(%x)\n"
        + CONV.format(x="f")
    )
    assert "Cast" not in operators(optimise(graph(text)))
    assert "Cast" in operators(stages(graph(text), unpacks=False)[-1].graph)
    assert [name for name, target in targets().items() if not target.unpacks] == [
        "metal",
        "metal+fp32",
    ]


def _network(stride: int, size: int, width: int) -> onnx.ModelProto:
    random = np.random.default_rng(size)
    w = random.uniform(-1, 1, (16, 3, size, size)) / 9
    return model(
        [
            node("Conv", "x w b", "h", strides=[stride] * 2, pads=[size // 2] * 4),
            node("Relu", "h", "y"),
        ],
        [value("x", (1, 3, 20, width))],
        [value("y", (1, 16, 20 // stride, -(-width // stride)))],
        [weight("w", w), weight("b", random.uniform(-1, 1, 16))],
    )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("input_format", "stride", "size", "threads"),
    [("rgb8", 2, 3, 1), ("bgr8", 2, 7, 1), ("rgba8", 1, 3, 1), ("rgba8", 2, 3, 3)],
)
def test_against_onnxruntime(
    target: str, input_format: str, stride: int, size: int, threads: int
) -> None:
    require(target)
    onnx_model = _network(stride, size, 38)
    how = Preprocess(input_format, (123.7, 116.3, 103.5), (58.4, 57.1, 57.4))
    front = preprocess(import_model(onnx_model), how)
    compiled = mdlc.compile(
        onnx_model,
        target,
        input_format=input_format,
        mean=how.mean,
        std=how.std,
        threads=threads,
    )
    computed = [type(step.node.op).__name__ for step in compiled.plan.steps]
    assert computed == ["Conv2D"]
    shape = front.inputs[0].shape
    pixels = np.random.default_rng(7).integers(0, 256, shape).astype(np.uint8)
    session = onnxruntime.InferenceSession(
        onnx_model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    given = model_values(pixels, picture_input(import_model(onnx_model), "test"), how)
    (expected,) = session.run(None, {"x": given})
    actual = compiled.build()({"x": pixels})["y"]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "generic"])
def test_the_same_floats_as_in_two_steps(target: str) -> None:
    """What the first layer makes of bytes does not depend on where they become floats."""
    require(target)
    source = preprocess(
        import_model(_network(2, 3, 37)), Preprocess("rgb8", (123.7, 116.3, 103.5), (58.4,))
    )
    pixels = {"x": np.random.default_rng(7).integers(0, 256, (1, 20, 37, 3)).astype(np.uint8)}
    isa = find_isa(target)
    found = [
        Executable(lower(stages(source, unpacks=unpacks)[-1].graph, isa, "First"))(pixels)["y"]
        for unpacks in (False, True)
    ]
    np.testing.assert_array_equal(*found)
