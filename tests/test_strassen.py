"""Strassen's algorithm in generated code: error against double precision, and when it is taken."""

from __future__ import annotations

import numpy as np
import pytest

from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.kernel import Candidate, candidates
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.run.executable import Executable
from mdlc.compiler.ir import Graph
from mdlc.compiler.types import Array
from mdlc.passes.layout import assign_layout
from tests.passes.ir import graph
from tests.targets import FLOAT_TARGETS, require

# Height, width, input channels, filters, residual: odd and even pixels, filters that no tile fits.
SHAPES = [(7, 9, 64, 128, False), (8, 7, 96, 160, True), (13, 9, 224, 96, False)]


def pointwise(h: int, w: int, channels: int, filters: int, *, residual: bool = False) -> Graph:
    more = f'%r: f32[1,{filters},{h},{w}] = Input() "r"\n' if residual else ""
    attributes, operand = ("residual=True", ", %r") if residual else ("", "")
    return assign_layout(
        graph(
            f'%x: f32[1,{channels},{h},{w}] = Input() "x"\n{more}'
            f"%w: f32[{filters},{channels},1,1] = Random(1)\n%b: f32[{filters}] = Random(2)\n"
            f"%y: f32[1,{filters},{h},{w}] = Conv2D({attributes})(%x, %w, %b{operand})"
            ' "y"\nreturn y=%y'
        )
    )


def of_strassen(network: Graph, target: str) -> list[Candidate]:
    found = candidates(network.outputs[0], find_isa(target))
    return [each for each in found if each.kernel.name == "conv_strassen"]


def in_double(network: Graph, values: dict[str, Array]) -> tuple[Array, Array]:
    """The outputs in double precision, and the largest product of the sums that make them."""
    w, b = (source.constant for source in network.outputs[0].inputs[1:3])
    assert w is not None
    assert b is not None
    x = values["x"].astype(np.float64)
    y = np.einsum("mc,nchw->nmhw", w[:, :, 0, 0].astype(np.float64), x) + b[:, None, None]
    return y + values.get("r", 0.0), np.abs(x).max() * np.abs(w).max()


@pytest.mark.parametrize("target", FLOAT_TARGETS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s[:4])))
def test_error_against_double_precision(
    shape: tuple[int, int, int, int, bool], threads: int, target: str
) -> None:
    """Within the bound of Higham's section 23.2.2, which the generated code names."""
    require(target)
    h, w, channels, filters, residual = shape
    network = pointwise(h, w, channels, filters, residual=residual)
    generator = np.random.default_rng(0)
    values = {
        node.name: generator.uniform(-1, 1, node.shape).astype(np.float32)
        for node in network.inputs
    }
    wanted, largest = in_double(network, values)
    bound = (9 * channels + 96) * channels / 2 * 2.0**-24 * largest
    found = of_strassen(network, target)
    # The cheapest, the widest and the highest tile; those of panels and not.
    chosen = {found[0].schedule, max((c.schedule for c in found), key=lambda s: s.tile[1])}
    chosen |= {max((c.schedule for c in found), key=lambda s: s.tile[0])}
    chosen |= {next((c.schedule for c in found if not c.schedule.panels), found[0].schedule)}
    for schedule in sorted(chosen, key=str):
        plan = lower(
            network, find_isa(target), "Product", schedules={"y": schedule}, threads=threads
        )
        actual = Executable(plan)(values)["y"]
        error = np.abs(actual - wanted).max()
        assert 0 < error <= bound, schedule
        # The bound is loose; what is seen is a few times a plain sum's.
        assert error <= 40 * 2.0**-24 * np.abs(wanted).max(), schedule


def test_only_large_products_are_worth_it() -> None:
    """On NEON, where seven products of 98x256x256 take less than one of 196x512x512."""
    isa = find_isa("arm-neon")
    large = candidates(pointwise(14, 14, 512, 512).outputs[0], isa)[0]
    assert large.kernel.name == "conv_strassen"
    for h, channels, filters in ((56, 64, 128), (7, 1024, 1024), (14, 96, 576)):
        best = candidates(pointwise(h, h, channels, filters).outputs[0], isa)[0]
        assert best.kernel.name == "conv_direct", (h, channels, filters)


def test_few_pixels_or_channels_are_no_candidates() -> None:
    for h, channels, filters in ((3, 512, 512), (14, 40, 512), (14, 512, 40), (14, 516, 512)):
        assert not of_strassen(pointwise(h, h, channels, filters), "x86-avx2")
