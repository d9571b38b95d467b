"""Dense: rows times a constant matrix, plus bias (Gemm, and MatMul with constant weights)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, Elementwise, Op, Sample, random_array
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.products import activated, activated_constant, constant_sums
from mdlc.compiler.types import Array, TensorType
from mdlc.compiler.values import Values, product


@dataclass(frozen=True)
class Dense(Op):
    """y = activation(x w' + b).

    Inputs: x [..., K], w [M, K] and b [M] (constants), then the activation's per-channel operand
    [M] if it is binary. Output: [..., M].

    Source: ONNX specification, operator Gemm.
    """

    activation: Elementwise | None = None

    onnx: ClassVar[tuple[str, ...]] = ("Gemm",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        a, b = n.input(0), n.input(1)
        if len(a.shape) != 2 or len(b.shape) != 2:
            raise n.error(f"needs matrices, not {a.type} and {b.type}")
        alpha, beta = np.float32(n.attr("alpha", 1.0)), np.float32(n.attr("beta", 1.0))
        if n.attr("transA", 0):
            a = n.make(Transpose((1, 0)), a)
        c = n.optional(2)
        value = b.constant
        if value is None:
            if n.attr("transB", 0):
                b = n.make(Transpose((1, 0)), b)
            y = n.make(MatMul(), a, b)
            if alpha != 1:
                y = n.make(Mul(), y, constant(np.asarray(alpha)))
        else:
            weights = (value if n.attr("transB", 0) else value.T) * alpha.astype(value.dtype)
            bias = np.zeros(weights.shape[0], weights.dtype)
            if c is not None and c.constant is not None and c.constant.shape[:-1] in ((), (1,)):
                per_output = (c.constant * beta).reshape(-1).astype(weights.dtype)
                bias = np.broadcast_to(per_output, bias.shape).copy()
                c = None
            y = n.make(cls(), a, constant(weights), constant(bias))
        if c is None:
            return y
        if beta != 1:
            c = n.make(Mul(), c, constant(np.asarray(beta)))
        return n.make(Add(), y, c)

    @property
    def has_slope(self) -> bool:
        """Whether the activation has a per-channel operand, input 3."""
        return self.activation is not None and self.activation.arity == 2

    def infer(self, *inputs: TensorType) -> TensorType:
        if len(inputs) != 3 + self.has_slope:
            raise MdlcError(f"Dense takes {3 + self.has_slope} inputs, not {len(inputs)}")
        x, w, b = inputs[:3]
        if x.rank < 1 or w.rank != 2 or x.shape[-1] != w.shape[1] or b.shape != w.shape[:1]:
            raise MdlcError(f"{x} does not multiply weights {w} with bias {b}")
        return TensorType((*x.shape[:-1], w.shape[0]), x.dtype)

    def reference(self, *inputs: Array) -> Array:
        x, w, b = inputs[:3]
        y = (x @ w.T + b).astype(x.dtype)
        return y if self.activation is None else self.activation.reference(y, *inputs[3:])

    def term_magnitudes(self, *inputs: Array) -> Array:
        operands = [*inputs[:3], *inputs[3 + self.has_slope :]]
        return replace(self, activation=None).reference(*map(np.abs, operands))

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        weights = node.inputs[1].constant
        if weights is None:
            return super().value_bounds(node, inputs)
        rank, (outputs, depth) = node.type.rank, weights.shape
        x = inputs[0] if rank == 2 else inputs[0].together()  # channels are axis 1
        found = product(weights[:, :, None], 1, inputs[2].of(outputs), x.of(depth))
        found = activated(self.activation, found, inputs[3:])
        return found if rank == 2 else replace(found.together(), sums=found.sums)

    def constant_channels(self, node: Node, known: Sequence[Array]) -> Array:
        weights, bias = (source.constant for source in node.inputs[1:3])
        if weights is None or bias is None or node.type.rank != 2:
            return np.full(node.shape[1], np.nan)
        found = constant_sums(weights[:, :, None], bias, known[0])
        return activated_constant(self.activation, found, node.inputs[3:])

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        return axis if index == 0 and axis < inputs[0].rank - 1 else None

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(output.size * inputs[1].shape[1], sum(t.nbytes for t in inputs) + output.nbytes)

    def to_onnx(self) -> tuple[str, dict[str, object], tuple[Array | None, ...]] | None:
        return ("Gemm", {"transB": 1}, ()) if self.activation is None else None

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        from mdlc.compiler.ops.relu import Relu

        def sample(label: str, op: Dense, rows: int, depth: int, outputs: int) -> Sample:
            values = random_array(1, rows, depth), random_array(2, outputs, depth)
            return Sample(op, (*values, random_array(3, outputs)), (1, 2), label)

        return (
            sample("classifier", cls(), 1, 64, 10),
            sample("wide", cls(activation=Relu()), 1, 33, 257),
            sample("batch", cls(), 5, 20, 24),
            sample("one", cls(), 1, 1, 1),
        )
