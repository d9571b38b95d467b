"""Products whose left side is first copied into panels, so that a tile reads it in one stream.

A panel holds `rows` neighbouring pixels as [k / s][rows / 4][s][4 pixels], zero-filled, where s
elements are 8 bytes; beside weights packed as [k][channels], both sides of a step of the depth are
then a few contiguous vectors. The copy is small against the arithmetic once there are tens of
output channels, and needs no copy of its own for strides and filter taps (Goto and van de Geijn,
"Anatomy of High-Performance Matrix Multiplication", 2008).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mdlc.codegen.code import Call, Microkernel, Value
from mdlc.codegen.isa.dialect import CHUNKS, Dialect
from mdlc.codegen.templates import render
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.formula import identity
from mdlc.codegen.tiles.partial_vector import load_part, store_part

# How far a step of the depth lies behind the pixel's first element: terms of `advanced`.
Place = tuple[int | tuple[int, str], ...]

SHORT = 64  # the longest depth whose copy is written out


def chunk_steps(isa: Dialect) -> int:
    """Steps of the depth in a chunk, the unit of panels."""
    return 8 // isa.bytes


def padded_run(run: int, isa: Dialect) -> int:
    """A contiguous run of the depth as panels hold it."""
    return -(-run // chunk_steps(isa)) * chunk_steps(isa)


def packed_depth(run: int, taps: int, isa: Dialect) -> int:
    """The depth of `taps` runs as panels hold it: short sums are padded once, not run by run."""
    if is_short(run, taps, isa):
        return padded_run(run * taps, isa)
    return padded_run(run, isa) * taps


def is_short(run: int, taps: int, isa: Dialect) -> bool:
    """Whether the copy of a panel is written out, run after run without gaps (a first layer's)."""
    return taps > 1 and run % chunk_steps(isa) != 0 and run * taps <= SHORT


def panel_pitch(rows: int) -> int:
    """Elements of one step of the depth in a panel of `rows` pixels."""
    return -(-rows // 4) * 4


def tile_heights(vectors: int, isa: Dialect) -> tuple[int, ...]:
    """Pixels of the tiles worth trying beside `vectors` vectors of channels."""
    return (8,) if vectors <= 3 and isa.panels else ()


def step_instructions(rows: int, vectors: int, isa: Dialect) -> float:
    """Instructions of one step of the depth."""
    assert isa.panels is not None
    return rows * vectors + isa.panels.step_loads(vectors) + 2 / (chunk_steps(isa) * CHUNKS)


def tile_instructions(rows: int, vectors: int, part: int, *, residual: bool) -> float:
    """Instructions of a tile beside its depth.

    The call and its arguments, registers kept for the caller; accumulators set and activated once
    each, and added to with a residual; a load or store for a row, and more for a partial vector.
    """
    accumulators = rows * vectors
    found = 20 + 2 * accumulators + rows + (2 * rows if part else 0)
    return found + (accumulators + rows + (2 * rows if part else 0) if residual else 0)


def pack_instructions(rows: int, isa: Dialect) -> float:
    """Instructions of copying one step of the depth."""
    return (rows + 4 * -(-rows // 4) / 2 + 3) / (2 * chunk_steps(isa))


@dataclass(frozen=True)
class PackTile:
    """Copies `rows` equally spaced pixels into a panel.

    Attributes:
        taps: trips of the loops around the run, at most two; run: contiguous elements.
    """

    rows: int
    taps: tuple[int, ...]
    run: int

    def short(self, isa: Dialect) -> bool:
        """Whether the copy is written out."""
        return is_short(self.run, math.prod(self.taps), isa)

    def name(self, isa: Dialect) -> str:
        """Such as pack_8_f32_neon."""
        if self.short(isa):
            depth = "x".join(map(str, (*self.taps, self.run)))
            return f"pack_{isa.kind}_{self.rows}_depth{depth}_{isa.suffix}"
        kind = ("", "_conv", "_conv2d")[len(self.taps)]
        trip = 2 * chunk_steps(isa)
        rest = f"_rest{self.run % trip}" if self.run % trip else ""
        few = "_short" if self.run < trip else ""
        return f"pack{kind}_{isa.kind}_{self.rows}{rest}{few}_{isa.suffix}"

    def template_parameters(self, isa: Dialect) -> list[str]:
        """Names of the compile-time integers, in order."""
        names = ["kPixelStep"] if self.rows > 1 else []
        if self.short(isa):
            return names + (["kTapStep"] if len(self.taps) == 1 else ["kTapStepY", "kTapStepX"])
        names = (["kRun"] if self.run >= 2 * chunk_steps(isa) else []) + names
        loops = [[], ["kTaps", "kTapStep"], ["kTapsY", "kTapStepY", "kTapsX", "kTapStepX"]]
        return names + loops[len(self.taps)]

    def _places(self) -> list[Place]:
        """Where each step of the depth lies, from the pixel's first element."""
        steps = ("kTapStep",) if len(self.taps) == 1 else ("kTapStepY", "kTapStepX")
        found: list[Place] = []
        for indices in itertools.product(*map(range, self.taps), range(self.run)):
            found.append((*zip(indices[:-1], steps, strict=True), indices[-1]))
        return found

    def _chunks(self, isa: Dialect) -> list[tuple[list[Place], bool]]:
        """Places of the steps of the depth chunk by chunk; whether those of a whole one touch."""
        places, size = self._places(), chunk_steps(isa)
        return [
            (places[k : k + size], k + size <= len(places) and k % self.run + size <= self.run)
            for k in range(0, len(places), size)
        ]

    def microkernel(self, isa: Dialect) -> Microkernel:
        """The C++ of the copy."""
        short = self.short(isa)
        trip = 2 * chunk_steps(isa)
        text = render(
            "cpp/kernels/pack_panel_short.j2" if short else "cpp/kernels/pack_panel.j2",
            name=self.name(isa),
            isa=isa,
            size=chunk_steps(isa),
            rows=self.rows,
            groups=-(-self.rows // 4),
            rest=self.run % trip,
            loop=self.run >= trip,
            taps=len(self.taps),
            chunks=self._chunks(isa) if short else [],
            params=self.template_parameters(isa),
        )
        return Microkernel(self.name(isa), text)


@dataclass(frozen=True)
class PanelTile:
    """A register tile on panels.

    Attributes:
        rows: pixels; vectors: of output channels; part: channels used of the last (0: all).
        depth: padded length of the sums; 0 for any.
    """

    rows: int
    vectors: int
    part: int
    depth: int

    def rest(self, isa: Dialect) -> int:
        """Chunks of the depth after the loop."""
        assert isa.panels is not None
        return isa.panels.rest_of(self.depth // chunk_steps(isa), self.rows, self.vectors)

    def trips(self, isa: Dialect) -> int:
        """Trips of the loop."""
        return (self.depth // chunk_steps(isa) - self.rest(isa)) // CHUNKS

    def channels(self, isa: Dialect) -> int:
        """Output channels that the tile writes."""
        return self.vectors * isa.lanes - (isa.lanes - self.part if self.part else 0)

    def name(self, isa: Dialect, epilogue: Epilogue) -> str:
        """Such as gemm_f32_8x8_panels_neon."""
        slope = "_slope" if epilogue.slope else ""
        return f"gemm{slope}_{isa.kind}_{self.rows}x{self.channels(isa)}_panels_{isa.suffix}"

    def template_arguments(
        self, isa: Dialect, epilogue: Epilogue
    ) -> tuple[str | int | Microkernel, ...]:
        """Whether there is a loop, chunks behind it, whether there are bias and residual, and the
        activation.
        """
        flags = (self.trips(isa) > 0, epilogue.bias, epilogue.residual)
        loop, bias, residual = ("true" if flag else "false" for flag in flags)
        return loop, self.rest(isa), bias, residual, epilogue.function(isa) or identity(isa)

    def microkernel(self, isa: Dialect, epilogue: Epilogue) -> Microkernel:
        """The C++ of the tile, for any depth, distance of pixels, bias, residual and activation.

        Depth and distances are arguments, not compile-time integers, so that layers share a tile:
        one is as large as all the loops that call it.
        """
        assert isa.panels is not None
        loaded, stored = load_part(isa, self.part), store_part(isa, self.part)
        needs = [helper for helper in (loaded.helper, stored.helper) if helper]
        if self.part:
            needs.append(_moved())
        full = self.vectors - 1 if self.part else self.vectors
        text = render(
            "cpp/kernels/panel_tile.j2",
            isa=isa,
            name=self.name(isa, epilogue),
            rows=self.rows,
            vectors=self.vectors,
            full=full,
            part=self.part,
            channels=self.channels(isa),
            chunk=chunk_steps(isa),
            trip=chunk_steps(isa) * CHUNKS,
            slope=epilogue.slope,
            load_part=loaded.spell,
            store_part=stored.spell,
        )
        return Microkernel(self.name(isa, epilogue), text, tuple(needs))

    def call(
        self,
        isa: Dialect,
        epilogue: Epilogue,
        arrays: Mapping[str, Value],
        *,
        out_step: int,
        residual_step: int,
    ) -> Call:
        """The call of the tile.

        Args:
            arrays: a, b, y, and bias, slope and residual where the epilogue has them.
            out_step, residual_step: bytes from pixel to pixel.
        """
        names = ["a", "b", "bias", *(["slope"] if epilogue.slope else []), "residual", "y"]
        steps = (out_step, residual_step) if self.rows > 1 else ()
        return Call(
            self.microkernel(isa, epilogue),
            (*(arrays.get(name, "nullptr") for name in names), *steps, self.trips(isa)),
            self.template_arguments(isa, epilogue),
        )


def multiply_adds(name: str, arguments: Sequence[str | int], isa: Dialect) -> int | None:
    """Multiply-adds in the assembly of a tile: of the loop's body, if there is one, and around it.

    Args:
        name: of a microkernel; arguments: of the template, by their names.

    Returns:
        None if it is no tile on panels.
    """
    found = re.match(r"gemm_(?:slope_)?f\d+_(\d+)x(\d+)_panels_", name)
    if found is None or isa.panels is None:
        return None
    rows, channels = int(found[1]), int(found[2])
    chunks = int(arguments[1]) + (CHUNKS if arguments[0] == "true" else 0)
    steps = chunks * chunk_steps(isa) + isa.panels.begun_steps
    return rows * -(-channels // isa.lanes) * steps


def _moved() -> Microkernel:
    text = """\
// A pointer that goes on by bytes.
template <typename T>
inline T* moved(T* pointer, std::ptrdiff_t bytes) {
  using Byte = std::conditional_t<std::is_const_v<T>, const unsigned char, unsigned char>;
  return reinterpret_cast<T*>(reinterpret_cast<Byte*>(pointer) + bytes);
}
"""
    return Microkernel("moved", text, includes=("type_traits",))
