"""Recurrent: the steps of an LSTM, GRU or RNN in one direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node, make
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, Elementwise, Op, Sample, random_array
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.affine import Affine
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.elu import Elu
from mdlc.compiler.ops.hard_sigmoid import HardSigmoid
from mdlc.compiler.ops.leaky_relu import LeakyRelu
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.scaled_tanh import ScaledTanh
from mdlc.compiler.ops.sigmoid import Sigmoid
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.softplus import Softplus
from mdlc.compiler.ops.softsign import Softsign
from mdlc.compiler.ops.tanh import Tanh
from mdlc.compiler.ops.thresholded_relu import ThresholdedRelu
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.types import Array, TensorType

T = TypeVar("T")
# Gates of a cell, in ONNX's order: their matrices lie one below the other.
GATES = {"LSTM": "iofc", "GRU": "zrh", "RNN": "h"}
_USUAL = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_ACTIVATIONS: dict[str, type[Elementwise]] = {
    cls.__name__.lower(): cls
    for cls in (Affine, Elu, HardSigmoid, LeakyRelu, Relu, ScaledTanh, Sigmoid, Softplus, Softsign,
                Tanh, ThresholdedRelu)
}  # fmt: skip


@dataclass(frozen=True)
class Recurrent(Op):
    """The steps of an LSTM, GRU or RNN of H units, in one direction.

    What every step takes from the input, for all steps at once, is a product beside it: LSTM, GRU
    and RNN are imported as that product, this operator for each direction, and slices of what it
    gives.

    Inputs: the products [T, B, G * H] of T steps and B sequences, with all biases that are added
    before anything else; the matrix R [G * H, H] for the previous output; the first output
    [B, H]; of an LSTM the first cell state [B, H]; with `linear_before_reset` a bias [H]; with
    `peepholes` 3 H weights (gates i, o, f); with `lengths` the number of steps of each sequence
    [B] (integers).

    Output: [T + 1, B, H], of an LSTM [T + 2, B, H]: the output of every step, then the last
    output, then the last cell state. Behind the end of a sequence are zeros.

    Attributes:
        cell: "LSTM" (gates i, o, f, c), "GRU" (z, r, h) or "RNN".
        f, g, h: activations of gates, of the candidate, and of an LSTM's cell state; an RNN has
            only g.
        reverse: from the last step to the first.
        clip: what activations of gates and candidates read lies in -clip..clip; 0: no bounds.
        coupled: of an LSTM: the forget gate is 1 - i.

    Sources: ONNX specification, operators LSTM, GRU and RNN; where it is silent (clip leaves the
    cell state as it is; a sequence of no steps ends in zeros), ONNX Runtime.
    """

    cell: str
    f: Elementwise
    g: Elementwise
    h: Elementwise
    reverse: bool = False
    clip: float = 0.0
    coupled: bool = False
    linear_before_reset: bool = False
    peepholes: bool = False
    lengths: bool = False

    onnx: ClassVar[tuple[str, ...]] = ("LSTM", "GRU", "RNN")

    @property
    def gates(self) -> int:
        """How many matrices of H rows R has."""
        return len(GATES[self.cell])

    def operands(self, inputs: Sequence[T]) -> dict[str, T]:
        """The inputs by what they are."""
        names = ["projected", "recurrent", "first_output"]
        names += ["first_cell"] if self.cell == "LSTM" else []
        names += ["bias"] if self.linear_before_reset else []
        names += ["peepholes"] if self.peepholes else []
        names += ["lengths"] if self.lengths else []
        if len(inputs) != len(names):
            raise MdlcError(f"{self.cell} takes {len(names)} inputs, not {len(inputs)}")
        return dict(zip(names, inputs, strict=True))

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Sequence[Node]:
        return _Import(n).outputs()

    def infer(self, *inputs: TensorType) -> TensorType:
        given = self.operands(inputs)
        x = given["projected"]
        if self.cell not in GATES or x.rank != 3 or x.shape[2] % self.gates:
            raise MdlcError(f"{x} is not an input of {self.cell}")
        steps, batch, hidden = x.shape[0], x.shape[1], x.shape[2] // self.gates
        wanted: dict[str, tuple[int, ...]] = {
            "projected": x.shape,
            "recurrent": (x.shape[2], hidden),
            "first_output": (batch, hidden),
            "first_cell": (batch, hidden),
            "bias": (hidden,),
            "peepholes": (3 * hidden,),
            "lengths": (batch,),
        }
        for name, source in given.items():
            if source.shape != wanted[name]:
                shown = name.replace("_", " ")
                raise MdlcError(f"{shown} is {source}, not {list(wanted[name])}")
        return TensorType((steps + 1 + (self.cell == "LSTM"), batch, hidden), x.dtype)

    def reference(self, *inputs: Array) -> Array:
        given = self.operands(inputs)
        x, r = given["projected"], given["recurrent"]
        steps, batch, hidden = x.shape[0], x.shape[1], x.shape[2] // self.gates
        output = np.zeros((steps, batch, hidden), x.dtype)
        last = np.zeros((2, batch, hidden), x.dtype)
        peepholes = given.get("peepholes", np.zeros(3 * hidden, x.dtype))
        bias = given.get("bias", np.zeros(hidden, x.dtype))
        lengths = np.clip(given.get("lengths", np.full(batch, steps)), 0, steps)
        for b in range(batch):
            h = given["first_output"][b]
            c = given["first_cell"][b] if self.cell == "LSTM" else h
            length = int(lengths[b])
            if length == 0:
                continue
            for i in range(length):
                t = length - 1 - i if self.reverse else i
                if self.cell == "LSTM":
                    h, c = self._lstm(x[t, b], r, h, c, peepholes)
                elif self.cell == "GRU":
                    h = self._gru(x[t, b], r, h, bias)
                else:
                    h = self.g.reference(self._clipped(x[t, b] + r @ h))
                output[t, b] = h
            last[0, b], last[1, b] = h, c
        return np.concatenate([output, last[: 1 + (self.cell == "LSTM")]])

    def _clipped(self, x: Array) -> Array:
        return np.clip(x, -self.clip, self.clip).astype(x.dtype) if self.clip else x

    def _lstm(self, x: Array, r: Array, h: Array, c: Array, p: Array) -> tuple[Array, Array]:
        i, o, f, n = np.split(x + r @ h, 4)
        pi, po, pf = np.split(p, 3)
        i = self.f.reference(self._clipped(i + pi * c))
        f = 1 - i if self.coupled else self.f.reference(self._clipped(f + pf * c))
        c = f * c + i * self.g.reference(self._clipped(n))
        o = self.f.reference(self._clipped(o + po * c))
        return o * self.h.reference(c), c

    def _gru(self, x: Array, r: Array, h: Array, bias: Array) -> Array:
        hidden = len(h)
        z, reset = np.split(self.f.reference(self._clipped(x[: 2 * hidden] + r[:-hidden] @ h)), 2)
        if self.linear_before_reset:
            n = x[2 * hidden :] + reset * (r[-hidden:] @ h + bias)
        else:
            n = x[2 * hidden :] + r[-hidden:] @ (reset * h)
        n = self.g.reference(self._clipped(n))
        return np.asarray((1 - z) * n + z * h)

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        steps, batch, width = inputs[0].shape
        hidden = width // self.gates
        return Cost(steps * batch * width * hidden, sum(t.nbytes for t in inputs) + output.nbytes)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        def sample(
            label: str, op: Recurrent, steps: int, batch: int, hidden: int, *constants: int
        ) -> Sample:
            width = op.gates * hidden
            shapes = op.operands(
                [(steps, batch, width), (width, hidden), (batch, hidden)]
                + [(batch, hidden)] * (op.cell == "LSTM")
                + [(hidden,)] * op.linear_before_reset
                + [(3 * hidden,)] * op.peepholes
                + [(batch,)] * op.lengths
            )
            values = [random_array(seed, *shape) for seed, shape in enumerate(shapes.values(), 1)]
            if op.lengths:
                values[-1] = (np.arange(batch) % (steps + 1)).astype(np.int32)
            return Sample(op, tuple(values), constants, label)

        s, t, r = Sigmoid(), Tanh(), Relu()
        lstm, gru, rnn = cls("LSTM", s, t, t), cls("GRU", s, t, t), cls("RNN", s, t, t)
        linear = cls("GRU", s, t, t, linear_before_reset=True)
        every = cls("LSTM", s, t, Softsign(), True, 0.7, peepholes=True, lengths=True)
        return (
            sample("lstm", lstm, 3, 1, 16, 1),
            sample("lstm_tail", lstm, 2, 3, 21, 1),
            sample("lstm_little", lstm, 5, 2, 3, 1, 2, 3),
            sample("lstm_everything", every, 4, 6, 19, 1, 4),
            sample("lstm_coupled", cls("LSTM", s, r, t, coupled=True), 2, 1, 40, 1),
            sample("lstm_runtime_weights", lstm, 2, 5, 9),
            sample("gru", gru, 3, 2, 17, 1),
            sample("gru_reverse_lengths", cls("GRU", s, t, t, True, lengths=True), 4, 5, 8, 1),
            sample("gru_linear", linear, 3, 7, 20, 1, 3),
            sample("gru_runtime_weights", linear, 2, 1, 5),
            sample("gru_clip", cls("GRU", HardSigmoid(), r, t, clip=0.5), 3, 1, 33, 1),
            sample("rnn", rnn, 4, 3, 10, 1),
            sample("rnn_affine", cls("RNN", s, Affine(0.5, 0.1), t, True), 3, 1, 70, 1, 2),
        )


class _Import:
    """An ONNX LSTM, GRU or RNN as products, steps and slices; all without a name but the outputs.

    Nodes whose inputs are constants become constants at once, for the products take constant
    weights.
    """

    def __init__(self, n: OnnxNode) -> None:
        self.n = n
        self.cell = n.op_type
        direction = n.attr("direction", "forward")
        if direction not in ("forward", "reverse", "bidirectional"):
            raise n.error(f"direction {direction!r} is not known")
        self.directions = {"forward": (False,), "reverse": (True,)}.get(direction, (False, True))
        self.batch_first = bool(n.attr("layout", 0))
        x, w, r = n.input(0), n.input(1), n.input(2)
        count, gates = len(self.directions), len(GATES[self.cell])
        if len(x.shape) != 3 or len(w.shape) != 3 or len(r.shape) != 3:
            raise n.error(f"takes tensors of rank 3, not {x.type}, {w.type} and {r.type}")
        hidden = r.shape[2]
        if w.shape != (count, gates * hidden, x.shape[2]) or r.shape[:2] != w.shape[:2]:
            raise n.error(f"weights {w.type} and {r.type} do not fit {x.type} and {direction}")
        if n.attr("hidden_size", hidden) != hidden:
            raise n.error(f"hidden_size is {n.attr('hidden_size')}, but the weights have {hidden}")
        self.x = make(Transpose((1, 0, 2)), x) if self.batch_first else x
        self.steps, self.batch, self.hidden = *self.x.shape[:2], hidden

    def put(self, op: Op, *inputs: Node, name: str = "") -> Node:
        """A node, or its value where the inputs are constants."""
        values = [source.constant for source in inputs]
        if all(value is not None for value in values):
            return constant(op.reference(*(v for v in values if v is not None)))
        return make(op, *inputs, name=name)

    def part(self, x: Node, start: int, length: int) -> Node:
        """A range of a vector."""
        return self.put(Slice((start,), (length,), (1,)), x)

    def of_direction(self, index: int, direction: int, shape: Sequence[int]) -> Node | None:
        """What a direction has of an optional input, whose first axis is the directions."""
        x = self.n.optional(index)
        if x is None:
            return None
        axis = 1 if self.batch_first and len(shape) == 2 and shape[0] == self.batch else 0
        whole = list(shape)
        whole.insert(axis, len(self.directions))
        if list(x.shape) != whole:
            raise self.n.error(f"input {index} is {x.type}, not {whole}")
        return self.put(Reshape(tuple(shape)), self.put(Slice.along(whole, axis, direction, 1), x))

    def zeros(self, *shape: int) -> Node:
        return constant(np.zeros(shape, self.x.type.dtype.numpy))

    def activations(self, direction: int) -> tuple[Elementwise, ...]:
        """The activations of a direction; parameters go to those that take them, in order."""
        n, usual = self.n, _USUAL[self.cell]
        names = [name.lower() for name in n.attr("activations", ())]
        names = names or [name.lower() for name in usual] * len(self.directions)
        if len(names) != len(usual) * len(self.directions):
            raise n.error(f"has {len(names)} activations, not {len(usual)} for every direction")
        given = {field: list(n.attr(f"activation_{field}", ())) for field in ("alpha", "beta")}
        found = []
        for name in names:
            if name not in _ACTIVATIONS:
                raise n.error(f"activation {name!r} is not known")
            cls = _ACTIVATIONS[name]
            fields = {
                field: float(given[field].pop(0))
                for field in ("alpha", "beta")
                if field in cls.__dataclass_fields__ and given[field]
            }
            found.append(cls(**fields))
        return tuple(found[direction * len(usual) : (direction + 1) * len(usual)])

    def steps_of(self, direction: int) -> Node:
        """The Recurrent node of a direction."""
        n, gates, hidden = self.n, len(GATES[self.cell]), self.hidden
        width = gates * hidden
        linear = self.cell == "GRU" and bool(n.attr("linear_before_reset", 0))
        w = self.of_direction(1, direction, (width, self.x.shape[2]))
        r = self.of_direction(2, direction, (width, hidden))
        assert w is not None
        assert r is not None
        both = self.of_direction(3, direction, (2 * width,))
        if both is None:
            bias, own_bias = self.zeros(width), self.zeros(hidden)
        else:
            bias, recurrent_bias = self.part(both, 0, width), self.part(both, width, width)
            own_bias = self.part(recurrent_bias, width - hidden, hidden)
            if linear:
                gate_bias = self.part(recurrent_bias, 0, width - hidden)
                recurrent_bias = self.put(Concat(0), gate_bias, self.zeros(hidden))
            bias = self.put(Add(), bias, recurrent_bias)
        inputs = [self.projected(w, bias), r]
        state = (self.batch, hidden)
        inputs.append(self.of_direction(5, direction, state) or self.zeros(*state))
        peepholes = None
        if self.cell == "LSTM":
            inputs.append(self.of_direction(6, direction, state) or self.zeros(*state))
            peepholes = self.of_direction(7, direction, (3 * hidden,))
        inputs += [own_bias] if linear else []
        inputs += [peepholes] if peepholes is not None else []
        lengths = self.lengths()
        inputs += [lengths] if lengths is not None else []
        f, g, h = self.roles(self.activations(direction))
        op = Recurrent(
            self.cell, f, g, h, self.directions[direction], float(n.attr("clip", 0.0)),
            bool(n.attr("input_forget", 0)), linear, peepholes is not None, lengths is not None,
        )  # fmt: skip
        return make(op, *inputs, name=f"{n.name}_steps")

    def roles(self, given: tuple[Elementwise, ...]) -> tuple[Elementwise, Elementwise, Elementwise]:
        """f, g and h; those that a cell has not are what they usually are."""
        if self.cell == "RNN":
            return Sigmoid(), given[0], Tanh()
        return given[0], given[1], given[2] if self.cell == "LSTM" else Tanh()

    def lengths(self) -> Node | None:
        """The sequences' lengths, unless all have all steps."""
        lengths = self.n.optional(4)
        if lengths is None or (
            lengths.constant is not None and bool(np.all(lengths.constant == self.steps))
        ):
            return None
        return lengths

    def projected(self, w: Node, bias: Node) -> Node:
        """x w' + bias for all steps at once."""
        name = f"{self.n.name}_input"
        if w.constant is not None and bias.constant is not None:
            return make(Dense(), self.x, w, bias, name=name)
        rows = make(Reshape((self.steps * self.batch, self.x.shape[2])), self.x)
        y = make(MatMul(), rows, self.put(Transpose((1, 0)), w), name=name)
        return make(Reshape((self.steps, self.batch, w.shape[0])), make(Add(), y, bias))

    def outputs(self) -> list[Node]:
        """Y, Y_h and, of an LSTM, Y_c."""
        made = [self.steps_of(direction) for direction in range(len(self.directions))]
        last = [self.stacked(made, row, 1) for row in range(self.steps, made[0].shape[0])]
        return [
            self.named(0, self.stacked(made, 0, self.steps), (2, 0, 1, 3)),
            *(self.named(1 + i, self.whole(y), (1, 0, 2)) for i, y in enumerate(last)),
        ]

    def stacked(self, made: Sequence[Node], start: int, length: int) -> Node:
        """Rows of every direction's result: [rows, directions, batch, hidden]."""
        shape = (length, 1, self.batch, self.hidden)
        each = [
            make(Reshape(shape), make(Slice.along(node.shape, 0, start, length), node))
            for node in made
        ]
        return each[0] if len(each) == 1 else make(Concat(1), *each)

    def whole(self, y: Node) -> Node:
        return make(Reshape(y.shape[1:]), y)

    def named(self, output: int, y: Node, perm: tuple[int, ...]) -> Node:
        """An output under its name, with the batch as the first axis where the model wants that.

        Args:
            perm: the axes that the model wants, of [steps,] directions, batch, hidden.
        """
        if self.batch_first:
            return self.n.make(Transpose(perm), y, output=output)
        return self.n.make(y.op, *y.inputs, output=output)
