"""What happens to a picture before the network sees it: as graph nodes, and as numpy.

`--input-format`, `--mean` and `--std` put nodes in front of the network, so that the emitted
class takes a camera buffer as it comes; the passes fold what they can of it into the first layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mdlc.codegen.frame.spec import FrameSpec
from mdlc.compiler.errors import MdlcError, choose
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.gather import Gather
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.sub import Sub
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.types import Array, DType, TensorType

# Channels in memory order of the 8-bit formats.
INPUT_FORMATS = {"rgb8": "rgb", "bgr8": "bgr", "rgba8": "rgba", "gray8": "y"}
PICTURE_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Preprocess:
    """What stands between the caller's buffer and the network.

    Attributes:
        input_format: rgb8, bgr8, rgba8, gray8 (8-bit rows of pixels, height x width x channels),
            float (the network's own shape, in float32), or None: the network's input as it is.
        mean, std: (value - mean) / std, in units of the buffer's values, so 0..255 for 8-bit
            formats; one number, or one per channel of the network. Empty: 0 and 1.
        channel_order: the order that the network was trained on, rgb or bgr.
        frame: how camera frames, and pictures of any size, become the buffer; None: they do not.
    """

    input_format: str | None = None
    mean: tuple[float, ...] = field(default=())
    std: tuple[float, ...] = field(default=())
    channel_order: str = "rgb"
    frame: FrameSpec | None = None

    def __post_init__(self) -> None:
        known = (*INPUT_FORMATS, "float")
        if self.input_format is not None and self.input_format not in known:
            raise MdlcError(
                f"there is no input format {self.input_format!r}",
                node="--input-format",
                hint=choose(self.input_format, known),
            )
        if self.channel_order not in ("rgb", "bgr"):
            raise MdlcError(
                f"there is no channel order {self.channel_order!r}",
                node="--channel-order",
                hint="choose rgb or bgr",
            )
        for name, values in (("--mean", self.mean), ("--std", self.std)):
            if not all(math.isfinite(value) for value in values):
                raise MdlcError("is not finite", node=name, hint="give ordinary numbers")
        if any(value == 0 for value in self.std):
            raise MdlcError("is zero", node="--std", hint="values are divided by it")

    def for_network(self, graph: Graph) -> Preprocess:
        """The same, where frames are read with the 8-bit format that they are read into.

        Raises:
            MdlcError: frames are asked for and the network does not take one picture.
        """
        if self.frame is None:
            return self
        if self.input_format is not None:
            raise MdlcError(
                "contradicts --frame, which has a format of its own",
                node="--input-format",
                hint="leave it out",
            )
        picture = picture_input(graph, "--frame")
        if picture.node.shape[0] != 1:
            raise MdlcError(
                f"the network takes {picture.node.shape[0]} pictures at once ({picture.node.type})",
                node="--frame",
                hint="export it with a batch of 1",
            )
        self.frame.filled(picture.channels)
        colours = f"{self.channel_order}8"
        return replace(self, input_format={1: "gray8", 3: colours, 4: "rgba8"}[picture.channels])

    @property
    def normalises(self) -> bool:
        """Whether there is a mean or a deviation to apply."""
        return bool(self.mean or self.std)

    @property
    def changes(self) -> bool:
        """Whether nodes go in front of the network at all."""
        return self.normalises or self.input_format in INPUT_FORMATS

    def statistics(self, channels: int) -> tuple[Array, Array]:
        """Mean and deviation as float32 [channels].

        Raises:
            MdlcError: there are neither 1 nor `channels` of them.
        """
        found = []
        for name, values, default in (("--mean", self.mean, 0.0), ("--std", self.std, 1.0)):
            if len(values) not in (0, 1, channels):
                raise MdlcError(
                    f"{len(values)} values for {channels} channels",
                    node=name,
                    hint=f"give 1 or {channels}",
                )
            found.append(np.broadcast_to(np.array(values or default, np.float32), (channels,)))
        return found[0].copy(), found[1].copy()

    def channel_indices(self, channels: int) -> tuple[int, ...]:
        """For each channel of the network, its place in the 8-bit buffer.

        Raises:
            MdlcError: the format does not have what the network reads.
        """
        assert self.input_format is not None
        given = INPUT_FORMATS[self.input_format]
        wanted = {1: "y", 3: self.channel_order, 4: self.channel_order + "a"}[channels]
        if given == "y":
            return (0,) * channels if channels != 4 else _misfit(self.input_format, channels)
        if any(name not in given for name in wanted):
            return _misfit(self.input_format, channels)
        return tuple(given.index(name) for name in wanted)


def _misfit(input_format: str, channels: int) -> tuple[int, ...]:
    hint = {1: "give it gray8", 3: "give it rgb8, bgr8, rgba8 or gray8", 4: "give it rgba8"}
    raise MdlcError(
        f"{input_format} does not fit a network with {channels} input channels",
        node="--input-format",
        hint=hint[channels],
    )


@dataclass(frozen=True)
class PictureInput:
    """An input of a network that takes pictures.

    Attributes:
        node: the input.
        height, width, channels: of the picture.
        channels_last: whether its shape is N, H, W, C rather than N, C, H, W.
    """

    node: Node
    height: int
    width: int
    channels: int
    channels_last: bool

    @property
    def name(self) -> str:
        """The input's ONNX name."""
        return self.node.name


def picture_input(graph: Graph, asked_by: str) -> PictureInput:
    """The one input of a network that is a picture.

    Args:
        asked_by: the option that needs it, for the message.

    Raises:
        MdlcError: there is none, or more than one.
    """
    found = [picture for node in graph.arguments if (picture := _as_picture(node)) is not None]
    if len(found) == 1:
        return found[0]
    shapes = ", ".join(f"{node.name}: {node.type}" for node in graph.arguments)
    many = "more than one input is a picture" if found else "no input is a picture"
    raise MdlcError(
        f"{many} ({shapes})",
        node=asked_by,
        hint="give the inputs as an NPZ file, normalised as the network wants",
    )


def _as_picture(node: Node) -> PictureInput | None:
    shape = node.shape
    if len(shape) != 4:
        return None
    if shape[1] in PICTURE_CHANNELS:
        return PictureInput(node, shape[2], shape[3], shape[1], False)
    if shape[3] in PICTURE_CHANNELS:
        return PictureInput(node, shape[1], shape[2], shape[3], True)
    return None


def preprocess(graph: Graph, how: Preprocess) -> Graph:
    """The graph with the nodes in front: channels chosen, converted, normalised, transposed.

    The new input has the old one's name. With an 8-bit format its shape is N, H, W, C.

    Raises:
        MdlcError: the network takes no picture, or the options do not fit it.
    """
    if not how.changes:
        return graph
    picture = picture_input(graph, "--input-format" if how.input_format else "--mean")
    if how.input_format in INPUT_FORMATS:
        fresh, front = _from_bytes(picture, how)
    else:
        fresh, front = _from_floats(picture, how)

    def visit(old: Node, new: Node) -> Node:
        return front if old is picture.node else new

    rebuilt = graph.rebuild(visit)
    inputs = tuple(fresh if node is front else node for node in rebuilt.inputs)
    return replace(rebuilt, inputs=inputs)


def _from_bytes(picture: PictureInput, how: Preprocess) -> tuple[Node, Node]:
    """The input node of an 8-bit format, and the node that stands for the old input."""
    assert how.input_format is not None
    old, name = picture.node.type, picture.name
    given = len(INPUT_FORMATS[how.input_format])
    indices = how.channel_indices(picture.channels)
    shape = (old.shape[0], picture.height, picture.width, given)
    fresh = front = graph_input(name, shape, DType.U8)
    if indices != tuple(range(given)):
        front = make(Gather(3), front, constant(np.array(indices)), name=f"{name}_channels")
    if old.dtype is DType.U8 and how.normalises:
        raise MdlcError(
            "the network takes 8-bit values and normalises them itself",
            node="--mean/--std",
            hint="leave them out",
        )
    if old.dtype is not DType.U8:
        front = make(Cast(DType.F32), front, name=f"{name}_float")
    if not picture.channels_last:
        front = make(Transpose((0, 3, 1, 2)), front, name=f"{name}_planes")
    return fresh, _as_wanted(_normalised(front, picture, how), old)


def _from_floats(picture: PictureInput, how: Preprocess) -> tuple[Node, Node]:
    """The same for float values in the network's own shape."""
    old = picture.node.type
    if not old.dtype.is_float:
        raise MdlcError(
            f"the network takes {old.dtype.value} values and normalises them itself",
            node="--mean/--std",
            hint="leave them out",
        )
    fresh = graph_input(picture.name, old.shape)
    return fresh, _as_wanted(_normalised(fresh, picture, how), old)


def _normalised(front: Node, picture: PictureInput, how: Preprocess) -> Node:
    shape = (-1,) if picture.channels_last else (-1, 1, 1)
    mean, std = (s.reshape(shape) for s in how.statistics(picture.channels))
    if mean.any():
        front = make(Sub(), front, constant(mean), name=f"{picture.name}_centred")
    if (std != 1).any():
        inverse = (1 / std.astype(np.float64)).astype(np.float32)
        front = make(Mul(), front, constant(inverse), name=f"{picture.name}_normalised")
    return front


def _as_wanted(front: Node, old: TensorType) -> Node:
    """Converted to the old input's element type."""
    if front.type.dtype is old.dtype:
        return front
    return make(Cast(old.dtype), front, name=f"{front.name}_{old.dtype.value}")


def model_values(value: Array, picture: PictureInput, how: Preprocess) -> Array:
    """In numpy, what the network as trained gets for a buffer of the preprocessed one.

    Written without the graph, so that `verify` compares two independent things.

    Args:
        value: the buffer, [N, H, W, C] uint8 for the 8-bit formats, else in the network's shape.
        picture: the input of the network as trained.
    """
    if not how.changes:
        return value
    dtype = picture.node.type.dtype.numpy
    if how.input_format in INPUT_FORMATS:
        value = value[..., list(how.channel_indices(picture.channels))]
        if not picture.channels_last:
            value = value.transpose(0, 3, 1, 2)
    if how.normalises:
        mean, std = how.statistics(picture.channels)
        shape = (-1,) if picture.channels_last else (-1, 1, 1)
        value = (value.astype(np.float32) - mean.reshape(shape)) / std.reshape(shape)
    return np.ascontiguousarray(value.astype(dtype))


def parse_numbers(text: str | Sequence[float] | float | None, option: str) -> tuple[float, ...]:
    """Numbers from "1,2,3", a sequence or a single number; () from None.

    Raises:
        MdlcError: it is none of these.
    """
    if text is None:
        return ()
    parts: Sequence[str | float]
    if isinstance(text, str):
        parts = text.split(",")
    elif isinstance(text, int | float):
        parts = [text]
    else:
        parts = text
    try:
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        raise MdlcError(
            f"{text!r} is not a list of numbers",
            node=option,
            hint=f"write it as {option} 123.7,116.8,103.9",
        ) from None
