"""Register tiles of depthwise convolutions: vectors of channels, a few pixels of a row.

Tiles of one filter, stride and activation are one function: how many pixels, which rows and
columns lie inside the image and all strides are template arguments. Every input column is loaded
once a filter row and multiplied by each tap that has a pixel for it; the accumulators of all
pixels stay in registers.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mdlc.codegen.code import Microkernel
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.templates import render
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.partial_vector import load_part, store_part


@dataclass(frozen=True)
class DepthwiseTile:
    """Neighbouring output pixels of one row.

    Attributes:
        pixels: how many; rows: filter rows inside the input; kernel, height: filter columns and
            all filter rows; stride, dilation: horizontal.
        left, right: input columns of the tile that lie outside the image.
        part: channels of the one vector computed; 0: a loop over whole vectors.
    """

    pixels: int
    rows: int
    kernel: int
    height: int
    stride: int
    dilation: int
    left: int = 0
    right: int = 0
    part: int = 0

    @property
    def span(self) -> int:
        """Input columns that the tile covers."""
        return (self.pixels - 1) * self.stride + (self.kernel - 1) * self.dilation + 1

    @property
    def numbers(self) -> dict[str, int]:
        """The template arguments that tell it from other tiles of the same function."""
        return {
            "kPixels": self.pixels,
            "kRows": self.rows,
            "kLeft": self.left,
            "kRight": self.right,
            "kPart": self.part,
        }

    def uses(self) -> dict[int, list[tuple[int, int]]]:
        """For each input column inside the image, the (pixel, tap) pairs that read it."""
        found: dict[int, list[tuple[int, int]]] = {}
        for pixel, tap in itertools.product(range(self.pixels), range(self.kernel)):
            column = pixel * self.stride + tap * self.dilation
            if self.left <= column < self.span - self.right:
                found.setdefault(column, []).append((pixel, tap))
        return dict(sorted(found.items()))

    @property
    def multiply_adds(self) -> int:
        """Of vectors, for one vector of channels."""
        return self.rows * sum(len(pairs) for pairs in self.uses().values())

    @staticmethod
    def called(name: str, numbers: Sequence[int]) -> DepthwiseTile | None:
        """The tile that a call of a microkernel computes, if it is one.

        Args:
            name: of the microkernel; numbers: the template arguments of the call.
        """
        found = re.match(r"dwconv(\d+)x(\d+)(?:s(\d+))?(?:d(\d+))?_", name)
        if found is None:
            return None
        height, kernel, stride, dilation = (int(number or 1) for number in found.groups())
        pixels, rows, left, right, last = numbers[:5]
        part = last if "_part_" in name else 0
        return DepthwiseTile(pixels, rows, kernel, height, stride, dilation, left, right, part)

    def name(self, isa: KernelIsa, epilogue: Epilogue) -> str:
        """Such as dwconv3x3s2_relu6_f32_neon."""
        stem = f"dwconv{self.height}x{self.kernel}"
        stem += f"s{self.stride}" if self.stride > 1 else ""
        stem += f"d{self.dilation}" if self.dilation > 1 else ""
        return f"{stem}{epilogue.suffix}_{self._ending(isa)}"

    def _ending(self, isa: KernelIsa) -> str:
        return f"{'part_' if self.part else ''}{isa.kind}_{isa.suffix}"

    def template_parameters(self, epilogue: Epilogue) -> list[str]:
        """Names of the compile-time integers, in order."""
        names = ["kPixels", "kRows", "kLeft", "kRight", "kPart" if self.part else "kVectors"]
        names += ["kRowStep", "kPixelStep", "kOutStep"]
        return names + (["kResidualStep"] if epilogue.residual else [])

    def microkernel(self, isa: KernelIsa, epilogue: Epilogue) -> Microkernel:
        """The C++ of the tile and of all others of its function."""
        sums, end = self._sums(isa), self._end(isa, epilogue)
        read = ["x", "w", *epilogue.arguments]
        pixel = "p" if self.stride == 1 else f"p * {self.stride}"
        column = f"{pixel} + k" if self.dilation == 1 else f"{pixel} + k * {self.dilation}"
        formula = f"bias[c] + sum(x[row][{column}][c] * w[row][k][c])"
        text = render(
            "cpp/kernels/depthwise_tile.j2",
            formula=f"y[p][c] = {epilogue.formula(formula, index='c')}",
            isa=isa,
            family=self,
            part=self.part > 0,
            taps=self.height * self.kernel,
            reach=(self.kernel - 1) * self.dilation,
            name=self.name(isa, epilogue),
            params=self.template_parameters(epilogue),
            arguments=isa.arguments(read),
            arrays=[*read, "y"],
            epilogue=epilogue,
            load=f"depthwise_load_{self._ending(isa)}",
            rows=sums.name,
            store=end.name,
        )
        return Microkernel(self.name(isa, epilogue), text, (sums, end))

    def _sums(self, isa: KernelIsa) -> Microkernel:
        """acc[p] += sum over rows and taps, for any filter, stride and dilation."""
        loaded = load_part(isa, "kPart")
        text = render(
            "cpp/kernels/depthwise_rows.j2",
            isa=isa,
            part=self.part > 0,
            load_part=loaded.spell,
        )
        needs = [loaded.helper] if self.part and loaded.helper else []
        needs += isa.needs("hold")
        return Microkernel(f"depthwise_rows_{self._ending(isa)}", text, tuple(needs))

    def _end(self, isa: KernelIsa, epilogue: Epilogue) -> Microkernel:
        """What follows the sums: bias (where it is added last), residual, activation, stores."""
        activation = epilogue.function(isa)
        loaded, stored = load_part(isa, "kPart"), store_part(isa, "kPart")
        needs = [activation] if activation else []
        if self.part:
            needs += [stored.helper] if stored.helper else []
            needs += [loaded.helper] if loaded.helper and epilogue.residual else []
        else:
            needs += isa.needs("store_sum")
        name = f"depthwise_store{epilogue.suffix}_{self._ending(isa)}"
        text = render(
            "cpp/kernels/depthwise_store.j2",
            formula=epilogue.formula("bias + acc[p]" if isa.bias_last else "acc[p]", index="c"),
            isa=isa,
            part=self.part > 0,
            name=name,
            epilogue=epilogue,
            values=[
                *(["bias"] if isa.bias_last else []),
                *(["slope"] if epilogue.slope else []),
            ],
            activation=activation.name if activation else "",
            load_part=loaded.spell,
            store_part=stored.spell,
        )
        return Microkernel(name, text, tuple(needs))
