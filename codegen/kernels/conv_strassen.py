"""Pointwise convolution by one level of Strassen's algorithm: 7 products of halves, not 8.

Pixels, input channels and filters are cut in two: A = [A11 A12; A21 A22] are the activations,
B = [B11 B12; B21 B22] the weights, and the outputs follow from

    P1 = A11 B11, P2 = A12 B21, P3 = S4 B22, P4 = A22 T4, P5 = S1 T1, P6 = S2 T2, P7 = S3 T3
    S1 = A21 + A22, S2 = S1 - A11, S3 = A11 - A21, S4 = A12 - S2
    T1 = B12 - B11, T2 = B22 - T1, T3 = B22 - B12, T4 = T2 - B21
    C11 = P1 + P2, C12 = P1 + P6 + P5 + P3, C21 = P1 + P6 + P7 - P4, C22 = P1 + P6 + P7 + P5

Sums of weights are made at run time, so that the file holds each weight once; an odd number of
pixels is cut into halves that share one. Sums of products are residuals of the products that
come next.

With k input channels and the largest absolute values of x and w, each output is off by at most
(9 k + 96) k / 2 * 2^-24 max|x| max|w|; in practice it is a few times the error of a plain sum.

Source: S. Winograd's variant of V. Strassen, "Gaussian Elimination is not Optimal" (1969), in
N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, sections 23.1 and
23.2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mdlc.codegen.code import Body, Call, Function, Microkernel, Pointer, Scope, Value, body
from mdlc.codegen.gemm.loops import (
    cycles,
    emit_loops,
    pack_matrix,
    pack_per_channel,
    packed_length,
    schedules,
)
from mdlc.codegen.gemm.product_loops import panel_elements, thread_panels
from mdlc.codegen.gemm.shape import Product, Steps
from mdlc.codegen.gemm.split import split_evenly
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Loss, Schedule, Step
from mdlc.codegen.kernels.conv_direct import conv_product, conv_stem
from mdlc.codegen.templates import render
from mdlc.codegen.threads import loop
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.types import Array, DType

# Below this many channels or pixels of a half, the sums cost more than a product.
_LEAST = 24

# Gains below this are not worth the memory and code, nor the digits.
_AT_LEAST = 1.03

# Rows of a sum that one thread computes at once.
_SUM_ROWS = 16


_PLAIN = Epilogue(bias=False)


@dataclass(frozen=True)
class Sum:
    """y = activation(bias + a sum of tensors, each added or subtracted), row by row.

    Attributes:
        signs: "+" or "-" for each tensor, the first one "+".
        epilogue: bias and activation; no residual.
    """

    signs: str
    epilogue: Epilogue = _PLAIN

    def name(self, isa: KernelIsa) -> str:
        """Such as sum_ppm_f32_neon for a + b - c."""
        signs = self.signs.replace("+", "p").replace("-", "m")
        return f"sum_{signs}{self.epilogue.suffix}_f32_{isa.suffix}"

    def call(
        self, isa: KernelIsa, rows: int, width: int, where: Sequence[Value], steps: Sequence[int]
    ) -> Call:
        """The statement that sums.

        Args:
            where: pointers of the tensors, of the bias if there is one, of y.
            steps: floats from row to row of the tensors and of y.
        """
        if set(steps) == {width} and not self.epilogue.bias:
            rows, width = 1, rows * width
        gaps = [step - width for step in steps] if rows > 1 else [0] * len(steps)
        return Call(self.microkernel(isa), (*where, rows, width, *gaps))

    def microkernel(self, isa: KernelIsa) -> Microkernel:
        """The C++ of the sum."""
        names = "abcdefgh"[: len(self.signs)]
        activation = self.epilogue.function(isa)

        read = [*names, *(["bias"] if self.epilogue.bias else [])]
        place = "{}" if isa.panels else "{} + n"

        def total(spelling: str) -> str:
            """The sum of vectors: of the tensors, then of the bias."""
            values = [spelling.format(name) for name in read]
            found = values[0]
            for sign, value in zip(self.signs[1:], values[1:], strict=False):
                found = isa.op("add" if sign == "+" else "sub", found, value)
            if self.epilogue.bias:
                found = isa.op("add", found, values[-1])
            return f"{activation.name}({found})" if activation else found

        formula = "".join(
            f" {s} {n}[r][n]" for s, n in zip(self.signs, names, strict=True)
        ).removeprefix(" + ")
        formula = f"bias[n] + {formula}" if self.epilogue.bias else formula
        text = render(
            "cpp/kernels/row_sum_neighbours.j2" if isa.panels else "cpp/kernels/row_sum.j2",
            isa=isa,
            formula=f"y[r][n] = {self.epilogue.formula(formula)}",
            name=self.name(isa),
            inputs=list(names),
            bias=self.epilogue.bias,
            read=read,
            store=isa.store(place.format("y"), total(isa.load(place))),
            totals=[total(f"{{}}{i}") for i in range(4)],
        )
        return Microkernel(self.name(isa), text, (activation,) if activation else ())


@dataclass(frozen=True)
class Place:
    """A matrix in memory: a pointer to it, and floats from row to row."""

    pointer: Pointer
    step: int


class ConvStrassen(Kernel):
    """Strassen's algorithm on the products of conv_direct."""

    name = "conv_strassen"
    layer = "Convolution"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        op = node.op
        if not isinstance(op, Conv2D):
            return False
        if node.type.dtype is not DType.F32 or node.inputs[0].type.dtype is not DType.F32:
            return False
        if any(source.constant is None for source in node.inputs[1:3]) or op.has_slope:
            return False
        plain = node.inputs[1].shape[2:] == (1, 1) and op.stride == (1, 1) and not any(op.pads)
        if not plain or op.groups > 1:
            return False
        product = conv_product(node)
        half = self._half(product)
        return (
            product.run % (2 * max(isa.lanes, 4)) == 0
            and product.channels % (2 * isa.lanes) == 0
            and min(half.run, half.channels, half.columns) >= _LEAST
        )

    @staticmethod
    def _half(product: Product, x: int = 0, y: int = 0, residual: int = 0) -> Product:
        """One of the seven products; the arguments are floats from pixel to pixel."""

        def steps(pixel: int) -> Steps:
            return Steps(0, 0, pixel, 0)

        return replace(
            product,
            columns=-(-product.columns // 2),
            channels=product.channels // 2,
            run=product.run // 2,
            x=steps(x or product.run // 2),
            y=steps(y or product.channels // 2),
            residual=steps(residual) if residual else None,
        )

    def schedules(self, node: Node, isa: KernelIsa) -> Sequence[Schedule]:
        found = schedules(self._half(conv_product(node)), isa)
        return [replace(schedule, algorithm="strassen") for schedule in found]

    def loss(self, node: Node, schedule: Schedule, isa: KernelIsa) -> Loss:
        return Loss(1e-6, apart=False)  # a few times a plain sum's; tests/test_strassen.py

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        product = conv_product(node)
        half = self._half(product)
        weights = packed_length(half, schedule, isa)
        # Floats loaded and stored: by the sums of activations, of weights, of products.
        sums = 13 * half.columns * half.run + 13 * weights + 11 * half.columns * half.channels
        if isinstance(node.op, Conv2D) and node.op.residual:
            sums += 8 * half.columns * half.channels
        # They are bound by the second-level cache, which gives about 16 bytes a cycle.
        issued = 1.5 * sums / isa.lanes / isa.core.issue_width
        total = 7 * cycles(half, schedule, isa) + max(issued, sums * 4 / 16)
        return _AT_LEAST * total

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        weights, bias = node.inputs[1].constant, node.inputs[2].constant
        assert weights is not None
        assert bias is not None
        filters, depth = weights.shape[:2]
        matrix = weights.reshape(filters, depth).T
        half = self._half(conv_product(node))
        quarters = [
            pack_matrix(quarter[None], half, schedule, isa)
            for rows in np.split(matrix, 2, axis=0)
            for quarter in np.split(rows, 2, axis=1)
        ]
        return {"weights": np.concatenate(quarters), "bias": pack_per_channel(bias, 1, isa)}

    def _floats(self, node: Node, schedule: Schedule, isa: KernelIsa) -> tuple[int, int, int, int]:
        """Floats of scratch memory: sums of activations, of weights, of products, and panels."""
        half = self._half(conv_product(node))
        sizes = (
            half.columns * half.run,
            packed_length(half, schedule, isa),
            half.columns * half.channels,
        )
        s, t, u = (-(-size // 16) * 16 for size in sizes)
        return s, t, u, panel_elements(half, schedule, isa)

    def scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        return 4 * sum(self._floats(node, schedule, isa))

    def thread_scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        return 4 * thread_panels(self._half(conv_product(node)), schedule, isa)

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, x, y, schedule = step.node, step.inputs[0], step.output, step.schedule
        op = node.op
        assert isinstance(op, Conv2D)
        product = conv_product(node)
        half = self._half(product)
        m, n, k = half.columns, half.channels, half.run
        packed = packed_length(half, schedule, isa)
        s_floats, t_floats, u_floats, _ = self._floats(node, schedule, isa)
        second = product.columns - m  # the first pixel of the second half
        lines: list[Body] = []

        def quarters(base: str, pitch: int, width: int) -> list[list[Place]]:
            rows, columns = (0, second * pitch), (0, width)
            return [[Place(Pointer(base, fixed=r + c), pitch) for c in columns]
                    for r in rows]  # fmt: skip

        a = quarters("x", x.pitch, k)
        c = quarters("y", y.pitch, n)
        b = [[Place(Pointer("weights", fixed=(2 * i + j) * packed), packed // k)
              for j in range(2)] for i in range(2)]  # fmt: skip
        residual_pitch = step.inputs[-1].pitch if op.residual else 0
        r = quarters("residual", residual_pitch, n)
        s, t, u = (
            Place(Pointer(name), step) for name, step in (("s", k), ("t", packed // k), ("u", n))
        )

        def add(comment: str, signs: str, terms: Sequence[Place], to: Place,
                rows: int, width: int, epilogue: Epilogue = _PLAIN,
                bias: str = "") -> None:  # fmt: skip
            entry = Sum(signs, epilogue)
            lines.append((f"// {comment}",))
            for chunk in split_evenly(rows, _SUM_ROWS):

                def at(place: Place, chunk_first: int, count: int, size: int) -> Pointer:
                    first = place.pointer + chunk_first * place.step
                    return first.plus("i", size * place.step) if count > 1 else first

                where: list[Value] = [at(p, chunk.first, chunk.count, chunk.size) for p in terms]
                where += [bias] if epilogue.bias else []
                where.append(at(to, chunk.first, chunk.count, chunk.size))
                steps = [p.step for p in (*terms, to)]
                call = entry.call(isa, chunk.size, width, where, steps)
                lines.append(loop("i", chunk.count, (call,), shared=True))

        def multiply(comment: str, left: Place, right: Place, to: Place,
                     residual: Place | None = None, *, final: str = "") -> None:  # fmt: skip
            one = self._half(product, left.step, to.step, residual.step if residual else 0)
            epilogue = Epilogue(op.activation if final else None, residual is not None, bool(final))
            loops = emit_loops(one, schedule, isa, epilogue, "left", "to", weights="right",
                               bias=final, residual="also")  # fmt: skip
            pointers = [
                f"const float* left = {left.pointer};",
                f"const float* right = {right.pointer};",
                *([f"const float* also = {residual.pointer};"] if residual else []),
                f"float* to = {to.pointer};",
            ]
            lines.append((f"// {comment}", Scope(body(pointers, loops))))

        low, high = "bias", "high_bias"
        end = Epilogue(op.activation)
        multiply("U = A11 B11", a[0][0], b[0][0], u)
        if op.residual:
            add("C11 = U + residual", "++", [u, r[0][0]], c[0][0], m, n)
        multiply("C11 = A12 B21 + U", a[0][1], b[1][0], c[0][0],
                 c[0][0] if op.residual else u, final=low)  # fmt: skip
        add("S2 = A21 + A22 - A11", "++-", [a[1][0], a[1][1], a[0][0]], s, m, k)
        add("T2 = B22 - B12 + B11", "+-+", [b[1][1], b[0][1], b[0][0]], t, k, t.step)
        multiply("U += S2 T2", s, t, u, u)
        add("-T4 = B21 - T2", "+-", [b[1][0], t], t, k, t.step)
        multiply("C21 = U - A22 T4", a[1][1], t, c[1][0], u)
        add("S1 = S2 + A11", "++", [s, a[0][0]], s, m, k)
        add("T1 = B12 - B11", "+-", [b[0][1], b[0][0]], t, k, t.step)
        multiply("U += S1 T1", s, t, u, u)
        add("S4 = A12 + A11 - S1", "++-", [a[0][1], a[0][0], s], s, m, k)
        if op.residual:
            add("C12 = U + residual", "++", [u, r[0][1]], c[0][1], m, n)
        multiply("C12 = S4 B22 + U", s, b[1][1], c[0][1],
                 c[0][1] if op.residual else u, final=high)  # fmt: skip
        add("S3 = A11 - A21", "+-", [a[0][0], a[1][0]], s, m, k)
        add("T3 = B22 - B12", "+-", [b[1][1], b[0][1]], t, k, t.step)
        # Only now: the halves may share a pixel, of which this overwrites C12.
        multiply("C22 = S3 T3", s, t, c[1][1])
        for column, terms, bias in ((0, [c[1][0], c[1][1]], low), (1, [c[1][1], u], high)):
            terms += [r[1][column]] if op.residual else []
            text = f"C2{column + 1} += {'U' if column else 'C22'}"
            add(text, "+" * len(terms), terms, c[1][column], m, n, end, bias)
        name = f"{conv_stem(node)}_strassen{Epilogue(op.activation, op.residual).suffix}"
        places = {"high_bias": f"bias + {n}", "s": "reinterpret_cast<float*>(scratch)",
                  "t": f"s + {s_floats}", "u": f"s + {s_floats + t_floats}"}  # fmt: skip
        if schedule.panels:
            places["panels"] = f"s + {s_floats + t_floats + u_floats}"
        return step.function(
            name,
            [f"{'const ' * (name == 'high_bias')}float* {name} = {value};"
             for name, value in places.items()],
            *lines,
            comment=[
                f"{schedule}: 7 products of halves of the pixels, channels and filters (Strassen,",
                "in Winograd's form); weights packed as B11, B12, B21, B22. Outputs are off by",
                f"at most {k * (18 * k + 96)} * 2^-24 * max|x| * max|w| (Higham, section 23.2.2).",
            ],
            inputs=("x", "residual")[: len(step.inputs)],
            scratch=True,
        )  # fmt: skip


KERNELS = (ConvStrassen(),)
