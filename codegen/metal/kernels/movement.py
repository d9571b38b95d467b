"""Layers that only move elements: every thread finds out where its four channels come from.

Where they come from one texel, one read does; else each lane is read by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mdlc.codegen.code import LayerCode
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.metal.access import (
    CHANNEL,
    lane_channel,
    pixel_at,
    read,
    substitute,
    thread_position,
)
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.image import LANES, Image, element
from mdlc.codegen.metal.index import Index, flat, unflat
from mdlc.codegen.metal.kernel import (
    ZEROS,
    ComputeCode,
    ComputeKernel,
    declaration,
    group_for,
    guard,
    image_of,
    layer,
    stored,
)
from mdlc.codegen.metal.kernels.elementwise import BUFFER_TYPES, as_buffer, element_names
from mdlc.codegen.metal.msl import literal
from mdlc.codegen.metal.parts import as_vector
from mdlc.compiler.ir import Node
from mdlc.compiler.op import Op
from mdlc.compiler.ops.channel_shuffle import ChannelShuffle
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import Constant
from mdlc.compiler.ops.convert_layout import ConvertLayout
from mdlc.compiler.ops.depth_to_space import DepthToSpace
from mdlc.compiler.ops.expand import Expand
from mdlc.compiler.ops.gather import Gather
from mdlc.compiler.ops.identity import Identity
from mdlc.compiler.ops.pad import Pad
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.space_to_depth import SpaceToDepth
from mdlc.compiler.ops.tile import Tile
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.types import Array

Indices = Sequence[Index]


def _transpose(op: Transpose, node: Node, at: Indices) -> list[Index]:
    found = [Index.of(0)] * len(at)
    for place, axis in enumerate(op.perm):
        found[axis] = at[place]
    return found


def _same(op: Op, node: Node, at: Indices) -> list[Index]:
    return list(at)


def _reshape(op: Reshape, node: Node, at: Indices) -> list[Index]:
    return unflat(flat(at, node.shape), node.inputs[0].shape)


def _slice(op: Slice, node: Node, at: Indices) -> list[Index]:
    found = []
    for index, start, step, length in zip(
        at, op.starts, op.steps, node.inputs[0].shape, strict=True
    ):
        if step > 0:
            found.append((index * step + start).below(length))
        else:
            found.append((start - index * -step).below(length))
    return found


def _expand(op: Expand, node: Node, at: Indices) -> list[Index]:
    source = node.inputs[0].shape
    own = at[len(at) - len(source) :]
    return [Index.of(0) if n == 1 else index for index, n in zip(own, source, strict=True)]


def _tile(op: Tile, node: Node, at: Indices) -> list[Index]:
    return [index % n for index, n in zip(at, node.inputs[0].shape, strict=True)]


def _depth_to_space(op: DepthToSpace, node: Node, at: Indices) -> list[Index]:
    n, c, h, w = at
    b, rest = op.block, node.shape[1]
    dcr = ((h % b) * b + w % b) * rest + c
    channel = dcr if op.mode == "DCR" else (c * b + h % b) * b + w % b
    return [n, channel, h // b, w // b]


def _space_to_depth(op: SpaceToDepth, node: Node, at: Indices) -> list[Index]:
    n, c, h, w = at
    b, channels = op.block, node.inputs[0].shape[1]
    if op.mode == "DCR":
        block, channel = c // channels, c % channels
    else:
        block, channel = c % (b * b), c // (b * b)
    return [n, channel, h * b + block // b, w * b + block % b]


def _shuffle(op: ChannelShuffle, node: Node, at: Indices) -> list[Index]:
    n, c, h, w = at
    rest = node.shape[1] // op.groups
    return [n, (c % op.groups) * rest + c // op.groups, h, w]


_SOURCES: dict[type[Op], Callable[..., list[Index]]] = {
    Transpose: _transpose,
    ConvertLayout: _same,
    Identity: _same,
    Reshape: _reshape,
    Slice: _slice,
    Expand: _expand,
    Tile: _tile,
    DepthToSpace: _depth_to_space,
    SpaceToDepth: _space_to_depth,
    ChannelShuffle: _shuffle,
}


def _code(
    node: Node,
    own: Image,
    textures: Sequence[tuple[str, str, str]],
    buffers: Sequence[tuple[str, str]],
    body: str,
    helpers: tuple[str, ...] = (),
) -> ComputeCode:
    grid = (own.width, own.height, own.layers)
    source = Image.of(node.inputs[0].type).label if node.inputs else "nothing"
    name = f"{type(node.op).__name__.lower()}_{source}_to_{own.label}"
    if own.element == "int":
        name += "_int"
    head = declaration([*textures, (own.element, "write", "y")], buffers)
    body = guard(grid) + body
    return ComputeCode(
        name, node.op.words, head, body, grid=grid, group=group_for(grid), helpers=helpers
    )


def _as(own: Image, source: Image, value: str) -> str:
    """A vector of the source's type as one of the result's."""
    return as_vector(f"{own.element}4", f"{source.element}4", value)


def _write(own: Image, value: str) -> str:
    return f"y.write({value}, position.xy, {layer(own)});"


class Movement(ComputeKernel):
    """One source, each element found by arithmetic on its indices."""

    name = "copy"
    layer = "DataMovement"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        return type(node.op) in _SOURCES and stored(node) and node.inputs[0].constant is None

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node = step.node
        own, source = image_of(step.output), image_of(step.inputs[0])
        logical = own.logical(thread_position(own))
        at = source.position(_SOURCES[type(node.op)](node.op, node, logical))
        value = _as(own, source, read("x", source, at, own))
        return _code(node, own, [(source.element, "read", "x")], [], _write(own, value))


class ConcatKernel(ComputeKernel):
    """Several sources one behind the other."""

    name = "concat"
    layer = "DataMovement"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        return isinstance(node.op, Concat) and stored(node)

    def pack(self, node: Node, schedule: Schedule, metal: Metal) -> dict[str, Array]:
        return {
            f"constant{i}": as_buffer(source.type.to_physical(source.constant).reshape(-1), metal)
            for i, source in enumerate(node.inputs)
            if source.constant is not None
        }

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node, op = step.node, step.node.op
        assert isinstance(op, Concat)
        own = image_of(step.output)
        logical = own.logical(thread_position(own))
        views = iter(step.inputs)
        textures: list[tuple[str, str, str]] = []
        buffers: list[tuple[str, str]] = []
        whole = f"{own.element}4"
        names = element_names(node)
        axis = logical[op.axis]
        by_channel = axis.uses(CHANNEL)
        branches: list[tuple[int, Callable[[int | None], str]]] = []
        start = 0
        for i, (name, source) in enumerate(zip(names, node.inputs, strict=True)):
            length = source.shape[op.axis]
            moved = list(logical)
            own_index = axis - start
            moved[op.axis] = replace(own_index, count=length) if length > 1 else Index.of(0)
            if source.constant is not None:
                kind = BUFFER_TYPES[step.weights[f"constant{i}"].dtype][:-1]
                buffers.append((f"device const {kind}", name))
                image = Image.of(source.type)
                position = flat(image.position(moved), image.extent)
                branches.append((start + length, _constant_lanes(name, position, own)))
            else:
                image = image_of(next(views))
                textures.append((image.element, "read", name))
                branches.append((start + length, _texture_lanes(name, image, moved, own)))
            start += length
        lines = [f"{whole} value = {whole}(0);"]
        if not by_channel:
            lines += _chain(axis, branches, lambda give: f"value = {give(None)};")
        else:
            for lane in range(LANES):
                channel = lane_channel(own, lane)
                if channel is None:
                    continue
                index = substitute(axis, channel)
                lines += _chain(
                    index, branches, lambda give, k=lane: f"value.{'xyzw'[k]} = {give(k)};"
                )
        lines.append(_write(own, "value"))
        return _code(node, own, textures, buffers, "\n".join(lines))


Give = Callable[[int | None], str]


def _chain(
    index: Index, branches: Sequence[tuple[int, Give]], spell: Callable[..., str]
) -> list[str]:
    lines = []
    for number, (end, give) in enumerate(branches):
        last = number == len(branches) - 1
        test = f"if ({index} < {end}) {{" if not last else "{"
        lines.append(("} else " if number else "") + test)
        lines.append(spell(give))
    return [*lines, "}"] if len(branches) > 1 else lines[1:]


def _texture_lanes(name: str, image: Image, logical: Indices, own: Image) -> Give:
    position = image.position(logical)

    def give(lane: int | None) -> str:
        if lane is None:
            return _as(own, image, read(name, image, position, own))
        channel = lane_channel(own, lane)
        assert channel is not None
        at = [substitute(index, channel) for index in position]
        inner = at[3] % LANES
        texel = f"{name}.read({pixel_at(at[2], at[1])}, {image.layer(at[0], at[3] // LANES)})"
        return f"{texel}.{'xyzw'[inner.fixed]}" if inner.fixed is not None else f"{texel}[{inner}]"

    return give


def _constant_lanes(name: str, position: Index, own: Image) -> Give:
    def give(lane: int | None) -> str:
        if lane is not None:
            channel = lane_channel(own, lane)
            assert channel is not None
            return f"{own.element}({name}[{substitute(position, channel)}])"
        lanes = []
        for k in range(LANES):
            channel = lane_channel(own, k)
            picked = "0" if channel is None else f"{name}[{substitute(position, channel)}]"
            lanes.append(picked)
        return f"{own.element}4({', '.join(lanes)})"

    return give


class PadKernel(ComputeKernel):
    """Borders: zeros around pixels by the sampler, everything else by tables of indices."""

    name = "pad"
    layer = "DataMovement"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        return isinstance(node.op, Pad) and stored(node) and node.inputs[0].constant is None

    @staticmethod
    def _by_sampler(node: Node) -> bool:
        op = node.op
        assert isinstance(op, Pad)
        tensor = node.inputs[0].type
        if op.mode != "constant" or op.value or tensor.rank < 3:
            return False
        physical = [(op.begins[a], op.ends[a]) for a in tensor.layout.axes(tensor.rank)]
        rest = [*physical[:-3], physical[-1]]
        return (
            element(tensor.dtype) == "half"
            and not any(any(pair) for pair in rest)
            and min(op.begins) >= 0
        )

    def _tables(self, node: Node) -> dict[str, Array]:
        op = node.op
        assert isinstance(op, Pad)
        found = {}
        for axis, length in enumerate(node.inputs[0].shape):
            if op.begins[axis] or op.ends[axis]:
                found[f"axis{axis}"] = op.source_index(axis, length).astype(np.int32)
        return found

    def pack(self, node: Node, schedule: Schedule, metal: Metal) -> dict[str, Array]:
        return {} if self._by_sampler(node) else self._tables(node)

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node, op = step.node, step.node.op
        assert isinstance(op, Pad)
        own, source = image_of(step.output), image_of(step.inputs[0])
        if self._by_sampler(node):
            layout = node.type.layout.axes(node.type.rank)
            top, left = op.begins[layout[-3]], op.begins[layout[-2]]
            body = (
                f"const float2 at = float2(position.xy) + float2({0.5 - left}f, {0.5 - top}f);\n"
                + _write(own, _as(own, source, f"x.sample(zeros, at, {_layer_of(source, own)})"))
            )
            return _code(node, own, [(source.element, "sample", "x")], [], body, (ZEROS,))
        logical = own.logical(thread_position(own))
        tables = step.weights
        buffers = [("device const int", name) for name in tables]
        constant = op.mode == "constant"
        lines = [f"{own.element}4 value = {literal(op.value, f'{own.element}4')};"]
        for lane in range(LANES):
            channel = lane_channel(own, lane)
            if channel is None:
                continue
            indices, tests = [], []
            for axis, (index, length) in enumerate(zip(logical, node.inputs[0].shape, strict=True)):
                picked = substitute(index, channel)
                if f"axis{axis}" in tables:
                    name = f"i{axis}_{lane}"
                    lines.append(f"const int {name} = axis{axis}[{picked}];")
                    if constant:
                        tests.append(f"{name} >= 0")
                    picked = Index(f"uint({name})", length)
                indices.append(picked)
            at = source.position(indices)
            inner = at[3] % LANES
            texel = f"x.read({pixel_at(at[2], at[1])}, {source.layer(at[0], at[3] // LANES)})"
            element_ = f"{texel}[{inner}]"
            put = f"value.{'xyzw'[lane]} = {element_};"
            lines += [f"if ({' && '.join(tests)}) {{", put, "}"] if tests else [put]
        lines.append(_write(own, "value"))
        return _code(node, own, [(source.element, "read", "x")], buffers, "\n".join(lines))


def _layer_of(source: Image, own: Image) -> str:
    position = thread_position(own)
    at = Index("position.z", own.layers)
    if source.pitch == own.slices:
        return str(at + source.first)
    return str(source.layer(position[0], at % own.slices))


class GatherKernel(ComputeKernel):
    """Elements along an axis by indices, known at compile time or read from a texture."""

    name = "gather"
    layer = "Gather"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        return isinstance(node.op, Gather) and stored(node)

    def pack(self, node: Node, schedule: Schedule, metal: Metal) -> dict[str, Array]:
        assert isinstance(node.op, Gather)
        data, indices = (source.constant for source in node.inputs)
        packed: dict[str, Array] = {}
        if data is not None:
            packed["table"] = as_buffer(data.reshape(-1), metal)
        if indices is not None:
            length = node.inputs[0].shape[node.op.axis]
            positive = np.where(indices < 0, indices + length, indices)
            packed["indices"] = positive.reshape(-1).astype(np.int32)
        return packed

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node, op = step.node, step.node.op
        assert isinstance(op, Gather)
        own = image_of(step.output)
        data, indices = node.inputs
        views = list(step.inputs)
        textures, buffers, lines = [], [], []
        source = None
        if data.constant is None:
            source = image_of(views.pop(0))
            textures.append((source.element, "read", "x"))
        else:
            kind = BUFFER_TYPES[step.weights["table"].dtype][:-1]
            buffers.append((f"device const {kind}", "table"))
        chosen = None
        if indices.constant is None:
            chosen = image_of(views[0])
            textures.append((chosen.element, "read", "chosen"))
        else:
            buffers.append(("device const int", "indices"))
        logical = own.logical(thread_position(own))
        rank = len(indices.shape)
        length = data.shape[op.axis]
        lines.append(f"{own.element}4 value = {own.element}4(0);")
        for lane in range(LANES):
            channel = lane_channel(own, lane)
            if channel is None:
                continue
            at = [substitute(index, channel) for index in logical]
            which = at[op.axis : op.axis + rank]
            name = f"index{lane}"
            if chosen is None:
                place = flat(which, indices.shape)
                lines.append(f"const uint {name} = uint(indices[{place}]);")
            else:
                p = chosen.position(which)
                texel = f"chosen.read({pixel_at(p[2], p[1])}, {chosen.layer(p[0], p[3] // LANES)})"
                inner = p[3] % LANES
                lines.append(f"const int given{lane} = int({texel}[{inner}]);")
                wrapped = f"given{lane} < 0 ? given{lane} + {length} : given{lane}"
                lines.append(f"const uint {name} = uint(clamp({wrapped}, 0, {length - 1}));")
            picked = [*at[: op.axis], Index(name, length), *at[op.axis + rank :]]
            if length == 1:
                picked[op.axis] = Index.of(0)
            if source is None:
                text = f"table[{flat(picked, data.shape)}]"
            else:
                p = source.position(picked)
                texel = f"x.read({pixel_at(p[2], p[1])}, {source.layer(p[0], p[3] // LANES)})"
                text = f"{texel}[{p[3] % LANES}]"
            lines.append(f"value.{'xyzw'[lane]} = {own.element}({text});")
        lines.append(_write(own, "value"))
        unused = [] if length > 1 else [f"(void)index{k};" for k in range(min(4, own.channels))]
        lines[-1:-1] = unused
        return _code(node, own, textures, buffers, "\n".join(lines))


class ConstantKernel(ComputeKernel):
    """A constant that is an output of the network."""

    name = "constant"
    layer = "Constant"

    def matches(self, node: Node, metal: Metal) -> bool:
        return isinstance(node.op, Constant) and element(node.type.dtype) is not None

    def pack(self, node: Node, schedule: Schedule, metal: Metal) -> dict[str, Array]:
        assert isinstance(node.op, Constant)
        physical = node.type.to_physical(node.op.value).reshape(-1)
        return {"values": as_buffer(physical, metal)}

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        own = image_of(step.output)
        kind = BUFFER_TYPES[step.weights["values"].dtype][:-1]
        give = _constant_lanes("values", flat(thread_position(own), own.extent), own)
        return _code(
            step.node, own, [], [(f"device const {kind}", "values")], _write(own, give(None))
        )


KERNELS = (Movement(), ConcatKernel(), PadKernel(), GatherKernel(), ConstantKernel())
