"""Formulas (compiler/expr.py) spelled in the Metal shading language, four elements at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.tiles.vector_math import BY_DEFINITION, erf, sigmoid_by_exp
from mdlc.compiler.expr import Expr, input_, primitives_of
from mdlc.compiler.op import Elementwise

MASKS = frozenset({"lt", "le", "eq", "is_nan", "and", "or", "xor", "not"})
LONGEST_INLINE = 60
# What rounds at most once: such formulas are computed in half precision, others in float.
_EXACT = frozenset({"neg", "abs", "min", "max", "select", *MASKS})
_ROUNDED = frozenset({"add", "sub", "mul"})
_INTEGER = frozenset({"add", "sub", "mul", "trunc_div", "mod", "fmod", "div", *_EXACT}) - {"is_nan"}
# Formulas whose value at an arbitrary finite argument may be infinite or not a number.
_RISKY = frozenset(
    {"div", "log", "pow", "mod", "fmod", "exp", "sqrt", "tan", "asin", "acos", "sinh", "cosh",
     "acosh", "atanh"}
)  # fmt: skip

_SPELL = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "min": "min({0}, {1})",
    "max": "max({0}, {1})",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "eq": "{0} == {1}",
    "is_nan": "isnan({0})",
    "and": "{0} && {1}",
    "or": "{0} || {1}",
    "xor": "{0} != {1}",
    "not": "!{0}",
    "select": "select({2}, {1}, {0})",
    "fma": "fma({0}, {1}, {2})",
    "round": "rint({0})",
    "exp2i": "exp2({0})",
    "mod": "{0} - {1} * floor({0} / {1})",
    "trunc_div": "trunc({0} / {1})",
}
_CALLS = (
    "abs", "sqrt", "floor", "ceil", "exp", "log", "tanh", "sin", "cos", "tan", "asin", "acos",
    "atan", "sinh", "cosh", "asinh", "acosh", "atanh",
)  # fmt: skip
_SPELL |= {name: f"{name}({{0}})" for name in _CALLS}
_SPELL |= {name: f"{name}({{0}}, {{1}})" for name in ("pow", "fmod")}
_EXPANDED = {"erf": erf, "sigmoid": sigmoid_by_exp, **BY_DEFINITION}
_SPELL_INTEGER = {
    "mod": "(({0} % {1}) + {1}) % {1}",
    "fmod": "{0} % {1}",
    "div": "{0} / {1}",
    "trunc_div": "{0} / {1}",
}
# Precedence, for parentheses: what is absent is a call or a name.
_BINDING = {
    "or": 1, "and": 2, "xor": 3, "eq": 3, "lt": 4, "le": 4, "add": 5, "sub": 5, "mul": 6,
    "div": 6, "mod": 5, "neg": 7, "not": 7,
}  # fmt: skip


@dataclass(frozen=True)
class Spelled:
    """A formula as text: statements that name parts, and the result."""

    statements: tuple[str, ...]
    result: str


def literal(value: float, vector: str) -> str:
    """A constant as a vector."""
    if vector.startswith("int"):
        return f"{vector}({int(value)})"
    suffix = "h" if vector.startswith("half") else "f"
    if math.isinf(value):
        return f"{vector}({'-' if value < 0 else ''}INFINITY)"
    if math.isnan(value):
        return f"{vector}(NAN)"
    text = repr(float(str(np.float32(value))))
    return f"{vector}({text}{suffix})"


def formula(op: Elementwise) -> Expr:
    """The operator's formula, with functions that Metal lacks expanded."""
    return expand(op.expr(*(input_(i) for i in range(op.arity))))


def expand(expr: Expr) -> Expr:
    """The formula with erf, the sigmoid and GELU written out."""
    args = tuple(expand(arg) for arg in expr.args)
    if expr.kind in _EXPANDED:
        return expand(_EXPANDED[expr.kind](args[0]))
    if expr.kind == "eq" and args[0] == args[1]:  # clang knows that it compares one with itself
        return Expr("not", (Expr("is_nan", (args[0],)),))
    return Expr(expr.kind, args, expr.value)


