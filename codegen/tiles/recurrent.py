"""The microkernels of recurrent layers: a step of a few sequences, for a few vectors of units.

All gates of a unit are summed up in registers, and the cell's formula is applied to them there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mdlc.codegen.code import Microkernel, advanced
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.tiles.formula import spell
from mdlc.codegen.tiles.partial_vector import load_part, store_part
from mdlc.compiler.expr import Expr, input_, maximum, minimum
from mdlc.compiler.ops.recurrent import Recurrent
from mdlc.compiler.words import counted


@dataclass(frozen=True)
class Phase:
    """A pass over all units: the gates whose sums it makes, one after the other in the matrix.

    Attributes:
        name: in the microkernel's name.
        first, gates: the gates.
        reads: what the matrix multiplies: "h", the previous output, or "reset", r * h.
    """

    name: str
    first: int
    gates: int
    reads: str = "h"


def phases(op: Recurrent) -> tuple[Phase, ...]:
    """The passes of a step; a GRU whose reset gate comes before the product has two."""
    if op.cell == "GRU" and not op.linear_before_reset:
        return Phase("gru_gates", 0, 2), Phase("gru_output", 2, 1, "reset")
    return (Phase("gru" if op.cell == "GRU" else op.cell.lower(), 0, op.gates),)


def arguments_of(op: Recurrent, phase: Phase) -> list[tuple[str, bool]]:
    """Further arguments of a pass, and whether they start at the block's first unit.

    The previous output is read from unit 0 on in products, and from the block's on in formulas.
    """
    if phase.name == "gru_gates":
        return [("h", False), ("h", True), ("last", True)]
    if phase.name == "gru_output":
        return [("last", False), ("h", True)]
    if op.cell == "GRU":
        return [("h", False), ("h", True), ("bias", True)]
    if op.cell == "LSTM":
        return [("h", False), ("c", True), *([("peepholes", True)] if op.peepholes else [])]
    return [("h", False)]


def _formulas(op: Recurrent, phase: Phase) -> tuple[list[str], list[tuple[str, Expr]]]:
    """The names of a formula's inputs, and what is stored where, in order.

    Inputs: sN, the sum of gate N; pN, its product with the input alone; c, h and z, the cell
    state, the previous output and the update gate; bias; wN, a peephole's weight. "next" is the
    new cell state.
    """

    def bounded(x: Expr) -> Expr:
        return maximum(minimum(x, op.clip), -op.clip) if op.clip else x

    def named(*names: str) -> dict[str, Expr]:
        return {name: input_(i) for i, name in enumerate(names)}

    f, g, h = op.f.expr, op.g.expr, op.h.expr
    if phase.name == "gru_gates":
        x = named("s0", "s1", "h")
        return list(x), [
            ("y", f(bounded(x["s0"]))),
            ("reset", f(bounded(x["s1"])) * x["h"]),
        ]
    if phase.name == "gru_output":
        x = named("s0", "h", "z")
        return list(x), [("y", (1 - x["z"]) * g(bounded(x["s0"])) + x["z"] * x["h"])]
    if op.cell == "GRU":
        x = named("s0", "s1", "s2", "p2", "h")
        z, reset = f(bounded(x["s0"])), f(bounded(x["s1"]))
        candidate = g(bounded(reset * x["s2"] + x["p2"]))
        return list(x), [("y", (1 - z) * candidate + z * x["h"])]
    if op.cell == "LSTM":
        x = named("s0", "s1", "s2", "s3", "c", "next", *(["w0", "w1", "w2"] * op.peepholes))
        inner = [x["s0"], x["s1"], x["s2"]]
        if op.peepholes:
            states = (x["c"], x["next"], x["c"])
            inner = [x[f"w{i}"] * c + s for i, (s, c) in enumerate(zip(inner, states, strict=True))]
        i, o = f(bounded(inner[0])), f(bounded(inner[1]))
        forget = 1 - i if op.coupled else f(bounded(inner[2]))
        return list(x), [
            ("c", forget * x["c"] + i * g(bounded(x["s3"]))),
            ("y", o * h(x["next"])),
        ]
    x = named("s0")
    return list(x), [("y", g(bounded(x["s0"])))]


def unit_microkernel(
    op: Recurrent, phase: Phase, rows: int, vectors: int, part: int, isa: KernelIsa
) -> Microkernel:
    """A step of `rows` sequences and `vectors` vectors of units.

    Args:
        part: elements of the last vector that are units; 0: all.
    """
    gates, lanes = phase.gates, isa.lanes
    names, results = _formulas(op, phase)
    helpers: dict[str, Microkernel] = {}
    includes: set[str] = set()

    def whole(v: int) -> bool:
        return v < vectors - 1 or not part

    def load(pointer: str, v: int) -> str:
        if whole(v):
            return isa.load(pointer)
        partial = load_part(isa, part)
        if partial.helper:
            helpers[partial.helper.name] = partial.helper
        return partial.spell(pointer)

    def store(pointer: str, v: int, value: str) -> str:
        if whole(v):
            return isa.store(pointer, value)
        partial = store_part(isa, part)
        if partial.helper:
            helpers[partial.helper.name] = partial.helper
        return partial.spell(pointer, value)

    def at(base: str, row: int, v: int, width: int = 1, gate: int = 0) -> str:
        return advanced(base, (row * width + gate, "kHidden"), v * lanes)

    places = [(r, v) for r in range(rows) for v in range(vectors)]
    reads = "reset" if phase.reads == "reset" else "h"
    linear = op.linear_before_reset
    lines = []
    for r, v in places:
        for gate in range(gates):
            source = at("p", r, v, op.gates, phase.first + gate)
            if linear and gate == 2:
                source = at("bias", 0, v)
            lines.append(f"{isa.vector} s{gate}_{r}{v} = {load(source, v)};")
    lines.append("for (int k = 0; k < kHidden; ++k) {")
    lines += [
        f"const {isa.vector} h{r} = {isa.broadcast(at(reads, r, 0), 'k')};" for r in range(rows)
    ]
    for v in range(vectors):
        for gate in range(gates):
            weight = isa.load(advanced("weights", (gate * vectors + v) * lanes))
            if rows > 1:
                lines.append(f"const {isa.vector} w{gate}{v} = {weight};")
                weight = f"w{gate}{v}"
            for r in range(rows):
                total = f"s{gate}_{r}{v}"
                lines.append(f"{total} = {isa.fma(f'h{r}', weight, total)};")
    lines += [f"weights += {gates * vectors * lanes};", "}"]
    for r, v in places:
        values = {
            **{f"s{gate}": f"s{gate}_{r}{v}" for gate in range(gates)},
            "p2": load(at("p", r, v, op.gates, 2), v) if linear else "",
            "h": load(at("units", r, v), v) if op.cell == "GRU" else "",
            "z": load(at("y", r, v), v) if phase.name == "gru_output" else "",
            "c": "cell",
            "next": "next",
        }
        values |= {f"w{i}": load(at("peepholes", 0, v, 1, i), v) for i in range(3 * op.peepholes)}
        lines.append("{")
        if op.cell == "LSTM":
            lines.append(f"const {isa.vector} cell = {load(at('c', r, v), v)};")
        for number, (written, formula) in enumerate(results):
            inputs = [values[name] for name in names]
            spelled = spell(formula, isa, inputs, parts=f"t{number}_")
            for helper in spelled.needs:
                helpers[helper.name] = helper
            includes |= set(spelled.includes)
            statements, result = list(spelled.statements), spelled.result
            if written == "c":
                statements.append(f"const {isa.vector} next = {result};")
                result = "next"
            lines += [*statements, f"{store(at(written, r, v), v, result)};"]
        lines.append("}")
    name = _name(op, phase, rows, vectors, part, isa)
    parameters = ["const float* p", "const float* weights"]
    for place, (argument, indexed) in enumerate(arguments_of(op, phase)):
        if argument == "last":
            parameters.append("float* reset" if indexed else "const float* reset")
        elif argument == "h":
            parameters.append("const float* units" if place else "const float* h")
        else:
            parameters.append(f"{'' if argument == 'c' else 'const '}float* {argument}")
    if phase.name == "gru_output":
        parameters[3] = "const float* units"
    text = (
        f"// {_COMMENTS[phase.name]}\n"
        f"// {counted(rows, 'sequence')}, {counted(vectors * lanes, 'unit')}"
        f"{f' of which the last {lanes} are {part}' if part else ''}. p: products with the input, "
        "gate by gate;\n// weights: [previous output][gate][unit]; c: the cell state.\n"
        "template <int kHidden>\n"
        f"inline void {name}({', '.join([*parameters, 'float* y'])}) {{\n"
        + "\n".join(lines)
        + "\n}\n"
    )
    return Microkernel(name, text, tuple(helpers.values()), tuple(sorted(includes)))


_COMMENTS = {
    "lstm": "i, o, f = sigmoid(p + R h), n = tanh(p + R h); c = f c + i n; y = o tanh(c), "
    "with this layer's activations.",
    "gru": "z, r = sigmoid(p + R h); n = tanh(p + r (R h + bias)); y = (1 - z) n + z h, with this "
    "layer's activations.",
    "gru_gates": "y = z, reset = r h, where z, r = sigmoid(p + R h).",
    "gru_output": "n = tanh(p + R reset); y = (1 - z) n + z h, where y has z before.",
    "rnn": "y = tanh(p + R h), with this layer's activation.",
}


def _name(op: Recurrent, phase: Phase, rows: int, vectors: int, part: int, isa: KernelIsa) -> str:
    """A microkernel's name: what it computes, the tile, the instruction set."""
    activations = [op.g] if op.cell == "RNN" else [op.f, op.g]
    activations += [op.h] if op.cell == "LSTM" else []
    usual = {"LSTM": "Sigmoid()Tanh()Tanh()", "GRU": "Sigmoid()Tanh()", "RNN": "Tanh()"}[op.cell]
    text = "".join(map(str, activations))
    marks = [phase.name]
    if text != usual:
        marks.append(re.sub(r"[^a-z0-9]+", "_", text.lower().replace("-", "m")).strip("_"))
    marks += [f"clip_{op.clip!r}".replace(".", "_")] if op.clip else []
    marks += ["coupled"] if op.coupled else []
    marks += ["peepholes"] if op.peepholes else []
    marks += [f"{rows}x{vectors * isa.lanes}"]
    marks += [f"part{part}"] if part else []
    return "_".join([*marks, isa.kind, isa.suffix])
