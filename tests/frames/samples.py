"""Frames of every kind, and a network that shows what it was given."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from mdlc.codegen.frame.frame import FORMATS, Frame, luma_sizes


def passthrough(channels: int, height: int, width: int, batch: int = 1) -> onnx.ModelProto:
    """A network that hands its picture through."""
    dims = [batch, channels, height, width]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "passthrough",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, dims)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, dims)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def random_frame(
    rng: np.random.Generator, longest: int = 60, name: str | None = None, region: float = 0.2
) -> Frame:
    """A frame of any format, size, stride, rotation and crop; now and then one row or column.

    Args:
        region: how often it has a region, which may leave it.
    """
    name = name or str(rng.choice(list(FORMATS)))
    width, height = (1 if rng.random() < 0.15 else int(rng.integers(1, longest)) for _ in "wh")
    chroma_step = int(rng.integers(1, 4))
    planes, strides, steps = [], [], []
    for plane, (row, rows) in enumerate(luma_sizes(name, width, height)):
        step = next(source.step for source in FORMATS[name] if source.plane == plane)
        if name == "YUV_420_888" and plane > 0:
            step = chroma_step
            row = (row - 1) * step + 1
        stride = row + int(rng.integers(0, 9))
        planes.append(rng.integers(0, 256, stride * (rows - 1) + row).astype(np.uint8))
        strides.append(stride)
        steps.append(step)
    crop = None
    if rng.random() < 0.5:
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        crop = x, y, int(rng.integers(1, width - x + 1)), int(rng.integers(1, height - y + 1))
    affine, columns = None, 0
    if rng.random() < region:
        affine = tuple(rng.normal(0, 1, 6) * [1, 1, 20, 1, 1, 20] + [0, 0, 20, 0, 0, 20])
        columns = int(rng.integers(0, 6))
    return Frame(
        name,
        width,
        height,
        tuple(planes),
        tuple(strides),
        tuple(steps),
        int(rng.integers(4)) * 90,
        bool(rng.integers(2)),
        crop,
        affine,
        columns,
    )
