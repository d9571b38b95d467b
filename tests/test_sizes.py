"""One class for several sizes of a network's inputs (`--shape x=1,3,48,160:640:160`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import mdlc
from mdlc.cli import invoke
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ops.quantized_conv2d import QuantizedConv2D
from mdlc.compiler.types import Array
from mdlc.sizes import parse_shapes, sizes_of
from tests.emitted_code import DRIVERS, WARNINGS, build, compile_to, run, sources
from tests.onnx_models import model, node, value, weight
from tests.shared_data import model_path, needs_shared
from tests.targets import require

SIZES = ((1, 3, 16, 24), (1, 3, 40, 40), (1, 3, 8, 8))


def open_model() -> onnx.ModelProto:
    """A fully convolutional network: down, a block, up again, joined with what came before."""
    random = np.random.default_rng(0)

    def filters(name: str, *shape: int) -> onnx.TensorProto:
        return weight(name, random.standard_normal(shape) / np.sqrt(np.prod(shape[1:])))

    return model(
        [
            node("Conv", "x w0 b0", "c0", pads=[1, 1, 1, 1], name="first"),
            node("Relu", "c0", "r0"),
            node("Conv", "r0 w1", "c1", pads=[1, 1, 1, 1], strides=[2, 2], name="down"),
            node("Relu", "c1", "r1"),
            node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1], group=24, name="block_dw"),
            node("Conv", "c2 w3", "c3", name="block_pw"),
            node("Add", "c3 r1", "sum"),
            node("Conv", "sum w5", "wide", pads=[1, 1, 1, 1], name="wide"),
            node("Resize", "wide _ scales", "up", mode="nearest"),
            node("Concat", "up r0", "joined", axis=1),
            node("Conv", "joined w4", "c4", name="last"),
            node("Softmax", "c4", "y", axis=1),
        ],
        [value("x", ["n", 3, "h", "w"])],
        [value("y", ["n", 4, "h", "w"])],
        [
            filters("w0", 12, 3, 3, 3), weight("b0", random.standard_normal(12)),
            filters("w1", 24, 12, 3, 3), filters("w2", 24, 1, 3, 3), filters("w3", 24, 24, 1, 1),
            filters("w5", 32, 24, 3, 3), filters("w4", 4, 44, 1, 1),
            weight("scales", [1, 1, 2, 2]),
        ],
    )  # fmt: skip


def frames_of(shapes: Any, count: int = 1, seed: int = 0) -> list[dict[str, Array]]:
    random = np.random.default_rng(seed)
    return [{"x": random.standard_normal(shape).astype(np.float32)}
            for _ in range(count) for shape in shapes]  # fmt: skip


def own_layers(compiled: mdlc.CompiledModel) -> set[str]:
    """Tensors of the layers that have packed weights of their own at one of the other sizes."""
    names = {step.name for step in compiled.plan.steps}
    return {s.node.name for one in compiled.others for s in one.plan.steps if s.name not in names}


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        open_model().SerializeToString(), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("generic", {}),
        ("x86-avx2", {"threads": 3, "weights_encoding": "fp16+huffman"}),
        ("arm-neon", {}),
        ("arm-neon+fp16", {"precision": "fp16"}),
    ],
    ids=str,
)
def test_every_size_as_onnxruntime(
    target: str, options: dict[str, Any], session: onnxruntime.InferenceSession
) -> None:
    require(target)
    compiled = mdlc.compile(open_model(), target, shapes={"x": SIZES}, **options)
    one = mdlc.compile(open_model(), target, shapes={"x": SIZES[1]}, **options)
    assert [size.plan.inputs[0].type.shape for size in compiled.sizes] == [
        SIZES[1], SIZES[0], SIZES[2]
    ]  # fmt: skip
    # The largest is as a class of its own, and the others fit into its memory and weights.
    assert compiled.plan.working_bytes == one.plan.arena_bytes
    assert own_layers(compiled) < {step.node.name for step in one.plan.steps if step.weights}
    assert [str(step.schedule) for step in compiled.plan.steps] == [
        str(step.schedule) for step in one.plan.steps
    ]
    half = 2e-2 if options.get("precision") or options.get("weights_encoding") else 1e-5
    frames = frames_of(SIZES, 2)
    for frame, result in zip(frames, compiled.build().run_many(frames), strict=True):
        (expected,) = session.run(None, frame)
        np.testing.assert_allclose(result["y"], expected, atol=half, rtol=0)


def test_weights_of_its_own_where_that_saves_more_than_it_costs() -> None:
    """Winograd's algorithm pays at the large size; at 8x8 the filters as they are."""
    compiled = mdlc.compile(open_model(), "x86-avx2", shapes={"x": SIZES})
    large = {step.node.name: step for step in compiled.plan.steps}
    for size in compiled.others:
        for step in size.plan.steps:
            same = large[step.node.name]
            assert (step.name == same.name) == (step.weights is same.weights or not step.weights)
            alone = mdlc.compile(open_model(), "x86-avx2", shapes={"x": size.graph.inputs[0].shape})
            best = next(s for s in alone.plan.steps if s.node.name == step.node.name)
            apart = step.cycles(size.plan.backend) - best.cycles(size.plan.backend)
            packed = sum(array.nbytes for array in best.weights.values())
            assert apart <= max(packed / 8, 0.03 * best.cycles(size.plan.backend))


