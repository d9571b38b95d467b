"""The base class of operators: everything about an operator stands in its one file in ops/."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.expr import BITWISE, Expr, input_, primitives_of
from mdlc.compiler.ir import make
from mdlc.compiler.types import Array, DType, TensorType
from mdlc.compiler.values import Values, evaluated, joined, largest_of, of_type

if TYPE_CHECKING:
    from mdlc.compiler.ir import Node
    from mdlc.compiler.onnx_node import OnnxNode


OnnxForm = tuple[str, dict[str, Any], tuple[Array | None, ...]]


class LayoutRule(enum.Enum):
    """How an operator treats the physical layout of rank-4 tensors.

    NATIVE: computes in NHWC: input 0 and the output are NHWC (other inputs stay plain).
    FOLLOWS: any layout, the same for all rank-4 data inputs and the output.
    BARRIER: plain inputs and a plain output.
    """

    NATIVE = "native"
    FOLLOWS = "follows"
    BARRIER = "barrier"


@dataclass(frozen=True)
class Cost:
    """Work of one node: multiply-adds, and bytes read and written with nothing cached."""

    macs: int
    bytes: int


@dataclass(frozen=True)
class Sample:
    """One case from which tests are derived: an operator on inputs.

    Attributes:
        op: the operator with its attributes.
        inputs: the values; float inputs are float32.
        constant: positions of inputs that are constants of the graph (weights).
        label: short, for the test's name.
        rtol, atol: bounds against ONNX Runtime and for generated code.
    """

    op: Op
    inputs: tuple[Array, ...]
    constant: tuple[int, ...] = ()
    label: str = ""
    rtol: float = 1e-4
    atol: float = 1e-5


@dataclass(frozen=True)
class Op:
    """An operator with its attributes; subclasses are frozen dataclasses.

    Class attributes:
        onnx: names of the ONNX operators that `from_onnx` of this class imports.
        layout_rule: see LayoutRule.
        channelwise: output channel c (axis 1) depends on channel c of the inputs alone.
        commutative: two inputs, in either order.
        foldable: computed at once where its inputs are constants.
    """

    onnx: ClassVar[tuple[str, ...]] = ()
    layout_rule: ClassVar[LayoutRule] = LayoutRule.BARRIER
    channelwise: ClassVar[bool] = False
    commutative: ClassVar[bool] = False
    foldable: ClassVar[bool] = True
    registry: ClassVar[dict[str, type[Op]]] = {}
    importers: ClassVar[dict[str, type[Op]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Op.registry[cls.__name__] = cls
        for name in cls.__dict__.get("onnx", ()):
            Op.importers[name] = cls

    @property
    def words(self) -> str:
        """The operator as comments in emitted text name it."""
        from mdlc.compiler.words import in_words

        return in_words(self)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node | Sequence[Node]:
        """The nodes for an ONNX node's outputs, in order.

        Raises:
            MdlcError: (through `n.error`) an attribute or input that is not supported.
        """
        raise n.error(f"operator {n.op_type} is not imported")

    def infer(self, *inputs: TensorType) -> TensorType:
        """The output's type; raises MdlcError where the inputs do not fit."""
        raise NotImplementedError(type(self).__name__)

    def reference(self, *inputs: Array) -> Array:
        """The meaning, in numpy, on logical arrays; the result has the inferred shape and dtype."""
        raise NotImplementedError(type(self).__name__)

    def term_magnitudes(self, *inputs: Array) -> Array | None:
        """What rounding errors of sums are relative to: the sums of the terms' magnitudes.

        Before the activation, where there is one. None for an operator that is no sum of
        products of its inputs.
        """
        return None

    def channel_map(
        self, inputs: Sequence[TensorType], output: TensorType
    ) -> tuple[Array | None, ...] | None:
        """Which input channel each output channel (both axis 1) lives and dies with.

        Returns:
            For each input an array of the input's channel for every output channel, or None
            where the input has no channels of its own (weights, broadcast operands); None
            altogether where the operator mixes channels. The default ties the channels of a
            channelwise operator.
        """
        if not self.channelwise or output.rank < 2:
            return None
        count = output.shape[1]
        maps: list[Array | None] = []
        for source in inputs:
            axis = 1 - (output.rank - source.rank)
            own = source.shape[axis] if axis >= 0 and source.rank else 1
            maps.append(np.arange(count) if own == count and count > 1 else None)
        return tuple(maps)

    def node_channel_map(self, node: Node) -> tuple[Array | None, ...] | None:
        """The same of a node, for operators whose channels depend on a constant input."""
        return self.channel_map([source.type for source in node.inputs], node.type)

    def with_channels(self, inputs: Sequence[TensorType], kept: Array) -> Op:
        """The operator for inputs of which only some channels are left.

        Args:
            inputs: the types that are left.
            kept: indices of the output channels that are left.
        """
        return self

    def on_channels(
        self, inputs: Sequence[Node], kept: Array, kept_inputs: Sequence[Array], name: str
    ) -> Node:
        """The node for inputs of which only some channels are left.

        Args:
            inputs: those that are left.
            kept, kept_inputs: masks of the channels that the output and every input had.
        """
        op = self.with_channels([source.type for source in inputs], np.flatnonzero(kept))
        return make(op, *inputs, name=name)

    # What passes and targets ask. Operators that only move elements answer `moves`, and the rest
    # follows from it; the other answers of this class claim nothing.

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        """Positions of the inputs that every element of the output is one of, if all are.

        A fill value of the operator's own (see `with_fill`) may stand among them. () for an
        operator that computes.
        """
        return ()

    def is_identity(self, x: TensorType) -> bool:
        """Whether the output is input 0, where both have the type x."""
        return False

    def same_scale(self, inputs: Sequence[TensorType]) -> bool:
        """Whether it is right on integers as they are: op(s * (q - z)) = s * (op(q) - z)."""
        return bool(self.moves(inputs))

    def with_fill(self, converted: Callable[[float], float]) -> Op:
        """The operator on what stands for its elements: a fill value is converted as they are."""
        return self

    def keeps_magnitude(self, inputs: Sequence[TensorType]) -> bool:
        """Whether elements may be as large as those of the inputs, and never larger (or than 1)."""
        return bool(self.moves(inputs))

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        """The output's axis on which entry i depends on entry i of `axis` of one input alone.

        None where there is no such axis: entries are mixed, or their order changes.
        """
        return None

    def merges(self, inputs: Sequence[TensorType], index: int, axis: int) -> tuple[int, int] | None:
        """The output's axis on which each entry of an input's `axis` became so many, in order."""
        return None

    def ignores(self, inputs: Sequence[TensorType], index: int, axis: int) -> float | None:
        """What entries of one input along `axis` may be so that they change nothing of the output.

        Entries behind those that count become that (the nearest value that the type has); asked
        where the output has no axis that follows. None where no value does.
        """
        return None

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        """How large the elements may become; see compiler/values.py.

        Args:
            node: a node of this operator; its inputs' constants may be looked at.
            inputs: what is known of the inputs, constants among them.
        """
        moved = self.moves([source.type for source in node.inputs])
        if moved:
            return self._moved_bounds(node, inputs, moved)
        if not inputs:
            return of_type(node.type.dtype)
        one = inputs[0].together()
        spread = np.maximum(1.0, one.deviation + abs(one.mean))
        return Values(np.array([largest_of(node.type.dtype)]), np.zeros(1), spread)

    def _moved_bounds(self, node: Node, inputs: Sequence[Values], moved: tuple[int, ...]) -> Values:
        maps = self.node_channel_map(node)
        if len(moved) > 1 or maps is None:
            return joined([inputs[index] for index in moved])
        (index,) = moved
        own, rank = maps[index], node.inputs[index].type.rank
        if own is None or (own < 0).any() or rank not in (2, 4) or node.type.rank not in (2, 4):
            return joined([inputs[index]])
        return inputs[index].of(node.inputs[index].shape[1]).chosen(own)

    def constant_channels(self, node: Node, known: Sequence[Array]) -> Array:
        """The value of every output channel (axis 1) that is the same everywhere, else NaN.

        Args:
            node: a node of this operator, of rank 2 or 4; constants are among its inputs.
            known: the same of every input, without its constants: NaN for all their channels.
        """
        unknown = np.full(node.shape[1], np.nan)
        if self.moves([source.type for source in node.inputs]) != (0,):
            return unknown
        maps = self.node_channel_map(node)
        own = None if maps is None else maps[0]
        return unknown if own is None or (own < 0).any() else known[0][own]

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        """Multiply-adds and bytes; the default counts data movement only."""
        return Cost(0, sum(t.nbytes for t in inputs) + output.nbytes)

    def to_onnx(self) -> OnnxForm | None:
        """The one ONNX operator (opset 20, default domain) that means the same; None if there is
        none: its name, attributes, and arrays to append as inputs (None for an absent one).
        Tests compare the two in ONNX Runtime."""
        return None

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        """Cases for the derived tests: usual, awkward and extreme shapes and attributes."""
        return ()

    def __str__(self) -> str:
        """The spelling in IR text: the fields that differ from their defaults."""
        shown = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.default is not dataclasses.MISSING and value == field.default:
                continue
            if isinstance(value, enum.Enum):
                value = value.value
            shown.append(
                f"{field.name}={value}" if isinstance(value, Op) else f"{field.name}={value!r}"
            )
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True)
class Elementwise(Op):
    """An operator computed element by element with numpy broadcasting.

    Subclasses give `expr` (the formula that code generation emits, spelled by each ISA) and,
    independently, `reference` in numpy.
    """

    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS
    channelwise: ClassVar[bool] = True
    arity: ClassVar[int] = 1

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        """Fields from ONNX attributes of the same names; inputs as they come."""
        given = {
            f.name: n.attr(f.name) for f in dataclasses.fields(cls) if n.attr(f.name) is not None
        }
        return n.make(cls(**given), *(n.input(i) for i in range(cls.arity)))

    def to_onnx(self) -> OnnxForm | None:
        return type(self).onnx[0], dataclasses.asdict(self), ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        if not cls.onnx:
            return ()
        return (unary_sample(cls()),) if cls.arity == 1 else binary_samples(cls(), integers=True)

    def expr(self, *x: Expr) -> Expr:
        """The formula on one element of each input."""
        raise NotImplementedError(type(self).__name__)

    def rounded_at(self, *inputs: Array) -> Array | None:
        """Magnitudes that roundings inside are relative to; None where that is the value itself.

        Sums that cancel lose what rounding their terms costs, however small what is left.
        """
        return None

    def result_dtype(self, *inputs: DType) -> DType:
        """Element type of the output; the default is that of the first input."""
        return inputs[0]

    def infer(self, *inputs: TensorType) -> TensorType:
        if len(inputs) != self.arity:
            raise MdlcError(f"{type(self).__name__} takes {self.arity} inputs, not {len(inputs)}")
        shape = broadcast_shapes(*(t.shape for t in inputs))
        return TensorType(shape, self.result_dtype(*(t.dtype for t in inputs)))

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(output.size, sum(t.nbytes for t in inputs) + output.nbytes)

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        shape = broadcast_shapes(*(each.shape for each in inputs))
        at = len(shape) - inputs[index].rank + axis
        return at if inputs[index].shape[axis] == shape[at] else None

    def bounded(self, *operands: Values) -> Values:
        """How large the results may become, of operands with as many channels.

        Functions that are largest in magnitude neither at 0 nor at an end of an interval around
        it answer for themselves.
        """
        return evaluated(self.reference, operands)

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        dtype = node.type.dtype
        formula = self.expr(*(input_(i) for i in range(self.arity)))
        if dtype is DType.BOOL or primitives_of(formula) & BITWISE:
            return of_type(dtype)
        channels = node.shape[1] if node.type.rank in (2, 4) else 1
        operands = [
            each.of(channels) if _by_channel(source, node) else each.together().of(channels)
            for each, source in zip(inputs, node.inputs, strict=True)
        ]
        found = self.bounded(*operands)
        if dtype.is_float:
            return found
        # Integers wrap around; those without a sign do so from below 0.
        limit = largest_of(dtype)
        wraps = dtype in (DType.U8, DType.U16, DType.U32, DType.U64)
        most = np.full_like(found.most, limit) if wraps else np.minimum(found.most, limit)
        return Values(most, found.mean, found.deviation)

    def constant_channels(self, node: Node, known: Sequence[Array]) -> Array:
        if not node.type.dtype.is_float:
            return np.full(node.shape[1], np.nan)
        operands = []
        for source, own in zip(node.inputs, known, strict=True):
            value = _per_channel(source, node, own)
            if value is None:
                return np.full(node.shape[1], np.nan)
            operands.append(value)
        return constant_result(self, operands)


