"""Integer operators: their arithmetic exactly, and against ONNX Runtime's own 8-bit operators."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import helper

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.fixed_point import fixed_point, rescale, sum_multipliers
from mdlc.compiler.op import Sample
from mdlc.compiler.ops.lookup import Lookup
from mdlc.compiler.ops.quantized_add import QuantizedAdd
from mdlc.compiler.ops.quantized_average_pool2d import QuantizedAveragePool2D
from mdlc.compiler.ops.quantized_conv2d import QuantizedConv2D
from mdlc.compiler.ops.quantized_dense import QuantizedDense
from mdlc.compiler.ops.quantized_softmax import QuantizedSoftmax
from mdlc.compiler.ops.requantize import Requantize
from mdlc.compiler.types import Array, DType
from mdlc.compiler.window import Window

ACCUMULATORS = st.integers(-(2**31), 2**31 - 1)
FACTORS = st.floats(1e-12, 1e6, allow_nan=False)


@settings(deadline=None)
@given(ACCUMULATORS, FACTORS)
@example(-3, 0.5)
@example(3, 0.5)
@example(-(2**31), 1e-9)
def test_rescale_rounds_once_halves_upwards(total: int, factor: float) -> None:
    multiplier, shift = (int(v) for v in fixed_point(factor))
    exact = Fraction(total * multiplier, 2**shift) + Fraction(1, 2)
    expected = exact.numerator // exact.denominator
    assert int(rescale(np.array(total), multiplier, shift)) == expected


@settings(deadline=None)
@given(FACTORS)
def test_factors_are_close(factor: float) -> None:
    multiplier, shift = (int(v) for v in fixed_point(factor))
    assert 0 <= multiplier < 2**31
    assert 1 <= shift <= 53
    assert abs(multiplier / 2.0**shift - factor) <= max(factor * 2.0**-31, 2.0**-54)


@settings(deadline=None)
@given(ACCUMULATORS, FACTORS)
def test_instructions_of_targets_give_the_same(total: int, factor: float) -> None:
    """The upper half of a product, then a rounding shift: what kernels compute."""
    multiplier, shift = (int(v) for v in fixed_point(factor))
    expected = int(rescale(np.array(total), multiplier, shift))
    left = max(33 - shift, 0)
    shifted = min(max(total << left, -(2**31)), 2**31 - 1)
    doubled = (2 * shifted * multiplier) >> 32  # sqdmulh
    down = shift + left - 31
    on_arm = (doubled + (1 << (down - 1))) >> down  # srshl
    upper, right = (shifted * multiplier) >> 32, shift + left - 32  # vpmuldq
    zero = -128
    on_x86 = (upper + (1 << (right - 1)) + (zero << right)) >> right
    assert -(2**31) <= upper + (1 << (right - 1)) + (zero << right) < 2**31

    def saturated(value: int) -> int:
        return min(max(value, -512), 512)

    assert saturated(on_arm) == saturated(expected)
    assert saturated(on_x86 - zero) == saturated(expected)


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf"), 2.0**30])
def test_impossible_factors_are_refused(factor: float) -> None:
    with pytest.raises(MdlcError, match="rescaling factor"):
        fixed_point(factor)
    with pytest.raises(MdlcError, match="factors"):
        sum_multipliers(factor, 1.0)


@settings(deadline=None)
@given(st.floats(1e-6, 8000), st.floats(1e-6, 8000))
def test_sums_stay_inside_32_bits(a: float, b: float) -> None:
    ma, mb, shift = sum_multipliers(a, b)
    assert max(ma, mb) < 2**15
    assert 1 <= shift <= 22
    assert 510 * 2**15 + 255 * (ma + mb) < 2**31
    for factor, multiplier in ((a, ma), (b, mb)):
        assert abs(multiplier / 2**shift - factor) <= max(max(a, b) * 2.0**-14, 2.0**-23)


def run_onnx(kind: str, inputs: dict[str, Array], domain: str = "", **attributes: object) -> Array:
    """One ONNX Runtime node on constants: all inputs but the first are initializers."""
    names = list(inputs)
    node = helper.make_node(kind, names, ["y"], domain=domain, **attributes)
    first = inputs[names[0]]

    def info(name: str, value: Array) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )

    graph = helper.make_graph(
        [node], "one", [info(names[0], first)],
        [helper.make_empty_tensor_value_info("y")],
        [onnx.numpy_helper.from_array(inputs[name], name) for name in names[1:]],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, {names[0]: first})
    return np.asarray(result)


def assert_at_most_one_step(actual: Array, expected: Array, share: float = 0.02) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    off = np.abs(actual.astype(int) - expected.astype(int))
    assert off.max() <= 1
    assert np.count_nonzero(off) <= share * off.size


def scalar(value: float, dtype: type = np.float32) -> Array:
    return np.array(value, dtype)


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("groups", [1, 4, 16])
def test_convolution_agrees_with_qlinearconv(kind: type, groups: int) -> None:
    rng = np.random.default_rng(groups)
    info = np.iinfo(kind)
    x = rng.integers(info.min, info.max, (1, 16, 9, 11), kind, endpoint=True)
    w = rng.integers(-127, 127, (16, 16 // groups, 3, 3), np.int8, endpoint=True)
    bias = rng.integers(-4000, 4000, 16).astype(np.int32)
    x_scale, y_scale = 0.031, 0.9
    w_scale = rng.uniform(0.004, 0.02, 16).astype(np.float32)
    x_zero, y_zero = (7, -20) if kind is np.int8 else (130, 100)
    expected = run_onnx(
        "QLinearConv",
        {
            "x": x, "xs": scalar(x_scale), "xz": scalar(x_zero, kind), "w": w, "ws": w_scale,
            "wz": np.zeros(16, np.int8), "ys": scalar(y_scale), "yz": scalar(y_zero, kind),
            "b": bias,
        },
        pads=[1, 1, 1, 1], strides=[2, 1], group=groups,
    )  # fmt: skip
    op = QuantizedConv2D(
        (2, 1), (1, 1, 1, 1), groups=groups, x_zero=x_zero, y_zero=y_zero, low=int(info.min),
        high=int(info.max), dtype=DType.from_numpy(kind),
    )  # fmt: skip
    folded = bias - x_zero * w.astype(np.int64).sum((1, 2, 3))
    scales = fixed_point(np.float64(x_scale) * w_scale / y_scale)
    assert_at_most_one_step(op.reference(x, w, folded.astype(np.int32), *scales), expected)


def test_accumulators_agree_with_convinteger() -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 255, (1, 12, 7, 7), np.uint8, endpoint=True)
    w = rng.integers(-128, 127, (8, 12, 3, 3), np.int8, endpoint=True)
    expected = run_onnx(
        "ConvInteger", {"x": x, "w": w, "xz": scalar(97, np.uint8)}, pads=[1, 1, 1, 1]
    )
    op = QuantizedConv2D(pads=(1, 1, 1, 1), x_zero=97, dtype=DType.I32)
    bias = (-97 * w.astype(np.int64).sum((1, 2, 3))).astype(np.int32)
    np.testing.assert_array_equal(op.reference(x, w, bias), expected)


def test_dense_agrees_with_qlinearmatmul() -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(-128, 127, (5, 70), np.int8, endpoint=True)
    w = rng.integers(-127, 127, (24, 70), np.int8, endpoint=True)
    expected = run_onnx(
        "QLinearMatMul",
        {
            "x": x, "xs": scalar(0.02), "xz": scalar(-9, np.int8), "w": w.T.copy(),
            "ws": scalar(0.01), "wz": scalar(0, np.int8), "ys": scalar(1.1),
            "yz": scalar(5, np.int8),
        },
    )  # fmt: skip
    bias = (9 * w.astype(np.int64).sum(1)).astype(np.int32)
    scales = fixed_point(np.full(24, 0.02 * 0.01 / 1.1))
    actual = QuantizedDense(-9, 5).reference(x, w, bias, *scales)
    assert_at_most_one_step(actual, expected)


def test_sum_agrees_with_qlinearadd() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.integers(-128, 127, (4, 900), np.int8, endpoint=True) for _ in range(2))
    expected = run_onnx(
        "QLinearAdd",
        {
            "a": a, "as": scalar(0.05), "az": scalar(3, np.int8), "b": b, "bs": scalar(0.021),
            "bz": scalar(-11, np.int8), "ys": scalar(0.06), "yz": scalar(20, np.int8),
        },
        "com.microsoft",
    )  # fmt: skip
    op = QuantizedAdd(0.05 / 0.06, 0.021 / 0.06, 3, -11, 20)
    assert_at_most_one_step(op.reference(a, b), expected)


def test_average_agrees_with_qlinearaveragepool() -> None:
    rng = np.random.default_rng(4)
    x = rng.integers(0, 255, (1, 10, 9, 9), np.uint8, endpoint=True)
    names = {
        "x": x, "xs": scalar(0.05), "xz": scalar(30, np.uint8), "ys": scalar(0.03),
        "yz": scalar(11, np.uint8),
    }  # fmt: skip
    expected = run_onnx(
        "QLinearAveragePool", names, "com.microsoft", kernel_shape=[3, 3], strides=[2, 2],
        pads=[1, 1, 1, 1],
    )  # fmt: skip
    window = Window((3, 3), (2, 2), (1, 1, 1, 1))
    op = QuantizedAveragePool2D(window, 0.05 / 0.03, False, 30, 11, 0, 255, DType.U8)
    assert_at_most_one_step(op.reference(x), expected, share=0.1)
    whole = run_onnx("QLinearGlobalAveragePool", names, "com.microsoft", channels_last=0)
    op = QuantizedAveragePool2D(Window((9, 9)), 0.05 / 0.03, False, 30, 11, 0, 255, DType.U8)
    assert_at_most_one_step(op.reference(x), whole, share=0.2)


def softmax_in_float(op: QuantizedSoftmax, x: Array) -> Array:
    """DequantizeLinear, Softmax and QuantizeLinear in ONNX Runtime, and the operator's bounds."""
    zero = scalar(17, x.dtype.type)
    real = run_onnx("DequantizeLinear", {"x": x, "s": scalar(op.x_scale), "z": zero})
    shares = run_onnx("Softmax", {"x": real}, axis=op.axis)
    y_zero = scalar(op.y_zero, op.dtype.numpy)
    y = run_onnx("QuantizeLinear", {"x": shares, "s": scalar(op.y_scale), "z": y_zero})
    return np.clip(y, op.low, op.high)


