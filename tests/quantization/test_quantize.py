"""The quantiser: which layers become integers, in which scales, and that they compute the same."""

from __future__ import annotations

import numpy as np
import pytest

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.types import Array, DType
from mdlc.passes.lower_quantized import lower_quantized
from mdlc.passes.pipeline import random_inputs
from mdlc.passes.quant_params import QuantParams
from mdlc.quantization.calibrate import calibrate
from mdlc.quantization.layers import Assignment, assign, params_of_range
from mdlc.quantization.quantize import Quantized, quantize
from mdlc.quantization.table import CalibrationTable, TensorRange, make_table
from tests.passes.ir import graph, operators

CONV = """
    %{n}w: f32[{o},{i},{k},{k}] = Random({s})
    %{n}b: f32[{o}] = Random(10{s})
"""


def weights(name: str, outputs: int, inputs: int, kernel: int, seed: int) -> str:
    return CONV.format(n=name, o=outputs, i=inputs, k=kernel, s=seed)


RESIDUAL = (
    '%x: f32[1,4,8,8] = Input() "x"'
    + weights("1", 8, 4, 3, 1)
    + weights("2", 8, 1, 3, 2)
    + weights("3", 8, 8, 1, 3)
    + """
    %a: f32[1,8,8,8] = Conv2D(pads=(1, 1, 1, 1))(%x, %1w, %1b) "a"
    %ar: f32[1,8,8,8] = Clip(0.0, 6.0)(%a) "a6"
    %d: f32[1,8,8,8] = Conv2D(pads=(1, 1, 1, 1), groups=8)(%ar, %2w, %2b) "d"
    %dr: f32[1,8,8,8] = Relu()(%d) "dr"
    %c: f32[1,8,8,8] = Conv2D()(%dr, %3w, %3b) "c"
    %s: f32[1,8,8,8] = Add()(%c, %ar) "s"
    %r: f32[1,8,8,8] = Relu()(%s) "r"
    %p: f32[1,8,4,4] = MaxPool2D(Window((2, 2), (2, 2)))(%r) "p"
    %g: f32[1,8,1,1] = Reduce('mean', (2, 3))(%p) "g"
    %m: f32[1,8] = Reshape((1, 8))(%g) "m"
    %fw: f32[5,8] = Random(9)
    %fb: f32[5] = Random(10)
    %f: f32[1,5] = Dense()(%m, %fw, %fb) "f"
    %o: f32[1,5] = Softmax(1)(%f) "o"
    return out=%o
"""
)


def inputs_of(source: Graph, count: int = 6) -> list[dict[str, Array]]:
    return [random_inputs(source, seed) for seed in range(count)]


def assigned(source: Graph, keep_float: tuple[str, ...] = ()) -> Assignment:
    table = make_table(calibrate(source, inputs_of(source)), "minmax")
    return assign(source, table, keep_float)


def quantized(text: str, keep_float: tuple[str, ...] = ()) -> tuple[Quantized, Graph]:
    found = quantize(assigned(graph(text), keep_float))
    return found, lower_quantized(found.graph)


def snr_db(source: Graph, lowered: Graph) -> float:
    signal = noise = 0.0
    for values in inputs_of(source):
        wanted = run(source, values)
        for name, value in run(lowered, values).items():
            signal += float((wanted[name].astype(np.float64) ** 2).sum())
            noise += float(((value - wanted[name]).astype(np.float64) ** 2).sum())
    return 10 * np.log10(signal / noise)


def test_a_residual_network_becomes_integers_throughout() -> None:
    found, lowered = quantized(RESIDUAL)
    assert operators(lowered) == [
        "QuantizeLinear",
        "QuantizedConv2D",
        "QuantizedConv2D",
        "QuantizedConv2D",
        "QuantizedAdd",
        "MaxPool2D",
        "QuantizedAveragePool2D",
        "Reshape",
        "QuantizedDense",
        "DequantizeLinear",
        "Softmax",
    ]
    assert snr_db(found.assignment.graph, lowered) > 25


