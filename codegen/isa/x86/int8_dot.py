"""The depth of a product of 8-bit integers in x86 assembly (AVX-512 VNNI).

Compilers keep the accumulators of vpdpbusd in memory when a tile takes all registers; the loop is
therefore written out. A statement sets accR_V (__m512i) from scale (the biases), a (unsigned
activations of the first pixel; the others are kPixelStep apart) and b (weights, [depth / 4]
[channel][4]). What it needs of numbers is in an array, as an asm statement takes no more than 30
operands.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from mdlc.codegen.isa.int8 import DepthLoop
from mdlc.codegen.isa.int8_result import OutputStage

_BASES = ("r8", "r9", "r10", "r11")  # of every third row


class VnniLoop(DepthLoop):
    """Weights from memory, activations broadcast from memory: only products use the ports."""

    unit = 4

    def fits(self, rows: int, vectors: int) -> bool:
        return rows <= 3 * len(_BASES) and rows * vectors <= 24 and rows * vectors + vectors <= 30

    def instructions(self, rows: int, vectors: int) -> float:
        return 4 * (rows * vectors + rows + vectors) + 4

    def products(self, rows: int, vectors: int) -> float:
        return 4 * rows * vectors

    def split(self, run: int) -> list[int]:
        return [4] * (run // 4)

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
        assert not flip
        trips, rest = divmod(run, 16)
        bases = _BASES[: -(-rows // 3)]
        body = list(_start(rows, vectors, fields))
        body.append(f"movq %[a], %%{bases[0]}")
        if rows > 1:
            body.append("movq (%[n]), %%rax")
        for before, base in pairwise(bases):
            body += [f"leaq (%%{before},%%rax,2), %%{base}", f"addq %%rax, %%{base}"]
        if taps == 2:
            body += ["movq 32(%[n]), %%rsi", "3:"]
        if taps:
            body += ["movq 16(%[n]), %%rdx", "2:"]
        if trips > 1:
            body += ["movq 8(%[n]), %%rcx", "1:"]
        if trips:
            body += _groups(rows, vectors, 4, bases)
        if trips > 1:
            body += ["subq $1, %%rcx", "jne 1b"]
        if rest:
            body += _groups(rows, vectors, rest // 4, bases)
        if taps:
            body += ["movq 24(%[n]), %%rcx", *(f"addq %%rcx, %%{base}" for base in bases)]
            body += ["subq $1, %%rdx", "jne 2b"]
        if taps == 2:
            body += ["movq 40(%[n]), %%rcx", *(f"addq %%rcx, %%{base}" for base in bases)]
            body += ["subq $1, %%rsi", "jne 3b"]
        numbers = ["kPixelStep" if rows > 1 else "0", "kRun / 16"]
        numbers += [[], ["kTaps", "kTapStep - kRun"],
                    ["kTapsX", "kTapStepX - kRun", "kTapsY",
                     "kTapStepY - kTapsX * kTapStepX"]][taps]  # fmt: skip
        used = [*bases, "rax", "rcx", "rdx", "rsi"]
        clobbers = [f'"{name}"' for name in used] + ['"cc"']
        clobbers += [f'"xmm{i}"' for i in range(vectors + 2)]
        names = [f"acc{r}_{v}" for r in range(rows) for v in range(vectors)]
        outputs = ", ".join(f'[{name}] "=&v"({name})' for name in names)
        text = "\n".join(f'"{line}\\n"' for line in body)
        return (
            f"static constexpr std::int64_t kNumbers[] = {{{', '.join(numbers)}}};\n"
            f"__m512i {', '.join(names)};\n"
            f'asm volatile({text}\n: [b] "+r"(b), {outputs}\n'
            f': [a] "r"(a), [scale] "r"(scale), [n] "r"(kNumbers)\n'
            f': {", ".join(clobbers)}, "memory");'
        )


def _start(rows: int, vectors: int, fields: int) -> Iterator[str]:
    for v in range(vectors):
        yield f"vmovdqu64 {64 * v * fields}(%[scale]), %[acc0_{v}]"
    for v in range(vectors):
        for r in range(1, rows):
            yield f"vmovdqa64 %[acc0_{v}], %[acc{r}_{v}]"


def _groups(rows: int, vectors: int, count: int, bases: tuple[str, ...]) -> Iterator[str]:
    """`count` groups of four elements of the depth."""
    for group in range(count):
        for v in range(vectors):
            yield f"vmovdqu64 {64 * (group * vectors + v)}(%[b]), %%zmm{v}"
        for r in range(rows):
            third, rest = divmod(r, 3)
            index = ["", ",%%rax", ",%%rax,2"][rest]
            register = vectors + r % 2
            yield f"vpbroadcastd {4 * group}(%%{bases[third]}{index}), %%zmm{register}"
            for v in range(vectors):
                yield f"vpdpbusd %%zmm{v}, %%zmm{register}, %[acc{r}_{v}]"
    for base in bases:
        yield f"addq ${4 * count}, %%{base}"
    yield f"addq ${64 * count * vectors}, %[b]"
