"""The tile of pooling with small windows: a few outputs of a row that share input columns."""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.codegen.code import Microkernel
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.templates import render
from mdlc.codegen.tiles.partial_vector import load_part, store_part


@dataclass(frozen=True)
class PoolTile:
    """Neighbouring output pixels of one row.

    Attributes:
        pixels: how many; rows: window rows inside the input; kernel: window columns.
        stride, dilation: horizontal.
        left, right: input columns of the tile that lie outside the image.
        part: channels of the one vector computed; 0: a loop over whole vectors.
        scale: factor of a sum (average pooling) as a C++ literal; "" for the maximum.
    """

    pixels: int
    rows: int
    kernel: int
    stride: int
    dilation: int
    left: int
    right: int
    part: int
    scale: str

    def windows(self) -> dict[int, list[int]]:
        """Input columns inside the image that each pixel reads."""
        span = (self.pixels - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
        return {
            pixel: [
                column
                for tap in range(self.kernel)
                if self.left
                <= (column := pixel * self.stride + tap * self.dilation)
                < span - self.right
            ]
            for pixel in range(self.pixels)
        }

    def columns(self) -> list[int]:
        """Input columns inside the image."""
        return sorted({column for used in self.windows().values() for column in used})

    def instructions(self) -> float:
        """Instructions for one vector of channels."""
        columns = len(self.columns())
        combined = sum(len(used) - 1 for used in self.windows().values())
        return columns * (2 * self.rows - 1) + combined + (3 if self.scale else 2) * self.pixels + 4

    def name(self, isa: Dialect) -> str:
        """Such as maxpool3x3s2_f32_4_left1_neon."""
        stem = f"{'averagepool' if self.scale else 'maxpool'}{self.rows}x{self.kernel}"
        stem += f"s{self.stride}" if self.stride > 1 else ""
        stem += f"d{self.dilation}" if self.dilation > 1 else ""
        stem += f"_{isa.kind}_{self.pixels}"
        stem += f"_left{self.left}" if self.left else ""
        stem += f"_right{self.right}" if self.right else ""
        stem += f"_part{self.part}" if self.part else ""
        if self.scale:
            stem += "_by_" + "".join(c if c.isalnum() else "_" for c in self.scale)
        return f"{stem}_{isa.suffix}"

    def template_parameters(self) -> list[str]:
        """Names of the compile-time integers, in order."""
        names = [] if self.part else ["kVectors"]
        names += ["kRowStep"] if self.rows > 1 else []
        names += ["kPixelStep"] if len(self.columns()) > 1 else []
        return names + (["kOutStep"] if self.pixels > 1 else [])

    def microkernel(self, isa: Dialect) -> Microkernel:
        """The C++ of the tile."""
        loaded, stored = load_part(isa, self.part), store_part(isa, self.part)
        helpers = (loaded.helper, stored.helper) if self.part else ()
        text = render(
            "cpp/kernels/pool_tile.j2",
            formula=f"{self.scale} * sum" if self.scale else "max",
            isa=isa,
            tile=self,
            name=self.name(isa),
            params=self.template_parameters(),
            columns=self.columns(),
            windows=self.windows(),
            clipped=self.left or self.right,
            combine="add" if self.scale else "max",
            scale=self.scale,
            load_part=loaded.spell,
            store_part=stored.spell,
        )
        return Microkernel(self.name(isa), text, tuple(helper for helper in helpers if helper))
