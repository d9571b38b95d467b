"""Attention in bands of queries, whose scores stay in the first-level cache.

For every head, keys and values are packed as weights are: keys transposed, both read through the
strides that cut heads. Then, band by band, scores are a product of queries and packed keys, their
rows become shares (tiles/softmax.py), and the output is a product of shares and packed values,
written where the head lies among the others. A band has whole rows of scores, so that the softmax
is exact in two passes and needs no rescaling of sums: keys of mobile networks are few. (Blocks of
queries as in FlashAttention, Dao et al., arXiv 2205.14135, without its blocks of keys.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.code import (
    Body,
    Call,
    Function,
    Loop,
    Pointer,
    Scope,
    Statement,
    Variable,
    body,
    offset,
)
from mdlc.codegen.gemm.loops import aligned, cycles, emit_loops, packed_length, schedules
from mdlc.codegen.gemm.product_loops import panel_elements
from mdlc.codegen.gemm.shape import Product, Steps, channel_blocks
from mdlc.codegen.gemm.strides import Dim, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.threads import best_level, loop_cases
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.formula import literal
from mdlc.codegen.tiles.operands import runtime_of
from mdlc.codegen.tiles.right_side import pack_columns, pack_rows
from mdlc.codegen.tiles.softmax import SoftmaxRow, masked_row
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.attention import Attention
from mdlc.compiler.types import Array, Layout


@dataclass(frozen=True)
class _Bands:
    """How an attention is cut and where its scratch memory has what, in elements.

    Attributes:
        scores, values: schedules of the products; rows: of a band.
        pitch: from one row of scores to the next; a vector more than there are keys, so that
            scores behind the last key may be hidden by one store.
    """

    op: Attention
    isa: KernelIsa
    scores: Schedule
    values: Schedule
    rows: int
    pitch: int

    def scores_product(self, rows: int) -> Product:
        """[rows, depth] by [depth, keys], keys up to whole vectors."""
        op, lanes = self.op, self.isa.lanes
        keys = -(-op.keys // lanes) * lanes
        x, y = Steps(0, 0, op.q.strides[-2], 0), Steps(0, 0, self.pitch, 0)
        return Product(1, 1, rows, 1, keys, op.depth, (), x, y)

    def values_product(self, rows: int) -> Product:
        """[rows, keys] by [keys, columns]."""
        op = self.op
        x, y = Steps(0, 0, self.pitch, 0), Steps(0, 0, op.output.strides[-2], 0)
        return Product(1, 1, rows, 1, op.columns, op.keys, (), x, y)

    @property
    def bands(self) -> list[tuple[int, int]]:
        """(number, rows) of bands, in order."""
        whole, rest = divmod(self.op.rows, self.rows)
        return [(whole, self.rows)] + ([(1, rest)] if rest else [])

    @property
    def packed(self) -> tuple[int, int]:
        """Elements of packed keys, and of packed values."""
        products = (self.scores_product(1), self.scores), (self.values_product(1), self.values)
        keys, values = (aligned(packed_length(*each, self.isa), self.isa) for each in products)
        return keys, values

    @property
    def band(self) -> int:
        """Elements of a band's scores and panels."""
        panels = (
            panel_elements(product(rows), schedule, self.isa)
            for _, rows in self.bands
            for product, schedule in (
                (self.scores_product, self.scores),
                (self.values_product, self.values),
            )
        )
        return self.row_scores + aligned(max(panels), self.isa)

    @property
    def row_scores(self) -> int:
        """Elements of a band's scores."""
        return aligned(self.rows * self.pitch, self.isa)

    @property
    def shared(self) -> str:
        """The loop that threads share: heads or bands."""
        bands = sum(count for count, _ in self.bands)
        return best_level([("head", math.prod(self.op.batch)), ("band", bands)])

    @property
    def own(self) -> int:
        """Elements that every thread has for itself."""
        return self.band + (sum(self.packed) if self.shared == "head" else 0)