def _on_integers(expr: Expr) -> Expr:
    """The formula where nothing is NaN."""
    if expr.kind == "select" and expr.args[0] == Expr("not", (Expr("is_nan", (expr.args[2],)),)):
        return _on_integers(expr.args[1])
    return Expr(expr.kind, tuple(map(_on_integers, expr.args)), expr.value)


def constants(expr: Expr) -> set[float]:
    """All numbers in a formula."""
    found = {float(expr.value)} if expr.kind == "const" else set()
    for arg in expr.args:
        found |= constants(arg)
    return found


def precision(expr: Expr) -> str:
    """half4 where at most one rounding happens and all constants are exact enough, else float4."""
    kinds = primitives_of(expr)
    rounded = Counter(_nodes(expr))
    roundings = sum(rounded[kind] for kind in _ROUNDED)
    exact = all(math.isinf(v) or float(np.float16(v)) == v for v in constants(expr))
    simple = kinds <= _EXACT | _ROUNDED and roundings <= 1
    return "half4" if simple and exact else "float4"


def _nodes(expr: Expr) -> list[str]:
    seen: dict[Expr, None] = {}
    pending = [expr]
    while pending:
        node = pending.pop()
        if node not in seen:
            seen[node] = None
            pending.extend(node.args)
    return [node.kind for node in seen]


def integral(expr: Expr) -> bool:
    """Whether the formula has a meaning on int4."""
    return primitives_of(_on_integers(expr)) <= _INTEGER


def risky(expr: Expr) -> bool:
    """Whether a finite argument may give no finite value."""
    return bool(primitives_of(expr) & _RISKY)


def spell(expr: Expr, vector: str, inputs: Sequence[str]) -> Spelled:
    """A formula on vectors.

    Args:
        inputs: expressions of type `vector` (or bool4 where the formula reads a mask).
    """
    integer = vector.startswith("int")
    expr = _on_integers(expr) if integer else expr
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
    text: dict[Expr, tuple[str, int]] = {}
    statements: list[str] = []
    for node in order:
        if node.kind == "input":
            text[node] = (inputs[int(node.value)], 9)
            continue
        if node.kind == "const":
            text[node] = (literal(node.value, vector), 9)
            continue
        binding = _BINDING.get(node.kind, 9)
        table = {**_SPELL, **(_SPELL_INTEGER if integer else {})}
        pattern = table[node.kind]
        call = binding == 9 and pattern.endswith(")") and not pattern.startswith("(")
        if integer and node.kind in ("mod", "fmod", "trunc_div", "div"):
            binding, call = 6, False
        operands = []
        for place, arg in enumerate(node.args):
            inner, own = text[arg]
            if node.kind in ("and", "or", "xor", "not") and arg.kind in ("lt", "le", "eq"):
                inner, own = f"bool4({inner})", 9
            needs = not call and (own < binding or (own == binding and place > 0) or own < 5)
            operands.append(f"({inner})" if needs else inner)
        if integer and node.kind in ("mod", "fmod", "trunc_div", "div"):
            divisor = node.args[1]
            if divisor.kind != "const" or not divisor.value:
                # Lanes behind the last channel may hold zeros.
                zero = f"{operands[1]} == int4(0)"
                operands[1] = f"select({operands[1]}, int4(1), {zero})"
        spelled = pattern.format(*operands)
        if node.kind == "mod" and not integer:
            spelled = "{0} - {1} * floor({0} / {1})".format(*(f"({text[a][0]})" for a in node.args))
            binding = 5
        if node is not expr and (uses[node] > 1 or len(spelled) > LONGEST_INLINE):
            name = f"t{len(statements)}"
            kind = "bool4" if node.kind in MASKS else vector
            statements.append(f"const {kind} {name} = {spelled};")
            text[node] = (name, 9)
        else:
            text[node] = (spelled, binding)
    return Spelled(tuple(statements), text[expr][0])
