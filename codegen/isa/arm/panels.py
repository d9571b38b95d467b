"""The depth of a product on panels in AArch64 assembly, and the rows of its tile in memory.

Compilers spill when one load fills several registers (ld1 of two to four), and the loads are what
separates a tile from one multiply-add after the other. The loop is therefore written out; the
activation is C++. The accumulators of a row lie in neighbouring registers, so that one instruction
stores them and goes on to the next row, by a step that need not be known when it is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mdlc.codegen.isa.assembly import macro, statement
from mdlc.codegen.isa.dialect import CHUNKS

_PIXELS = 4  # that lie together in a panel
# What the one constant of a tile's assembly says of it: chunks behind the loop; whether there is a
# loop; whether sums start from a bias.
_REST, _LOOP, _BIAS = "(%c[form] & 7)", "(%c[form] & 8)", "(%c[form] & 16)"


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
    def _a(self) -> str:
        """The register that goes through the panel."""
        return "%[a]" if self.by_product else "x10"

    @property
    def steps(self) -> int:
        """Steps of the depth in a chunk."""
        return self.lanes // 2

    @property
    def begun_steps(self) -> int:
        """See Panels: of the first chunk all but the one whose products begin the sums."""
        return self.steps - 1 if self.by_product else 0

    def rest_of(self, chunks: int, rows: int, vectors: int) -> int:
        """Chunks that follow the loop; the loop makes (chunks - rest) // CHUNKS trips."""
        behind = chunks - self.by_product
        if behind and self._pipelined(rows, vectors):
            return (behind - 1) % CHUNKS + 1
        return behind % CHUNKS

    def step_loads(self, vectors: int) -> float:
        """Instructions that load a step of the depth."""
        return 1 / self.steps + 1 / self._turn(vectors)

    def loop(self, rows: int, vectors: int) -> str:
        """The inline assembly of a tile; see Panels.loop.

        A macro of the assembler has the multiply-adds of one step of the depth. Where there are
        registers for it, two chunks take turns: one is multiplied, the next one loaded meanwhile.

        Args:
            rows: pixels, at most 8; vectors: of channels, at most 3.
        """
        begun = int(self.by_product)
        turns = [self._chunk(rows, vectors, begun + i, following=True) for i in (0, 1)]
        lines = macro("step", self._parameters(rows, vectors), self._step(rows, vectors))
        lines += [] if begun else [f"mov {self._a}, %[a]", *self._start(rows, vectors)]
        if self._pipelined(rows, vectors):
            lines += [self._load_a(rows, vectors, 0), self._load_b(rows, vectors, 0)]
            even, odd = turns
            last = [self._chunk(rows, vectors, begun + i, following=False) for i in (0, 1)]
            trip = [f".rept {CHUNKS // 2}", *even, *odd, ".endr"]
            behind = [f".rept ({_REST} - 1) / 2", *even, *odd, ".endr"]
            behind += [f".if {_REST} & 1", *last[0]]
            behind += [f".elseif {_REST}", *even, *last[1], ".endif"]
        else:
            trip = [f".rept {CHUNKS}", *turns[0], ".endr"]
            behind = [f".rept {_REST}", *turns[0], ".endr"]
        if begun:
            first = self._chunk(rows, vectors, 0, following=True, first=True)
            alone = self._chunk(rows, vectors, 0, following=False, first=True)
            if first != alone:
                first = [f".if {_REST} + {_LOOP}", *first, ".else", *alone, ".endif"]
            lines += first
        lines += [f".if {_LOOP}", "mov w9, %w[trips]", "1:", "subs w9, w9, #1"]
        lines += [*trip, "b.ne 1b", ".endif", *behind, ".purgem step"]
        accumulators = [f"acc{r}_{v}" for r in range(rows) for v in range(vectors)]
        flags = "kRest + 8 * kLoop" + ("" if begun else " + 16 * kBias")
        return statement(
            lines,
            # gcc takes 30 operands, and what is read and written as two of them.
            outputs=[
                *(['[a] "+r"(a)'] if begun else []),
                '[b] "+r"(b)',
                *(f'[{name}] "=&w"({name})' for name in accumulators),
            ],
            inputs=[
                '[trips] "r"(trips)',
                *([] if begun else ['[a] "r"(a)', '[bias] "r"(kBias ? bias : b)']),
                f'[form] "i"({flags})',
            ],
            clobbers=[
                *(f"v{i}" for i in range(self._scratch(rows, vectors))),
                "x9",
                *([] if begun else [self._a]),
                "cc",
            ],
        )

    def accumulators(self, rows: int, vectors: int) -> str:
        """The declaration of accR_V in registers that neighbour each other in a row."""
        first = self._accumulators_first(rows, vectors)
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
        return f"ld1 {{{names}}}, [{pointer}], #{16 * count}"

    def _load_a(self, rows: int, vectors: int, chunk: int) -> str:
        return self._load(self._a_first(rows, vectors, chunk), _a_count(rows), self._a)

    def _load_b(self, rows: int, vectors: int, turn: int) -> str:
        return self._load(self._b_first(rows, vectors, turn), self._b_count(vectors), "%[b]")

    def _start(self, rows: int, vectors: int) -> list[str]:
        """Sums start from the bias, or from 0."""
        first = self._accumulators_first(rows, vectors)
        kind = f".{self.lanes}{self.letter}"
        biases = ", ".join(f"%[acc0_{v}]{kind}" for v in range(vectors))
        lines = [f".if {_BIAS}", f"ld1 {{{biases}}}, [%[bias]]"]
        for v in range(vectors if rows > 1 else 0):
            others = range(first + vectors + v, 32, vectors)
            lines += [f".irp n, {', '.join(map(str, others))}"]
            lines += [f"mov v\\n\\().16b, %[acc0_{v}].16b", ".endr"]
        lines += [".else", f".irp n, {', '.join(map(str, range(first, 32)))}"]
        return [*lines, "movi v\\n\\().4s, #0", ".endr", ".endif"]

    def _accumulators_first(self, rows: int, vectors: int) -> int:
        """The first accumulator's register.

        They are the last ones: the loop's come first, and of those between functions keep eight.
        """
        first = 32 - rows * vectors
        assert first >= self._scratch(rows, vectors)
        return first

    def _parameters(self, rows: int, vectors: int) -> list[str]:
        """Of the macro of a step: registers and lane of the pixels, and what is not fixed."""
        names = ["lo", *(["hi"] if rows > _PIXELS else []), *(["lane"] if self.steps > 2 else [])]
        if self._pipelined(rows, vectors):
            names += [f"b{v}" for v in range(vectors)] + [f"load{v}" for v in range(vectors)]
        return [*names, *(["op=fmla"] if self.by_product else [])]

    def _step(self, rows: int, vectors: int) -> list[str]:
        """One step of the depth, in terms of the macro's parameters."""
        pipelined = self._pipelined(rows, vectors)
        op = "\\op" if self.by_product else "fmla"
        lines = [] if pipelined else [self._load_b(rows, vectors, 0)]
        for v in range(vectors):
            left = f"\\b{v}\\()" if pipelined else f"v{self._b_first(rows, vectors, 0) + v}"
            left += f".{self.lanes}{self.letter}"
            for r in range(rows):
                pixel = r % _PIXELS
                lane = f"\\lane{f' + {pixel}' if pixel else ''}" if self.steps > 2 else pixel
                side = "hi" if r >= _PIXELS else "lo"
                right = f"\\{side}\\().{self.letter}[{lane}]"
                lines.append(f"{op} %[acc{r}_{v}].{self.lanes}{self.letter}, {left}, {right}")
            lines += [f"\\load{v}"] if pipelined else []
        return lines

    def _chunk(
        self, rows: int, vectors: int, index: int, *, following: bool, first: bool = False
    ) -> list[str]:
        """A chunk of the depth; with `following`, the next one is loaded meanwhile.

        With `first`, the accumulators are set, not added to.
        """
        pipelined = self._pipelined(rows, vectors)
        a, each = self._a_first(rows, vectors, index), self._turn(vectors)
        turns = self.steps // each
        lines = [] if pipelined else [self._load_a(rows, vectors, index)]
        for number in range(turns):
            turn = index * turns + number
            b = self._b_first(rows, vectors, turn)
            ahead = []
            if number + 1 < turns:
                ahead = [self._load_b(rows, vectors, turn + 1)]
            elif following:
                ahead = [
                    self._load_a(rows, vectors, index + 1),
                    self._load_b(rows, vectors, turn + 1),
                ]
            for step in range(each):
                element = (number * each + step) * _PIXELS
                source = a + element // self.lanes
                words = [f"v{source}", *([f"v{source + 2}"] if rows > _PIXELS else [])]
                words += [str(element % self.lanes)] if self.steps > 2 else []
                if pipelined:
                    words += [f"v{b + step * vectors + v}" for v in range(vectors)]
                    words += [f'"{load}"' for load in ahead[:vectors]]
                    del ahead[:vectors]
                words += ["op=fmul"] if first and not element else []
                lines.append(f"step {', '.join(words)}")
        return lines


def _a_count(rows: int) -> int:
    """Registers of a chunk's left side."""
    return 2 * -(-rows // _PIXELS)


FLOATS = Aarch64Panels("s", 4, "float32x2_t", "float32x2x4_t", "f32", "0.0F")
HALVES = Aarch64Panels("h", 8, "uint16x4_t", "uint16x4x4_t", "u16", "0", by_product=True)
