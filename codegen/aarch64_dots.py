"""The depth of a product of 8-bit integers in AArch64 assembly.

As in codegen/aarch64.py: written out, because compilers spill when a tile takes all registers.
A statement sets accR_V (int32x4_t) from scale (the biases), a (activations of the first pixel;
the others are kPixelStep apart) and b (weights). What it needs of numbers is in an array, as an
asm statement takes no more than 30 operands.
"""

from __future__ import annotations

from collections.abc import Iterator

MOST_ROWS = 8  # their pointers are in x9 to x16


def dot_loop(rows: int, vectors: int, run: int, taps: int, fields: int) -> str:
    """The statement for a run of the depth (a multiple of 4) inside loops over `taps` axes.

    Weights are [depth / 4][vector][4 channels][4]. The last load of a run may read past it.
    `fields`: vectors of i32 in `scale` for each vector of channels, the bias first.
    """
    trips, rest = divmod(run, 16)
    read = 16 * (trips + (rest > 0))
    body = [*_start(rows, vectors, fields), *_pointers(rows)]
    if taps == 2:
        body += ["ldr x7, [%[n], #32]", "3:"]
    if taps:
        body += ["ldr x8, [%[n], #16]", "2:"]
    if trips > 1:
        body += ["ldr x17, [%[n], #8]", "1:"]
    if trips:
        chunk = list(_chunk(rows, vectors, 4))
        if trips > 1:
            chunk.insert(rows, "subs x17, x17, #1")
            chunk.append("b.ne 1b")
        body += chunk
    if rest:
        body += _chunk(rows, vectors, rest // 4)
    if taps:
        body += ["ldr x17, [%[n], #24]", *_advance(rows), "subs x8, x8, #1", "b.ne 2b"]
    if taps == 2:
        body += ["ldr x17, [%[n], #40]", *_advance(rows), "subs x7, x7, #1", "b.ne 3b"]
    step = "kPixelStep" if rows > 1 else "0"
    numbers = [step, "kRun / 16"]
    numbers += [[], ["kTaps", f"kTapStep - {read}"],
                ["kTapsX", f"kTapStepX - {read}", "kTapsY",
                 "kTapStepY - kTapsX * kTapStepX"]][taps]  # fmt: skip
    clobbers = [f'"x{9 + r}"' for r in range(rows)]
    clobbers += ['"x17"', '"cc"'] + (['"x8"'] if taps else []) + (['"x7"'] if taps == 2 else [])
    clobbers += [f'"v{i}"' for i in range(rows + _weight_registers(rows, vectors))]
    names = [f"acc{r}_{v}" for r in range(rows) for v in range(vectors)]
    outputs = ", ".join(f'[{name}] "=&w"({name})' for name in names)
    text = "\n".join(f'"{line}\\n"' for line in body)
    return (
        f"static constexpr std::int64_t kNumbers[] = {{{', '.join(numbers)}}};\n"
        f"int32x4_t {', '.join(names)};\n"
        f'asm volatile({text}\n: [b] "+r"(b), {outputs}\n'
        f': [a] "r"(a), [scale] "r"(scale), [n] "r"(kNumbers)\n'
        f': {", ".join(clobbers)}, "memory");'
    )


def _start(rows: int, vectors: int, fields: int) -> Iterator[str]:
    for v in range(vectors):
        yield f"ldr %q[acc0_{v}], [%[scale], #{16 * v * fields}]"
    for v in range(vectors):
        for r in range(1, rows):
            yield f"mov %[acc{r}_{v}].16b, %[acc0_{v}].16b"


def _pointers(rows: int) -> Iterator[str]:
    yield "mov x9, %[a]"
    if rows > 1:
        yield "ldr x17, [%[n]]"
    for r in range(1, rows):
        yield f"add x{9 + r}, x{8 + r}, x17"


def _advance(rows: int) -> Iterator[str]:
    for r in range(rows):
        yield f"add x{9 + r}, x{9 + r}, x17"


def _weight_registers(rows: int, vectors: int) -> int:
    """Registers that weights pass through: as many as are left, at most two groups'."""
    return min(32 - rows * vectors - rows, 2 * vectors, 8)


def _chunk(rows: int, vectors: int, groups: int) -> Iterator[str]:
    """One load of each row, and `groups` groups of four elements of it."""
    for r in range(rows):
        yield f"ldr q{r}, [x{9 + r}], #16"
    count = _weight_registers(rows, vectors)
    total = groups * vectors
    loaded = 0

    def load() -> Iterator[str]:
        nonlocal loaded
        slot = rows + loaded % count
        if loaded + 1 < total and loaded % count + 1 < count:
            yield f"ldp q{slot}, q{slot + 1}, [%[b]], #32"
            loaded += 2
        else:
            yield f"ldr q{slot}, [%[b]], #16"
            loaded += 1

    for index in range(total):
        if loaded <= index:
            yield from load()
        # The next weights come while these are multiplied, where there is room for them.
        if loaded < total and loaded + 2 - index <= count and loaded <= index + 1:
            yield from load()
        group, v = divmod(index, vectors)
        register = rows + index % count
        for r in range(rows):
            yield f"sdot %[acc{r}_{v}].4s, v{register}.16b, v{r}.4b[{group}]"