def test_bounds_come_from_activations_and_cost_nothing() -> None:
    _, lowered = quantized(RESIDUAL)
    first, second, *_ = [n for n in lowered.order() if type(n.op).__name__ == "QuantizedConv2D"]
    assert first.name == "a6"
    assert first.op.y_zero == -128  # type: ignore[attr-defined]
    assert second.op.low == second.op.y_zero == -128  # type: ignore[attr-defined]


def test_a_pool_keeps_the_scale_of_what_it_pools() -> None:
    found, _ = quantized(RESIDUAL)
    params = {node.name: value for node, value in found.assignment.params.items()}
    assert params["p"] == params["r"]
    assert params["m"] == params["g"]
    # What a bound takes in has no scale of its own.
    assert "a" not in params
    assert "s" not in params


def test_softmax_between_products_is_in_integers() -> None:
    """And the last one, whose result is read as floats, is not."""
    text = (
        '%x: f32[2,8] = Input() "x"'
        + """
    %aw: f32[6,8] = Random(1)
    %ab: f32[6] = Random(2)
    %bw: f32[5,6] = Random(3)
    %bb: f32[5] = Random(4)
    %a: f32[2,6] = Dense()(%x, %aw, %ab) "a"
    %s: f32[2,6] = Softmax(1)(%a) "s"
    %b: f32[2,5] = Dense()(%s, %bw, %bb) "b"
    %o: f32[2,5] = Softmax(1)(%b) "o"
    return out=%o
"""
    )
    found, lowered = quantized(text)
    assert operators(lowered) == [
        "QuantizeLinear",
        "QuantizedDense",
        "QuantizedSoftmax",
        "QuantizedDense",
        "DequantizeLinear",
        "Softmax",
    ]
    assert snr_db(found.assignment.graph, lowered) > 30


@pytest.mark.parametrize("name", ["dr", "d"])
def test_a_layer_kept_in_float_by_either_name(name: str) -> None:
    found, lowered = quantized(RESIDUAL, (name,))
    assert operators(lowered)[:6] == [
        "QuantizeLinear",
        "QuantizedConv2D",
        "DequantizeLinear",
        "Conv2D",
        "Relu",
        "QuantizeLinear",
    ]
    assert snr_db(found.assignment.graph, lowered) > 25


def test_layers_in_float_between_each_other_pass_floats() -> None:
    _, lowered = quantized(RESIDUAL, ("dr", "c"))
    names = operators(lowered)
    # One pair around both; the sum, one side of which is float then, is float too.
    assert names.count("Conv2D") == 2
    assert "QuantizedAdd" not in names
    assert names.count("QuantizeLinear") == 2


def test_an_unknown_layer_is_refused_with_one_like_it() -> None:
    with pytest.raises(MdlcError, match=r"--keep-float: there is no layer 'a7'; did you mean"):
        quantized(RESIDUAL, ("a7",))


def test_a_table_of_another_model_is_refused() -> None:
    table = CalibrationTable("minmax", 1, {"x": TensorRange(-1, 1, -1, 1)})
    with pytest.raises(MdlcError, match="has no tensor 'a6'"):
        assign(graph(RESIDUAL), table)


def test_bytes_that_are_shifted_stay_bytes() -> None:
    """u8 -> float -> minus 128 -> over 128: the same bytes with another meaning."""
    text = (
        '%x: u8[1,3,6,6] = Input() "x"\n    %f: f32[1,3,6,6] = Cast(dtype=\'f32\')(%x) "f"'
        + weights("1", 4, 3, 3, 1)
        + """
    %c: f32[] = Full(-128.0)
    %h: f32[] = Full(0.0078125)
    %m: f32[1,3,6,6] = Add()(%f, %c) "m"
    %n: f32[1,3,6,6] = Mul()(%m, %h) "n"
    %y: f32[1,4,4,4] = Conv2D()(%n, %1w, %1b) "y"
    return out=%y
    """
    )
    found, lowered = quantized(text)
    assert operators(lowered) == ["QuantizedConv2D", "DequantizeLinear"]
    params = {node.name: value for node, value in found.assignment.params.items()}
    assert params["n"] == QuantParams(2**-7, 128, DType.U8)
    assert snr_db(found.assignment.graph, lowered) > 30


