"""Small networks and a C++ build, for the tests of emitted code."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import mdlc
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.isa.host import runs_here
from mdlc.codegen.isa.registry import isas
from mdlc.compiler.types import Array

DRIVERS = Path(__file__).parent / "drivers"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
NO_RUNTIME = ("-fno-exceptions", "-fno-rtti")

# Targets whose programs this machine runs without an emulator.
NATIVE = [isa.name for isa in isas().values() if runs_here(isa)]


def block_model(seed: int = 0) -> onnx.ModelProto:
    """A MobileNet block with a stem and a head: 3x16x16 -> 10; `seed` makes the weights."""
    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    six = [
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(np.float32(6), "six"),
    ]
    nodes = [
        helper.make_node(
            "Conv", ["image", "stem_w", "stem_b"], ["stem_c"], strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        helper.make_node("Clip", ["stem_c", "zero", "six"], ["stem"], name="stem"),
        helper.make_node("Conv", ["stem", "dw_w", "dw_b"], ["dw_c"], pads=[1, 1, 1, 1], group=16),
        helper.make_node("Clip", ["dw_c", "zero", "six"], ["dw"], name="conv2_dw"),
        helper.make_node("Conv", ["dw", "pw_w", "pw_b"], ["pw_c"]),
        helper.make_node("Add", ["pw_c", "stem"], ["pw"], name="conv2_pw"),
        helper.make_node("GlobalAveragePool", ["pw"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc_w", "fc_b"], ["logits"], transB=1, name="fc7"),
    ]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, (1, 3, 16, 16))],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, (1, 10))],
        [
            weight("stem_w", 16, 3, 3, 3),
            weight("stem_b", 16),
            weight("dw_w", 16, 1, 3, 3),
            weight("dw_b", 16),
            weight("pw_w", 16, 16, 1, 1),
            weight("pw_b", 16),
            weight("fc_w", 10, 16),
            weight("fc_b", 10),
            *six,
        ],
    )
    return _model(graph)


def two_ways_model() -> onnx.ModelProto:
    """Two inputs of different sizes, two outputs; names that are no C++ identifiers."""
    shapes = {"a.b/1": (1, 2, 4, 5), "class": (1, 2, 1, 1), "sum:0": (1, 2, 4, 5)}
    infos = {
        name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    last = helper.make_tensor_value_info("1st", onnx.TensorProto.FLOAT, (1, 2, 1, 1))
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["a.b/1", "class"], ["sum:0"]),
            helper.make_node("GlobalAveragePool", ["sum:0"], ["1st"]),
        ],
        "two_ways",
        [infos["a.b/1"], infos["class"]],
        [infos["sum:0"], last],
    )
    return _model(graph)


def chain_model(names: Sequence[str]) -> onnx.ModelProto:
    """1x1 convolutions one after the other, of these names."""
    size = (1, 3, 4, 4)
    nodes = [
        helper.make_node("Conv", [source, "w"], [name], name=name)
        for source, name in zip(["x", *names], names, strict=False)
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info(names[-1], onnx.TensorProto.FLOAT, size)],
        [numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w")],
    )
    return _model(graph)


def cast_model(dtype: str) -> onnx.ModelProto:
    """A row of three floats made another type."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=kind)],
        "cast",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 3))],
        [helper.make_tensor_value_info("y", kind, (1, 3))],
    )
    return _model(graph)


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def image(seed: int = 0) -> Array:
    """An input for block_model."""
    return np.random.default_rng(seed).standard_normal((1, 3, 16, 16)).astype(np.float32)


def require(name: str) -> str:
    """A program's path; skips the test where the machine has none of that name."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def require_linux() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("needs glibc, whose malloc the test counts")


def compile_to(directory: Path, model: onnx.ModelProto, target: str, **options: object) -> Isa:
    """Writes a model's files, of class Block unless `name` says otherwise."""
    options.setdefault("name", "Block")
    compiled = mdlc.compile(model, target, **options)
    compiled.write(directory)
    return compiled.plan.isa


def sources(directory: Path, name: str = "Block") -> list[Path]:
    """What a compiler is given of a class's files in a folder."""
    found = sorted(directory.glob(f"{name}.cpp")) + sorted(directory.glob(f"{name}_*.cpp"))
    assert len(found) > 1
    return found


def build(
    directory: Path,
    compiler: str,
    sources: Mapping[str, str] | Sequence[Path],
    flags: Sequence[str],
    program: str = "program",
) -> Path:
    """Compiles and links sources (by name and text, or by path) in a folder."""
    if isinstance(sources, Mapping):
        for name, text in sources.items():
            (directory / name).write_text(text)
        sources = [directory / name for name in sources]
    output = directory / program
    command = [compiler, "-std=c++17", *flags, f"-I{directory}", *map(str, sources)]
    done = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


def run(
    program: Path | str, *arguments: object, where: Path | None = None, timeout: float = 300
) -> str:
    """The output of a program that must succeed: a sanitizer's complaint is a failure.

    Args:
        where: the folder that it runs in.
    """
    done = subprocess.run(
        [str(program), *map(str, arguments)], cwd=where, capture_output=True, text=True,
        timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
