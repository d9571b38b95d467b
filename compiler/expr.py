"""Formulas of element-wise operators as small expression trees.

A formula is built once, from Python operators and the functions below, and spelled by every
target: scalar C++, each SIMD instruction set, Metal. Functions without an instruction of their
own (exp, tanh, erf, ...) are expanded by `codegen` into polynomials of the primitives.
"""

from __future__ import annotations

from dataclasses import dataclass

Number = float | int


@dataclass(frozen=True)
class Expr:
    """A node of a formula.

    Attributes:
        kind: "input", "const", or the name of a primitive (see PRIMITIVES).
        args: operands.
        value: the number of a "const"; the index of an "input".
    """

    kind: str
    args: tuple[Expr, ...] = ()
    value: Number = 0

    def __add__(self, other: Operand) -> Expr:
        return Expr("add", (self, wrap(other)))

    def __radd__(self, other: Number) -> Expr:
        return Expr("add", (wrap(other), self))

    def __sub__(self, other: Operand) -> Expr:
        return Expr("sub", (self, wrap(other)))

    def __rsub__(self, other: Number) -> Expr:
        return Expr("sub", (wrap(other), self))

    def __mul__(self, other: Operand) -> Expr:
        return Expr("mul", (self, wrap(other)))

    def __rmul__(self, other: Number) -> Expr:
        return Expr("mul", (wrap(other), self))

    def __truediv__(self, other: Operand) -> Expr:
        return Expr("div", (self, wrap(other)))

    def __rtruediv__(self, other: Number) -> Expr:
        return Expr("div", (wrap(other), self))

    def __neg__(self) -> Expr:
        return Expr("neg", (self,))


Operand = Expr | float | int

# Name -> number of operands. lt, le, eq and is_nan give masks; select takes a mask first.
# Everything but the mask operations maps elements of the operands' type to the same type.
PRIMITIVES: dict[str, int] = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "min": 2, "max": 2, "neg": 1, "abs": 1, "sqrt": 1,
    "fma": 3, "floor": 1, "ceil": 1, "round": 1, "exp2i": 1,
    # 2 ** n of n + bias, where the sum's lowest bits are the exponent field of 2 ** n: 0 and
    # infinity at its ends. The bias is 1.5 * 2 ** 23 + 127, in half precision 1.5 * 2 ** 10 + 15.
    "exp2_biased": 1,
    "lt": 2, "le": 2, "eq": 2, "is_nan": 1, "and": 2, "or": 2, "xor": 2, "not": 1, "select": 3,
    # Expanded where the target has no instruction (codegen/tiles/vector_math.py); scalar targets
    # call the C library.
    "exp": 1, "log": 1, "tanh": 1, "erf": 1, "sigmoid": 1, "gelu": 1, "pow": 2,
    # Scalar only: no vector form is emitted.
    "sin": 1, "cos": 1, "tan": 1, "asin": 1, "acos": 1, "atan": 1, "sinh": 1, "cosh": 1,
    "asinh": 1, "acosh": 1, "atanh": 1, "mod": 2, "fmod": 2, "trunc_div": 2,
    # Integers only; a shift by more bits than there are leaves 0, or the sign.
    "bit_and": 2, "bit_or": 2, "bit_xor": 2, "bit_not": 1, "shift_left": 2, "shift_right": 2,
}  # fmt: skip
# Primitives of the bits of integers, which have no meaning on numbers in between.
BITWISE = frozenset({"bit_and", "bit_or", "bit_xor", "bit_not", "shift_left", "shift_right"})


def wrap(value: Operand) -> Expr:
    """A number as a constant."""
    return value if isinstance(value, Expr) else Expr("const", (), value)


def input_(index: int) -> Expr:
    """The element of input `index`."""
    return Expr("input", (), index)


def call(kind: str, *args: Operand) -> Expr:
    """A primitive applied to operands; KeyError for an unknown name."""
    if PRIMITIVES[kind] != len(args):
        raise ValueError(f"{kind} takes {PRIMITIVES[kind]} operands, not {len(args)}")
    return Expr(kind, tuple(wrap(arg) for arg in args))


def minimum(a: Operand, b: Operand) -> Expr:
    """The smaller of two."""
    return call("min", a, b)


def maximum(a: Operand, b: Operand) -> Expr:
    """The larger of two."""
    return call("max", a, b)


def select(mask: Expr, yes: Operand, no: Operand) -> Expr:
    """`yes` where the mask holds, else `no`."""
    return call("select", mask, yes, no)


def less(a: Operand, b: Operand) -> Expr:
    """Mask a < b."""
    return call("lt", a, b)


def primitives_of(expr: Expr) -> set[str]:
    """Names of all primitives in a formula."""
    found: set[str] = set()
    pending = [expr]
    while pending:
        node = pending.pop()
        found.add(node.kind)
        pending.extend(node.args)
    return found - {"input", "const"}
