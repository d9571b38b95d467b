"""Constant borders into the padding of the convolution or pooling behind them."""

from __future__ import annotations

import math
from dataclasses import replace

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.clip import Clip
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.hard_sigmoid import HardSigmoid
from mdlc.compiler.ops.max_pool2d import MaxPool2D
from mdlc.compiler.ops.pad import Pad
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.ops.sigmoid import Sigmoid
from mdlc.compiler.rewrite import Budget, Decline, Match, Rule, Var, pat, rewrite

Pads = tuple[int, int, int, int]


def _border(m: Match, value: float) -> Pads | Decline:
    op = m["pad"].op
    assert isinstance(op, Pad)
    if op.mode != "constant" or op.value != value:
        return Decline(f"the border is not {value}")
    if len(op.begins) != 4 or any(op.begins[:2]) or any(op.ends[:2]):
        return Decline("images or channels are padded too")
    return op.begins[2], op.begins[3], op.ends[2], op.ends[3]


def _sum(a: Pads, b: Pads) -> Pads:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]


def _conv(m: Match) -> Node | Decline:
    pads, op = _border(m, 0.0), m.root.op
    assert isinstance(op, Conv2D)
    if isinstance(pads, Decline):
        return pads
    return make(replace(op, pads=_sum(op.pads, pads)), m["x"], *m.root.inputs[1:])


def _average(m: Match) -> Node | Decline:
    pads, op = _border(m, 0.0), m.root.op
    assert isinstance(op, AveragePool2D)
    if isinstance(pads, Decline):
        return pads
    if any(op.window.pads) and not op.include_pad:
        return Decline("two kinds of padding count differently")
    if op.window.ceil_mode:
        return Decline("windows beyond the padding would count it")
    window = replace(op.window, pads=_sum(op.window.pads, pads))
    return make(AveragePool2D(window, True), m["x"])


def _max(m: Match) -> Node | Decline:
    op, pad = m.root.op, m["pad"].op
    assert isinstance(op, MaxPool2D)
    assert isinstance(pad, Pad)
    pads = _border(m, pad.value)
    if isinstance(pads, Decline):
        return pads
    if op.window.ceil_mode:
        return Decline("windows that start in trailing padding would be dropped")
    window = replace(op.window, pads=_sum(op.window.pads, pads))
    if pad.value != -math.inf:
        # A border that is nowhere above the image never wins, where a window sees some image.
        if _least(m["x"]) < pad.value:
            return Decline("the border may be larger than the image")
        reach = (*window.extent, *window.extent)
        if window.dilation != (1, 1) or any(
            p >= e for p, e in zip(window.pads, reach, strict=True)
        ):
            return Decline("a window may see nothing but the border")
    return make(MaxPool2D(window), m["x"])


def _least(node: Node) -> float:
    """A bound below which no element is, as far as the operator tells."""
    op = node.op
    if isinstance(op, Relu | Sigmoid | HardSigmoid):
        return 0.0
    return op.low if isinstance(op, Clip) and op.low <= op.high else -math.inf


_PAD = pat(Pad, Var("x"), bind="pad", shared=True)
RULES = (
    Rule("pad_conv", pat(Conv2D, _PAD, ...), _conv),
    Rule("pad_average", pat(AveragePool2D, _PAD), _average),
    Rule("pad_max", pat(MaxPool2D, _PAD), _max),
)


def fuse_pad(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """Applies RULES."""
    return rewrite(graph, RULES, budget)
