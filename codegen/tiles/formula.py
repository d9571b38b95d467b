"""Formulas (compiler/expr.py) spelled in C++ for an instruction set or as scalars."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.code import C_TYPES, Microkernel
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.isa.scalar import SCALAR
from mdlc.codegen.tiles.vector_math import (
    BY_DEFINITION,
    FORMULAS,
    FUNCTIONS,
    HALF_FUNCTIONS,
)
from mdlc.compiler.expr import Expr, input_, primitives_of
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import DType

MASKS = frozenset({"lt", "le", "eq", "is_nan", "and", "or", "xor", "not"})
# An expression is named when it is used twice or would make its line longer than this.
LONGEST_INLINE = 60


def literal(value: float, dtype: DType = DType.F32) -> str:
    """A C++ literal of exactly the float32 nearest to a value, or of the float64 that it is."""
    kind = "double" if dtype is DType.F64 else "float"
    if math.isnan(value):
        return f"std::numeric_limits<{kind}>::quiet_NaN()"
    if math.isinf(value):
        text = f"std::numeric_limits<{kind}>::infinity()"
        return text if value > 0 else f"-{text}"
    if dtype is DType.F64:
        return repr(float(value))
    text = repr(float(str(np.float32(value))))
    return f"{text}F"


def element_literal(value: float, dtype: DType) -> str:
    """A value as a C++ constant of an element type, an infinity or NaN with <limits>; float16 as
    its bits.
    """
    if dtype is DType.F16:
        return f"0x{int(np.float16(value).view(np.uint16)):04X}U" if value else "0"
    kind = C_TYPES[dtype]
    if math.isnan(value):
        return f"std::numeric_limits<{kind}>::quiet_NaN()"
    if math.isinf(value):
        return f"{'-' if value < 0 else ''}std::numeric_limits<{kind}>::infinity()"
    if not value:
        return "0"
    if dtype.is_float:
        return f"static_cast<{kind}>({value!r})"
    return integer_literal(int(value), dtype)


def integer_literal(value: int, dtype: DType) -> str:
    """A value of an integer type as a C++ constant of that type."""
    kind = C_TYPES[dtype]
    if value == -(1 << 63):  # no literal: its positive would not fit
        return f"std::numeric_limits<{kind}>::lowest()"
    return f"static_cast<{kind}>({value}{'U' if value >= 1 << 63 else ''})"


@dataclass(frozen=True)
class Spelled:
    """A formula in C++: statements that name parts, the result, and what they need."""

    statements: tuple[str, ...]
    result: str
    needs: tuple[Microkernel, ...]
    includes: tuple[str, ...]


def vectorisable(expr: Expr, isa: Dialect) -> bool:
    """Whether every primitive has a vector form on the ISA."""
    isa = isa.as_float or isa
    return all(kind in isa.spell or kind in FUNCTIONS for kind in primitives_of(expr))


def spell(expr: Expr, isa: Dialect, inputs: Sequence[str], parts: str = "t") -> Spelled:
    """A formula on vectors of the ISA.

    Args:
        inputs: C++ expressions for the formula's inputs.
        parts: what the names of its parts begin with; a number follows.
    """
    uses = Counter[Expr]()
    order: list[Expr] = []
    pending = [(expr, False)]
    while pending:  # postorder without recursion, each node once
        node, expanded = pending.pop()
        if expanded:
            order.append(node)
            continue
        if node in uses:
            uses[node] += 1
            continue
        uses[node] = 1
        pending.append((node, True))
        pending.extend((arg, False) for arg in reversed(node.args))
    text: dict[Expr, str] = {}
    statements: list[str] = []
    named: set[Expr] = set()
    needs: dict[str, Microkernel] = {}
    includes: set[str] = set()
    for node in order:
        if node.kind == "input":
            text[node] = inputs[int(node.value)]
            continue
        if node.kind == "const":
            text[node] = isa.set1(literal(node.value))
            includes |= {"limits"} if not math.isfinite(node.value) else set()
            continue
        args = [text[arg] for arg in node.args]
        fused = _fused(node, uses, text, named)
        if fused is not None:
            spelled = isa.fma(*fused)
        elif node.kind in isa.spell:
            spelled = isa.op(node.kind, *args)
        else:
            helper = math_function(node.kind, isa)
            needs[helper.name] = helper
            spelled = f"{helper.name}({', '.join(args)})"
        if "std::" in spelled:
            includes.add("cmath")
        if node is not expr and (uses[node] > 1 or len(spelled) > LONGEST_INLINE):
            name = f"{parts}{len(statements)}"
            kind = isa.mask if node.kind in MASKS else isa.vector
            statements.append(f"const {kind} {name} = {spelled};")
            spelled = name
            named.add(node)
        text[node] = spelled
    return Spelled(tuple(statements), text[expr], tuple(needs.values()), tuple(sorted(includes)))


def _fused(
    node: Expr, uses: Counter[Expr], text: dict[Expr, str], named: set[Expr]
) -> tuple[str, str, str] | None:
    """The operands of a multiply-add that a sum can be, if its product is used nowhere else."""
    if node.kind != "add":
        return None
    for product, summand in ((node.args[0], node.args[1]), (node.args[1], node.args[0])):
        if product.kind == "mul" and uses[product] == 1 and product not in named:
            a, b = product.args
            return text[a], text[b], text[summand]
    return None


# Of an operator that is computed in half precision as it stands: each rounds.
MAX_ROUNDINGS = 3
_EXACT = MASKS | {"input", "const", "min", "max", "neg", "abs", "select", "floor", "ceil", "round"}


def _narrow(expr: Expr, isa: Dialect) -> bool:
    """Whether a formula is computed in half precision, not in float between two conversions."""
    kinds = primitives_of(expr)
    roundings = sum(1 for kind in _operations(expr) if kind not in _EXACT)
    known = _EXACT | HALF_FUNCTIONS.keys()
    return all(kind in isa.spell or kind in known for kind in kinds) and roundings <= MAX_ROUNDINGS


def _operations(expr: Expr) -> list[str]:
    """The kinds of all operations of a formula, each shared one once."""
    seen: set[Expr] = set()
    pending = [expr]
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending.extend(node.args)
    return [node.kind for node in seen]


def _widened(name: str, comment: str, wide: Microkernel, arity: int, isa: Dialect) -> Microkernel:
    """A function on halves by one on floats."""
    names = ["x"] if arity == 1 else [f"x{i}" for i in range(arity)]
    arguments = ", ".join(f"{isa.vector} {n}" for n in names)
    widened = zip(*(isa.widened(n) for n in names), strict=True)
    parts = [f"{wide.name}({', '.join(each)})" for each in widened]
    text = (
        f"// {comment} Computed in float.\n"
        f"inline {isa.vector} {name}({arguments}) {{\n"
        f"  return {isa.op('narrow', *parts)};\n}}\n"
    )
    return Microkernel(name, text, (wide,))


def math_function(kind: str, isa: Dialect) -> Microkernel:
    """exp, log, ... on vectors as a function, such as exp_f32_neon."""
    functions = HALF_FUNCTIONS if isa.as_float is not None else FUNCTIONS
    if "exp2_biased" not in isa.spell:
        functions = {**functions, **BY_DEFINITION}
    name = f"{kind}_{isa.kind}_{isa.suffix}"
    return _function(name, FORMULAS[kind], functions[kind](input_(0)), 1, isa)


def element_function(op: Elementwise, isa: Dialect) -> Microkernel:
    """An element-wise operator on vectors as a function, such as relu_f32_neon."""
    inputs = [input_(i) for i in range(op.arity)]
    formula = op.expr(*inputs)
    alone = formula.kind in FUNCTIONS and formula.kind not in isa.spell
    native = isa.as_float is None or formula.kind in HALF_FUNCTIONS
    if native and alone and formula.args == (inputs[0],):
        return math_function(formula.kind, isa)
    comment = re.sub(r"\s+", " ", (type(op).__doc__ or "").split(" Source:")[0]).strip()
    comment = re.sub(r"\bself\.", "", comment)
    if isa.as_float is not None and not _narrow(formula, isa):
        name = f"{stem(op)}_{isa.kind}_{isa.suffix}"
        return _widened(name, comment, element_function(op, isa.as_float), op.arity, isa)
    for field in dataclasses.fields(op):
        value = getattr(op, field.name)
        if isinstance(value, float | int | str):
            shown = str(value) if not isinstance(value, bool) else "yes" if value else "no"
            comment += f" {field.name} = {shown}."
    return _function(f"{stem(op)}_{isa.kind}_{isa.suffix}", comment, formula, op.arity, isa)


def identity(isa: Dialect) -> Microkernel:
    """The activation of layers that have none, as a function on vectors."""
    name = f"identity_{isa.kind}_{isa.suffix}"
    return Microkernel(name, f"// x.\ninline {isa.vector} {name}({isa.vector} x) {{ return x; }}\n")


def stem(op: Elementwise) -> str:
    """An operator with its attributes as part of a C++ name: relu, clip_0_6, leakyrelu_0p1.

    Operators that differ have names that differ: a point is "p", a minus "m".
    """
    text = re.sub(r"[a-z_]+=", "", str(op)).replace("-", "m").replace(".0,", ",")
    text = re.sub(r"(?<=[0-9])\.(?=[0-9])", "p", text.replace(".0)", ")"))
    return re.sub(r"[^0-9a-z]+", "_", text.lower()).strip("_")


def _function(name: str, comment: str, expr: Expr, arity: int, isa: Dialect) -> Microkernel:
    names = ["x"] if arity == 1 else [f"x{i}" for i in range(arity)]
    if arity == 2:
        names = ["a", "b"]
    spelled = spell(expr, isa, names)
    arguments = ", ".join(f"{isa.vector} {n}" for n in names)
    body = "\n".join(f"  {line}" for line in (*spelled.statements, f"return {spelled.result};"))
    text = f"// {comment}\ninline {isa.vector} {name}({arguments}) {{\n{body}\n}}\n"
    return Microkernel(name, text, spelled.needs, spelled.includes)


def spell_scalar(
    expr: Expr, inputs: Sequence[str], integer: bool = False, dtype: DType = DType.F32
) -> str:
    """A formula as one scalar C++ expression, on floats or on integers and truth values.

    Args:
        dtype: of the constants of a formula on floats.
    """
    done: dict[Expr, str] = {}
    pending = [expr]
    while pending:
        node = pending[-1]
        if node in done:
            pending.pop()
            continue
        missing = [arg for arg in node.args if arg not in done]
        if missing:
            pending.extend(missing)
            continue
        pending.pop()
        if node.kind in BY_DEFINITION:
            written_out = BY_DEFINITION[node.kind](input_(0))
            done[node] = spell_scalar(written_out, [done[node.args[0]]], integer, dtype)
        elif node.kind == "input":
            done[node] = inputs[int(node.value)]
        elif node.kind == "const":
            done[node] = _whole(int(node.value)) if integer else literal(node.value, dtype)
        elif integer and node.kind in _INTEGER:
            done[node] = _INTEGER[node.kind].format(*(done[arg] for arg in node.args))
        else:
            done[node] = SCALAR.op(node.kind, *(done[arg] for arg in node.args))
    return done[expr]


def _whole(value: int) -> str:
    """An integer in a formula."""
    if value == -(1 << 63):
        return "std::numeric_limits<std::int64_t>::lowest()"
    return str(value) if value < 1 << 63 else f"{value}U"


def integer_functions() -> tuple[Microkernel, ...]:
    """The helpers that formulas on integers and FloorMod call."""
    return (floor_mod(), integer_division(), integer_remainder(), integer_mod(), integer_power())


def integer_division() -> Microkernel:
    """IntegerDiv(a, b), for any integers."""
    text = """\
