"""Standard networks as ONNX models with seeded random weights, for timing only.

224x224, batch 1, BatchNormalization with statistics that keep activations in range. Definitions:
MobileNetV1 (arXiv 1704.04861, table 1), MobileNetV2 (arXiv 1801.04381, table 2), ResNet-18 and
ResNet-50 v1.5 (arXiv 1512.03385, table 1; the stride of a bottleneck in its 3x3), SqueezeNet 1.1
(arXiv 1602.07360 and its authors' release notes), ShuffleNetV2 1.0x (arXiv 1807.11164, table 5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx


class Builder:
    """Collects nodes and weights; tensors are names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.channels: dict[str, int] = {"input": 3}
        self._random = np.random.default_rng(0)

    def weight(self, value: np.ndarray[Any, Any]) -> str:
        """A weight's name."""
        name = f"w{len(self.weights)}"
        self.weights.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def node(self, kind: str, *inputs: str, channels: int | None = None, **attributes: Any) -> str:
        """The name of a node's output, of as many channels as the first input unless given."""
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [name], name=name, **attributes))
        self.channels[name] = channels or self.channels[inputs[0]]
        return name

    def conv(
        self,
        x: str,
        filters: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: str = "Relu",
        norm: bool = True,
        pad: int | None = None,
    ) -> str:
        """A convolution with normalisation (or a bias) and an activation ("" for none).

        Padding is half the kernel unless given.
        """
        per_group = self.channels[x] // groups
        scale = np.sqrt(2.0 / (per_group * kernel * kernel))
        shape = (filters, per_group, kernel, kernel)
        inputs = [x, self.weight(self._random.normal(0, scale, shape))]
        if not norm:
            inputs.append(self.weight(self._random.uniform(-0.1, 0.1, filters)))
        pad = kernel // 2 if pad is None else pad
        y = self.node("Conv", *inputs, channels=filters, strides=[stride] * 2, pads=[pad] * 4,
                      group=groups, kernel_shape=[kernel] * 2)  # fmt: skip
        if norm:
            ranges = ((0.8, 1.2), (-0.2, 0.2), (-0.2, 0.2), (0.8, 1.2))
            values = [self.weight(self._random.uniform(*r, filters)) for r in ranges]
            y = self.node("BatchNormalization", y, *values)
        return self.activate(y, act)

    def activate(self, x: str, act: str) -> str:
        """Relu, Relu6 (a Clip) or nothing."""
        if act == "Relu6":
            low, high = (self.weight(np.array(v)) for v in (0.0, 6.0))
            return self.node("Clip", x, low, high)
        return self.node(act, x) if act else x

    def pool(self, x: str, kernel: int, stride: int, pad: int, ceil: int = 0) -> str:
        """Max pooling."""
        return self.node("MaxPool", x, kernel_shape=[kernel] * 2, strides=[stride] * 2,
                         pads=[pad] * 4, ceil_mode=ceil)  # fmt: skip

    def classifier(self, x: str, classes: int = 1000) -> str:
        """Global average, dense layer."""
        flat = self.node("Flatten", self.node("GlobalAveragePool", x))
        count = self.channels[flat]
        weights = self.weight(self._random.normal(0, 1 / np.sqrt(count), (classes, count)))
        bias = self.weight(self._random.uniform(-0.1, 0.1, classes))
        return self.node("Gemm", flat, weights, bias, channels=classes, transB=1)

    def model(self, name: str, output: str, shape: tuple[int, ...]) -> onnx.ModelProto:
        """The finished model."""
        kind = onnx.TensorProto.FLOAT
        graph = onnx.helper.make_graph(
            self.nodes,
            name,
            [onnx.helper.make_tensor_value_info("input", kind, (1, 3, 224, 224))],
            [onnx.helper.make_tensor_value_info(output, kind, shape)],
            self.weights,
        )
        return onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
        )


def mobilenet_v1() -> onnx.ModelProto:
    """MobileNetV1 1.0: 569 M MAC."""
    b = Builder()
    x = b.conv("input", 32, 3, 2)
    for filters, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
                            *[(512, 1)] * 5, (1024, 2), (1024, 1)):  # fmt: skip
        x = b.conv(b.conv(x, b.channels[x], 3, stride, b.channels[x]), filters)
    return b.model("mobilenet_v1", b.classifier(x), (1, 1000))