def concat(scale: float) -> str:
    """Two convolutions, the second `scale` times larger, joined."""
    return (
        '%x: f32[1,4,6,6] = Input() "x"'
        + weights("1", 4, 4, 1, 1)
        + weights("2", 4, 4, 1, 2)
        + weights("3", 4, 8, 1, 3)
        + f"""
    %k: f32[] = Full({scale})
    %a: f32[1,4,6,6] = Conv2D()(%x, %1w, %1b) "a"
    %b: f32[1,4,6,6] = Conv2D()(%x, %2w, %2b) "b"
    %bk: f32[1,4,6,6] = Mul()(%b, %k) "bk"
    %j: f32[1,8,6,6] = Concat(1)(%a, %bk) "j"
    %y: f32[1,4,6,6] = Conv2D()(%j, %3w, %3b) "y"
    return out=%y
    """
    )


def test_inputs_of_a_concat_share_its_scale() -> None:
    found, lowered = quantized(concat(1.5))
    params = {node.name: value for node, value in found.assignment.params.items()}
    assert params["a"] == params["bk"] == params["j"]
    assert "Requantize" not in operators(lowered)
    assert snr_db(found.assignment.graph, lowered) > 30


def test_an_input_of_a_concat_far_smaller_keeps_its_own_scale() -> None:
    found, lowered = quantized(concat(50.0))
    params = {node.name: value for node, value in found.assignment.params.items()}
    assert params["a"] != params["j"] == params["bk"]
    assert operators(lowered).count("Requantize") == 1
    assert snr_db(found.assignment.graph, lowered) > 30


def test_a_function_is_a_table_but_keeps_floats_for_floats() -> None:
    body = (
        '%x: f32[1,4,6,6] = Input() "x"'
        + weights("1", 4, 4, 1, 1)
        + weights("2", 4, 4, 1, 2)
        + """
    %a: f32[1,4,6,6] = Conv2D()(%x, %1w, %1b) "a"
    %h: f32[1,4,6,6] = HardSwish()(%a) "h"
    %b: f32[1,4,6,6] = Conv2D()(%h, %2w, %2b) "b"
    %s: f32[1,4,6,6] = Sigmoid()(%b) "s"
    return out=%s
    """
    )
    found, lowered = quantized(body)
    assert operators(lowered) == [
        "QuantizeLinear",
        "QuantizedConv2D",
        "Lookup",
        "QuantizedConv2D",
        "DequantizeLinear",
        "Sigmoid",
    ]
    assert snr_db(found.assignment.graph, lowered) > 30


@pytest.mark.parametrize("per_tensor", [False, True])
def test_weights_have_a_scale_for_every_channel_or_one(per_tensor: bool) -> None:
    """A channel a thousand times smaller keeps its precision only with a scale of its own."""
    text = """
        %x: f32[1,64] = Input() "x"
        %w: f32[8,64] = Random(1)
        %b: f32[8] = Full(0.0)
        %y: f32[1,8] = Dense()(%x, %w, %b) "y"
        return out=%y
    """
    channel = np.where(np.arange(8) == 0, 1e-3, 1.0).astype(np.float32)[:, None]
    source = graph(text).rebuild(
        lambda _, new: constant(new.constant * channel) if new.shape == (8, 64) else new  # type: ignore[operator]
    )
    found = quantize(assigned(source), per_tensor=per_tensor)
    integers = [
        n.constant
        for n in found.graph.order()
        if n.constant is not None and n.constant.dtype == np.int8 and n.shape == (8, 64)
    ]
    assert np.abs(integers[0][0].astype(int)).max() == (0 if per_tensor else 127)
    assert np.abs(integers[0].astype(int)).max() == 127


@pytest.mark.parametrize(
    ("low", "high", "zero"), [(0.0, 6.0, -128), (-1.0, 1.0, 0), (-3.0, 0.0, 127), (0.0, 0.0, -128)]
)
def test_zero_is_represented_exactly(low: float, high: float, zero: int) -> None:
    found = params_of_range(low, high)
    assert abs(found.zero_point - zero) <= 1
    assert found.quantize(0.0) == found.zero_point
    assert found.scale > 0
