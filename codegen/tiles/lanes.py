"""The lanes of a vector combined into one number."""

from __future__ import annotations

from mdlc.codegen.code import Microkernel
from mdlc.codegen.isa.dialect import Dialect


def horizontal(isa: Dialect, combine: str) -> Microkernel | None:
    """A function that combines the lanes of a vector, where the ISA has no intrinsic for it."""
    hook = f"reduce_{combine}"
    if hook in isa.spell or isa.lanes == 1:
        return None
    operator = {
        "add": "acc += lanes[i]",
        "mul": "acc *= lanes[i]",
        "max": "acc = lanes[i] > acc ? lanes[i] : acc",
        "min": "acc = lanes[i] < acc ? lanes[i] : acc",
    }[combine]
    name = f"reduce_{combine}_f32_{isa.suffix}"
    text = f"""// All lanes of v combined.
inline float {name}({isa.vector} v) {{
  float lanes[{isa.lanes}];
  {isa.store("lanes", "v")};
  float acc = lanes[0];
  for (int i = 1; i < {isa.lanes}; ++i) {{
    {operator};
  }}
  return acc;
}}
"""
    return Microkernel(name, text)


def lanes_combined(isa: Dialect, combine: str, vector: str) -> str:
    """The scalar of a vector's lanes combined."""
    helper = horizontal(isa, combine)
    return f"{helper.name}({vector})" if helper else isa.op(f"reduce_{combine}", vector)
