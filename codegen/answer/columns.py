"""Attributes of candidates: a slice of one axis of an output, and where it lies in memory."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from mdlc.codegen.kernel import View
from mdlc.compiler.errors import MdlcError, choose
from mdlc.compiler.types import DType, TensorType

_FORM = re.compile(r"(?P<output>[^\[\]]+)(\[(?P<index>[^\[\]]*)\])?")
_SLICE = re.compile(r"(?P<first>\d*):(?P<last>\d*)|(?P<one>\d+)")


class Output(Protocol):
    """An output of the network."""

    @property
    def name(self) -> str:
        """Its ONNX name."""

    @property
    def identifier(self) -> str:
        """Its name in the class."""

    @property
    def view(self) -> View:
        """Where it lies in the arena."""

    @property
    def type(self) -> TensorType:
        """Its type, as the view has it."""


@dataclass(frozen=True)
class Columns:
    """Some attributes of every candidate in an output.

    The output is seen as a table: a row for each candidate (an anchor, a cell of a grid, a
    pixel), a column for each attribute (a class's score, a coordinate).

    Attributes:
        port: the output.
        axis: the axis (of the ONNX shape) that the attributes lie along.
        first, last: the attributes, last excluded.
    """

    port: Output
    axis: int
    first: int
    last: int

    @property
    def count(self) -> int:
        """Number of attributes."""
        return self.last - self.first

    @property
    def grid(self) -> tuple[int, ...]:
        """Lengths of the axes that candidates lie along, without those of length 1."""
        shape = self.port.type.shape
        return tuple(n for axis, n in enumerate(shape) if axis != self.axis and n != 1)

    @property
    def candidates(self) -> int:
        """Number of candidates."""
        return math.prod(self.grid)

    @property
    def attribute_step(self) -> int:
        """Elements from one attribute of a candidate to the next."""
        return strides(self.port)[self.axis]

    @property
    def candidate_step(self) -> int:
        """Elements from one candidate to the next."""
        steps = self._steps()
        return steps[-1] if steps else 0

    @property
    def start(self) -> int:
        """Elements from the output's start to the first attribute of the first candidate."""
        return self.first * self.attribute_step

    def narrowed(self, first: int, last: int) -> Columns:
        """Some of these attributes, counted from the first."""
        return Columns(self.port, self.axis, self.first + first, self.first + last)

    def _steps(self) -> list[int]:
        shape = self.port.type.shape
        every = strides(self.port)
        return [every[axis] for axis, n in enumerate(shape) if axis != self.axis and n != 1]

    def check(self) -> Columns:
        """The same.

        Raises:
            MdlcError: elements are no floats, or candidates do not follow at equal steps.
        """
        if self.port.type.dtype is not DType.F32:
            raise MdlcError(
                f"has elements of type {self.port.type.dtype.value}, and answers are made of f32",
                node=self.port.name,
                hint="leave the cast to the network out, or read another output",
            )
        steps, grid = self._steps(), self.grid
        for step, after, length in zip(steps, steps[1:], grid[1:], strict=False):
            if step != after * length:
                raise MdlcError(
                    "candidates do not follow at equal steps in memory",
                    node=self.port.name,
                    hint="name another axis for the attributes, as in output[:,4:84]",
                )
        return self


def strides(port: Output) -> tuple[int, ...]:
    """Elements from one index to the next, for each axis of the ONNX shape."""
    view = port.view
    physical = view.type.physical_shape
    steps = [1] * len(physical)
    for axis in range(len(physical) - 2, -1, -1):
        steps[axis] = (
            view.pitch if axis == len(physical) - 2 else steps[axis + 1] * physical[axis + 1]
        )
    return tuple(steps[view.type.physical_axis(axis)] for axis in range(view.type.rank))


def find_port(name: str, ports: Mapping[str, Output], where: str) -> Output:
    """An output by its ONNX name or its name in the class.

    Raises:
        MdlcError: there is none.
    """
    known = {**{port.identifier: port for port in ports.values()}, **ports}
    if name not in known:
        raise MdlcError(f"there is no output {name!r}", node=where, hint=choose(name, list(ports)))
    return known[name]


def parse_columns(text: str, ports: Mapping[str, Output], where: str) -> Columns:
    """Attributes as a recipe names them.

    Args:
        text: an output's name, and which of its attributes: `scores`, `output0[4:84,:]`. The index
            is of all axes but a leading one of length 1; one of them is no plain `:` and is the
            axis of the attributes. Without an index it is axis 1 where the rank is 4 (a map of
            channels), else the last axis.
        where: for messages, the recipe's key.

    Raises:
        MdlcError: there is no such output or attribute.
    """
    form = _FORM.fullmatch(text.strip())
    if form is None:
        raise MdlcError(f"{text!r} names no output", node=where, hint="write it as output0[4:84,:]")
    port = find_port(form["output"].strip(), ports, where)
    shape = port.type.shape
    skipped = 1 if len(shape) > 1 and shape[0] == 1 else 0
    if form["index"] is None:
        axis = 1 if len(shape) == 4 else len(shape) - 1
        return Columns(port, axis, 0, shape[axis] if shape else 1).check()
    words = [word.strip() for word in form["index"].split(",")]
    if len(words) != len(shape) - skipped:
        raise MdlcError(
            f"{text!r} has {len(words)} indices for the shape {'x'.join(map(str, shape))}",
            node=where,
            hint="give one for every axis but a leading 1, as in output0[4:84,:]",
        )
    chosen = [number for number, word in enumerate(words) if word != ":"] or [len(words) - 1]
    found = _SLICE.fullmatch(words[chosen[0]])
    if len(chosen) > 1 or found is None:
        raise MdlcError(
            f"{text!r} does not say which attributes are meant",
            node=where,
            hint="slice one axis, as in output0[4:84,:]",
        )
    axis = chosen[0] + skipped
    first = int(found["one"] or found["first"] or 0)
    last = first + 1 if found["one"] else int(found["last"] or shape[axis])
    if not first < last <= shape[axis]:
        raise MdlcError(
            f"{text!r} is outside the output's {shape[axis]} attributes",
            node=where,
            hint=f"choose from 0:{shape[axis]}",
        )
    return Columns(port, axis, first, last).check()
