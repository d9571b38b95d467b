"""Types that are only stored: every code of 8 and 16 bits against ml_dtypes, whose conversions
ONNX's own reference uses."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import helper

import mdlc
from mdlc.compiler.interpreter import run
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.types import Array
from tests.targets import require

TP = onnx.TensorProto
TYPES = {
    TP.BFLOAT16: (ml_dtypes.bfloat16, 16),
    TP.FLOAT8E4M3FN: (ml_dtypes.float8_e4m3fn, 8),
    TP.FLOAT8E4M3FNUZ: (ml_dtypes.float8_e4m3fnuz, 8),
    TP.FLOAT8E5M2: (ml_dtypes.float8_e5m2, 8),
    TP.FLOAT8E5M2FNUZ: (ml_dtypes.float8_e5m2fnuz, 8),
    TP.FLOAT8E8M0: (ml_dtypes.float8_e8m0fnu, 8),
    TP.FLOAT4E2M1: (ml_dtypes.float4_e2m1fn, 4),
    TP.INT4: (ml_dtypes.int4, 4),
    TP.UINT4: (ml_dtypes.uint4, 4),
    TP.INT2: (ml_dtypes.int2, 2),
    TP.UINT2: (ml_dtypes.uint2, 2),
}
INTEGERS = (TP.INT4, TP.UINT4, TP.INT2, TP.UINT2)
BOUNDED = (TP.FLOAT8E4M3FN, TP.FLOAT8E4M3FNUZ, TP.FLOAT8E5M2, TP.FLOAT8E5M2FNUZ)


def _model(
    nodes: list[onnx.NodeProto], inputs: dict[str, Array], outputs: dict[str, int], opset: int = 26
) -> onnx.ModelProto:
    def info(name: str, kind: int, shape: tuple[int, ...] | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        nodes,
        "stored",
        [info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()],
        [info(name, kind, None) for name, kind in outputs.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=13)


def _same(actual: Array, expected: Array) -> None:
    """Equal as numbers, NaN to NaN and zero to zero of the same sign."""
    assert actual.dtype == expected.dtype
    if str(expected.dtype) in ("int4", "uint4", "int2", "uint2"):
        actual, expected = actual.astype(np.int32), expected.astype(np.int32)
    else:
        actual, expected = actual.astype(np.float64), expected.astype(np.float64)
        known = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(actual)[known], np.signbit(expected)[known])
    np.testing.assert_array_equal(actual, expected)


def _check(model: onnx.ModelProto, inputs: dict[str, Array], target: str = "generic") -> None:
    """The emitted class and the interpreter against ONNX's reference implementation."""
    with np.errstate(all="ignore"):
        values = onnx.reference.ReferenceEvaluator(model).run(None, inputs)
    names = [output.name for output in model.graph.output]
    emitted = mdlc.compile(model, target, name="Net").build()(inputs)
    interpreted = run(import_model(model), inputs)
    for name, expected in zip(names, values, strict=True):
        _same(emitted[name], np.asarray(expected))
        _same(interpreted[name], np.asarray(expected))


def _sixteen_bits() -> Array:
    """Every half and every bfloat16 as a float: all codes of narrower types, and all midpoints."""
    codes = np.arange(65536, dtype=np.uint16)
    halves = [codes.view(kind).astype(np.float32) for kind in (np.float16, ml_dtypes.bfloat16)]
    near = np.random.default_rng(0).integers(0, 2**32, 20000, dtype=np.uint32).view(np.float32)
    return np.concatenate([*halves, near])


def _codes(kind: int) -> Array:
    dtype, bits = TYPES[kind]
    codes = np.arange(1 << bits, dtype=np.uint16 if bits == 16 else np.uint8)
    return codes.view(dtype)


def test_every_code_to_float_and_back() -> None:
    nodes, inputs, outputs = [], {}, {}
    for kind in TYPES:
        name = TP.DataType.Name(kind).lower()
        inputs[name] = _codes(kind)
        for to in (TP.FLOAT, TP.FLOAT16, TP.DOUBLE, kind):
            source = name if to != kind else f"{name}_to_{TP.FLOAT}"
            outputs[f"{name}_to_{to}"] = to
            nodes.append(helper.make_node("Cast", [source], [f"{name}_to_{to}"], to=to))
    _check(_model(nodes, inputs, outputs), inputs)


@pytest.mark.filterwarnings("ignore")
def test_every_half_and_bfloat16_to_narrower_floats() -> None:
    every = _sixteen_bits()
    x = {"x": every, "numbers": every[~np.isnan(every)]}
    nodes, outputs = [], {}
    for kind in TYPES:
        if kind in INTEGERS:
            continue
        ways = [{}] if kind not in BOUNDED else [{"saturate": 1}, {"saturate": 0}]
        if kind == TP.FLOAT8E8M0:
            ways = [{"round_mode": m, "saturate": s} for m in ("up", "down", "nearest")
                    for s in (0, 1)]  # fmt: skip
        for number, how in enumerate(ways):
            name = f"y{kind}_{number}"
            source = "numbers" if kind == TP.FLOAT4E2M1 else "x"  # it has no NaN
            nodes.append(helper.make_node("Cast", [source], [name], to=kind, **how))
            outputs[name] = kind
    _check(_model(nodes, x, outputs), x)


