"""ReverseSequence: the first steps of every sequence of a batch in reverse order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.gather import Gather
from mdlc.compiler.ops.less import Less
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.sub import Sub
from mdlc.compiler.ops.where import Where


@dataclass(frozen=True)
class ReverseSequence(Op):
    """Imported as rows gathered in another order, which lengths at run time may give.

    Source: ONNX specification, operator ReverseSequence.
    """

    onnx: ClassVar[tuple[str, ...]] = ("ReverseSequence",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, lengths = n.input(0), n.input(1)
        time, batch = n.attr("time_axis", 0), n.attr("batch_axis", 1)
        if len(x.shape) < 2 or {time, batch} != {0, 1}:
            raise n.error(f"axes {time} and {batch} of {x.type} are not its first two")
        steps, count = x.shape[time], x.shape[batch]
        if lengths.shape != (count,):
            raise n.error(f"lengths {lengths.type} do not fit a batch of {count}")
        shape = (1, count) if time == 0 else (count, 1)
        step = constant(np.arange(steps, dtype=np.int64).reshape((-1, 1) if time == 0 else (1, -1)))
        one = constant(np.array(1, np.int64))
        length = n.make(Reshape(shape), lengths)
        last = n.make(Sub(), length, one)
        taken = n.make(Where(), n.make(Less(), step, length), n.make(Sub(), last, step), step)
        # The row of a step and a place in the batch, with the two axes joined.
        place = np.arange(count, dtype=np.int64).reshape(shape)
        if time == 0:
            taken = n.make(Mul(), taken, constant(np.array(count, np.int64)))
            rows = n.make(Add(), taken, constant(place))
        else:
            rows = n.make(Add(), taken, constant(place * steps))
        joined = n.make(Reshape((steps * count, *x.shape[2:])), x)
        flat = n.make(Reshape((steps * count,)), rows)
        return n.make(Reshape(x.shape), n.make(Gather(0), joined, flat))
