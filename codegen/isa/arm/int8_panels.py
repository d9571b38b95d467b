"""Products of 8-bit integers on panels in AArch64 assembly (sdot).

A panel holds 4 or 8 pixels as [depth / 4][pixel][4]: beside weights as [depth / 4][channel][4] both
sides are streams, of which one instruction loads four registers. 8 pixels by 12 channels take 101
instructions for 96 dot products; read where they lie, 6 pixels by 16 channels take 112.
"""

from __future__ import annotations

from collections.abc import Iterator

from mdlc.codegen.code import C_TYPES, Microkernel, advanced
from mdlc.codegen.isa.arm import int8_gather as aarch64_byte_gather
from mdlc.codegen.isa.assembly import repeat
from mdlc.codegen.isa.int8_panels import BytePanels
from mdlc.compiler.types import DType
from mdlc.compiler.words import counted

_LEFT, _RIGHT = 0, 4  # first of the four registers of pixels, and of weights


class DotPanels(BytePanels):
    """See BytePanels."""

    rows = 8

    def fits(self, rows: int, vectors: int) -> bool:
        """See BytePanels."""
        return rows <= self.rows and rows * vectors <= 24

    def instructions(self, rows: int, vectors: int) -> float:
        """See BytePanels."""
        return self.products(rows, vectors) + (2 if rows > 4 else 1) + vectors

    def products(self, rows: int, vectors: int) -> float:
        """See BytePanels."""
        return 4 * rows * vectors

    def copy_instructions(self, rows: int) -> float:
        """See BytePanels."""
        return rows + (10 if rows > 4 else 1) + 3

    def code(self, rows: int, vectors: int, depth: int, fields: int) -> str:
        """See BytePanels."""
        trips, rest = divmod(depth // 4, 4)
        body = ["mov x9, %[a]"]
        for v in range(vectors):
            body.append(f"ldr %q[acc0_{v}], [%[scale], #{16 * v * fields}]")
        for v in range(vectors):
            body += [f"mov %[acc{r}_{v}].16b, %[acc0_{v}].16b" for r in range(1, rows)]
        together = _trips_together(trips)
        if trips > together:
            body += ["ldr x17, [%[n]]", "1:"]
        if trips:
            chunk = repeat([list(_groups(rows, vectors, 4))] * together)
            body += ["subs x17, x17, #1", *chunk, "b.ne 1b"] if trips > together else chunk
        body += _groups(rows, vectors, rest)
        names = [f"acc{r}_{v}" for r in range(rows) for v in range(vectors)]
        outputs = ", ".join(f'[{name}] "=&w"({name})' for name in names)
        text = "\n".join(f'"{line}\\n"' for line in body)
        clobbers = ", ".join(f'"v{i}"' for i in range(_RIGHT + 4))
        return (
            f"static constexpr std::int64_t kNumbers[] = {{kDepth / {16 * together}}};\n"
            f"int32x4_t {', '.join(names)};\n"
            f'asm volatile({text}\n: [b] "+r"(b), {outputs}\n'
            f': [a] "r"(a), [scale] "r"(scale), [n] "r"(kNumbers)\n'
            f': "x9", "x17", "cc", {clobbers}, "memory");\n'
        )

    def tag(self, depth: int) -> str:
        """See BytePanels."""
        trips, rest = divmod(depth // 4, 4)
        names = ("", "odd", "even", "threes", "fours")
        many = trips if trips <= 4 else names[_trips_together(trips)]
        return f"_{many}_rest{rest}" if rest else f"_{many}"

    def copy(self, rows: int, run: int, taps: int, source: DType, flip: bool) -> Microkernel:
        """See BytePanels."""
        rest = run % 16 // 4
        kind = ("", "_conv", "_conv2d")[taps]
        name = f"pack{kind}_{source.value}{'_flip' if flip else ''}_{rows}"
        name += f"{f'_rest{rest}' if rest else ''}{('_short', '_once', '')[min(run // 16, 2)]}_neon"
        parameters = ["kRun", *(["kPixelStep"] if rows > 1 else [])]
        parameters += [[], ["kTaps", "kTapStep"],
                       ["kTapsY", "kTapStepY", "kTapsX", "kTapStepX"]][taps]  # fmt: skip
        body = ["int k = 0;"]
        whole = [*_copied(rows, 4, flip), *_stored(rows, 4)]
        if run >= 32:
            body += ["for (; k <= kRun - 16; k += 16) {", *whole, "}"]
        elif run >= 16:
            body += ["{", *whole, "}", "k = 16;"]
        if rest:
            body += ["{", *_copied(rows, rest, flip), *_stored(rows, rest), "}"]
        loops = [
            [],
            ["for (int tap = 0; tap < kTaps; ++tap) {",
             f"const {C_TYPES[source]}* p = x + tap * kTapStep;"],
            ["for (int tap_y = 0; tap_y < kTapsY; ++tap_y) {",
             "for (int tap_x = 0; tap_x < kTapsX; ++tap_x) {",
             f"const {C_TYPES[source]}* p = x + tap_y * kTapStepY + tap_x * kTapStepX;"],
        ][taps]  # fmt: skip
        first = [] if taps else [f"const {C_TYPES[source]}* p = x;"]
        lines = [*loops, *first, *body, *["}"] * taps]
        text = (
            f"// {counted(rows, 'pixel')} as [depth / 4][{4 * -(-rows // 4)}][4]"
            f"{', every byte ^ 0x80' if flip else ''}; what lies behind a run is read, not used.\n"
            f"template <{', '.join(f'int {p}' for p in parameters)}>\n"
            f"inline void {name}(const {C_TYPES[source]}* x, std::int8_t* to) {{\n"
            + "\n".join(lines)
            + "\n}\n"
        )
        return Microkernel(name, text)

    def gathers(self, run: int, taps: int, pixel: int) -> bool:
        """See BytePanels."""
        return aarch64_byte_gather.gathers(run, taps, pixel)

    def gathered(self, run: int, taps: int) -> list[int]:
        """See BytePanels."""
        return aarch64_byte_gather.gathered(run, taps)

    def gather(
        self, rows: int, run: int, taps: int, pixel: int, source: DType, flip: bool
    ) -> Microkernel:
        """See BytePanels."""
        return aarch64_byte_gather.gather(rows, run, taps, pixel, source, flip=flip)

    def copy_parameters(self, rows: int, taps: int) -> list[str]:
        """See BytePanels."""
        names = ["kRun", *(["kPixelStep"] if rows > 1 else [])]
        return names + [[], ["kTaps", "kTapStep"],
                        ["kTapsY", "kTapStepY", "kTapsX", "kTapStepX"]][taps]  # fmt: skip


def _trips_together(trips: int) -> int:
    """Trips of 16 that stand in the loop's body, one behind the other."""
    return next(count for count in (4, 3, 2, 1) if trips % count == 0)


def _groups(rows: int, vectors: int, count: int) -> Iterator[str]:
    """`count` groups of four elements of the depth, at most four."""
    held = 2 if rows > 4 else 4  # groups of the pixels in four registers
    total = count * vectors
    for group in range(count):
        if group % held == 0:
            yield f"ld1 {{v{_LEFT}.16b-v{_LEFT + 3}.16b}}, [x9], #64"
        for v in range(vectors):
            index = group * vectors + v
            if index % 4 == 0:
                last = _RIGHT + min(4, total - index) - 1
                first = f"v{_RIGHT}.16b"
                listed = first if last == _RIGHT else f"{first}-v{last}.16b"
                yield f"ld1 {{{listed}}}, [%[b]], #{16 * (last - _RIGHT + 1)}"
            for r in range(rows):
                a = _LEFT + group % held * (2 if rows > 4 else 1) + r // 4
                yield f"sdot %[acc{r}_{v}].4s, v{_RIGHT + index % 4}.16b, v{a}.4b[{r % 4}]"


def _copied(rows: int, groups: int, flip: bool) -> Iterator[str]:
    """16 bytes of each pixel; in the place of pixels that are not there, the last one again."""
    pitch = 4 * -(-rows // 4)
    for r in range(rows):
        where = advanced("p + k", (r, "kPixelStep"))
        value = f"vld1q_u8(reinterpret_cast<const std::uint8_t*>({where}))"
        value = f"veorq_u8({value}, vdupq_n_u8(128))" if flip else value
        yield f"const uint32x4_t x{r} = vreinterpretq_u32_u8({value});"
    names = [f"x{min(r, rows - 1)}" for r in range(pitch)]
    if pitch == 4:
        yield f"const uint32x4x4_t whole = {{{{{', '.join(names)}}}}};"
        return
    halves = (("low", "vzip1q_u32"), ("high", "vzip2q_u32"))
    for half, zip_ in halves[: -(-groups // 2)]:
        pairs = [f"vreinterpretq_u64_u32({zip_}({names[r]}, {names[r + 1]}))" for r in (0, 2, 4, 6)]
        yield f"const uint64x2x4_t {half} = {{{{{', '.join(pairs)}}}}};"


def _stored(rows: int, groups: int) -> Iterator[str]:
    """The first groups of what was copied, and no byte more."""
    if rows <= 4:
        to = "reinterpret_cast<std::uint32_t*>(to)"
        if groups == 4:
            yield f"vst4q_u32({to}, whole);"
        else:
            for g in range(groups):
                yield f"vst4q_lane_u32({advanced(to, 4 * g)}, whole, {g});"
        yield f"to += {16 * groups};"
        return
    to = "reinterpret_cast<std::uint64_t*>(to)"
    for half in range(0, groups, 2):
        name, where = ("low", to) if half == 0 else ("high", f"{to} + 8")
        if groups - half >= 2:
            yield f"vst4q_u64({where}, {name});"
        else:
            yield f"vst4q_lane_u64({where}, {name}, 0);"
    yield f"to += {32 * groups};"
