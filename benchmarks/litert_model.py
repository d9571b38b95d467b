"""A network in QuantizeLinear/DequantizeLinear form as a LiteRT (TensorFlow Lite) model.

Covers what benchmarks/int8_models.py makes of benchmarks/networks.py. The file is written with the
schema that comes in the ai-edge-litert package: int8 activations with a scale a tensor, int8
weights with a scale a channel, int32 biases, channels last, as LiteRT's quantisation specification
has them. Padding that is no SAME of LiteRT's is a PAD of its own; the inputs of a concatenation
share one scale, as its converter has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.runtimes import Array

Linear = tuple[float, int]
# Of the operators' int8 forms, where it is not 2: CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED,
# RESHAPE, QUANTIZE.
VERSIONS = {3: 3, 4: 3, 9: 4, 22: 1, 114: 1}
SAME_SCALE = ("Concat", "MaxPool", "Reshape", "Flatten", "Transpose", "Split")


class Writer:
    """Tensors and operators of the model so far."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: dict[int, int] = {}

    def tensor(
        self,
        name: str,
        shape: Iterable[int],
        kind: str = "INT8",
        linear: tuple[Iterable[float], Iterable[int]] | None = None,
        axis: int = 0,
        data: Array | None = None,
    ) -> int:
        """A tensor's number; constants have data."""
        made = self.schema.TensorT()
        made.name, made.shape = name, [int(d) for d in shape]
        made.type = getattr(self.schema.TensorType, kind)
        if linear is not None:
            made.quantization = self.schema.QuantizationParametersT()
            made.quantization.scale = [float(s) for s in linear[0]]
            made.quantization.zeroPoint = [int(z) for z in linear[1]]
            made.quantization.quantizedDimension = axis
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            made.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.tensors.append(made)
        return len(self.tensors) - 1

    def ints(self, values: object) -> int:
        """A constant of int32."""
        data = np.array(values, np.int32)
        return self.tensor(f"i{len(self.tensors)}", data.shape, "INT32", data=data)

    def op(self, code: str, inputs: list[int], outputs: list[int], **options: Any) -> None:
        """An operator; `options` has the table's name as `kind` and its fields."""
        schema, number = self.schema, getattr(self.schema.BuiltinOperator, code)
        made = schema.OperatorT()
        made.opcodeIndex = self.codes.setdefault(number, len(self.codes))
        made.inputs, made.outputs = inputs, outputs
        if kind := options.pop("kind", None):
            made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            made.builtinOptions = getattr(schema, f"{kind}T")()
            for field, value in options.items():
                setattr(made.builtinOptions, field, value)
        self.operators.append(made)

    def save(self, inputs: list[int], outputs: list[int], made: Path) -> None:
        """Writes the file."""
        import flatbuffers  # type: ignore[import-untyped]

        schema = self.schema
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = inputs, outputs
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [graph], self.buffers
        model.operatorCodes = []
        for number in self.codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
            code.version = VERSIONS.get(number, 2)
            model.operatorCodes.append(code)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        made.write_bytes(bytes(builder.Output()))


