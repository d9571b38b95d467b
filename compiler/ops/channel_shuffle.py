"""ChannelShuffle: channels dealt out across groups (ShuffleNet)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node, make
from mdlc.compiler.op import LayoutRule, Op, Sample, random_array
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.gather import Gather
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class ChannelShuffle(Op):
    """Output channel j is input channel (j mod groups) * (C / groups) + j div groups.

    No ONNX operator: exporters write Reshape, Transpose, Reshape; passes/channel_shuffle.py
    recognises it. Source: Zhang et al., "ShuffleNet", arXiv 1707.01083, section 3.1.
    """

    groups: int

    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if x.rank != 4 or self.groups < 1 or x.shape[1] % self.groups:
            raise MdlcError(f"{self.groups} groups do not divide the channels of {x}")
        return TensorType(x.shape, x.dtype)

    def order(self, channels: int) -> Array:
        """The input channel of every output channel."""
        return np.arange(channels).reshape(self.groups, -1).T.reshape(-1)

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def is_identity(self, x: TensorType) -> bool:
        return bool(np.array_equal(self.order(x.shape[1]), np.arange(x.shape[1])))

    def channel_map(
        self, inputs: Sequence[TensorType], output: TensorType
    ) -> tuple[Array | None, ...] | None:
        return (self.order(output.shape[1]),)

    def on_channels(
        self, inputs: Sequence[Node], kept: Array, kept_inputs: Sequence[Array], name: str
    ) -> Node:
        place = np.cumsum(kept_inputs[0]) - 1
        order = place[self.order(len(kept))[kept]]
        if len(order) % self.groups == 0 and np.array_equal(order, self.order(len(order))):
            return make(self, *inputs, name=name)
        return make(Gather(1), inputs[0], constant(order.astype(np.int64)), name=name)

    def reference(self, *inputs: Array) -> Array:
        return np.ascontiguousarray(inputs[0][:, self.order(inputs[0].shape[1])])

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (
            Sample(cls(2), (random_array(1, 2, 24, 3, 5),), label="two"),
            Sample(cls(3), (random_array(2, 1, 12, 4, 4),), label="three"),
        )