def test_on_the_device(tmp_path: Path) -> None:
    isa = compile_to(tmp_path, open_model(), "generic", name="Block", shapes={"x": SIZES})
    flags = ("-O1", "-fsanitize=address,undefined", *WARNINGS, *isa.toolchain.flags)
    program = build(tmp_path, "g++", [*sources(tmp_path), DRIVERS / "sizes.cpp"], flags)
    assert run(program, tmp_path / "Block.weights") == ""
    header = (tmp_path / "Block.h").read_text()
    for size in ("1x3x40x40", "1x3x16x24", "1x3x8x8"):
        assert f"{size} -> {size.replace('x3x', 'x4x', 1)} (Mats " in header
    manifest = json.loads((tmp_path / "Block.json").read_text())
    assert [size["inputs"]["x"] for size in manifest["sizes"]] == [
        [1, 3, 40, 40], [1, 3, 16, 24], [1, 3, 8, 8]
    ]  # fmt: skip


def test_another_size_is_refused_with_those_that_there_are() -> None:
    network = mdlc.compile(open_model(), "generic", shapes={"x": SIZES}).build()
    with pytest.raises(MdlcError) as caught:
        network(x=np.zeros((1, 3, 16, 40), np.float32))
    assert str(caught.value) == (
        "the class has no size 1x3x16x40; its sizes are 1x3x40x40; 1x3x16x24; 1x3x8x8"
    )


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "open.onnx"
    onnx.save(open_model(), path)
    words = ["-t", "generic", "--shape", "x=1,3,8:16:8,8"]
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 3, 8, 8), np.float32))
    np.savez(tmp_path / "other.npz", x=np.zeros((1, 3, 9, 8), np.float32))
    assert invoke(["run", str(path), *words, "-i", str(tmp_path / "x.npz")]) == 0
    assert invoke(["run", str(path), *words, "-i", str(tmp_path / "other.npz")]) == 2
    assert "the class's sizes are 1x3x16x8; 1x3x8x8" in capsys.readouterr().err
    assert invoke(["verify", str(path), *words]) == 0
    shown = capsys.readouterr().out
    assert shown.index("size 1x3x16x8") < shown.index("size 1x3x8x8")
    assert shown.count("every layer is within its bound") == 2
    assert invoke(["bench", str(path), *words, "--repeats", "1"]) == 0
    assert "at 1x3x8x8: " in capsys.readouterr().out
    assert invoke(["explain", str(path), *words]) == 0
    assert "size 1x3x8x8: 6 of 7 layers with weights have those of 1x3x16x8" in (
        capsys.readouterr().out
    )
    assert invoke(["inspect", str(path), *words[2:]]) == 2
    assert "--shape: gives 2 sizes, but `mdlc inspect` takes one" in capsys.readouterr().err


def test_eight_bits() -> None:
    """Ranges, rounding and layers in float are those of the first size."""
    frames = frames_of([SIZES[1]], 8)
    compiled = mdlc.compile(
        open_model(), "generic", shapes={"x": SIZES},
        quantize=mdlc.Quantize(calibrate=frames, placement="everywhere"),
    )  # fmt: skip
    first, *others = (
        {
            node.name: [source.constant for source in node.inputs[1:]]
            for node in size.graph.order()
            if isinstance(node.op, QuantizedConv2D)
        }
        for size in compiled.sizes
    )
    assert len(first) == 6
    for other in others:
        for name, arrays in first.items():
            for one, same in zip(arrays, other[name], strict=True):
                np.testing.assert_array_equal(one, same)
    given = frames_of(SIZES)
    exact = mdlc.compile(open_model(), "generic", shapes={"x": SIZES}).build().run_many(given)
    for found, wanted in zip(compiled.build().run_many(given), exact, strict=True):
        np.testing.assert_allclose(found["y"], wanted["y"], atol=0.06)


