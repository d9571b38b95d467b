"""The register tile of products of 8-bit integers, spelled by any ISA that has dot products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mdlc.codegen.code import C_TYPES, Microkernel, advanced
from mdlc.codegen.isa.base import KernelIsa, int8_of
from mdlc.codegen.isa.int8 import Int8
from mdlc.codegen.isa.int8_panels import BytePanels
from mdlc.codegen.isa.int8_result import OutputStage
from mdlc.codegen.templates import render
from mdlc.codegen.tiles.gemm_panels import panel_pitch

TAPS = [[], ["kTaps", "kTapStep"], ["kTapsY", "kTapStepY", "kTapsX", "kTapStepX"]]


@dataclass(frozen=True)
class DotTile:
    """`rows` pixels times `vectors` vectors of channels, one accumulator each.

    Attributes:
        part: channels used of the last vector; 0: all.
        taps: loops over filter taps around the contiguous run (0, 1 or 2).
        run: length of the run, whose rest after whole chunks is unrolled.
    """

    rows: int
    vectors: int
    part: int
    taps: int
    run: int
    stage: OutputStage

    def name(self, isa: KernelIsa) -> str:
        """Such as qconv_i8i8_6x64_avx512vnni."""
        kind = ("qgemm", "qconv", "qconv2d")[self.taps]
        channels = self.vectors * isa.lanes - (isa.lanes - self.part if self.part else 0)
        tail = short = ""
        if loop := int8_of(isa).depth_loop:  # its text depends on the depth
            tail = f"_tail{self.run % 16}" if self.run % 16 else ""
            short = loop.tag(self.run)
        return f"{kind}{self.stage.suffix}_{self.rows}x{channels}{tail}{short}_{isa.suffix}"

    def parameters(self) -> list[str]:
        """Names of the compile-time integers, in order."""
        names = ["kRun"] if self.run else []
        names += ["kPixelStep", "kOutStep"] if self.rows > 1 else []
        names += ["kOtherStep"] if self.rows > 1 and self.stage.addition else []
        return names + TAPS[self.taps] + list(self.stage.parameters)

    def microkernel(self, isa: KernelIsa) -> Microkernel:
        """The C++ of the tile."""
        int8 = int8_of(isa)
        stage = self.stage
        taps = ["k", "tap][k", "tap_y][tap_x][k"][self.taps]
        fields = int8.used_fields(stage)
        ends, needs = finish_tile(self.rows, self.vectors, self.part, stage, isa)
        element = int8.element if int8.copies(stage.source) else stage.source
        assert element is not None
        text = render(
            "cpp/kernels/dot_tile.j2",
            b_layout=self._layout(int8),
            formula=f"y[p][n] = {stage.formula(f'bias[n] + sum(a[p][{taps}] * b[{taps}][n])')}",
            tile=self,
            name=self.name(isa),
            params=self.parameters(),
            int8=int8,
            fields=fields,
            lanes=isa.lanes,
            element=C_TYPES[element],
            result=C_TYPES[stage.output],
            other=C_TYPES[stage.addition.kind] if stage.addition else "",
            assembly=self._assembly(isa),
            depth=lambda: "\n".join(self._depth(isa)),
            ends="\n".join(ends),
        )
        return Microkernel(self.name(isa), text, (*int8.helpers, *needs))

    def _layout(self, int8: Int8) -> str:
        groups = sorted(set(int8.split(self.run)), reverse=True)
        return " and ".join(f"[depth / {g}][channel][{g}]" for g in groups)

    def _assembly(self, isa: KernelIsa) -> str:
        """The whole depth in assembly, or nothing."""
        int8 = int8_of(isa)
        if int8.depth_loop is None:
            return ""
        fields = len(int8.used_fields(self.stage))
        return int8.depth_loop.code(
            self.rows,
            self.vectors,
            self.run,
            self.taps,
            fields,
            self.stage,
            int8.flips(self.stage.source) and not int8.copies(self.stage.source),
        )

    def _depth(self, isa: KernelIsa) -> Iterator[str]:
        """The loop over the run; a row's activations are used up before the next one's come."""
        int8 = int8_of(isa)
        size = isa.lanes * int8.group
        step = "++k" if int8.group == 1 else f"k += {int8.group}"
        yield f"for (int k = 0; k < kRun; {step}) {{"
        for v in range(self.vectors):
            where = advanced("b", v * size)
            yield f"const auto w{v} = {int8.load_w.format(where)};"
        yield f"b += {self.vectors * size};"
        for r in range(self.rows):
            where = advanced("p + k", (r, "kPixelStep"))
            value = int8.broadcast.format(where)
            if int8.flips(self.stage.source):
                value = int8.flip.format(value)
            yield f"const auto a{r} = {value};"
            for v in range(self.vectors):
                acc = f"acc{r}_{v}"
                yield f"{acc} = {int8.dot.format(acc, f'w{v}', f'a{r}')};"
        yield "}"


@dataclass(frozen=True)
class PanelDotTile:
    """The same on a panel (see integers.BytePanels).

    Attributes:
        rows, vectors, part: as of DotTile.
        depth: length of the sums.
    """

    rows: int
    vectors: int
    part: int
    depth: int
    stage: OutputStage

    def name(self, isa: KernelIsa) -> str:
        """Such as qpanels_i8i8_8x12_even_neon."""
        channels = self.vectors * isa.lanes - (isa.lanes - self.part if self.part else 0)
        tag = _panels(isa).tag(self.depth)
        return f"qpanels{self.stage.suffix}_{self.rows}x{channels}{tag}_{isa.suffix}"

    def parameters(self) -> list[str]:
        """Names of the compile-time integers, in order."""
        names = ["kDepth"] + (["kOutStep"] if self.rows > 1 else [])
        names += ["kOtherStep"] if self.rows > 1 and self.stage.addition else []
        return names + list(self.stage.parameters)

    def microkernel(self, isa: KernelIsa) -> Microkernel:
        """The C++ of the tile."""
        int8, stage = int8_of(isa), self.stage
        fields = int8.used_fields(stage)
        ends, needs = finish_tile(self.rows, self.vectors, self.part, stage, isa)
        assert int8.element is not None
        formula = stage.formula("bias[n] + sum(a[k][p] * b[k][n])")
        pixels = panel_pitch(self.rows)
        text = render(
            "cpp/kernels/dot_tile.j2",
            b_layout=f"[depth / 4][channel][4]; a: [depth / 4][{pixels} pixels][4]",
            formula=f"y[p][n] = {formula}",
            tile=self,
            name=self.name(isa),
            params=self.parameters(),
            fields=fields,
            lanes=isa.lanes,
            element=C_TYPES[int8.element],
            result=C_TYPES[stage.output],
            other=C_TYPES[stage.addition.kind] if stage.addition else "",
            assembly=_panels(isa).code(self.rows, self.vectors, self.depth, len(fields)),
            ends="\n".join(ends),
        )
        return Microkernel(self.name(isa), text, (*int8.helpers, *needs))


def _panels(isa: KernelIsa) -> BytePanels:
    loop = int8_of(isa).depth_loop
    assert loop is not None
    assert loop.panels is not None
    return loop.panels


def finish_tile(
    rows: int, vectors: int, part: int, stage: OutputStage, isa: KernelIsa
) -> tuple[list[str], list[Microkernel]]:
    """Statements that rescale and store accR_V, and the functions that they call.

    They read the per-channel vectors at `scale` and write to `y`, kOutStep from row to row; what
    is added is at `other`, kOtherStep from row to row.
    """
    int8 = int8_of(isa)
    lanes, fields = isa.lanes, int8.used_fields(stage)
    lines: list[str] = []
    needs: list[Microkernel] = []

    def target(r: int) -> str:
        return advanced("y", (r, "kOutStep"))

    if stage.int32_output:
        for r in range(rows):
            for v in range(vectors):
                where = advanced(target(r), v * lanes)
                value = f"acc{r}_{v}"
                if part and v == vectors - 1:
                    spelled, helper = _store_part(isa, part)
                    needs += [helper] if helper else []
                    lines.append(f"{spelled.format(where, value, part)};")
                else:
                    lines.append(f"{int8.store.format(where, value)};")
        return lines, needs
    rescale = int8.rescaler(stage)
    needs.append(rescale)
    for v in range(vectors):
        for index, name in enumerate(fields[1:], 1):
            offset = (v * len(fields) + index) * lanes
            lines.append(f"const auto {name}{v} = {int8.load.format(f'scale + {offset}')};")
        names = ", ".join(f"{name}{v}" for name in fields[1:])
        for r in range(rows):
            lines.append(f"acc{r}_{v} = {rescale.name}(acc{r}_{v}, {names});")
    for r in range(rows):
        values = [f"acc{r}_{v}" for v in range(vectors)]
        if stage.addition:
            other = advanced("other", (r, "kOtherStep"))
            stored, helpers = int8.store_sums(values, other, target(r), stage, part)
            stored = ["{", *stored, "}"]
        else:
            stored, helpers = int8.store_bytes(values, target(r), stage, part)
        lines += stored
        needs += helpers
    return lines, list(dict.fromkeys(needs))


def _store_part(isa: KernelIsa, part: int) -> tuple[str, Microkernel | None]:
    int8 = int8_of(isa)
    if "store_part" in int8.spell:
        return int8.spell["store_part"], None
    name = f"store_part_i32_{isa.suffix}"
    text = f"""\
// Writes the first kCount lanes of v to p.
template <int kCount>
inline void {name}(std::int32_t* p, {int8.vector} v) {{
  std::int32_t lanes[{isa.lanes}];
  {int8.store.format("lanes", "v")};
  std::memcpy(p, lanes, kCount * sizeof(std::int32_t));
}}
"""
    return f"{name}<{{2}}>({{0}}, {{1}})", Microkernel(name, text, includes=("cstring",))
