"""The depth of a product on panels in AArch64 assembly, and the rows of its tile in memory.

Compilers spill when one load fills several registers (ld1 of two to four), and the loads are what
separates a tile from one multiply-add after the other. The loop is therefore written out; the
activation is C++. The accumulators of a row lie in neighbouring registers, so that one instruction
stores them and goes on to the next row, by a step that need not be known when it is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mdlc.codegen.isa.assembly import repeat
from mdlc.codegen.isa.dialect import CHUNKS

_PIXELS = 4  # that lie together in a panel


@dataclass(frozen=True)
class Aarch64Panels:
    """Panels of elements of one size; see Dialect.panels.

    A chunk's left side are 8 bytes of each pixel, two registers for every four pixels. Its right
    side is loaded in turns of at most four registers.

    Attributes:
        letter: of an element in assembly, s or h; lanes: elements of a register.
        chunk, quad: see Panels. suffix: the ending of the intrinsics on chunks; literal: zero.
        by_product: whether sums start from their first products, no register being set before: for
            ISAs that add the bias last. One chunk stands before the loop then.
    """

    letter: str
    lanes: int
    chunk: str
    quad: str
    suffix: str
    literal: str
    by_product: bool = False

    def op(self, hook: str, *operands: object) -> str:
        """See Panels."""
        spelled = {
            "zero": f"vdup_n_{self.suffix}({self.literal})",
            "load": f"vld1_{self.suffix}({{0}})",
            "load_lane": f"vld1_lane_{self.suffix}({{0}}, {{1}}, {{2}})",
            "store_quad": f"vst4_{self.suffix}({{0}}, {{1}})",
        }
        return spelled[hook].format(*operands)

    @property
    def steps(self) -> int:
        """Steps of the depth in a chunk."""
        return self.lanes // 2

    def rest_of(self, chunks: int, rows: int, vectors: int) -> int:
        """Chunks that follow the loop; the loop makes (chunks - rest) // CHUNKS trips."""
        behind = chunks - self.by_product
        if behind and self._pipelined(rows, vectors):
            return (behind - 1) % CHUNKS + 1
        return behind % CHUNKS

    def step_loads(self, vectors: int) -> float:
        """Instructions that load a step of the depth."""
        return 1 / self.steps + 1 / self._turn(vectors)

    def loop(self, rows: int, vectors: int, rest: int, *, loop: bool, bias: bool) -> str:
        """The inline assembly of a tile; see Panels.loop.

        Args:
            rows: pixels, at most 8; vectors: of channels, at most 3.
            rest: chunks after the loop; loop: whether there is a loop, of `trips` trips.
            bias: whether sums start from bias (else from 0).
        """
        lines = [] if self.by_product else list(self._start(rows, vectors, bias=bias))
        pipelined = self._pipelined(rows, vectors)
        if pipelined:
            lines += [self._load_a(rows, vectors, 0), self._load_b(rows, vectors, 0)]
        begun = int(self.by_product)
        if begun:
            more = loop or rest > 0
            lines += self._chunk(rows, vectors, 0, following=more, first=True)
        if loop:
            trip = [
                list(self._chunk(rows, vectors, begun + index, following=True))
                for index in range(CHUNKS)
            ]
            lines += ["mov w9, %w[trips]", "1:", "subs w9, w9, #1", *repeat(trip), "b.ne 1b"]
        behind = [
            list(self._chunk(rows, vectors, begun + index, following=index + 1 < rest))
            for index in range(rest)
        ]
        lines += repeat(behind)
        text = "\n".join(f'"{line}\\n"' for line in lines)
        outputs = [f'[acc{r}_{v}] "=&w"(acc{r}_{v})' for r in range(rows) for v in range(vectors)]
        inputs = ['[trips] "r"(trips)'] if loop else []
        inputs += ['[bias] "r"(bias)'] if bias else []
        clobbers = [f'"v{i}"' for i in range(self._scratch(rows, vectors))] + (
            ['"x9"', '"cc"'] if loop else []
        )
        return (
            f"asm volatile({text}\n"
            f': [a] "+r"(a), [b] "+r"(b), {", ".join(outputs)}\n'
            f': {", ".join(inputs)}\n: {", ".join(clobbers)}, "memory");'
        )

    def accumulators(self, rows: int, vectors: int) -> str:
        """The declaration of accR_V in registers that neighbour each other in a row.

        They are the last ones: the loop's come first, and of those between functions keep eight.
        """
        first = 32 - rows * vectors
        assert first >= self._scratch(rows, vectors)
        return self.declared([f"acc{r}_{v}" for r in range(rows) for v in range(vectors)], first)

    def declared(self, names: Sequence[str], first: int) -> str:
        """The declaration of vectors in neighbouring registers, from a number on."""
        kind = f"float{128 // self.lanes}x{self.lanes}_t"
        listed = ", ".join(f'{name} asm("v{first + i}")' for i, name in enumerate(names))
        return f"register {kind} {listed};"

    def load_row(self, pointer: str, step: str | int, names: Sequence[str]) -> str:
        """See Panels."""
        vectors = [f'[{name}] "=w"({name})' for name in names]
        return self._row("ld1", pointer, step, names, vectors, [])

    def store_row(self, pointer: str, step: str | int, names: Sequence[str]) -> str:
        """See Panels."""
        return self._row(
            "st1", pointer, step, names, [], [f'[{name}] "w"({name})' for name in names]
        )

    def _row(
        self,
        mnemonic: str,
        pointer: str,
        step: str | int,
        names: Sequence[str],
        outputs: list[str],
        inputs: list[str],
    ) -> str:
        listed = ", ".join(f"%[{name}].{self.lanes}{self.letter}" for name in names)
        text = f"{mnemonic} {{{listed}}}, [%[at]]"
        if isinstance(step, int):
            text += f", #{step}"
        elif step:
            text += ", %[step]"
            inputs = [*inputs, f'[step] "r"({step})']
        if step:
            outputs = [f'[at] "+r"({pointer})', *outputs]
        else:
            inputs = [f'[at] "r"({pointer})', *inputs]
        return f'asm volatile("{text}" : {", ".join(outputs)} : {", ".join(inputs)} : "memory");'

    def _scratch(self, rows: int, vectors: int) -> int:
        """Registers of both sides of the loop, from the first on."""
        return self._b_first(rows, vectors, 1) + self._b_count(vectors)

    def _turn(self, vectors: int) -> int:
        """Steps of the depth whose right side is loaded at once."""
        return min(self.steps, 4 // vectors)

    def _b_count(self, vectors: int) -> int:
        return vectors * self._turn(vectors)

    def _pipelined(self, rows: int, vectors: int) -> bool:
        """Whether there are registers to load ahead of the multiplications."""
        ahead = 2 * (_a_count(rows) + self._b_count(vectors))
        return rows * vectors + ahead <= 32 and vectors < 3

    def _a_first(self, rows: int, vectors: int, chunk: int) -> int:
        return _a_count(rows) * (chunk % 2) if self._pipelined(rows, vectors) else 0

    def _b_first(self, rows: int, vectors: int, turn: int) -> int:
        if self._pipelined(rows, vectors):
            return 2 * _a_count(rows) + self._b_count(vectors) * (turn % 2)
        return _a_count(rows)

    def _load(self, first: int, count: int, pointer: str) -> str:
        names = ", ".join(f"v{first + i}.{self.lanes}{self.letter}" for i in range(count))
        return f"ld1 {{{names}}}, [%[{pointer}]], #{16 * count}"

    def _load_a(self, rows: int, vectors: int, chunk: int) -> str:
        return self._load(self._a_first(rows, vectors, chunk), _a_count(rows), "a")

    def _load_b(self, rows: int, vectors: int, turn: int) -> str:
        return self._load(self._b_first(rows, vectors, turn), self._b_count(vectors), "b")

    def _start(self, rows: int, vectors: int, *, bias: bool) -> Iterator[str]:
        for v in range(vectors):
            if bias:
                where = f"[%[bias], #{16 * v}]" if v else "[%[bias]]"
                yield f"ldr %q[acc0_{v}], {where}"
        for v in range(vectors):
            for r in range(1 if bias else 0, rows):
                if bias:
                    yield f"mov %[acc{r}_{v}].16b, %[acc0_{v}].16b"
                else:
                    yield f"movi %[acc{r}_{v}].4s, #0"

    def _chunk(
        self, rows: int, vectors: int, index: int, *, following: bool, first: bool = False
    ) -> Iterator[str]:
        """A chunk of the depth; with `following`, the next one is loaded meanwhile.

        With `first`, the accumulators are set, not added to.
        """
        pipelined = self._pipelined(rows, vectors)
        a, each = self._a_first(rows, vectors, index), self._turn(vectors)
        turns = self.steps // each
        if not pipelined:
            yield self._load_a(rows, vectors, index)
        for number in range(turns):
            turn = index * turns + number
            b = self._b_first(rows, vectors, turn)
            ahead = []
            if not pipelined:
                yield self._load_b(rows, vectors, turn)
            elif number + 1 < turns:
                ahead = [self._load_b(rows, vectors, turn + 1)]
            elif following:
                ahead = [
                    self._load_a(rows, vectors, index + 1),
                    self._load_b(rows, vectors, turn + 1),
                ]
            for step in range(each):
                for v in range(vectors):
                    left = f"v{b + step * vectors + v}.{self.lanes}{self.letter}"
                    for r in range(rows):
                        element = (number * each + step) * _PIXELS + r % _PIXELS
                        source = a + 2 * (r // _PIXELS) + element // self.lanes
                        lane = f"v{source}.{self.letter}[{element % self.lanes}]"
                        does = "fmul" if first and not (number or step) else "fmla"
                        yield f"{does} %[acc{r}_{v}].{self.lanes}{self.letter}, {left}, {lane}"
                    if ahead:
                        yield ahead.pop(0)


def _a_count(rows: int) -> int:
    """Registers of a chunk's left side."""
    return 2 * -(-rows // _PIXELS)


FLOATS = Aarch64Panels("s", 4, "float32x2_t", "float32x2x4_t", "f32", "0.0F")
HALVES = Aarch64Panels("h", 8, "uint16x4_t", "uint16x4x4_t", "u16", "0", by_product=True)
