"""exp, log, tanh, erf, sigmoid and GELU as formulas of the primitives that every SIMD target has.

The polynomials for exp, log and tanh are those of the Cephes library's single precision
functions (S. L. Moshier, Methods and Programs for Mathematical Functions, 1989); erf joins a
Taylor series around 0 with formula 7.1.26 of Abramowitz and Stegun.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mdlc.compiler.expr import Expr, Operand, call, less, maximum, minimum, select, wrap

_SMALLEST_NORMAL = 2.0**-126


def _polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """Horner's scheme, highest power first."""
    value: Operand = coefficients[0]
    for coefficient in coefficients[1:]:
        value = call("fma", value, x, coefficient)
    return wrap(value)


def exp(x: Expr) -> Expr:
    """e ** x within 2 ULP; overflows to infinity, underflows gradually."""
    bounded = minimum(maximum(x, -104.0), 89.0)
    n = call("round", bounded * (1 / math.log(2)))
    r = call("fma", n, -0.693359375, bounded)
    r = call("fma", n, 2.12194440e-4, r)
    p = _polynomial(
        r,
        (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
         5.0000001201e-1),
    )  # fmt: skip
    y = call("fma", p, r * r, r) + 1
    # 2 ** n in two steps: n reaches beyond the exponents of finite floats.
    half = call("floor", n * 0.5)
    return y * call("exp2i", half) * call("exp2i", n - half)


def _in_groups(x: Expr, coefficients: Sequence[float], size: int = 2) -> Expr:
    """A polynomial, lowest power first, in groups of terms: sums of few wait for another.

    A multiply-add writes to its summand on many machines, and a constant there must be copied
    first: here only one of each group is.
    """
    powers: list[Operand] = [1, x]
    while len(powers) <= size:
        powers.append(wrap(powers[-1]) * x)
    value: Expr | None = None
    for first in reversed(range(0, len(coefficients), size)):
        group: Operand = coefficients[first]
        for power, coefficient in zip(
            powers[1:], coefficients[first + 1 : first + size], strict=False
        ):
            group = call("fma", power, coefficient, group)
        value = wrap(group) if value is None else call("fma", value, powers[size], group)
    assert value is not None
    return value


def exp2_negative(t: Expr) -> Expr:
    """2 ** t for t up to 0 (or little above) within 2e-7 of itself; 0 from -126.5 down.

    The polynomial is 2 ** f - 1 for |f| up to 1 / 2, minimax of the relative error of 2 ** f.
    """
    biased = maximum(t, -127.0) + _BIAS
    f = maximum(t, -127.0) - (biased - _BIAS)
    power = call("exp2_biased", biased)
    return call("fma", f * power, _in_groups(f, _EXP2), power)


def gelu(x: Expr) -> Expr:
    """x times the normal distribution's cumulative function F, within 3e-7 of the larger of the
    result and 1, and within 3e-7 of itself above 0.

    max(x, 0) - |x| F(-|x|), where F(-a) is 2 ** t of a polynomial t, minimax of the relative error
    of F(a) for a up to 6. Beyond, where a F(-a) is below 6e-9, it is taken as at 6.
    """
    a = minimum(call("abs", x), 6.0)
    t = _in_groups(a, (-1.0, *_LOG2_NORMAL))
    biased = t + _BIAS
    f = t - (biased - _BIAS)
    below = a * _in_groups(f, (1.0, *_EXP2))
    return call("fma", -below, call("exp2_biased", biased), maximum(x, 0.0))


def gelu_by_erf(x: Expr) -> Expr:
    """The same as defined, for targets that have no exponent fields."""
    return x * 0.5 * (call("erf", x * math.sqrt(0.5)) + 1)


# See `exp2_biased` in compiler/expr.py.
_BIAS, _HALF_BIAS = 1.5 * 2**23 + 127, 1.5 * 2**10 + 15
_LOG2_NORMAL = (-1.1511072948407501, -0.4591795697584191, -0.05261476161084354,
                0.007277256035618561, -0.0003287766412695634, -9.753279140237545e-05,
                1.93912235464373e-05, -1.1123171784270418e-06)  # fmt: skip
_EXP2 = (0.6931469776600686, 0.2402224207640507, 0.055507336922794547, 0.009671513080673794,
         0.0013264738384034854)  # fmt: skip


