"""Comparing a pass's result with what is expected, both as IR text."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent

import numpy as np

from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph
from mdlc.compiler.text import difference, parse_graph, print_graph
from mdlc.passes.pipeline import random_inputs


def graph(text: str) -> Graph:
    return parse_graph(dedent(text))


def check(graph_pass: Callable[[Graph], Graph], before: str, expected: str) -> None:
    """The pass turns one text into the other, and the network computes the same."""
    source = graph(before)
    result = graph_pass(source)
    found = difference(result, graph(expected))
    assert found is None, f"{found}\n\nwhole result:\n{print_graph(result)}"
    same_values(source, result)


def same_values(before: Graph, after: Graph, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    inputs = random_inputs(before)
    wanted = run(before, inputs)
    for name, value in run(after, inputs).items():
        np.testing.assert_allclose(value, wanted[name], rtol=rtol, atol=atol, err_msg=name)


def operators(result: Graph) -> list[str]:
    """Names of the operators that are left, constants and inputs aside."""
    return [
        type(node.op).__name__
        for node in result.order()
        if node.constant is None and node not in result.inputs
    ]
