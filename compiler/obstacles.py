"""Importing with every obstacle noted instead of stopping at the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node, ancestors
from mdlc.compiler.onnx_control import Value
from mdlc.compiler.onnx_load import describe, names_read, subgraphs
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.types import DType, TensorType


@dataclass(frozen=True)
class Obstacle:
    """What keeps a model from being imported.

    Attributes:
        error: what is said of it.
        proto: the ONNX node; None where it is about an input, an output or the whole model.
        values: the tensors that the node may read, where there is one.
        known: whether mdlc has the operator.
    """

    error: MdlcError
    proto: onnx.NodeProto | None = None
    values: Mapping[str, Value] = field(default_factory=dict)
    known: bool = True

    @property
    def read(self) -> dict[str, Node]:
        """The tensors that the node reads, by name."""
        names = () if self.proto is None else _in_order(self.proto)
        found = ((name, self.values.get(name)) for name in names)
        return {name: value for name, value in found if isinstance(value, Node)}


def _in_order(proto: onnx.NodeProto) -> list[str]:
    """What a node reads: its inputs, then what its subgraphs capture."""
    captured = sorted(names_read(proto) - set(proto.input)) if subgraphs(proto) else []
    return [*dict.fromkeys(name for name in proto.input if name), *captured]


class Obstacles:
    """What stood in the way of an import so far.

    Outputs of a node that is not imported are stood in for by inputs of the shapes that ONNX's
    shape inference or the model gives, so that what follows is looked at, too.

    Attributes:
        found: in the order of the nodes.
        unseen: nodes that could not be looked at, for what they read has no known shape.
        stand_ins: tensors in place of those that are not imported.
    """

    def __init__(self, types: Mapping[str, TensorType] | None = None) -> None:
        """Args:
        types: of tensors, as far as they are known without mdlc.
        """
        self.found: list[Obstacle] = []
        self.unseen: list[str] = []
        self.stand_ins: dict[str, Node] = {}
        self._types = types or {}
        self._missing: set[str] = set()
        self._told: set[tuple[str | None, str]] = set()

    def add(self, obstacle: Obstacle) -> None:
        """Notes an obstacle, once."""
        key = (obstacle.error.node, obstacle.error.reason)
        if key not in self._told:
            self._told.add(key)
            self.found.append(obstacle)

    def value(
        self,
        proto: onnx.NodeProto,
        values: Mapping[str, Value],
        known: bool,
        imported: Callable[[], Sequence[Value]],
    ) -> Sequence[Value | None]:
        """What the outputs of a node stand for; None where that is not known.

        Args:
            known: whether mdlc has the operator.
            imported: imports the node; may raise MdlcError.
        """
        if any(name and name not in values for name in proto.input) or (
            self._missing & names_read(proto)
        ):
            self._missing |= set(proto.output)
            self.unseen.append(describe(proto))
            return [None] * len(proto.output)
        before = len(self.found), len(self.unseen)
        try:
            return imported()
        except MdlcError as error:
            # Behind an obstacle in a body, or a size that a stand-in hides, there is no other one.
            if before == (len(self.found), len(self.unseen)):
                if known and self._follows(proto, values):
                    self.unseen.append(describe(proto))
                else:
                    self.add(Obstacle(error, proto, dict(values), known))
            return [self._stand_in(name) for name in proto.output]

    def _follows(self, proto: onnx.NodeProto, values: Mapping[str, Value]) -> bool:
        """Whether a node reads integers that are computed from a stand-in: sizes, most often."""
        stand_ins = set(self.stand_ins.values())
        sizes = [
            value
            for name in proto.input
            if isinstance(value := values.get(name), Node)
            and value.type.dtype in (DType.I32, DType.I64)
        ]
        return not stand_ins.isdisjoint(ancestors(sizes))

    def _stand_in(self, name: str) -> Node | None:
        kind = self._types.get(name)
        if not name or kind is None:
            self._missing.add(name)
            return None
        return self.stand_ins.setdefault(name, graph_input(name, kind.shape, kind.dtype))