def constant_result(op: Elementwise, operands: Sequence[Array]) -> Array:
    """An element-wise operator on one number a channel; NaN where one of them is not known."""
    with np.errstate(all="ignore"):
        found = np.asarray(op.reference(*operands), np.float64)
    return np.where(np.any([np.isnan(each) for each in operands], axis=0), np.nan, found)


def _by_channel(source: Node, node: Node) -> bool:
    """Whether channel c of an operand is that of channel c of an element-wise node."""
    if source.constant is not None:
        shape = (1,) * (node.type.rank - source.type.rank) + source.shape
        return all(d == 1 for i, d in enumerate(shape) if i != 1)
    return source.type.rank == node.type.rank


def _per_channel(source: Node, node: Node, known: Array) -> Array | None:
    """An operand of an element-wise node as one number per channel; None if it varies."""
    count = node.shape[1]
    value = source.constant
    if value is not None:
        full = value.reshape((1,) * (node.type.rank - value.ndim) + value.shape)
        if any(d != 1 for i, d in enumerate(full.shape) if i != 1):
            return None
        return np.broadcast_to(full.reshape(-1), (count,)).astype(np.float32)
    if source.type.rank != node.type.rank or source.shape[1] != count:
        return None
    return known.astype(np.float32)


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape under numpy's broadcasting; raises MdlcError if there is none."""
    try:
        return tuple(int(d) for d in np.broadcast_shapes(*shapes))
    except ValueError:
        listed = " and ".join(str(list(shape)) for shape in shapes)
        raise MdlcError(f"shapes {listed} do not broadcast") from None


