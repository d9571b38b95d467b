"""Kernels in plain C++: dense tensors in ONNX's order, constants and run-time inputs alike."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mdlc.codegen.code import C_TYPES, Body, Function, Microkernel, Scope, Statement
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step, View
from mdlc.codegen.threads import loop
from mdlc.codegen.tiles.operands import constants_of, runtime_of
from mdlc.compiler.ir import Node
from mdlc.compiler.op import Op
from mdlc.compiler.types import Array, DType


@dataclass(frozen=True)
class Plain:
    """What a layer consists of.

    Attributes:
        name: of its function, behind which the types of its tensors follow.
        statements: on pointers of the kernel's names to the inputs, and `y` to the output.
        needs: microkernels that text calls.
        scratch: whether it uses scratch memory.
    """

    name: str
    statements: Sequence[Statement]
    needs: Sequence[Microkernel] = ()
    includes: Sequence[str] = ("cstdint",)
    scratch: bool = False


class PlainKernel(Kernel):
    """A family of layers that is computed element by element, as the compiler makes of it.

    Attributes:
        op: the operators that it computes, but for halves, which are bits here.
        names: what its inputs are called.
    """

    op: ClassVar[type[Op] | tuple[type[Op], ...]]
    names: ClassVar[tuple[str, ...]] = ("x",)

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        """Whether it is one of the operators."""
        types = [node.type, *(source.type for source in node.inputs)]
        return isinstance(node.op, self.op) and all(t.dtype is not DType.F16 for t in types)

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        """The constants among the inputs."""
        return constants_of(node, self.names)

    def plain(self, step: Step) -> Plain:
        """The layer."""
        raise NotImplementedError(type(self).__name__)

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        """The function around what `plain` gives."""
        node, made = step.node, self.plain(step)
        kinds = dict.fromkeys(t.dtype.value for t in (*(s.type for s in node.inputs), node.type))
        return step.function(
            "_".join([made.name, *kinds]),
            *([each] for each in made.statements),
            comment=[node.op.words],
            inputs=runtime_of(node, self.names),
            scratch=made.scratch,
            needs=made.needs,
            includes=made.includes,
        )


def sizes(shape: Sequence[int]) -> str:
    """A shape in a function's name."""
    return "x".join(map(str, shape)) or "scalar"


def kind(node: Node) -> str:
    """The C++ type of a tensor's elements."""
    return C_TYPES[node.type.dtype]


def over(count: int, *statements: Statement) -> Body:
    """A loop of independent iterations over i0, which statements may name."""
    if count == 1:
        named = re.search(r"\bi0\b", "".join(map(repr, statements)))
        return (Scope(("const int i0 = 0;", *statements) if named else statements),)
    return loop("i0", count, statements, shared=True)


def input_view(step: Step, index: int) -> View:
    """Where an input lies; a constant's as it is packed."""
    node = step.node
    source = node.inputs[index]
    if source.constant is not None:
        return View.of(source.type, 0)
    before = node.inputs[:index]
    return step.inputs[sum(other.constant is None for other in before)]


def unravelled(place: str, shape: Sequence[int]) -> list[str]:
    """The index along each axis of a position, as C++; 0 along an axis of length 1."""
    found, inner = [], math.prod(shape)
    for axis, length in enumerate(shape):
        inner //= length
        index = place if inner == 1 else f"{place} / {inner}"
        found.append("0" if length == 1 else index if axis == 0 else f"{index} % {length}")
    return found
