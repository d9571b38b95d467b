"""Texts that read the elements which a thread's four channels are made of."""

from __future__ import annotations

from collections.abc import Sequence

from mdlc.codegen.metal.image import LANES, Image
from mdlc.codegen.metal.index import Index

CHANNEL = "c"


def thread_position(image: Image) -> list[Index]:
    """Image, row and column of a thread of a grid of width x height x (images x slices), and the
    channel as the symbol `c`, which stands for each of its four lanes."""
    at = Index("position.z", image.layers)
    return [
        at // image.slices,
        Index("position.y", image.height),
        Index("position.x", image.width),
        Index(CHANNEL, image.channels),
    ]


def slice_of(image: Image, z: str = "position.z") -> Index:
    """The slice, within its image, of a thread whose z counts images and slices."""
    return Index(z, image.layers) % image.slices


def read(texture: str, source: Image, at: Sequence[Index], own: Image) -> str:
    """The four elements of `source` that a thread's lanes need, as a vector of its type.

    Args:
        at: image, row, column and channel in `source`, on `c` (see thread_position).
        own: the image over which the grid runs.
    """
    image, row, column, channel = at
    moved = any(index.uses(CHANNEL) for index in (image, row, column))
    if not moved:
        pixel = pixel_at(column, row)
        start = _shift(channel)
        if start is not None and start % LANES == 0:
            where = source.layer(image, slice_of(own) + start // LANES)
            same = str(image) == str(Index("position.z", own.layers) // own.slices)
            if same and start == 0 and source.pitch == own.slices:
                where = Index("position.z", own.layers) + source.first
            if own.slices * LANES <= source.channels - start + LANES - 1:
                return f"{texture}.read({pixel}, {where})"
        if not channel.uses(CHANNEL):
            where = source.layer(image, channel // LANES)
            lane = channel % LANES
            texel = f"{texture}.read({pixel}, {where})"
            vector = f"{source.element}4"
            if lane.fixed is not None:
                return f"{vector}({texel}.{'xyzw'[lane.fixed]})"
            return f"{vector}({texel}[{lane}])"
    lanes = []
    for number in range(LANES):
        real = lane_channel(own, number)
        if real is None:
            lanes.append("0")
            continue
        picked = [substitute(index, real) for index in at]
        where = source.layer(picked[0], picked[3] // LANES)
        inner = picked[3] % LANES
        texel = f"{texture}.read({pixel_at(picked[2], picked[1])}, {where})"
        lanes.append(
            f"{texel}.{'xyzw'[inner.fixed]}" if inner.fixed is not None else f"{texel}[{inner}]"
        )
    return f"{source.element}4({', '.join(lanes)})"


def pixel_at(column: Index, row: Index) -> str:
    """A pixel's coordinates as a vector."""
    if (str(column), str(row)) == ("position.x", "position.y"):
        return "position.xy"
    return f"uint2({column}, {row})"


def lane_channel(own: Image, lane: int) -> Index | None:
    """The channel of a lane, no higher than the last one; None where no thread has it."""
    if lane >= own.channels:
        return None
    channel = slice_of(own) * LANES + lane
    over = own.channels % LANES
    if over and lane >= over:
        return channel.at_most(own.channels - 1)
    return channel.below(own.channels)


def substitute(index: Index, channel: Index) -> Index:
    """An expression on `c` for one channel."""
    return index.with_variables({CHANNEL: channel}) if index.uses(CHANNEL) else index


def _shift(channel: Index) -> int | None:
    """k where the expression is c + k."""
    if not channel.uses(CHANNEL):
        return None
    if channel.text == CHANNEL:
        return 0
    if channel.make is Index.__add__ and channel.parts[0].text == CHANNEL:
        return channel.parts[1].fixed
    return None
