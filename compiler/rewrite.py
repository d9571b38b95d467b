"""Rewriting: rules are data, a pattern and a handler that returns a node or declines.

A pattern is matched from its root downwards. Nodes inside it (not the root, not what variables
bind) must have one user and be no output of the graph, so that they die with the rewrite, unless
the pattern says `shared`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import EllipsisType

from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.op import Op
from mdlc.compiler.types import Array

# A sweep after which this many more found something to do is a bug in the rules.
MAX_SWEEPS = 50


@dataclass(frozen=True)
class Var:
    """Matches any node; the same name twice must be the same node."""

    name: str


@dataclass(frozen=True)
class Const:
    """Matches a constant."""

    name: str


@dataclass(frozen=True)
class Pat:
    """Matches an operator on inputs.

    Attributes:
        ops: the operator's class, or several.
        inputs: patterns; a last `...` stands for any further inputs. Empty: any inputs.
        bind: name under which the handler finds the node.
        where: further condition on the node.
        shared: the node may have other users.
    """

    ops: type[Op] | tuple[type[Op], ...]
    inputs: tuple[Pattern, ...] = ()
    bind: str = ""
    where: Callable[[Node], bool] | None = None
    shared: bool = False


Pattern = Pat | Var | Const | EllipsisType


def pat(
    ops: type[Op] | tuple[type[Op], ...],
    *inputs: Pattern,
    bind: str = "",
    where: Callable[[Node], bool] | None = None,
    shared: bool = False,
) -> Pat:
    """A Pat with its inputs as arguments."""
    return Pat(ops, inputs, bind, where, shared)


@dataclass(frozen=True)
class Decline:
    """Why a handler leaves a match alone."""

    reason: str


@dataclass(frozen=True)
class Match:
    """What a pattern matched: the root, and nodes by the names bound.

    Attributes:
        order: for the nodes up to the root, where they stand in the order of computation.
    """

    root: Node
    bound: Mapping[str, Node]
    order: Mapping[Node, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Node:
        return self.bound[name]

    def value(self, name: str) -> Array:
        """The value of a constant bound by name."""
        value = self.bound[name].constant
        assert value is not None, f"{name} is no constant"
        return value


Handler = Callable[[Match], Node | Decline]


@dataclass(frozen=True)
class Rule:
    """A rewrite: where the pattern matches, the root becomes what the handler returns."""

    name: str
    pattern: Pat
    handler: Handler


@dataclass(frozen=True)
class Event:
    """One attempt of a rule: it fired, or why not."""

    rule: str
    node: str
    fired: bool
    reason: str = ""


@dataclass
class Budget:
    """How many rewrites are left (bisection), and what was tried."""

    left: int | None = None
    events: list[Event] = field(default_factory=list)
    traced: bool = False

    def spend(self) -> None:
        """Counts one rewrite."""
        if self.left is not None:
            self.left -= 1

    def note(self, event: Event) -> None:
        """Keeps an event if anyone wants to read it."""
        if self.traced:
            self.events.append(event)


@dataclass
class _Matcher:
    uses: Mapping[Node, int]
    reason: str = ""
    depth: int = -1

    def fail(self, depth: int, reason: str) -> None:
        """Remembers the reason that came furthest into the pattern."""
        if depth > self.depth:
            self.depth, self.reason = depth, reason

    def match(
        self, pattern: Pattern, node: Node, bound: Mapping[str, Node], depth: int
    ) -> Iterator[dict[str, Node]]:
        """Every way to match, as bindings."""
        if isinstance(pattern, Var | Const):
            if isinstance(pattern, Const) and node.constant is None:
                self.fail(depth, f"{pattern.name} is not a constant")
            elif bound.get(pattern.name, node) is not node:
                self.fail(depth, f"{pattern.name} is two different nodes")
            else:
                yield {**bound, pattern.name: node}
            return
        assert isinstance(pattern, Pat)
        if not isinstance(node.op, pattern.ops):
            self.fail(depth, f"{type(node.op).__name__} is not what is looked for")
            return
        if depth and not pattern.shared and self.uses.get(node, 1) != 1:
            self.fail(depth, f"{type(node.op).__name__} {node.name!r} has other users")
            return
        if pattern.where is not None and not pattern.where(node):
            self.fail(depth, f"{type(node.op).__name__} {node.name!r} fails the condition")
            return
        if pattern.bind:
            bound = {**bound, pattern.bind: node}
        if not pattern.inputs:
            yield dict(bound)
            return
        for order in self._orders(pattern, node):
            yield from self._inputs(pattern.inputs, order, bound, depth)

    @staticmethod
    def _orders(pattern: Pat, node: Node) -> list[tuple[Node, ...]]:
        if node.op.commutative and len(node.inputs) == 2 and len(pattern.inputs) == 2:
            return [node.inputs, node.inputs[::-1]]
        return [node.inputs]

    def _inputs(
        self,
        patterns: tuple[Pattern, ...],
        nodes: tuple[Node, ...],
        bound: Mapping[str, Node],
        depth: int,
    ) -> Iterator[dict[str, Node]]:
        if patterns and patterns[-1] is ...:
            patterns, nodes = patterns[:-1], nodes[: len(patterns) - 1]
        if len(patterns) != len(nodes):
            self.fail(depth, f"{len(nodes)} inputs instead of {len(patterns)}")
            return
        if not patterns:
            yield dict(bound)
            return
        for found in self.match(patterns[0], nodes[0], bound, depth + 1):
            yield from self._inputs(patterns[1:], nodes[1:], found, depth)


def rewrite(graph: Graph, rules: Sequence[Rule], budget: Budget | None = None) -> Graph:
    """Applies rules everywhere until none fires.

    Each sweep visits every node once, inputs first. A new node takes over the name of the one
    that it stands for, and the origin of the node whose operator it has: a convolution with its
    activation fused is still the convolution.

    Raises:
        RuntimeError: the rules undo each other.
    """
    budget = budget or Budget()
    for _ in range(MAX_SWEEPS):
        graph, fired = _sweep(graph, rules, budget)
        if not fired or budget.left == 0:
            return graph
    raise RuntimeError(f"rules {[rule.name for rule in rules]} do not come to an end")


def _sweep(graph: Graph, rules: Sequence[Rule], budget: Budget) -> tuple[Graph, int]:
    users = graph.users()
    outputs = set(graph.outputs)
    uses: dict[Node, int] = {}
    order: dict[Node, int] = {}
    fired = 0

    def visit(old: Node, fresh: Node) -> Node:
        nonlocal fired
        count = len(users[old]) + (old in outputs)
        uses[fresh] = count if fresh not in uses else uses[fresh] + count
        order.setdefault(fresh, len(order))
        for rule in rules:
            if budget.left == 0:
                break
            found = _try(rule, fresh, uses, order, budget)
            if found is None:
                continue
            result, origin = found
            fired += 1
            budget.spend()
            if result in uses:  # an existing node takes over the users of this one
                uses[result] += count - 1
            else:
                name, origin = fresh.name or result.name, result.origin or origin
                if (result.name, result.origin) != (name, origin):
                    result = replace(result, name=name, origin=origin)
                uses[result] = count
                order[result] = len(order)
            return result
        return fresh

    return graph.rebuild(visit), fired


def _try(
    rule: Rule,
    node: Node,
    uses: Mapping[Node, int],
    order: Mapping[Node, int],
    budget: Budget,
) -> tuple[Node, str] | None:
    """What stands for the node, and the origin of it if it is new; None where nothing matches."""
    matcher = _Matcher(uses)
    for bound in matcher.match(rule.pattern, node, {}, 0):
        result = rule.handler(Match(node, bound, order))
        if isinstance(result, Decline):
            matcher.fail(1000, result.reason)
            continue
        if result.type.shape != node.type.shape or result.type.dtype is not node.type.dtype:
            raise RuntimeError(f"rule {rule.name} turns {node} into {result}")
        budget.note(Event(rule.name, node.name, True))
        return result, _origin(rule.pattern, node, bound, result)
    if matcher.depth > 0:
        budget.note(Event(rule.name, node.name, False, matcher.reason))
    return None


def _origin(pattern: Pat, root: Node, bound: Mapping[str, Node], result: Node) -> str:
    """The origin of the matched node that has the result's operator; the root's without one."""
    inside = [root, *(bound[name] for name in _binds(pattern) if name in bound)]
    same = [node for node in inside if type(node.op) is type(result.op) and node.origin]
    return same[0].origin if same else root.origin


def _binds(pattern: Pattern) -> Iterator[str]:
    """The names of the nodes inside a match."""
    if isinstance(pattern, Pat):
        if pattern.bind:
            yield pattern.bind
        for inner in pattern.inputs:
            yield from _binds(inner)
