"""Every schedule of every kernel, not just the winners, against the reference on awkward shapes.

The shapes are the operators' samples. A network has one copy of a sample's node for each of its
schedules, so that hundreds of them are one compilation and one run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from mdlc.codegen.isa.base import Isa
from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.kernel import candidates, seen_by
from mdlc.codegen.plan.views import is_alias
from mdlc.codegen.tiles.winograd_transform import transform
from mdlc.compiler.op import Op, Sample
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.types import Array, DType
from mdlc.passes.canonicalise import lower_batch_norm
from mdlc.passes.layout import assign_layout
from tests.layer_program import Layer, compute
from tests.op_samples import sampled_ops
from tests.targets import TARGETS, require
from tests.test_kernels import ATOL, HALF_RTOL, RTOL, half_atol, narrowed, network_of

# Compilations of a target, so that workers share them.
SHARDS = 6
# What is emitted is tested here, thousands of layers of it; test_kernels.py compiles as one ships.
FLAGS = ("-Og",)


@dataclass(frozen=True)
class Case:
    """One schedule of one sample."""

    layer: Layer
    sample: Sample

    def __str__(self) -> str:
        gap = f", pitch + {self.layer.gap}" if self.layer.gap else ""
        return f"{self.sample.op} {self.sample.label}: {self.layer.candidate.schedule}{gap}"

    def tolerance(self, expected: Array) -> tuple[float, float]:
        """Relative and absolute error allowed."""
        node, candidate = self.layer.node, self.layer.candidate
        if candidate.kernel.name == "conv_winograd":
            assert isinstance(node.op, Conv2D)
            taps = -(-node.inputs[1].shape[2] // node.op.stride[0])
            error = transform(candidate.schedule.block[0], taps, node.type.dtype).error
            return 0.0, error * float(np.abs(expected).max())
        if node.type.dtype is DType.F16:
            return HALF_RTOL, half_atol(expected)
        return max(self.sample.rtol, RTOL), max(self.sample.atol, ATOL)


def cases_of(cls: type[Op], isa: Isa) -> Iterator[Case]:
    """All schedules of all samples of an operator, where there is a choice."""
    graph, _ = network_of(cls)
    graph = narrowed(assign_layout(lower_batch_norm(graph)), isa)
    samples = {f"y{number}": sample for number, sample in enumerate(cls.samples())}
    for node in graph.order():
        if not isinstance(node.op, cls) or node.name not in samples or is_alias(node):
            continue
        # The kernels on floats are those of the target that it is tuned as.
        if isa.tuned_as and node.type.dtype.is_float and seen_by(node, isa).dtype is DType.F32:
            continue
        sample = samples[node.name]
        inputs = tuple(
            value.astype(source.type.dtype.numpy)
            for source, value in zip(node.inputs, sample.inputs, strict=True)
            if source.constant is None
        )
        found = candidates(node, isa)
        for number, each in enumerate(found if len(found) > 1 else ()):
            # Every other one reads and writes rows that do not touch.
            yield Case(Layer(node, each, inputs, gap=3 * (number % 2)), sample)


def cases(isa: Isa) -> list[Case]:
    """All cases of a target."""
    return [case for cls in sampled_ops() for case in cases_of(cls, isa)]


def disagreements(found: Sequence[Case], isa: Isa, folder: Path) -> list[str]:
    """Computes cases in one program; what differs from the reference, and by how much."""
    wrong = []
    results = compute([case.layer for case in found], isa, folder, FLAGS)
    for case, result in zip(found, results, strict=True):
        expected = case.sample.op.reference(*case.sample.inputs).astype(np.float64)
        relative, absolute = case.tolerance(expected)
        error = np.abs(result.output.astype(np.float64) - expected)
        # Not "any greater": what is not a number is wrong, too.
        if not np.all(error <= absolute + relative * np.abs(expected)):
            wrong.append(f"{case}: off by {np.max(error):.2g}")
        if not result.intact:
            wrong.append(f"{case}: writes where it must not")
    return wrong


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("target", TARGETS)
def test_every_schedule_agrees_with_reference(target: str, shard: int, tmp_path: Path) -> None:
    require(target)
    isa = find_isa(target)
    # Some of every operator and sample in each shard.
    found = cases(isa)[shard::SHARDS]
    assert not disagreements(found, isa, tmp_path)


@pytest.mark.parametrize(
    ("hook", "spelling", "complaint"),
    [
        ("fma", "({0} * {1} - {2})", "off by"),
        ("store", "({0})[1] = {1}, *({0}) = {1}", "writes where it must not"),
    ],
)
def test_a_wrong_tile_is_seen(hook: str, spelling: str, complaint: str, tmp_path: Path) -> None:
    """That the test above can fail: every schedule, with a wrong product or store."""
    isa = find_isa("generic")
    require(isa.name)
    dialect = replace(isa.f32, spell={**isa.f32.spell, hook: spelling})
    broken = replace(isa, dialects={DType.F32: dialect})
    found = [case for case in cases_of(Conv2D, isa) if case.sample.label in ("1x1", "3x3_deep")]
    wrong = disagreements(found, broken, tmp_path)
    seen = [text for text in wrong if complaint in text]
    assert len(found) > 20
    assert all(any(text.startswith(f"{case}:") for text in seen) for case in found)
