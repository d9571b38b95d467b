"""Loads and stores of the first few elements of a vector, for channel counts that leave a tail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mdlc.codegen.code import Microkernel
from mdlc.codegen.isa.dialect import Dialect


@dataclass(frozen=True)
class Part:
    """How a partial access is spelled, and the helper function that it needs, if any."""

    spell: Callable[..., str]
    helper: Microkernel | None = None


def load_part(isa: Dialect, count: int | str) -> Part:
    """`spell(pointer)`: a vector whose first `count` lanes are read, the others zero."""
    if "load_part" in isa.spell:
        return Part(lambda pointer: isa.op("load_part", pointer, count))
    name = f"load_part_{isa.kind}_{isa.suffix}"
    text = f"""// The first kCount elements at p, zeros behind them.
template <int kCount>
inline {isa.vector} {name}(const {isa.element}* p) {{
  {isa.element} lanes[{isa.lanes}] = {{}};
  std::memcpy(lanes, p, kCount * sizeof({isa.element}));
  return {isa.load("lanes")};
}}
"""
    helper = Microkernel(name, text, includes=("cstring",))
    return Part(lambda pointer: f"{name}<{count}>({pointer})", helper)


def store_part(isa: Dialect, count: int | str) -> Part:
    """`spell(pointer, vector)`: writes the first `count` lanes."""
    if "store_part" in isa.spell:
        return Part(lambda pointer, vector: isa.op("store_part", pointer, vector, count))
    name = f"store_part_{isa.kind}_{isa.suffix}"
    text = f"""// Writes the first kCount lanes of v to p.
template <int kCount>
inline void {name}({isa.element}* p, {isa.vector} v) {{
  {isa.element} lanes[{isa.lanes}];
  {isa.store("lanes", "v")};
  std::memcpy(p, lanes, kCount * sizeof({isa.element}));
}}
"""
    helper = Microkernel(name, text, includes=("cstring",))
    return Part(lambda pointer, vector: f"{name}<{count}>({pointer}, {vector})", helper)
