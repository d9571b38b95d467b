"""The rewrite engine: what matches, what declines, in which order, at what cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.abs import Abs
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.exp import Exp
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.neg import Neg
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.sub import Sub
from mdlc.compiler.rewrite import Budget, Const, Decline, Match, Rule, Var, pat, rewrite
from mdlc.compiler.text import difference, parse_graph

ABS_TWICE = Rule("abs_twice", pat(Abs, pat(Abs, Var("x"))), lambda m: make(Abs(), m["x"]))
RELU_OF_NEG = Rule(
    "relu_of_neg", pat(Relu, pat(Neg, Var("x"), bind="neg")), lambda m: make(Exp(), m["x"])
)


def graph(*lines: str) -> Graph:
    return parse_graph("\n".join(('%x: f32[4] = Input() "x"', *lines)))


def expect(before: Graph, rules: tuple[Rule, ...], *lines: str) -> None:
    found = difference(rewrite(before, rules), graph(*lines))
    assert found is None, found


def test_rewrites_to_a_fixpoint() -> None:
    lines = ["%0: f32[4] = Abs()(%x)"]
    lines += [f"%{i}: f32[4] = Abs()(%{i - 1})" for i in range(1, 9)]
    expect(graph(*lines, "return y=%8"), (ABS_TWICE,), "%0: f32[4] = Abs()(%x)", "return y=%0")


def test_the_result_takes_over_the_name_of_the_root() -> None:
    before = graph(
        '%a: f32[4] = Neg()(%x) "inner"', '%b: f32[4] = Relu()(%a) "outer"', "return y=%b"
    )
    assert rewrite(before, (RELU_OF_NEG,)).outputs[0].name == "outer"


def test_an_inner_node_with_another_user_stays() -> None:
    lines = ("%a: f32[4] = Neg()(%x)", "%b: f32[4] = Relu()(%a)", "%c: f32[4] = Exp()(%a)")
    before = graph(*lines, "%d: f32[4] = Add()(%b, %c)", "return y=%d")
    expect(before, (RELU_OF_NEG,), *lines, "%d: f32[4] = Add()(%b, %c)", "return y=%d")


def test_an_inner_node_that_is_an_output_stays() -> None:
    lines = ("%a: f32[4] = Neg()(%x)", "%b: f32[4] = Relu()(%a)", "return y=%b, z=%a")
    expect(graph(*lines), (RELU_OF_NEG,), *lines)


def test_shared_lets_an_inner_node_have_other_users() -> None:
    rule = Rule("r", pat(Relu, pat(Neg, Var("x"), shared=True)), lambda m: make(Exp(), m["x"]))
    expect(
        graph("%a: f32[4] = Neg()(%x)", "%b: f32[4] = Relu()(%a)", "return y=%b, z=%a"),
        (rule,),
        "%b: f32[4] = Exp()(%x)",
        "%a: f32[4] = Neg()(%x)",
        "return y=%b, z=%a",
    )


def test_an_existing_node_can_be_the_result() -> None:
    """A node that a rewrite returns takes over the users of the one that it replaces."""
    to_x = Rule("neutral", pat(Sub, Var("x"), Const("c")), lambda m: m["x"])
    before = graph(
        "%a: f32[4] = Neg()(%x)",
        "%c: f32[4] = Full(0.0)",
        "%s: f32[4] = Sub()(%a, %c)",
        "%b: f32[4] = Relu()(%s)",
        "return y=%b",
    )
    expect(before, (to_x, RELU_OF_NEG), "%b: f32[4] = Exp()(%x)", "return y=%b")


@pytest.mark.parametrize("operands", ["%x, %c", "%c, %x"])
@pytest.mark.parametrize(("op", "either"), [("Add", True), ("Mul", True), ("Sub", False)])
def test_operands_of_commutative_operators_match_in_either_order(
    operands: str, op: str, either: bool
) -> None:
    cls = {"Add": Add, "Mul": Mul, "Sub": Sub}[op]
    rule = Rule("r", pat(cls, Var("x"), Const("c")), lambda m: make(Exp(), m["x"]))
    before = graph("%c: f32[4] = Full(3.0)", f"%y: f32[4] = {op}()({operands})", "return y=%y")
    fires = either or operands == "%x, %c"
    assert type(rewrite(before, (rule,)).outputs[0].op) is (Exp if fires else cls)


def test_one_variable_twice_is_one_node() -> None:
    rule = Rule("r", pat(Add, Var("x"), pat(Neg, Var("x"))), lambda m: make(Exp(), m["x"]))
    same = graph("%n: f32[4] = Neg()(%x)", "%y: f32[4] = Add()(%n, %x)", "return y=%y")
    assert isinstance(rewrite(same, (rule,)).outputs[0].op, Exp)
    other = graph(
        "%r: f32[4] = Abs()(%x)",
        "%n: f32[4] = Neg()(%r)",
        "%y: f32[4] = Add()(%n, %x)",
        "return y=%y",
    )
    assert isinstance(rewrite(other, (rule,)).outputs[0].op, Add)


def test_both_orders_are_tried_until_the_handler_agrees() -> None:
    """The first way to match binds the wrong operand, and the handler declines it."""

    def handler(m: Match) -> Node | Decline:
        return make(Exp(), m["a"]) if m["a"].name == "wanted" else Decline("not the wanted one")

    rule = Rule("r", pat(Add, pat(Abs, bind="a"), Var("b")), handler)
    before = graph(
        "%a: f32[4] = Abs()(%x)",
        '%b: f32[4] = Abs()(%a) "wanted"',
        "%k: f32[4] = Neg()(%x)",
        "%k2: f32[4] = Abs()(%k)",
        "%y: f32[4] = Add()(%k2, %b)",
        "return y=%y",
    )
    assert isinstance(rewrite(before, (rule,)).outputs[0].op, Exp)


def test_an_ellipsis_stands_for_any_further_inputs() -> None:
    def handler(m: Match) -> Node:
        return make(Reshape(m.root.shape), m["x"])

    several = Rule("r", pat(Concat, Var("x"), ...), handler)
    exactly = Rule("r", pat(Concat, Var("x")), handler)
    x = graph_input("x", (4,))
    empty = constant(np.zeros(0, np.float32))
    for count in (0, 1, 3):
        before = Graph((x,), (make(Concat(0), x, *[empty] * count),), ("y",))
        assert isinstance(rewrite(before, (several,)).outputs[0].op, Reshape)
        kept = rewrite(before, (exactly,)).outputs[0].op
        assert isinstance(kept, Concat) == (count > 0)


def test_a_condition_on_a_node() -> None:
    rule = Rule(
        "r",
        pat(Neg, Var("x"), where=lambda n: n.name == "this"),
        lambda m: make(Exp(), m["x"]),
    )
    before = graph('%a: f32[4] = Neg()(%x) "this"', '%b: f32[4] = Neg()(%a) "that"', "return y=%b")
    assert [type(n.op).__name__ for n in rewrite(before, (rule,)).order()] == [
        "Input",
        "Exp",
        "Neg",
    ]


def test_the_trace_says_what_fired_and_why_the_rest_did_not() -> None:
    def handler(m: Match) -> Node | Decline:
        return Decline("today is Tuesday")

    rules = (RELU_OF_NEG, Rule("moody", pat(Exp, Var("x")), handler))
    before = graph(
        '%a: f32[4] = Neg()(%x) "a"',
        '%b: f32[4] = Relu()(%a) "b"',
        '%c: f32[4] = Neg()(%b) "c"',
        '%d: f32[4] = Relu()(%c) "d"',
        '%e: f32[4] = Abs()(%d) "e"',
        '%f: f32[4] = Relu()(%e) "f"',
        "return y=%f, z=%c",
    )
    budget = Budget(traced=True)
    rewrite(before, rules, budget)
    told = [(e.rule, e.node, e.fired, e.reason) for e in budget.events]
    assert ("relu_of_neg", "b", True, "") in told
    assert ("relu_of_neg", "d", False, "Neg 'c' has other users") in told
    assert ("relu_of_neg", "f", False, "Abs is not what is looked for") in told
    assert ("moody", "b", False, "today is Tuesday") in told
    # Nothing is told about nodes that are not even the pattern's root.
    assert not any(e.node in ("a", "c", "e") for e in budget.events)


def test_no_trace_unless_asked() -> None:
    budget = Budget()
    rewrite(graph("%a: f32[4] = Neg()(%x)", "%b: f32[4] = Relu()(%a)", "return y=%b"),
            (RELU_OF_NEG,), budget)  # fmt: skip
    assert budget.events == []


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 9])
def test_the_budget_stops_after_so_many_rewrites(limit: int) -> None:
    lines = []
    for i in range(4):
        lines.append(f"%a{i}: f32[4] = Neg()({'%x' if i == 0 else f'%b{i - 1}'})")
        lines.append(f"%b{i}: f32[4] = Relu()(%a{i})")
    budget = Budget(limit)
    after = rewrite(graph(*lines, "return y=%b3"), (RELU_OF_NEG,), budget)
    done = [n for n in after.order() if isinstance(n.op, Exp)]
    assert len(done) == min(limit, 4)
    assert budget.left == max(limit - 4, 0)


def test_rules_that_undo_each_other_are_a_bug_that_is_told() -> None:
    there = Rule("there", pat(Neg, Var("x")), lambda m: make(Abs(), m["x"]))
    back = Rule("back", pat(Abs, Var("x")), lambda m: make(Neg(), m["x"]))
    with pytest.raises(RuntimeError, match=r"there.*back"):
        rewrite(graph("%a: f32[4] = Neg()(%x)", "return y=%a"), (there, back))


def test_a_rule_that_changes_the_type_is_a_bug_that_is_told() -> None:
    rule = Rule("flat", pat(Neg, Var("x")), lambda m: make(Reshape((2, 2)), m["x"]))
    with pytest.raises(RuntimeError, match="rule flat"):
        rewrite(graph("%a: f32[4] = Neg()(%x)", "return y=%a"), (rule,))


def test_the_old_graph_is_untouched() -> None:
    lines = ("%a: f32[4] = Neg()(%x)", "%b: f32[4] = Relu()(%a)", "return y=%b")
    before = graph(*lines)
    rewrite(before, (RELU_OF_NEG,))
    assert difference(before, graph(*lines)) is None


def _chain(length: int) -> Graph:
    node = x = graph_input("x", (4,))
    for _ in range(length):
        node = make(Relu(), make(Neg(), node))
    return Graph((x,), (node,), ("y",))


def test_deep_graphs_need_no_recursion_and_each_handler_runs_once() -> None:
    """Time that grows with the square of the length would show in the number of attempts."""
    for length in (1000, 4000):
        calls = 0

        def handler(m: Match) -> Node:
            nonlocal calls
            calls += 1
            return RELU_OF_NEG.handler(m)  # type: ignore[return-value]

        after = rewrite(_chain(length), (replace(RELU_OF_NEG, handler=handler),))
        assert sum(isinstance(n.op, Exp) for n in after.order()) == length
        assert calls == length


def test_the_root_may_have_many_users() -> None:
    expect(
        graph(
            "%a: f32[4] = Neg()(%x)",
            "%b: f32[4] = Relu()(%a)",
            "%c: f32[4] = Add()(%b, %b)",
            "return y=%c, z=%b",
        ),
        (RELU_OF_NEG,),
        "%b: f32[4] = Exp()(%x)",
        "%c: f32[4] = Add()(%b, %b)",
        "return y=%c, z=%b",
    )


def test_users_that_are_taken_over_count_at_once() -> None:
    """Neg has one user, the difference; when that goes, it has the two users of the difference."""
    to_x = Rule("neutral", pat(Sub, Var("x"), Const("c")), lambda m: m["x"])
    before = graph(
        "%a: f32[4] = Neg()(%x)",
        "%c: f32[4] = Full(0.0)",
        "%s: f32[4] = Sub()(%a, %c)",
        "%b: f32[4] = Relu()(%s)",
        "return y=%b, z=%s",
    )
    lines = ("%a: f32[4] = Neg()(%x)", "%b: f32[4] = Relu()(%a)", "return y=%b, z=%a")
    expect(before, (to_x, RELU_OF_NEG), *lines)
