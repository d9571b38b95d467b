"""IR text: what is printed parses to the same graph; bad text is told in one sentence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.op import Sample
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.clip import Clip
from mdlc.compiler.ops.constant import Constant, constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.convert_layout import ConvertLayout
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.text import difference, large_constants, parse_graph, print_graph
from mdlc.compiler.types import Array, DType, Layout
from tests.op_samples import samples

NETWORK = """\
# A convolution with its epilogue.
%x: f32[1,2,4,4] = Input() "image"
%w: f32[3,2,1,1] = Random(7)
%b: f32[3] = Full(0.5)
%y: f32[1,3,4,4]@nhwc = Conv2D(activation=Clip(low=0.0, high=6.0))(%x, %w, %b) "conv1"
return logits=%y, "odd name"=%x
"""


def _graph_of(sample: Sample) -> Graph:
    nodes: list[Node] = []
    for index, value in enumerate(sample.inputs):
        if index in sample.constant:
            nodes.append(constant(value, f"c{index}"))
        else:
            nodes.append(graph_input(f"x{index}", value.shape, DType.from_numpy(value.dtype)))
    output = make(sample.op, *nodes, name="y")
    return Graph(tuple(n for n in nodes if n.constant is None), (output,), ("y",))


@pytest.mark.parametrize("sample", samples())
def test_every_operator_round_trips(sample: Sample) -> None:
    graph = _graph_of(sample)
    text = print_graph(graph)
    parsed = parse_graph(text, large_constants(graph))
    assert print_graph(parsed) == text
    assert parsed.outputs[0].op == sample.op
    assert [n.name for n in parsed.order()] == [n.name for n in graph.order()]


def test_parses_what_the_text_says() -> None:
    graph = parse_graph(NETWORK)
    (image,) = graph.inputs
    conv, second = graph.outputs
    assert image.name == "image"
    assert second is image
    assert graph.output_names == ("logits", "odd name")
    assert conv.op == Conv2D(activation=Clip(0.0, 6.0))
    assert conv.type.layout is Layout.NHWC
    assert conv.name == "conv1"
    assert np.array_equal(conv.inputs[2].constant, np.full(3, 0.5, np.float32))


def test_random_is_the_same_every_time_and_differs_by_seed() -> None:
    def weights(seed: int) -> Array:
        text = f"%w: f32[4,4] = Random({seed})\nreturn w=%w"
        value = parse_graph(text).outputs[0].constant
        assert value is not None
        return value

    assert np.array_equal(weights(7), weights(7))
    assert not np.array_equal(weights(7), weights(8))
    assert np.abs(weights(7)).max() <= 1


@pytest.mark.parametrize(
    "value",
    [
        np.array(0.1, np.float32),
        np.array([0.1, -0.0, np.inf, -np.inf, 1e-45], np.float32),
        np.array([[True, False]]),
        np.array([2**64 - 1, 0], np.uint64),
        np.array([-(2**63)], np.int64),
        np.array([0.1, 65504], np.float16),
        np.array([], np.float32),
        np.zeros((2, 0, 3), np.float32),
        np.full((5, 7), -3, np.int8),
        np.full(100, 1 / 3, np.float64),
        np.array([0.0, -0.0] * 10, np.float32),
        np.arange(40, dtype=np.float32) / 7,
    ],
    ids=lambda v: f"{v.dtype}{list(v.shape)}",
)
def test_constants_keep_every_bit(value: Array) -> None:
    graph = Graph((), (constant(value),), ("c",))
    parsed = parse_graph(print_graph(graph), large_constants(graph)).outputs[0].constant
    assert parsed is not None
    assert parsed.dtype == value.dtype
    assert parsed.shape == value.shape
    assert parsed.tobytes() == value.tobytes()


def test_nan_stays_nan() -> None:
    graph = Graph((), (constant(np.array([np.nan, 1], np.float32)),), ("c",))
    parsed = parse_graph(print_graph(graph)).outputs[0].constant
    assert np.array_equal(parsed, np.array([np.nan, 1], np.float32), equal_nan=True)


@pytest.mark.parametrize(
    "name", ['a"b', "back\\slash", "line\nbreak", "tab\t", "é/日本", "\u2028", "a, %b", "# x", "🙂"]
)
def test_names_may_hold_anything(name: str) -> None:
    x = graph_input(name, (2,))
    graph = Graph((x,), (make(Relu(), x, name=name),), (name,))
    parsed = parse_graph(print_graph(graph))
    assert parsed.inputs[0].name == name
    assert parsed.outputs[0].name == name
    assert parsed.output_names == (name,)


def test_a_file_on_disk_gives_the_same_numbers(tmp_path) -> None:  # type: ignore[no-untyped-def]
    x = graph_input("x", (1, 4, 5, 5))
    weights = constant(np.random.default_rng(0).normal(size=(4, 4, 3, 3)).astype(np.float32))
    conv = make(Conv2D(), x, weights, constant(np.zeros(4, np.float32)), name="conv")
    graph = Graph((x,), (conv,), ("y",))
    (tmp_path / "net.mdl").write_text(print_graph(graph), encoding="utf-8")
    np.savez(tmp_path / "net.npz", **large_constants(graph))  # type: ignore[arg-type]
    with np.load(tmp_path / "net.npz") as data:
        parsed = parse_graph((tmp_path / "net.mdl").read_text(encoding="utf-8"), data)
    feed = {"x": np.random.default_rng(1).normal(size=(1, 4, 5, 5)).astype(np.float32)}
    assert np.array_equal(run(graph, feed)["y"], run(parsed, feed)["y"])


def test_types_with_enumerations_round_trip() -> None:
    x = graph_input("x", (1, 2, 3, 4), DType.U8)
    wide = make(Cast(DType.F32), x)
    y = make(ConvertLayout(Layout.NHWC), wide)
    graph = Graph((x,), (y,), ("y",))
    parsed = parse_graph(print_graph(graph))
    assert difference(graph, parsed) is None
    assert parsed.outputs[0].type.layout is Layout.NHWC


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("%y: f32[2] = Nonsense()(%x)", "there is no 'Nonsense'"),
        ("%y: f32[2] = Relu()(%z)", "reads %z, which is not defined"),
        ("%y: f32[3] = Relu()(%x)", "says f32[3], but f32[2] follows"),
        ("%y: i32[2] = Relu()(%x)", "says i32[2], but f32[2] follows"),
        ("%y: f99[2] = Relu()(%x)", "no type"),
        ("%y: f32[2]@zigzag = Relu()(%x)", "no type"),
        ("%y: f32[2] = Relu(speed=3)(%x)", "cannot parse"),
        ("%y: f32[2] = Clip(low=open('f'))(%x)", "cannot parse"),
        ("%y: f32[2] = Clip(low=(1).real)(%x)", "cannot parse"),
        ("%y: f32[2] = Relu(", "cannot parse"),
        ("%y: f32[2] = Full()", "cannot parse"),
        ("%y: f32[2] = Constant([1, 2, 3])", "cannot parse"),
        ("%y: f32[2] = Data('0123')", "cannot parse"),
        ("%y: f32[2] = Window(kernel=(1, 1))(%x)", "no operator"),
        ("%x: f32[2] = Relu()(%x)", "defined twice"),
        ("just words", "is not a node"),
        ("return y=%q", "returns %q"),
        ("return nothing", "cannot parse"),
    ],
)
def test_bad_lines_are_told_by_number(line: str, complaint: str) -> None:
    text = f'%x: f32[2] = Input() "x"\n{line}\nreturn y=%x'
    with pytest.raises(MdlcError) as caught:
        parse_graph(text)
    assert "line 2" in str(caught.value)
    assert complaint in str(caught.value)


def test_text_without_return_is_refused() -> None:
    with pytest.raises(MdlcError, match="no return line"):
        parse_graph('%x: f32[2] = Input() "x"')


def test_difference_names_the_first_line_that_differs() -> None:
    a, b = parse_graph(NETWORK), parse_graph(NETWORK.replace("high=6.0", "high=5.0"))
    found = difference(a, b)
    assert found is not None
    assert "high=6.0" in found.splitlines()[0]
    assert "high=5.0" in found.splitlines()[-1]


@pytest.mark.parametrize(
    "change", [("Full(0.5)", "Full(0.25)"), ("Random(7)", "Random(8)"), ("@nhwc", ""),
               ("logits", "scores"), ('"image"', '"picture"')]
)  # fmt: skip
def test_difference_sees(change: tuple[str, str]) -> None:
    assert difference(parse_graph(NETWORK), parse_graph(NETWORK.replace(*change))) is not None


def test_difference_is_blind_to_the_names_of_nodes() -> None:
    assert difference(parse_graph(NETWORK), parse_graph(NETWORK.replace("conv1", "c"))) is None


def test_deep_graphs_do_not_recurse() -> None:
    node = x = graph_input("x", (2,))
    for _ in range(5000):
        node = make(Relu(), node)
    graph = Graph((x,), (node,), ("y",))
    assert len(parse_graph(print_graph(graph)).order()) == 5001
    assert difference(graph, replace(graph, outputs=(node.inputs[0],))) is not None


def test_equal_constants_print_equal() -> None:
    value = np.arange(64, dtype=np.float32)
    assert str(Constant(value)) == str(Constant(value.copy()))
    assert str(Constant(value)) != str(Constant(value[::-1]))
