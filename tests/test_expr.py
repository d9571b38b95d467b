"""Formulas mean what the references mean: evaluated in numpy, with no code generated."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import mdlc.compiler.ops  # noqa: F401
from mdlc.compiler.expr import PRIMITIVES, Expr, call, input_, primitives_of
from mdlc.compiler.op import Elementwise, Op, Sample
from mdlc.compiler.types import Array, DType
from tests.op_samples import samples


def _fmod_floor(a: Array, b: Array) -> Array:
    rest = np.fmod(a, b)
    return np.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)


def _divide(a: Array, b: Array) -> Array:
    """C++'s division: towards zero on integers."""
    if a.dtype.kind in "iu":
        return np.trunc(a.astype(np.float64) / b).astype(a.dtype)
    return a / b


_ERF = np.vectorize(math.erf, otypes=[np.float64])

# What each primitive computes; the names of PRIMITIVES, with C++'s meaning.
MEANING: dict[str, Callable[..., Array]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": _divide, "trunc_div": _divide,
    "min": np.minimum, "max": np.maximum, "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt,
    "fma": lambda a, b, c: a * b + c, "floor": np.floor, "ceil": np.ceil, "round": np.rint,
    "exp2_biased": lambda x: (x.astype(np.float32).view(np.uint32) << 23).view(np.float32),
    "exp2i": np.exp2, "lt": np.less, "le": np.less_equal, "eq": np.equal, "is_nan": np.isnan,
    "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, "not": np.logical_not,
    "select": np.where, "exp": np.exp, "log": np.log, "tanh": np.tanh, "erf": _ERF,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "gelu": lambda x: x * (1 + _ERF(x / 2**0.5)) / 2,
    "pow": lambda a, b: np.power(a.astype(np.float64), b),
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos,
    "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh, "mod": _fmod_floor, "fmod": np.fmod,
    "bit_and": np.bitwise_and, "bit_or": np.bitwise_or, "bit_xor": np.bitwise_xor,
    "bit_not": np.invert, "shift_left": np.left_shift, "shift_right": np.right_shift,
}  # fmt: skip


def evaluate(expr: Expr, inputs: tuple[Array, ...]) -> Array:
    """A formula on arrays; constants take the type of the first input."""
    if expr.kind == "input":
        return inputs[int(expr.value)]
    if expr.kind == "const":
        kind = next((x.dtype for x in inputs if x.dtype.kind != "b"), np.dtype(np.float32))
        return np.asarray(expr.value, kind)
    value = MEANING[expr.kind](*(evaluate(arg, inputs) for arg in expr.args))
    return np.asarray(value)


def elementwise_samples() -> list[pytest.ParameterSet]:
    return [p for p in samples() if isinstance(p.values[0].op, Elementwise)]


@pytest.mark.parametrize("sample", elementwise_samples())
def test_formula_agrees_with_reference(sample: Sample) -> None:
    op = sample.op
    assert isinstance(op, Elementwise)
    formula = op.expr(*(input_(i) for i in range(op.arity)))
    # Half precision is computed in single precision, as generated code does.
    inputs = tuple(x.astype(np.float32) if x.dtype == np.float16 else x for x in sample.inputs)
    with np.errstate(all="ignore"):
        value = evaluate(formula, inputs)
        expected = op.reference(*sample.inputs)
        actual = value.astype(expected.dtype)
    assert actual.shape == expected.shape
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(actual, expected, rtol=sample.rtol, atol=sample.atol)
    else:
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("sample", elementwise_samples())
def test_formula_is_a_mask_where_the_result_is_a_truth_value(sample: Sample) -> None:
    op = sample.op
    assert isinstance(op, Elementwise)
    given = [DType.from_numpy(x.dtype) for x in sample.inputs]
    formula = op.expr(*(input_(i) for i in range(op.arity)))
    masks = {"lt", "le", "eq", "is_nan", "and", "or", "xor", "not"}
    converts = formula.kind == "input"  # Cast
    assert converts or (op.result_dtype(*given) is DType.BOOL) == (formula.kind in masks)


def test_every_elementwise_operator_is_here() -> None:
    sampled = {type(p.values[0].op) for p in elementwise_samples()}
    every = {c for c in Op.registry.values() if issubclass(c, Elementwise) and c is not Elementwise}
    assert sampled == every


def test_every_primitive_has_a_meaning() -> None:
    assert set(MEANING) == set(PRIMITIVES)


def test_operands_are_counted() -> None:
    with pytest.raises(ValueError, match="add takes 2 operands, not 1"):
        call("add", 1.0)
    with pytest.raises(KeyError):
        call("nothing", 1.0)


def test_primitives_of_a_formula() -> None:
    x = input_(0)
    assert primitives_of(call("exp", -x) * 2 + x) == {"add", "mul", "exp", "neg"}
    assert primitives_of(x) == set()


def test_operators_build_the_formula_that_they_show() -> None:
    x = input_(0)
    values = (np.array([0.5, -3.0, 8.0], np.float32),)
    for formula, expected in (
        (2 - x, 2 - values[0]),
        (x - 2, values[0] - 2),
        (3 / x, 3 / values[0]),
        (x / 4, values[0] / 4),
        (1 + x * 2, 1 + values[0] * 2),
        (5 * -x, 5 * -values[0]),
    ):
        np.testing.assert_array_equal(evaluate(formula, values), expected)