@pytest.mark.parametrize("sample", QuantizedSoftmax.samples(), ids=lambda sample: sample.label)
def test_softmax_agrees_with_float(sample: Sample) -> None:
    assert isinstance(sample.op, QuantizedSoftmax)
    (x,) = sample.inputs
    assert_at_most_one_step(sample.op.reference(x), softmax_in_float(sample.op, x), 0.001)


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("length", [1, 2, 10, 255, 1000])
def test_softmax_of_random_rows_agrees_with_float(length: int, kind: type) -> None:
    """200 rows of each spread; no more than 1 in 10 000 elements differs."""
    rng, info = np.random.default_rng(length), np.iinfo(kind)
    off = total = 0
    for x_scale in (0.003, 0.03, 0.1, 0.7):
        op = QuantizedSoftmax(
            1, x_scale, 1 / 256, int(info.min), int(info.min), int(info.max),
            DType.from_numpy(kind),
        )  # fmt: skip
        middle, spread = rng.integers(info.min, info.max, (200, 1)), rng.uniform(1, 90, (200, 1))
        drawn = rng.normal(middle, spread, (200, length))
        x = np.clip(np.rint(drawn), info.min, info.max).astype(kind)
        found, wanted = op.reference(x), softmax_in_float(op, x)
        assert_at_most_one_step(found, wanted)
        off, total = off + np.count_nonzero(found != wanted), total + x.size
    assert off <= total * 1e-4


