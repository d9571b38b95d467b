"""Graph -> ONNX: the network as passes left it, for any other program that reads ONNX.

Fused operators are written as the operators that they were fused from. Opset 20, float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.op import Elementwise, Op
from mdlc.compiler.ops.attention import Attention
from mdlc.compiler.ops.channel_shuffle import ChannelShuffle
from mdlc.compiler.ops.constant import Constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.conv_transpose2d import ConvTranspose2D
from mdlc.compiler.ops.convert_layout import ConvertLayout
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.input import Input
from mdlc.compiler.ops.silu import Silu
from mdlc.compiler.types import Array, TensorType

OPSET = 20
# That of onnx 1.15, the first with this opset.
IR_VERSION = 9


def export_onnx(graph: Graph) -> onnx.ModelProto:
    """The network as an ONNX model; a tensor is named as its node.

    Raises:
        MdlcError: an operator has no form in ONNX.
    """
    return _Export(graph).model()


class _Export:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._names: dict[Node, str] = {}
        self._taken = {node.name for node in graph.inputs} | set(graph.output_names)

    def model(self) -> onnx.ModelProto:
        for node in self._graph.inputs:
            self._names[node] = node.name
        for name, node in zip(self._graph.output_names, self._graph.outputs, strict=True):
            if not isinstance(node.op, Input | Constant):
                self._names.setdefault(node, name)
        for node in self._graph.order():
            self._add(node)
        for name, node in zip(self._graph.output_names, self._graph.outputs, strict=True):
            if self._names[node] != name:
                self._emit("Identity", {}, [self._names[node]], name)
        graph = helper.make_graph(
            self._nodes,
            self._graph.name,
            [_info(node.name, node.type) for node in self._graph.inputs],
            [
                _info(name, node.type)
                for name, node in zip(self._graph.output_names, self._graph.outputs, strict=True)
            ],
            self._initializers,
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="mdlc"
        )

    def _unique(self, name: str) -> str:
        found, number = name, 1
        while found in self._taken:
            number += 1
            found = f"{name}_{number}"
        self._taken.add(found)
        return found

    def _constant(self, value: Array, name: str) -> str:
        name = self._unique(name)
        self._initializers.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def _emit(
        self, op_type: str, attributes: dict[str, Any], inputs: Sequence[str], output: str
    ) -> str:
        given = list(inputs)
        while given and not given[-1]:
            given.pop()
        kept = {key: value for key, value in attributes.items() if value is not None}
        self._nodes.append(helper.make_node(op_type, given, [output], name=output, **kept))
        return output

    def _add(self, node: Node) -> None:
        if isinstance(node.op, Input):
            return
        if isinstance(node.op, Constant):
            self._names[node] = self._constant(node.op.value, node.name or "constant")
            return
        if node not in self._names:
            self._names[node] = self._unique(node.name or type(node.op).__name__)
        inputs = [self._names[source] for source in node.inputs]
        self._operator(node, node.op, inputs, self._names[node])

    def _operator(self, node: Node, op: Op, inputs: list[str], output: str) -> None:
        """The ONNX operators for one of ours; the last of them writes `output`."""
        activation = getattr(op, "activation", None)
        if isinstance(op, Conv2D | ConvTranspose2D | Dense) and (
            activation is not None or getattr(op, "residual", False)
        ):
            self._fused(node, op, activation, inputs, output)
            return
        for kind, write in _SPECIAL.items():
            if isinstance(op, kind):
                write(self, node, op, inputs, output)
                return
        form = op.to_onnx()
        if form is None:
            raise MdlcError(f"{op} has no form in ONNX (opset {OPSET})", node=f"node {node.name!r}")
        op_type, attributes, extra = form
        more = [
            "" if value is None else self._constant(value, f"{output}_{i}")
            for i, value in enumerate(extra)
        ]
        self._emit(op_type, attributes, [*inputs, *more], output)

    def _fused(
        self, node: Node, op: Op, activation: Elementwise | None, inputs: list[str], output: str
    ) -> None:
        residual = getattr(op, "residual", False)
        plain = replace(op, activation=None)  # type: ignore[call-arg]
        plain = replace(plain, residual=False) if residual else plain  # type: ignore[call-arg]
        last = self._unique(f"{output}_sum") if residual or activation else output
        self._operator(node, plain, inputs[:3], last)
        if residual:
            summed = self._unique(f"{output}_residual") if activation else output
            last = self._emit("Add", {}, [last, inputs[-1]], summed)
        if activation is not None:
            operands = [last]
            if activation.arity == 2:
                slope = node.inputs[3].constant
                assert slope is not None
                shape = (-1,) + (1,) * (node.type.rank - 2)
                operands.append(self._constant(slope.reshape(shape), f"{output}_slope"))
            self._operator(node, activation, operands, output)

    def _identity(self, node: Node, op: Op, inputs: list[str], output: str) -> None:
        self._emit("Identity", {}, inputs, output)

    def _silu(self, node: Node, op: Op, inputs: list[str], output: str) -> None:
        gate = self._emit("Sigmoid", {}, inputs, self._unique(f"{output}_gate"))
        self._emit("Mul", {}, [inputs[0], gate], output)

    def _shuffle(self, node: Node, op: Op, inputs: list[str], output: str) -> None:
        assert isinstance(op, ChannelShuffle)
        n, c, h, w = node.shape
        split = self._constant(np.array([n, op.groups, c // op.groups, h, w]), f"{output}_split")
        whole = self._constant(np.array([n, c, h, w]), f"{output}_shape")
        x = self._emit("Reshape", {}, [inputs[0], split], self._unique(f"{output}_groups"))
        x = self._emit("Transpose", {"perm": [0, 2, 1, 3, 4]}, [x], self._unique(f"{output}_dealt"))
        self._emit("Reshape", {}, [x, whole], output)

    def _attention(self, node: Node, op: Op, inputs: list[str], output: str) -> None:
        """Operands are gathered element by element: ONNX has no strided views."""
        assert isinstance(op, Attention)
        operands = []
        each = zip(op.operands, op.shapes, node.inputs, inputs, strict=True)
        for number, (view, shape, source, x) in enumerate(each):
            places = view.of(np.arange(source.type.size), shape)
            if number == 1:  # keys, transposed
                places = places.swapaxes(-1, -2)
            flat = self._emit("Reshape", {}, [x, self._constant(np.array([-1]), f"{output}_all")],
                              self._unique(f"{output}_flat"))  # fmt: skip
            index = self._constant(places, f"{output}_places")
            operands.append(self._emit("Gather", {}, [flat, index], self._unique(f"{output}_part")))
        q, k, v, *masks = operands
        product = self._emit("MatMul", {}, [q, k], self._unique(f"{output}_product"))
        scale = self._constant(np.array(op.scale, node.type.dtype.numpy), f"{output}_scale")
        scores = self._emit("Mul", {}, [product, scale], self._unique(f"{output}_scores"))
        for mask in masks:
            scores = self._emit("Add", {}, [scores, mask], self._unique(f"{output}_masked"))
        shares = self._emit("Softmax", {"axis": -1}, [scores], self._unique(f"{output}_shares"))
        mixed = self._emit("MatMul", {}, [shares, v], self._unique(f"{output}_mixed"))
        self._emit("Transpose", {"perm": list(op.perm)}, [mixed], output)

    def _dense(self, node: Node, op: Op, inputs: list[str], output: str) -> None:
        if node.type.rank == 2:
            self._emit("Gemm", {"transB": 1}, inputs, output)
            return
        weights = self._emit(
            "Transpose", {"perm": [1, 0]}, [inputs[1]], self._unique(f"{output}_weights")
        )
        product = self._emit("MatMul", {}, [inputs[0], weights], self._unique(f"{output}_product"))
        self._emit("Add", {}, [product, inputs[2]], output)


_Write = Callable[[_Export, Node, Op, list[str], str], None]
# Operators that are several in ONNX, or none.
_SPECIAL: dict[type[Op], _Write] = {
    ConvertLayout: _Export._identity,
    Silu: _Export._silu,
    ChannelShuffle: _Export._shuffle,
    Dense: _Export._dense,
    Attention: _Export._attention,
}


def _info(name: str, type_: TensorType) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(type_.dtype.numpy)
    return helper.make_tensor_value_info(name, kind, type_.shape)
