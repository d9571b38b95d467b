"""The depth of a product on panels in AArch64 assembly.

Compilers spill when one load fills several registers (ld1 of two to four), and the loads are what
separates a tile from one multiply-add after the other. The loop is therefore written out; what
surrounds it, the start pointers and the epilogue, is C++.
"""

from __future__ import annotations

from collections.abc import Iterator

# Chunks of two steps of the depth in one trip of the loop.
CHUNKS = 4


def rest_of(chunks: int, rows: int, vectors: int) -> int:
    """Chunks that follow the loop; the loop makes (chunks - rest) / CHUNKS trips."""
    if _pipelined(rows, vectors):
        return (chunks - 1) % CHUNKS + 1
    return chunks % CHUNKS


def panel_loop(rows: int, vectors: int, rest: int, *, loop: bool, bias: bool) -> str:
    """The inline assembly of a tile; see Isa.panel_loop.

    Args:
        rows: pixels, at most 8; vectors: of channels, at most 3.
        rest: chunks after the loop; loop: whether there is a loop, of kTrips trips.
        bias: whether sums start from bias (else from 0).
    """
    lines = list(_start(rows, vectors, bias=bias))
    pipelined = _pipelined(rows, vectors)
    if pipelined:
        lines += _loads(rows, vectors, 0)
    if loop:
        lines += ["mov x9, %[trips]", "1:"]
        for index in range(CHUNKS):
            lines += _chunk(rows, vectors, index, following=True)
            if index == 0:
                lines.append("subs x9, x9, #1")
        lines.append("b.ne 1b")
    for index in range(rest):
        lines += _chunk(rows, vectors, index, following=index + 1 < rest)
    text = "\n".join(f'"{line}\\n"' for line in lines)
    outputs = [f'[acc{r}_{v}] "=&w"(acc{r}_{v})' for r in range(rows) for v in range(vectors)]
    inputs = ['[trips] "i"(kTrips)'] if loop else []
    inputs += ['[bias] "r"(bias)'] if bias else []
    used = max(_a_first(rows, vectors, 1), _b_first(rows, vectors, 1) + _b_count(vectors) - 1)
    used = max(used, _a_first(rows, vectors, 1) + _a_count(rows) - 1)
    clobbers = [f'"v{i}"' for i in range(used + 1)] + (['"x9"', '"cc"'] if loop else [])
    return (
        f"asm volatile({text}\n"
        f': [a] "+r"(a), [b] "+r"(b), {", ".join(outputs)}\n'
        f': {", ".join(inputs)}\n: {", ".join(clobbers)}, "memory");'
    )


def _a_count(rows: int) -> int:
    """Registers of a in a chunk: two steps, four rows each."""
    return 2 * -(-rows // 4)


def _b_count(vectors: int) -> int:
    """Registers of b loaded at once: a chunk's, or a step's of three."""
    return 2 * vectors if vectors < 3 else vectors


def _pipelined(rows: int, vectors: int) -> bool:
    """Whether there are registers to load a chunk while the one before it is multiplied."""
    return rows * vectors + 2 * (_a_count(rows) + _b_count(vectors)) <= 32 and vectors < 3


def _a_first(rows: int, vectors: int, index: int) -> int:
    return _a_count(rows) * (index % 2) if _pipelined(rows, vectors) else 0


def _b_first(rows: int, vectors: int, index: int) -> int:
    if _pipelined(rows, vectors):
        return 2 * _a_count(rows) + _b_count(vectors) * (index % 2)
    return _a_count(rows)


def _load(first: int, count: int, pointer: str) -> str:
    names = ", ".join(f"v{first + i}.4s" for i in range(count))
    return f"ld1 {{{names}}}, [%[{pointer}]], #{16 * count}"


def _loads(rows: int, vectors: int, index: int) -> list[str]:
    return [
        _load(_a_first(rows, vectors, index), _a_count(rows), "a"),
        _load(_b_first(rows, vectors, index), _b_count(vectors), "b"),
    ]


def _start(rows: int, vectors: int, *, bias: bool) -> Iterator[str]:
    for v in range(vectors):
        if bias:
            yield f"ldr %q[acc0_{v}], [%[bias], #{16 * v}]" if v else "ldr %q[acc0_0], [%[bias]]"
    for v in range(vectors):
        for r in range(1 if bias else 0, rows):
            yield (
                f"mov %[acc{r}_{v}].16b, %[acc0_{v}].16b" if bias else f"movi %[acc{r}_{v}].4s, #0"
            )


def _chunk(rows: int, vectors: int, index: int, *, following: bool) -> Iterator[str]:
    """Two steps of the depth; with `following`, the next chunk is loaded meanwhile."""
    pipelined = _pipelined(rows, vectors)
    a, b = _a_first(rows, vectors, index), _b_first(rows, vectors, index)
    ahead = _loads(rows, vectors, index + 1) if pipelined and following else []
    if not pipelined:
        yield _load(a, _a_count(rows), "a")
        if vectors < 3:
            yield _load(b, _b_count(vectors), "b")
    for step in range(2):
        if vectors == 3:
            yield _load(b, 3, "b")
        first = b + (step * vectors if vectors < 3 else 0)
        for v in range(vectors):
            for r in range(rows):
                source = f"v{a + 2 * (r // 4) + step}.s[{r % 4}]"
                yield f"fmla %[acc{r}_{v}].4s, v{first + v}.4s, {source}"
            if ahead:
                yield ahead.pop(0)
