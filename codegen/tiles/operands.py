"""Operands of layers that read constants and run-time tensors alike, and indices computed on."""

from __future__ import annotations

from collections.abc import Sequence

from mdlc.codegen.code import C_TYPES, Microkernel
from mdlc.compiler.ir import Node
from mdlc.compiler.types import Array, DType


def constants_of(node: Node, names: Sequence[str]) -> dict[str, Array]:
    """The constants among a node's inputs as they lie in memory, under the names of its inputs."""
    return {
        name: source.type.to_physical(source.constant)
        for name, source in zip(names, node.inputs, strict=False)
        if source.constant is not None
    }


def runtime_of(node: Node, names: Sequence[str]) -> list[str]:
    """The names of a node's run-time inputs, among the names of all of its inputs."""
    each = zip(names, node.inputs, strict=False)
    return [name for name, source in each if source.constant is None]


def sum_type(dtype: DType) -> str:
    """The C++ type in which elements are summed: integers wrap around at the end only."""
    if dtype.is_float:
        return C_TYPES[dtype]
    return "std::uint64_t" if dtype.value.startswith("u") else "std::int64_t"


def nearest_index() -> Microkernel:
    """Indices of which those outside an axis become the nearest inside."""
    text = """\
// An index into `length` entries: a negative one counts from the end, and one outside is the
// nearest inside, so that nothing else is read.
inline std::int64_t nearest_index(std::int64_t index, std::int64_t length) {
  if (index < 0) index += length;
  return index < 0 ? 0 : (index < length ? index : length - 1);
}
"""
    return Microkernel("nearest_index", text, includes=("cstdint",))


def index_or_none() -> Microkernel:
    """Indices of which those outside an axis become -1."""
    text = """\
// An index into `length` entries: a negative one counts from the end; -1 for one outside.
inline std::int64_t index_or_none(std::int64_t index, std::int64_t length) {
  if (index < 0) index += length;
  return index >= 0 && index < length ? index : -1;
}
"""
    return Microkernel("index_or_none", text, includes=("cstdint",))