// a / b towards zero; 0 where b is 0, and no trap where the quotient does not fit.
template <typename A, typename B>
inline A IntegerDiv(A a, B b) {
  if (b == 0) return 0;
  if (std::is_signed<B>::value && b == static_cast<B>(-1)) {
    return static_cast<A>(0U - static_cast<std::uint64_t>(a));
  }
  return static_cast<A>(a / b);
}
"""
    return Microkernel("IntegerDiv", text, includes=("cstdint", "type_traits"))


def integer_remainder() -> Microkernel:
    """IntegerRemainder(a, b), for any integers."""
    text = """\
// What a / b towards zero leaves, with the sign of a; 0 where b is 0.
template <typename A, typename B>
inline A IntegerRemainder(A a, B b) {
  if (b == 0 || (std::is_signed<B>::value && b == static_cast<B>(-1))) return 0;
  return static_cast<A>(a % b);
}
"""
    return Microkernel("IntegerRemainder", text, includes=("type_traits",))


def integer_mod() -> Microkernel:
    """IntegerMod(a, b), for any integers."""
    text = """\
// a mod b with the sign of b; 0 where b is 0.
template <typename A, typename B>
inline A IntegerMod(A a, B b) {
  const A rest = IntegerRemainder(a, b);
  // Neither is 0, so that a number below 1 is negative.
  return static_cast<A>(rest != 0 && (rest < 1) != (b < 1) ? rest + b : rest);
}
"""
    return Microkernel("IntegerMod", text, (integer_remainder(),))


def integer_power() -> Microkernel:
    """IntegerPow(a, n), exact where it fits."""
    text = """\
