"""Products whose left side is first copied into panels, so that a tile reads it in one stream.

A panel holds `rows` neighbouring pixels as [k / 2][rows / 4][2][4 pixels], zero-filled; beside
weights packed as [k][channels], both sides of a step of the depth are then a few contiguous
vectors. The copy is small against the arithmetic once there are tens of output channels, and
needs no copy of its own for strides and filter taps (Goto and van de Geijn, "Anatomy of
High-Performance Matrix Multiplication", 2008).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from mdlc.codegen.aarch64 import CHUNKS, rest_of
from mdlc.codegen.epilogue import Epilogue
from mdlc.codegen.isa import Isa
from mdlc.codegen.kernel import Microkernel
from mdlc.codegen.part import load_part, store_part
from mdlc.codegen.templates import render

STEP = 2  # of the depth, the unit of panels
SHORT = 64  # the longest depth whose copy is written out


def padded_run(run: int) -> int:
    """A contiguous run of the depth as panels hold it."""
    return -(-run // STEP) * STEP


def packed_depth(run: int, taps: int) -> int:
    """The depth of `taps` runs as panels hold it: short sums are padded once, not run by run."""
    return padded_run(run * taps) if is_short(run, taps) else padded_run(run) * taps


def is_short(run: int, taps: int) -> bool:
    """Whether the copy of a panel is written out, run after run without gaps (a first layer's)."""
    return taps > 1 and run % STEP != 0 and run * taps <= SHORT


def panel_pitch(rows: int) -> int:
    """Floats of one step of the depth in a panel of `rows` pixels."""
    return -(-rows // 4) * 4


def tile_heights(vectors: int, isa: Isa) -> tuple[int, ...]:
    """Pixels of the tiles worth trying beside `vectors` vectors of channels."""
    return (8,) if vectors <= 3 and isa.panel_loop else ()


def step_instructions(rows: int, vectors: int) -> float:
    """Instructions of one step of the depth."""
    loads = 0.5 + (0.5 if vectors < 3 else 1.0)
    return rows * vectors + loads + 2 / (STEP * CHUNKS)


def pack_instructions(rows: int) -> float:
    """Instructions of copying one step of the depth."""
    return (rows + 4 * -(-rows // 4) / 2 + 3) / 4


@dataclass(frozen=True)
class PackTile:
    """Copies `rows` equally spaced pixels into a panel.

    Attributes:
        taps: trips of the loops around the run, at most two; run: contiguous floats.
    """

    rows: int
    taps: tuple[int, ...]
    run: int

    @property
    def short(self) -> bool:
        """Whether the copy is written out."""
        return is_short(self.run, math.prod(self.taps))

    def name(self, isa: Isa) -> str:
        """Such as pack_8_f32_neon."""
        if self.short:
            depth = "x".join(map(str, (*self.taps, self.run)))
            return f"pack_f32_{self.rows}_depth{depth}_{isa.suffix}"
        kind = ("", "_conv", "_conv2d")[len(self.taps)]
        rest = f"_rest{self.run % 4}" if self.run % 4 else ""
        few = "_short" if self.run < 4 else ""
        return f"pack{kind}_f32_{self.rows}{rest}{few}_{isa.suffix}"

    def template_parameters(self) -> list[str]:
        """Names of the compile-time integers, in order."""
        names = ["kPixelStep"] if self.rows > 1 else []
        if self.short:
            return names + (["kTapStep"] if len(self.taps) == 1 else ["kTapStepY", "kTapStepX"])
        names = (["kRun"] if self.run >= 4 else []) + names
        loops = [[], ["kTaps", "kTapStep"], ["kTapsY", "kTapStepY", "kTapsX", "kTapStepX"]]
        return names + loops[len(self.taps)]

    def _places(self) -> list[str]:
        """Where each step of the depth lies, from the pixel's first float."""
        steps = ("kTapStep",) if len(self.taps) == 1 else ("kTapStepY", "kTapStepX")
        found = []
        for indices in itertools.product(*map(range, self.taps), range(self.run)):
            terms = [
                f"{index} * {step}" if index > 1 else step
                for index, step in zip(indices, steps, strict=False)
                if index
            ]
            terms += [str(indices[-1])] if indices[-1] else []
            found.append(" + ".join(terms))
        return found

    def _pairs(self) -> list[tuple[str, str, bool]]:
        """Places of the steps of the depth two by two ("" beyond its end); whether they touch."""
        places = self._places()
        return [
            (
                places[k],
                places[k + 1] if k + 1 < len(places) else "none",
                (k + 1) % self.run != 0,
            )
            for k in range(0, len(places), 2)
        ]

    def microkernel(self, isa: Isa) -> Microkernel:
        """The C++ of the copy."""
        text = render(
            "cpp/kernels/pack_panel_short.j2" if self.short else "cpp/kernels/pack_panel.j2",
            name=self.name(isa),
            rows=self.rows,
            groups=-(-self.rows // 4),
            rest=self.run % 4,
            loop=self.run >= 4,
            taps=len(self.taps),
            pairs=self._pairs() if self.short else [],
            params=self.template_parameters(),
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

    @property
    def rest(self) -> int:
        """Chunks of the depth after the loop."""
        return rest_of(self.depth // STEP, self.rows, self.vectors)

    @property
    def trips(self) -> int:
        """Trips of the loop."""
        return (self.depth // STEP - self.rest) // CHUNKS

    def channels(self, isa: Isa) -> int:
        """Output channels that the tile writes."""
        return self.vectors * isa.lanes - (isa.lanes - self.part if self.part else 0)

    def name(self, isa: Isa, epilogue: Epilogue) -> str:
        """Such as gemm_relu_f32_8x8_panels_neon."""
        kind = f"gemm{epilogue.suffix}_f32_{self.rows}x{self.channels(isa)}_panels"
        rest = f"_rest{self.rest * STEP}" if self.rest % CHUNKS else ""
        return f"{kind}{rest}{'' if self.trips else '_short'}_{isa.suffix}"

    def template_parameters(self, epilogue: Epilogue) -> list[str]:
        """Names of the compile-time integers, in order."""
        names = ["kTrips"] if self.trips else []
        names += ["kOutStep"] if self.rows > 1 else []
        return names + (["kResidualStep"] if epilogue.residual and self.rows > 1 else [])

    def microkernel(self, isa: Isa, epilogue: Epilogue) -> Microkernel:
        """The C++ of the tile."""
        assert isa.panel_loop is not None
        activation = epilogue.function(isa)
        needs = [activation] if activation else []
        loaded, stored = load_part(isa, self.part), store_part(isa, self.part)
        if self.part:
            needs += [helper for helper in (stored.helper,) if helper]
            needs += [helper for helper in (loaded.helper,) if helper and epilogue.residual]
        arguments = ["const float* a", "const float* b"]
        arguments += ["const float* bias"] if epilogue.bias else []
        arguments += ["const float* slope"] if epilogue.slope else []
        arguments += ["const float* residual"] if epilogue.residual else []
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
            trips=self.trips,
            depth=self.rest * STEP,
            params=self.template_parameters(epilogue),
            arguments=[*arguments, "float* y"],
            assembly=isa.panel_loop(
                self.rows, self.vectors, self.rest, loop=self.trips > 0, bias=epilogue.bias
            ),
            residual=epilogue.residual,
            slope=epilogue.slope,
            activation=activation.name if activation else "",
            load_part=loaded.spell,
            store_part=stored.spell,
        )
        return Microkernel(self.name(isa, epilogue), text, tuple(needs))
