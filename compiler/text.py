"""IR as text: one line a node, printed and parsed without loss.

    %x: f32[1,3,8,8] = Input() "input"
    %1: f32[4,3,1,1] = Random(7)
    %2: f32[4] = Full(0.5)
    %3: f32[1,4,8,8]@nhwc = Conv2D(activation=Relu())(%x, %1, %2) "relu1" from "conv1"
    return logits=%3

States stand before the last line: `state "hidden_out" -> "hidden"`.

Constants: `Constant([...])` inline, `Full(value)` where all elements are equal, `Data('digest')`
with the values in a mapping beside the text, and `Random(seed)` for tests. Expressions are
parsed with Python's ast module; nothing is evaluated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import mdlc.compiler.ops  # noqa: F401  (fills the registry)
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.op import Op
from mdlc.compiler.ops.attention import Strided
from mdlc.compiler.ops.constant import Constant
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import Array, DType, Layout, TensorType
from mdlc.compiler.window import Window

_LINE = re.compile(r"%(\w+): (\w+)\[([\d,]*)\](?:@(\w+))? = (.*)")
_STRING = r'("(?:[^"\\]|\\.)*")'
_TAIL = re.compile(rf"^(.*?)(?:\((%\w+(?:, %\w+)*)\))?(?: {_STRING})??(?: from {_STRING})?$")
_STATE = re.compile(f"state {_STRING} -> {_STRING}")
_RETURNED = re.compile(r'("(?:[^"\\]|\\.)*"|\w+)=%(\w+)')
_RETURN = re.compile(f"return {_RETURNED.pattern}(?:, {_RETURNED.pattern})*")


def print_graph(graph: Graph) -> str:
    """The text of a graph."""
    names: dict[Node, str] = {}
    lines = []
    for node in graph.order():
        names[node] = str(len(names))
        inputs = ", ".join(f"%{names[source]}" for source in node.inputs)
        name = " " + _quote(node.name) if node.name else ""
        name += f" from {_quote(node.origin)}" if node.origin else ""
        op = "Input()" if isinstance(node.op, Input) else str(node.op)
        lines.append(f"%{names[node]}: {node.type} = {op}{f'({inputs})' if inputs else ''}{name}")
    returned = ", ".join(
        f"{_quote(name)}=%{names[node]}"
        for name, node in zip(graph.output_names, graph.outputs, strict=True)
    )
    states = [f"state {_quote(target)} -> {_quote(source)}" for target, source in graph.states]
    return "\n".join([*lines, *states, f"return {returned}", ""])


def _quote(text: str) -> str:
    """A Python string literal on one line: ONNX names may hold any character."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in escaped)
    return f'"{"".join(shown)}"'


def large_constants(graph: Graph) -> dict[str, Array]:
    """The values that the text refers to by digest."""
    return {
        node.op.digest[:16]: node.op.value
        for node in graph.order()
        if isinstance(node.op, Constant) and str(node.op).startswith("Data(")
    }


def parse_graph(text: str, data: Mapping[str, Array] | None = None) -> Graph:
    """The graph of a text.

    Args:
        data: values of `Data(...)` constants by digest.

    Raises:
        MdlcError: a line does not parse, or its type is not the one that follows.
    """
    nodes: dict[str, Node] = {}
    inputs: list[Node] = []
    states: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        where = f"line {number}"
        if kept := _STATE.fullmatch(line):
            states[ast.literal_eval(kept[1])] = ast.literal_eval(kept[2])
            continue
        if line.startswith("return "):
            if _RETURN.fullmatch(line) is None:
                raise MdlcError(f"cannot parse {line!r}", node=where)
            pairs = _RETURNED.findall(line)
            names = [ast.literal_eval(n) if n.startswith('"') else n for n, _ in pairs]
            missing = [key for _, key in pairs if key not in nodes]
            if missing:
                raise MdlcError(f"returns %{missing[0]}, which is not defined", node=where)
            graph = Graph(tuple(inputs), tuple(nodes[k] for _, k in pairs), tuple(names))
            return replace(graph, states=tuple(states.items()))
        found = _LINE.match(line)
        if found is None:
            raise MdlcError(f"is not a node: {line!r}", node=where)
        key, dtype, dims, layout, rest = found.groups()
        if key in nodes:
            raise MdlcError(f"%{key} is defined twice", node=where)
        shape = tuple(int(d) for d in dims.split(",") if d)
        try:
            kind = TensorType(shape, DType(dtype), Layout(layout or "plain"))
        except ValueError as error:
            raise MdlcError(f"no type: {error}", node=where) from error
        node = _node(rest, kind, nodes, data or {}, where)
        if node.type.shape != shape or node.type.dtype is not kind.dtype:
            raise MdlcError(f"says {kind}, but {node.type} follows", node=where)
        node = replace(node, type=node.type.with_layout(kind.layout))
        nodes[key] = node
        if isinstance(node.op, Input):
            inputs.append(node)
    raise MdlcError("the text has no return line")


