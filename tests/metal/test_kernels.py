"""Derived from every operator's samples: Metal kernels on the simulator against the reference."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from mdlc.codegen.kernel import candidates, kernels
from mdlc.codegen.metal import views
from mdlc.codegen.metal.program import MetalProgram
from mdlc.codegen.target import Target
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.expr import input_, primitives_of
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph
from mdlc.compiler.op import Elementwise, Op
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.types import Array
from tests.metal.programs import (
    METAL,
    METAL_FLOAT,
    plan_of,
    program_of,
    relative_error,
    require_clang,
)
from tests.op_samples import sampled_ops
from tests.test_kernels import network_of

# Eight units in the last place of half precision: inputs, weights and result are rounded, and a
# function may double the error of its argument.
BOUND = 8 * 2.0**-11
# The same in float: its units are 2^-24, and functions are the C library's here.
FLOAT_BOUND = 1e-5

# Samples that Metal refuses, and why.
REFUSED = {
    ("Pow", "int64"): "powers of integers",
    ("Pow", "root_of_int64"): "powers of integers",
    ("Pow", "negative"): "powers of integers",
    ("Pow", "by_int64"): "powers of integers",
    ("Conv2D", "bytes"): "bytes are shifted in layers of their own",
    ("Conv2D", "bytes_gray"): "bytes are shifted in layers of their own",
    ("Conv2D", "bytes_7x7"): "bytes are shifted in layers of their own",
    ("Conv2D", "bytes_deep"): "bytes are shifted in layers of their own",
    ("MaxPool2D", "i8"): "8-bit integers are halves in textures",
    ("MaxPool2D", "u8"): "8-bit integers are halves in textures",
    ("Resize", "i8"): "floats only",
    ("Resize", "volume"): "images only",
    ("Resize", "volume_linear"): "images only",
    ("Resize", "matrix"): "images only",
    ("Resize", "crop"): "values beyond the image",
}


def _lacks(cls: type[Op]) -> bool:
    """Whether no kernel of Metal and no view of a texture names the operator, or its formula is
    one of bits, which textures of halves and floats do not have.
    """
    modules = [sys.modules[type(kernel).__module__] for kernel in kernels(METAL.backend.kernels)]
    named = {
        value
        for module in (*modules, views)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Op) and value is not Op
    }
    op = cls.samples()[0].op
    if isinstance(op, Elementwise):
        formula = op.expr(*(input_(i) for i in range(op.arity)))
        if any(kind.startswith(("bit_", "shift_")) for kind in primitives_of(formula)):
            return True
    return not any(issubclass(cls, each) for each in named)


def _halved(value: Array) -> Array:
    return value.astype(np.float16).astype(value.dtype) if value.dtype == np.float32 else value


def _supported(graph: Graph, cls: type[Op]) -> tuple[Graph, list[str]]:
    """The network of the samples that Metal takes, and the labels of the others."""
    kept, refused = [], []
    for number, (output, name) in enumerate(zip(graph.outputs, graph.output_names, strict=True)):
        try:
            plan_of(_part(graph, [(output, name)]))
            kept.append((output, name))
        except MdlcError as error:
            if "target metal does not have" not in str(error):
                raise
            refused.append(cls.samples()[number].label)
    return _part(graph, kept), refused


def _part(graph: Graph, outputs: list[tuple[object, str]]) -> Graph:
    nodes = tuple(node for node, _ in outputs)
    names = tuple(name for _, name in outputs)
    part = replace(graph, inputs=(), outputs=nodes, output_names=names)
    inputs = tuple(n for n in part.order() if not n.inputs and n.constant is None)
    return replace(part, inputs=inputs)


@pytest.mark.parametrize("target", [METAL, METAL_FLOAT], ids=lambda target: target.name)
@pytest.mark.parametrize("cls", sampled_ops(), ids=lambda cls: cls.__name__)
def test_kernels_agree_with_reference(cls: type[Op], target: Target) -> None:
    graph, values = network_of(cls)
    graph, refused = _supported(graph, cls)
    if _lacks(cls) and refused:  # if none is, passes write the operator as others
        assert len(refused) == len(cls.samples())
        return
    expected_refusals = [label for name, label in REFUSED if name == cls.__name__]
    assert sorted(refused) == sorted(expected_refusals)
    values = {node.name: values[node.name] for node in graph.inputs}
    if target.half:  # what half precision makes of the inputs is not the kernels' error
        values = {name: _halved(value) for name, value in values.items()}
    expected = run(graph, values)
    actual = program_of(graph, target=target)(values)
    bound = BOUND if target.half else FLOAT_BOUND
    for number, sample in enumerate(cls.samples()):
        name = f"y{number}"
        if name not in expected:
            continue
        label = f"{sample.op} {sample.label}"
        assert actual[name].dtype == expected[name].dtype, label
        if expected[name].dtype.kind == "f":
            assert relative_error(actual[name], expected[name]) <= bound, label
        else:
            np.testing.assert_array_equal(actual[name], expected[name], err_msg=label)


def test_every_tile_of_a_convolution_agrees_with_reference() -> None:
    """All candidates, not only the winners, on the awkward shapes among the samples."""
    require_clang()
    graph, values = network_of(Conv2D)
    graph, _ = _supported(graph, Conv2D)
    plan = plan_of(graph)
    values = {node.name: _halved(values[node.name]) for node in graph.inputs}
    expected = run(graph, values)
    found = {s.node.name: candidates(s.node, METAL.backend) for s in plan.steps
             if isinstance(s.node.op, Conv2D)}  # fmt: skip
    most = max(len(each) for each in found.values())
    tried = set()
    for round_ in range(most):
        chosen = {name: each[min(round_, len(each) - 1)].schedule for name, each in found.items()}
        tried |= {(schedule.algorithm, *schedule.tile) for schedule in chosen.values()}
        actual = MetalProgram(METAL.lower(plan.graph, METAL.backend, "Tiles", schedules=chosen))(
            values
        )
        for name, value in expected.items():
            assert relative_error(actual[name], value) <= BOUND, f"{name} {chosen[name]}"
    assert tried >= {("direct", p, c) for p in (1, 2, 4) for c in (4, 8)}
    assert tried >= {("depthwise", p, 4) for p in (1, 2, 4)}
    assert ("winograd", 2, 2, 4) in tried
