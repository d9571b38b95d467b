"""The depth of a product of 8-bit integers in AArch64 assembly: sdot, smmla, or smull and sadalp.

As in codegen/isa/arm/panels.py: written out, because compilers spill when a tile takes all
registers. A statement sets accR_V (int32x4_t) from scale (the biases), a (activations of the
first pixel; the others are kPixelStep apart) and b (weights). What it needs of numbers is in an
array, as an asm statement takes no more than 30 operands.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from mdlc.codegen.code import advanced
from mdlc.codegen.isa.arm.int8_panels import DotPanels
from mdlc.codegen.isa.assembly import repeat
from mdlc.codegen.isa.int8 import DepthLoop
from mdlc.codegen.isa.int8_result import OutputStage

MAX_ROWS = 8  # their pointers are in x9 to x16


class AArch64Loop(DepthLoop):
    """What the three have in common: pointers to rows, loops over taps and 16 bytes of depth.

    Attributes:
        whole: elements of the depth in one trip; rest: the unit of what is left.
        unrolls: how many trips may be written out at a time, the best first.
    """

    unit = 4
    unrolls: tuple[int, ...] = (1,)

    def _unroll(self, trips: int) -> int:
        return next(u for u in self.unrolls if trips % u == 0)

    def tag(self, run: int) -> str:
        """See DepthLoop."""
        trips = run // 16
        unroll = self._unroll(trips)
        if trips < 2 or unroll == 1:
            return super().tag(run)
        return f"_by{16 * unroll}" if trips > unroll else f"_run{16 * trips}"

    def code(
        self,
        rows: int,
        vectors: int,
        run: int,
        taps: int,
        fields: int,
        stage: OutputStage,
        flip: bool,
    ) -> str:
        """See DepthLoop. The last load of a run may read past it."""
        trips, rest = divmod(run, 16)
        body = [*self._start(rows, vectors, fields), *_pointers(rows)]
        if flip:
            body.append(f"movi v{self._sign(rows, vectors)}.16b, #128")
        if taps == 2:
            body += ["ldr x7, [%[n], #32]", "3:"]
        if taps:
            body += ["ldr x8, [%[n], #16]", "2:"]
        unroll = self._unroll(trips)
        if trips > unroll:
            body += ["ldr x17, [%[n], #8]", "1:"]
        if trips:
            chunk = repeat([list(self._chunk(rows, vectors, 16, stage, flip))] * unroll)
            body += ["subs x17, x17, #1", *chunk, "b.ne 1b"] if trips > unroll else chunk
        if rest:
            body += self._chunk(rows, vectors, rest, stage, flip)
        if taps:
            body += ["ldr x17, [%[n], #24]", *_advance(rows), "subs x8, x8, #1", "b.ne 2b"]
        if taps == 2:
            body += ["ldr x17, [%[n], #40]", *_advance(rows), "subs x7, x7, #1", "b.ne 3b"]
        body += self._end(rows, vectors)
        read = "(kRun + 15) / 16 * 16"
        numbers = ["kPixelStep" if rows > 1 else "0", f"kRun / {16 * unroll}"]
        numbers += [[], ["kTaps", f"kTapStep - {read}"],
                    ["kTapsX", f"kTapStepX - {read}", "kTapsY",
                     "kTapStepY - kTapsX * kTapStepX"]][taps]  # fmt: skip
        clobbers = [f'"x{9 + r}"' for r in range(rows)]
        clobbers += ['"x17"', '"cc"'] + (['"x8"'] if taps else [])
        clobbers += ['"x7"'] if taps == 2 else []
        used = self._registers(rows, vectors)
        used += [self._sign(rows, vectors)] if flip else []
        clobbers += [f'"v{i}"' for i in sorted(set(used))]
        names = self._results(rows, vectors)
        outputs = ", ".join(f'[{name}] "=&w"({name})' for name in names)
        text = "\n".join(f'"{line}\\n"' for line in body)
        after = "\n".join(self._after(rows, vectors, fields))
        return (
            f"static constexpr std::int64_t kNumbers[] = {{{', '.join(numbers)}}};\n"
            f"int32x4_t {', '.join(names)};\n"
            f'asm volatile({text}\n: [b] "+r"(b), {outputs}\n'
            f': [a] "r"(a), [scale] "r"(scale), [n] "r"(kNumbers)\n'
            f': {", ".join(clobbers)}, "memory");\n{after}'
        )

    @abstractmethod
    def _results(self, rows: int, vectors: int) -> list[str]:
        """Names of the vectors that the assembly leaves."""

    @abstractmethod
    def _registers(self, rows: int, vectors: int) -> list[int]:
        """Numbers of the registers that the assembly uses beside its results."""

    @abstractmethod
    def _chunk(
        self, rows: int, vectors: int, elements: int, stage: OutputStage, flip: bool
    ) -> Iterator[str]:
        """One load of each row, and what is made of `elements` of it."""

    def _sign(self, rows: int, vectors: int) -> int:
        """A free register, for 128 in every byte."""
        return max(self._registers(rows, vectors)) + 1

    def _loads(self, rows: int, vectors: int, flip: bool) -> Iterator[str]:
        for r in range(rows):
            yield f"ldr q{r}, [x{9 + r}], #16"
        for r in range(rows if flip else 0):
            yield f"eor v{r}.16b, v{r}.16b, v{self._sign(rows, vectors)}.16b"

    def _start(self, rows: int, vectors: int, fields: int) -> Iterator[str]:
        yield from ()

    def _end(self, rows: int, vectors: int) -> Iterator[str]:
        yield from ()

    def _after(self, rows: int, vectors: int, fields: int) -> Iterator[str]:
        yield from ()


def _pointers(rows: int) -> Iterator[str]:
    yield "mov x9, %[a]"
    if rows > 1:
        yield "ldr x17, [%[n]]"
    for r in range(1, rows):
        yield f"add x{9 + r}, x{8 + r}, x17"


def _advance(rows: int) -> Iterator[str]:
    for r in range(rows):
        yield f"add x{9 + r}, x{9 + r}, x17"


class Weights:
    """Loads weights through a ring of registers, a pair at a time, ahead where there is room."""

    def __init__(self, first: int, count: int, total: int) -> None:
        self._first, self._count, self._total, self._loaded = first, count, total, 0

    def _load(self) -> Iterator[str]:
        place = self._loaded % self._count
        slot = self._first + place
        if self._loaded + 1 < self._total and place + 1 < self._count:
            yield f"ldp q{slot}, q{slot + 1}, [%[b]], #32"
            self._loaded += 2
        else:
            yield f"ldr q{slot}, [%[b]], #16"
            self._loaded += 1

    def take(self, index: int) -> Iterator[str]:
        """The loads before vector `index` of them is used."""
        if self._loaded <= index:
            yield from self._load()
        room = self._loaded + 2 - index <= self._count
        if self._loaded < self._total and room and self._loaded <= index + 1:
            yield from self._load()

    def register(self, index: int) -> int:
        """Where vector `index` is."""
        return self._first + index % self._count


class DotLoop(AArch64Loop):
    """sdot: four channels by four elements of the depth; weights are [depth / 4][channel][4]."""

    unrolls = (4, 2, 1)
    panels = DotPanels()

    def fits(self, rows: int, vectors: int) -> bool:
        return rows <= MAX_ROWS and rows * vectors + rows + 2 <= 32 and rows * vectors <= 24

    def instructions(self, rows: int, vectors: int) -> float:
        return self.products(rows, vectors) + rows + 2 * vectors

    def products(self, rows: int, vectors: int) -> float:
        return 4 * rows * vectors

    def split(self, run: int) -> list[int]:
        return [4] * (run // 4)

    def _results(self, rows: int, vectors: int) -> list[str]:
        return [f"acc{r}_{v}" for r in range(rows) for v in range(vectors)]

    @staticmethod
    def _weights(rows: int, vectors: int) -> int:
        return min(32 - rows * vectors - rows, 2 * vectors, 8)

    def _registers(self, rows: int, vectors: int) -> list[int]:
        return list(range(rows + self._weights(rows, vectors)))

    def _sign(self, rows: int, vectors: int) -> int:
        return rows + self._weights(rows, vectors) - 1

    def _start(self, rows: int, vectors: int, fields: int) -> Iterator[str]:
        for v in range(vectors):
            yield f"ldr %q[acc0_{v}], [%[scale], #{16 * v * fields}]"
        for v in range(vectors):
            for r in range(1, rows):
                yield f"mov %[acc{r}_{v}].16b, %[acc0_{v}].16b"

    def _chunk(
        self, rows: int, vectors: int, elements: int, stage: OutputStage, flip: bool
    ) -> Iterator[str]:
        yield from self._loads(rows, vectors, flip)
        total = elements // 4 * vectors
        weights = Weights(rows, self._weights(rows, vectors) - flip, total)
        for index in range(total):
            yield from weights.take(index)
            group, v = divmod(index, vectors)
            for r in range(rows):
                w = weights.register(index)
                yield f"sdot %[acc{r}_{v}].4s, v{w}.16b, v{r}.4b[{group}]"


class MatrixLoop(AArch64Loop):
    """smmla: two pixels by two channels by eight elements; weights are [depth / 8][channel][8]."""

    unit = 8

    def fits(self, rows: int, vectors: int) -> bool:
        pairs = -(-rows // 2)
        return (
            rows <= MAX_ROWS and 2 * pairs * vectors + 2 * pairs + 3 <= 32 and pairs * vectors <= 12
        )

    def instructions(self, rows: int, vectors: int) -> float:
        return self.products(rows, vectors) + rows + 2 * -(-rows // 2) + 2 * vectors

    def products(self, rows: int, vectors: int) -> float:
        return 4 * -(-rows // 2) * vectors

    def split(self, run: int) -> list[int]:
        return [8] * (run // 8)

    def _results(self, rows: int, vectors: int) -> list[str]:
        return [f"m{p}_{c}" for p in range(-(-rows // 2)) for c in range(2 * vectors)]

    @staticmethod
    def _weights(rows: int, vectors: int) -> int:
        pairs = -(-rows // 2)
        return min(32 - 2 * pairs * vectors - 2 * pairs, 4 * vectors, 8)

    def _registers(self, rows: int, vectors: int) -> list[int]:
        return list(range(2 * -(-rows // 2) + self._weights(rows, vectors)))

    def _sign(self, rows: int, vectors: int) -> int:
        return 2 * -(-rows // 2) + self._weights(rows, vectors) - 1

    def _start(self, rows: int, vectors: int, fields: int) -> Iterator[str]:
        for name in self._results(rows, vectors):
            yield f"movi %[{name}].4s, #0"

    def _chunk(
        self, rows: int, vectors: int, elements: int, stage: OutputStage, flip: bool
    ) -> Iterator[str]:
        pairs, first = -(-rows // 2), 2 * -(-rows // 2)
        count = self._weights(rows, vectors) - flip
        for p in range(pairs):
            a, b = 2 * p, first + p % 2  # the other row passes through a register of weights
            odd = 2 * p + 1 == rows
            used = [a] if odd else [a, b]
            for index, register in enumerate(used):
                yield f"ldr q{register}, [x{9 + 2 * p + index}], #16"
            for register in used if flip else []:
                sign = self._sign(rows, vectors)
                yield f"eor v{register}.16b, v{register}.16b, v{sign}.16b"
            b = a if odd else b
            if elements == 16:
                yield f"zip2 v{a + 1}.2d, v{a}.2d, v{b}.2d"
            yield f"zip1 v{a}.2d, v{a}.2d, v{b}.2d"
        total = elements // 8 * 2 * vectors
        weights = Weights(first, count, total)
        for index in range(total):
            yield from weights.take(index)
            half, c = divmod(index, 2 * vectors)
            for p in range(pairs):
                w = weights.register(index)
                yield f"smmla %[m{p}_{c}].4s, v{2 * p + half}.16b, v{w}.16b"

    def _after(self, rows: int, vectors: int, fields: int) -> Iterator[str]:
        for v in range(vectors):
            yield f"const int32x4_t bias{v} = vld1q_s32({advanced('scale', 4 * v * fields)});"
            for r in range(rows):
                halves = ", ".join(
                    f"vreinterpretq_s64_s32(m{r // 2}_{c})" for c in (2 * v, 2 * v + 1)
                )
                joined = f"vreinterpretq_s32_s64(vzip{1 + r % 2}q_s64({halves}))"
                yield f"int32x4_t acc{r}_{v} = vaddq_s32({joined}, bias{v});"


class MultiplyLoop(AArch64Loop):
    """Plain NEON: a lane sums elements of the depth of one channel, lanes are added in the end.

    Two products of 8 bits are added in 16, which is exact unless a weight is -128 (then each is
    widened by itself): 2 * 128 * 127 < 2^15. Weights are [depth / 16][channel][16], then 8.
    """

    unit = 8

    def fits(self, rows: int, vectors: int) -> bool:
        return rows <= MAX_ROWS and 5 * rows * vectors + rows + 4 + 2 <= 32

    def instructions(self, rows: int, vectors: int) -> float:
        return self.products(rows, vectors) + rows + vectors

    def products(self, rows: int, vectors: int) -> float:
        return 12 * rows * vectors

    def split(self, run: int) -> list[int]:
        return [16] * (run // 16) + [8] * (run % 16 // 8)

    def _results(self, rows: int, vectors: int) -> list[str]:
        return [f"acc{r}_{v}" for r in range(rows) for v in range(vectors)]

    @staticmethod
    def _sum(rows: int, vectors: int, r: int, channel: int) -> int:
        return 31 - (channel * rows + r)

    def _registers(self, rows: int, vectors: int) -> list[int]:
        # The results may not be among them, so that they are left to the compiler's choice.
        return list(range(rows + 4 + self._temporaries(rows, vectors))) + [
            self._sum(rows, vectors, r, c) for r in range(rows) for c in range(4 * vectors)
        ]

    @staticmethod
    def _temporaries(rows: int, vectors: int) -> int:
        """Registers of products: what is left beside sums, operands, results and 128s."""
        return min(4, max(2, 32 - 5 * rows * vectors - rows - 5))

    def _sign(self, rows: int, vectors: int) -> int:
        return rows + 4 + self._temporaries(rows, vectors) - 1

    def _start(self, rows: int, vectors: int, fields: int) -> Iterator[str]:
        for r in range(rows):
            for c in range(4 * vectors):
                yield f"movi v{self._sum(rows, vectors, r, c)}.4s, #0"

    def _chunk(
        self, rows: int, vectors: int, elements: int, stage: OutputStage, flip: bool
    ) -> Iterator[str]:
        yield from self._loads(rows, vectors, flip)
        size = elements if elements == 16 else 8
        temporaries = self._temporaries(rows, vectors) - flip
        first = rows + 4
        for v in range(vectors):
            listed = ", ".join(f"v{rows + i}.{size}b" for i in range(4))
            yield f"ld1 {{{listed}}}, [%[b]], #{4 * size}"
            work = [(r, c) for c in range(4) for r in range(rows)]
            for start in range(0, len(work), temporaries):
                batch = list(enumerate(work[start : start + temporaries], first))
                sums = {t: self._sum(rows, vectors, r, 4 * v + c) for t, (r, c) in batch}
                for t, (r, c) in batch:
                    yield f"smull v{t}.8h, v{r}.8b, v{rows + c}.8b"
                if size == 16 and stage.has_min_weight:
                    yield from (f"sadalp v{s}.4s, v{t}.8h" for t, s in sums.items())
                for t, (r, c) in batch if size == 16 else []:
                    name = "smull2" if stage.has_min_weight else "smlal2"
                    yield f"{name} v{t}.8h, v{r}.16b, v{rows + c}.16b"
                yield from (f"sadalp v{s}.4s, v{t}.8h" for t, s in sums.items())

    def _end(self, rows: int, vectors: int) -> Iterator[str]:
        for r in range(rows):
            for v in range(vectors):
                s = [self._sum(rows, vectors, r, 4 * v + i) for i in range(4)]
                yield f"addp v{s[0]}.4s, v{s[0]}.4s, v{s[1]}.4s"
                yield f"addp v{s[2]}.4s, v{s[2]}.4s, v{s[3]}.4s"
                yield f"addp %[acc{r}_{v}].4s, v{s[0]}.4s, v{s[2]}.4s"

    def _after(self, rows: int, vectors: int, fields: int) -> Iterator[str]:
        for v in range(vectors):
            yield f"const int32x4_t bias{v} = vld1q_s32({advanced('scale', 4 * v * fields)});"
            for r in range(rows):
                yield f"acc{r}_{v} = vaddq_s32(acc{r}_{v}, bias{v});"
