"""The epilogue of a layer that is computed element by element."""

from __future__ import annotations

from mdlc.codegen.code import Microkernel
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.formula import floor_mod, spell_scalar
from mdlc.compiler.expr import input_
from mdlc.compiler.types import DType


def epilogue_value(
    epilogue: Epilogue,
    total: str,
    *,
    slope: str,
    residual: str,
    dtype: DType,
    needs: list[Microkernel],
) -> tuple[str, tuple[str, ...]]:
    """The result for one element as C++, and the headers that it takes.

    Args:
        total: a C++ variable, the sum with its bias.
        slope, residual: C++ of the activation's operand and of what is added, where there are any.
        needs: helpers, to which those of the formula are added.
    """
    value = f"{total} + {residual}" if epilogue.residual else total
    activation = epilogue.activation
    if activation is not None:
        operands = [f"({value})", slope][: activation.arity]
        formula = activation.expr(*(input_(i) for i in range(activation.arity)))
        value = spell_scalar(formula, operands, dtype=dtype)
    if "FloorMod" in value:
        needs.append(floor_mod())
    headers = {"cmath": "std::", "limits": "numeric_limits"}
    return value, tuple(name for name, used in headers.items() if used in value)
