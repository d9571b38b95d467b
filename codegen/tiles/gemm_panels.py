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
from dataclasses import dataclass

from mdlc.codegen.code import Microkernel
from mdlc.codegen.isa.dialect import CHUNKS, Dialect
from mdlc.codegen.templates import render
from mdlc.codegen.tiles.epilogue import Epilogue
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
        depth: padded length of the sums.
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
        """Such as gemm_relu_f32_8x8_panels_neon."""
        kind = f"gemm{epilogue.suffix}_{isa.kind}_{self.rows}x{self.channels(isa)}_panels"
        rest = self.rest(isa)
        alone = self.depth == chunk_steps(isa)  # no loop and no rest either
        kind += f"_rest{rest * chunk_steps(isa)}" if rest % CHUNKS or alone else ""
        return f"{kind}{'' if self.trips(isa) else '_short'}_{isa.suffix}"

    def numbers(self, isa: Dialect, epilogue: Epilogue) -> list[str]:
        """Names of the integers that follow the arrays.

        They are arguments, not compile-time integers, so that layers of any depth and any distance
        of pixels share a tile: one is as large as all the loops that call it.
        """
        names = ["out_step"] if self.rows > 1 else []
        names += ["residual_step"] if epilogue.residual and self.rows > 1 else []
        return names + (["trips"] if self.trips(isa) else [])

    def microkernel(self, isa: Dialect, epilogue: Epilogue) -> Microkernel:
        """The C++ of the tile."""
        assert isa.panels is not None
        rest, trips = self.rest(isa), self.trips(isa)
        activation = epilogue.function(isa)
        needs = [activation] if activation else []
        loaded, stored = load_part(isa, self.part), store_part(isa, self.part)
        if self.part:
            needs += [helper for helper in (stored.helper,) if helper]
            needs += [helper for helper in (loaded.helper,) if helper and epilogue.residual]
        start = "bias[n] + " if epilogue.bias else ""
        text = render(
            "cpp/kernels/panel_tile.j2",
            formula=f"y[p][n] = {epilogue.formula(f'{start}sum(a[k][p] * b[k][n])')}",
            isa=isa,
            name=self.name(isa, epilogue),
            rows=self.rows,
            vectors=self.vectors,
            part=self.part,
            channels=self.channels(isa),
            chunk=chunk_steps(isa),
            trip=chunk_steps(isa) * CHUNKS,
            trips=trips,
            depth=self.depth - trips * CHUNKS * chunk_steps(isa),
            arguments=[
                *isa.arguments(["a", "b", *epilogue.arguments]),
                *(
                    f"{'int' if name == 'trips' else 'std::ptrdiff_t'} {name}"
                    for name in self.numbers(isa, epilogue)
                ),
            ],
            assembly=isa.panels.loop(
                self.rows,
                self.vectors,
                rest,
                loop=trips > 0,
                bias=epilogue.bias and not isa.bias_last,
            ),
            bias=epilogue.bias,
            residual=epilogue.residual,
            slope=epilogue.slope,
            activation=activation.name if activation else "",
            load_part=loaded.spell,
            store_part=stored.spell,
        )
        return Microkernel(self.name(isa, epilogue), text, tuple(needs))
