"""The emitted header as a manual: its example compiles and runs, its statements are true."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mdlc
from mdlc.codegen.cpp.class_text import memory_order
from mdlc.compiler.types import DType, Layout, TensorType
from tests.emitted_code import NO_RUNTIME, WARNINGS, block_model, build, require, sources

LONG = "a_detector_of_every_kind_of_thing_that_there_is/head/" + "_".join(["of_many_words"] * 9)


def several_model(prefix: str = "") -> onnx.ModelProto:
    """Inputs of 8 bits and floats; outputs of floats (planes), 64 bits and 8 bits."""
    size = (1, 3, 6, 4)
    names = {name: f"{prefix}{name}" for name in ("picture", "bias", "boxes", "classes", "mask")}
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Cast", [names["picture"]], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["floats", "w"], ["features"], name="conv1"),
        helper.make_node("Add", ["features", names["bias"]], [names["boxes"]]),
        helper.make_node("ArgMax", [names["boxes"]], [names["classes"]], axis=1, keepdims=1),
        helper.make_node("Cast", [names["boxes"]], [names["mask"]], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "several",
        [
            helper.make_tensor_value_info(names["picture"], TensorProto.UINT8, size),
            helper.make_tensor_value_info(names["bias"], TensorProto.FLOAT, (1, 5, 1, 1)),
        ],
        [
            helper.make_tensor_value_info(names["boxes"], TensorProto.FLOAT, (1, 5, 6, 4)),
            helper.make_tensor_value_info(names["classes"], TensorProto.INT64, (1, 1, 6, 4)),
            helper.make_tensor_value_info(names["mask"], TensorProto.UINT8, (1, 5, 6, 4)),
        ],
        [numpy_helper.from_array(rng.random((5, 3, 1, 1), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def example_of(header: str) -> str:
    """The program in the comment at the top."""
    found = re.search(r"An example:\n//\n((?://   .*\n|//\n)+?)//\n(?=// \S)", header)
    assert found is not None, header[:3000]
    return "".join(f"{line[5:]}\n" for line in found[1].splitlines())


@pytest.mark.parametrize("name", ["Net", "The" + "VeryLong" * 12 + "Network"])
@pytest.mark.parametrize("prefix", ["", LONG], ids=["short", "long"])
@pytest.mark.parametrize("embed", [False, True], ids=["file", "embedded"])
def test_example_compiles_and_runs(name: str, prefix: str, embed: bool, tmp_path: Path) -> None:
    compiled = mdlc.compile(several_model(prefix), "generic", name=name, embed_weights=embed)
    compiled.write(tmp_path)
    (tmp_path / "example.cpp").write_text(example_of((tmp_path / f"{name}.h").read_text()))
    files = [tmp_path / "example.cpp", *sources(tmp_path, name)]
    program = build(tmp_path, require("g++"), files, [*WARNINGS, *NO_RUNTIME])
    done = subprocess.run([str(program)], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("prefix", ["", LONG], ids=["short", "long"])
def test_example_of_metal_compiles(prefix: str, tmp_path: Path) -> None:
    model = block_model()
    if prefix:
        for node in model.graph.node:
            node.output[:] = [f"{prefix}{o}" if o == "logits" else o for o in node.output]
        model.graph.output[0].name = f"{prefix}logits"
    files = mdlc.compile(model, "metal", name="Block").files()
    (tmp_path / "Block.h").write_bytes(files["Block.h"])
    (tmp_path / "example.cpp").write_text(example_of(files["Block.h"].decode()))
    command = [require("g++"), "-std=c++17", *WARNINGS, "-fsyntax-only", "example.cpp"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_ports_are_described_as_they_are() -> None:
    compiled = mdlc.compile(several_model(), "generic", name="Net")
    header = compiled.files()["Net.h"].decode()
    table = re.sub(r"\n//    +", " ", header.split("//\n")[1])
    assert "picture: uint8_t 1x3x6x4, in memory 6 rows of 4 pixels, each 3 channels side" in table
    assert "bias: float 1x5x1x1, in memory 5 values; a Mat of 1 x 1 x 5" in table
    assert "classes: int64_t 1x1x6x4, in memory 6 rows of 4 values; a Mat of 6 x 4 x 1" in table
    assert "mdlc adds no normalisation" in table


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (TensorType((1, 85, 22, 22)), "85 planes one after the other, each 22 rows of 22 values"),
        (TensorType((1, 1, 1, 2)), "2 values"),
        (
            TensorType((4, 3, 32, 30), DType.U8, Layout.NHWC),
            "4 images one after the other, each 32 rows of 30 pixels, each 3 channels side by side",
        ),
        (TensorType((1, 1, 28, 24), layout=Layout.NHWC), "28 rows of 24 values"),
        (
            TensorType((1, 224, 224, 3), DType.U8),
            "224 rows of 224 pixels, each 3 values side by side",
        ),
        (TensorType((1, 224, 224, 1)), "224 rows of 224 values"),
        (TensorType((1, 64, 1, 9)), "64 rows of 9 values"),
        (TensorType((1, 24, 1, 9), layout=Layout.NHWC), "9 pixels, each 24 channels side by side"),
        (TensorType((3, 7, 1, 1)), "3 images one after the other, each 7 values"),
        (TensorType((2, 128, 3)), "2x128x3 as in ONNX, the last axis contiguous"),
        (TensorType((1, 1001)), "1001 values"),
        (TensorType(()), "1 value"),
    ],
)
def test_order_in_memory(tensor: TensorType, words: str) -> None:
    assert memory_order(tensor) == words


def test_comments_hold_no_python() -> None:
    """Neither reprs nor the same word twice, nor lines without an end."""
    model = block_model()
    model.graph.node[0].output[0] = "stem\\"
    model.graph.node[1].input[0] = "stem\\"
    for target in ("x86-avx2", "metal"):
        files = mdlc.compile(model, target, name="Block").files()
        for file in (name for name in files if name.endswith((".h", ".cpp"))):
            for line in files[file].decode().splitlines():
                comment = line.partition("//")[2]
                assert not re.search(r"\w=[\w(\[]", comment), line
                assert not re.search(r"\b([a-z]\w+), \1\b", comment), line
                assert not line.endswith("\\"), line
