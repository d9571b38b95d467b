"""Operators imported as others, in the interpreter, against ONNX Runtime or onnx's reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.types import Array

Arrays = Mapping[str, Array | None]


def one_node(
    kind: str,
    arrays: Arrays,
    constants: Sequence[str] = (),
    outputs: Sequence[str] = ("y",),
    opset: int = 20,
    **attributes: Any,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A model of one operator; inputs named in `constants` are initialisers, None is absent."""
    names = [name if array is not None else "" for name, array in arrays.items()]
    given_arrays = {name: array for name, array in arrays.items() if array is not None}
    graph = helper.make_graph(
        [helper.make_node(kind, names, list(outputs), name="node", **attributes)],
        "one",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in given_arrays.items()
            if name not in constants
        ],
        [helper.make_tensor_value_info(name, 1 if name == "y" else 7, None) for name in outputs],
        [onnx.numpy_helper.from_array(given_arrays[name], name) for name in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return model, {name: a for name, a in given_arrays.items() if name not in constants}


def check(
    model: onnx.ModelProto, values: dict[str, Array], *, reference: bool = False, atol: float = 1e-5
) -> None:
    if reference:
        expected = ReferenceEvaluator(model).run(None, values)
    else:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        expected = session.run(None, values)
    actual = run(import_model(model), values)
    for output, array in zip(model.graph.output, expected, strict=True):
        assert actual[output.name].shape == array.shape
        np.testing.assert_allclose(actual[output.name], array, rtol=1e-4, atol=atol)


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


@given(
    st.sampled_from([(4, 1), (5, 1), (6, 2), (7, 2), (1, 2)]),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(1, 9),
)
@settings(max_examples=40, deadline=None)
def test_dft(
    size: tuple[int, int], axis: int, inverse: bool, onesided: bool, length: int | None
) -> None:
    count, parts = size
    shape = [2, 3, 2]
    shape[axis] = count
    if onesided:
        # Forward, of real numbers; backward, of complex ones.
        parts = 2 if inverse else 1
    if inverse and onesided and (length or 2 * (count - 1)) < 1:
        return
    arrays = {
        "x": numbers(count, *shape, parts),
        "length": None if length is None else np.array(length, np.int64),
        "axis": np.array(axis, np.int64),
    }
    constants = [name for name in ("length", "axis") if arrays[name] is not None]
    model, values = one_node("DFT", arrays, constants, inverse=int(inverse), onesided=int(onesided))
    check(model, values, reference=True)


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("window", [False, True])
def test_stft(onesided: int, window: bool) -> None:
    arrays = {
        "x": numbers(1, 2, 50, 1),
        "step": np.array(7, np.int64),
        "window": np.hanning(16).astype(np.float32) if window else None,
        "length": np.array(16, np.int64),
    }
    check(*one_node("STFT", arrays, ["step", "length"], onesided=onesided), atol=1e-4)


@pytest.mark.parametrize("sizes", [(8, 16, 8192), (40, 512, 16000)])
def test_mel_weights(sizes: tuple[int, int, int]) -> None:
    names = ("bins", "length", "rate")
    arrays: dict[str, Array | None] = {
        name: np.array(v, np.int64) for name, v in zip(names, sizes, strict=True)
    }
    arrays |= {"low": np.array(0, np.float32), "high": np.array(sizes[2] / 2, np.float32)}
    check(*one_node("MelWeightMatrix", arrays, list(arrays)))


@given(
    st.integers(1, 3),
    st.sampled_from([1, 2, 3]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_lp_pool(rank: int, p: int, kernel: int, stride: int, padded: bool) -> None:
    pads = [int(padded and kernel > 1)] * rank * 2
    model, values = one_node(
        "LpPool", {"x": numbers(p, 2, 3, *(7, 6, 5)[:rank])}, opset=18,
        p=p, kernel_shape=[kernel] * rank, strides=[stride] * rank, pads=pads,
    )  # fmt: skip
    check(model, values, atol=1e-4)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_global_lp_pool(p: int) -> None:
    check(*one_node("GlobalLpPool", {"x": numbers(p, 2, 3, 4, 5)}, p=p), atol=1e-4)


@given(st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(0, 1))
@settings(max_examples=30, deadline=None)
def test_indices_and_back(kernel: int, stride: int, ceil_mode: bool, order: int) -> None:
    x = np.random.default_rng(kernel).permutation(2 * 3 * 7 * 8).reshape(2, 3, 7, 8)
    model, values = one_node(
        "MaxPool", {"x": x.astype(np.float32)}, (), ("y", "at"), 12, kernel_shape=[kernel, 2],
        strides=[stride, 2], ceil_mode=int(ceil_mode), storage_order=order,
    )  # fmt: skip
    check(model, values)
    if kernel > stride or ceil_mode or order:
        return
    results = run(import_model(model), values)
    model, values = one_node(
        "MaxUnpool", {"x": results["y"], "at": results["at"]}, kernel_shape=[kernel, 2],
        strides=[stride, 2],
    )  # fmt: skip
    # Places are those of the pooled picture, which may have been larger than what comes back.
    if (results["y"].shape[2] - 1) * stride + kernel == 7:
        check(model, values)


@pytest.mark.parametrize("mode", ["linear", "circular"])
@pytest.mark.parametrize("first", [None, (3, 4)])
def test_tensor_scatter(mode: str, first: tuple[int, int] | None) -> None:
    arrays = {
        "x": numbers(1, 2, 3, 6, 4),
        "update": numbers(2, 2, 3, 2, 4),
        "first": None if first is None else np.array(first, np.int64),
    }
    model, values = one_node("TensorScatter", arrays, opset=24, mode=mode)
    check(model, values, reference=True)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("group", [1, 2])
def test_deformable_convolution(constant: bool, group: int) -> None:
    arrays = {
        "x": numbers(1, 2, 4, 6, 7),
        "w": numbers(2, 6, 4 // group, 3, 2),
        "offset": numbers(3, 2, 2 * 12, 6, 6),
        "b": numbers(4, 6),
        "mask": np.abs(numbers(5, 2, 12, 6, 6)),
    }
    model, values = one_node(
        "DeformConv", arrays, ["w", "b"] if constant else [], group=group, offset_group=2,
        pads=[1, 0, 1, 0],
    )  # fmt: skip
    check(model, values, reference=True, atol=1e-4)


@pytest.mark.parametrize("kind", ["BatchNormalization", "InstanceNormalization"])
def test_statistics_at_run_time(kind: str) -> None:
    names = ("scale", "bias", "mean", "variance")[: 4 if kind.startswith("Batch") else 2]
    arrays = {"x": numbers(1, 2, 3, 4, 5)}
    arrays |= {name: np.abs(numbers(i, 3)) for i, name in enumerate(names)}
    check(*one_node(kind, arrays), atol=1e-4)


def test_what_must_be_known_names_the_inputs() -> None:
    arrays = {"x": numbers(1, 1, 8, 1), "length": np.array(8, np.int64)}
    model, _ = one_node("DFT", arrays)
    with pytest.raises(MdlcError) as error:
        import_model(model)
    assert error.value.inputs == ("length",)
    assert "give what it is computed from with --fix length=VALUE" in str(error.value)


@given(
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([1, 2]),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 1),
    st.integers(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_transposed_convolutions(
    rank: int, constant: bool, group: int, stride: int, dilation: int, pad: int, extra: int
) -> None:
    size, kernel = (4, 3, 5)[:rank], (3, 2, 2)[:rank]
    arrays = {
        "x": numbers(1, 2, 4, *size),
        "w": numbers(2, 4, 3, *kernel),
        "b": numbers(3, 3 * group),
    }
    model, values = one_node(
        "ConvTranspose", arrays, ["w", "b"] if constant else [], group=group,
        strides=[stride] * rank, dilations=[dilation] * rank, pads=[pad] * rank + [0] * rank,
        output_padding=[min(extra, stride - 1)] * rank,
    )  # fmt: skip
    check(model, values, atol=1e-4)