def _node(
    rest: str, kind: TensorType, nodes: Mapping[str, Node], data: Mapping[str, Array], where: str
) -> Node:
    found = _TAIL.match(rest)
    assert found is not None
    expression, operands, name, source = found.groups()
    label = ast.literal_eval(name) if name else ""
    origin = ast.literal_eval(source) if source else ""
    keys = re.findall(r"%(\w+)", operands or "")
    for key in keys:
        if key not in nodes:
            raise MdlcError(f"reads %{key}, which is not defined", node=where)
    try:
        call = ast.parse(expression, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("not an operator with its attributes in brackets")
        head = call.func.id
        if head == "Input":
            return make(Input(kind.shape, kind.dtype), name=label)
        if head in ("Constant", "Full", "Data", "Random"):
            value = _constant(head, ast_value(call.args[0]), kind, data)
            return make(Constant(value), name=label)
        op = ast_value(call)
        if not isinstance(op, Op):
            raise ValueError(f"{head} is no operator")
    except KeyError as error:
        raise MdlcError(f"cannot parse {expression!r}: there is no {error}", node=where) from error
    except (SyntaxError, IndexError, TypeError, ValueError) as error:
        raise MdlcError(f"cannot parse {expression!r} ({error})", node=where) from error
    return make(op, *(nodes[key] for key in keys), name=label, origin=origin)


def _constant(head: str, value: object, kind: TensorType, data: Mapping[str, Array]) -> Array:
    dtype = kind.dtype.numpy
    if head == "Constant":
        return np.array(value, dtype).reshape(kind.shape)
    if head == "Full":
        return np.full(kind.shape, value, dtype)
    if head == "Data":
        return data[str(value)]
    values = np.random.default_rng(int(str(value))).uniform(-1, 1, kind.shape)
    return values.astype(dtype)


# What an operator's attributes may be made of, besides operators.
_PARTS: dict[str, Any] = {part.__name__: part for part in (Window, Strided)}


def ast_value(node: ast.expr) -> Any:
    """The value of a literal, an operator such as Clip(low=0.0), or an infinity."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        cls = _PARTS.get(node.func.id) or Op.registry[node.func.id]
        given = {k.arg: ast_value(k.value) for k in node.keywords if k.arg}
        if given.get("dtype"):
            given["dtype"] = DType(given["dtype"])
        if given.get("layout"):
            given["layout"] = Layout(given["layout"])
        return cls(*(ast_value(arg) for arg in node.args), **given)
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return float(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -ast_value(node.operand)
    if isinstance(node, ast.Tuple):
        return tuple(ast_value(item) for item in node.elts)
    if isinstance(node, ast.List):
        return [ast_value(item) for item in node.elts]
    return ast.literal_eval(node)


def difference(a: Graph, b: Graph) -> str | None:
    """The first difference between two graphs, names aside; None if they compute the same way."""
    left, right = _lines(a), _lines(b)
    for x, y in zip(left, right, strict=False):
        if x != y:
            return f"{x}\n  instead of\n{y}"
    if len(left) != len(right):
        return f"{len(left)} nodes instead of {len(right)}"
    return None


def _lines(graph: Graph) -> list[str]:
    """The graph as text without names, constants by value."""
    bare = graph.rebuild(
        lambda old, fresh: fresh if old in graph.inputs else replace(fresh, name="", origin="")
    )
    return print_graph(bare).splitlines()
