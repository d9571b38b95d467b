"""Networks as ONNX Runtime's own optimiser and quantiser leave them, against ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import mdlc
from mdlc.compiler.interpreter import run
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.types import Array

torch = pytest.importorskip("torch")
quantization = pytest.importorskip("onnxruntime.quantization")

HIDDEN, HEADS, LENGTH = 32, 4, 8


def _layer(x: Any, mask: Any, own: Any) -> Any:
    def heads(y: Any) -> Any:
        return y.view(1, LENGTH, HEADS, HIDDEN // HEADS).permute(0, 2, 1, 3)

    q, k, v = (heads(each(x)) for each in own[:3])
    scores = torch.matmul(q, k.transpose(-1, -2)) / (HIDDEN // HEADS) ** 0.5 + mask
    mixed = torch.matmul(torch.softmax(scores, -1), v).permute(0, 2, 1, 3)
    x = own[4](own[3](mixed.reshape(1, LENGTH, HIDDEN)) + x)
    return own[7](own[6](torch.nn.functional.gelu(own[5](x))) + x)


def _transformer() -> Any:
    """A BERT of one layer."""
    nn = torch.nn

    class Transformer(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(50, HIDDEN), nn.Embedding(16, HIDDEN)
            self.kinds, self.norm = nn.Embedding(2, HIDDEN), nn.LayerNorm(HIDDEN)
            wide = [nn.Linear(HIDDEN, HIDDEN) for _ in range(4)]
            self.own = nn.ModuleList(
                [*wide, nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, 4 * HIDDEN),
                 nn.Linear(4 * HIDDEN, HIDDEN), nn.LayerNorm(HIDDEN)]
            )  # fmt: skip
            self.head = nn.Linear(HIDDEN, 5)

        def forward(self, ids: Any, mask: Any, kinds: Any) -> Any:
            at = torch.arange(LENGTH)[None]
            x = self.norm(self.words(ids) + self.kinds(kinds) + self.places(at))
            hidden = (1.0 - mask[:, None, None, :].float()) * -10000.0
            x = _layer(x, hidden, self.own)
            return x, self.head(torch.tanh(x[:, 0]))

    return Transformer()


def _pictures() -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6(),
        nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Hardswish(), nn.Conv2d(16, 24, 1),
        nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(24, 10), nn.Softmax(-1),
    )  # fmt: skip


def _recurrent() -> Any:
    """Both directions of an LSTM and what its last step says."""

    class Recurrent(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.cell = torch.nn.LSTM(6, 8, bidirectional=True)

        def forward(self, x: Any) -> Any:
            y, (h, _) = self.cell(x)
            return torch.tanh(y), h

    return Recurrent()


def _exported(folder: Path, name: str) -> Path:
    path = folder / f"{name}.onnx"
    torch.manual_seed(0)
    ints = torch.zeros(1, LENGTH, dtype=torch.int64)
    network, given, names = {
        "bert": (_transformer(), (ints, ints + 1, ints), ["ids", "mask", "kinds"]),
        "cnn": (_pictures(), (torch.zeros(1, 3, 24, 24),), ["x"]),
        "lstm": (_recurrent(), (torch.zeros(5, 1, 6),), ["x"]),
    }[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), given, str(path), input_names=names, opset_version=17, dynamo=False
        )
    return path


def _feeds(name: str, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    if name == "cnn":
        return {"x": rng.normal(size=(1, 3, 24, 24)).astype(np.float32)}
    if name == "lstm":
        return {"x": rng.normal(size=(5, 1, 6)).astype(np.float32)}
    mask = (np.arange(LENGTH) < 6).astype(np.int64)[None]
    ids = rng.integers(0, 50, (1, LENGTH))
    return {"ids": ids, "mask": mask, "kinds": np.zeros_like(ids)}


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
    def __init__(self, name: str) -> None:
        self._left = iter([_feeds(name, seed) for seed in range(3)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._left, None)


def _attention(source: Path, target: Path, **more: Any) -> None:
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")
    options.use_multi_head_attention = more.get("multi_head", False)
    optimizer.optimize_model(
        str(source), model_type="bert", num_heads=HEADS, hidden_size=HIDDEN, opt_level=0,
        optimization_options=options,
    ).save_model_to_file(str(target))  # fmt: skip


def _optimised(source: Path, target: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _static(name: str, form: str) -> Callable[[Path, Path], None]:
    def made(source: Path, target: Path) -> None:
        kinds = quantization.QuantType
        quantization.quantize_static(
            str(source), str(target), _Reader(name),
            quant_format=quantization.QuantFormat[form], per_channel=form == "QDQ",
            activation_type=kinds.QUInt8, weight_type=kinds.QInt8,
        )  # fmt: skip

    return made


def _dynamic(source: Path, target: Path) -> None:
    quantization.quantize_dynamic(
        str(source),
        str(target),
        weight_type=quantization.QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def _four_bits(source: Path, target: Path) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=16, is_symmetric=False)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))


CASES: dict[str, tuple[str, tuple[Callable[..., None], ...], str]] = {
    "attention": ("bert", (_attention, _optimised), "Attention"),
    "multi_head": (
        "bert", (lambda s, t: _attention(s, t, multi_head=True),), "MultiHeadAttention"),
    "bert_dynamic": ("bert", (_dynamic, _optimised), "DynamicQuantizeMatMul"),
    "bert_attention_dynamic": ("bert", (_attention, _dynamic), "QAttention"),
    "bert_four_bits": ("bert", (_four_bits,), "MatMulNBits"),
    "bert_static": ("bert", (_static("bert", "QDQ"),), "QuantizeLinear"),
    "lstm_dynamic": ("lstm", (_dynamic,), "DynamicQuantizeLSTM"),
    "cnn_fused": ("cnn", (_optimised,), "FusedConv"),
    "cnn_operators": ("cnn", (_static("cnn", "QOperator"), _optimised), "QLinearConv"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_as_onnxruntime_leaves_it(case: str, tmp_path: Path) -> None:
    name, steps, contains = CASES[case]
    path = _exported(tmp_path, name)
    for number, step in enumerate(steps):
        target = tmp_path / f"{number}.onnx"
        step(path, target)
        path = target
    model = onnx.load(path)
    assert any(contains in node.op_type for node in model.graph.node)
    inputs = _feeds(name, 9)
    kinds = {i.name: i.type.tensor_type.elem_type for i in model.graph.input}
    inputs = {
        k: v.astype(onnx.helper.tensor_dtype_to_np_dtype(kinds[k])) for k, v in inputs.items()
    }
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    expected = dict(
        zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True)
    )
    shapes = {key: value.shape for key, value in inputs.items()}
    found = run(import_model(path, shapes=shapes), inputs)
    for output, value in expected.items():
        # Integers are within one step of each other; ONNX Runtime's LSTM rounds its state.
        rounded = any(kind in case for kind in ("operators", "static", "lstm"))
        bound = 0.02 * np.abs(value).max() if rounded else 1e-4
        np.testing.assert_allclose(found[output], value, 1e-4, bound)
    assert mdlc.compile(path, "x86-avx2", shapes=shapes, name="Net").files()
