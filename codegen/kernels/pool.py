"""Pooling in NHWC: vectors of channels, windows clipped when the code is emitted.

Small windows go by tiles of neighbouring outputs, which share the columns that windows overlap
in; large ones window by window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mdlc.codegen.code import Body, Call, Function, Microkernel, Pointer, Value, offset
from mdlc.codegen.gemm.runs import Run, group_runs, inside_taps
from mdlc.codegen.gemm.split import split_evenly
from mdlc.codegen.gemm.strides import nest
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.isa.scalar import SCALAR
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.tiles.formula import literal
from mdlc.codegen.tiles.pool import PoolTile
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.max_pool2d import MaxPool2D
from mdlc.compiler.types import Array, DType

# Window pixels of the largest window that is computed by tiles.
LARGEST_TILED = 25


def pool_microkernel(average: bool, isa: KernelIsa, tail: bool) -> Microkernel:
    """One window for all channels, such as maxpool_f32_neon<taps y, taps x, steps..., channels>."""
    kind = "averagepool" if average else "maxpool"
    name = f"{kind}{'_tail' if tail else ''}_{isa.kind}_{isa.suffix}"
    combine = "add" if average else "max"
    start = "0.0F" if average else literal(-np.inf)
    vector_start = isa.set1(start)
    step = "c + row * kRowStep + column * kPixelStep"

    def window(kind: str, first: str, update: str, result: str) -> str:
        return f"""    {kind} acc = {first};
    for (int row = 0; row < kRows; ++row) {{
      for (int column = 0; column < kColumns; ++column) {{
        acc = {update};
      }}
    }}
    {result};
