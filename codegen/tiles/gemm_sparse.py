"""The register tile of sparse products: only blocks of weights that are not zero are multiplied.

A block is what one input adds to `vectors` vectors of output channels. Blocks are packed one
behind the other with the number of the input that each reads; the accumulators stay in registers
while the blocks of their channels pass by (Elsen et al., "Fast Sparse ConvNets", arXiv
1911.09723, with output channels instead of pixels in the lanes).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mdlc.codegen.code import Microkernel, advanced, times
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.templates import render
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.partial_vector import load_part, store_part

# Pixels of a panel's column: what one vector load brings for multiplications by lane.
GROUP = 4


@dataclass(frozen=True)
class SparseTile:
    """A register tile.

    Attributes:
        rows: pixels; vectors: of output channels; part: channels used of the last (0: all).
        panels: whether pixels lie in panels [rows / GROUP][depth][GROUP], else where they are.
    """

    rows: int
    vectors: int
    part: int
    panels: bool

    @property
    def groups(self) -> int:
        """Columns of the panels."""
        return -(-self.rows // GROUP)

    def channels(self, isa: Dialect) -> int:
        """Output channels that the tile writes."""
        return self.vectors * isa.lanes - (isa.lanes - self.part if self.part else 0)

    def name(self, isa: Dialect, epilogue: Epilogue) -> str:
        """Such as gemm_sparse_relu_f32_16x4_neon."""
        return f"gemm_sparse{epilogue.suffix}_f32_{self.rows}x{self.channels(isa)}_{isa.suffix}"

    def template_parameters(self, epilogue: Epilogue) -> list[str]:
        """Names of the compile-time integers, in order."""
        if self.rows == 1:
            return []
        names = [] if self.panels and self.groups == 1 else ["kPixelStep"]
        return [*names, "kOutStep", *(["kResidualStep"] if epilogue.residual else [])]

    def microkernel(self, isa: Dialect, epilogue: Epilogue) -> Microkernel:
        """The C++ of the tile."""
        activation = epilogue.function(isa)
        needs = [activation] if activation else []
        loaded, stored = load_part(isa, self.part), store_part(isa, self.part)
        if self.part:
            needs += [helper for helper in (stored.helper,) if helper]
            needs += [helper for helper in (loaded.helper,) if helper and epilogue.residual]
        needs += isa.needs("lane_fma") if self.panels else []
        needs += isa.needs("store_sum") if self.vectors > 1 or not self.part else []
        arguments = ["const float* a", "const float* b", "const std::uint16_t* k", "int count"]
        arguments += ["const float* bias"]
        arguments += ["const float* slope"] if epilogue.slope else []
        arguments += ["const float* residual"] if epilogue.residual else []
        layout = f"[p / {GROUP}][k][{GROUP} pixels]" if self.panels else "pixels kPixelStep apart"
        text = render(
            "cpp/kernels/sparse_tile.j2",
            formula=f"y[p][n] = {epilogue.formula('bias[n] + sum(a[p][k[i]] * b[i][n])')}",
            isa=isa,
            name=self.name(isa, epilogue),
            rows=self.rows,
            vectors=self.vectors,
            part=self.part,
            channels=self.channels(isa),
            a_layout=layout if self.rows > 1 or self.panels else "one pixel",
            params=self.template_parameters(epilogue),
            arguments=[*arguments, "float* y"],
            block="\n".join(self._block(isa)),
            bias=True,
            residual=epilogue.residual,
            slope=epilogue.slope,
            activation=activation.name if activation else "",
            load_part=loaded.spell,
            store_part=stored.spell,
        )
        return Microkernel(self.name(isa, epilogue), text, tuple(needs), ("cstdint",))

    def _block(self, isa: Dialect) -> Iterator[str]:
        """One block of weights times its input of every pixel."""
        for v in range(self.vectors):
            yield f"const {isa.vector} b{v} = {isa.load(advanced('b', v * isa.lanes))};"
        yield f"b += {self.vectors * isa.lanes};"
        if self.panels:
            yield f"const float* p = a + k[i] * {GROUP}U;"
            for g in range(self.groups):
                where = advanced("p", (g, "kPixelStep"))
                yield f"const {isa.vector} a{g} = {isa.load(where)};"
            for v in range(self.vectors):
                for r in range(self.rows):
                    source = f"acc{r}_{v}", f"b{v}", f"a{r // GROUP}", r % GROUP
                    yield f"acc{r}_{v} = {isa.fma_lane(*source)};"
            return
        yield "const float* p = a + k[i];"
        for r in range(self.rows):
            value = isa.set1(f"p[{times(r, 'kPixelStep')}]")
            yield f"const {isa.vector} a{r} = {value};"
            for v in range(self.vectors):
                yield f"acc{r}_{v} = {isa.fma(f'a{r}', f'b{v}', f'acc{r}_{v}')};"