@settings(deadline=None)
@given(
    st.lists(st.integers(-128, 127), min_size=1, max_size=40),
    st.floats(1e-6, 1e3),
    st.floats(2.0**-24, 2.0**24),
)
@example([5, 5], 0.1, 1.0)  # halves
@example([-128, 127], 1e300, 2.0**-24)
@example([0], 1e-300, 2.0**24)
def test_softmax_rounds_once_halves_upwards(row: list[int], x_scale: float, y_scale: float) -> None:
    op = QuantizedSoftmax(0, x_scale, y_scale, -128)
    exponential, step = ([int(v) for v in table] for table in op.tables())
    for d in range(256):
        real = math.exp(-d * x_scale) * 2.0**31
        assert abs(exponential[d] - real) <= 0.5 + real * 1e-13
        assert abs(step[d] - real / y_scale) <= 0.5 + real / y_scale * 1e-13
    total = sum(exponential[max(row) - x] for x in row)
    expected = [math.floor(Fraction(step[max(row) - x], total) + Fraction(1, 2)) for x in row]
    found = op.reference(np.array(row, np.int8))
    np.testing.assert_array_equal(found, np.clip(np.array(expected) - 128, -128, 127))


def test_requantize_agrees_with_dequantize_and_quantize() -> None:
    x = np.arange(-128, 128, dtype=np.int8)
    real = run_onnx("DequantizeLinear", {"x": x, "s": scalar(0.05), "z": scalar(9, np.int8)})
    expected = run_onnx("QuantizeLinear", {"x": real, "s": scalar(0.032), "z": scalar(-3, np.int8)})
    assert_at_most_one_step(Requantize(0.05 / 0.032, 9, -3).reference(x), expected)


