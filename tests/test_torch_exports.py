"""What both exporters of PyTorch write, with fixed and with open dimensions, interpreted."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import onnx
import pytest

from mdlc.compiler.onnx_import import import_model
from tests.onnx_models import assert_as_onnxruntime

REASON = "the torch extra is not installed"
torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("onnxscript", reason=REASON)
F = torch.nn.functional
nn = torch.nn


class Net(nn.Module):  # type: ignore[misc, name-defined]
    """A convolution of 3 to 8 channels, then a function with one more layer."""

    def __init__(self, after: Callable[[Any, Any], Any], layer: Any = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.layer = layer
        self.after = after

    def forward(self, x: Any) -> Any:
        return self.after(self.layer, self.conv(x))


def gated(_: Any, x: Any) -> Any:
    a, b = x.chunk(2, 1)
    return a * torch.sigmoid(b)


def shuffled(_: Any, x: Any) -> Any:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def attention(_: Any, x: Any) -> Any:
    tokens = x.flatten(2).transpose(1, 2)
    return torch.softmax(tokens @ tokens.transpose(1, 2) / 8**0.5, -1) @ tokens


NETS: dict[str, Callable[[], Any]] = {
    "view": lambda: Net(lambda m, x: m(F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)),
                        nn.Linear(8, 5)),
    "squeeze": lambda: Net(lambda _, x: F.adaptive_avg_pool2d(x, 1).squeeze().sigmoid()),
    "resize": lambda: Net(lambda _, x: F.interpolate(x, scale_factor=2, mode="bilinear")
                          + F.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]))),
    "shuffle": lambda: Net(shuffled),
    "gated": lambda: Net(gated),
    "batch_norm": lambda: Net(lambda m, x: F.hardswish(m(x)), nn.BatchNorm2d(8)),
    "layer_norm": lambda: Net(lambda m, x: m(x.permute(0, 2, 3, 1)), nn.LayerNorm(8)),
    "pad": lambda: Net(lambda _, x: F.max_pool2d(F.pad(x, (0, 1, 1, 2)), 2, ceil_mode=True)),
    "slice": lambda: Net(lambda _, x: torch.cat([x[:, 1::2], x[:, ::2]], 1)[:, :, 1:-1]),
    "transposed": lambda: Net(lambda m, x: F.leaky_relu(m(x)), nn.ConvTranspose2d(8, 4, 4, 2, 1)),
    "attention": lambda: Net(attention),
    "arange": lambda: Net(lambda _, x: x + torch.arange(x.shape[3], dtype=x.dtype)),
    "argmax": lambda: Net(lambda _, x: x.argmax(1)),
}  # fmt: skip

MODES: dict[str, dict[str, Any]] = {
    "opset11": {"dynamo": False, "opset_version": 11},
    "opset17_open": {"dynamo": False, "opset_version": 17, "input_names": ["x"],
                     "dynamic_axes": {"x": {0: "n", 2: "h", 3: "w"}}},
    "dynamo": {"dynamo": True, "verbose": False},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """torch warns about its own parts."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("name", list(NETS))
def test_exported_networks(name: str, mode: str) -> None:
    torch.manual_seed(0)
    net, x = NETS[name]().eval(), torch.randn(1, 3, 12, 10)
    file = io.BytesIO()
    with torch.no_grad():
        if MODES[mode]["dynamo"]:
            torch.onnx.export(net, (x,), **MODES[mode]).save(file)
        else:
            torch.onnx.export(net, (x,), file, **MODES[mode])
    proto = onnx.load_from_string(file.getvalue())
    graph = import_model(proto, shapes={proto.graph.input[0].name: tuple(x.shape)})
    assert not {type(n.op).__name__ for n in graph.order()} & {"Shape", "Identity"}
    assert_as_onnxruntime(proto, graph)
