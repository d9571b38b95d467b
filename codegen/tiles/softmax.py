"""The softmax of a contiguous row, the row read three times and kept in the first-level cache.

The largest element is found, then every power is computed and summed up, then all are divided by
the sum. Powers are of 2, of exponents that are not above 0: 2 ** t is 2 ** n of the nearest
integer, an exponent field, times a polynomial of the rest (vector_math.exp2_negative). In half
precision rows are read and written as halves, and powers and sums are those of floats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mdlc.codegen.code import Microkernel
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.templates import render
from mdlc.codegen.tiles.formula import element_literal, literal, math_function
from mdlc.codegen.tiles.lanes import horizontal, lanes_combined


@dataclass(frozen=True)
class SoftmaxRow:
    """softmax(scale * x) of a row.

    Attributes:
        log: its logarithm; tail: whether rows may end with a part of a vector.
        scaled: whether `scale`, above 0, is an argument.
    """

    log: bool = False
    tail: bool = True
    scaled: bool = False

    def name(self, isa: Dialect) -> str:
        """Such as softmax_scaled_f32_neon."""
        kind = f"{'log_' if self.log else ''}softmax{'_scaled' if self.scaled else ''}"
        kind += "_tail" if self.tail and isa.lanes > 1 else ""
        return f"{kind}_{isa.kind}_{isa.suffix}"

    def microkernel(self, isa: Dialect) -> Microkernel:
        """The C++: name(x, y, count[, scale])."""
        wide = isa.as_float or isa
        vector = isa.lanes > 1
        pieces = isa.widened("v") if isa.as_float else ["v"]
        tops = isa.widened("top0") if isa.as_float else ["top0"]
        top = tops[0] if len(tops) == 1 else wide.op("max", *tops)
        needs = [h for h in (horizontal(wide, "max"), horizontal(wide, "add")) if h]
        powers = math_function("exp2_negative", wide) if vector else None
        parameters = [*isa.arguments(["x"]), "std::ptrdiff_t count"]
        parameters += ["float scale"] if self.scaled else []
        terms = "scale * x" if self.scaled else "x"
        power = f"exp({terms} - max)"
        formula = f"{terms} - max - log(sum({power}))" if self.log else f"{power} / sum({power})"
        log2e = literal(math.log2(math.e))
        shares = [wide.op("mul", piece, "share") for piece in pieces]
        text = render(
            "cpp/kernels/softmax.j2",
            name=self.name(isa),
            parameters=parameters,
            formula=formula,
            isa=isa,
            wide=wide,
            log=self.log,
            tail=self.tail and vector,
            scaled=self.scaled,
            largest=lanes_combined(wide, "max", top),
            sum_of=lanes_combined(wide, "add", "total0"),
            parts=pieces,
            joined=lambda *parts: self._joined(isa, parts[: len(pieces)]),
            shared=self._joined(isa, shares),
            exp2=powers.name if powers else "",
            factor=f"scale * {log2e}" if self.scaled else log2e,
            lowest=literal(-math.inf),
            lowest_bits=element_literal(-math.inf, isa.dtype),
        )
        needs += [powers] if powers else []
        return Microkernel(
            self.name(isa), text, tuple(needs), ("cmath", "cstddef", "cstring", "limits")
        )

    @staticmethod
    def _joined(isa: Dialect, parts: Sequence[str]) -> str:
        """A vector of float ones."""
        return isa.op("narrow", *parts) if isa.as_float else parts[0]


def masked_row(isa: Dialect, masks: int, *, scaled: bool) -> Microkernel:
    """x = scale * x + mask0 + ... of a row: name(x, count[, scale][, mask0, ...])."""
    kind = f"mask{masks if masks > 1 else ''}" if masks else "scale"
    name = f"{kind}{'_scaled' if scaled and masks else ''}_row_{isa.kind}_{isa.suffix}"
    names = [f"mask{i}" for i in range(masks)]
    parameters = [f"{isa.element}* x", "std::ptrdiff_t count"] + ["float scale"] * scaled
    parameters += [f"const {isa.element}* {each}" for each in names]
    value, single = isa.load("x + i"), isa.item("x", "i")
    for number, each in enumerate(names):
        mask, one = isa.load(f"{each} + i"), isa.item(each, "i")
        first = scaled and number == 0
        value = isa.fma(value, "factor", mask) if first else isa.op("add", value, mask)
        single = f"{single} * scale + {one}" if first else f"{single} + {one}"
    if not masks:
        value, single = isa.op("mul", value, "factor"), f"{single} * scale"
    terms = " + ".join(["scale * x" if scaled else "x", *names])
    factor = f"  const {isa.vector} factor = {isa.set1('scale')};\n" if scaled else ""
    vectors = f"""{factor}  for (; i + {isa.lanes} <= count; i += {isa.lanes}) {{
    {isa.store("x + i", value)};
  }}
"""
    text = f"""// x = {terms} over count elements.
inline void {name}({", ".join(parameters)}) {{
  std::ptrdiff_t i = 0;
{vectors if isa.lanes > 1 else ""}  for (; i < count; ++i) {isa.set_item("x", "i", single)};
}}
"""
    return Microkernel(name, text, includes=("cstddef",))