class Converter:
    """One model's way from ONNX."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = onnx.shape_inference.infer_shapes(model).graph
        self.graph = graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.shapes = {
            v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in (*graph.value_info, *graph.input, *graph.output)
        }
        self.origin: dict[str, str] = {}  # what a chain of conversions began with
        self.linear: dict[str, Linear] = {}
        self.made: dict[str, int] = {}
        self.writer = Writer()
        for node in graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                source = self.root(node.input[0])
                self.origin[node.output[0]] = source
                if node.op_type == "QuantizeLinear":
                    scale, zero = (self.constants[name] for name in node.input[1:3])
                    self.linear[source] = (float(scale), int(zero) - 128)
        self._share_scales()

    def root(self, name: str) -> str:
        """The tensor before any conversion between float and integer."""
        return self.origin.get(name, name)

    def _share_scales(self) -> None:
        """One scale for tensors that are moved only, the widest."""
        group: dict[str, set[str]] = {}
        for node in self.graph.node:
            if node.op_type in SAME_SCALE:
                names = [self.root(n) for n in (*node.input, *node.output)]
                joined = set().union(*(group.get(n, {n}) for n in names if n in self.linear))
                group.update(dict.fromkeys(joined, joined))
        for names in {id(g): g for g in group.values()}.values():
            ranges = [(s * (-128 - z), s * (127 - z)) for s, z in map(self.linear.get, names)]  # type: ignore[misc]
            low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
            scale = (high - low) / 255
            self.linear.update(dict.fromkeys(names, (scale, round(-128 - low / scale))))

    def activation(self, name: str) -> int:
        """The int8 tensor of an ONNX tensor, channels last."""
        name = self.root(name)
        if name not in self.made:
            shape = self.shapes[name]
            self.made[name] = self.new(name, [shape[0], *shape[2:], shape[1]])
        return self.made[name]

    def new(self, name: str, shape: list[int]) -> int:
        """An int8 tensor with the scale of an ONNX tensor."""
        scale, zero = self.linear[self.root(name)]
        return self.writer.tensor(f"{name}{len(self.writer.tensors)}", shape, "INT8",
                                  ([scale], [zero]))  # fmt: skip

    def weights(self, name: str) -> tuple[Array, Array]:
        """Integers and their scales, one per output channel."""
        (source,) = (n for n in self.graph.node if name in n.output)
        values, scale, zero = (self.constants[i] for i in source.input[:3])
        assert not zero.any()
        return values, np.broadcast_to(scale.reshape(-1), values.shape[:1])

    def bias(self, node: onnx.NodeProto, scales: Array) -> int:
        """The bias at the product's scale."""
        name = node.input[2]
        if name in self.constants:
            real = self.constants[name]
        else:
            integers, scale = self.weights(name)
            real = integers * scale
        step = self.linear[self.root(node.input[0])][0] * scales.astype(np.float64)
        return self.writer.tensor(f"{name}_b", real.shape, "INT32", (step, [0] * len(step)),
                                  data=np.rint(real / step).astype(np.int32))  # fmt: skip

    def padded(self, name: str, pads: list[int]) -> int:
        """The tensor with a border of zeros [top, left, bottom, right]."""
        x = self.activation(name)
        if not any(pads):
            return x
        shape = list(self.writer.tensors[x].shape)
        top, left, bottom, right = pads
        shape[1], shape[2] = shape[1] + top + bottom, shape[2] + left + right
        y = self.new(self.root(name), shape)
        border = self.writer.ints([[0, 0], [top, bottom], [left, right], [0, 0]])
        self.writer.op("PAD", [x, border], [y], kind="PadOptions")
        return y

    def convert(self, made: Path) -> None:
        """Writes the model; raises KeyError for an operator that the networks do not have."""
        w, nodes = self.writer, list(self.graph.node)
        first, last = self.graph.input[0].name, self.root(self.graph.output[0].name)
        source = w.tensor("input", [1, 224, 224, 3], "FLOAT32")
        w.op("QUANTIZE", [source], [self.activation(first)])
        for index, node in enumerate(nodes):
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
                {
                    "Conv": self.convolution,
                    "Gemm": self.dense,
                    "MaxPool": self.pool,
                    "GlobalAveragePool": self.mean,
                    "Add": self.add,
                    "Concat": self.concat,
                    "Split": self.split,
                    "Flatten": self.flatten,
                    "Reshape": lambda node, at=index: self.shuffle(node, nodes[at:]),
                    "Transpose": lambda node: None,  # the middle of a shuffle
                }[node.op_type](node)
        result = w.tensor("output", self.shapes[self.graph.output[0].name], "FLOAT32")
        w.op("DEQUANTIZE", [self.made[last]], [result])
        w.save([source], [result], made)

    def convolution(self, node: onnx.NodeProto) -> None:
        """CONV_2D, or DEPTHWISE_CONV_2D."""
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        values, scales = self.weights(node.input[1])
        pads, (step, _) = list(given.get("pads", [0] * 4)), given.get("strides", [1, 1])
        size = self.shapes[self.root(node.input[0])][2]
        # What LiteRT pads by itself for its SAME.
        same = max((-(-size // step) - 1) * step + values.shape[2] - size, 0)
        fits = any(pads) and pads == [same // 2, same // 2, same - same // 2, same - same // 2]
        x = self.activation(node.input[0]) if fits else self.padded(node.input[0], pads)
        padding = self.writer.schema.Padding
        options = {
            "strideH": step,
            "strideW": step,
            "padding": padding.SAME if fits else padding.VALID,
        }
        depthwise = given.get("group", 1) > 1
        data = values.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
        linear = (scales, [0] * len(scales))
        weights = self.writer.tensor(f"{node.name}_w", data.shape, "INT8", linear,
                                     3 if depthwise else 0, data)  # fmt: skip
        inputs, y = [x, weights, self.bias(node, scales)], self.activation(node.output[0])
        if depthwise:
            options |= {"kind": "DepthwiseConv2DOptions", "depthMultiplier": 1}
            self.writer.op("DEPTHWISE_CONV_2D", inputs, [y], **options)
        else:
            self.writer.op("CONV_2D", inputs, [y], kind="Conv2DOptions", **options)

    def dense(self, node: onnx.NodeProto) -> None:
        """FULLY_CONNECTED."""
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert given.get("transB") == 1
        values, scales = self.weights(node.input[1])
        linear = (scales, [0] * len(scales))
        weights = self.writer.tensor("dense_w", values.shape, "INT8", linear, 0, values)
        x, b = self.activation(node.input[0]), self.bias(node, scales)
        y = self.activation(node.output[0])
        self.writer.op("FULLY_CONNECTED", [x, weights, b], [y], kind="FullyConnectedOptions")

    def pool(self, node: onnx.NodeProto) -> None:
        """MAX_POOL_2D; everything in front of a pool here is positive, so that zeros pad it."""
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        x = self.padded(node.input[0], list(given["pads"]))
        (height, width), (down, right) = given["kernel_shape"], given["strides"]
        self.writer.op("MAX_POOL_2D", [x], [self.activation(node.output[0])], kind="Pool2DOptions",
                       padding=self.writer.schema.Padding.VALID, strideH=down, strideW=right,
                       filterHeight=height, filterWidth=width)  # fmt: skip

    def mean(self, node: onnx.NodeProto) -> None:
        """MEAN over the image."""
        inputs = [self.activation(node.input[0]), self.writer.ints([1, 2])]
        y = self.activation(node.output[0])
        self.writer.op("MEAN", inputs, [y], kind="ReducerOptions", keepDims=True)

    def add(self, node: onnx.NodeProto) -> None:
        """ADD."""
        inputs = [self.activation(name) for name in node.input]
        self.writer.op("ADD", inputs, [self.activation(node.output[0])], kind="AddOptions")

    def concat(self, node: onnx.NodeProto) -> None:
        """CONCATENATION of channels."""
        inputs = [self.activation(name) for name in node.input]
        y = self.activation(node.output[0])
        self.writer.op("CONCATENATION", inputs, [y], kind="ConcatenationOptions", axis=3)

    def split(self, node: onnx.NodeProto) -> None:
        """SPLIT of channels in halves."""
        inputs = [self.writer.ints(3), self.activation(node.input[0])]
        outputs = [self.activation(name) for name in node.output]
        self.writer.op("SPLIT", inputs, outputs, kind="SplitOptions", numSplits=len(outputs))

    def flatten(self, node: onnx.NodeProto) -> None:
        """RESHAPE of one pixel."""
        x, y = self.activation(node.input[0]), self.activation(node.output[0])
        shape = self.writer.ints(self.shapes[self.root(node.output[0])])
        self.writer.op("RESHAPE", [x, shape], [y], kind="ReshapeOptions")

    def shuffle(self, node: onnx.NodeProto, rest: list[onnx.NodeProto]) -> None:
        """A shuffle of channels: RESHAPE, TRANSPOSE, RESHAPE, all three at the first."""
        wide = self.shapes[node.output[0]]
        if len(wide) != 5:
            return  # the last of the three
        last = next(n for n in rest[1:] if n.op_type == "Reshape")
        _, groups, depth, height, width = wide
        x, y, w = self.activation(node.input[0]), self.activation(last.output[0]), self.writer
        split = self.new(node.input[0], [1, height, width, groups, depth])
        swapped = self.new(node.input[0], [1, height, width, depth, groups])
        for a, b in ((x, split), (swapped, y)):
            shape = w.ints(w.tensors[b].shape)
            w.op("RESHAPE", [a, shape], [b], kind="ReshapeOptions")
            if b == split:
                w.op("TRANSPOSE", [split, w.ints([0, 1, 2, 4, 3])], [swapped],
                     kind="TransposeOptions")  # fmt: skip


def convert_litert(model: Path) -> None:
    """model.onnx in QDQ form to model.tflite."""
    Converter(onnx.load(model)).convert(model.with_suffix(".tflite"))