def log(x: Expr) -> Expr:
    """Natural logarithm within 2 ULP; -inf at 0, NaN below."""
    # Subnormal numbers have no exponent of their own: their logarithm is that of 2^23 as much.
    subnormal = less(x, _SMALLEST_NORMAL)
    scaled = select(subnormal, x * 2.0**23, x)
    exponent, mantissa = Expr("exponent", (scaled,)), Expr("mantissa", (scaled,))
    exponent = exponent - select(subnormal, 23, wrap(0))
    large = less(math.sqrt(2), mantissa)
    f = select(large, mantissa * 0.5, mantissa) - 1
    e = select(large, exponent + 1, exponent)
    z = f * f
    p = _polynomial(
        f,
        (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
         -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
    )  # fmt: skip
    y = call("fma", e, -2.12194440e-4, p * f * z)
    y = call("fma", e, 0.693359375, call("fma", z, -0.5, y) + f)
    y = select(call("eq", x, math.inf), math.inf, y)
    y = select(call("eq", x, 0), -math.inf, y)
    return select(call("le", 0, x), y, math.nan)


def tanh(x: Expr) -> Expr:
    """Hyperbolic tangent within 3 ULP."""
    z = x * x
    p = _polynomial(
        z,
        (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1,
         -3.33332819422e-1),
    )  # fmt: skip
    small = call("fma", p * z, x, x)
    t = call("exp", call("abs", x) * -2)
    large = (1 - t) / (1 + t)
    signed = select(less(x, 0), -large, large)
    return select(less(call("abs", x), 0.625), small, signed)


def erf(x: Expr) -> Expr:
    """Error function within 2e-7."""
    z = x * x
    series = _polynomial(
        z,
        (-8.5483270e-4, 5.2239776e-3, -2.6866171e-2, 1.1283792e-1, -3.7612639e-1, 1.1283792),
    )
    magnitude = call("abs", x)
    t = 1 / call("fma", magnitude, 0.3275911, 1)
    p = _polynomial(t, (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592))
    large = 1 - p * t * call("exp", -z)
    signed = select(less(x, 0), -large, large)
    return select(less(magnitude, 0.5), series * x, signed)


def sigmoid_by_exp(x: Expr) -> Expr:
    """1 / (1 + e ** -x), for targets that have exp."""
    return 1 / (call("exp", -x) + 1)


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + e ** -x) within 2e-7 + 8e-8 |x| of itself, which is what rounding x once would make
    of it; 2 ** -126 from there down."""
    t = minimum(maximum(x * -math.log2(math.e), -127.0), 126.0)
    biased = t + _BIAS
    f = t - (biased - _BIAS)
    power = call("exp2_biased", biased)
    return 1 / call("fma", f * power, _in_groups(f, _EXP2), power + 1)


def sigmoid_half(x: Expr) -> Expr:
    """1 / (1 + e ** -x) in half precision within 2 ULP; 0 from -10.75 down (off by 3e-5).

    e ** -x = 2 ** n * e ** -r with n the integer nearest to -x / ln 2, and ln 2 in two parts, the
    first of so few bits that n times it is exact. The polynomial is of (e ** -r - 1 + r) / r ** 2
    for |r| up to ln 2 / 2 (minimax of the relative error of e ** -r, by linear programming on a
    grid).
    """
    bounded = minimum(maximum(x, -11.4), 10.7)
    biased = call("fma", bounded, -1 / math.log(2), _HALF_BIAS)
    n = biased - _HALF_BIAS
    r = call("fma", n, 0.0017408, call("fma", n, 0.69140625, bounded))
    series = call("fma", r, 0.1666221636, -0.50409467)
    power = 1 - call("fma", series, r * r, r)
    return 1 / (call("fma", power, call("exp2_biased", biased), 1))


FUNCTIONS: dict[str, Callable[[Expr], Expr]] = {
    "exp": exp,
    "log": log,
    "tanh": tanh,
    "erf": erf,
    "sigmoid": sigmoid,
    "exp2_negative": exp2_negative,
    "gelu": gelu,
}
# The same for targets that have no exponent fields: plain C++ and Metal.
BY_DEFINITION: dict[str, Callable[[Expr], Expr]] = {"gelu": gelu_by_erf}
# Those that are computed in half precision where vectors are of halves; others in float.
HALF_FUNCTIONS: dict[str, Callable[[Expr], Expr]] = {"sigmoid": sigmoid_half}
FORMULAS = {
    "exp": "e ** x: 2 ** n times a polynomial of the rest (Cephes expf)",
    "log": "natural logarithm: exponent and a polynomial of the mantissa (Cephes logf)",
    "tanh": "hyperbolic tangent: a polynomial near 0, else by exp (Cephes tanhf)",
    "erf": "error function: a series near 0, else Abramowitz and Stegun 7.1.26",
    "gelu": "max(x, 0) - |x| F(-|x|), F the normal distribution's, as a power of 2",
    "exp2_negative": "2 ** x for x up to 0: an exponent field times a polynomial of the rest",
    "sigmoid": "1 / (1 + e ** -x), the power as 2 ** n times a polynomial of the rest",
}