def normalize_axis(axis: int, rank: int) -> int:
    """A non-negative axis; raises MdlcError outside -rank..rank-1."""
    if not -rank <= axis < rank:
        raise MdlcError(f"axis {axis} is outside a tensor of rank {rank}")
    return axis % rank


def random_array(seed: int, *shape: int, low: float = -1.0, high: float = 1.0) -> Array:
    """Uniform float32 values for samples, the same for the same seed."""
    values = np.random.default_rng(seed).uniform(low, high, size=shape)
    return values.astype(np.float32)


def unary_sample(op: Op, *, low: float = -4.0, high: float = 4.0) -> Sample:
    """A sample of a unary operator on 2x5x3x7 values, zero among them."""
    values = random_array(1, 2, 5, 3, 7, low=low, high=high)
    values[0, 0, 0, 0] = 0.0 if low <= 0 else low
    return Sample(op, (values,), label="2x5x3x7")


def binary_samples(
    op: Op,
    *,
    low: float = -2.0,
    high: float = 2.0,
    broadcast_first: bool = True,
    integers: bool = False,
) -> tuple[Sample, ...]:
    """Samples of a binary operator: equal shapes, and every kind of broadcasting.

    Args:
        broadcast_first: whether the first input may be the smaller one.
        integers: also int32 and int64, of both signs; the second input has no zeros.
    """

    def sample(
        label: str, a: tuple[int, ...], b: tuple[int, ...], constant: bool = False
    ) -> Sample:
        values = random_array(1, *a, low=low, high=high), random_array(2, *b, low=low, high=high)
        return Sample(op, values, (1,) if constant else (), label)

    cases = [
        sample("equal", (2, 5, 3, 7), (2, 5, 3, 7)),
        sample("scalar", (2, 5, 3, 7), (), constant=True),
        sample("channel", (2, 5, 3, 7), (5, 1, 1), constant=True),
        sample("pixel", (1, 5, 3, 7), (1, 1, 3, 7)),
        sample("last", (3, 11), (11,)),
    ]
    if broadcast_first:
        cases.append(sample("both", (1, 5, 1, 7), (2, 1, 3, 1)))
        cases.append(sample("first", (6,), (4, 6)))
    if integers:
        for dtype in (np.int32, np.int64):
            a, b = np.arange(-10, 10, dtype=dtype).reshape(4, 5), np.array([-7, -2, 1, 3, 9], dtype)
            cases.append(Sample(op, (a, b), label=dtype.__name__))
            cases.append(Sample(op, (a, b[3]), (1,), label=f"{dtype.__name__}_scalar"))
    return tuple(cases)