"""

    def result(target: Dialect) -> str:
        value = target.op("mul", "acc", target.set1("scale")) if average else "acc"
        return target.store("y + c", value)

    def loop(target: Dialect, head: str, first: str) -> str:
        update = target.op(combine, target.load(f"x + {step}"), "acc")
        return head + window(target.vector, first, update, result(target)) + "  }\n"

    bound = f"kChannels - {isa.lanes - 1}" if tail else "kChannels"
    if tail:
        body = "  int c = 0;\n" + loop(
            isa, f"  for (; c < {bound}; c += {isa.lanes}) {{\n", vector_start
        )
        body += loop(isa.scalar or SCALAR, "  for (; c < kChannels; ++c) {\n", start)
    else:
        step_text = f"c += {isa.lanes}" if isa.lanes > 1 else "++c"
        body = loop(isa, f"  for (int c = 0; c < {bound}; {step_text}) {{\n", vector_start)
    formula = "scale * sum of" if average else "max of"
    scale = "float scale, " if average else ""
    parameters = f"const {isa.element}* x, {scale}{isa.element}* y"
    text = (
        f"// y[c] = {formula} x[row][column][c] over a window of kRows x kColumns; x: NHWC.\n"
        "template <int kRows, int kColumns, int kRowStep, int kPixelStep, int kChannels>\n"
        f"inline void {name}({parameters}) {{\n{body}}}\n"
    )
    return Microkernel(name, text, includes=() if average else ("limits",))


class Pool(Kernel):
    """Max and average pooling."""

    name = "pool"
    layer = "Pooling"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        if not isinstance(node.op, MaxPool2D | AveragePool2D) or node.type.dtype is not isa.dtype:
            return False
        # Sums of many halves lose too much.
        few = math.prod(node.op.window.kernel) <= LARGEST_TILED
        return few or isa.dtype is DType.F32 or isinstance(node.op, MaxPool2D)

    def schedules(self, node: Node, isa: KernelIsa) -> Sequence[Schedule]:
        op = node.op
        assert isinstance(op, MaxPool2D | AveragePool2D)
        found = [Schedule("window")]
        uniform = isinstance(op, MaxPool2D) or self._uniform(node) is not None
        if uniform and math.prod(op.window.kernel) <= LARGEST_TILED:
            sizes = {min(size, node.shape[3]) for size in (1, 2, 4, 7, 8)}
            tiled = [Schedule("rows", (size, isa.lanes)) for size in sorted(sizes)]
            found += [schedule for schedule in tiled if self._tiles_are_full(node, schedule)]
        return found

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        assert isinstance(node.op, MaxPool2D | AveragePool2D)
        vectors = -(-node.shape[1] // isa.lanes)
        issue = min(isa.core.issue_width, 3.0)
        if schedule.algorithm == "window":
            taps = node.op.window.kernel[0] * node.op.window.kernel[1]
            pixels = node.type.size / node.shape[1]
            return pixels * (vectors * (3 * taps + 6) + 4) / issue
        total = 0.0
        for rows in self._row_runs(node):
            for tiles in self._tile_runs(node, schedule):
                tile = self._tile(node, rows, tiles)
                total += rows.count * tiles.count * (vectors * tile.instructions() + 6)
        return total * node.shape[0] / issue

    def _row_runs(self, node: Node) -> list[Run]:
        """Output rows with the same window rows inside: kind is (first tap, taps)."""
        op = node.op
        assert isinstance(op, MaxPool2D | AveragePool2D)
        return self._runs(node.shape[2], node.inputs[0].shape[2], op.window.kernel[0], 0, op)

    @staticmethod
    def _tile_runs(node: Node, schedule: Schedule) -> list[Run]:
        """Tiles of a row: kind is (pixels, left, right); positions are first pixels."""
        op = node.op
        assert isinstance(op, MaxPool2D | AveragePool2D)
        window, width = op.window, node.inputs[0].shape[3]
        kinds = []
        for chunk in split_evenly(node.shape[3], schedule.tile[0]):
            for index in range(chunk.count):
                first = chunk.first + index * chunk.size
                start = first * window.stride[1] - window.pads[1]
                end = start + (chunk.size - 1) * window.stride[1]
                end += (window.kernel[1] - 1) * window.dilation[1] + 1
                kinds.append((first, (chunk.size, max(0, -start), max(0, end - width))))
        return group_runs(kinds)

    def _tile(self, node: Node, rows: Run, tiles: Run, part: int = 0) -> PoolTile:
        op = node.op
        assert isinstance(op, MaxPool2D | AveragePool2D)
        window = op.window
        uniform = self._uniform(node) if isinstance(op, AveragePool2D) else None
        return PoolTile(
            tiles.kind[0],
            rows.kind[1],
            window.kernel[1],
            window.stride[1],
            window.dilation[1],
            tiles.kind[1],
            tiles.kind[2],
            part,
            "" if uniform is None else literal(uniform),
        )

    def _tiles_are_full(self, node: Node, schedule: Schedule) -> bool:
        """Whether every output has pixels of the input in its window."""
        return all(rows.kind[1] for rows in self._row_runs(node)) and all(
            all(self._tile(node, rows, tiles).windows().values())
            for rows in self._row_runs(node)[:1]
            for tiles in self._tile_runs(node, schedule)
        )

    def _uniform(self, node: Node) -> float | None:
        """The one factor of an average pooling, or None where windows differ."""
        assert isinstance(node.op, AveragePool2D)
        counts = node.op.counts(node.inputs[0].shape[2:])
        return 1.0 / float(counts[0, 0]) if np.all(counts == counts[0, 0]) else None

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        if not isinstance(node.op, AveragePool2D) or self._uniform(node) is not None:
            return {}
        counts = node.op.counts(node.inputs[0].shape[2:])
        return {"scale": (1.0 / counts).astype(np.float32).reshape(-1)}

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        if step.schedule.algorithm == "rows":
            return self._emit_rows(step, isa)
        return self._emit_windows(step, isa)

    def _emit_rows(self, step: Step, isa: KernelIsa) -> Function:
        node, x, y = step.node, step.inputs[0], step.output
        op = node.op
        assert isinstance(op, MaxPool2D | AveragePool2D)
        window = op.window
        images, channels, height, width = node.inputs[0].shape
        rows, columns = node.shape[2:]
        vectors, part = divmod(channels, isa.lanes)
        values = {
            "kVectors": vectors,
            "kRowStep": window.dilation[0] * width * x.pitch,
            "kPixelStep": x.pitch,
            "kOutStep": y.pitch,
        }
        lines: list[Body] = []
        for down in self._row_runs(node):
            for across in self._tile_runs(node, step.schedule):
                calls = []
                for remainder in ([0] if vectors else []) + ([part] if part else []):
                    tile = self._tile(node, down, across, remainder)
                    skipped = vectors * isa.lanes if remainder else 0
                    numbers = tuple(values[n] for n in tile.template_parameters())
                    top = down.first * window.stride[0] - window.pads[0]
                    top += down.kind[0] * window.dilation[0]
                    left = across.first * window.stride[1] - window.pads[1] + tile.columns()[0]
                    pixels = across.kind[0]
                    source = offset(
                        "x",
                        (images, "i0", height * width * x.pitch),
                        (down.count, "i1", window.stride[0] * width * x.pitch),
                        (across.count, "i2", pixels * window.stride[1] * x.pitch),
                        fixed=(top * width + left) * x.pitch + skipped,
                    )
                    target = offset(
                        "y",
                        (images, "i0", rows * columns * y.pitch),
                        (down.count, "i1", columns * y.pitch),
                        (across.count, "i2", pixels * y.pitch),
                        fixed=(down.first * columns + across.first) * y.pitch + skipped,
                    )
                    calls.append(Call(tile.microkernel(isa), (source, target), numbers))
                loops = [images, down.count, across.count]
                lines.append(nest(loops, calls, shared=True))
        return step.function(self._function_name(node), *lines, comment=[op.words])

    @staticmethod
    def _function_name(node: Node) -> str:
        op = node.op
        assert isinstance(op, MaxPool2D | AveragePool2D)
        _, channels, height, width = node.inputs[0].shape
        kh, kw = op.window.kernel
        stride = f"s{op.window.stride[0]}" if op.window.stride != (1, 1) else ""
        kind = "averagepool" if isinstance(op, AveragePool2D) else "maxpool"
        return f"{kind}{kh}x{kw}{stride}_{height}x{width}x{channels}"

    def _emit_windows(self, step: Step, isa: KernelIsa) -> Function:
        node, x, y = step.node, step.inputs[0], step.output
        op = node.op
        assert isinstance(op, MaxPool2D | AveragePool2D)
        window = op.window
        images, channels, height, width = node.inputs[0].shape
        rows, columns = node.shape[2:]
        average = isinstance(op, AveragePool2D)
        uniform = self._uniform(node) if average else None
        tail = isa.lanes > 1 and channels % isa.lanes != 0
        row = pool_microkernel(average, isa, tail)
        lines: list[Body] = []
        row_runs = self._row_runs(node)
        column_runs = self._runs(columns, width, window.kernel[1], 1, op)
        for down in row_runs:
            for across in column_runs:
                numbers = (
                    down.kind[1],
                    across.kind[1],
                    window.dilation[0] * width * x.pitch,
                    window.dilation[1] * x.pitch,
                    channels,
                )
                top = down.first * window.stride[0] - window.pads[0]
                top += down.kind[0] * window.dilation[0]
                left = across.first * window.stride[1] - window.pads[1]
                left += across.kind[0] * window.dilation[1]
                loops = [(images, "i0"), (down.count, "i1"), (across.count, "i2")]

                def at(base: str, steps: Sequence[int], fixed: int, loops=loops) -> Pointer:  # type: ignore[no-untyped-def]
                    terms = [(n, v, s) for (n, v), s in zip(loops, steps, strict=True)]
                    return offset(base, *terms, fixed=fixed)

                source = at(
                    "x",
                    (
                        height * width * x.pitch,
                        window.stride[0] * width * x.pitch,
                        window.stride[1] * x.pitch,
                    ),
                    (top * width + left) * x.pitch,
                )
                out = (rows * columns * y.pitch, columns * y.pitch, y.pitch)
                first = down.first * columns + across.first
                arguments: list[Value] = [source]
                if average:
                    scale = f"*({at('scale', (0, columns, 1), first)})"
                    arguments.append(literal(uniform) if uniform is not None else scale)
                arguments.append(at("y", out, first * y.pitch))
                call = Call(row, tuple(arguments), numbers)
                lines.append(nest([images, down.count, across.count], call, shared=True))
        return step.function(self._function_name(node), *lines, comment=[op.words])

    @staticmethod
    def _runs(
        count: int, length: int, kernel: int, axis: int, op: MaxPool2D | AveragePool2D
    ) -> list[Run]:
        """Positions with the same taps inside the input: kind is (first tap, taps)."""
        window = op.window
        return group_runs(
            [
                (
                    position,
                    inside_taps(
                        position * window.stride[axis] - window.pads[axis],
                        kernel,
                        window.dilation[axis],
                        length,
                    ),
                )
                for position in range(count)
            ]
        )


KERNELS = (Pool(),)
