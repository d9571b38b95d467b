"""Einsum: products of tensors, summed over the letters that are not kept."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op
from mdlc.compiler.ops.expand import Expand
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.transpose import Transpose

Term = tuple[Node, tuple[str, ...]]


@dataclass(frozen=True)
class Einsum(Op):
    """Imported as transposes, reductions and matrix products, two operands after the other.

    Source: ONNX specification, operator Einsum (numpy.einsum).
    """

    onnx: ClassVar[tuple[str, ...]] = ("Einsum",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        terms, result = cls._terms(n)
        sizes: dict[str, int] = {}
        for node, letters in terms:
            for letter, size in zip(letters, node.shape, strict=True):
                if sizes.get(letter, 1) == 1:
                    sizes[letter] = size
                if size not in (1, sizes[letter]):
                    raise n.error(f"letter {letter!r} is {sizes[letter]} and {size} long")
        if any(letter not in sizes for letter in result):
            raise n.error("its result has a letter that no operand has")
        terms = [_without_repeats(n, *term) for term in terms]
        first = terms[0]
        for index, other in enumerate(terms[1:], 1):
            later = {letter for _, letters in terms[index + 1 :] for letter in letters}
            first = _product(n, first, other, {*later, *result}, sizes)
        node, letters = _summed(n, *first, set(result))
        missing = [letter for letter in result if letter not in letters]
        assert not missing
        order = tuple(letters.index(letter) for letter in result)
        if order != tuple(range(len(order))):
            node = n.make(Transpose(order), node)
        shape = tuple(sizes[letter] for letter in result)
        return node if node.shape == shape else n.make(Expand(shape), node)

    @staticmethod
    def _terms(n: OnnxNode) -> tuple[list[Term], tuple[str, ...]]:
        """The operands with a letter for each axis (those of an ellipsis have numbers)."""
        equation = re.sub(r"\s", "", str(n.attr("equation", "")))
        if not re.fullmatch(r"[A-Za-z.,]*(->[A-Za-z.]*)?", equation):
            raise n.error(f"equation {equation!r} is malformed")
        left, arrow, right = equation.partition("->")
        words = left.split(",")
        if len(words) != len(n.inputs):
            raise n.error(f"equation {equation!r} is not one of {len(n.inputs)} operands")
        terms: list[Term] = []
        most = 0
        for index, word in enumerate(words):
            node = n.input(index)
            named = len(word.replace("...", ""))
            open_axes = len(node.shape) - named
            if word.count("...") > 1 or "." in word.replace("...", "") or (
                open_axes != 0 if "..." not in word else open_axes < 0
            ):  # fmt: skip
                raise n.error(f"{word!r} does not fit {node.type}")
            most = max(most, open_axes)
            before, _, after = word.partition("...")
            dots = [str(i) for i in range(-open_axes, 0)]
            terms.append((node, (*before, *dots, *after)))
        dots = [str(i) for i in range(-most, 0)]
        if arrow:
            before, there, after = right.partition("...")
            result = (*before, *(dots if there else []), *after)
        else:
            letters = left.replace(",", "").replace(".", "")
            result = (*dots, *sorted(c for c in set(letters) if letters.count(c) == 1))
        if len(set(result)) != len(result):
            raise n.error(f"equation {equation!r} repeats a letter in its result")
        return terms, result


def _without_repeats(n: OnnxNode, node: Node, letters: tuple[str, ...]) -> Term:
    """The diagonal of axes with the same letter."""
    while len(set(letters)) != len(letters):
        letter = next(c for c in letters if letters.count(c) > 1)
        first = letters.index(letter)
        second = letters.index(letter, first + 1)
        order = [i for i in range(len(letters)) if i not in (first, second)]
        length = node.shape[first]
        if node.shape[second] != length:
            raise n.error(f"letter {letter!r} is {length} and {node.shape[second]} long")
        node = n.make(Transpose((*order, first, second)), node)
        rest = node.shape[:-2]
        node = n.make(Reshape((*rest, length * length)), node)
        starts, steps = (0,) * len(node.shape), (*(1 for _ in rest), length + 1)
        node = n.make(Slice(starts, (*rest, length), steps), node)
        letters = (*(letters[i] for i in order), letter)
    return node, letters


def _summed(n: OnnxNode, node: Node, letters: tuple[str, ...], kept: set[str]) -> Term:
    """Summed over what is not kept."""
    axes = tuple(i for i, letter in enumerate(letters) if letter not in kept)
    if not axes:
        return node, letters
    return n.make(Reduce("sum", axes, False), node), tuple(c for c in letters if c in kept)


def _product(n: OnnxNode, left: Term, right: Term, kept: set[str], sizes: dict[str, int]) -> Term:
    """One matrix product: of batches by rows, what is summed, and columns."""
    a, of_a = _summed(n, *left, kept | set(right[1]))
    b, of_b = _summed(n, *right, kept | set(of_a))
    shared = [letter for letter in of_a if letter in of_b]
    batch = [letter for letter in shared if letter in kept]
    depth = [letter for letter in shared if letter not in kept]
    rows = [letter for letter in of_a if letter not in shared]
    columns = [letter for letter in of_b if letter not in shared]
    a = _arranged(n, a, of_a, (batch, rows, depth), sizes)
    b = _arranged(n, b, of_b, (batch, depth, columns), sizes)
    letters = (*batch, *rows, *columns)
    y = n.make(MatMul(), a, b)
    return n.make(Reshape(tuple(sizes[c] for c in letters)), y), letters


def _arranged(
    n: OnnxNode,
    node: Node,
    letters: tuple[str, ...],
    groups: Sequence[Sequence[str]],
    sizes: dict[str, int],
) -> Node:
    """A tensor of three axes, each of some letters."""
    order = tuple(letters.index(c) for group in groups for c in group)
    node = n.make(Transpose(order), node) if order != tuple(range(len(order))) else node
    full = tuple(sizes[c] for group in groups for c in group)
    node = node if node.shape == full else n.make(Expand(full), node)
    return n.make(Reshape(tuple(math.prod(sizes[c] for c in group) for group in groups)), node)
