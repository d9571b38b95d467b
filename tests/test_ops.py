"""Derived from every operator's samples: inference, and the reference against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import mdlc.compiler.ops  # noqa: F401
from mdlc.compiler.op import Op, Sample
from mdlc.compiler.types import DType, TensorType
from tests.op_samples import feeds, onnx_model, sampled_ops, samples

# Operators that no single ONNX operator of opset 20 means, or that ONNX Runtime lacks there.
NOT_COMPARED = {
    "BitCast": "came with opset 26; compared with ONNX's reference in test_stored_types.py",
    "ChannelShuffle": "compared in its pass's tests, as the reshapes that it replaces",
    "Lookup": "a table of any function; compared in test_quantized_ops.py",
    "QuantizedAdd": "compared with QLinearAdd in test_quantized_ops.py",
    "QuantizedAveragePool2D": "compared with QLinearAveragePool in test_quantized_ops.py",
    "QuantizedConv2D": "compared with QLinearConv and ConvInteger in test_quantized_ops.py",
    "QuantizedDense": "compared with QLinearMatMul in test_quantized_ops.py",
    "QuantizedSoftmax": "compared with a QDQ model in test_quantized_ops.py",
    "Requantize": "compared with DequantizeLinear and QuantizeLinear in test_quantized_ops.py",
    "Attention": "views and products in one; compared as exported in test_fuse_attention.py",
    "Affine": "an activation of recurrent layers; compared in test_recurrent.py",
    "Recurrent": "compared with LSTM, GRU and RNN in test_recurrent.py",
    "ScaledTanh": "an activation of recurrent layers; compared in test_recurrent.py",
    "TopK": "the indices alone; compared with values in test_selection.py",
    "DeformPatches": "compared as DeformConv in test_composed_operators.py",
    "MaxPoolIndices": "compared with MaxPool's in test_composed_operators.py",
    "NonMaxSuppression": "rows and count in one; compared in test_counts.py",
    "NonZero": "indices and count in one; compared in test_counts.py",
    "Span": "the entries that a Slice takes; compared with Slice in test_counts.py",
    "Unique": "indices and count in one; compared in test_counts.py",
    "Silu": "Swish came with opset 24; compared as x * Sigmoid(x) in its pass's tests",
}


@pytest.mark.parametrize("sample", samples())
def test_infer_agrees_with_reference(sample: Sample) -> None:
    inferred = sample.op.infer(
        *(TensorType(v.shape, DType.from_numpy(v.dtype)) for v in sample.inputs)
    )
    value = sample.op.reference(*sample.inputs)
    assert inferred.shape == value.shape
    assert inferred.dtype.numpy == value.dtype


@pytest.mark.parametrize("sample", [p for p in samples() if p.values[0].op.to_onnx() is not None])
def test_reference_agrees_with_onnxruntime(sample: Sample) -> None:
    form = sample.op.to_onnx()
    assert form is not None
    session = onnxruntime.InferenceSession(
        onnx_model(sample, form).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, feeds(sample))
    actual = sample.op.reference(*sample.inputs)
    assert actual.dtype == expected.dtype
    if actual.dtype.kind == "f":
        np.testing.assert_allclose(actual, expected, rtol=sample.rtol, atol=sample.atol)
    else:
        np.testing.assert_array_equal(actual, expected)


def test_what_is_not_compared_is_listed() -> None:
    missing = {
        cls.__name__
        for cls in sampled_ops()
        if all(sample.op.to_onnx() is None for sample in cls.samples())
    }
    assert missing == set(NOT_COMPARED)


def test_every_imported_operator_is_sampled() -> None:
    made_of_others = {"DynamicQuantizeLinear", "IntegerProduct", "QLinear"}
    made_of_others |= {"Hardmax", "Identity", "Mean", "Shape"}
    made_of_others |= {"Einsum", "EyeLike", "LpNormalization", "OneHot", "ReverseSequence"}
    made_of_others |= {"Trilu", "Window"}
    made_of_others |= {"DFT", "LpPool", "TensorScatter"}
    unsampled = {cls.__name__ for cls in Op.importers.values() if not cls.samples()}
    assert unsampled == made_of_others
