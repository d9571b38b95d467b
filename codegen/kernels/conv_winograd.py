"""3x3 convolution by Winograd's minimal filtering, in NHWC.

Tiles of the input are transformed, multiplied with transformed filters as (m + 2)^2 independent
products (the implicit GEMM of codegen/product.py, without gaps), and transformed back with the
epilogue. Blocks of tile rows keep the transformed values in cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.epilogue import Epilogue
from mdlc.codegen.isa import Isa
from mdlc.codegen.kernel import Kernel, LayerCode, Microkernel, Schedule, Step
from mdlc.codegen.padding import Border
from mdlc.codegen.product import (
    Product,
    Steps,
    cycles,
    emit_loops,
    offset,
    pack_matrix,
    pack_per_channel,
    panel_floats,
    schedules,
    thread_panels,
)
from mdlc.codegen.runs import Run, group_runs
from mdlc.codegen.strides import nest
from mdlc.codegen.templates import render
from mdlc.codegen.threads import best_level, own, parallel
from mdlc.codegen.winograd import TRANSFORMS, Lines, Matrix, Transform
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.types import Array, DType

# F(6, 3) loses about ten times as much precision as F(4, 3): see tests/test_winograd.py.
OUTPUTS = (2, 4)
_PLAIN = Epilogue(bias=False)


@dataclass(frozen=True)
class Tiling:
    """Tiles of an output of [height, width].

    Attributes:
        rows, columns: of tiles; block: rows of tiles computed together.
        partial: whether the last row of tiles reaches beyond the output.
    """

    transform: Transform
    rows: int
    columns: int
    block: int
    partial: bool = False

    @property
    def products(self) -> int:
        """Number of independent products."""
        return self.transform.size**2

    @property
    def tiles(self) -> int:
        """Tiles of a block."""
        return self.block * self.columns

    def blocks(self) -> list[tuple[int, int, int]]:
        """(first tile row, number of equal blocks, tile rows in each)."""
        count, rest = divmod(self.rows, self.block)
        if not rest and self.partial and count > 1:  # the last block differs from the others
            count, rest = count - 1, self.block
        found = [(0, count, self.block)]
        return found + ([(count * self.block, 1, rest)] if rest else [])


def tiling(node: Node, schedule: Schedule) -> Tiling:
    """The tiles of a schedule, whose block is (outputs, tile rows)."""
    outputs, block = schedule.block
    rows, columns = (-(-length // outputs) for length in node.shape[2:])
    partial = node.shape[2] % outputs != 0
    return Tiling(TRANSFORMS[outputs], rows, columns, min(block, rows), partial)


class ConvWinograd(Kernel):
    """F(2, 3) and F(4, 3) for 3x3 filters of stride 1."""

    name = "conv_winograd"
    layer = "Convolution"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: Isa) -> bool:
        op = node.op
        if not isinstance(op, Conv2D) or node.type.dtype is not DType.F32:
            return False
        if any(source.constant is None for source in node.inputs[1:3]):
            return False
        filters, channels, *kernel = node.inputs[1].shape
        plain = kernel == [3, 3] and op.stride == op.dilation == (1, 1) and op.groups == 1
        return plain and channels % isa.lanes == 0 and filters % isa.lanes == 0 and channels > 4

    def schedules(self, node: Node, isa: Isa) -> Sequence[Schedule]:
        filters, channels = node.inputs[1].shape[:2]
        found = []
        for outputs in OUTPUTS:
            rows, columns = (-(-length // outputs) for length in node.shape[2:])
            row_bytes = (outputs + 2) ** 2 * columns * (channels + filters) * 4
            block = max(1, min(rows, isa.l2_bytes // 2 // row_bytes))
            block = -(-rows // -(-rows // block))  # blocks of nearly equal height
            # In cache, so that two threads get as many blocks each; or the weights read only once.
            even = [h for h in range(1, block + 1) if -(-rows // h) % 2 == 0]
            for height in sorted({max(even, default=block), rows}):
                part = Tiling(TRANSFORMS[outputs], rows, columns, height)
                product = self._product(node, part, height, filters, channels)
                found += [
                    Schedule("winograd", s.tile, (outputs, height), s.panels)
                    for s in schedules(product, isa)
                ]
        return found

    @staticmethod
    def _product(node: Node, part: Tiling, rows: int, filters: int, channels: int) -> Product:
        return Product(
            1,
            1,
            rows * part.columns,
            part.products,
            filters,
            channels,
            (),
            Steps(0, 0, channels, part.tiles * channels),
            Steps(0, 0, filters, part.tiles * filters),
        )

    def _flat(self, schedule: Schedule) -> Schedule:
        """The schedule of the products alone."""
        return Schedule("direct", schedule.tile, panels=schedule.panels)

    def cost(self, node: Node, schedule: Schedule, isa: Isa) -> float:
        part = tiling(node, schedule)
        filters, channels = node.inputs[1].shape[:2]
        size, outputs = part.transform.size, part.transform.outputs
        total = 0.0
        for _, count, rows in part.blocks():
            product = self._product(node, part, rows, filters, channels)
            total += count * cycles(product, self._flat(schedule), isa)
        transformed = part.products * part.tiles * (channels + filters) * 4
        if transformed > isa.l2_bytes:  # written and read again from beyond the second cache
            total += 2 * len(part.blocks()) * transformed / 16
        tiles = part.rows * part.columns
        total += tiles * channels / isa.lanes * (2.6 * size * size + 12)
        total += tiles * filters / isa.lanes * (size * (size + outputs) * 1.3 + 12)
        total += node.inputs[0].type.size / isa.lanes * 2
        return total * node.shape[0]

    def _border(self, node: Node, part: Tiling, pitch: int) -> Border:
        op = node.op
        assert isinstance(op, Conv2D)
        _, channels, height, width = node.inputs[0].shape
        outputs = part.transform.outputs
        padded = part.rows * outputs + 2, part.columns * outputs + 2
        return Border((height, width), channels, pitch, (op.pads[0], op.pads[1]), padded)

    def _floats(self, node: Node, schedule: Schedule) -> tuple[int, int, int]:
        """Floats of the padded input, the transformed input and the products of a block."""
        part = tiling(node, schedule)
        filters, channels = node.inputs[1].shape[:2]
        count = part.products * part.tiles
        border = self._border(node, part, channels)
        aligned = -(-border.floats // 16) * 16
        return aligned, count * channels, count * filters

    def scratch(self, node: Node, schedule: Schedule, isa: Isa) -> int:
        part = tiling(node, schedule)
        filters, channels = node.inputs[1].shape[:2]
        product = self._product(node, part, part.block, filters, channels)
        panels = panel_floats(product, self._flat(schedule))
        return 4 * (sum(self._floats(node, schedule)) + panels)

    @staticmethod
    def _whole(part: Tiling, count: int) -> bool:
        """Whether threads share the loop over `count` blocks of tile rows."""
        return count > 1 and best_level([("blocks", count), ("inside", part.products)]) == "blocks"

    def thread_scratch(self, node: Node, schedule: Schedule, isa: Isa) -> int:
        part, flat = tiling(node, schedule), self._flat(schedule)
        filters, channels = node.inputs[1].shape[:2]
        product = self._product(node, part, part.block, filters, channels)
        _, v_floats, m_floats = self._floats(node, schedule)
        if any(self._whole(part, count) for _, count, _ in part.blocks()):
            return 4 * (v_floats + m_floats + panel_floats(product, flat))
        return 4 * thread_panels(product, flat, isa)

    def filter_transform(self, node: Node, schedule: Schedule) -> Array | None:
        return np.array(tiling(node, schedule).transform.filter, np.float64)

    def pack(self, node: Node, schedule: Schedule, isa: Isa) -> dict[str, Array]:
        weights, bias = node.inputs[1].constant, node.inputs[2].constant
        assert weights is not None
        assert bias is not None
        part = tiling(node, schedule)
        filters, channels = weights.shape[:2]
        matrix = part.transform.filters(weights).reshape(part.products, filters, channels)
        product = self._product(node, part, part.block, filters, channels)
        packed = {
            "weights": pack_matrix(
                matrix.transpose(0, 2, 1).astype(np.float32), product, self._flat(schedule), isa
            ),
            "bias": pack_per_channel(bias, 1, isa),
        }
        op = node.op
        if isinstance(op, Conv2D) and op.has_slope:
            slope = node.inputs[3].constant
            assert slope is not None
            packed["slope"] = pack_per_channel(slope, 1, isa)
        return packed

    def emit(self, step: Step, isa: Isa) -> LayerCode:
        node, x, y, schedule = step.node, step.inputs[0], step.output, step.schedule
        op = node.op
        assert isinstance(op, Conv2D)
        epilogue = Epilogue(op.activation, op.residual)
        part = tiling(node, schedule)
        filters, channels = node.inputs[1].shape[:2]
        images, _, height, width = node.inputs[0].shape
        oh, ow = node.shape[2:]
        outputs, size = part.transform.outputs, part.transform.size
        border = self._border(node, part, x.pitch)
        residual_pitch = step.inputs[-1].pitch if epilogue.residual else 0
        row_step = border.padded[1] * channels
        entry = input_microkernel(part.transform, isa)
        microkernels = [border.microkernel, entry]
        bodies = []
        pad_floats, v_floats, m_floats = self._floats(node, schedule)
        own_floats = self.thread_scratch(node, schedule, isa) // 4
        for first, count, rows in part.blocks():
            # Blocks, if there are enough, are shared by threads as wholes; else the loops inside.
            whole = self._whole(part, count)
            fixed = first * outputs * row_step
            source = offset(
                "padded",
                (count, "i0", part.block * outputs * row_step),
                (rows, "i1", outputs * row_step),
                (part.columns, "i2", outputs * channels),
                fixed=fixed,
            )
            target = offset(
                "v", (rows, "i1", part.columns * channels), (part.columns, "i2", channels)
            )
            call = f"{entry.name}<{channels}, {row_step}, {part.tiles * channels}>"
            call = f"{call}({source}, {target});"
            mine = own(own_floats) if whole else ""
            lines = [f"float* v = padded + {pad_floats}{mine};", f"float* m = v + {v_floats};"]
            if schedule.panels:
                lines.append(f"float* panels = m + {m_floats};")
            lines.append(_loops(("i1", rows), ("i2", part.columns), body=call, shared=not whole))
            product = self._product(node, part, rows, filters, channels)
            loops, tiles = emit_loops(
                product, self._flat(schedule), isa, _PLAIN, "v", "m", shared=not whole
            )
            lines.append(loops)
            microkernels += tiles
            for down in _runs(rows, first, part.rows, oh, outputs, count):
                for across in _runs(part.columns, 0, part.columns, ow, outputs, 1):
                    exit_ = output_microkernel(
                        part.transform, isa, epilogue, down.kind[0], across.kind[0]
                    )
                    microkernels.append(exit_)
                    numbers = [filters, part.tiles * filters, ow * y.pitch, y.pitch]
                    if epilogue.residual:
                        numbers += [ow * residual_pitch, residual_pitch]
                    arguments = [
                        offset(
                            "m",
                            (down.count, "i1", part.columns * filters),
                            (across.count, "i2", filters),
                            fixed=(down.first * part.columns + across.first) * filters,
                        ),
                        "bias",
                    ]
                    arguments += ["slope"] if epilogue.slope else []
                    for base, pitch in (("residual", residual_pitch), ("y", y.pitch)):
                        if pitch:
                            arguments.append(
                                offset(
                                    base,
                                    (count, "i0", part.block * outputs * ow * pitch),
                                    (down.count, "i1", outputs * ow * pitch),
                                    (across.count, "i2", outputs * pitch),
                                    fixed=(
                                        (first + down.first) * outputs * ow + across.first * outputs
                                    )
                                    * pitch,
                                )
                            )
                    call = f"{exit_.name}<{', '.join(map(str, numbers))}>({', '.join(arguments)});"
                    loops_out = ("i1", down.count), ("i2", across.count)
                    lines.append(_loops(*loops_out, body=call, shared=not whole))
            body = nest([count], "\n".join(lines), shared=whole)
            bodies.append(f"{{\n{body}\n}}")
        name = f"conv3x3_{height}x{width}x{channels}_to_{filters}_winograd{outputs}"
        name += epilogue.suffix
        text = render(
            "cpp/kernels/conv_winograd.j2",
            name=name,
            schedule=schedule,
            size=size,
            epilogue=epilogue,
            images=images,
            pad=border.code("x"),
            bodies=bodies,
            x_image=height * width * x.pitch,
            y_image=oh * ow * y.pitch,
            residual_image=oh * ow * residual_pitch,
        )
        return LayerCode(name, text, tuple(dict.fromkeys(microkernels)))


def _loops(*loops: tuple[str, int], body: str, shared: bool) -> str:
    chosen = best_level(loops) if shared else ""
    for name, count in reversed(loops):
        if name == chosen:
            body = parallel(name, count, body)
        elif count > 1:
            body = f"for (int {name} = 0; {name} < {count}; ++{name}) {{\n{body}\n}}"
    return body


def _runs(count: int, first: int, total: int, length: int, outputs: int, blocks: int) -> list[Run]:
    """Tiles along an axis with as many outputs inside; the last tile of all may have fewer."""
    last = length - (total - 1) * outputs
    if blocks > 1 or first + count < total:
        return [Run(0, count, (outputs,))]
    return group_runs([(i, (outputs if first + i + 1 < total else last,)) for i in range(count)])


def _used(matrix: Matrix) -> list[int]:
    """Columns of a matrix that are not all zero."""
    return [i for i in range(len(matrix[0])) if any(row[i] for row in matrix)]


def input_microkernel(transform: Transform, isa: Isa) -> Microkernel:
    """winograd4_input_f32_neon<channels, row step, step>(d, v)."""
    across, down = Lines(isa), Lines(isa)
    d = [f"d{i}" for i in range(transform.size)]
    name = f"winograd{transform.outputs}_input_f32_{isa.suffix}"
    text = render(
        "cpp/kernels/winograd_input.j2",
        name=name,
        isa=isa,
        size=transform.size,
        across_results=across.inputs(transform.input, d),
        across=across.text,
        down_results=down.inputs(transform.input, d),
        down=down.text,
    )
    return Microkernel(name, text)


def output_microkernel(
    transform: Transform, isa: Isa, epilogue: Epilogue, rows: int, columns: int
) -> Microkernel:
    """winograd4_output_relu_f32_4x4_neon<channels, steps...>(m, bias, ..., y)."""
    across, down = Lines(isa), Lines(isa)
    d = [f"d{i}" for i in range(transform.size)]
    activation = epilogue.function(isa)
    name = f"winograd{transform.outputs}_output{epilogue.suffix}_f32_{rows}x{columns}_{isa.suffix}"
    arguments = ["const float* m", "const float* bias"]
    arguments += ["const float* slope"] if epilogue.slope else []
    arguments += ["const float* residual"] if epilogue.residual else []
    text = render(
        "cpp/kernels/winograd_output.j2",
        name=name,
        isa=isa,
        size=transform.size,
        outputs=transform.outputs,
        rows=rows,
        columns=columns,
        formula=epilogue.formula("bias[n] + (A' m A)[r][q][n]"),
        epilogue=epilogue,
        activation=activation.name if activation else "",
        arguments=[*arguments, "float* y"],
        used_across=_used(transform.output[:columns]),
        used_down=_used(transform.output[:rows]),
        across_results=across.outputs(transform.output[:columns], d),
        across=across.text,
        down_results=down.outputs(transform.output[:rows], d),
        down=down.text,
    )
    return Microkernel(name, text, (activation,) if activation else ())


KERNELS = (ConvWinograd(),)