def test_integers_keep_their_lowest_bits() -> None:
    inputs = {"i8": np.arange(-128, 128, dtype=np.int8), "u8": np.arange(256).astype(np.uint8),
              "i32": np.arange(-700, 700, dtype=np.int32)}  # fmt: skip
    nodes, outputs = [], {}
    for name in inputs:
        for kind in INTEGERS:
            outputs[f"{name}_{kind}"] = kind
            nodes.append(helper.make_node("Cast", [name], [f"{name}_{kind}"], to=kind))
    model = _model(nodes, inputs, outputs)
    emitted = mdlc.compile(model, name="Net").build()(inputs)
    interpreted = run(import_model(model), inputs)
    for name, values in inputs.items():
        for kind in INTEGERS:
            dtype, bits = TYPES[kind]
            signed = kind in (TP.INT4, TP.INT2)
            wanted = values.astype(np.int64) & ((1 << bits) - 1)
            wanted -= (wanted >> (bits - 1) << bits) if signed else 0
            _same(emitted[f"{name}_{kind}"], wanted.astype(dtype))
            _same(interpreted[f"{name}_{kind}"], wanted.astype(dtype))


@pytest.mark.parametrize("target", ["generic", "x86-avx512", "arm-neon+fp16"])
def test_stored_types_on_every_target(target: str) -> None:
    """Through movement: codes are transposed as they are."""
    require(target)
    inputs, nodes, outputs = {}, [], {}
    for kind in TYPES:
        name = TP.DataType.Name(kind).lower()
        codes = _codes(kind)
        inputs[name] = np.resize(codes, (1, 4, 3, 7)).astype(codes.dtype)
        nodes += [
            helper.make_node("Transpose", [name], [f"{name}_t"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"{name}_t", "shape"], [f"{name}_y"]),
            helper.make_node("Cast", [f"{name}_y"], [f"{name}_f"], to=TP.FLOAT),
        ]
        outputs |= {f"{name}_y": kind, f"{name}_f": TP.FLOAT}
    model = _model(nodes, inputs, outputs, opset=25)
    shape = np.array([7, 12], np.int64)
    model.graph.initializer.append(onnx.numpy_helper.from_array(shape, "shape"))
    _check(model, inputs, target)


@pytest.mark.parametrize(
    ("target", "at_run_time"), [("generic", False), ("generic", True), ("arm-neon", False)]
)
def test_quantised_to_every_type(target: str, at_run_time: bool) -> None:
    """QuantizeLinear and DequantizeLinear by tensor, by axis and by blocks."""
    require(target)
    rng = np.random.default_rng(1)
    inputs = {"x": rng.normal(0, 3, (2, 6, 4, 5)).astype(np.float32)}
    nodes, outputs, constants = [], {}, {}
    kinds = [k for k in TYPES if k not in (TP.BFLOAT16, TP.FLOAT8E8M0)]
    sampled = (TP.FLOAT8E4M3FN, TP.FLOAT4E2M1, TP.INT4, TP.UINT2)
    for kind in (*kinds, TP.INT16) if target == "generic" else sampled:
        for how, shape in (("all", ()), ("axis", (6,)), ("blocks", (2, 3, 4, 5))):
            name = f"{how}{kind}"
            scale, zero = f"s_{name}", f"z_{name}"
            constants[scale] = rng.uniform(0.3, 0.9, shape).astype(np.float32)
            dtype = helper.tensor_dtype_to_np_dtype(kind)
            zeros = rng.integers(0, 2, shape) if kind in (*INTEGERS, TP.UINT8, TP.INT16) else 0
            constants[zero] = np.full(shape, zeros).astype(dtype)
            more = {"axis": 1} | ({"block_size": 2} if how == "blocks" else {})
            parameters = [scale, zero]
            nodes += [
                helper.make_node("QuantizeLinear", ["x", *parameters], [f"q_{name}"], **more),
                helper.make_node("DequantizeLinear", [f"q_{name}", *parameters], [f"y_{name}"],
                                 **more),
            ]  # fmt: skip
            outputs |= {f"q_{name}": kind, f"y_{name}": TP.FLOAT}
    if at_run_time:
        inputs |= constants
    model = _model(nodes, inputs, outputs, opset=25)
    if not at_run_time:
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(v, k) for k, v in constants.items()
        )
    _check(model, inputs, target)


def test_bits_read_as_another_type() -> None:
    inputs, nodes, outputs = {}, [], {}
    pairs = [(TP.BFLOAT16, TP.FLOAT16), (TP.FLOAT8E5M2, TP.INT8), (TP.UINT4, TP.INT4)]
    for kind, to in [*pairs, (TP.FLOAT16, TP.BFLOAT16)]:
        name = f"x{kind}"
        codes = _codes(kind) if kind in TYPES else np.arange(65536, dtype=np.uint16)
        inputs[name] = codes if kind in TYPES else codes.view(np.float16)
        nodes.append(helper.make_node("BitCast", [name], [f"y{kind}"], to=to))
        outputs[f"y{kind}"] = to
    _check(_model(nodes, inputs, outputs), inputs)


def test_the_header_says_how_types_lie_in_memory() -> None:
    x = {"x": _codes(TP.INT4), "w": _codes(TP.FLOAT8E4M3FN)}
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TP.FLOAT),
             helper.make_node("Cast", ["w"], ["z"], to=TP.BFLOAT16)]  # fmt: skip
    model = _model(nodes, x, {"y": TP.FLOAT, "z": TP.BFLOAT16})
    header = mdlc.compile(model, name="Net").files()["Net.h"].decode()
    assert "kInt4" in header
    assert "kFloat8E4M3FN" in header
    assert "kFloat8E5M2," not in header
    text = " ".join(header.replace("//", " ").split())
    assert "int4 (one in the lowest 4 bits of each byte, the others 0)" in text
    assert "bfloat16 (its bits as uint16_t)" in text
