"""LayerNormalization of a contiguous row on vectors, the row read three times from the cache.

The variance is that of distances from the mean, not of squares less the mean's: single precision
is enough. In half precision rows are halves, and sums and distances are those of floats.
"""

from __future__ import annotations

from mdlc.codegen.code import Microkernel
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.templates import render
from mdlc.codegen.tiles.lanes import horizontal, lanes_combined


def layer_norm_row(isa: Dialect, *, tail: bool) -> Microkernel:
    """layer_norm_f32_neon(x, scale, bias, y, count, epsilon); tail: of no whole vectors."""
    wide = isa.as_float or isa

    def parts(vector: str) -> list[str]:
        return isa.widened(vector) if isa.as_float else [vector]

    triples = list(zip(parts("v"), parts("s"), parts("b"), strict=True))
    results = [wide.fma(f"n{i}", s, b) for i, (_, s, b) in enumerate(triples)]
    name = f"layer_norm{'_tail' if tail else ''}_{isa.kind}_{isa.suffix}"
    text = render(
        "cpp/kernels/layer_norm.j2",
        name=name,
        isa=isa,
        wide=wide,
        tail=tail,
        arguments=isa.arguments(["x", "scale", "bias"]),
        parts=parts("v"),
        triples=triples,
        joined=isa.op("narrow", *results) if isa.as_float else results[0],
        sum_of=lambda vector: lanes_combined(wide, "add", vector),
    )
    helper = horizontal(wide, "add")
    return Microkernel(name, text, (helper,) if helper else (), ("cmath", "cstddef"))