def test_table_of_an_activation() -> None:
    x = np.arange(-128, 128, dtype=np.int8)
    real = run_onnx("DequantizeLinear", {"x": x, "s": scalar(0.05), "z": scalar(9, np.int8)})
    smooth = run_onnx("Sigmoid", {"x": real})
    table = run_onnx(
        "QuantizeLinear", {"x": smooth, "s": scalar(1 / 255), "z": scalar(-128, np.int8)}
    )
    np.testing.assert_array_equal(Lookup().reference(x[::-1], table), table[::-1])


@pytest.mark.parametrize(
    ("op", "shapes", "reason"),
    [
        (QuantizedConv2D(), ((1, 8, 5, 5), (4, 8, 1, 1)), "takes 5 inputs, not 2"),
        (QuantizedConv2D(dtype=DType.F32), ((1, 8, 5, 5), (4, 8, 1, 1)), "gives i8, u8 or i32"),
        (QuantizedAdd(1.0, 1.0), ((1, 8), (8, 1)), "two inputs of one shape"),
        (QuantizedAdd(1.0, 0.0), ((8,), (8,)), "factors"),
        (Requantize(-1.0), ((8,),), "rescaling factor"),
        (Lookup(), ((8,), (255,)), "256 values"),
        (QuantizedSoftmax(0, 0.1, 1e-8), ((8,),), "scales 0.1 and 1e-08"),
        (QuantizedSoftmax(0, float("inf"), 0.1), ((8,),), "scales inf"),
        (QuantizedSoftmax(0, 0.1, 0.1, dtype=DType.I32), ((8,),), "for i8 and u8"),
    ],
)
def test_what_does_not_fit_is_refused(
    op: QuantizedConv2D, shapes: tuple[tuple[int, ...], ...], reason: str
) -> None:
    from mdlc.compiler.types import TensorType

    with pytest.raises(MdlcError, match=reason):
        op.infer(*(TensorType(shape, DType.I8) for shape in shapes))
