"""What happens to an accumulator before it is stored: residual sum and activation."""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.codegen.code import Microkernel
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.tiles.formula import element_function, stem
from mdlc.compiler.op import Elementwise


@dataclass(frozen=True)
class Epilogue:
    """y = activation(bias + accumulator [+ residual] [, the activation's per-channel operand])."""

    activation: Elementwise | None = None
    residual: bool = False
    bias: bool = True

    @property
    def slope(self) -> bool:
        """Whether the activation takes a per-channel operand."""
        return self.activation is not None and self.activation.arity == 2

    @property
    def stem(self) -> str:
        """The activation in a C++ name: relu, clip_0_6, ... or nothing."""
        return stem(self.activation) if self.activation else ""

    @property
    def suffix(self) -> str:
        """The ending of names of functions with this epilogue: _add_relu, _relu6 or nothing."""
        parts = [] if self.bias else ["nobias"]
        parts += ["add"] if self.residual else []
        parts += [self.stem] if self.stem else []
        return "".join(f"_{part}" for part in parts)

    @property
    def arguments(self) -> list[str]:
        """Names of the arrays that it reads."""
        used = {"bias": self.bias, "slope": self.slope, "residual": self.residual}
        return [name for name, read in used.items() if read]

    def formula(self, accumulated: str, index: str = "n") -> str:
        """The epilogue around a scalar formula, for comments; `index` is the channel's."""
        text = f"{accumulated} + residual[p][{index}]" if self.residual else accumulated
        if self.activation is None:
            return text
        return f"{self.stem}({text}{f', slope[{index}]' if self.slope else ''})"

    def function(self, isa: Dialect) -> Microkernel | None:
        """The activation as a function on vectors."""
        if self.activation is None:
            return None
        return element_function(self.activation, isa)
