"""Bodies of functions, node by node, for one node of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.types import Array

# What a body calls the inputs and outputs of the node that it stands for.
INPUTS = ("X", "W", "B", "Z", "V", "U", *(f"I{i}" for i in range(6, 16)))
OUTPUTS = ("Y", "Y1", "Y2", "Y3")


class Builder:
    """Nodes of a body, one after the other; results get names of their own."""

    def __init__(self, proto: onnx.NodeProto, inputs: Sequence[Node | None]) -> None:
        """A body for a node.

        Args:
            inputs: its imported inputs; None where one is absent.
        """
        self.nodes: list[onnx.NodeProto] = []
        self._proto, self._inputs, self._names = proto, inputs, 0
        self._attributes = attributes_of(proto)

    def add(self, op_type: str, *inputs: str, outputs: Sequence[str] = (), **more: Any) -> str:
        """A node; returns its first output."""
        names = list(outputs) or [f"t{len(self.nodes)}"]
        attributes = {name: value for name, value in more.items() if value is not None}
        self.nodes.append(onnx.helper.make_node(op_type, list(inputs), names, **attributes))
        return names[0]

    def value(self, array: Array) -> str:
        """A constant."""
        return self.add("Constant", value=onnx.numpy_helper.from_array(np.ascontiguousarray(array)))

    def scalar(self, value: float, kind: type = np.float32) -> str:
        """A constant of rank 0."""
        return self.add("Constant", value=onnx.numpy_helper.from_array(np.array(value, kind)))

    def name(self) -> str:
        """A name that nothing has."""
        self._names += 1
        return f"n{self._names}"

    def given(self, index: int) -> bool:
        """Whether the node has an input."""
        return given_at(self._proto, index)

    def wants(self, index: int) -> bool:
        """Whether the node has an output."""
        return index < len(self._proto.output) and bool(self._proto.output[index])

    def input(self, index: int) -> str:
        """What the body calls an input."""
        return INPUTS[index]

    def node(self, index: int) -> Node:
        """An input as imported.

        Raises:
            MdlcError: it is absent.
        """
        node = self._inputs[index] if index < len(self._inputs) else None
        if node is None:
            raise self.error(f"input {index} is missing")
        return node

    def constant(self, index: int) -> Array:
        """The value of an input that must be a constant."""
        return constant_at(self._proto, self._inputs, index)

    def result(self, index: int, name: str) -> None:
        """Makes a tensor an output of the node."""
        self.add("Identity", name, outputs=[OUTPUTS[index]])

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the node."""
        return self._attributes.get(name, default)

    def error(self, reason: str, hint: str = "") -> MdlcError:
        """An error about the node, to raise."""
        return error_at(self._proto, reason, hint)


def attributes_of(proto: onnx.NodeProto) -> dict[str, Any]:
    """Attributes of a node as Python values."""
    found = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
    return {k: v.decode("utf-8", "replace") if isinstance(v, bytes) else v
            for k, v in found.items()}  # fmt: skip


def given_at(proto: onnx.NodeProto, index: int) -> bool:
    """Whether a node has an input."""
    return index < len(proto.input) and bool(proto.input[index])


def error_at(proto: onnx.NodeProto, reason: str, hint: str) -> MdlcError:
    """An error about a node, to raise."""
    name = proto.name or next(filter(None, proto.output), proto.op_type)
    return MdlcError(reason, node=f"node {name!r} ({proto.op_type})", hint=hint or None)


def constant_at(proto: onnx.NodeProto, inputs: Sequence[Node | None], index: int) -> Array:
    """The value of an input that must be a constant."""
    node = inputs[index] if index < len(inputs) else None
    if node is None or node.constant is None:
        raise error_at(proto, f"input {index} must be a constant",
                       "export the weights as constants")  # fmt: skip
    return node.constant
