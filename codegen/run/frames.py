"""Camera frames as the runner of an emitted class reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.frame.frame import FORMATS, Frame
from mdlc.compiler.types import Array

TRANSFORM_BYTES = 24


@dataclass(frozen=True)
class FrameRun:
    """An inference on a frame.

    Attributes:
        input: as it was read from the frame, in the input's own shape.
        transform: from places in it to places in the frame, [2, 3]: see the emitted Transform.
        outputs: by name.
    """

    input: Array
    transform: Array
    outputs: Mapping[str, Array]


def pack_frame(frame: Frame) -> bytes:
    """A frame's numbers and planes, in the order of runner.cpp."""
    planes = sorted({source.plane for source in frame.sources})
    steps = {source.plane: frame.step(source) for source in frame.sources}
    header = [
        list(FORMATS).index(frame.format),
        frame.width,
        frame.height,
        frame.rotation,
        int(frame.mirror),
        *(frame.crop or (0, 0, 0, 0)),
        int(frame.region is not None),
        frame.region_columns,
    ]
    for plane in range(3):
        known = plane in planes
        header += (
            [frame.strides[plane], steps[plane], len(frame.planes[plane])] if known else [0] * 3
        )
    region = np.array(frame.region or [0] * 6, "<f4").tobytes()
    data = b"".join(frame.planes[plane].tobytes() for plane in planes)
    return np.array(header, "<i4").tobytes() + region + data