def mobilenet_v2() -> onnx.ModelProto:
    """MobileNetV2 1.0: 301 M MAC."""
    b = Builder()
    x = b.conv("input", 32, 3, 2, act="Relu6")
    for expand, filters, count, first in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2),
                                          (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
                                          (6, 320, 1, 1)):  # fmt: skip
        for index in range(count):
            stride, source = first if index == 0 else 1, x
            wide = b.channels[x] * expand
            y = b.conv(x, wide, act="Relu6") if expand > 1 else x
            y = b.conv(b.conv(y, wide, 3, stride, wide, act="Relu6"), filters, act="")
            same = stride == 1 and b.channels[source] == filters
            x = b.node("Add", source, y) if same else y
    return b.model("mobilenet_v2", b.classifier(b.conv(x, 1280, act="Relu6")), (1, 1000))


def _resnet(name: str, counts: tuple[int, ...], bottleneck: bool) -> onnx.ModelProto:
    b = Builder()
    x = b.pool(b.conv("input", 64, 7, 2), 3, 2, 1)
    for stage, count in enumerate(counts):
        width = 64 << stage
        filters = width * 4 if bottleneck else width
        for index in range(count):
            stride = 2 if stage and index == 0 else 1
            if bottleneck:
                y = b.conv(b.conv(b.conv(x, width), width, 3, stride), filters, act="")
            else:
                y = b.conv(b.conv(x, width, 3, stride), filters, 3, act="")
            if stride > 1 or b.channels[x] != filters:
                x = b.conv(x, filters, 1, stride, act="")
            x = b.activate(b.node("Add", y, x), "Relu")
    return b.model(name, b.classifier(x), (1, 1000))


def resnet_18() -> onnx.ModelProto:
    """ResNet-18: 1.81 G MAC."""
    return _resnet("resnet_18", (2, 2, 2, 2), False)


def resnet_50() -> onnx.ModelProto:
    """ResNet-50 v1.5: 4.1 G MAC."""
    return _resnet("resnet_50", (3, 4, 6, 3), True)


def squeezenet() -> onnx.ModelProto:
    """SqueezeNet 1.1: 0.35 G MAC."""
    b = Builder()
    x = b.conv("input", 64, 3, 2, norm=False, pad=0)
    for index, (squeeze, expand) in enumerate(((16, 64), (16, 64), (32, 128), (32, 128), (48, 192),
                                               (48, 192), (64, 256), (64, 256))):  # fmt: skip
        if index in (0, 2, 4):
            x = b.pool(x, 3, 2, 0, 1)
        x = b.conv(x, squeeze, norm=False)
        left, right = b.conv(x, expand, norm=False), b.conv(x, expand, 3, norm=False)
        x = b.node("Concat", left, right, channels=2 * expand, axis=1)
    x = b.node("GlobalAveragePool", b.conv(x, 1000, norm=False))
    return b.model("squeezenet", b.node("Flatten", x), (1, 1000))


def shufflenet_v2() -> onnx.ModelProto:
    """ShuffleNetV2 1.0x: 0.146 G MAC."""
    b = Builder()
    x = b.pool(b.conv("input", 24, 3, 2), 3, 2, 1)
    size = 56
    for filters, count in ((116, 4), (232, 8), (464, 4)):
        half, size = filters // 2, size // 2
        for index in range(count):
            if index == 0:
                wide = b.channels[x]
                left = b.conv(b.conv(x, wide, 3, 2, wide, act=""), half)
                right, stride = x, 2
            else:
                sizes = b_ints(b, [half, half])
                left, right = f"left{len(b.nodes)}", f"right{len(b.nodes)}"
                b.nodes.append(onnx.helper.make_node("Split", [x, sizes], [left, right], axis=1))
                b.channels[left] = b.channels[right] = half
                stride = 1
            right = b.conv(b.conv(b.conv(right, half), half, 3, stride, half, act=""), half)
            x = b.node("Concat", left, right, channels=filters, axis=1)
            x = b.node("Reshape", x, b_ints(b, [1, 2, half, size, size]))
            x = b.node("Transpose", x, perm=[0, 2, 1, 3, 4])
            x = b.node("Reshape", x, b_ints(b, [1, filters, size, size]), channels=filters)
    return b.model("shufflenet_v2", b.classifier(b.conv(x, 1024)), (1, 1000))


def b_ints(b: Builder, values: list[int]) -> str:
    """A constant list of integers."""
    name = f"i{len(b.weights)}"
    b.weights.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    return name


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    f.__name__: f
    for f in (mobilenet_v1, mobilenet_v2, resnet_50, resnet_18, squeezenet, shufflenet_v2)
}