// a to the power of n, its lowest bits where it does not fit; of a negative n rounded to zero.
template <typename T, typename N>
inline T IntegerPow(T a, N n) {
  if (std::is_signed<N>::value && n < static_cast<N>(1) && n != static_cast<N>(0)) {
    if (a == static_cast<T>(1)) return 1;
    const bool minus_one = std::is_signed<T>::value && a == static_cast<T>(-1);
    return minus_one ? (n % 2 == 0 ? static_cast<T>(1) : a) : static_cast<T>(0);
  }
  std::uint64_t result = 1;
  std::uint64_t power = static_cast<std::uint64_t>(a);
  for (std::uint64_t left = static_cast<std::uint64_t>(n); left != 0; left >>= 1U) {
    if ((left & 1U) != 0) result *= power;
    power *= power;
  }
  return static_cast<T>(result);
}
"""
    return Microkernel("IntegerPow", text, includes=("cstdint", "type_traits"))


def floor_mod() -> Microkernel:
    """FloorMod(a, b) on floats or doubles."""
    text = """\
// a mod b with the sign of b.
template <typename T>
inline T FloorMod(T a, T b) {
  const T rest = std::fmod(a, b);
  return (rest != 0 && (rest < 0) != (b < 0)) ? rest + b : rest;
}
"""
    return Microkernel("FloorMod", text, includes=("cmath",))


_INTEGER = {
    "div": "IntegerDiv({0}, {1})",
    "trunc_div": "IntegerDiv({0}, {1})",
    "pow": "IntegerPow({0}, {1})",
    "abs": "({0} < 0 ? -{0} : {0})",
    "mod": "IntegerMod({0}, {1})",
    "fmod": "IntegerRemainder({0}, {1})",
    "bit_and": "({0} & {1})",
    "bit_or": "({0} | {1})",
    "bit_xor": "({0} ^ {1})",
    "bit_not": "(~{0})",
    # What is outside of 0 to the width less one shifts everything out; signs stay.
    "shift_left": "(static_cast<std::uint64_t>({1}) > 63 ? 0"
    " : static_cast<std::uint64_t>({0}) << {1})",
    "shift_right": "(static_cast<std::uint64_t>({1}) < sizeof({0}) * 8 ? {0} >> {1}"
    " : {0} >> (sizeof({0}) * 8 - 1) >> 1)",
}
