"""What an operator's `from_onnx` sees of an ONNX node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node, make
from mdlc.compiler.op import Op
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class OnnxNode:
    """An ONNX node with its inputs already imported.

    Attributes:
        op_type: the ONNX operator's name.
        opset: version of its domain's operator set.
        inputs: imported inputs; None where an optional input is absent in the middle.
        outputs: names of the outputs; "" where one is not wanted.
        attributes: values as Python numbers, strings, lists and numpy arrays.
        name: what to call it in messages.
        declared: shapes that the model gives for the outputs; None where it does not.
    """

    op_type: str
    opset: int
    inputs: Sequence[Node | None]
    outputs: Sequence[str]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    declared: Sequence[tuple[int, ...] | None] = ()

    def error(self, reason: str, hint: str | None = None) -> MdlcError:
        """An error about this node, to raise."""
        return MdlcError(reason, node=f"node {self.name!r} ({self.op_type})", hint=hint)

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default (lists come as tuples)."""
        value = self.attributes.get(name, default)
        return tuple(value) if isinstance(value, list) else value

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def input(self, index: int) -> Node:
        """Input `index`; an error where it is absent."""
        node = self.inputs[index] if index < len(self.inputs) else None
        if node is None:
            raise self.error(f"input {index} is missing")
        return node

    def optional(self, index: int) -> Node | None:
        """Input `index`, or None."""
        return self.inputs[index] if index < len(self.inputs) else None

    def const(self, index: int) -> Array:
        """The value of a constant input; an error where it is computed at run time."""
        node = self.input(index)
        if node.constant is None:
            raise self.error(
                f"input {index} ({node.name!r}) must be a constant",
                hint="export the model with static shapes, or fix its dimensions with --shape",
            )
        return node.constant

    def optional_const(self, index: int) -> Array | None:
        """The value of a constant input, or None where it is absent."""
        return self.const(index) if self.has(index) else None

    def make(self, op: Op, *inputs: Node, output: int = 0) -> Node:
        """A node for output `output` of this ONNX node, named after it."""
        name = self.outputs[output] if output < len(self.outputs) else ""
        try:
            return make(op, *inputs, name=name, origin=self.name)
        except MdlcError as error:
            raise self.error(error.reason, error.hint) from error
