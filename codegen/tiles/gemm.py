"""The register tile of implicit-GEMM convolutions, spelled by any ISA.

A tile computes `rows` pixels times `vectors` vectors of output channels. Weights are packed so
that one step of the depth reads `vectors` consecutive vectors; activations are read where they
lie (NHWC), a fixed number of elements from pixel to pixel, known when the code is emitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mdlc.codegen.code import Microkernel, advanced
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.templates import render
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.partial_vector import load_part, store_part


@dataclass(frozen=True)
class Tile:
    """A register tile.

    Attributes:
        rows: pixels.
        vectors: vectors of output channels.
        part: channels used of the last vector; 0 means all.
        taps: loops over filter taps around the loop over the contiguous run (0, 1 or 2).
        ahead: whether the panel of b that comes next is prefetched meanwhile.
        tail: steps of the run left over by lane-wise unrolling (0 on ISAs that broadcast).
    """

    rows: int
    vectors: int
    part: int = 0
    taps: int = 0
    tail: int = 0
    ahead: bool = False

    def channels(self, isa: Dialect) -> int:
        """Output channels that the tile writes."""
        return self.vectors * isa.lanes - (isa.lanes - self.part if self.part else 0)

    def name(self, isa: Dialect, epilogue: Epilogue) -> str:
        """Such as conv_relu_f32_14x32_avx512."""
        kind = ("gemm", "conv", "conv2d")[self.taps]
        tail = f"_tail{self.tail}" if self.tail else ""
        ahead = "_ahead" if self.ahead else ""
        size = f"{self.rows}x{self.channels(isa)}"
        return f"{kind}{epilogue.suffix}_{isa.kind}_{size}{tail}{ahead}_{isa.suffix}"

    def template_parameters(self, isa: Dialect, epilogue: Epilogue) -> list[str]:
        """Names of the compile-time integers, in order."""
        names = ["kRun", "kPixelStep", "kOutStep"] if self.rows > 1 else ["kRun"]
        names += [[], ["kTaps", "kTapStep"], ["kTapsY", "kTapStepY", "kTapsX", "kTapStepX"]][
            self.taps
        ]
        if epilogue.residual and self.rows > 1:
            names.append("kResidualStep")
        if self.ahead:
            names.append("kAhead")
        return names

    def microkernel(self, isa: Dialect, epilogue: Epilogue) -> Microkernel:
        """The C++ of the tile."""
        depth = list(self._depth(isa))
        part = self.part
        activation = epilogue.function(isa)
        needs = [activation] if activation else []
        loaded, stored = load_part(isa, part), store_part(isa, part)
        if part:
            needs += [helper for helper in (stored.helper,) if helper]
            needs += [helper for helper in (loaded.helper,) if helper and epilogue.residual]
        needs += isa.needs("hold", "lane_fma") if isa.lane_fma else []
        needs += isa.needs("store_sum") if self.vectors > 1 or not part else []
        taps = ["k", "tap][k", "tap_y][tap_x][k"][self.taps]
        start = "bias[n] + " if epilogue.bias else ""
        sum_of_products = f"{start}sum(a[p][{taps}] * b[{taps}][n])"
        text = render(
            "cpp/kernels/gemm_tile.j2",
            formula=f"y[p][n] = {epilogue.formula(sum_of_products)}",
            isa=isa,
            name=self.name(isa, epilogue),
            rows=self.rows,
            vectors=self.vectors,
            channels=self.channels(isa),
            part=part,
            taps=self.taps,
            a_layout="pixels kPixelStep apart" if self.rows > 1 else "one pixel",
            b_layout=taps,
            b_step=self.vectors * isa.lanes,
            params=self.template_parameters(isa, epilogue),
            arguments=isa.arguments(["a", "b", *epilogue.arguments]),
            depth=lambda: "\n".join(depth),
            bias=epilogue.bias,
            residual=epilogue.residual,
            slope=epilogue.slope,
            activation=activation.name if activation else "",
            load_part=loaded.spell,
            store_part=stored.spell,
        )
        return Microkernel(self.name(isa, epilogue), text, tuple(needs))

    def _depth(self, isa: Dialect) -> Iterator[str]:
        """The loop over the contiguous run of the depth."""
        return self._depth_by_lane(isa) if isa.lane_fma else self._depth_by_broadcast(isa)

    def _pixel(self, row: int) -> str:
        return advanced("p", (row, "kPixelStep"))

    def _load_b(self, isa: Dialect) -> Iterator[str]:
        for v in range(self.vectors):
            yield f"const {isa.vector} b{v} = {isa.load(advanced('b', v * isa.lanes))};"
        if self.ahead:  # a vector is at most a cache line
            line = 64 // isa.bytes
            for offset in range(0, self.vectors * isa.lanes, line):
                yield f"{isa.op('prefetch', advanced('b + kAhead', offset))};"
        yield f"b += {self.vectors * isa.lanes};"

    def _depth_by_broadcast(self, isa: Dialect) -> Iterator[str]:
        yield "for (int k = 0; k < kRun; ++k) {"
        yield from self._load_b(isa)
        for r in range(self.rows):
            yield f"const {isa.vector} a{r} = {isa.broadcast(self._pixel(r), 'k')};"
            for v in range(self.vectors):
                yield f"acc{r}_{v} = {isa.fma(f'a{r}', f'b{v}', f'acc{r}_{v}')};"
        yield "}"

    def _depth_by_lane(self, isa: Dialect) -> Iterator[str]:
        end = f"kRun - {self.tail}" if self.tail else "kRun"
        yield f"for (int k = 0; k < {end}; k += {isa.lanes}) {{"
        for r in range(self.rows):
            yield f"const {isa.vector} a{r} = {isa.load(f'{self._pixel(r)} + k')};"
        for lane in range(isa.lanes):
            yield "{"
            yield isa.hold
            yield from self._load_b(isa)
            for v in range(self.vectors):
                for r in range(self.rows):
                    yield f"acc{r}_{v} = {isa.fma_lane(f'acc{r}_{v}', f'b{v}', f'a{r}', lane)};"
            yield "}"
        yield "}"
        for step in range(self.tail):
            yield "{"
            yield isa.hold
            yield from self._load_b(isa)
            for r in range(self.rows):
                last = isa.broadcast(self._pixel(r), f"kRun - {self.tail - step}")
                yield f"const {isa.vector} a{r} = {last};"
                for v in range(self.vectors):
                    yield f"acc{r}_{v} = {isa.fma(f'a{r}', f'b{v}', f'acc{r}_{v}')};"
            yield "}"