class AttentionKernel(Kernel):
    """All heads of an attention, in float32 or half precision."""

    name = "attention"
    layer = "Attention"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        tensors = (node, *node.inputs)
        return isinstance(node.op, Attention) and all(
            each.type.dtype is isa.dtype and each.type.layout is Layout.PLAIN for each in tensors
        )

    def schedules(self, node: Node, isa: KernelIsa) -> Sequence[Schedule]:
        op = node.op
        assert isinstance(op, Attention)
        plain = _Bands(op, isa, Schedule(""), Schedule(""), 1, op.keys)
        rows, columns = plain.scores_product(op.rows), plain.values_product(op.rows)
        second: dict[bool, Schedule] = {}
        for each in schedules(columns, isa):
            best = second.setdefault(each.panels, each)
            if cycles(columns, each, isa) < cycles(columns, best, isa):
                second[each.panels] = each
        found = set()
        for each in schedules(rows, isa):
            values = second.get(each.panels)
            if values is not None:
                block = (_band_rows(op, each.tile[0], isa), *values.tile)
                found.add(Schedule("bands", each.tile, block, panels=each.panels))
        return sorted(found, key=lambda schedule: (schedule.panels, schedule.tile))

    @staticmethod
    def _bands(node: Node, schedule: Schedule, isa: KernelIsa) -> _Bands:
        op = node.op
        assert isinstance(op, Attention)
        rows, *tile = schedule.block
        scores = Schedule("direct", schedule.tile, panels=schedule.panels)
        values = Schedule("direct", tuple(tile), panels=schedule.panels)
        return _Bands(op, isa, scores, values, rows, _pitch(op, isa))

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        op, bands = node.op, self._bands(node, schedule, isa)
        assert isinstance(op, Attention)
        products = cycles(bands.scores_product(op.rows), bands.scores, isa)
        products += cycles(bands.values_product(op.rows), bands.values, isa)
        softmax = op.rows * op.keys * 25.0 / isa.lanes / isa.core.issue_width
        packing = op.keys * (op.depth + op.columns) * 2.0 / isa.lanes
        return math.prod(op.batch) * (products + softmax + packing)

    def scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        bands = self._bands(node, schedule, isa)
        return isa.bytes * (sum(bands.packed) + bands.band)

    def thread_scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        return isa.bytes * self._bands(node, schedule, isa).own

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        op = node.op
        assert isinstance(op, Attention)
        each = zip(_names(op), node.inputs, strict=True)
        packed = {
            name: np.ascontiguousarray(source.constant)
            for name, source in each
            if source.constant is not None
        }
        # What tiles of linear layers start from.
        length = -(-max(op.keys, op.columns) // isa.lanes) * isa.lanes
        return {**packed, "bias": np.zeros(length, isa.dtype.numpy)}

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, Attention)
        bands = self._bands(node, step.schedule, isa)
        element, names = isa.element, _names(op)
        views = [*op.operands, op.output]
        axes = [axis for axis, count in enumerate(op.batch) if count > 1]
        dims = [Dim(op.batch[a], tuple(view.strides[a] for view in views)) for a in axes]
        own = bands.own if bands.shared == "head" else 0
        keys, values = bands.packed
        lines: list[Statement] = [
            Variable(f"const {element}*", name.removeprefix("all_"),
                     pointer(name, dims, i, fixed=view.offset))
            for i, (name, view) in enumerate(zip(names, op.operands, strict=True))
        ]  # fmt: skip
        lines += [
            Variable(f"{element}*", "y", pointer("all_y", dims, len(names))),
            Variable(f"{element}*", "keys", Pointer("memory", own=own)),
            Variable(f"{element}*", "values", Pointer("memory", fixed=keys, own=own)),
        ]
        by_depth = op.k.strides[-1] == 1
        lines += _packing(bands.scores_product(1), bands.scores, isa, "k", "keys", op.keys,
                          op.k.strides[-2 if by_depth else -1], columns=by_depth)  # fmt: skip
        if isa.as_float is not None and op.scale != 1.0:  # scores stay in range
            lines += _scaled_keys(packed_length(bands.scores_product(1), bands.scores, isa),
                                  op.scale, isa)  # fmt: skip
        lines += _packing(bands.values_product(1), bands.values, isa, "v", "values", op.columns,
                          op.v.strides[-2], columns=False)  # fmt: skip
        lines += loop_cases(
            "band",
            [(count, (Scope(self._band(bands, i, own, keys + values)),) if count == 1 else
              self._band(bands, i, own, keys + values))
             for i, (count, _) in enumerate(bands.bands)],
            shared=bands.shared == "band",
        )  # fmt: skip
        tile = step.schedule.tile[1], step.schedule.block[2]
        return step.function(
            f"attention_{'x'.join(map(str, (*op.batch, op.rows, op.keys)))}_depth{op.depth}",
            f"{element}* memory = reinterpret_cast<{element}*>(scratch);",
            nest([dim.count for dim in dims], lines, shared=bands.shared == "head"),
            comment=[
                f"{step.schedule}: bands of {bands.rows} queries; keys packed as "
                f"[keys / {tile[0]}][depth][{tile[0]}], values as "
                f"[columns / {tile[1]}][keys][{tile[1]}]."
            ],
            inputs=runtime_of(node, names),
            output="all_y",
            scratch=True,
        )

    @staticmethod
    def _band(bands: _Bands, index: int, own: int, first: int) -> Body:
        """The statements of one band."""
        op, isa = bands.op, bands.isa
        count, rows = bands.bands[index]
        before = bands.bands[0][0] * bands.rows if index else 0
        own = own or bands.own
        element, lanes = isa.element, isa.lanes

        def at(base: str, step: int) -> Pointer:
            return offset(base, (count, "band", bands.rows * step), fixed=before * step)

        found: list[Statement] = [
            Variable(f"const {element}*", "queries", at("q", op.q.strides[-2])),
            Variable(f"{element}*", "to", at("y", op.output.strides[-2])),
            Variable(f"{element}*", "scores", Pointer("memory", fixed=first, own=own)),
        ]
        if bands.scores.panels:
            place = Pointer("memory", fixed=first + bands.row_scores, own=own)
            found.append(Variable(f"{element}*", "panels", place))
        found += emit_loops(bands.scores_product(rows), bands.scores, isa, Epilogue(), "queries",
                            "scores", weights="keys", shared=False)  # fmt: skip
        inside: list[Statement] = []
        row = offset("scores", (rows, "row", bands.pitch))
        # In half precision the keys are scaled.
        scale = [literal(op.scale)] if isa.as_float is None and op.scale != 1.0 else []
        if op.masks or op.scale <= 0:
            masks = [
                offset(f"mask{i}", (count, "band", bands.rows * view.strides[-2]),
                       (rows, "row", view.strides[-2]), fixed=before * view.strides[-2])
                for i, view in enumerate(op.masks)
            ]  # fmt: skip
            if masks or scale:
                added = masked_row(isa, len(masks), scaled=bool(scale))
                inside.append(Call(added, (row, op.keys, *scale, *masks)))
            scale = []
        if op.keys % lanes:
            inside.append(f"{isa.store(row + op.keys, isa.set1(literal(-math.inf)))};")
        softmax = SoftmaxRow(tail=False, scaled=bool(scale)).microkernel(isa)
        inside.append(Call(softmax, (row, row, -(-op.keys // lanes) * lanes, *scale)))
        found += [Loop("row", rows, tuple(inside))]
        found += emit_loops(bands.values_product(rows), bands.values, isa, Epilogue(), "scores",
                            "to", weights="values", shared=False)  # fmt: skip
        return body(found)


def _names(op: Attention) -> list[str]:
    return ["all_q", "all_k", "all_v", *(f"all_mask{i}" for i in range(len(op.masks)))]


def _pitch(op: Attention, isa: KernelIsa) -> int:
    length = -(-op.keys // isa.lanes) * isa.lanes
    length += isa.lanes if op.keys % isa.lanes else 0
    # Rows of a tile that lie a multiple of 2 KiB apart would meet in a few sets of the cache.
    return length + (64 // isa.bytes if length * isa.bytes % 2048 == 0 else 0)


def _band_rows(op: Attention, tile: int, isa: KernelIsa) -> int:
    """Rows of a band: whole tiles whose scores fill half of the first-level cache, all alike."""
    most = max(isa.core.l1_bytes // 2 // (_pitch(op, isa) * isa.bytes) // tile, 1) * tile
    bands = -(-op.rows // most)
    return min(-(-op.rows // bands // tile) * tile, op.rows)


def _packing(
    product: Product, schedule: Schedule, isa: KernelIsa, source: str, target: str, used: int,
    step: int, *, columns: bool,
) -> Body:  # fmt: skip
    """Copies [depth, used] into panels of the right side.

    Args:
        used: columns that there are; step: elements from row to row, or from column to column if
            `columns`, a column's elements then touching.
    """
    found: list[Statement] = []
    depth = product.packed_depth(schedule, isa)
    for block in channel_blocks(product, schedule, isa):
        width = block.vectors * isa.lanes
        cuts = [(block.count, block.first, width)]
        last = used - block.first - (block.count - 1) * width
        if last < width:  # the last panel has fewer
            cuts = [(block.count - 1, block.first, width)] if block.count > 1 else []
            cuts.append((1, block.first + (block.count - 1) * width, last))
        for count, first, kept in cuts:
            start = block.offset + (first - block.first) * depth
            moved = step if columns else 1
            panel = offset(source, (count, "n", width * moved), fixed=first * moved)
            place = offset(target, (count, "n", width * depth), fixed=start)
            kernel = pack_columns(isa) if columns else pack_rows(isa)
            call = Call(kernel, (panel, step, product.depth, place), (kept, width))
            inside: list[Statement] = [call]
            if depth > product.depth:  # panels pad the sums
                size = f"sizeof({isa.element}) * {(depth - product.depth) * width}"
                inside.append(Call("std::memset", (place + product.depth * width, "0", size)))
            found.append(Loop("n", count, tuple(inside)))
    return tuple(found)


def _scaled_keys(length: int, scale: float, isa: KernelIsa) -> Body:
    at = "keys + i" if length > isa.lanes else "keys"
    scaled = f"{isa.store(at, isa.op('mul', isa.load(at), isa.set1(literal(scale))))};"
    if length <= isa.lanes:
        return (scaled,)
    return (f"for (int i = 0; i < {length}; i += {isa.lanes}) {{\n{scaled}\n}}",)


KERNELS = (AttentionKernel(),)