def test_variants_are_called_after_what_differs() -> None:
    two = model([node("Add", "x z", "y")], [value("x", [1, "n"]), value("z", [1, "m"])],
                [value("y", [1, "n"])])  # fmt: skip
    compiled = mdlc.compile(two, "generic", shapes=["x=1,2:4:2", "z=1,2:4:2"])
    assert [size.plan.variant for size in compiled.sizes] == ["4", "2"]
    compiled = mdlc.compile(two, "generic", shapes=["x=1,4", "x=1,3", "z=1,4", "z=1,1"])
    assert [size.plan.variant for size in compiled.sizes] == ["4x4", "3x1"]
    found = compiled.build()({"x": np.ones((1, 3), np.float32), "z": np.ones((1, 1), np.float32)})
    assert found["y"].tolist() == [[2.0, 2.0, 2.0]]


def test_states_are_kept_from_size_to_size() -> None:
    graph = model(
        [node("ReduceMean", "x", "mean", axes=[1], keepdims=1), node("Add", "s mean", "next"),
         node("Add", "x next", "y")],
        [value("x", [1, "n"]), value("s", [1, 1])],
        [value("y", [1, "n"]), value("next", [1, 1])],
    )  # fmt: skip
    compiled = mdlc.compile(graph, "generic", shapes={"x": [(1, 4), (1, 2)]}, state={"next": "s"})
    found = compiled.build().run_many([{"x": np.full((1, n), n, np.float32)} for n in (2, 4, 2)])
    assert [float(each["y"][0, 0]) for each in found] == [4.0, 10.0, 10.0]
    moving = model([node("Add", "x s", "y"), node("Neg", "y", "next")],
                   [value("x", [1, "n"]), value("s", [1, "n"])],
                   [value("y", [1, "n"]), value("next", [1, "n"])])  # fmt: skip
    with pytest.raises(MdlcError, match=r"state 's' is f32\[1,4\] at one size and f32\[1,2\]"):
        mdlc.compile(moving, "generic", shapes=["x=1,4", "x=1,2"], state={"next": "s"})


@needs_shared
def test_text_recogniser() -> None:
    """ppocr_v4_rec: one weights file for two widths, a tenth of a per mille larger than for one."""
    path = model_path("ppocr_v4_rec")
    compiled = mdlc.compile(path, "x86-avx2", shapes=["x=1,3,48,80:160:80"])
    extra = [s for s in compiled.plan.layers if s not in compiled.plan.steps]
    assert sum(array.nbytes for step in extra for array in step.weights.values()) < 1000
    assert compiled.plan.weight_bytes > 10_000_000


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        (["x=1,3,4"], [{"x": (1, 3, 4)}]),
        (["x=1x3x4"], [{"x": (1, 3, 4)}]),
        ({"x": (1, 3)}, [{"x": (1, 3)}]),
        ({"x": [(1, 3), (1, 4)]}, [{"x": (1, 3)}, {"x": (1, 4)}]),
        (["x=1,3", "x=1,4", "z=2"], [{"x": (1, 3), "z": (2,)}, {"x": (1, 4), "z": (2,)}]),
        (["x=1,3:6:2", "z=2", "z=5"], [{"x": (1, 3), "z": (2,)}, {"x": (1, 5), "z": (5,)}]),
        (["x=2:4:2,3:4:1"], [{"x": s} for s in ((2, 3), (2, 4), (4, 3), (4, 4))]),
    ],
)
def test_what_shapes_mean(given: Any, sizes: Any) -> None:
    shapes = parse_shapes(given)
    assert parse_shapes(shapes) == shapes
    assert sizes_of(shapes) == sizes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["x=1,3:2:1"], "'x=1,3:2:1' is not a shape"),
        (["x=1,3:4"], "'x=1,3:4' is not a shape"),
        (["x=1,0"], "'x=1,0' is not a shape"),
        (["x=1,1:200:1,1,1"], "gives 200 sizes, more than 64; take larger steps"),
        (["x=1,3,8,8", "x=1,3,8,8"], "names the size 1x3x8x8 twice; give every size once"),
        (["x=1,3,8,8", "x=1,3,8,16", "x=1,3,8,24", "z=1", "z=2"],
         "gives 3 of 'x' and 2 of 'z'; give every input one shape"),
        ({"x": [(1, 3, 8, 8), (1, 3, 16, 8)]}, "a class for target metal has one size"),
    ],
)  # fmt: skip
def test_refused(given: Any, message: str) -> None:
    with pytest.raises(MdlcError) as caught:
        mdlc.compile(open_model(), "metal" if "metal" in message else "generic", shapes=given)
    assert message in str(caught.value)
    assert str(caught.value).startswith("--shape: ")
