"""Convolution by Winograd's minimal filtering, in NHWC.

Tiles of the input are transformed, multiplied with transformed filters as size^2 independent
products (the implicit GEMM of codegen/gemm/loops.py, without gaps), and transformed back with the
epilogue. Blocks of tile rows keep the transformed values in cache.

A convolution of stride 2 is one of stride 1, of half the taps, on the four phases of the image:
even and odd rows and columns become channels. A phase with a tap less than the others has no
products at the point infinity, where only the last tap counts. So a 3x3 filter of stride 2 takes
81 products for 16 outputs instead of 144, and a 7x7 filter 169 instead of 784.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlc.codegen.code import (
    C_TYPES,
    Body,
    Call,
    Function,
    Loop,
    Pointer,
    Scope,
    Statement,
    Value,
    Variable,
    body,
    offset,
)
from mdlc.codegen.gemm.loops import (
    aligned,
    cycles,
    emit_loops,
    pack_matrix,
    pack_per_channel,
    packed_length,
    schedules,
)
from mdlc.codegen.gemm.product_loops import panel_elements, thread_panels
from mdlc.codegen.gemm.runs import Run, group_runs
from mdlc.codegen.gemm.shape import channel_blocks
from mdlc.codegen.gemm.strides import nest
from mdlc.codegen.gemm.winograd_tiling import Tiling, tiling, tiling_of
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Loss, Schedule, Step, TransformedFilters
from mdlc.codegen.kernels.conv_direct import conv_stem
from mdlc.codegen.threads import best_level, loop, loop_cases
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.padding import Border, FoldedBorder
from mdlc.codegen.tiles.uint8_input import Unpack
from mdlc.codegen.tiles.winograd import InputTile, OutputTile
from mdlc.codegen.tiles.winograd_transform import LARGEST, transform
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.types import Array, DType

_PLAIN = Epilogue(bias=False)
# No output of a bounded activation is as large.
LARGE = 1e6
# Of its largest output, what a convolution may lose by its transform.
MAX_LOSS = 1e-2


# The same where an activation bounds the output and sums are larger: a filter that finds edges in
# front of a ReLU6 has sums of hundreds, whose rounding errors are large beside 6.
MAX_CLIPPED_LOSS = {DType.F32: 1e-4, DType.F16: 1e-1}
# The largest of many sums, in standard deviations.
_LARGEST_SUM = 4.0


def _outputs(node: Node, isa: KernelIsa) -> list[int]:
    """Outputs of the tiles that lose little enough."""
    op = node.op
    assert isinstance(op, Conv2D)
    taps = -(-node.inputs[1].shape[2] // op.stride[0])
    clipped = _clipped(node)
    found = []
    for outputs in range(2, LARGEST - taps + 2):
        lost = transform(outputs, taps, isa.dtype).error
        most = MAX_CLIPPED_LOSS.get(isa.dtype, MAX_LOSS)
        if lost <= MAX_LOSS and (clipped <= 1 or lost * clipped <= most):
            found.append(outputs)
    return found


def _clipped(node: Node) -> float:
    """The largest sum by the largest output that a bounded activation leaves of it.

    For inputs of about 1, as normalisation makes them; 0 where the output is not bounded.
    """
    op, weights = node.op, node.inputs[1].constant
    assert isinstance(op, Conv2D)
    if op.activation is None or op.has_slope or weights is None:
        return 0.0
    ends = np.array([-LARGE, LARGE])
    with np.errstate(all="ignore"):
        bound = float(np.abs(op.activation.reference(ends)).max())
    if not 0 < bound < LARGE / 10:
        return 0.0
    wide = weights.astype(np.float64).reshape(len(weights), -1)
    return float(_LARGEST_SUM * np.sqrt((wide**2).sum(1)).max() / bound)


class ConvWinograd(Kernel):
    """F(m, r) for square filters of stride 1 and 2."""

    name = "conv_winograd"
    layer = "Convolution"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        op = node.op
        if not isinstance(op, Conv2D) or node.type.dtype is not isa.dtype:
            return False
        if any(source.constant is None for source in node.inputs[1:3]):
            return False
        filters, _, *kernel = node.inputs[1].shape
        stride = op.stride[0]
        return (
            op.groups == 1
            and op.dilation == (1, 1)
            and op.stride == (stride, stride)
            and stride <= 2
            and kernel[0] == kernel[1] > stride
            and -(-kernel[0] // stride) <= 5
            and bool(_outputs(node, isa))
            and filters % isa.lanes == 0
        )

    def schedules(self, node: Node, isa: KernelIsa) -> Sequence[Schedule]:
        op = node.op
        assert isinstance(op, Conv2D)
        found = []
        for outputs in _outputs(node, isa):
            one = tiling(node, isa, outputs, 1)
            rows = one.rows
            row_bytes = (one.v_elements() + one.points * one.tiles * one.filters) * isa.bytes
            block = max(1, min(rows, isa.core.l2_bytes // 2 // row_bytes))
            block = -(-rows // -(-rows // block))  # blocks of nearly equal height
            # In cache, so that two threads get as many blocks each; or the weights read only once.
            even = [h for h in range(1, block + 1) if -(-rows // h) % 2 == 0]
            for height in sorted({max(even, default=block), rows}):
                part = tiling(node, isa, outputs, height)
                product = part.product(part.classes()[0], height)
                found += [
                    Schedule("winograd", s.tile, (outputs, height), s.panels)
                    for s in schedules(product, isa)
                ]
        return found

    def loss(self, node: Node, schedule: Schedule, isa: KernelIsa) -> Loss:
        return Loss(tiling_of(node, isa, schedule).transform.error)

    def growth(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return tiling_of(node, isa, schedule).transform.growth

    @staticmethod
    def _flat(schedule: Schedule) -> Schedule:
        """The schedule of the products alone."""
        return Schedule("direct", schedule.tile, panels=schedule.panels)

    @staticmethod
    def _input_tiles(part: Tiling) -> list[tuple[tuple[int, int], InputTile]]:
        full = part.full_phases()
        return [
            ((row, column), InputTile(part.transform, row < full, column < full))
            for row, column in part.phases()
        ]

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        part = tiling_of(node, isa, schedule)
        flat = self._flat(schedule)
        total = 0.0
        for _, count, rows in part.blocks():
            for points in part.classes():
                total += count * cycles(part.product(points, rows), flat, isa)
        transformed = (part.v_elements() + part.points * part.tiles * part.filters) * isa.bytes
        if transformed > isa.core.l2_bytes:  # written and read again from beyond the second cache
            total += 2 * len(part.blocks()) * transformed / 16
        tiles = part.rows * part.columns
        issue = min(isa.core.issue_width, 3.0)
        channels = part.folded or part.channels
        entries = sum(tile.instructions() for _, tile in self._input_tiles(part))
        exit_ = OutputTile(part.transform, Epilogue(), part.transform.outputs, 0)
        total += tiles * channels / isa.lanes * entries / issue
        total += tiles * part.filters / isa.lanes * exit_.instructions() / issue
        total += node.inputs[0].type.size / min(isa.lanes, part.channels) * 2
        return total * node.shape[0]

    @staticmethod
    def _border(node: Node, part: Tiling, pitch: int) -> Border | FoldedBorder:
        op = node.op
        assert isinstance(op, Conv2D)
        _, channels, height, width = node.inputs[0].shape
        outputs, taps = part.transform.outputs, part.transform.taps
        padded = (part.rows * outputs + taps - 1, part.columns * outputs + taps - 1)
        before, unpack = (op.pads[0], op.pads[1]), Unpack.of(node)
        if part.folded:
            return FoldedBorder(
                (height, width), channels, pitch, before, padded, part.stride, part.folded, unpack
            )
        padded = padded[0] * part.stride, padded[1] * part.stride
        return Border((height, width), channels, pitch, before, padded, unpack)

    def _elements(self, node: Node, part: Tiling, isa: KernelIsa) -> tuple[int, int, int]:
        """Elements of the padded input, the transformed input and the products of a block."""
        border = self._border(node, part, part.channels)
        copied = aligned(border.elements, isa)
        return copied, part.v_elements(), part.points * part.tiles * part.filters

    def _panels(self, part: Tiling, flat: Schedule, isa: KernelIsa) -> int:
        return max(panel_elements(part.product(p, part.block), flat, isa) for p in part.classes())

    def scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        part = tiling_of(node, isa, schedule)
        panels = self._panels(part, self._flat(schedule), isa)
        return isa.bytes * (sum(self._elements(node, part, isa)) + panels)

    @staticmethod
    def _whole(part: Tiling) -> bool:
        """Whether threads share the loop over blocks of tile rows."""
        count = sum(each for _, each, _ in part.blocks())
        return count > 1 and best_level([("blocks", count), ("inside", part.points)]) == "blocks"

    def thread_scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        part, flat = tiling_of(node, isa, schedule), self._flat(schedule)
        if self._whole(part):
            _, v_size, m_size = self._elements(node, part, isa)
            return isa.bytes * (v_size + m_size + self._panels(part, flat, isa))
        return isa.bytes * max(
            thread_panels(part.product(p, part.block), flat, isa) for p in part.classes()
        )

    def transformed(
        self, node: Node, schedule: Schedule, isa: KernelIsa
    ) -> TransformedFilters | None:
        part, flat = tiling_of(node, isa, schedule), self._flat(schedule)
        products = {each.depth: part.product(each, part.block) for each in part.classes()}
        packed = {depth: p.packed_depth(flat, isa) for depth, p in products.items()}
        blocks = channel_blocks(next(iter(products.values())), flat, isa)
        powers, scales = part.transform.factors
        first, down, across, both = (packed[depth] for depth in part.depths())
        return TransformedFilters(
            tuple(tuple(map(float, row)) for row in powers),
            tuple(map(float, scales)),
            part.kernel,
            part.stride,
            part.stride if part.folded else part.full_phases(),
            (first, down, across, both),
            tuple((block.count, block.vectors * isa.lanes) for block in blocks),
        )

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        weights, bias = node.inputs[1].constant, node.inputs[2].constant
        assert weights is not None
        assert bias is not None
        part, flat = tiling_of(node, isa, schedule), self._flat(schedule)
        packed = {
            "weights": np.concatenate(
                [
                    pack_matrix(matrix, part.product(points, part.block), flat, isa)
                    for points, matrix in zip(
                        part.classes(), part.filter_classes(weights), strict=True
                    )
                ]
            ),
            "bias": pack_per_channel(bias, 1, isa),
        }
        op = node.op
        if isinstance(op, Conv2D) and op.has_slope:
            slope = node.inputs[3].constant
            assert slope is not None
            packed["slope"] = pack_per_channel(slope, 1, isa)
        return packed

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, x, y, schedule = step.node, step.inputs[0], step.output, step.schedule
        op = node.op
        assert isinstance(op, Conv2D)
        epilogue = Epilogue(op.activation, op.residual)
        part, flat = tiling_of(node, isa, schedule), self._flat(schedule)
        images, _, height, width = node.inputs[0].shape
        oh, ow = node.shape[2:]
        outputs = part.transform.outputs
        border = self._border(node, part, x.pitch)
        residual_pitch = step.inputs[-1].pitch if epilogue.residual else 0
        pixel = part.folded or part.channels
        row_step = border.padded[1] * pixel
        # From one tile to the next in the padded image; phases lie side by side unless folded.
        spread = 1 if part.folded else part.stride
        blocks: list[tuple[int, Body]] = []
        # Blocks, if there are enough, are shared by threads as wholes; else the loops inside.
        whole = self._whole(part)
        pad_size, v_size, m_size = self._elements(node, part, isa)
        own_size = self.thread_scratch(node, schedule, isa) // isa.bytes
        for first, count, rows in part.blocks():
            element = f"{isa.element}*"
            mine = Pointer("padded", fixed=pad_size, own=own_size if whole else 0)
            lines: list[Statement] = [
                Variable(element, "v", mine),
                Variable(element, "m", Pointer("v", fixed=v_size)),
            ]
            if schedule.panels:
                lines.append(Variable(element, "panels", Pointer("m", fixed=m_size)))
            calls: list[Call] = []
            for (down, across), entry in self._input_tiles(part):
                source = offset(
                    "padded",
                    (count, "i0", part.block * outputs * spread * row_step),
                    (rows, "i1", outputs * spread * row_step),
                    (part.columns, "i2", outputs * spread * pixel),
                    fixed=(first * outputs * spread + down) * row_step + across * pixel,
                )
                calls.append(
                    self._entry_call(part, entry, (down, across), rows, row_step, source, isa)
                )
            tiles = (("i1", rows), ("i2", part.columns))
            lines += _loops(*tiles, inside=tuple(calls), shared=not whole)
            weights = 0
            for points in part.classes():
                product = part.product(points, rows, weights)
                weights += packed_length(product, flat, isa) * points.count
                lines += emit_loops(product, flat, isa, _PLAIN, "v", "m", shared=not whole)
            # Loops over tiles that lack outputs at the edges are shared with those over the others.
            shared = "" if whole else best_level([("i1", rows), ("i2", part.columns)])
            across_runs = _runs(part.columns, 0, part.columns, ow, outputs, 1)
            exits: list[tuple[int, Body]] = []
            for down_run in _runs(rows, first, part.rows, oh, outputs, count):
                cases: list[tuple[int, Body]] = []
                for across_run in across_runs:
                    exit_ = OutputTile(
                        part.transform, epilogue, down_run.kind[0], across_run.kind[0]
                    )
                    numbers = [part.filters, part.tiles * part.filters, ow * y.pitch, y.pitch]
                    if epilogue.residual:
                        numbers += [ow * residual_pitch, residual_pitch]
                    arguments: list[Value] = [
                        offset(
                            "m",
                            (down_run.count, "i1", part.columns * part.filters),
                            (across_run.count, "i2", part.filters),
                            fixed=(down_run.first * part.columns + across_run.first) * part.filters,
                        ),
                        "bias",
                    ]
                    arguments += ["slope"] if epilogue.slope else []
                    for base, pitch in (("residual", residual_pitch), ("y", y.pitch)):
                        if pitch:
                            row, column = first + down_run.first, across_run.first
                            arguments.append(
                                offset(
                                    base,
                                    (count, "i0", part.block * outputs * ow * pitch),
                                    (down_run.count, "i1", outputs * ow * pitch),
                                    (across_run.count, "i2", outputs * pitch),
                                    fixed=(row * outputs * ow + column * outputs) * pitch,
                                )
                            )
                    call = Call(exit_.microkernel(isa), tuple(arguments), tuple(numbers))
                    cases.append((across_run.count, (call,)))
                exits.append((down_run.count, loop_cases("i2", cases, shared=shared == "i2")))
            lines += loop_cases("i1", exits, shared=shared == "i1")
            blocks.append((count, tuple(lines)))
        if whole:
            loops = loop_cases("i0", blocks, shared=True)
        else:
            loops = body(*(Scope(nest([count], block)) for count, block in blocks))
        size, taps = part.transform.size, part.transform.taps
        name = f"{conv_stem(node)}_winograd{outputs}{epilogue.suffix}"
        several = "all_" if images > 1 else ""
        pointers: list[Statement] = []
        for kind, base, elements in (
            (f"const {C_TYPES[x.type.dtype]}*", "x", height * width * x.pitch),
            (f"const {isa.element}*", "residual", oh * ow * residual_pitch),
            (f"{isa.element}*", "y", oh * ow * y.pitch),
        ):
            if several and elements:
                pointers.append(
                    Variable(kind, base, Pointer(f"all_{base}", (("image", elements),)))
                )
        width_, algorithm = schedule.tile[1], f"F({outputs}x{outputs}, {taps}x{taps})"
        return step.function(
            name,
            f"{isa.element}* padded = reinterpret_cast<{isa.element}*>(scratch);",
            Loop("image", images, body(pointers, border.code(Pointer("x"), isa), loops)),
            comment=[
                f"{algorithm}, {schedule}; error within {part.transform.error:g} "
                "of the largest output.",
                f"Weights transformed and packed as [{size * size} points][channels / {width_}]"
                f"[depth][{width_}].",
            ],
            inputs=[f"{several}{word}" for word in ("x", "residual")[: len(step.inputs)]],
            output=f"{several}y",
            scratch=True,
        )

    @staticmethod
    def _entry_call(
        part: Tiling,
        entry: InputTile,
        phase: tuple[int, int],
        rows: int,
        row_step: int,
        source: Pointer,
        isa: KernelIsa,
    ) -> Call:
        """The transform of one phase of one tile, at row i1 and column i2 of the block."""
        pixel = part.folded or part.channels
        last = part.transform.size - 1
        counts = last * last, last, last, 1
        full = part.full_phases()
        row, column = phase
        # Where the phase's channels lie among those of a class: all phases, or the full ones.
        widths = (part.stride, part.stride, full, full)
        pointers, steps, start = [], [], 0
        for number, (count, depth) in enumerate(zip(counts, part.depths(), strict=True)):
            if entry.writes(number):
                place = (row * widths[number] + column) * pixel
                pointers.append(
                    offset(
                        "v",
                        (rows, "i1", part.columns * depth),
                        (part.columns, "i2", depth),
                        fixed=start + place,
                    )
                )
                steps.append(part.tiles * depth)
            start += count * depth * part.tiles
        numbers = (
            pixel,
            row_step * (1 if part.folded else part.stride),
            pixel * (1 if part.folded else part.stride),
            *steps[:3],
        )
        return Call(entry.microkernel(isa), (source, *pointers), numbers)


def _loops(*loops: tuple[str, int], inside: Body, shared: bool) -> Body:
    chosen = best_level(loops) if shared else ""
    for name, count in reversed(loops):
        inside = loop(name, count, inside, shared=name == chosen)
    return inside


def _runs(count: int, first: int, total: int, length: int, outputs: int, blocks: int) -> list[Run]:
    """Tiles along an axis with as many outputs inside; the last tile of all may have fewer."""
    last = length - (total - 1) * outputs
    if blocks > 1 or first + count < total:
        return [Run(0, count, (outputs,))]
    return group_runs([(i, (outputs if first + i + 1 < total else last,)) for i in range(count)])


KERNELS = (ConvWinograd(),)
