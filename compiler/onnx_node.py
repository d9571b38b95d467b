"""What an operator's `from_onnx` sees of an ONNX node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node, ancestors, make
from mdlc.compiler.op import Op
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import Array

# Inputs that a message names.
_MOST_NAMED = 3


class Lengths(Protocol):
    """What is known of tensors whose length depends on data; see compiler/counts.py."""

    def bound(self, name: str, most: int) -> int:
        """Entries to have room for in a tensor of at most so many."""

    def of(self, node: Node) -> Mapping[int, Node]:
        """By axis, how many entries count, where not all do."""

    def whole(self, node: Node, axis: int) -> Node:
        """The tensor, to be read by an operator that itself heeds how many entries count."""

    def lengths(self, node: Node) -> Sequence[Length] | None:
        """The entries of a vector of lengths; None where one is no number and no count."""


class Length(Protocol):
    """An entry of a shape; see compiler/counts.py."""

    @property
    def most(self) -> int:
        """Its value, or the bound of its value."""

    @property
    def count(self) -> Node | None:
        """The value, int64 [1], where it depends on data."""


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
        lengths: what is known of tensors of open length.
    """

    op_type: str
    opset: int
    inputs: Sequence[Node | None]
    outputs: Sequence[str]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    declared: Sequence[tuple[int, ...] | None] = ()
    lengths: Lengths | None = None

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
            raise self.at_run_time(
                f"input {index} ({node.name!r}) must be a constant",
                node,
                hint="export the model with static shapes, or fix its dimensions with --shape",
            )
        return node.constant

    def at_run_time(self, reason: str, *values: Node, hint: str) -> MdlcError:
        """An error about values that must be known now, to raise.

        Args:
            hint: what to do where no input of the model settles them.
        """
        return needs_known(f"node {self.name!r} ({self.op_type})", reason, values, hint)

    def bound(self, output: int, most: int) -> int:
        """Entries to have room for in an output whose length depends on data."""
        name = self.outputs[output] if output < len(self.outputs) else ""
        return most if self.lengths is None else self.lengths.bound(name or self.name, most)

    def counts(self, index: int) -> Mapping[int, Node]:
        """By axis of an input, how many entries count (int64 [1]), where that depends on data."""
        return self.counts_of(self.input(index))

    def counts_of(self, node: Node) -> Mapping[int, Node]:
        """The same of a node that was made."""
        return {} if self.lengths is None else self.lengths.of(node)

    def dims(self, index: int) -> tuple[tuple[int, ...], Mapping[int, Length]]:
        """A shape that input `index` gives, and by axis what of it depends on data: there the
        shape has the bound.
        """
        given = self.input(index)
        found = self.lengths.lengths(given) if self.lengths and given.constant is None else None
        if found is None:
            return tuple(int(d) for d in self.const(index).reshape(-1)), {}
        open_axes = {axis: each for axis, each in enumerate(found) if each.count is not None}
        return tuple(each.most for each in found), open_axes

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


def needs_known(where: str, reason: str, values: Sequence[Node], hint: str) -> MdlcError:
    """An error about values that must be known when a model is compiled, to raise.

    Args:
        hint: what to do where no input of the model settles them.
    """
    inputs = sorted(
        node.name for node in ancestors(values) if isinstance(node.op, Input) and node.name
    )
    if 0 < len(inputs) <= _MOST_NAMED:
        flags = " ".join(f"--fix {name}=VALUE" for name in inputs)
        hint = f"give what it is computed from with {flags}, or {hint}"
    return MdlcError(reason, node=where, hint=hint, inputs=inputs)
