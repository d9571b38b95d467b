"""Transposed convolution without scattering: one small convolution for each phase of the output.

Output pixels whose position has the same rest modulo the stride are made of the same filter
taps, of equally spaced input pixels. Each such phase is a stride-1 convolution of the input with
a part of the filter, written with gaps; together they write every output pixel once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mdlc.codegen.code import Function, body, offset
from mdlc.codegen.gemm.loops import (
    cycles,
    emit_loops,
    pack_matrix,
    pack_per_channel,
    packed_length,
    schedules,
)
from mdlc.codegen.gemm.shape import Product, Steps
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.kernels.conv_direct import convolution
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.padding import Border
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv_transpose2d import ConvTranspose2D
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Phase:
    """The output positions of one rest along one axis.

    Attributes:
        first: first output position; count: how many, `stride` apart.
        taps: filter positions that reach them, by ascending input position.
        start: input position of the first tap for the first output; step: from tap to tap.
    """

    first: int
    count: int
    taps: tuple[int, ...]
    start: int
    step: int


def phases(length: int, kernel: int, stride: int, pad: int, dilation: int) -> list[Phase]:
    """The phases of an axis with `length` outputs.

    Output o sums the taps k with o + pad - k * dilation = i * stride for an input i.
    """
    found = []
    for first in range(min(stride, length)):
        taps = [k for k in range(kernel) if (first + pad - k * dilation) % stride == 0]
        taps.reverse()  # a later tap reads an earlier input
        count = -(-(length - first) // stride)
        positions = [(first + pad - k * dilation) // stride for k in taps]
        step = positions[1] - positions[0] if len(taps) > 1 else 1
        found.append(Phase(first, count, tuple(taps), positions[0] if taps else 0, step))
    return found


class ConvTransposeKernel(Kernel):
    """Implicit GEMM for each pair of phases."""

    name = "conv_transpose"
    layer = "Deconvolution"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        if not isinstance(node.op, ConvTranspose2D) or node.type.dtype is not isa.dtype:
            return False
        return all(source.constant is not None for source in node.inputs[1:])

    def _phases(self, node: Node) -> tuple[list[Phase], list[Phase]]:
        op = node.op
        assert isinstance(op, ConvTranspose2D)
        rows, columns = (
            phases(
                node.shape[2 + axis],
                node.inputs[1].shape[2 + axis],
                op.stride[axis],
                op.pads[axis],
                op.dilation[axis],
            )
            for axis in range(2)
        )
        return rows, columns

    def _border(self, node: Node, pitch: int) -> Border:
        """The copy of the input that all phases can read without leaving it."""
        _, channels, height, width = node.inputs[0].shape
        before, size = [], []
        for axis, found in enumerate(self._phases(node)):
            length = (height, width)[axis]
            used = [p for p in found if p.taps]
            lowest = min((p.start for p in used), default=0)
            highest = max(
                (p.start + (len(p.taps) - 1) * p.step + p.count - 1 for p in used), default=0
            )
            before.append(max(0, -lowest))
            size.append(before[-1] + max(length, highest + 1))
        return Border((height, width), channels, pitch, (before[0], before[1]), (size[0], size[1]))

    def _products(self, node: Node, y_pitch: int) -> list[tuple[Product, Phase, Phase]]:
        op = node.op
        assert isinstance(op, ConvTranspose2D)
        images, channels, _, _ = node.inputs[0].shape
        filters, oh, ow = node.shape[1:]
        border = self._border(node, channels)
        width = border.padded[1]
        per_group = channels // op.groups
        found = []
        for down, across in itertools.product(*self._phases(node)):
            joined = across.step == 1 and op.groups == 1
            run = len(across.taps) * channels if joined else per_group
            taps = [(len(down.taps), down.step * width * channels)]
            if not joined:
                taps.append((len(across.taps), across.step * channels))
            if not down.taps or not across.taps:
                run, taps = 0, []
            row = border.before[0] + down.start
            column = border.before[1] + across.start
            x_first = (row * width + column) * channels if run else 0
            y_first = (down.first * ow + across.first) * y_pitch
            product = Product(
                images,
                down.count,
                across.count,
                op.groups,
                filters // op.groups,
                run,
                tuple((count, step) for count, step in taps if count > 1),
                Steps(0, width * channels, channels, per_group, x_first),
                Steps(
                    oh * ow * y_pitch,
                    op.stride[0] * ow * y_pitch,
                    op.stride[1] * y_pitch,
                    filters // op.groups,
                    y_first,
                ),
            )
            found.append((product, down, across))
        return found

    def schedules(self, node: Node, isa: KernelIsa) -> Sequence[Schedule]:
        product = max((p for p, _, _ in self._products(node, node.shape[1])), key=lambda p: p.depth)
        return [Schedule("phases", s.tile) for s in schedules(product, isa) if not s.panels]

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        total = sum(cycles(p, schedule, isa) for p, _, _ in self._products(node, node.shape[1]))
        return total + self._border(node, 1).elements / isa.lanes

    def scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        return self._border(node, node.inputs[0].shape[1]).elements * isa.bytes

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        op = node.op
        assert isinstance(op, ConvTranspose2D)
        weights, bias = node.inputs[1].constant, node.inputs[2].constant
        assert weights is not None
        assert bias is not None
        grouped = weights.reshape(op.groups, -1, *weights.shape[1:])  # g, C/g, M/g, kH, kW
        panels = []
        for product, down, across in self._products(node, node.shape[1]):
            if not product.depth:
                continue
            part = grouped[:, :, :, down.taps][:, :, :, :, across.taps]
            matrix = part.transpose(0, 3, 4, 1, 2).reshape(op.groups, product.depth, -1)
            panels.append(pack_matrix(matrix, product, schedule, isa))
        packed = {
            "weights": np.concatenate(panels) if panels else np.zeros(1, isa.dtype.numpy),
            "bias": pack_per_channel(bias, op.groups, isa),
        }
        if op.has_slope:
            slope = node.inputs[3].constant
            assert slope is not None
            packed["slope"] = pack_per_channel(slope, op.groups, isa)
        return packed

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, x = step.node, step.inputs[0]
        op = node.op
        assert isinstance(op, ConvTranspose2D)
        epilogue = Epilogue(op.activation)
        border = self._border(node, x.pitch)
        products, weights = [], 0
        for product, _, _ in self._products(node, step.output.pitch):
            here = replace(product, weights=weights)
            products.append(emit_loops(here, step.schedule, isa, epilogue, "padded"))
            weights += packed_length(product, step.schedule, isa) * product.groups
        kh, kw = node.inputs[1].shape[2:]
        _, channels, height, width = node.inputs[0].shape
        name = f"deconv{kh}x{kw}s{op.stride[0]}_{height}x{width}x{channels}_to_{node.shape[1]}"
        name += epilogue.suffix
        image = offset("x", (node.shape[0], "image", height * width * x.pitch))
        return convolution(step, isa, name, node.shape[0], border.code(image, isa), body(*products))


KERNELS = (ConvTransposeKernel(),)
