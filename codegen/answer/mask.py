"""Masks: a class for every pixel, at the caller's size, without a map of that size in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdlc.codegen.answer.checks import between, one_of
from mdlc.codegen.answer.code import AnswerCode, Network, argument_of, factor, only_output, text
from mdlc.codegen.answer.columns import strides
from mdlc.codegen.code import C_TYPES
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import DType


@dataclass(frozen=True)
class Mask:
    """How a mask is made.

    Attributes:
        map: the output: scores 1xCxHxW (or 1xHxWxC, see `channels`), or labels 1xHxW (integers).
        channels: the axis of the classes: first or last.
        activation: of scores: softmax or sigmoid make probabilities for the confidence.
        threshold: of a single channel.
    """

    map: str | None = None
    channels: str = "first"
    activation: str = "none"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        one_of(self, "channels", ("first", "last"))
        one_of(self, "activation", ("none", "softmax", "sigmoid"))
        between(self, "threshold", -1e6, 1e6)

    def code(self, network: Network) -> AnswerCode:
        """The answer's part of the class.

        Raises:
            MdlcError: the description does not fit the network's outputs.
        """
        port = only_output(self.map, "map", network)
        shape, every = port.type.shape, strides(port)
        labels = port.type.dtype in (DType.I32, DType.I64, DType.U8, DType.I8)
        if len(shape) not in (3, 4) or shape[0] != 1 or (port.type.dtype is not DType.F32) > labels:
            raise MdlcError(
                f"{port.name} is {port.type.dtype.value} of shape {'x'.join(map(str, shape))}",
                node="[answer] map",
                hint="name scores 1xCxHxW or labels 1xHxW",
            )
        if len(shape) == 3:
            axes: tuple[int | None, int, int] = (None, 1, 2)
        else:
            axes = (1, 2, 3) if self.channels == "first" else (3, 1, 2)
        channel, row, column = axes
        classes = 1 if channel is None else shape[channel]
        if classes > 256 or (labels and classes > 1):
            raise MdlcError(
                f"{port.name} has {classes} classes",
                node="[answer] map",
                hint="labels are bytes, so that there may be 256 classes; labels have one channel",
            )
        kind = "labels" if labels else "threshold" if classes == 1 else "scores"
        return AnswerCode(
            "Mask",
            text(
                "mask_struct.j2",
                rows=shape[row],
                columns=shape[column],
                confident=kind != "labels",
            ),
            text(
                "mask.j2",
                name=network.name,
                argument=argument_of(port),
                element=C_TYPES[port.type.dtype],
                start="",
                kind=kind,
                rows=shape[row],
                columns=shape[column],
                width=network.width,
                height=network.height,
                row_step=every[row],
                column_times=factor(every[column]),
                class_times="" if channel is None else factor(every[channel]),
                classes=classes,
                activation=self.activation,
                threshold=self.threshold,
            ),
            (port,),
            frozenset({"algorithm", "cmath", "cstdint", "cstddef"}),
            np.dtype(np.uint8),
            f"a class for every pixel, at most {classes if kind == 'scores' else 256} of them",
            sized=True,
            confident=kind != "labels",
            classes=classes if kind == "scores" else 0,
            prepare=(
                f"std::vector<std::uint8_t> labels({shape[row]} * {shape[column]});",
                "answer.labels = labels.data();",
                f"answer.height = {shape[row]};",
                f"answer.width = {shape[column]};",
            ),
            shown=('std::printf("class %d at the upper left\\n", labels[0]);',),
            bad="answer.labels == nullptr || answer.width < 1 || answer.height < 1 || "
            "(answer.stride != 0 && answer.stride < static_cast<std::size_t>(answer.width))",
        )
